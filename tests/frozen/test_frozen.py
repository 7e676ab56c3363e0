"""Files of every released version are read correctly."""

import json
import math
from pathlib import Path

import pytest

import sqs_codec as sqs
from tests.frozen import make


def require(found, expected, where):
    """Compare, except for fields that later versions added."""
    if isinstance(expected, dict):
        for name, value in expected.items():
            require(found[name], value, f"{where}.{name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for i, pair in enumerate(zip(found, expected, strict=True)):
            require(*pair, f"{where}[{i}]")
    elif isinstance(expected, float):
        assert math.isclose(found, expected, rel_tol=1e-4, abs_tol=1e-5), where
    else:
        assert found == expected, where


@pytest.mark.parametrize(
    "folder", [*make.FROZEN.glob("[0-9]*")], ids=lambda path: path.name
)
def test_files_of_every_version_are_read(folder: Path):
    expected = json.loads((folder / "contents.json").read_text("utf-8"))
    require(make.contents(folder), expected, folder.name)


def test_frozen_files_are_not_overwritten(tmp_path, monkeypatch):
    monkeypatch.setattr(make, "FROZEN", tmp_path)
    (tmp_path / sqs.__version__).mkdir()
    with pytest.raises(SystemExit, match="is frozen: every later version has to read"):
        make.main()
