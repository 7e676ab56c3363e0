"""Files, read only where there are any, and written whole or not at all."""

import contextlib
import errno
import os
import stat
import sys
import threading
from pathlib import Path
from typing import IO


def require_file(path: str | os.PathLike[str]) -> None:
    """Refuse what is no regular file: to open a FIFO would wait for who writes it."""
    mode = Path(path).stat().st_mode
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "folder", stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket"}
        kind = kinds.get(stat.S_IFMT(mode), "device")
        raise ValueError(f"{path} is a {kind}, and must be a file")


def own_folder(path: str | os.PathLike[str]) -> None:
    """Make a folder of this user's files; refuse one of somebody else, as in /tmp."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o755)
        return
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or not _is_of_user(found):
        raise ValueError(f"{path} must be this user's own folder: write elsewhere")
    around = os.stat(Path(path).parent).st_mode
    anyway = 0 if around & stat.S_ISVTX else around  # they could replace all of it
    if hasattr(os, "geteuid") and found.st_mode & ~anyway & 0o022:
        raise ValueError(f"others may write in {path}: remove it, or chmod go-w it")
    for file in Path(path).iterdir():
        with contextlib.suppress(FileNotFoundError):  # of who is at it right now
            if not is_own(file):
                words = "must be this user's own file, with no other name: remove it"
                raise ValueError(f"{file} {words}")


def leave_folder(path: str | os.PathLike[str], *names: str) -> None:
    """Remove a folder of `own_folder` with what is called so, and nobody else's."""
    with contextlib.suppress(OSError):  # the next one may be there already
        for name in names:
            for rest in Path(path).glob(name):
                rest.unlink()
        Path(path).rmdir()


def is_own(path: str | os.PathLike[str]) -> bool:
    """Whether a name is the only one of a regular file of this user's."""
    found = os.lstat(path)
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and _is_of_user(found)


def _is_of_user(found: os.stat_result) -> bool:
    return not hasattr(os, "geteuid") or found.st_uid == os.geteuid()


def read_file(path: str | os.PathLike[str], most: int) -> bytes:
    """Return what a regular file holds, and no more of it than so many bytes."""
    require_file(path)
    with Path(path).open("rb") as file:
        return file.read(most)


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file, over a regular one that is there; if that fails, that one stays."""
    to = Path(os.path.realpath(path))  # resolve() raises at a loop of links
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
        if isinstance(error, OSError) and not error.filename:  # the disk is full
            error.filename = os.fspath(path)
        raise


def lock_file(path: str | os.PathLike[str]) -> IO[bytes]:
    """Open a file and lock it, or raise BlockingIOError if somebody else has."""
    flags = os.O_WRONLY | os.O_CREAT
    for name in ("O_NOFOLLOW", "O_NONBLOCK"):  # where there are links and FIFOs
        flags |= getattr(os, name, 0)
    file = open(os.open(path, flags, 0o666), "ab")  # noqa: SIM115  # the caller's to close
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.close()
        raise BlockingIOError(errno.EAGAIN, "in use by another", str(path)) from None
    return file
