"""Loss of the rules that keep tokens, at equal bits.

Every rule keeps the most probable tokens and chooses their number; its parameter trades
bits for loss. Rules are compared at the same average bits: a share of the positions
uses one parameter of a grid, the others the next one. This is done twice: at a very
fine resolution, so that only the rule causes loss, and at the resolution with the least
loss of each rule. The conformal rule learns online across texts, and starts with its
defaults.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

import sqs_codec as sqs
from benchmarks.experiments.estimate import draws, of_draws
from benchmarks.experiments.experiment import Options, Records, grouped
from benchmarks.experiments.models import load
from benchmarks.experiments.traces import traces
from benchmarks.schemes import Row, codec
from benchmarks.tables import dim, table

TITLE = "Rules that keep tokens: what is left at equal bits"
ALONE = False

TEMPERATURES, QUICK_TEMPERATURES = (0.7, 1.0), (0.7,)
PROMPTS, QUICK_PROMPTS = 16, 4

TARGETS = (50.0, 100.0, 200.0)
"""Mean bits per distribution at which rules are compared."""

FINE = 1024
"""A resolution with a negligible rounding loss."""

RESOLUTIONS, QUICK_RESOLUTIONS = (32, 64, 128, 256, 512, FINE), (32, 128, FINE)
"""The resolutions from which each rule gets its best."""

MOST = 8192
"""Limit on sent tokens; further kept tokens practically never get counts."""

TOP_K, TOP_P, MIN_P, THRESHOLD = "top-K", "top-p", "min-p", "threshold"
CONFORMAL, FASTER = "conformal", "conformal, fast"
ETA = {CONFORMAL: sqs.Conformal().eta, FASTER: 10 * sqs.Conformal().eta}
"""Steps of the conformal rule: the default, and one that learns faster."""

FIXED, BEST = f"l = {FINE}", "each at its best l"

SUMS = ("bits", "kept", "tv", "acceptance")

Floats = NDArray[np.float64]


def _powers(low: float, high: float) -> tuple[float, ...]:
    """Return a geometric grid, descending, with two parameters to a factor of two."""
    count = round(2 * np.log2(high / low))
    return tuple(high * 2 ** (-i / 2) for i in range(count + 1))


SHARES = _powers(2**-10, 2**-0.5)
"""Shares of dropped mass."""

GRIDS: dict[str, tuple[float, ...]] = {
    TOP_K: tuple(dict.fromkeys(float(round(k)) for k in _powers(1, 512)))[::-1],
    TOP_P: tuple(1 - share for share in SHARES),
    MIN_P: _powers(2**-17, 2**-0.5),
    THRESHOLD: _powers(2**-17, 2**-1),
    CONFORMAL: SHARES,
    FASTER: SHARES,
}
"""Parameters of each rule, in the order of tokens kept."""


def kept(name: str, values: NDArray[np.float64], descending: Floats) -> Any:
    """Return how many tokens a rule of `GRIDS` keeps for each parameter, [P].

    For conformal rules, `values` are thresholds; `descending` has all tokens.
    """
    if name == TOP_K:
        return values.astype(np.int64).clip(1, len(descending))
    if name == TOP_P:
        return np.searchsorted(descending.cumsum()[:-1], values) + 1
    level = values * (descending[0] if name == MIN_P else 1.0)
    return np.searchsorted(-descending, -level, "right").clip(1)


class Sweep:
    """All rules with all parameters and codecs of several resolutions, row by row."""

    def __init__(self, codecs: Sequence[sqs.Codec]) -> None:
        self._codecs = codecs
        self._rules = {
            name: [sqs.Conformal(a, ETA[name]) for a in GRIDS[name]] for name in ETA
        }
        self._states = {
            name: [rule.start() for rule in rules]
            for name, rules in self._rules.items()
        }

    def add(self, row: Row) -> dict[str, Floats]:
        """Return each rule's figures, [parameters, resolutions, SUMS]."""
        (_, descending), sent, found = row.top(row.q.size), dict[int, Floats](), {}
        for name, grid in GRIDS.items():
            states = self._states.get(name, [])
            counts = kept(name, np.array(states or grid), descending).tolist()
            for i, rule in enumerate(self._rules.get(name, [])):
                states[i] = rule.next(states[i], row.dropped_mass(counts[i]))
            sent |= {n: self._send(row, n) for n in {*counts} - {*sent}}
            found[name] = np.array([sent[count] for count in counts])
        return found

    def _send(self, row: Row, count: int) -> Floats:
        found = []
        for one in self._codecs:
            sent = row.send(sqs.TopK(min(count, MOST)), one.resolution)
            loss = sent.loss
            found.append((one.bits(sent.q), count, loss.tv, loss.acceptance))
        return np.array(found)


def at_bits(
    grid: Sequence[float],
    resolutions: Sequence[int],
    sums: Floats,
    rows: Floats,
    target: float,
    weights: Floats,
) -> tuple[float, int, Floats] | None:
    """Mix neighboring parameters so that the mean bits are the target's.

    Return the parameter that most positions have, the resolution, and the means of a
    position [draws, SUMS]. Of a grid [P] and resolutions [R] there are `sums` [prompts,
    P, R, SUMS] over so many `rows` [prompts]. Weights [draws, prompts] are how often
    each prompt counts. The resolution is that with the least total variation in the
    first draw. None if no parameter takes so few bits there, or none so many.
    """
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
        most = grid[above[0] - int(share[0, 0] < 0.5)]
        points.append((most, resolution, low + share.clip(0, 1) * (high - low)))
    return min(points, key=lambda p: float(p[2][0, 2]), default=None)


def places(options: Options) -> list[tuple[str, float]]:
    """Return the models and temperatures of the completions."""
    return options.places(TEMPERATURES, QUICK_TEMPERATURES)


def measure(options: Options, name: str, temperature: float) -> Records:
    """Compare all rules on a target's completions."""
    models = load(options, name)
    v, prior = models.vocab_size, models.prior
    resolutions = QUICK_RESOLUTIONS if options.quick else RESOLUTIONS
    sweep = Sweep([codec(v, r, "entropy", prior) for r in resolutions])
    prompts, found = QUICK_PROMPTS if options.quick else PROMPTS, []
    for trace in traces(options, name, temperature, prompts=prompts):
        sums: dict[str, Any] = dict.fromkeys(GRIDS, 0.0)
        for draft, target in zip(trace.draft, trace.target, strict=True):
            for rule, more in sweep.add(Row(draft, target, temperature)).items():
                sums[rule] = sums[rule] + more
        lists = {rule: every.round(6).tolist() for rule, every in sums.items()}
        cell = {"model": name, "temperature": temperature, "prompt": trace.prompt}
        found.append({**cell, "rows": len(trace)} | lists)
    return found


def summary(records: Records, options: Options) -> dict[str, Any]:
    """Return each rule at each target, compared with top-K."""
    cells = []
    for (name, temperature), of_cell in grouped(records, "model", "temperature"):
        rows = sum(record["rows"] for record in of_cell)
        cell = {"model": name, "temperature": temperature, "rows": rows}
        resolutions = QUICK_RESOLUTIONS if options.quick else RESOLUTIONS
        cells.append(cell | {"points": _points(of_cell, resolutions)})
    return {"cells": cells}


def _points(records: Records, resolutions: Sequence[int]) -> Records:
    """Return each rule at each target, at the fine resolution and at its best one."""
    rows = np.array([float(record["rows"]) for record in records])
    weights, found = draws(len(rows)), []
    ways = {FIXED: (FINE,), BEST: resolutions}
    for (way, choice), target in itertools.product(ways.items(), TARGETS):
        chosen = [resolutions.index(one) for one in choice]
        points = {}
        for rule, grid in GRIDS.items():
            sums = np.array([record[rule] for record in records])[:, :, chosen]
            points[rule] = at_bits(grid, choice, sums, rows, target, weights)
        for rule, point in points.items():
            if point and (top_k := points[TOP_K]):
                value, resolution, every = point
                means = dict(zip(SUMS, every.T, strict=True))
                means["beside"] = every[:, 2] - top_k[2][:, 2]
                one = {"way": way, "target": target, "rule": rule, "value": value}
                one |= {name: of_draws(x).as_json() for name, x in means.items()}
                found.append(one | {"resolution": resolution})
    return found


def tables(summary: dict[str, Any]) -> Iterator[Table | Text]:
    """Yield two tables for each cell."""
    names = "bits", "value", "l", "K", "TV, %", "over top-K", "accepted"
    for cell in summary["cells"]:
        place = f"{cell['model']}, T = {cell['temperature']:g}, {cell['rows']} rows"
        for (way,), points in grouped(cell["points"], "way"):
            made = table(f"{place}, {way}", "", *names)
            for point in points:
                made.add_row(point["rule"], *_columns(point))
            yield made
    yield dim(
        "At equal mean bits; 95 % intervals over completions. The value is K, p, p, "
        "beta or alpha; the fast rule's steps are ten times the default."
    )


def _columns(found: dict[str, Any]) -> Iterator[str]:
    yield from (f"{found['target']:g}", f"{found['value']:.3g}")
    yield f"{found['resolution']}"
    yield f"{found['kept']['value']:.1f}"
    yield f"{100 * found['tv']['value']:.2f}"
    low, high = (100 * found["beside"][end] for end in ("low", "high"))
    yield f"{low:+.2f} to {high:+.2f}" if low or high else ""
    yield f"{100 * found['acceptance']['value']:.1f} %"
