"""What formats of others cost and hold, and who is compared with whom."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from benchmarks.experiments import measured, protocols, wire_formats
from benchmarks.experiments.experiment import Options
from benchmarks.rate.schemes import Row

V = 200


def a_row(seed=0, vocab_size=V, spread=3.0):
    """A draft and a target that agree by and large."""
    rng = np.random.default_rng(seed)
    draft = rng.normal(0, spread, vocab_size).astype(np.float32)
    target = draft + rng.normal(0, 0.7, vocab_size).astype(np.float32)
    return Row(draft, target, 0.7)


# Formats


def test_formats_cost_what_they_say():
    row = a_row(vocab_size=49_152)
    found = {
        f"{f.name} {f.variant}": f.send(row).bits for f in wire_formats.formats(49_152)
    }
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
    assert wire_formats.COMPRESSORS["budget"].bits(262_144) == 8 * (
        14 + -(-50 * 18 // 8)
    )


def test_both_ends_hold_a_distribution():
    row = a_row()
    for one in wire_formats.formats(V):
        q = one.send(row).q
        assert q.probs.sum() == pytest.approx(1, abs=1e-12), one
        assert (q.probs >= 0).all()
        assert np.unique(q.token_ids).size == q.token_ids.size
        best = int(row.q.argmax())
        assert q.prob(best) >= row.q[best] * 0.97  # renormalised, so rather more
        others = np.setdiff1d(np.arange(V), q.token_ids)
        assert all(q.prob(int(token)) == 0 for token in others)


def test_a_curve_brings_back_what_lies_on_it():
    places = np.linspace(0, 1, 40)
    logits = 5 - 3 * np.sqrt(places) - 2 * places
    row = Row(logits, logits, 1.0)
    wire = wire_formats.distillkit(row, wire_formats.Compressor(40, 0, (0, 1, 0.5)))
    assert wire.q.probs == pytest.approx(row.q, rel=1e-5)
    straight = wire_formats.distillkit(row, wire_formats.Compressor(40, 0, (0, 1)))
    assert np.abs(straight.q.probs - row.q).max() > 1e-3


def test_bfloat16_keeps_eight_bits_and_ties_go_to_even():
    values = [1.0, 1.0 + 2**-8, 1.0 + 3 * 2**-8, 1.0 + 2**-8 + 2**-20, -0.1]
    rounded = [1.0, 1.0, 1.0 + 2**-6, 1.0 + 2**-7, -0.10009765625]
    assert wire_formats.bfloat16(np.array(values)).tolist() == rounded


# Shared numbers


def test_shared_numbers_are_right_as_often_as_clocks_say():
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet([0.5] * 6, size=2)
    clocks = rng.exponential(size=(200_000, 6))
    cloud, edge = (clocks / p).argmin(1), (clocks / q).argmin(1)
    for token in range(6):
        at = cloud == token
        seen, n = float((edge[at] == token).mean()), int(at.sum())
        expected = wire_formats.coupled(p, q, token)
        assert abs(seen - expected) < 4.5 * np.sqrt(expected * (1 - expected) / n)


@pytest.mark.parametrize("seed", range(5))
def test_shared_numbers_keep_their_bound(seed):
    row = a_row(seed)
    tv = 0.5 * np.abs(row.p - row.q).sum()
    rate = sum(row.p[y] * wire_formats.coupled(row.p, row.q, y) for y in range(V))
    assert (1 - tv) / (1 + tv) <= rate < 1 - tv
    same = [wire_formats.coupled(row.p, row.p, y) for y in range(V)]
    assert same == pytest.approx([1.0] * V)


def test_shared_numbers_never_draw_what_the_draft_excludes():
    p, q = np.array([0.5, 0.5]), np.array([1.0, 0.0])
    assert wire_formats.coupled(p, q, 1) == 0
    assert wire_formats.coupled(p, q, 0) == pytest.approx(1.0)


# What comes of it


def real_records(place, **seconds):
    """Make two texts of 20 tokens in each way, the second in so many seconds or 1."""
    names = "bytes_up", "bytes_down", "rows", "passes", "first", "late"
    sums = dict.fromkeys(names, 40) | {"tokens": 20, "part": "real", "plan": "4"}
    return [
        {**place._asdict(), **sums, "way": way, "text": text}
        | {"seconds": each, "simulated": 1.01 * each}
        for way in protocols.WAYS
        for text, each in enumerate((1.0, seconds.get(way, 1.0)))
    ]


def summed(*groups):
    sent = {"part": "sent", "model": "m", "temperature": 1, "format": "f"}
    sent |= {"positions": 4, "bits": 8.0, "accepted": 2.0}
    return protocols.summary([sent, *itertools.chain(*groups)], Options(Path()))


def test_hints_are_held_against_the_better_of_rounds_and_the_cloud_alone():
    place = measured.Place(1e5, 0.1)
    found = summed(real_records(place, alone=3.0, rounds=1.5, planner=1.25))
    (link,) = found["links"]
    assert link["gain"] == pytest.approx(2.5 / 2)
    assert link["planner"] == pytest.approx(2 / 2.25)
    assert link["ways"]["rounds"]["tokens_per_second"] == 40 / 2.5
    assert link["ways"]["rounds"]["bytes_up"] == 2
    assert found["formats"][0]["bits"]["value"] == 2
    faster, near, alike = protocols.checks(found)
    assert faster.holds
    assert not near.holds
    assert alike.holds


def test_the_bar_is_of_links_that_do_not_lose():
    slow = dict.fromkeys(("alone", "rounds"), 1.5)
    good = real_records(measured.Place(1e5, 0.1), **slow)
    others = [
        real_records(measured.Place(*place))
        for place in ((2e3, 0.1), (1e5, 0.3), (1e5, 0.1, 0.05))
    ]
    faster, near, _ = protocols.checks(summed(good, *others))
    assert faster.holds
    assert near.holds
    less = real_records(measured.Place(1e6, 0.02), alone=1.5, rounds=1.05)
    faster, *_ = protocols.checks(summed(good, less))
    assert not faster.holds
    assert "on 1M, 20 ms" in faster.detail
