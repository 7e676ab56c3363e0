"""What ``benchmarks.choosing`` and ``benchmarks.rate.general`` measure, on few rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import sqs_codec as sqs
from benchmarks.choosing import __main__ as benchmark
from benchmarks.choosing import measure
from benchmarks.choosing.measure import (
    LENGTHS,
    PRESETS,
    SETTINGS,
    Setting,
    _rounds,
    of_rows,
)
from benchmarks.planner.__main__ import STEPS
from benchmarks.planner.simulate import Run, World
from benchmarks.rate import general
from benchmarks.rate.schemes import Row
from benchmarks.sources import shipped
from sqs_codec.system import session
from sqs_codec.system.edge import FixedPlan


@pytest.mark.parametrize("length", [1, 4])
def test_equal_positions_give_the_geometric_law(length: int) -> None:
    rate = 0.7
    accepted, bits = np.full((1, 30), rate), np.full((1, 30), 100.0)
    per_token, sums = _rounds(accepted, bits, length)
    tokens = sum(rate**i for i in range(length + 1))
    assert per_token[0] == pytest.approx(1 / tokens, rel=1e-6)
    assert sums[0] == pytest.approx(100 * length / tokens, rel=1e-6)


def test_seconds_are_those_of_the_simulated_loop() -> None:
    preset, t, rate, trip = sqs.preset("balanced"), 0.7, 1e5, 0.05
    prior = sqs.Prior.builtin("smollm2")
    source = replace(shipped().first(40), prior=prior)
    pairs = [*source.pairs()]
    rows = [Row(*pair, t) for pair in pairs]
    which = SETTINGS.index(Setting.of(preset)), LENGTHS.index(preset.max_tokens)
    steps = STEPS["slow"]
    rounds = of_rows(rows, prior)
    expected = rounds.seconds(rate, trip, steps, benchmark.OVERHEAD)[which]
    codec = preset.codec(source.vocab_size, prior)
    world = World.of(pairs, [session.Setting(codec, preset.keep())], t)
    plan = FixedPlan(preset.max_tokens).plan()
    times = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        drafts = world.text(seed).drafts
        run = Run(rate, trip, steps, benchmark.OVERHEAD, drafts, rng)
        run.fixed(plan)
        times.append(float(run.now) / run.tokens)
    assert np.mean(times) == pytest.approx(expected, rel=0.05)


def test_all_tables_in_miniature(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "SETTLED", 4)  # of figures that nobody reads
    benchmark.main(["--rows", "1"])
    assert "Fitted" in capsys.readouterr().out


def test_each_uplink_has_one_preset() -> None:
    bands = np.array([benchmark.band(preset.name) for preset in PRESETS])
    assert (bands.sum(0) == 1).all()


def test_a_general_compressor_takes_more_than_the_codec() -> None:
    found = general.measure(rows=10, temperature=0.7)
    ours = found.pop("sqs-codec, prior smollm2")
    assert ours < found.pop("sqs-codec, prior none")
    assert found["fp16 and ids"] == 2048
    assert all(bits > 1.5 * ours for bits in found.values())
