"""Reading regular files only, and writing them atomically."""

import contextlib
import errno
import os
import stat
import sys
import threading
from pathlib import Path
from typing import IO


def require_file(path: str | os.PathLike[str]) -> None:
    """Reject anything but a regular file: opening a FIFO would wait for a writer."""
    mode = Path(path).stat().st_mode
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "folder", stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket"}
        kind = kinds.get(stat.S_IFMT(mode), "device")
        raise ValueError(f"{path} must be a file, but is a {kind}")


def own_folder(path: str | os.PathLike[str]) -> None:
    """Make a folder; reject an existing one that others own or may write in."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o755)
        return
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or not _is_of_user(found):
        raise ValueError(f"{path} must be your own folder: choose another path")
    around = os.stat(Path(path).parent).st_mode
    anyway = 0 if around & stat.S_ISVTX else around  # may replace the folder
    if hasattr(os, "geteuid") and found.st_mode & ~anyway & 0o022:
        raise ValueError(f"others may write in {path}: remove it, or chmod go-w it")
    for file in Path(path).iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process removed it
            if not is_own(file):
                words = "must be your own regular file without hard links: remove it"
                raise ValueError(f"{file} {words}")


def leave_folder(path: str | os.PathLike[str], *names: str) -> None:
    """Remove the files that match `names`, then the folder, if it is empty."""
    with contextlib.suppress(OSError):  # another process may already use it again
        for name in names:
            for rest in Path(path).glob(name):
                rest.unlink()
        Path(path).rmdir()


def is_own(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is this user's regular file, without hard links."""
    found = os.lstat(path)
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and _is_of_user(found)


def _is_of_user(found: os.stat_result) -> bool:
    return not hasattr(os, "geteuid") or found.st_uid == os.geteuid()


def read_file(path: str | os.PathLike[str], most: int) -> bytes:
    """Return at most the first `most` bytes of a regular file."""
    require_file(path)
    with Path(path).open("rb") as file:
        return file.read(most)


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write or replace a regular file; on failure the old one stays."""
    to = Path(os.path.realpath(path))  # resolve() raises on a loop of links
    mode = 0o666
    if to.exists():
        require_file(path)
        mode = stat.S_IMODE(to.stat().st_mode)
    part = to.with_name(f".{to.name}.{os.getpid()}.{threading.get_ident()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        with open(os.open(part, flags, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, to)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and not error.filename:  # such as a full disk
            error.filename = os.fspath(path)
        raise


def lock_file(path: str | os.PathLike[str]) -> IO[bytes]:
    """Open and lock a file; BlockingIOError if another process holds the lock."""
    flags = os.O_WRONLY | os.O_CREAT
    for name in ("O_NOFOLLOW", "O_NONBLOCK"):  # not on Windows
        flags |= getattr(os, name, 0)
    file = open(os.open(path, flags, 0o666), "ab")  # noqa: SIM115  # the caller closes it
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.close()
        reason = "in use by another process"
        raise BlockingIOError(errno.EAGAIN, reason, str(path)) from None
    return file
