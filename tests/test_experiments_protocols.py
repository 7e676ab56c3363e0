"""What formats of others cost and hold, and who is compared with whom."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.experiments import measured, protocols, simulated, system
from benchmarks.experiments.experiment import Options
from benchmarks.experiments.models import Models, Prompt
from benchmarks.experiments.simulated import Drafter, Grid
from benchmarks.experiments.traces import Trace
from benchmarks.experiments.wire_formats import (
    COMPRESSORS,
    Compressor,
    bfloat16,
    coupled,
    distillkit,
    formats,
)
from benchmarks.planner.simulate import Drafts, Run, Steps
from benchmarks.rate.schemes import Row
from benchmarks.relay import Link
from sqs_codec.edge import FixedPlan, default_settings
from sqs_codec.hf._models import ModelError

V = 200


def a_row(seed: int = 0, vocab_size: int = V, spread: float = 3.0) -> Row:
    """A draft and a target that agree by and large."""
    rng = np.random.default_rng(seed)
    draft = rng.normal(0, spread, vocab_size).astype(np.float32)
    target = draft + rng.normal(0, 0.7, vocab_size).astype(np.float32)
    return Row(draft, target, 0.7)


# Formats


def test_formats_cost_what_they_say() -> None:
    row = a_row(vocab_size=49_152)
    found = {f"{f.name} {f.variant}": f.send(row).bits for f in formats(49_152)}
    expected = {
        "dense fp16 ": 16 * 49_152,
        "QS l=100": 1034,
        "raw top-K K=4": 4 * (16 + 16),
        "raw top-K K=64": 64 * (16 + 16),
        "DistillKit recommended": 8 * (16 * 2 + 6 * 4 + 128 * 2),
        "DistillKit budget": 8 * 114,  # as its README says
    }
    assert expected.items() <= found.items()
    # Ids take more bits in a larger vocabulary.
    assert COMPRESSORS["budget"].bits(262_144) == 8 * (14 + -(-50 * 18 // 8))


def test_both_ends_hold_a_distribution() -> None:
    row = a_row()
    for one in formats(V):
        q = one.send(row).q
        assert q.probs.sum() == pytest.approx(1, abs=1e-12), one
        assert (q.probs >= 0).all()
        assert np.unique(q.token_ids).size == q.token_ids.size
        best = int(row.q.argmax())
        assert q.prob(best) >= row.q[best] * 0.97  # renormalised, so rather more
        others = np.setdiff1d(np.arange(V), q.token_ids)
        assert all(q.prob(int(token)) == 0 for token in others)


def test_a_curve_brings_back_what_lies_on_it() -> None:
    places = np.linspace(0, 1, 40)
    logits = 5 - 3 * np.sqrt(places) - 2 * places
    row = Row(logits, logits, 1.0)
    wire = distillkit(row, Compressor(40, 0, (0, 1, 0.5)))
    assert wire.q.probs == pytest.approx(row.q, rel=1e-5)
    straight = distillkit(row, Compressor(40, 0, (0, 1)))
    assert np.abs(straight.q.probs - row.q).max() > 1e-3


def test_bfloat16_keeps_eight_bits_and_ties_go_to_even() -> None:
    values = [1.0, 1.0 + 2**-8, 1.0 + 3 * 2**-8, 1.0 + 2**-8 + 2**-20, -0.1]
    rounded = [1.0, 1.0, 1.0 + 2**-6, 1.0 + 2**-7, -0.10009765625]
    assert bfloat16(np.array(values)).tolist() == rounded


# Shared numbers


def test_shared_numbers_are_right_as_often_as_clocks_say() -> None:
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet([0.5] * 6, size=2)
    clocks = rng.exponential(size=(200_000, 6))
    cloud, edge = (clocks / p).argmin(1), (clocks / q).argmin(1)
    for token in range(6):
        at = cloud == token
        seen, n = float((edge[at] == token).mean()), int(at.sum())
        expected = coupled(p, q, token)
        assert abs(seen - expected) < 4.5 * np.sqrt(expected * (1 - expected) / n)


@pytest.mark.parametrize("seed", range(5))
def test_shared_numbers_keep_their_bound(seed: int) -> None:
    row = a_row(seed)
    tv = 0.5 * np.abs(row.p - row.q).sum()
    rate = sum(row.p[y] * coupled(row.p, row.q, y) for y in range(V))
    assert (1 - tv) / (1 + tv) <= rate < 1 - tv
    same = [coupled(row.p, row.p, y) for y in range(V)]
    assert same == pytest.approx([1.0] * V)


def test_shared_numbers_never_draw_what_the_draft_excludes() -> None:
    p, q = np.array([0.5, 0.5]), np.array([1.0, 0.0])
    assert coupled(p, q, 1) == 0
    assert coupled(p, q, 0) == pytest.approx(1.0)


# Texts


def some_models(vocab_size: int = V, prompts: tuple[Prompt, ...] = ()) -> Models:
    pair: Any = SimpleNamespace(vocab_size=vocab_size)
    return Models("given", pair, None, prompts)


def a_drafter(vocab_size: int = V) -> Drafter:
    return Drafter(some_models(vocab_size), 0.7)


def test_each_way_is_accepted_as_often_as_its_distribution_says() -> None:
    drafter, row, rng = a_drafter(), a_row(), np.random.default_rng(1)
    n = 800
    tokens = rng.choice(V, n, p=row.p)
    found = [drafter.position(row, int(y), [i]) for i, y in enumerate(tokens)]
    for way in found[0]:
        seen = np.mean([each[way].accepted for each in found])
        rate = np.mean([each[way].acceptance for each in found])
        assert abs(seen - rate) < 4 * np.sqrt(rate * (1 - rate) / n), way
    exact = found[0]["dense fp16", ""].acceptance
    assert exact == pytest.approx(np.minimum(row.p, row.q).sum(), abs=1e-3)


def test_who_gives_a_token_more_is_never_refused_it_alone() -> None:
    drafter, row = a_drafter(), a_row()
    for seed in range(30):
        token = int(np.random.default_rng(seed).choice(V, p=row.p))
        found = drafter.position(row, token, [seed])
        probs = {(f.name, f.variant): f.send(row).q.prob(token) for f in formats(V)} | {
            (simulated.OURS, simulated.words(s)): row.send(
                s.keep, s.codec.resolution
            ).q.prob(token)
            for s in drafter.settings
        }
        taken = [prob for way, prob in probs.items() if found[way].accepted]
        refused = [prob for way, prob in probs.items() if not found[way].accepted]
        assert max(refused, default=0) <= min(taken, default=1), seed


def a_trace(prompt: int, tokens: int) -> Trace:
    rows = np.zeros((tokens, V), np.float32)
    return Trace(prompt, "code", [0] * tokens, rows, {2: rows})


def test_traces_are_joined_until_they_are_long_enough() -> None:
    parts = [a_trace(i, n) for i, n in enumerate((48, 48, 10, 90, 3))]
    texts = list(simulated.joined(parts, 95))
    assert [[part.prompt for part in text] for text in texts] == [[0, 1], [2, 3], [4]]


# Simulation


def some_drafts(accepted: Sequence[bool], bits: float) -> Drafts:
    return Drafts(np.array(accepted), np.full(len(accepted), bits))


def a_run(
    bits: float,
    links: Sequence[tuple[float, float]],
    target: float = 0.001,
    **given: Any,
) -> Run:
    return Run(
        *np.array(links, np.float64).T,
        Steps(0.001, target, 0.0),
        57,
        [some_drafts([True] * 9, bits)],
        np.random.default_rng(0),
        9,
        **given,
    )


def test_bytes_are_counted_on_every_link() -> None:
    run = a_run(80.0, [(1e3, 0.01), (1e9, 0.01)])
    run.fixed(FixedPlan(2).plan())  # three rounds of two, each with one more
    assert run.done == 9
    assert run.up.tolist() == [3 * (57 + 4 + 20)] * 2
    assert run.down.tolist() == [3 * (57 + 4)] * 2
    assert run.now[0] > 8 * run.up[0] / 1e3 > run.now[1]


def test_what_is_too_long_for_a_datagram_goes_as_several() -> None:
    run = a_run(8000.0, [(1e6, 0.01)], most=900)  # 2004 bytes a round
    run.fixed(FixedPlan(2).plan())
    assert run.up.tolist() == [3 * (3 * 57 + 4 + 2000)]


def test_a_cloud_alone_sends_a_message_a_token() -> None:
    run = a_run(80.0, [(1e6, 0.01)], target=0.1)
    run.prompt(50)
    run.alone()
    # Asked for 5 tokens at first, it is asked for 3 more whenever 2 are left to come.
    assert run.up.tolist() == [57 + 50 + 3 * (57 + 4)]
    assert run.down.tolist() == [9 * (57 + 6)]


# What comes of it


CASE = {"model": "m", "temperature": 0.7, "cloud": "slow"}
TEXT = {**CASE, "tokens": 10, "up": [1.0] * 4, "down": [2.0] * 4}


def simulated_record(protocol: str, text: int, seconds: list[float], **more: Any):
    ours = {"protocol": protocol, "variant": "", "length": 4}
    return {**TEXT, **ours, "text": text, "seconds": seconds, **more}


def test_the_fastest_plan_is_chosen_for_each_link_over_all_texts() -> None:
    group = [
        simulated_record("ours", text, seconds, length=length)
        for length, both in ((2, ([1, 9, 1, 1], [1, 1, 1, 1])), (8, ([2] * 4, [2] * 4)))
        for text, seconds in enumerate(both)
    ]
    best = protocols.Best.of(group)
    assert best.plans == ["2", "8", "2", "2"]
    assert best.seconds.tolist() == [[1, 2, 1, 1], [1, 2, 1, 1]]
    assert best.data.tolist() == [[3] * 4] * 2


def test_the_map_says_who_is_the_fastest_and_how_surely() -> None:
    group = [
        simulated_record(name, text, seconds, up=[up] * 4)
        for name, up, both in (
            ("ours", 1.0, ([10, 10, 10, 10], [10, 10, 10, 10])),
            ("raw top-K", 5.0, ([9.9, 9.5, 8, 11], [9.9, 9.5, 11, 11])),
        )
        for text, seconds in enumerate(both)
    ]
    times = [10.8, 10.8, 9.5, 10]
    both = {"seconds": times, "again": times, "again_tokens": 10}
    planned = [{**TEXT, **both, "text": text} for text in range(2)]
    grid = Grid((1e4, 1e5), (0.1, 0.2))
    options = Options(Path(), quick=True)
    found = protocols._map(group, planned, grid, options)
    assert found["wins"] == {"raw top-K": 0.75, "ours": 0.25}
    # On the third link that depends on the text.
    assert found["surely"] == {"raw top-K": 0.5, "ours": 0.25}
    assert found["near"] == {"raw top-K": 1, "ours": 1, "planner": 0.75}
    assert found["tokens_per_second"]["planner"][:2] == [0.9259, 0.9259]
    assert found["bytes_per_token"]["ours"] == [0.3] * 4
    alone = [each for each in group if each["text"] == 0]
    one = protocols._map(alone, planned[:1], grid, options)
    assert set(one["surely"].values()) == {0}


def real_record(plan: str, text: int, seconds: float, trip: float = 0.1):
    return {
        "part": "real",
        "rate": 1e5,
        "trip": trip,
        "plan": plan,
        "text": text,
        "simulated": {"seconds": 2.0, "up": 10.0},
        "measured": {
            "tokens": 20,
            "seconds": seconds,
            "first": 0.2,
            "bytes_up": 40,
            "bytes_down": 60,
            "late": 0.01,
            "reason": "",
        },
    }


def real_records(planner: float, trip: float = 0.1) -> list[dict[str, Any]]:
    times = {"cloud alone": (3.0, 3.0), "ours 4": (1.0, 2.5), "planner": (2.0, planner)}
    return [
        real_record(plan, text, seconds, trip)
        for plan, both in times.items()
        for text, seconds in enumerate(both)
    ]


def test_the_planner_is_held_against_the_best_plan_of_all_texts() -> None:
    grid = Grid((1e5,), (0.1,))
    real = protocols._real(real_records(planner=1.5), grid)
    (cell,) = real["cells"]
    assert cell["best"] == "ours 4"
    assert cell["alone_of_best"] == pytest.approx(3.5 / 6)
    assert cell["of_best"] == 1.0
    assert cell["of_best_first"] == 0.5
    assert cell["of_best_later"] == pytest.approx(2.5 / 1.5)
    assert cell["plans"]["ours 4"]["of_simulated"] == pytest.approx(3.5 / 4)
    within = {"of_best": 1, "of_best_first": 0, "of_best_later": 1, "alone_of_best": 0}
    assert real["within"] == within


@pytest.mark.parametrize(("slow", "holds"), [(1, True), (2, False)])
def test_the_bar_is_four_links_in_five(slow: int, holds: bool) -> None:
    trips = (0.01, 0.02, 0.03, 0.04, 0.05)
    records = [
        record
        for i, trip in enumerate(trips)
        for record in real_records(3.5 if i < slow else 1.5, trip)
    ]
    real = protocols._real(records, Grid((1e5,), trips))
    near, far = ({**CASE, "near": {"planner": x}} for x in (0.8, 0.79))
    whole = {"quick": False, "real": real, "maps": [near, near]}
    bar, maps = protocols.checks(whole)
    assert (bar.holds, maps.holds) == (holds, True)
    assert bar.detail.count("of ours 4") == slow
    _, maps = protocols.checks({**whole, "maps": [near, far]})
    assert not maps.holds


# The real system


@pytest.mark.parametrize(
    ("tokens", "kept"), [((16, 16, 3), 2), ((5,), 1), ((16, 16, 16, 16), 3)]
)
def test_a_short_text_at_the_end_does_not_shorten_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokens: list[int], kept: int
) -> None:
    parts = [a_trace(i, n) for i, n in enumerate(tokens)]
    monkeypatch.setattr(measured, "traces", lambda *_: iter(parts))
    monkeypatch.setattr(measured, "TOKENS", 16)
    prompts = (Prompt("code", (1, 2)),) * len(tokens)
    models = some_models(prompts=prompts)
    texts = measured.recorded(Options(tmp_path), models)
    rows = [len(np.load(text.draft)) for text in texts]
    assert rows == list(tokens[:kept])


def test_a_text_that_ends_at_once_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measured, "traces", lambda *_: iter([a_trace(0, 1)]))
    with pytest.raises(ModelError, match="ends at once"):
        measured.recorded(Options(tmp_path), some_models())


def test_measured_are_the_cloud_alone_the_best_plan_and_the_planner() -> None:
    settings = default_settings(V)
    names = [simulated.words(each) for each in settings]
    right = {name: some_drafts([True] * 40, 50.0) for name in names[1:]}
    wrong = {names[0]: some_drafts([False] * 40, 50.0)}
    text = system.Text((1, 2), Path(), Path())
    texts = [measured.Recorded(text, wrong | right)]
    (cell,) = measured.chosen(settings, texts, Grid((1e4,), (0.1,)), 0)
    alone, (best, told), planner = cell
    assert (alone[0].name, planner[0].name) == ("cloud alone", "planner")
    assert best.plan is not None
    assert best.plan.plan().length == 16
    assert best.plan.plan().setting > 0
    assert len(told) == 1
    assert told[0]["seconds"] < alone[1][0]["seconds"]


def test_the_simulation_has_the_luck_of_the_real_system(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    draft = rng.normal(0, 3, (25, V)).astype(np.float32)
    files = tmp_path / "draft.npy", tmp_path / "target.npy"
    np.save(files[0], draft)
    np.save(files[1], draft + rng.normal(0, 1.5, draft.shape).astype(np.float32))
    settings = default_settings(V)
    text = measured.replay(system.Text((1, 2, 3), *files), settings, [0, 0])
    plan, link = FixedPlan(4, 1), Link(1e6, 0.02)
    steps = Steps(0.002, 0.01, 0.0005)
    cell = system.Cell("", link, (text.text,), 24, tuple(settings), plan, steps)
    (played,) = system.play(cell)["texts"]
    run = Run(
        np.array(1e6),
        np.array(0.02),
        steps,
        57,
        [text.drafts[simulated.words(setting)] for setting in settings],
        rng,
        24,
    )
    rounds = accepted = 0
    while run.done < 23:
        seen = run.round(plan.plan())
        rounds, accepted = rounds + 1, accepted + seen.accepted
    assert (played["rounds"], played["accepted"]) == (rounds, accepted)
    assert 0 < accepted < 23
    assert played["bytes_up"] == pytest.approx(float(run.up), rel=0.25)
