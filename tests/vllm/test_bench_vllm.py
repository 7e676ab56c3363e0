"""What is measured of vLLM, quickly: that it runs, and that verdicts are the same."""

from __future__ import annotations

import re

import pytest

from benchmarks import check_gpu
from benchmarks.engines import equal
from benchmarks.engines.__main__ import main


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Play few sessions, and short ones."""
    monkeypatch.setattr(equal, "AT_ONCE", 4)
    monkeypatch.setattr(equal, "LONG", (100,))
    monkeypatch.setattr(check_gpu.rounding, "LENGTHS", (3, 20))


def test_vllm_equals_transformers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(equal, "MODES", equal.MODES[:2])  # of one engine
    assert main(["equal", "--rounds", "24"]) == 0
    printed = capsys.readouterr().out
    assert "vllm" in printed
    assert printed.count("100.00 %") == 2


def test_gpu_check_rehearses(capsys: pytest.CaptureFixture[str]) -> None:
    command = "--device cpu --rounds 8 --sessions 1 --seconds 0"
    assert check_gpu.main(command.split()) in (0, 1)  # few rounds of bfloat16
    printed = capsys.readouterr().out
    for name in ("vLLM, float32", "vLLM, float32, half the memory"):
        assert re.search(rf"^{name} +passes", printed, re.M)
    assert re.search(r"^rounds/s \(sessions\), vLLM, bfloat16 +\d", printed, re.M)
