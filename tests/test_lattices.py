"""What ``benchmarks.experiments`` compares the codec's lattice with."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sqs_codec as sqs

pytest.importorskip("matplotlib")
pytest.importorskip("rich")
pytest.importorskip("scipy")

from benchmarks.experiments import lattices, quantizers
from benchmarks.experiments.equal_loss import Cell, Curve
from benchmarks.experiments.experiment import Options
from benchmarks.experiments.lattices import (
    CONTROL,
    REZNIK,
    VARIATION,
    Meter,
    Setting,
    set_bits,
)
from benchmarks.experiments.quantizers import Indices, count_codes, price
from benchmarks.experiments.stretch import facts, spread, stretched
from benchmarks.rate.measure import bits_at
from benchmarks.rate.schemes import Row
from benchmarks.sources import Session, shipped
from sqs_codec.cli.bits import pareto
from tests.reference.entropy import bits_by_label
from tests.reference.prior import parse

SMOLLM2 = sqs.Prior.builtin("smollm2")
V = 49_152


def rows(session: Session, temperature: float, step: int = 8) -> Iterator[Row]:
    for i in range(0, len(session), step):
        yield Row(session.draft[i], session.target[i], temperature)


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    meter = Meter(V, SMOLLM2, lattices.sweeps(0.7, quick=True))
    for number, session in enumerate(shipped().sessions[:6]):
        meter.add(number, rows(session, 0.7))
    common = {"model": "smollm2", "temperature": 0.7, "stretched": False}
    return [common | record for record in meter.records(seed=0)]


def some_probs(rng: np.random.Generator) -> np.ndarray:
    """Probabilities of up to 5 tokens, descending, and often some mass dropped."""
    probs = rng.dirichlet(np.full(6, rng.choice([0.2, 1.0, 5.0])))
    return np.sort(probs)[::-1][: rng.integers(1, 6)]


def compositions(total: int, parts: int, least: int) -> Iterator[tuple[int, ...]]:
    for head in itertools.product(range(least, total + 1), repeat=parts - 1):
        if (last := total - sum(head)) >= least:
            yield (*head, last)


def test_least_variation_is_least_of_all_points() -> None:
    rng = np.random.default_rng(1)
    for _ in range(150):
        probs, resolution = some_probs(rng), int(rng.integers(1, 9))
        counts = quantizers.least_variation(probs, resolution)
        assert counts.sum() == resolution
        assert counts.min() >= 0

        def tv(counts: Any, probs: Any = probs, resolution: int = resolution) -> float:
            excess = np.array(counts) / resolution - probs
            return float(np.maximum(0, excess).sum())

        least = min(map(tv, compositions(resolution, probs.size, 0)))
        assert tv(counts) == pytest.approx(least, abs=1e-12)


def test_largest_remainder_is_nearest_of_all_points_without_a_zero() -> None:
    rng = np.random.default_rng(2)
    for _ in range(150):
        probs = some_probs(rng)
        resolution = int(rng.integers(probs.size, 10))
        counts = quantizers.largest_remainder(probs, resolution)
        assert counts.sum() == resolution
        assert counts.min() >= 1
        scaled = resolution * probs / probs.sum()
        least = min(
            ((np.array(c) - scaled) ** 2).sum()
            for c in compositions(resolution, probs.size, 1)
        )
        assert ((counts - scaled) ** 2).sum() == pytest.approx(least, abs=1e-9)


def test_geometric_levels_are_nearest_in_logarithm() -> None:
    probs = np.sort(np.random.default_rng(3).dirichlet(np.full(40, 0.3)))[::-1][:20]
    step = 0.35
    levels = quantizers.geometric(probs, step)
    logs = np.log(probs / probs.sum())
    assert np.abs(logs + step * levels).max() <= step / 2 + 1e-12
    weights = quantizers.geometric_weights(levels, step)
    ratios = np.log(weights[1:] / weights[0]) + step * (levels[1:] - levels[0])
    assert np.abs(ratios).max() < 1e-3


def test_symbols_and_free_bits_tell_every_integer() -> None:
    values = np.arange(1, 1 << 12)
    far = np.full(1, quantizers.UNLIMITED)
    found = [quantizers._symbols(values[i : i + 1], far) for i in range(values.size)]
    symbols = np.array([int(symbol[0]) for symbol, _ in found])
    free = np.array([bits for _, bits in found])
    assert (np.diff(symbols) >= 0).all()
    assert symbols.min() == 1  # 0 is the end
    sharing = np.bincount(symbols)[symbols]
    np.testing.assert_allclose(free, np.log2(sharing))


def test_a_value_can_be_no_larger_than_the_one_before() -> None:
    # 64 ... 79 share a symbol. After 66, there are three values that it can mean.
    _, free = quantizers._symbols(np.array([66, 64]), np.array([79, 66]))
    assert free == pytest.approx(4 + np.log2(3))


def test_arrangement_counts_the_ways() -> None:
    assert quantizers._arrangement(np.array([5, 1, 1])) == pytest.approx(np.log2(3))


def test_price_with_all_the_tables_to_learn_from_is_the_entropy() -> None:
    indices = Indices.of_counts(np.array([50, 20, 10, 10, 5, 3, 1, 1]), 0.01)
    counted = count_codes(indices.codes)
    many = 10**7 * counted
    totals = counted.sum(1, keepdims=True)
    some = counted > 0
    entropy = -(counted * np.log2(np.where(some, counted / np.maximum(totals, 1), 1)))
    assert price(counted, many) == pytest.approx(entropy.sum(), abs=1e-3)
    assert price(counted, 0 * counted) == pytest.approx(
        counted.sum() * np.log2(quantizers.SYMBOLS)
    )


def test_chances_sum_to_one() -> None:
    learned = np.random.default_rng(4).integers(0, 3, (quantizers.SYMBOLS,))
    mixed = quantizers._mixed(learned, np.full(learned.size, 1 / learned.size))
    assert mixed.sum() == pytest.approx(1)
    assert quantizers._mixed(learned, mixed).sum() == pytest.approx(1)


@pytest.mark.parametrize("prior", [None, SMOLLM2])
def test_set_bits_are_those_of_the_coders_ids(prior: sqs.Prior | None) -> None:
    known = None if prior is None else parse(prior.to_bytes())
    for row in rows(shipped().sessions[0], 1.0):
        ids = row.send(sqs.TopK(64), 100).q.token_ids
        pair = ids.tolist(), [1] * ids.size
        labels = bits_by_label([pair], [pair[0][0]], V, ids.size, prior=known)
        exact = sum(labels.get(name, 0) for name in ("class", "ids", "uniform ids"))
        # Each of two codings is rounded up, and the flag of the mode is in one.
        assert set_bits(ids, V, prior) == pytest.approx(exact, abs=1.2)


def test_learned_tables_take_about_what_the_codec_takes() -> None:
    setting = Setting(sqs.TopK(64), 91)
    bits, codes, free = 0, [], 0.0
    for session in shipped().sessions[:12]:
        for row in rows(session, 0.7, 4):
            q = lattices._reznik(row, setting).q
            point = lattices._control(row, setting)
            assert q is not None
            assert point.indices is not None
            bits += sqs.Codec(V, 91).bits(q) - set_bits(q.token_ids, V, None)
            codes.append(point.indices.codes)
            free += point.indices.free
    counted = count_codes(np.concatenate(codes))
    assert 0.85 < (price(counted, counted) + free) / bits < 1.1


@pytest.mark.parametrize("size", lattices.SIZES)
def test_stretched_rows_are_like_real_ones(size: int) -> None:
    off = []
    for row in rows(shipped().sessions[1], 1.0, 2):
        draft, target = stretched(row.q, row.p, size)
        assert draft.size == target.size == size
        for new, old in ((draft, row.q), (target, row.p)):
            assert new.sum() == pytest.approx(1)
            assert np.sort(new)[-64:] == pytest.approx(np.sort(old)[-64:])
        # What both models say of a token stays together.
        assert np.minimum(draft, target).max() == np.minimum(row.q, row.p).max()
        moved = Row(np.log(draft), np.log(target), 1.0)
        off.append(np.subtract(facts(moved), facts(row)))
    limits = list(lattices.CLOSE.values())
    assert (np.abs(np.mean(off, 0)) <= limits).all(), np.mean(off, 0)


def test_places_are_different_and_inside() -> None:
    places = spread(np.array([0, 0, 0, 5, 9, 9]), 10)
    assert places.tolist() == [0, 1, 2, 5, 8, 9]


def test_bounds_hold_on_real_rows(records: list[dict[str, Any]]) -> None:
    summary = lattices.summary(records, Options(Path()))
    assert all(check.holds for check in lattices.checks(summary))
    (cell,) = summary["cells"]
    assert cell["bound"] > 0.5  # else it tests nothing
    cell["bound"] = 1.001
    assert [check.holds for check in lattices.checks(summary)] == [False, True]
    cell["bound"], cell["excess"] = 0.9, 1e-6
    assert [check.holds for check in lattices.checks(summary)] == [True, False]


def test_least_variation_has_least_tv_over_the_vocabulary(
    records: list[dict[str, Any]],
) -> None:
    for record in records:
        best = np.array(record["sums"][VARIATION])[:, 0]
        for scheme in (REZNIK, lattices.REMAINDER):
            assert (best <= np.array(record["sums"][scheme])[:, 0] + 1e-5).all()


def test_the_control_differs_in_bits_alone(records: list[dict[str, Any]]) -> None:
    for record in records:
        own, other = (np.array(record["sums"][s]) for s in (REZNIK, CONTROL))
        np.testing.assert_array_equal(own[:, :2], other[:, :2])
        assert (own[:, 2:] != other[:, 2:]).all()


def test_curve_is_the_front_where_both_halves_are_equal(
    records: list[dict[str, Any]],
) -> None:
    twice = [record | {"half": half} for record in records for half in (0, 1)]
    cell = Cell(twice, prior=True)
    curve = Curve(cell, REZNIK, "tv")
    points = cell.points(REZNIK, "tv").sum(0) / cell.rows.sum()
    front = pareto(points[:, 0], points[:, 1])
    for loss in (0.001, 0.05, 0.1, 0.9):
        found = curve.bits(np.ones((1, len(twice))), loss)[0]
        expected = bits_at(points[front, 0], points[front, 1], loss)
        assert found == pytest.approx(
            np.nan if expected is None else expected, nan_ok=True
        )


def test_settings_are_chosen_on_other_prompts() -> None:
    # Each half has a setting that costs nothing there, and much in the other one.
    sums = [[[0.1, 0, 1, 1], [0.1, 0, 50, 50]], [[0.1, 0, 50, 50], [0.1, 0, 1, 1]]]
    records = [
        {"rows": 1, "half": half, "sums": {REZNIK: sums[half]}, "draft_acceptance": 1}
        for half in (0, 1)
    ]
    found = Curve(Cell(records, prior=False), REZNIK, "tv").bits(np.ones((1, 2)), 0.2)
    assert found == pytest.approx(50)


def test_everything_is_reported(records: list[dict[str, Any]], tmp_path: Path) -> None:
    from matplotlib.figure import Figure
    from rich.console import Console

    summary = lattices.summary(records, Options(Path()))
    with (tmp_path / "text").open("w") as file:
        for part in lattices.tables(summary):
            Console(file=file, width=80).print(part)
    text = (tmp_path / "text").read_text()
    assert max(map(len, text.splitlines())) <= 80
    for scheme in lattices.MAKERS:
        assert scheme in text
    figure = Figure()
    lattices.plot(summary, figure)
    figure.savefig(tmp_path / "plot.png")
