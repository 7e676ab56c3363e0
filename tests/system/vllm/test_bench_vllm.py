"""What is measured of vLLM, quickly: that it runs, and that verdicts are the same."""

from __future__ import annotations

import pytest

from benchmarks.engines import equal
from benchmarks.engines.__main__ import main


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Play few sessions, and short ones."""
    monkeypatch.setattr(equal, "AT_ONCE", 4)
    monkeypatch.setattr(equal, "LONG", (100,))


def test_vllm_equals_transformers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(equal, "MODES", equal.MODES[:2])  # of one engine
    assert main(["equal", "--rounds", "24"]) == 0
    printed = capsys.readouterr().out
    assert "vllm" in printed
    assert printed.count("100.00 %") == 2
