"""The two theorems on the cost of sparsification, compared with measurements.

Rejections: at each verified position a draft is rejected with probability TV(p, q^), at
most the sum of TV(p, q), the dropped mass and K/4l. This is checked at each position
exactly, and statistically for the sampled verdicts. Dropped mass: the mean of what
`sqs.Conformal` drops stays below `theory.conformal_bound`, at every step of every run.
docs/theory.md, sections 4 and 5, has the proofs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

import sqs_codec as sqs
from benchmarks.experiments.estimate import ratio
from benchmarks.experiments.experiment import Check, Options, Records, grouped
from benchmarks.experiments.speculate import Draft, Edge, Round, draw, read_rows, replay
from benchmarks.experiments.traces import traces
from benchmarks.schemes import Rule
from benchmarks.tables import dim, table
from sqs_codec import theory

TITLE = "Rejections and dropped mass against what the theory allows"
ALONE = False

TEMPERATURES, QUICK_TEMPERATURES = (0.3, 0.7, 1.0), (1.0,)
LENGTH = 8
"""Drafted tokens per round, the default of `sqs.Drafter`."""

PROMPTS = 34
"""Prompts per model, limited by time."""

KS, QUICK_KS = (16, 64, 256), (64,)
ALPHAS, QUICK_ALPHAS = (0.02, 0.1), (0.05,)
ETA = 0.01
RESOLUTIONS, QUICK_RESOLUTIONS = (100, 400), (100,)
DRAWS = 4
"""Replays of each completion, each with its own random numbers."""

RUN_ALPHAS = (0.005, 0.02, 0.1)
RUN_ETAS = (1e-3, 1e-2, 1e-1)
RUN_BETAS = (1e-3, 0.1, 1.0)
RUN_RESOLUTION = 100
ROUNDING = 1e-9
"""The rounding error of sums of some thousand probabilities."""

TILT, CHANCE = 0.3, 1e-6
"""Parameters of the statistical test; see `allowance`."""

PARTS = ("mismatch", "dropped", "quantization")
"""The terms of the bound. The last is capped at 1, the largest total variation."""


CELL = ("model", "temperature", "rule", "resolution")
QUANTITIES = ("expected", "rejected", "loss", *PARTS)
"""The figures of a cell; the loss is TV(q, q^)."""


def places(options: Options) -> list[tuple[str, float]]:
    """Return the models and temperatures of the completions."""
    return options.places(TEMPERATURES, QUICK_TEMPERATURES)


def measure(options: Options, model: str, temperature: float) -> Records:
    """Replay a model's completions with all settings."""
    of_runs = itertools.product(RUN_ALPHAS, RUN_ETAS, RUN_BETAS, (True, False))
    cells, runs = _cells(options), [_Run(*each) for each in of_runs]
    records: Records = []
    for trace in traces(options, model, temperature, prompts=PROMPTS):
        rows = read_rows(trace, temperature)
        draws = [draw(options.seed, trace, i) for i in range(DRAWS)]
        for name, i, edge in cells:
            rounds = list(replay(edge, rows, trace.tokens, draws[i]))
            counts = _sums([draft for made in rounds for draft in made.judged])
            counts["rejected"] = sum(made.rejected for made in rounds)
            cell = {"rule": name, "resolution": edge.resolution, "draw": i}
            records.append({"prompt": trace.prompt, **cell, **counts})
        for run in runs:
            run.add(replay(run.edge, rows, trace.tokens, draws[0]))
    records += [run.record() for run in runs]
    return [{"model": model, "temperature": temperature, **r} for r in records]


def _cells(options: Options) -> list[tuple[str, int, Edge]]:
    """Return all settings by name, each with an edge for each draw."""
    quick = options.quick
    rules: list[tuple[str, Callable[[], Rule]]] = [
        *((f"K {k}", partial(sqs.TopK, k)) for k in (QUICK_KS if quick else KS)),
        *(
            (f"C {alpha:g}", partial(sqs.Conformal, alpha, ETA))
            for alpha in (QUICK_ALPHAS if quick else ALPHAS)
        ),
    ]
    return [
        (name, i, Edge(keep(), resolution, LENGTH))
        for resolution in (QUICK_RESOLUTIONS if quick else RESOLUTIONS)
        for name, keep in rules
        for i in range(DRAWS)
    ]


def _sums(drafts: Sequence[Draft]) -> dict[str, float]:
    """Add up both sides of the theorem over verified positions."""
    expected = np.array([draft.rejection for draft in drafts])
    parts = np.array([_parts(draft) for draft in drafts])
    excess = expected - parts.sum(1)
    return {
        "judged": len(drafts),
        "expected": float(expected.sum()),
        "variance": float((expected * (1 - expected)).sum()),
        "loss": sum(draft.sent.loss.tv for draft in drafts),
        **dict(zip(PARTS, parts.sum(0).tolist(), strict=True)),
        "worst": float(excess.max()),
    }


def _parts(draft: Draft) -> tuple[float, float, float]:
    """Return the three terms of the bound at a position."""
    kept, resolution = draft.sent.kept, draft.sent.q.resolution
    lattice = theory.quantizer_tv_bound(kept, resolution)
    return draft.row.mismatch, draft.dropped, min(1.0, lattice)


@dataclass
class _Run:
    """The masses that a conformal rule dropped, from its first update."""

    alpha: float
    eta: float
    beta: float
    rollback: bool
    dropped: list[float] = field(default_factory=list)
    """At the positions that it learned from: with rollback the verified ones, without
    it all drafted ones."""
    judged: list[float] = field(default_factory=list)
    """At the verified positions."""

    def __post_init__(self) -> None:
        keep = sqs.Conformal(self.alpha, self.eta, self.beta)
        self.edge = Edge(keep, RUN_RESOLUTION, LENGTH, rollback=self.rollback)

    def add(self, rounds: Iterator[Round]) -> None:
        """Add a completion."""
        for made in rounds:
            learned = made.judged if self.rollback else made.drafts
            self.dropped += [draft.dropped for draft in learned]
            self.judged += [draft.dropped for draft in made.judged]

    def record(self) -> dict[str, Any]:
        """Compare the running mean with the bound at each step."""
        mean, bound, sharp = self._along(self.dropped)
        judged, judged_bound, _ = self._along(self.judged)
        return {
            "alpha": self.alpha,
            "eta": self.eta,
            "beta": self.beta,
            "rollback": self.rollback,
            "steps": len(mean),
            "mean": float(mean[-1]),
            "bound": float(bound[-1]),
            "slack": float((bound - mean).min()),
            "sharp_slack": float((sharp - mean).min()),
            "judged_mean": float(judged[-1]),
            "judged_slack": float((judged_bound - judged).min()),
        }

    def _along(self, dropped: Sequence[float]) -> tuple[Any, Any, Any]:
        """Return the running mean, its bound and the sharper one of the proof."""
        steps = np.arange(1, len(dropped) + 1)
        mean = np.cumsum(dropped) / steps
        start = self.alpha, self.eta, self.beta
        return mean, *np.array([both_bounds(*start, t) for t in steps.tolist()]).T


def both_bounds(
    alpha: float, eta: float, beta: float, steps: int
) -> tuple[float, float]:
    """Return `theory.conformal_bound`, and the sharper bound that its proof has."""
    sharp = alpha + max(0.0, beta + eta * (1 - alpha)) / (eta * steps)
    return theory.conformal_bound(alpha, eta, beta, steps), sharp


def allowance(variance: float) -> float:
    """Return the largest plausible excess of rejections over their expectation.

    Given the past, each verified position is rejected with a known probability t, and
    `variance` is the sum of t(1 - t). So exp(λ(count - expected) - (e^λ - 1 - λ)
    variance) is a supermartingale for any fixed λ > 0. By Ville's inequality, a larger
    excess has at most the probability `CHANCE`; λ is `TILT`, which suits a variance of
    300. Source: D. Freedman, *On Tail Probabilities for Martingales* (1975).
    """
    curved = math.exp(TILT) - 1 - TILT
    return (curved * variance - math.log(CHANCE)) / TILT


def summary(records: Records, options: Options) -> dict[str, Any]:
    """Add the records of each cell up."""
    cells = grouped([record for record in records if "rule" in record], *CELL)
    return {
        "cells": [
            dict(zip(CELL, key, strict=True)) | _cell(found, options.seed)
            for key, found in cells
        ],
        "runs": [record for record in records if "rule" not in record],
    }


def _cell(records: Records, seed: int) -> dict[str, Any]:
    """Divide each quantity by the number of verified positions."""

    def by_prompt(name: str) -> list[float]:
        of_prompts = (group for _, group in grouped(records, "prompt"))
        return [sum(record[name] for record in group) for group in of_prompts]

    def each(name: str) -> dict[str, float]:
        return ratio(by_prompt(name), by_prompt("judged"), seed).as_json()

    bound = [sum(parts) for parts in zip(*map(by_prompt, PARTS), strict=True)]
    return {
        "judged": sum(by_prompt("judged")),
        **{name: each(name) for name in QUANTITIES},
        "bound": ratio(bound, by_prompt("judged"), seed).as_json(),
        "tightness": ratio(by_prompt("expected"), bound, seed).as_json(),
        "worst": max(record["worst"] for record in records),
        "draws": [_draw(group) for _, group in grouped(records, "draw")],
    }


def _draw(records: Records) -> dict[str, float]:
    """Add a cell's counts up over its prompts, for one draw of the numbers."""
    names = ("rejected", "expected", "variance", *PARTS)
    total = {name: float(sum(record[name] for record in records)) for name in names}
    total["bound"] = sum(total[name] for name in PARTS)
    return total | {"allowance": allowance(total["variance"])}


def checks(summary: dict[str, Any]) -> list[Check]:
    """Return the theorems."""
    cells, runs = summary["cells"], summary["runs"]
    worst = max(cell["worst"] for cell in cells)
    draws = [draw for cell in cells for draw in cell["draws"]]
    expected = min(1 - draw["expected"] / draw["bound"] for draw in draws)
    spare = [d["bound"] + d["allowance"] - d["rejected"] for d in draws]
    over = sum(draw["rejected"] > draw["bound"] for draw in draws)
    return [
        Check(
            "TV(p, q^) is at most mismatch + dropped mass + K/4l at every position",
            worst <= ROUNDING,
            f"{sum(c['judged'] for c in cells):.0f} verified positions; the closest is "
            f"{-worst:.2g} below",
        ),
        Check(
            "Expected rejections are below the bound in every cell and draw",
            expected >= 0,
            f"{len(draws)} cells and draws; by {100 * expected:.1f} % in the closest",
        ),
        Check(
            "Sampled rejections are below it, except with probability 1e-6 each",
            min(spare) >= 0,
            f"{over} of {len(draws)} are above the bound itself; the closest is "
            f"{min(spare):.0f} rejections below bound and allowance",
        ),
        *(_run_check(runs, rollback) for rollback in (True, False)),
    ]


def _run_check(runs: Records, rollback: bool) -> Check:
    runs = [run for run in runs if run["rollback"] is rollback]
    slack = min(run["slack"] for run in runs)
    sharp = min(run["sharp_slack"] for run in runs)
    return Check(
        f"Mean dropped mass is below the conformal bound at every step, "
        f"{'with' if rollback else 'without'} rollback",
        min(slack, sharp) >= -ROUNDING,
        f"{len(runs)} runs, {sum(run['steps'] for run in runs)} steps; least slack "
        f"{slack:.2g}, {sharp:.2g} to the sharper bound of the proof",
    )


def tables(summary: dict[str, Any]) -> Iterator[Table | Text]:
    """Yield the cells, and the runs."""
    for place, cells in grouped(summary["cells"], "model", "temperature"):
        yield _cell_table(*place, cells)
    yield dim(
        "Per 100 verified positions, with 95 % intervals. K: TopK; C: Conformal with "
        "this alpha. loss: TV(q, q^), which is at most dropped mass + K/4l; K/4l is "
        f"capped at 1. models: TV(p, q). eta = {ETA:g}, {LENGTH} drafted tokens per "
        f"round, each completion replayed {DRAWS} times."
    )
    yield _run_table(summary["runs"])
    yield dim(
        "Means over models, temperatures and initial betas; updates are summed over "
        "these. Without rollback, the theorem is about all drafted positions. over: "
        "runs in which the mean over verified positions exceeded the bound for the "
        "same number of updates at some step."
    )


def _cell_table(model: str, temperature: float, cells: Records) -> Table:
    made = table(
        f"Rejections, {model}, T = {temperature:g}",
        *("rule", "l", "expected", "sampled", "loss"),
        *("models", "drop", "K/4l", "bound", "ratio"),
    )
    for cell in cells:
        value, low, high = (100 * each for each in cell["expected"].values())
        names = "rejected", "loss", *PARTS, "bound"
        made.add_row(
            cell["rule"],
            str(cell["resolution"]),
            f"{value:.1f} ({low:.1f} {high:.1f})",
            *(f"{100 * cell[name]['value']:.1f}" for name in names),
            f"{cell['tightness']['value']:.2f}",
        )
    return made


def _run_table(runs: Records) -> Table:
    made = table(
        "Dropped mass of conformal rules",
        *("alpha", "eta", "rollback", "updates"),
        *("mean", "bound", "least slack", "verified", "over"),
    )
    for (alpha, eta, rollback), same in grouped(runs, "alpha", "eta", "rollback"):
        every = {name: np.array([run[name] for run in same]) for name in same[0]}
        mean, bound, judged = (
            f"{every[name].mean():.4f}" for name in ("mean", "bound", "judged_mean")
        )
        made.add_row(
            *(f"{alpha:g}", f"{eta:g}", "yes" if rollback else "no"),
            *(f"{every['steps'].sum()}", mean, bound),
            *(f"{every['slack'].min():.2g}", judged),
            f"{(every['judged_slack'] < 0).sum()}/{len(same)}",
        )
    return made
