"""``python -m sqs_codec`` is the ``sqs`` command."""

import sys

from _sqs_command import main

if __name__ == "__main__":
    sys.exit(main())
