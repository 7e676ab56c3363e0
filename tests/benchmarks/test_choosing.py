"""What ``benchmarks.choosing`` and ``benchmarks.rate.general`` measure, on few rows."""

from dataclasses import replace

import numpy as np
import pytest

import sqs_codec as sqs
from benchmarks.choosing import __main__ as benchmark
from benchmarks.choosing import measure
from benchmarks.data.drafts import VOCAB_SIZE
from benchmarks.harness.cells import Cell, simulate
from benchmarks.harness.recorded import STEPS
from benchmarks.planner.__main__ import Case
from benchmarks.rate import general
from benchmarks.rate.schemes import Row
from benchmarks.relay import Link
from sqs_codec.system import session
from sqs_codec.system.edge import FixedPlan


@pytest.mark.parametrize("length", [1, 4])
def test_equal_positions_give_the_geometric_law(length):
    rate = 0.7
    accepted, bits = np.full((1, 30), rate), np.full((1, 30), 100.0)
    per_token, sums = measure._rounds(accepted, bits, length)
    tokens = sum(rate**i for i in range(length + 1))
    assert per_token[0] == pytest.approx(1 / tokens, rel=1e-6)
    assert sums[0] == pytest.approx(100 * length / tokens, rel=1e-6)


def test_seconds_are_those_of_the_real_loop(tmp_path):
    preset, t, link = sqs.preset("balanced"), 0.7, Link(1e5, 0.05)
    prior = sqs.Prior.builtin("smollm2")
    (text,) = Case("SmolLM2", "far", t, 1).record(tmp_path, 96)
    rows = zip(np.load(text.draft), np.load(text.target), strict=True)
    setting = measure.SETTINGS.index(measure.Setting.of(preset))
    which = setting, measure.LENGTHS.index(preset.max_tokens)
    rounds = measure.of_rows((Row(*pair, t) for pair in rows), prior)
    around = STEPS["slow"], benchmark.OVERHEAD
    expected = rounds.seconds(link.rate, link.trip, *around)[which]
    setting = session.Setting(preset.codec(VOCAB_SIZE, prior), preset.keep())
    plan = FixedPlan(preset.max_tokens)
    cell = Cell("", link, (text,), 96, (setting,), plan, STEPS["slow"])
    played = [one for n in range(8) for one in simulate(replace(cell, seed=n))]
    found = sum(p.seconds for p in played) / sum(p.tokens for p in played)
    assert found == pytest.approx(expected, rel=0.05)


def test_the_fastest_rounds_are_those_whose_drafts_are_accepted():
    """All that is drafted by the second and third setting is right."""
    accepted = np.repeat([[0.0], [1.0], [1.0]], 40, axis=1)
    plan = measure.Rounds.of(accepted, np.full((3, 40), 50.0)).fastest(
        1e4, 0.1, STEPS["slow"], benchmark.OVERHEAD
    )
    assert (plan.plan().length, plan.plan().setting) == (16, 1)


def test_each_uplink_has_one_preset():
    bands = np.array([benchmark.band(preset.name) for preset in measure.PRESETS])
    assert (bands.sum(0) == 1).all()


def test_a_general_compressor_takes_more_than_the_codec():
    found = general.measure(rows=10, temperature=0.7)
    ours = found.pop("sqs-codec, prior smollm2")
    assert ours < found.pop("sqs-codec, prior none")
    assert found["fp16 and ids"] == 2048
    assert all(bits > 1.5 * ours for bits in found.values())
