"""The processes that a process has started."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psutil

REPLICA = "ray::ServeReplica:sqs:Replica"


def descendants(ancestor: int | None = None) -> dict[int, str]:
    """The command lines of all below a process, by default this one, by process id."""
    found = {}
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(ancestor).children(recursive=True):
            with suppress(psutil.Error):  # it has ended meanwhile
                found[process.pid] = " ".join(process.cmdline())
    return found


def replicas(ancestor: int | None = None) -> set[int]:
    """The replicas below a process, by default this one."""
    below = descendants(ancestor).items()
    return {pid for pid, command in below if command.startswith(REPLICA)}


@contextmanager
def nothing_left() -> Iterator[None]:
    """Check that processes that a block starts end with it."""
    before = {*descendants()}
    yield
    wait_until(lambda: {*descendants()} == before)


def wait_until(condition: Callable[[], bool], seconds: float = 180) -> None:
    """Wait for a condition in other processes."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
