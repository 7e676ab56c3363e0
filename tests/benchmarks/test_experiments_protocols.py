"""What formats of others cost and hold, and who is compared with whom."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.experiments import measured, protocols, system
from benchmarks.experiments.experiment import Options
from benchmarks.experiments.models import Models, Prompt
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
from sqs_codec.system.edge import FixedPlan, default_settings
from sqs_codec.system.hf import ModelError

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


def a_trace(prompt: int, tokens: int) -> Trace:
    rows = np.zeros((tokens, V), np.float32)
    return Trace(prompt, "code", [0] * tokens, rows, {2: rows})


def test_traces_are_joined_until_they_are_long_enough() -> None:
    parts = [a_trace(i, n) for i, n in enumerate((48, 48, 10, 90, 3))]
    texts = list(measured.joined(parts, 95))
    assert [[part.prompt for part in text] for text in texts] == [[0, 1], [2, 3], [4]]


def test_what_is_sent_is_summed_over_each_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that agree accept all tokens, and nearly all after a lattice."""
    rows = np.random.default_rng(0).normal(0, 3, (5, V)).astype(np.float32)
    text = Trace(0, "code", [0] * 5, rows, {2: rows})
    monkeypatch.setattr(protocols, "load", lambda *_: some_models())
    monkeypatch.setattr(protocols, "traces", lambda *_, **__: iter([text]))
    found = protocols.sent(Options(Path()), "given", 0.7)
    told = {each["format"]: (each["bits"], each["accepted"]) for each in found}
    assert told["hints, first guess"] == (5 * 16, pytest.approx(5))
    assert told["dense fp16 "] == (5 * (16 * V + 8), pytest.approx(5, abs=0.01))
    assert 4.5 < told["ours K=128, l=400"][1] < 5
    assert told["ours K=1, l=1"][1] == pytest.approx(told["raw top-K K=1"][1])
    assert 0 < told["ours K=16, l=32"][0] < told["ours K=64, l=100"][0]


# Simulation


def some_drafts(accepted: Sequence[bool], bits: float) -> Drafts:
    return Drafts(np.array(accepted), np.full(len(accepted), bits))


def a_run(
    bits: float,
    links: Sequence[tuple[float, float]],
    target: float = 0.001,
) -> Run:
    return Run(
        *np.array(links, np.float64).T,
        Steps(0.001, target, 0.0),
        57,
        [some_drafts([True] * 9, bits)],
        np.random.default_rng(0),
        9,
    )


def test_bytes_are_counted_on_every_link() -> None:
    run = a_run(80.0, [(1e3, 0.01), (1e9, 0.01)])
    run.fixed(FixedPlan(2).plan())  # three rounds of two, each with one more
    assert run.done == 9
    assert run.up.tolist() == [3 * (57 + 4 + 20)] * 2
    assert run.down.tolist() == [3 * (57 + 4)] * 2
    assert run.now[0] > 8 * run.up[0] / 1e3 > run.now[1]


def test_a_cloud_alone_sends_a_message_a_token() -> None:
    run = a_run(80.0, [(1e6, 0.01)], target=0.1)
    run.alone()
    # Asked for 5 tokens at first, it is asked for 3 more whenever 2 are left to come.
    assert run.up.tolist() == [3 * (57 + 4)]
    assert run.down.tolist() == [9 * (57 + 6)]


# What comes of it


def real_records(place: measured.Place, **seconds: float) -> list[dict[str, Any]]:
    """Make two texts of 20 tokens in each way, the second in so many seconds or 1."""
    names = "bytes_up", "bytes_down", "rows", "passes", "first", "late"
    sums = dict.fromkeys(names, 40) | {"tokens": 20, "part": "real", "plan": "4"}
    return [
        {**place._asdict(), **sums, "way": way, "text": text, "seconds": each}
        for way in protocols.WAYS
        for text, each in enumerate((1.0, seconds.get(way, 1.0)))
    ]


def summed(*groups: list[dict[str, Any]]) -> dict[str, Any]:
    sent = {"part": "sent", "model": "m", "temperature": 1, "format": "f"}
    sent |= {"positions": 4, "bits": 8.0, "accepted": 2.0}
    return protocols.summary([sent, *itertools.chain(*groups)], Options(Path()))


def test_hints_are_held_against_the_better_of_rounds_and_the_cloud_alone() -> None:
    place = measured.Place(1e5, 0.1)
    found = summed(real_records(place, alone=3.0, rounds=1.5, planner=1.25))
    (link,) = found["links"]
    assert link["gain"] == pytest.approx(2.5 / 2)
    assert link["planner"] == pytest.approx(2 / 2.25)
    assert link["ways"]["rounds"]["tokens_per_second"] == 40 / 2.5
    assert link["ways"]["rounds"]["bytes_up"] == 2
    assert found["formats"][0]["bits"]["value"] == 2
    faster, near = protocols.checks(found)
    assert faster.holds
    assert not near.holds


def test_the_bar_is_of_links_that_do_not_lose() -> None:
    slow = dict.fromkeys(("alone", "rounds"), 1.5)
    good = real_records(measured.Place(1e5, 0.1), **slow)
    others = [
        real_records(measured.Place(*place))
        for place in ((2e3, 0.1), (1e5, 0.3), (1e5, 0.1, 0.05))
    ]
    faster, near = protocols.checks(summed(good, *others))
    assert faster.holds
    assert near.holds
    less = real_records(measured.Place(1e6, 0.02), alone=1.5, rounds=1.05)
    faster, _ = protocols.checks(summed(good, less))
    assert not faster.holds
    assert "on 1M, 20 ms" in faster.detail


# The real system


@pytest.mark.parametrize(
    ("tokens", "kept"), [((16, 16, 3), 2), ((5,), 1), ((16,) * 5, 4)]
)
def test_a_short_text_at_the_end_does_not_shorten_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokens: tuple[int, ...], kept: int
) -> None:
    parts = [a_trace(i, n) for i, n in enumerate(tokens)]
    monkeypatch.setattr(measured, "traces", lambda *_: iter(parts))
    monkeypatch.setattr(measured, "TOKENS", 16)
    prompts = (Prompt("code", (1, 2)),) * len(tokens)
    models = some_models(prompts=prompts)
    texts = measured.recorded(Options(tmp_path), models, 4)
    rows = [len(np.load(text.draft)) for text in texts]
    assert rows == list(tokens[:kept])


def test_a_text_that_ends_at_once_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measured, "traces", lambda *_: iter([a_trace(0, 1)]))
    with pytest.raises(ModelError, match="ends at once"):
        measured.recorded(Options(tmp_path), some_models(), 1)


def test_the_best_rounds_are_those_whose_drafts_are_accepted() -> None:
    """All that is drafted by the second and third setting is right."""
    drafts = [some_drafts([right] * 40, 50.0) for right in (False, True, True)]
    plan = measured.best_rounds([drafts], measured.Place(1e4, 0.1), 0).plan()
    assert (plan.length, plan.setting) == (16, 1)


def test_the_simulation_has_the_luck_of_the_real_system(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    draft = rng.normal(0, 3, (25, V)).astype(np.float32)
    files = tmp_path / "draft.npy", tmp_path / "target.npy"
    np.save(files[0], draft)
    np.save(files[1], draft + rng.normal(0, 1.5, draft.shape).astype(np.float32))
    settings = default_settings(V)
    text = system.Text((1, 2, 3), *files)
    drafts = measured.replay(text, settings, [0, 0], 24)
    plan, link = FixedPlan(4, 1), Link(1e6, 0.02)
    steps = Steps(0.002, 0.01, 0.0005)
    cell = system.Cell("", link, (text,), 24, tuple(settings), plan, steps)
    (played,) = system.play(cell)["texts"]
    run = Run(np.array(1e6), np.array(0.02), steps, 57, drafts, rng, 24)
    rounds = accepted = 0
    while run.done < 23:
        seen = run.round(plan.plan())
        rounds, accepted = rounds + 1, accepted + seen.accepted
    assert (played["passes"], played["accepted"]) == (rounds, accepted)
    assert 0 < accepted < 23
    assert played["bytes_up"] == pytest.approx(float(run.up), rel=0.25)
