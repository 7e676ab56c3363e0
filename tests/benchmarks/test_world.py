"""The world of `benchmarks.world`: who goes on when, and what one call is for."""

from dataclasses import replace

import numpy as np
import pytest

import sqs_codec as sqs
from benchmarks.harness import cells
from benchmarks.harness.cells import Cell, Text, share, simulate
from benchmarks.harness.recorded import RecordedVerifier, Steps
from benchmarks.world import World
from sqs_codec.system.edge import FixedPlan, Hints
from sqs_codec.system.session import Setting
from tests.relay import Link

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


def test_those_who_wait_go_on_in_the_order_of_their_times():
    world, seen = World(), []

    def one(pause):
        for _ in range(3):
            world.sleep(pause)
            seen.append(pause)
        return world.now

    assert world.together([lambda p=p: one(p) for p in (2.0, 3.5)]) == [6.0, 10.5]
    assert seen == [2.0, 3.5, 2.0, 2.0, 3.5, 3.5]


def test_one_that_fails_leaves_the_others_their_turns():
    world, done = World(), []

    def fail():
        world.sleep(1)
        raise ZeroDivisionError

    def go_on():
        world.sleep(2)
        done.append(world.now)

    with pytest.raises(ZeroDivisionError):
        world.together([fail, go_on])
    assert done == [2.0]


@pytest.mark.parametrize("due", [-1, 1.5])
def test_an_event_that_fails_is_told_once_all_have_ended(due):
    world, done = World(), []

    def go_on(seconds):
        world.wait(seconds)
        done.append(world.now)
        raise ValueError  # less than what came before

    world.at(due, lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        world.together([lambda s=s: go_on(s) for s in (3, 1, 2)])
    assert done == [1, 2, 3]
    assert world.together([lambda: 5]) == [5]


def test_an_event_that_fails_is_told_who_waits_alone():
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
def test_sessions_share_calls_and_come_out_the_same_each_time(text, plan, monkeypatch):
    sizes = []

    class Counting(RecordedVerifier):
        def verify(self, jobs):
            sizes.append(len(jobs))
            return super().verify(jobs)

    monkeypatch.setattr(cells, "RecordedVerifier", Counting)
    given = replace(cell(text, plan), steps=STEPS._replace(more=0.001))
    alone, four, again = (share(given, n) for n in (1, 4, 4))
    assert four == again
    assert 2.5 * alone < four < 4.2 * alone
    assert max(sizes) >= 3
