"""The ``sqs`` command from its first line: Ctrl-C ends it with 130 and not a word.

While modules are imported and models load, an exception could come anywhere, and be
shown, or caught by others. `sqs_codec.cli.options.interrupts_raise` has it come where
there is something to leave in order. This module isn't in the package, as that imports
NumPy before anything of it.
"""

import os
import signal


def _end(*_: object) -> None:
    os._exit(130)


if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not if ignored
    signal.signal(signal.SIGINT, _end)


def main() -> int:
    """Run the command line, for the console script and ``python -m sqs_codec``."""
    # A step of a small draft is too short to be shared. NumPy reads this as it loads.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from sqs_codec.cli.main import main

    status = main()
    if status == 130:  # all is left in order; to free what was loaded takes seconds
        os._exit(status)
    return status
