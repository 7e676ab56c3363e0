"""What it takes to keep tokens by a rule, and what is left, at equal bits.

Every rule keeps the most probable tokens, as many as it says; a rule's parameter moves
bits against loss. So rules are compared where they take the same bits on average: a
share of the positions has one parameter of a grid, the others the next one, so that
the mean is the target's exactly, which no K would meet alone. That is done twice: at a
resolution so fine that the rule alone decides what is lost, and at the resolution at
which each rule loses least. The conformal rule learns online, from one text to the
next, and begins as by default.

What it takes is measured at these parameters, on one core, all rules in turns.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

import sqs_codec as sqs
from benchmarks.charts import Panel, estimated
from benchmarks.experiments.estimate import draws, of_draws
from benchmarks.experiments.experiment import Options, Records, grouped
from benchmarks.experiments.models import load
from benchmarks.experiments.traces import traces
from benchmarks.rate.schemes import Row, codec
from benchmarks.speed.timing import Contestant, Timing, each, interleave, pinned
from benchmarks.tables import dim, table

TITLE = "Rules that keep tokens: microseconds, and what is left at equal bits"
ALONE = True

TEMPERATURES, QUICK_TEMPERATURES = (0.7, 1.0), (0.7,)
PROMPTS, QUICK_PROMPTS = 16, 4

TARGETS = (50.0, 100.0, 200.0)
"""Mean bits of a distribution at which rules are compared."""

FINE = 1024
"""The resolution at which hardly anything is lost to rounding."""

RESOLUTIONS, QUICK_RESOLUTIONS = (32, 64, 128, 256, 512, FINE), (32, 128, FINE)
"""Of which each rule has its best."""

MOST = 8192
"""Tokens sent at most: others that are kept get no counts, as good as never."""

STEPS = 2
"""Parameters to a factor of two; between neighbours bits and loss are nearly linear."""

TIMED_ROWS, TIMED_ROUNDS, QUICK_ROUNDS = 64, 15, 3

TOP_K, TOP_P, MIN_P, THRESHOLD = "top-K", "top-p", "min-p", "threshold"
CONFORMAL, FASTER = "conformal", "conformal, fast"
RULES = (TOP_K, TOP_P, MIN_P, THRESHOLD, CONFORMAL, FASTER)
ETA = {CONFORMAL: sqs.Conformal().eta, FASTER: 10 * sqs.Conformal().eta}
"""Steps of the conformal rule: the default, and one that learns faster."""

WAYS = {"fine": f"l = {FINE}", "best": "each at its best l"}

SUMS = ("bits", "kept", "survivors", "tv", "acceptance")
QUANTIZE, ENCODE, UPDATE = "quantize", "encode", "update"
PARTS = (QUANTIZE, ENCODE, UPDATE)
"""Of what a token takes: each one is timed with those before it."""

LEARN = "update alone"
TIMED = (*PARTS, LEARN)

Floats = NDArray[np.float64]


def _powers(low: float, high: float, steps: int = STEPS) -> tuple[float, ...]:
    """Return a geometric grid, descending."""
    count = round(np.log2(high / low) * steps)
    return tuple(high * 2 ** (-i / steps) for i in range(count + 1))


SHARES = _powers(2**-10, 2**-0.5)
"""Of mass that is dropped."""

GRIDS: dict[str, tuple[float, ...]] = {
    TOP_K: tuple(dict.fromkeys(float(round(k)) for k in _powers(1, 512)))[::-1],
    TOP_P: tuple(1 - share for share in SHARES),
    MIN_P: _powers(2**-17, 2**-0.5),
    THRESHOLD: _powers(2**-17, 2**-1),
    CONFORMAL: SHARES,
    FASTER: SHARES,
}
"""Parameters of each rule, from what keeps least to what keeps most."""


def make(name: str, value: float) -> sqs.Keep:
    """Return a rule with a parameter of its grid."""
    if name in ETA:
        return sqs.Conformal(value, ETA[name])
    if name == TOP_K:
        return sqs.TopK(int(value))
    plain = {TOP_P: sqs.TopP, MIN_P: sqs.MinP, THRESHOLD: sqs.Threshold}
    return plain[name](value)


def kept(name: str, values: NDArray[np.float64], descending: Floats) -> Any:
    """Return how many tokens one of `RULES` keeps by each of some parameters, [P].

    A conformal rule's values are its thresholds; `descending` has all tokens.
    """
    if name == TOP_K:
        found = values.astype(np.int64)
    elif name == TOP_P:
        found = np.searchsorted(descending.cumsum(), values) + 1
    else:
        level = values * (descending[0] if name == MIN_P else 1.0)
        found = np.searchsorted(-descending, -level, "right")
    return found.clip(1, len(descending))


class Sweep:
    """All rules at all parameters, on one position after the other.

    Each codec has another resolution.
    """

    def __init__(self, codecs: Sequence[sqs.Codec]) -> None:
        self._codecs = codecs
        self._learning = {
            name: [sqs.Conformal(a, ETA[name]) for a in GRIDS[name]] for name in ETA
        }

    def add(self, row: Row) -> dict[str, Floats]:
        """Return what each rule takes and loses, [parameters, resolutions, SUMS]."""
        _, descending = row.top(row.q.size)
        sent: dict[int, Floats] = {}
        found = {}
        for name, grid in GRIDS.items():
            rules = self._learning.get(name, [])
            values = np.array([rule.threshold for rule in rules] or grid)
            counts = kept(name, values, descending).tolist()
            for rule, count in zip(rules, counts, strict=False):
                rule.update(row.dropped_mass(count))
            for count in counts:
                if count not in sent:
                    sent[count] = self._send(row, count)
            found[name] = np.array([sent[count] for count in counts])
        return found

    def _send(self, row: Row, count: int) -> Floats:
        found = []
        for one in self._codecs:
            sent = row.send(sqs.TopK(min(count, MOST)), one.resolution)
            q, loss = sent.q, sent.loss
            found.append((one.bits(q), count, len(q.counts), loss.tv, loss.acceptance))
        return np.array(found)


@dataclass(frozen=True)
class Point:
    """A rule where it takes the bits of a target."""

    parameter: float
    """The one that most positions have."""
    resolution: int
    means: Floats
    """[draws, SUMS]: of a position, for each draw of prompts."""


def at_bits(
    grid: Sequence[float],
    resolutions: Sequence[int],
    sums: Floats,
    rows: Floats,
    target: float,
    weights: Floats | None = None,
) -> Point | None:
    """Mix neighbouring parameters so that the mean bits are the target's.

    Of a grid [P] and resolutions [R] there are `sums` [prompts, P, R, SUMS] over so
    many `rows` [prompts]. Weights [draws, prompts] are how often each prompt counts;
    the bits are the target's in every draw, or as near as any parameter comes. By
    default there is one draw, in which each counts once. The point is at the resolution
    with the least total variation in the first draw; None if no parameter takes so few
    bits there, or none so many.

    >>> sums = np.array([[10.0, 1, 1, 0.5, 0.4], [30.0, 3, 3, 0.1, 0.8]])
    >>> point = at_bits([1, 3], [32], sums[None, :, None], np.ones(1), 25)
    >>> point.parameter, point.means[0].round(3).tolist()
    (3, [25.0, 2.5, 2.5, 0.2, 0.7])
    """
    weights = np.ones((1, len(rows))) if weights is None else weights
    points = []
    for r, resolution in enumerate(resolutions):
        means = np.tensordot(weights, sums[:, :, r], 1)
        means /= (weights @ rows)[:, None, None]
        reached = means[:, :, 0] >= target
        if reached[0, 0] or not reached[0].any():  # all lie on one side
            continue
        last = np.where(reached.any(1), reached.argmax(1), len(grid) - 1)
        above, draw = np.maximum(last, 1), np.arange(len(weights))
        low, high = means[draw, above - 1], means[draw, above]
        width = np.maximum(high[:, :1] - low[:, :1], 1e-12)  # 0 beyond either end
        share = (target - low[:, :1]) / width
        mixed = low + share.clip(0, 1) * (high - low)
        most = grid[above[0] - int(share[0, 0] < 0.5)]
        points.append(Point(most, resolution, mixed))
    return min(points, key=lambda p: float(p.means[0, 3]), default=None)


def places(options: Options) -> list[tuple[str, float]]:
    """Return the models and temperatures whose texts are read."""
    return options.places(TEMPERATURES, QUICK_TEMPERATURES)


def measure(options: Options, name: str, temperature: float) -> Records:
    """Compare all rules on the texts of a target, then time them."""
    models = load(options, name)
    resolutions = _resolutions(options)
    codecs = [codec(models.vocab_size, r, "entropy", models.prior) for r in resolutions]
    cell = {"model": name, "temperature": temperature}
    sweep, found = Sweep(codecs), []
    logits: list[NDArray[np.float32]] = []
    prompts = QUICK_PROMPTS if options.quick else PROMPTS
    for trace in traces(options, name, temperature, prompts=prompts):
        sums: dict[str, Any] = dict.fromkeys(GRIDS, 0.0)
        for draft, target in zip(trace.draft, trace.target, strict=True):
            for rule, more in sweep.add(Row(draft, target, temperature)).items():
                sums[rule] = sums[rule] + more
        lists = {rule: every.round(6).tolist() for rule, every in sums.items()}
        found.append({**cell, "prompt": trace.prompt, "rows": len(trace)} | lists)
        logits += list(trace.draft[: TIMED_ROWS - len(logits)])
    points = _points(found, resolutions, (FINE,))
    for rule, times in _time(points, codecs[-1], logits, temperature, options).items():
        found.append({**cell, "rule": rule, "times": times})
    return found


def _resolutions(options: Options) -> tuple[int, ...]:
    return QUICK_RESOLUTIONS if options.quick else RESOLUTIONS


def _points(
    records: Records,
    resolutions: Sequence[int],
    choice: Sequence[int],
    weights: Floats | None = None,
) -> dict[str, dict[float, Point]]:
    """Return each rule at each target that it can meet, of one cell's prompts.

    `resolutions` are those of the records; the best of `choice` is taken. `weights` are
    as `at_bits` takes them.
    """
    chosen = [resolutions.index(one) for one in choice]
    of_prompts = [record for record in records if "rows" in record]
    rows = np.array([float(record["rows"]) for record in of_prompts])
    found: dict[str, dict[float, Point]] = {}
    for rule, grid in GRIDS.items():
        sums = np.array([record[rule] for record in of_prompts])[:, :, chosen]
        at = {t: at_bits(grid, choice, sums, rows, t, weights) for t in TARGETS}
        found[rule] = {t: point for t, point in at.items() if point}
    return found


def _time(
    points: dict[str, dict[float, Point]],
    one: sqs.Codec,
    logits: Sequence[NDArray[np.float32]],
    temperature: float,
    options: Options,
) -> dict[str, dict[str, list[float]]]:
    """Return microseconds a token of each rule, at the middle target: quartiles."""
    contestants = []
    for rule, at in points.items():
        if point := at.get(TARGETS[1]):
            keep = make(rule, point.parameter)
            contestants += _contestants(rule, one, keep, logits, temperature)
    rounds = QUICK_ROUNDS if options.quick else TIMED_ROUNDS
    with pinned(1):
        timings = interleave(contestants, rounds, np.random.default_rng(options.seed))
    return {
        rule: {part: _quartiles(timings[f"{rule} {part}"]) for part in TIMED}
        for rule, at in points.items()
        if TARGETS[1] in at
    }


def _contestants(
    rule: str,
    one: sqs.Codec,
    keep: sqs.Keep,
    logits: Sequence[NDArray[np.float32]],
    temperature: float,
) -> list[Contestant]:
    """Return what is timed of a rule; one that learns goes on from block to block."""
    masses = []
    for row in (*logits, *logits):  # a rule that learns has settled by the second time
        mass = one.quantize(row, keep, temperature=temperature).dropped_mass
        masses.append(float(mass or 0.0))
        keep.update(masses[-1])
    fixed = copy.copy(keep)

    def quantize(row: NDArray[np.float32]) -> None:
        one.quantize(row, fixed, temperature=temperature)

    def encode(row: NDArray[np.float32]) -> None:
        one.encode(one.quantize(row, fixed, temperature=temperature))

    def update(row: NDArray[np.float32]) -> None:
        q = one.quantize(row, keep, temperature=temperature)
        one.encode(q)
        keep.update(float(q.dropped_mass or 0.0))

    calls = zip(PARTS, (quantize, encode, update), strict=True)
    parts = [each(f"{rule} {part}", call, logits) for part, call in calls]
    return [*parts, each(f"{rule} {LEARN}", copy.copy(keep).update, masses)]


def _quartiles(timing: Timing) -> list[float]:
    low, high = timing.spread
    return [low, timing.median, high]


def summary(records: Records, options: Options) -> dict[str, Any]:
    """Return each rule at each target, beside top-K, and its times."""
    cells = []
    for (name, temperature), of_cell in grouped(records, "model", "temperature"):
        rows = np.array([float(r["rows"]) for r in of_cell if "rows" in r])
        cells.append(
            {
                "model": name,
                "temperature": temperature,
                "rows": int(rows.sum()),
                "prompts": len(rows),
                "rules": _compared(of_cell, _resolutions(options), len(rows)),
                "times": {r["rule"]: r["times"] for r in of_cell if "times" in r},
            }
        )
    return {"cells": cells}


def _compared(
    of_cell: Records, resolutions: Sequence[int], prompts: int
) -> dict[str, list[dict[str, Any]]]:
    """Return what each rule loses, at the fine resolution and at its best one."""
    weights = draws(prompts)
    fine = _points(of_cell, resolutions, (FINE,), weights)
    best = _points(of_cell, resolutions, resolutions, weights)
    return {
        rule: [
            {
                "target": target,
                "fine": _estimates(fine[rule].get(target), fine[TOP_K].get(target)),
                "best": _estimates(point, best[TOP_K].get(target)),
            }
            for target, point in at.items()
        ]
        for rule, at in best.items()
    }


def _estimates(point: Point | None, top_k: Point | None) -> dict[str, Any] | None:
    if point is None or top_k is None:
        return None
    found: dict[str, Any] = {
        "parameter": point.parameter,
        "resolution": point.resolution,
    }
    for i, name in enumerate(SUMS):
        found[name] = of_draws(point.means[:, i]).as_json()
        if name in ("tv", "acceptance"):
            beside = of_draws(point.means[:, i] - top_k.means[:, i])
            found[f"{name}_beside_top_k"] = beside.as_json()
    return found


def tables(summary: dict[str, Any]) -> list[Table | Text]:
    """Return two tables for each cell, and one of times."""
    made: list[Table | Text] = []
    for cell in summary["cells"]:
        for way, title in WAYS.items():
            of_way = table(
                f"{cell['model']}, T = {cell['temperature']:g}, {title}: "
                f"{cell['rows']} positions",
                *("", "value", "l", "K", "k", "TV, %", "beside top-K", "accepted"),
            )
            for target in TARGETS:
                of_way.add_row(f"{target:g} bits", *[""] * 7, style="bold")
                for rule, at in cell["rules"].items():
                    for one in at:
                        if one["target"] == target and one[way]:
                            of_way.add_row(rule, *_columns(one[way]))
            made.append(of_way)
    made.append(_times(summary))
    made.append(
        dim(
            "At equal mean bits; intervals of 95 %, over texts. The value is K, p, p, "
            "beta or alpha; the fast rule's steps are ten times the default. Times are "
            f"medians at {TARGETS[1]:g} bits and l = {FINE}, one core: quantizing "
            "logits, then with coding, then with the rule's update."
        )
    )
    return made


def _columns(found: dict[str, Any]) -> list[str]:
    beside = found["tv_beside_top_k"]
    interval = f"{100 * beside['low']:+.2f} to {100 * beside['high']:+.2f}"
    return [
        f"{found['parameter']:.3g}",
        str(found["resolution"]),
        f"{found['kept']['value']:.1f}",
        f"{found['survivors']['value']:.1f}",
        f"{100 * found['tv']['value']:.2f}",
        interval if beside["low"] or beside["high"] else "",
        f"{100 * found['acceptance']['value']:.1f} %",
    ]


def _times(summary: dict[str, Any]) -> Table:
    made = table(
        "Microseconds a token",
        *("", "quantize", "+ encode", "+ update", "update\nalone"),
    )
    for cell in summary["cells"]:
        made.add_row(f"{cell['model']}, T = {cell['temperature']:g}", style="bold")
        for rule, times in cell["times"].items():
            middle = [times[part][1] for part in PARTS]
            made.add_row(rule, *(f"{x:.1f}" for x in middle), f"{times[LEARN][1]:.2f}")
    return made


def chart(summary: dict[str, Any]) -> list[Panel]:
    """Show what each rule loses beside top-K at equal bits, in the first cell."""
    cell = summary["cells"][0]
    series = {
        name: [
            estimated(rule, one[way]["tv_beside_top_k"], 100)
            for rule, at in cell["rules"].items()
            for one in at
            if rule != TOP_K and one["target"] == TARGETS[1] and one[way]
        ]
        for way, name in (("fine", f"l = {FINE}"), ("best", "the best l"))
    }
    title = f"TV beside top-K's, points of 100, at {TARGETS[1]:g} bits"
    return [Panel(title, series, beside=0)]
