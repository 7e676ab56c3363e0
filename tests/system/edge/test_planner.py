"""The planner: its choices by measurements, and its reasons."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import sqs_codec as sqs
from sqs_codec.system._base.protocol import MODES
from sqs_codec.system.edge import FixedPlan, Hints, Plan, Planner, Step
from sqs_codec.system.edge._planner import Handshake
from sqs_codec.system.session import Setting
from tests.drafts import VOCAB_SIZE
from tests.refusals import refuses

SETTINGS = [
    Setting(sqs.Codec(VOCAB_SIZE, resolution), sqs.TopK(k))
    for resolution, k in ((32, 16), (100, 64), (400, 128))
]
TARGET, MORE, DRAFT = 0.120, 0.005, 0.015
FAR = Handshake(TARGET, MORE, 0.1)


def make(**given):
    return Planner(**{"settings": SETTINGS, **given})


class Cloud:
    """Results of plans: seconds per token alone and with hints, and per round.

    In rounds and hints, each token is accepted with the same probability.
    """

    def __init__(self, alone=TARGET, hints=TARGET, trip=0.1, acceptance=0.7):
        self.seconds = {"alone": alone, "hints": hints}
        self.trip, self.acceptance = trip, acceptance
        self.rng = np.random.default_rng(0)

    def step(self, plan):
        length = plan.length or 3
        right = (self.rng.random(max(length, 3)) < self.acceptance)[:length]
        accepted = length if right.all() else int(right.argmin())
        took, tokens, found = self.seconds.get(plan.mode), 1, (0, 0, 0)
        if plan.mode == "rounds":
            took = self.trip + length * (DRAFT + MORE) + self.seconds["alone"]
            tokens, found = accepted + 1, (accepted, length, int(accepted < length))
        elif plan.mode == "hints":
            found = int(accepted > 0), 1, int(accepted == 0)
        drafted = 0.0 if plan.mode == "alone" else DRAFT
        return Step((0,) * tokens, *found, 0, 0, plan.reason, plan.mode, took, drafted)


def write(planner, cloud, tokens=200, handshake=FAR):
    """Write a completion, and return the mode of each token."""
    planner.begin(handshake)
    modes = []
    while len(modes) < tokens:
        step = cloud.step(planner.plan())
        planner.learn(step)
        modes += [step.mode] * len(step.tokens)
    return modes


# Which mode


@pytest.mark.parametrize(
    ("cloud", "best"),
    [
        (Cloud(hints=0.08), "hints"),
        # Though the draft helps: it slows forward passes down.
        (Cloud(hints=0.18, acceptance=0.5), "alone"),
        (Cloud(hints=0.11, trip=0.003), "rounds"),
    ],
)
def test_the_fastest_mode_is_found_and_remembered(cloud, best):
    planner = make()
    told = Handshake(TARGET, MORE, cloud.trip)
    last = write(planner, cloud, handshake=told)[-80:]
    assert last.count(best) > 40  # if another one isn't on trial
    write(planner, cloud, handshake=told)
    later = write(planner, cloud, 1000, told)
    assert later[0] == best
    assert later.count(best) >= 960
    assert planner.reason.count("measured") >= (best != "rounds")


def test_the_planner_leaves_a_mode_that_slows_down():
    planner, cloud = make(), Cloud(hints=0.06)
    assert set(write(planner, cloud)) == {"hints"}
    cloud.seconds["hints"] = 0.2
    assert write(planner, cloud)[-1] == "alone"
    cloud.seconds["hints"] = 0.06
    modes = write(planner, cloud, 1500)
    assert modes[-1] == "hints"
    assert modes.count("alone") < 600


@pytest.mark.parametrize("modes", [MODES, ("alone", "hints"), ("alone", "rounds")])
def test_trying_a_mode_takes_few_tokens(modes):
    planner, cloud = make(modes=modes), Cloud(hints=0.15, acceptance=0.5, trip=0.3)
    told = Handshake(TARGET, MORE, cloud.trip)
    write(planner, cloud, 1000, told)
    for _ in range(3):
        tried = [mode != "alone" for mode in write(planner, cloud, 1000, told)]
        assert sum(tried) <= 40  # 30 of the last 1,000, wherever these begin


@pytest.mark.parametrize("tokens", [8, 16])
def test_trials_may_last_for_several_completions(tokens):
    """The server says that alone is the fastest mode, and it isn't."""
    planner, cloud = make(modes=["alone", "hints"]), Cloud(alone=0.06, hints=0.045)
    told, modes = Handshake(0.03, MORE, 0.1), []
    for _ in range(3200 // tokens):
        modes += write(planner, cloud, tokens, told)
    assert 24 <= modes[200:].count("alone") <= 50  # of 3,000


def test_a_mode_that_cannot_be_faster_is_not_tried():
    """A draft slower than the target gives no hints of use, and rounds of none."""
    planner, cloud = make(), Cloud(alone=0.01, hints=0.02)
    told = Handshake(0.01, 0.001, 0.1)
    write(planner, cloud, 100, told)
    assert set(write(planner, cloud, 1000, told)) == {"alone"}


def test_a_slightly_slower_mode_is_kept():
    planner, cloud = make(modes=["alone", "hints"]), Cloud(hints=0.11)
    write(planner, cloud)
    cloud.seconds["hints"] = 1.05 * TARGET
    assert set(write(planner, cloud)) == {"hints"}


def test_rounds_continue_until_one_is_measured():
    planner, cloud = make(modes=["alone", "rounds"]), Cloud()
    planner.begin(Handshake(TARGET, MORE, 0.57))
    for _ in range(3):
        planner.learn(replace(cloud.step(planner.plan()), seconds=None))
    assert planner.plan().mode == "rounds"


def test_a_cloud_without_reported_times_is_measured():
    for hints, best in ((0.08, "hints"), (0.2, "alone")):
        planner, cloud = make(), Cloud(hints=hints)
        assert write(planner, cloud, handshake=Handshake())[-1] == best


@pytest.mark.parametrize("prefer", ["speed", "bytes"])
@pytest.mark.parametrize("mode", MODES)
def test_a_single_mode_is_always_the_plan(mode, prefer):
    planner = make(modes=[mode], prefer=prefer)
    assert set(write(planner, Cloud(hints=0.5))) == {mode}
    assert planner.reason.endswith(": as asked")


# Rounds


def length(*, handshake=FAR, **given):
    planner = make(modes=["rounds"])
    write(planner, Cloud(**given), handshake=handshake)
    return np.median([planner.plan().length for _ in range(9)])


def test_better_drafts_and_longer_round_trips_make_rounds_longer():
    drafts = [length(acceptance=a) for a in (0.3, 0.7, 0.97)]
    trips = [length(trip=trip, acceptance=0.8) for trip in (0.0, 0.5, 3.0)]
    assert (drafts, trips) == (sorted(set(drafts)), sorted(set(trips)))
    assert 14 <= drafts[-1] <= 16


def test_the_preference_selects_the_setting():
    for prefer, chosen in (("bytes", 0), ("speed", 1)):
        planner = make(modes=["rounds"], prefer=prefer)
        planner.begin(FAR)
        assert planner.plan().setting == chosen
        assert str(SETTINGS[chosen].keep) in planner.reason
    alike = Planner(SETTINGS[:1], modes=["rounds"])
    assert "TopK" not in alike.plan().reason


def test_to_save_bytes_the_cloud_sends_tokens_together():
    planner = make(prefer="bytes")
    assert set(write(planner, Cloud(hints=0.01, acceptance=0.97))) == {"alone"}
    assert planner.plan().together == 8
    assert make(prefer="bytes", modes=["hints", "rounds"]).plan().mode == "rounds"
    assert make(modes=["alone"]).plan().together == 1


# Plans


def test_a_fixed_plan_stays():
    planner = FixedPlan(5, setting=1)
    plan = planner.plan()
    planner.begin(FAR)
    planner.learn(Cloud().step(plan))
    assert planner.plan() is plan
    assert plan.reason == planner.reason == "draft 5: as asked"
    assert (plan.length, plan.setting) == (5, 1)
    assert FixedPlan(0).plan().reason == "the cloud decodes alone: as asked"
    hints = FixedPlan(hints=Hints(2, 4)).plan()
    assert (hints.length, hints.hints) == (0, Hints(2, 4))
    assert hints.reason == "hints of 2 positions, 4 branches: as asked"


A_PLAN = partial(Plan, **{"length": 6, "setting": 0, "reason": ""})


@pytest.mark.parametrize(
    ("make", "change", "message"),
    [
        (A_PLAN, {"length": -1}, "length must be at least 0, got -1"),
        (A_PLAN, {"length": 2.5}, "length must be an integer"),
        (A_PLAN, {"setting": 4}, r"setting must be in \[0, 3\], got 4"),
        (A_PLAN, {"hints": Hints()}, r"length must be in \[0, 0\], got 6"),
        (A_PLAN, {"ahead": 0}, r"ahead must be in \[1, 64\], got 0"),
        (Hints, {"positions": 0}, r"positions must be in \[1, 15\], got 0"),
        (Hints, {"branches": 9}, r"branches must be in \[1, 8\], got 9"),
        (Hints, {"threshold": math.nan}, r"must be finite and in \[0, 1\], got nan"),
        (make, {"settings": []}, r"the number of settings must be in \[1, 4\], got 0"),
        (make, {"settings": SETTINGS * 3}, r"the number of settings .* got 9"),
        (make, {"settings": [SETTINGS[0], None]}, r"settings\[1\] must be a Setting"),
        (make, {"modes": []}, r"modes must be some of .*, got \[\]"),
        (make, {"modes": ["both"]}, r"modes must be some of .*, got \['both'\]"),
        (make, {"modes": "hints"}, r"modes must be some of .*, got 'hints'"),
        (make, {"prefer": "both"}, r"one of \['speed', 'bytes'\], got 'both'"),
    ],
)
def test_bad_arguments_are_refused(make, change, message):
    refuses(message, make, error=(ValueError, TypeError), **change)


@pytest.mark.parametrize("bad", [-0.1, math.nan, -math.inf])
def test_bad_times_are_refused(bad):
    for name in ("target_seconds", "more_seconds", "trip_seconds"):
        refuses(f"{name} must be", Handshake, **{name: bad})
    for name in ("seconds", "draft_seconds"):
        refuses(f"{name} must be", Step, (1,), 0, 0, 0, 0, 0, "", **{name: bad})
    refuses("mode must be one of", Step, (1,), 0, 0, 0, 0, 0, "", "both")
