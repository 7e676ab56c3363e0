"""What ``python -m benchmarks.speed`` measures, quickly: that it runs, not how fast."""

from __future__ import annotations

import math
import os
import time

import numpy as np
import pytest

pytest.importorskip("rich")
pytest.importorskip("numba")
pytest.importorskip("torch")

from benchmarks.sources import shipped
from benchmarks.speed import instructions, many, measure
from benchmarks.speed.__main__ import main
from benchmarks.speed.report import bars
from benchmarks.speed.rows import HEAD, resized, take
from benchmarks.speed.timing import Contestant, interleave, pinned, read

SEED = 3


@pytest.fixture(scope="module")
def speed() -> measure.Speed:
    """Give a quick run."""
    return measure.run(shipped(), measure.QUICK, SEED, progress=False)


def test_interleaved_rounds_time_every_contestant() -> None:
    order: list[str] = []
    contestants = [
        Contestant(name, lambda name=name: order.append(name), 2) for name in "abc"
    ]
    times = interleave(contestants, 40, np.random.default_rng(SEED))
    assert [len(times[name].micros) for name in "abc"] == [40, 40, 40]
    # Each runs twice in its turn, the first time off the clock.
    assert order[::2] == order[1::2]
    rounds = [tuple(order[i : i + 6 : 2]) for i in range(0, len(order), 6)]
    assert len(rounds) == 40
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len(set(rounds)) > 1


def test_what_comes_before_a_block_is_not_timed() -> None:
    contestant = Contestant("a", lambda: None, 1, lambda: time.sleep(0.01))
    times = interleave([contestant], 3, np.random.default_rng(SEED))
    assert times["a"].micros.min() < 10_000


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs Linux")
def test_pinning_ends() -> None:
    allowed = os.sched_getaffinity(0)
    with pinned(1) as cores:
        assert cores == 1
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == allowed


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_one_read_takes_in_every_value(dtype: type) -> None:
    rows = np.ones((3, 1000), dtype)
    total = rows.view(np.float32).sum() if dtype is np.float16 else rows.sum()
    assert read(rows) == pytest.approx(float(total))


def test_other_vocabularies_keep_the_head_of_a_row() -> None:
    rng = np.random.default_rng(SEED)
    rows = rng.normal(size=(2, 3000)).astype(np.float32)
    larger = resized(rows, 5000, rng)
    assert larger.shape == (2, 5000)
    assert np.array_equal(larger[:, :3000], rows)
    for row, more in zip(rows, larger[:, 3000:], strict=True):
        assert more.max() <= np.sort(row)[-HEAD - 1]
    assert np.array_equal(resized(rows, 1000, rng), rows[:, :1000])


def test_rows_come_from_all_sessions_without_ties() -> None:
    source = shipped()
    draft, target = take(source, 18, 6, np.random.default_rng(SEED))
    assert len(draft) == len(target) == 18
    for i in range(3):
        for rows, logits in (
            (draft, source.sessions[i].draft),
            (target, source.sessions[i].target),
        ):
            assert np.argmax(rows[6 * i + 1]) == np.argmax(logits[1])
    assert np.unique(draft[0]).size > draft.shape[1] // 2


def test_every_group_is_measured(speed: measure.Speed) -> None:
    assert speed.measured["packets"] > 0
    assert "numpy" in speed.measured["packages"]
    cases = {
        name: [case.value for case in group.cases]
        for name, group in speed.groups.items()
    }
    assert cases["vocabulary"] == list(measure.QUICK.vocabularies)
    assert cases["top_k"] == list(measure.QUICK.ks)
    assert cases["support"] == list(measure.QUICK.supports)
    assert {"calls", "verdicts", "races", "python", "prior"} <= set(cases)
    for group in speed.groups.values():
        for case in group.cases:
            for timing in case.times.values():
                low, high = timing.spread
                assert 0 < low <= timing.median <= high < math.inf


def test_bars_are_finite_and_judged(speed: measure.Speed) -> None:
    held = {bar.name: bar for bar in bars(speed)}
    assert {
        "softmax + topk / encode_logits",
        "encode_logits / one read",
        "decode",
        "Conformal, update beyond Threshold",
        f"verify / one read of its {measure.GROUP_ROWS} rows",
    } <= set(held)
    for bar in held.values():
        assert math.isfinite(bar.value)
        reaches, exceeds = bar.value >= bar.limit, bar.value > bar.limit
        assert bar.passes == (reaches if bar.at_least else not exceeds)


def test_report_fits_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick", "--rounds", "1", "--seed", str(SEED)]) == 0
    out = capsys.readouterr().out
    assert "median of 1 rounds" in out
    assert "What it is held to" in out
    assert "…" not in out


@pytest.mark.skipif(
    bool(instructions.missing()), reason="needs valgrind and a compiler"
)
def test_hot_paths_take_no_more_instructions(
    capfd: pytest.CaptureFixture[str],
) -> None:
    code = instructions.main([])
    out, err = capfd.readouterr()
    print(out)
    assert code == 0, err


def test_many_at_once_are_timed(capsys: pytest.CaptureFixture[str]) -> None:
    assert many.main(["--rounds", "1"]) == 0
    out = capsys.readouterr().out
    assert "decode_sequence" in out
    assert "bytes a row: packets" in out
