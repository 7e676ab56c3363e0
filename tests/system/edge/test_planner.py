"""The planner: what it chooses on which link, how it learns, and what it is worth."""

from __future__ import annotations

import copy
import dataclasses
import math
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

import sqs_codec as sqs
from benchmarks.data.drafts import VOCAB_SIZE
from benchmarks.planner import __main__ as benchmark
from sqs_codec.system.edge import FixedPlan, Hints, Observation, Plan, Planner
from sqs_codec.system.session import Sampling, Setting

FAST = {1: 0.030, 6: 0.0375}
SLOW = {1: 0.120, 6: 0.150}
SETTINGS = [
    Setting(sqs.Codec(VOCAB_SIZE, resolution), sqs.TopK(k))
    for resolution, k in ((32, 16), (400, 128))
]
DRAFT_STEP = 0.015


@lru_cache
def fresh() -> Planner:
    """For few bytes, and only to be copied."""
    sampling = Sampling(0.7)
    return Planner(SETTINGS, sampling=sampling, prefer="bytes", draft_step=DRAFT_STEP)


class Link:
    """What a planner sees of a link, without any scatter."""

    def __init__(
        self,
        rate: float,
        trip: float,
        steps: dict[int, float] = SLOW,
        acceptance: float = 0.75,
        seed: int = 0,
    ) -> None:
        self.rate, self.trip, self.steps = rate, trip, steps
        self.acceptance = acceptance
        self.rng = np.random.default_rng(seed)

    def observed(self, plan: Plan, late: float = 0.0) -> Observation:
        """What comes of a plan."""
        if plan.length == 0:
            bytes_up, accepted, verify = 4, 8, self.steps[1]
        else:
            bytes_up = 4 + 13 * plan.length
            rejections = self.rng.random(plan.length) > self.acceptance
            accepted = int(rejections.argmax()) if rejections.any() else plan.length
            more = (self.steps[6] - self.steps[1]) / 5
            verify = self.steps[1] + more * plan.length
        wait = 8 * (bytes_up + 166) / self.rate + self.trip + verify + late
        drafting = plan.length * DRAFT_STEP
        return Observation(
            plan, plan.length, accepted, bytes_up, drafting, wait, self.steps
        )


ONE = Plan(4, 0, "to measure")
TWO = Plan(1, 0, "to measure")
LONG = Plan(16, 0, "to measure")


def taught(link: Link) -> Planner:
    """A planner that has seen rounds of two sizes over a link."""
    planner = copy.deepcopy(fresh())
    for n in range(60):
        planner.observe(link.observed(LONG if n % 2 else TWO))
    return planner


def settled(link: Link) -> Planner:
    """One that has also used up what it may lose to measure."""
    planner = taught(link)
    for _ in range(30):
        planner.plan()
    return planner


def bits_a_position(planner: Planner, plan: Plan) -> float:
    return float(planner._table.bits[plan.setting])


# What it chooses


def test_thinner_uplinks_never_send_more_bits_a_position() -> None:
    chosen = []
    for rate in (2e4, 4e4, 1e5, 1e6, 1e8):
        planner = taught(Link(rate, 0.02))
        plan = planner.plan()
        assert plan.length, planner.reason
        chosen.append(bits_a_position(planner, plan))
    assert chosen == sorted(chosen)
    assert chosen[0] < chosen[-1]


def test_long_round_trips_make_drafts_longer() -> None:
    slow = {1: 1.0, 6: 1.1}  # so that drafting pays in any case
    lengths = [
        taught(Link(1e7, trip, slow, 0.7)).plan().length for trip in (0.005, 0.1, 1.0)
    ]
    assert lengths == sorted(lengths)
    assert 0 < lengths[0] < lengths[-1]


@pytest.mark.parametrize(
    ("link", "why"),
    [
        (Link(2e3, 0.05, FAST), "a thin uplink and a fast cloud"),
        (Link(1e8, 0.3, FAST), "a long round trip and a fast cloud"),
        (Link(1e8, 0.005, SLOW, acceptance=0.05), "hopeless drafts"),
    ],
)
def test_the_cloud_decodes_alone_where_drafting_does_not_pay(
    link: Link, why: str
) -> None:
    planner = settled(link)
    assert planner.plan().length == 0, why
    assert planner.reason.startswith("the cloud decodes alone: ")


def test_a_slow_cloud_behind_a_good_link_gets_drafts() -> None:
    assert taught(Link(1e8, 0.005, SLOW)).plan().length > 1


def test_better_drafts_are_longer() -> None:
    lengths = [
        taught(Link(1e8, 0.05, acceptance=a)).plan().length for a in (0.6, 0.75, 0.98)
    ]
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]


@pytest.mark.parametrize("temperature", [0.0, 1e-300, 0.001, 1.5])
@pytest.mark.parametrize("vocab_size", [2, 300, 60_000])
def test_any_vocabulary_and_temperature_has_a_plan(
    temperature: float, vocab_size: int
) -> None:
    keeps = [sqs.TopK(8), sqs.TopP(0.9), sqs.Conformal(0.05, 0.1), sqs.MinP(0.02)]
    settings = [Setting(sqs.Codec(vocab_size), keep) for keep in keeps]
    planner = Planner(settings, sampling=Sampling(temperature), prefer="bytes")
    planner.observe(Link(1e7, 0.01).observed(ONE))
    plan = planner.plan()
    assert 0 <= plan.setting < len(settings)
    assert plan.reason == planner.reason


# Hints


def hinting(link: Link, tokens: float, passes: int) -> Planner:
    """A planner for speed after passes with hints that gave so many tokens each."""
    planner = Planner(SETTINGS, sampling=Sampling(0.7))
    planner.observe(handshake(link))
    plan, given = planner.plan(), 0.0
    for n in range(1, passes + 1):
        new = int(n * tokens - given)
        given += new
        planner.observe(Observation(plan, 0, new, 4, DRAFT_STEP, 0.0))
    return planner


def test_hints_are_tried_at_first_and_kept_where_they_help() -> None:
    far = Link(2e3, 0.3)
    assert hinting(far, 1.0, 0).plan().hints == Hints()
    helped = hinting(far, 1.25, 64)
    assert helped.plan().hints == Hints()
    assert "1.25 tokens a pass" in helped.reason


def test_hints_that_do_not_help_end_with_the_text() -> None:
    far = Link(2e3, 0.3)
    planner = hinting(far, 1.0, 63)
    plan = planner.plan()
    assert plan.hints
    planner.observe(Observation(plan, 0, 1, 4, DRAFT_STEP, 0.0))
    alone = planner.plan()
    assert (alone.length, alone.hints) == (0, None)
    assert planner.reason.startswith("the cloud decodes alone: 1.00 tokens a pass")
    planner.observe(handshake(far))
    assert planner.plan().hints


def test_a_draft_slower_than_the_target_gives_no_hints() -> None:
    planner = Planner(SETTINGS, sampling=Sampling(0.7))
    planner.observe(handshake(Link(1e6, 0.02)))
    for _ in range(5):
        plan = planner.plan()
        assert plan.hints
        planner.observe(Observation(plan, 0, 2, 4, 0.5, 0.0))
    assert planner.plan().hints is None
    assert "it takes 0.12 s a token, the draft 0.5 s" in planner.reason
    planner.observe(handshake(Link(1e6, 0.02)))  # another text, perhaps not as busy
    assert planner.plan().hints


def test_for_few_bytes_there_are_no_hints() -> None:
    assert taught(Link(1e6, 0.02)).plan().hints is None


# How it learns


def test_first_thing_it_does_without_knowing_a_link_is_safe() -> None:
    assert copy.deepcopy(fresh()).plan().length == 0


def test_rate_and_round_trip_are_told_apart() -> None:
    planner = taught(Link(20_000.0, 0.1))
    assert 1 / planner._link.per_bit() == pytest.approx(20_000, rel=0.5)
    assert planner._link.trip() == pytest.approx(0.1, rel=0.3)


def test_one_late_answer_changes_nothing_and_a_new_link_is_learned() -> None:
    good, bad = Link(1e6, 0.02), Link(3e3, 0.2)
    planner = taught(good)
    before = planner.plan()
    planner.observe(good.observed(ONE, late=3.0))
    assert planner.plan().length == before.length > 0
    for _ in range(6):
        planner.observe(bad.observed(planner.plan()))
    assert planner.plan().length == 0
    for n in range(20):
        planner.observe(good.observed(ONE if n % 2 else TWO))
    assert planner.plan().length > 0


def test_acceptance_is_followed() -> None:
    planner = taught(Link(1e6, 0.02, acceptance=0.9))
    good = planner.reason if planner.plan() else ""
    for _ in range(60):
        planner.observe(Link(1e6, 0.02, acceptance=0.3).observed(ONE))
    planner.plan()
    assert shown_acceptance(planner.reason) < 50 < 75 < shown_acceptance(good)


def shown_acceptance(reason: str) -> int:
    return int(reason.rpartition("acceptance ")[2].partition("%")[0])


def test_what_only_measures_costs_little_of_the_clouds_time() -> None:
    link = Link(2e3, 0.3, FAST)
    planner = taught(link)
    assert sum(measures(planner, link) for _ in range(500)) <= 3


def measures(planner: Planner, link: Link) -> bool:
    """Let 8 tokens come the one way or the other; say if a round was drafted."""
    seen = link.observed(planner.plan())
    planner.observe(seen)
    return seen.drafted > 0


def handshake(link: Link) -> Observation:
    """What a text begins with."""
    wait = link.trip + 8 * (600 + 166) / link.rate + link.steps[1]
    start = Plan(0, 0, "the handshake")
    return Observation(start, 0, 0, 600, 0.0, wait, link.steps)


def test_a_new_text_may_be_measured_whatever_was_lost_before() -> None:
    hopeless = Link(1e8, 0.005, SLOW, acceptance=0.05)
    planner = settled(hopeless)
    assert planner.plan().length == 0
    planner.observe(handshake(hopeless))
    assert planner.plan().length > 0
    assert ": to measure; " in planner.reason


def test_any_observation_within_its_bounds_is_taken() -> None:
    planner = copy.deepcopy(fresh())
    for plan in (Plan(0, 0, ""), Plan(16, 1, ""), ONE):
        for drafted, accepted in ((0, 0), (0, 300), (1, 0), (32, 32)):
            for wait in (0.0, 1e-6, 1e9):
                planner.observe(
                    Observation(plan, drafted, accepted, 0, 0.0, wait, {3: 0.0})
                )
                assert planner.plan().reason


# What it says


def test_the_reason_is_one_line_with_what_was_measured() -> None:
    planner = taught(Link(3e4, 0.02))
    planner.plan()
    assert "\n" not in planner.reason
    for word in ("draft ", "tok/s expected", "uplink ", "round trip ", "acceptance "):
        assert word in planner.reason, planner.reason
    for setting in SETTINGS:
        if str(setting.keep) in planner.reason:
            break
    else:
        pytest.fail(f"no setting in {planner.reason!r}")


def test_one_setting_is_not_named() -> None:
    planner = Planner(SETTINGS[:1], sampling=Sampling(0.7), prefer="bytes")
    planner.plan()
    assert "TopK" not in planner.reason


# Plans


def test_a_fixed_plan_stays() -> None:
    planner = FixedPlan(5, setting=1)
    plan = planner.plan()
    planner.observe(Link(2e3, 0.3).observed(plan))
    assert planner.plan() is plan
    assert plan.reason == planner.reason == "draft 5: as asked"
    assert (plan.length, plan.setting) == (5, 1)
    assert FixedPlan(0).plan().reason == "the cloud decodes alone: as asked"
    hints = FixedPlan(hints=Hints(2, 4)).plan()
    assert (hints.length, hints.hints) == (0, Hints(2, 4))
    assert hints.reason == "hints of 2 positions, 4 branches: as asked"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": -1}, "length must be at least 0, got -1"),
        ({"length": 2.5}, "length must be an integer"),
        ({"setting": 4}, r"setting must be in \[0, 3\], got 4"),
        ({"hints": Hints()}, r"length must be in \[0, 0\], got 6"),
    ],
)
def test_bad_plans_are_refused(change: dict[str, Any], message: str) -> None:
    good = {"length": 6, "setting": 0, "reason": ""}
    with pytest.raises((ValueError, TypeError), match=message):
        Plan(**{**good, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": 0}, r"positions must be in \[1, 15\], got 0"),
        ({"branches": 9}, r"branches must be in \[1, 8\], got 9"),
        ({"threshold": math.nan}, r"threshold must be finite and in \[0, 1\], got nan"),
    ],
)
def test_bad_hints_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Hints(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drafted": -1}, "drafted must be at least 0"),
        ({"accepted": 5}, r"accepted must be in \[0, 4\], got 5"),
        ({"bytes_up": -1}, "bytes_up must be at least 0"),
        ({"draft_seconds": math.nan}, "draft_seconds must be finite"),
        ({"wait_seconds": -0.1}, "wait_seconds must be finite"),
        ({"wait_seconds": math.inf}, "wait_seconds must be finite"),
        ({"target_steps": {0: 0.1}}, "target_steps"),
        ({"target_steps": {1: -0.1}}, "target_steps"),
        ({"target_steps": {1: math.nan}}, "target_steps"),
    ],
)
def test_bad_observations_are_refused(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {
        "plan": ONE,
        "drafted": 4,
        "accepted": 2,
        "bytes_up": 60,
        "draft_seconds": 0.06,
        "wait_seconds": 0.2,
    }
    with pytest.raises((ValueError, TypeError), match=message):
        Observation(**{**good, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": []}, r"the number of settings must be in \[1, 4\], got 0"),
        ({"settings": SETTINGS * 3}, r"the number of settings .* got 6"),
        ({"settings": [SETTINGS[0], None]}, r"settings\[1\] must be a Setting"),
        ({"sampling": 0.7}, "sampling must be a Sampling, got float"),
        ({"overhead": -1}, "overhead must be at least 0"),
        ({"draft_step": -1.0}, "draft_step must be finite"),
        ({"target_steps": {1: -1.0}}, "target_steps"),
        ({"prefer": "both"}, r"prefer must be one of \['speed', 'bytes'\], got 'both'"),
    ],
)
def test_bad_arguments_are_refused(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"settings": SETTINGS, "sampling": Sampling(0.7)}
    with pytest.raises((ValueError, TypeError), match=message):
        Planner(**{**good, **change})


def test_plans_of_other_sessions_are_refused() -> None:
    plan = Plan(4, 3, "")
    with pytest.raises(ValueError, match=r"setting must be in \[0, 1\], got 3"):
        copy.deepcopy(fresh()).observe(Link(1e6, 0.1).observed(plan))


# What it is worth

CASE = dataclasses.replace(benchmark.CASES[0], texts=1, losses=(0.0,))
LINKS = (2e3, 0.1), (3e4, 0.02), (1e6, 0.1)
GRID = benchmark.Grid((), LINKS, 100, (6,), 48)


@lru_cache
def written() -> list[benchmark.Outcome]:
    return benchmark.compare(CASE, GRID)


def test_hints_are_ahead_of_rounds_and_the_cloud_alone() -> None:
    fast, slow = (one.speed["hints"] / one.without for one in written())
    assert fast.min() >= 0.97
    assert slow.min() >= 1.0
    assert slow.mean() >= 1.1


@pytest.mark.parametrize("cloud", [0, 1])
def test_planners_come_near_the_best(cloud: int) -> None:
    one = written()[cloud]
    assert (one.speed["planner"] / one.best).min() >= 0.9
    assert (one.speed["planner"] / one.speed["alone"]).min() >= 0.95
    assert np.mean(one.speed["for bytes"] >= 0.9 * one.without) >= 0.6
    assert (one.speed["for bytes"] / one.speed["alone"]).min() >= 0.93


def test_sessions_that_share_a_cloud_have_more_of_it_with_hints() -> None:
    for name, _, speed in benchmark.together(CASE, GRID):
        assert speed["hints"] >= 0.97 * max(speed.values()), name
