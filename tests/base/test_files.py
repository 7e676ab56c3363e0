"""Files: others are refused at once, and a failed write leaves the old file."""

import os
import resource
import signal
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import sqs_codec as sqs
from sqs_codec._base.files import lock_file, read_file, require_file, write_file
from tests.refusals import refuses


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


KINDS: dict[str, Callable[[Path], None]] = {
    "FIFO": os.mkfifo,
    "socket": make_socket,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "folder": Path.mkdir,
}


@pytest.fixture(params=KINDS)
def no_file(request, tmp_path):
    """Return what is no file, and what it is called."""
    path = tmp_path / "it"
    KINDS[request.param](path)
    return path, f"{path} must be a file, but is a {request.param}"


def test_anything_but_a_file_is_refused(no_file):
    path, words = no_file
    refuses(words, require_file, path)
    refuses(words, write_file, path, b"")
    assert not stat.S_ISREG(path.stat().st_mode)
    refuses(words, read_file, path, 1)
    refuses(words, sqs.Prior.load, path)


def test_links_and_fifos_are_refused_as_locks(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("file")
    for name in ("fifo", "link"):
        refuses(f"/{name}'", lock_file, tmp_path / name, error=OSError)
    assert not (tmp_path / "file").exists()


def test_a_file_is_read_up_to_a_limit(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(FileNotFoundError):
        read_file(path, 5)
    path.write_bytes(b"12345678")
    assert read_file(path, 5) == b"12345"
    assert read_file(path, 9) == b"12345678"


@pytest.fixture
def full_disk():
    """Let no file grow beyond 1000 bytes, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_keeps_the_old_prior(tmp_path, request):
    path = tmp_path / "my.sqsprior"
    prior = sqs.Prior.from_counts(np.arange(50_000))
    prior.save(path)
    request.getfixturevalue("full_disk")
    with pytest.raises(OSError, match=rf"File too large: .*/{path.name}'"):
        sqs.Prior.from_counts(np.arange(50_000)[::-1]).save(path)
    assert sqs.Prior.load(path) == prior
    assert os.listdir(tmp_path) == [path.name]


def test_an_overwritten_file_keeps_its_mode_and_link(tmp_path):
    path, link = tmp_path / "file", tmp_path / "link"
    write_file(path, b"1")
    assert not stat.S_IMODE(path.stat().st_mode) & 0o111
    path.chmod(0o640)
    link.symlink_to(path)
    write_file(link, b"2")
    assert link.is_symlink()
    assert path.read_bytes() == b"2"
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    write_file(loop, b"3")
    assert loop.read_bytes() == b"3"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
