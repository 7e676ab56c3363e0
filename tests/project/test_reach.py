"""The steps of .ci/run that a change reaches."""

import re

import pytest

from tests.project import reach
from tests.project.test_tree import ROOT

ENGINES = {"test-llama", "test-ray", "test-vllm"}


@pytest.mark.parametrize(
    ("changed", "within", "without"),
    [
        ("docs/faq.md", {"docs"}, {"bench-test", "test-web", "wheels"} | ENGINES),
        ("docs/playground/index.html", {"docs", "test-web"}, ENGINES),
        ("sqs_codec/system/edge/_loop.py", ENGINES, {"test-trainers", "prove"}),
        ("sqs_codec/trainers/__init__.py", {"test-trainers"}, {"wheels"} | ENGINES),
        ("sqs_codec/_codec/keep.py", {"test-trainers"} | ENGINES, {"prove"}),
        ("sqs_codec/system/proxy/page/page.js", {"test-web"}, ENGINES),
        ("csrc/api.c", {"bindings", "prove", "test-disguised", "wheels"}, ENGINES),
        ("tests/system/vllm/kit.py", {"test-vllm"}, {"test-ray", "test-llama"}),
        ("tests/project/mutants.txt", set(), reach.STEPS),
        *((file, reach.STEPS, set()) for file in ("Makefile", "conftest.py", "new")),
    ],
)
def test_a_change_reaches_its_users(changed, within, without):
    found = {*reach.steps([changed])}
    assert within <= found
    assert not found & without


def test_slow_tests_are_reached_from_their_imports(monkeypatch):
    files = {"tests.codec.test_quantize": "a", "tests.system.edge.test_loop": "b"}
    monkeypatch.setattr(reach, "slow_files", lambda: files)
    assert reach.steps(["sqs_codec/system/edge/_loop.py"])["test-slow"] == ["b"]
    assert reach.steps(["csrc/api.c"])["test-slow"] == ["a", "b"]
    assert "test-slow" not in reach.steps(["docs/faq.md"])


def test_each_step_is_one_of_ci():
    ci = (ROOT / ".ci" / "run").read_text()
    assert {*re.findall(r"\b(?:step|wanted) ([\w-]+)", ci)} >= reach.STEPS
