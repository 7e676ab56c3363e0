"""A server of a stored teacher, for what asks one."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.commands import free_port


@contextmanager
def serving(path: Path, *options: str) -> Iterator[str]:
    """Serve a file on this machine; yield its address."""
    address = f"127.0.0.1:{free_port()}"
    called = sys.executable, "-m", "sqs_codec", "distill", "serve", str(path)
    given = "--listen", address, *options
    with subprocess.Popen([*called, *given], stderr=subprocess.PIPE) as server:
        assert server.stderr is not None
        try:
            server.stderr.readline()  # once it listens
            yield f"http://{address}"
        finally:
            server.terminate()
