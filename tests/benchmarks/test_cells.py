"""The world of `tests.world`: its clock, and what a token takes."""

import numpy as np
import pytest

import sqs_codec as sqs
from benchmarks.harness.cells import Cell, Text, simulate
from sqs_codec.system.edge import FixedPlan, Hints
from sqs_codec.system.session import Setting
from tests.relay import Link
from tests.world import Steps, World

V, TOKENS = 40, 30
SETTINGS = (Setting(sqs.Codec(V), sqs.TopK(8)),)
STEPS = Steps(0.01, 0.1, 0.02)


@pytest.fixture
def text(tmp_path):
    """Models that agree somewhat."""
    target = 3 * np.random.default_rng(0).standard_normal((TOKENS, V), "f4")
    draft = target + np.random.default_rng(1).standard_normal((TOKENS, V), "f4")
    files = tmp_path / "draft.npy", tmp_path / "target.npy"
    for file, rows in zip(files, (draft, target), strict=True):
        np.save(file, rows)
    return Text((1,), *files)


def cell(text, plan):
    link = Link(1e6, 0.04, jitter=0.1)
    return Cell("", link, (text,), TOKENS, SETTINGS, plan, STEPS)


def test_time_passes_from_event_to_event():
    world, seen = World(), []
    for due in (3, 1, 2):
        world.at(due, lambda due=due: seen.append((due, world.now)))
    world.sleep(2.5)
    assert seen == [(1, 1), (2, 2)]
    assert world.now == 2.5


def test_an_event_that_fails_is_told_who_waits():
    world = World()
    world.at(1, lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        world.wait(2)
    assert world.now == 1


def test_a_token_takes_what_is_stated(text):
    """The cloud decodes one after the other, and the first has a trip and a message."""
    (alone,) = simulate(cell(text, FixedPlan(0)))
    least = TOKENS * STEPS.target
    assert least + 0.03 < alone.seconds < least + 0.06
    assert alone.passes == TOKENS


@pytest.mark.parametrize("plan", [FixedPlan(0), FixedPlan(2), FixedPlan(hints=Hints())])
def test_texts_come_out_the_same_each_time(text, plan):
    given = cell(text, plan)
    assert simulate(given) == simulate(given)
