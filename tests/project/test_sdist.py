"""What is published can be made again from its commit, to the byte."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.all

if not (ROOT / ".git").exists():
    pytest.skip("needs a clone, which has a commit", allow_module_level=True)


def sdist(folder, umask, **env):
    """Build the commit's sdist, as `make sdist` does."""
    how = {"umask": umask, "capture_output": True, "text": True}
    env = os.environ | {"PYTHON": sys.executable} | env
    done = subprocess.run([ROOT / ".ci" / "sdist", folder], env=env, **how)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def test_two_builds_of_a_commit_are_the_same(tmp_path):
    here = sdist(tmp_path / "here", 0o022)
    there = sdist(tmp_path / "there", 0o077, TZ="Asia/Tokyo", LC_ALL="C")
    assert here.name == there.name
    assert here.read_bytes() == there.read_bytes()
    with tarfile.open(here) as archive:
        members = archive.getmembers()
    assert members
    assert {(m.uid, m.gid, m.uname) for m in members} == {(0, 0, "")}
    assert len({m.mtime for m in members}) == 1
