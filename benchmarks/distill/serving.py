"""A server of a stored teacher, for what asks one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.commands import running


@contextmanager
def serving(path: Path, *options: str) -> Iterator[str]:
    """Serve a file on this machine; yield its address."""
    command = ["distill", "serve", str(path), "--listen", "127.0.0.1:0", *options]
    with running(command, r" at http://127\.0\.0\.1:(\d+): ") as port:
        yield f"http://127.0.0.1:{port}"
