"""What is measured of vLLM, quickly: that it runs, and that verdicts are the same."""

from benchmarks.engines import equal
from benchmarks.engines.__main__ import main


def test_vllm_equals_transformers(capsys, monkeypatch):
    two = equal.modes(4)[:2]  # of one engine
    monkeypatch.setattr(equal, "modes", lambda _: two)
    arguments = ["--rounds", "24", "--sessions", "4", "--long", "100"]
    assert main(["equal", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "vllm" in printed
    assert printed.count("100.00 %") == 2
