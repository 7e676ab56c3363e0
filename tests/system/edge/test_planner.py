"""The planner: what it chooses on which link, and how it learns."""

import copy
import dataclasses
import math
import re
from functools import lru_cache

import numpy as np
import pytest

import sqs_codec as sqs
from sqs_codec.system.edge import (
    MODES,
    FixedPlan,
    Hints,
    Observation,
    Plan,
    Planner,
)
from sqs_codec.system.session import Sampling, Setting
from tests.drafts import VOCAB_SIZE

SETTINGS = [
    Setting(sqs.Codec(VOCAB_SIZE, resolution), sqs.TopK(k))
    for resolution, k in ((32, 16), (400, 128))
]
TARGET = 0.120
DATAGRAM, GRPC = 57, 166


@lru_cache
def fresh(overhead=DATAGRAM):
    """For few bytes, and only to be copied."""
    sampling = Sampling(0.7)
    return Planner(SETTINGS, sampling=sampling, prefer="bytes", overhead=overhead)


class Drafts:
    """How many of a round's tokens are accepted."""

    def __init__(self, acceptance, seed=0):
        self.acceptance = acceptance
        self.rng = np.random.default_rng(seed)

    def observed(self, plan):
        """What comes of a plan."""
        accepted = 8
        if plan.length:
            rejections = self.rng.random(plan.length) > self.acceptance
            accepted = int(rejections.argmax()) if rejections.any() else plan.length
        return Observation(plan, plan.length, accepted, 0.0, TARGET)


GOOD, BAD = Drafts(0.75), Drafts(0.05)
ONE = Plan(4, 0, "to measure")
HANDSHAKE = Observation(Plan(0, 0, "the handshake"), 0, 0, 0.0, TARGET)


def taught(drafts, overhead=DATAGRAM):
    """A planner that has seen rounds."""
    planner = copy.deepcopy(fresh(overhead))
    for _ in range(60):
        planner.observe(drafts.observed(ONE))
    return planner


def settled(drafts):
    """One that has also used up what it may lose to measure."""
    planner = taught(drafts)
    for _ in range(30):
        planner.plan()
    return planner


# What it chooses


def test_dearer_messages_make_drafts_longer():
    lengths = [taught(GOOD, overhead).plan().length for overhead in (0, 57, 166, 2000)]
    assert lengths == sorted(lengths)
    assert 0 < lengths[1] < lengths[-1]


def test_better_drafts_are_longer():
    lengths = [taught(Drafts(a)).plan().length for a in (0.6, 0.75, 0.98)]
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]


def test_the_cloud_decodes_alone_where_rounds_take_more_bytes():
    planner = settled(BAD)
    assert planner.plan().length == 0
    line = r"the cloud decodes alone: (\S+) bytes a token, rounds (\S+) expected"
    found = re.fullmatch(line, planner.reason)
    assert found, planner.reason
    alone, rounds = map(float, found.groups())
    assert alone == pytest.approx(DATAGRAM + 7 + (DATAGRAM + 3) / 3, abs=0.1)
    assert rounds > alone


@pytest.mark.parametrize("overhead", [DATAGRAM, GRPC])
def test_rounds_are_drafted_where_they_take_fewer_bytes(overhead):
    planner = taught(GOOD, overhead)
    plan = planner.plan()
    assert plan.length > 1
    line = r"([\d.]+) bytes a token expected, the cloud alone ([\d.]+)"
    rounds, alone = map(float, re.findall(line, planner.reason)[0])
    bits = float(planner._table.bits[plan.setting])
    size = 2 * overhead + 8 + plan.length * bits / 8
    assert rounds < alone
    assert 1 < size / rounds < plan.length + 1  # tokens of a round


@pytest.mark.parametrize("temperature", [0.0, 1e-300, 0.001, 1.5])
@pytest.mark.parametrize("vocab_size", [2, 300, 60_000])
def test_any_vocabulary_and_temperature_has_a_plan(temperature, vocab_size):
    keeps = [sqs.TopK(8), sqs.TopP(0.9), sqs.Conformal(0.05, 0.1), sqs.MinP(0.02)]
    settings = [Setting(sqs.Codec(vocab_size), keep) for keep in keeps]
    planner = Planner(settings, sampling=Sampling(temperature), prefer="bytes")
    planner.observe(GOOD.observed(ONE))
    plan = planner.plan()
    assert 0 <= plan.setting < len(settings)
    assert plan.reason == planner.reason


# Hints


def hinting(tokens, passes):
    """A planner for speed after passes with hints that gave so many tokens each."""
    planner = Planner(SETTINGS, sampling=Sampling(0.7))
    planner.observe(HANDSHAKE)
    plan, given = planner.plan(), 0.0
    for n in range(1, passes + 1):
        new = int(n * tokens - given)
        given += new
        planner.observe(Observation(plan, 0, new, 0.015, TARGET))
    return planner


def test_hints_are_tried_at_first_and_kept_where_they_help():
    assert hinting(1.0, 0).plan().hints == Hints()
    helped = hinting(1.25, 64)
    assert helped.plan().hints == Hints()
    assert "1.25 tokens a pass" in helped.reason


def test_hints_that_do_not_help_end_with_the_text():
    planner = hinting(1.0, 63)
    plan = planner.plan()
    assert plan.hints
    planner.observe(Observation(plan, 0, 1, 0.015, TARGET))
    alone = planner.plan()
    assert (alone.length, alone.hints) == (0, None)
    assert planner.reason.startswith("the cloud decodes alone: 1.00 tokens a pass")
    planner.observe(HANDSHAKE)
    assert planner.plan().hints


def test_a_draft_slower_than_the_target_gives_no_hints():
    planner = Planner(SETTINGS, sampling=Sampling(0.7))
    planner.observe(HANDSHAKE)
    for _ in range(5):
        plan = planner.plan()
        assert plan.hints
        planner.observe(Observation(plan, 0, 2, 0.5, TARGET))
    assert planner.plan().hints is None
    assert "it takes 0.12 s a token, the draft 0.5 s" in planner.reason
    planner.observe(HANDSHAKE)  # another text, perhaps not as busy
    assert planner.plan().hints


def test_for_few_bytes_there_are_no_hints():
    assert taught(GOOD).plan().hints is None


# Short rounds for speed

TRIP, STEP, MORE = 0.003, 0.001, 0.005


def near(drafts, rounds, *, step=STEP, modes=MODES, **greeted):
    """A planner for speed that has seen rounds with a cloud that is near."""
    planner = Planner(SETTINGS, sampling=Sampling(0.7), modes=modes)
    told = {"target_seconds": TARGET, "more_seconds": MORE, "trip_seconds": TRIP}
    planner.observe(dataclasses.replace(HANDSHAKE, **told | greeted))
    for _ in range(rounds):
        seen = drafts.observed(planner.plan())
        times = {"draft_seconds": step * seen.drafted, "more_seconds": MORE}
        planner.observe(dataclasses.replace(seen, **times))
    return planner


def test_rounds_are_drafted_where_the_cloud_hardly_waits_for_them():
    for count in 0, 100:
        planner = near(Drafts(0.35), count)
        assert planner.plan().mode == "rounds"
        finest = max(SETTINGS, key=lambda one: one.codec.resolution)
        assert SETTINGS[planner.plan().setting] == finest
    assert re.search(r"near, 1\.[2-4]\d times its tokens expected", planner.reason)
    least = [near(Drafts(a), 100).plan().least for a in (0.3, 0.7, 0.95)]
    assert all((STEP + MORE) / TARGET < x < 0.5 for x in least)


@pytest.mark.parametrize("line", [(0.7, 0.0), (0.4, 0.6), (0.0, 0.3)])
def test_what_a_draft_is_sure_of_is_weighed_as_it_was_found(line):
    planner, rng = near(GOOD, 0), np.random.default_rng(0)
    assert planner.plan().line == pytest.approx((0.1, 0.6))
    for _ in range(200):
        sure = tuple(rng.random(4))
        right = rng.random(4) < line[0] + line[1] * np.array(sure)
        accepted = 4 if right.all() else int(right.argmin())
        seen = Observation(planner.plan(), 4, accepted, 0.0, TARGET, MORE, sure=sure)
        planner.observe(seen)
    base, slope = planner.plan().line
    assert base + slope / 2 == pytest.approx(line[0] + line[1] / 2, abs=0.12)


@pytest.mark.parametrize(
    "given",
    [
        {"trip_seconds": 0.05},
        {"trip_seconds": math.inf},  # it isn't known
        {"target_seconds": 0.0},  # the cloud doesn't say
        {"target_seconds": 0.01},
        {"modes": ("alone", "hints")},
    ],
)
def test_elsewhere_there_are_hints(given):
    assert near(GOOD, 0, **given).plan().mode == "hints"


def test_a_slow_draft_gives_hints_once_that_is_known():
    assert near(GOOD, 1, step=0.05).plan().mode == "rounds"  # it may be the prompt's
    planner = near(GOOD, 2, step=0.05)
    assert planner.plan().mode == "hints"
    planner.observe(HANDSHAKE)
    assert planner.plan().mode == "hints"


def test_rounds_that_do_not_help_end_with_the_text():
    planner = near(Drafts(0.02), 40)
    assert planner.plan().mode == "hints"
    told = {"target_seconds": TARGET, "more_seconds": MORE, "trip_seconds": TRIP}
    planner.observe(dataclasses.replace(HANDSHAKE, **told))
    assert planner.plan().mode == "rounds"


def test_a_draft_that_is_never_rejected_stays():
    planner = near(Drafts(1.0), 2000)
    assert planner.plan().length == 16
    assert "near, 9." in planner.reason


# How it learns


def test_acceptance_is_followed():
    planner = taught(Drafts(0.9))
    good = planner.reason if planner.plan() else ""
    for _ in range(60):
        planner.observe(Drafts(0.3).observed(ONE))
    planner.plan()
    assert shown_acceptance(planner.reason) < 50 < 75 < shown_acceptance(good)


def shown_acceptance(reason):
    return int(reason.rpartition("acceptance ")[2].partition("%")[0])


def test_what_only_measures_costs_few_bytes():
    """For 4000 tokens 42 may be lost, of which a round of one loses half."""
    planner = taught(BAD)
    assert 0 < sum(measures(planner, BAD) for _ in range(500)) <= 84


def measures(planner, drafts):
    """Let 8 tokens come the one way or the other; say if a round was drafted."""
    seen = drafts.observed(planner.plan())
    planner.observe(seen)
    return seen.drafted > 0


def test_a_new_text_may_be_measured_whatever_was_lost_before():
    planner = settled(BAD)
    assert planner.plan().length == 0
    planner.observe(HANDSHAKE)
    assert planner.plan().length > 0
    assert ": to measure; " in planner.reason


def test_any_observation_within_its_bounds_is_taken():
    planner = copy.deepcopy(fresh())
    for plan in (Plan(0, 0, ""), Plan(16, 1, ""), ONE):
        for drafted, accepted in ((0, 0), (0, 300), (1, 0), (32, 32)):
            for seconds in (0.0, 1e-6, 1e9):
                seen = Observation(plan, drafted, accepted, seconds, seconds)
                planner.observe(seen)
                assert planner.plan().reason


# What it says


def test_the_reason_is_one_line_with_what_was_measured():
    planner = taught(GOOD)
    planner.plan()
    assert "\n" not in planner.reason
    for word in ("draft ", " bytes a token expected", "alone ", "acceptance "):
        assert word in planner.reason, planner.reason
    for setting in SETTINGS:
        if str(setting.keep) in planner.reason:
            break
    else:
        pytest.fail(f"no setting in {planner.reason!r}")


def test_one_setting_is_not_named():
    planner = Planner(SETTINGS[:1], sampling=Sampling(0.7), prefer="bytes")
    planner.plan()
    assert "TopK" not in planner.reason


# Plans


def test_a_fixed_plan_stays():
    planner = FixedPlan(5, setting=1)
    plan = planner.plan()
    planner.observe(GOOD.observed(plan))
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
        ({"least": math.nan}, r"least must be"),
        ({"line": (math.nan, 0.0)}, r"line must be"),
    ],
)
def test_bad_plans_are_refused(change, message):
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
def test_bad_hints_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Hints(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drafted": -1}, "drafted must be at least 0"),
        ({"accepted": 5}, r"accepted must be in \[0, 4\], got 5"),
        ({"draft_seconds": math.nan}, "draft_seconds must be finite"),
        ({"target_seconds": -0.1}, "target_seconds must be finite"),
        ({"more_seconds": -0.1}, "more_seconds must be finite"),
        ({"target_seconds": math.inf}, "target_seconds must be finite"),
    ],
)
def test_bad_observations_are_refused(change, message):
    good = {"plan": ONE, "drafted": 4, "accepted": 2}
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
        ({"prefer": "both"}, r"prefer must be one of \['speed', 'bytes'\], got 'both'"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    good = {"settings": SETTINGS, "sampling": Sampling(0.7)}
    with pytest.raises((ValueError, TypeError), match=message):
        Planner(**{**good, **change})


def test_plans_of_other_sessions_are_refused():
    plan = Plan(4, 3, "")
    with pytest.raises(ValueError, match=r"setting must be in \[0, 1\], got 3"):
        copy.deepcopy(fresh()).observe(GOOD.observed(plan))
