"""What ``benchmarks.experiments`` compares the codec's lattice point with."""

import itertools

import numpy as np
import pytest

import sqs_codec as sqs

pytest.importorskip("rich")
pytest.importorskip("transformers")

from benchmarks.experiments import lattices
from benchmarks.experiments.equal_loss import Cell, Curve
from benchmarks.experiments.lattices import REZNIK

SMOLLM2 = sqs.Prior.builtin("smollm2")


def some_probs(rng):
    """Probabilities of up to 5 tokens, descending, and often some mass dropped."""
    probs = rng.dirichlet(np.full(6, rng.choice([0.2, 1.0, 5.0])))
    return np.sort(probs)[::-1][: rng.integers(1, 6)]


def compositions(total, parts, least):
    for head in itertools.product(range(least, total + 1), repeat=parts - 1):
        if (last := total - sum(head)) >= least:
            yield (*head, last)


def test_least_variation_is_least_of_all_points():
    rng = np.random.default_rng(1)
    for _ in range(150):
        probs, resolution = some_probs(rng), int(rng.integers(1, 9))
        counts = lattices.least_variation(probs, resolution)
        assert counts.sum() == resolution
        assert counts.min() >= 0

        def tv(counts, probs=probs, resolution=resolution):
            excess = np.array(counts) / resolution - probs
            return float(np.maximum(0, excess).sum())

        least = min(map(tv, compositions(resolution, probs.size, 0)))
        assert tv(counts) == pytest.approx(least, abs=1e-12)


def test_largest_remainder_is_nearest_of_all_points_without_a_zero():
    rng = np.random.default_rng(2)
    for _ in range(150):
        probs = some_probs(rng)
        resolution = int(rng.integers(probs.size, 10))
        counts = lattices.largest_remainder(probs, resolution)
        assert counts.sum() == resolution
        assert counts.min() >= 1
        scaled = resolution * probs / probs.sum()
        least = min(
            ((np.array(c) - scaled) ** 2).sum()
            for c in compositions(resolution, probs.size, 1)
        )
        assert ((counts - scaled) ** 2).sum() == pytest.approx(least, abs=1e-9)


def test_settings_are_chosen_on_other_prompts():
    # Each half has a setting that costs nothing there, and much in the other one.
    sums = [[[0.1, 0, 1, 1], [0.1, 0, 50, 50]], [[0.1, 0, 50, 50], [0.1, 0, 1, 1]]]
    records = [
        {"rows": 1, "half": half, "sums": {REZNIK: sums[half]}, "draft_acceptance": 1}
        for half in (0, 1)
    ]
    found = Curve(Cell(records, prior=False), REZNIK, "tv").bits(np.ones((1, 2)), 0.2)
    assert found == pytest.approx(50)
