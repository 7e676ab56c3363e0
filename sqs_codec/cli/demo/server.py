"""A server of `sqs serve` in a process beside this one, which it doesn't outlive."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence

CHILD = [sys.executable, __file__]

READY = re.compile(r"Serving (.*) at 127\.0\.0\.1:(\d+) ")

PATIENCE = 10.0
"""Seconds that a server whose link has broken has to say its last words."""


class Server:
    """A server: a context manager, in which models can be loaded meanwhile.

    Once it is `wait`-ed for, it has an address, and a summary in its own words.
    """

    def __init__(self, options: Sequence[str]) -> None:
        self._options = options
        self._said = deque[str](maxlen=20)
        self._ready = threading.Event()
        self.summary = self.address = ""

    def __enter__(self) -> Server:
        """Start it."""
        served = ["serve", "--insecure", "--transport", "datagram", "--port", "0"]
        cores = max(1, (os.cpu_count() or 2) - 1)  # one is the draft's
        self._process = subprocess.Popen(
            [*CHILD, *served, *self._options],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env={
                "OMP_NUM_THREADS": str(cores),
                **os.environ,
                "PYTHONPATH": os.pathsep.join(sys.path),  # so it is this package
                "SQS_TOKEN": "",  # or it would be asked of the demo
            },
            start_new_session=True,  # Ctrl-C is for this process
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self, kind: object, error: BaseException | None, trace: object
    ) -> None:
        """End it; if it has ended by itself, a link's error says what it said."""
        process = self._process
        assert process.stdin is not None
        if isinstance(error, ConnectionError):
            self._reader.join(PATIENCE)
        ended = not self._reader.is_alive()
        with contextlib.suppress(OSError):  # nobody reads it
            process.stdin.close()  # see `child`
        process.wait()
        self._reader.join()
        if ended and isinstance(error, ConnectionError):
            raise ValueError(self._last_words("has ended")) from error

    def wait(self) -> None:
        """Wait until it serves."""
        self._ready.wait()
        if not self.address:
            raise ValueError(self._last_words("didn't start"))

    def _last_words(self, what: str) -> str:
        words = "\n".join(self._said)
        return (
            f"the server {what}, with status {self._process.wait()}. It said:\n{words}"
        )

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                self._said.append(line.rstrip())
                if found := READY.match(line):
                    self.summary = found[1].rstrip(",")
                    self.address = f"127.0.0.1:{found[2]}"
                    self._ready.set()
        self._ready.set()


def child() -> int:
    """Run a command in this process until that which started it ends, however."""

    def watch() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
    from sqs_codec.cli.main import main

    return main()


if __name__ == "__main__":
    sys.exit(child())
