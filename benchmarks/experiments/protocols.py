"""Our plans against what users would pick, over links thin and wide."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from benchmarks.experiments.estimate import CONFIDENCE, draws, ratio, shown
from benchmarks.experiments.experiment import (
    Check,
    Options,
    Records,
    Task,
    grouped,
)
from benchmarks.experiments.measured import (
    CLOUD,
    TEMPERATURE,
    measure,
)
from benchmarks.experiments.models import GEMMA3, SMOLLM2
from benchmarks.experiments.simulated import (
    CLOUD_ALONE,
    LENGTHS,
    ONE_HOT,
    OURS,
    PLANNER,
    SHARED,
    Grid,
    simulate,
)
from benchmarks.experiments.wire_formats import DENSE, DISTILLKIT, QS, RAW
from benchmarks.planner.__main__ import RATES, TRIPS
from benchmarks.tables import dim, table

TITLE = "Protocols over links of 2 kbit/s to 100 Mbit/s"
ALONE = True

GRID = Grid(RATES, TRIPS)
REAL_GRID = Grid((2e3, 1e4, 1e5, 1e6, 1e8), (0.005, 0.05, 0.1, 0.3))
QUICK_GRID = Grid((1e4, 1e6), (0.02, 0.1))

SHOWN = ((2e3, 0.05), (1e4, 0.05), (1e5, 0.05), (1e7, 0.005))
"""Links of the tables."""

PROMPTS = {SMOLLM2: 24, GEMMA3: 12}
"""As many as there is time for; of another pair as many as of the first."""

PROTOCOLS = (CLOUD_ALONE, DENSE, QS, RAW, DISTILLKIT, ONE_HOT, SHARED, OURS)

NEAR = 0.9
"""A share of the fastest's speed: within 10 %."""

BAR = 0.8
"""A share of the links: on so many the planner is to be within 10 % of the best."""

Floats = NDArray[np.float64]


def places(options: Options) -> list[tuple[str, float]]:
    """Return the models and temperatures whose texts are read."""
    first = (options.model, TEMPERATURE)
    if options.quick:
        return [first]
    others = [(name, TEMPERATURE) for name in options.models[1:]]
    return [first, (options.model, 1.0), *others]


def tasks(options: Options) -> list[Task]:
    """Return the simulations, then what is measured, a rate at a time."""
    grid, real = (QUICK_GRID,) * 2 if options.quick else (GRID, REAL_GRID)
    found = []
    for name, temperature in places(options):
        prompts = PROMPTS.get(name, PROMPTS[SMOLLM2])
        key = f"{name} {temperature:g}"
        found.append(Task(key, simulate, (name, temperature, prompts, grid)))
    rates = [real.rates] if options.quick else [(rate,) for rate in real.rates]
    for each in rates:
        key = f"real, {each[0]:g} bit/s"
        found.append(Task(key, measure, (Grid(each, real.trips),)))
    return found


# Summary


def summary(records: Records, options: Options) -> dict[str, Any]:
    """Return what formats cost, who wins where, and what the real system does."""
    parts: dict[str, Records] = {key[0]: of for key, of in grouped(records, "part")}
    grid, real = (QUICK_GRID,) * 2 if options.quick else (GRID, REAL_GRID)
    names = "model", "temperature", "protocol", "variant"
    case = "model", "temperature", "cloud"
    planned = dict(grouped(parts["planned"], *case))
    return {
        "quick": options.quick,
        "formats": [
            dict(zip(names, key, strict=True)) | _format(group, options.seed)
            for key, group in grouped(parts["sent"], *names)
        ],
        "maps": [
            dict(zip(case, key, strict=True)) | _map(group, planned[key], grid, options)
            for key, group in grouped(parts["simulated"], *case)
        ],
        "real": _real(parts["real"], real),
    }


def _format(group: Records, seed: int) -> dict[str, Any]:
    """Return what a position takes and gives."""
    positions = [each["positions"] for each in group]
    bits, accepted = ([each[n] for each in group] for n in ("bits", "accepted"))
    return {
        "bits": ratio(bits, positions, seed).as_json(),
        "acceptance": ratio(accepted, positions, seed).as_json(),
    }


class Best(NamedTuple):
    """The plan of a protocol that is fastest on each link, in hindsight.

    Attributes
    ----------
    plans : list of str, [links]
    seconds, data : ndarray, [texts, links]
        With its plan: the seconds, and the bytes both ways.
    """

    plans: list[str]
    seconds: Floats
    data: Floats

    @classmethod
    def of(cls, group: Records) -> Best:
        """Choose among the plans of a protocol."""
        names, seconds, data = [], [], []
        for (variant, length), texts in grouped(group, "variant", "length"):
            names.append(f"{length} {variant}".strip())
            seconds.append([each["seconds"] for each in texts])
            data.append([np.add(each["up"], each["down"]) for each in texts])
        times, sizes = np.array(seconds), np.array(data)
        best = times.sum(1).argmin(0)
        every = np.arange(times.shape[2])
        # Advanced indices first: [links, texts].
        return cls(
            [names[i] for i in best],
            times[best, :, every].T,
            sizes[best, :, every].T,
        )


def _map(
    group: Records, planned: Records, grid: Grid, options: Options
) -> dict[str, Any]:
    """Say which protocol is fastest on which link, and how near the planner is."""
    found = {name: Best.of(each) for (name,), each in grouped(group, "protocol")}
    names = [name for name in PROTOCOLS if name in found]
    tokens = sum(each[1][0]["tokens"] for each in grouped(group, "text"))
    speeds = np.array([tokens / found[name].seconds.sum(0) for name in names])
    data = np.array([found[name].data.sum(0) / tokens for name in names])
    best, sure = speeds.max(0), _sure([found[name] for name in names], options.seed)
    written = sum(each["tokens"] for each in planned)
    again = sum(each["again_tokens"] for each in planned)
    planner = written / _over(planned, "seconds")
    later = again / _over(planned, "again")
    speeds_of = dict(zip(names, speeds, strict=True)) | {PLANNER: planner}
    bytes_of = dict(zip(names, data, strict=True))
    bytes_of[PLANNER] = (_over(planned, "up") + _over(planned, "down")) / written
    return {
        "rates": grid.rates,
        "trips": grid.trips,
        "texts": len(grouped(group, "text")),
        "tokens": int(tokens),
        "tokens_per_second": {name: _rounded(x) for name, x in speeds_of.items()},
        "bytes_per_token": {name: _rounded(x) for name, x in bytes_of.items()},
        "plans": {name: found[name].plans for name in names},
        "wins": {n: float((speeds.argmax(0) == i).mean()) for i, n in enumerate(names)},
        "surely": {n: float(sure[i].mean()) for i, n in enumerate(names)},
        "near": {
            name: float((speed >= NEAR * best).mean())
            for name, speed in speeds_of.items()
        },
        "near_again": float((later >= NEAR * best).mean()),
        "shown": grid.links.T.tolist() if options.quick else SHOWN,
    }


def _over(records: Records, name: str) -> Floats:
    """Return a sum over records, by link."""
    return np.sum([record[name] for record in records], axis=0, dtype=np.float64)


def _sure(plans: Sequence[Best], seed: int) -> NDArray[np.bool_]:
    """Say of each protocol on which links it is the fastest whatever the texts are.

    Returns
    -------
    ndarray of bool, [protocols, links]
        Whether it is the fastest in 95 % of the resamples of the texts.
    """
    times = np.array([plan.seconds for plan in plans])
    texts = times.shape[1]
    # All write the same tokens: who needs the fewest seconds is the fastest.
    fastest = (draws(texts, seed)[1:] @ times).argmin(0)
    shares = np.array([(fastest == i).mean(0) for i in range(len(plans))])
    # One text says nothing about others.
    return np.asarray((shares >= CONFIDENCE) & (texts > 1))


def _rounded(values: Floats) -> list[float]:
    """Round to four digits, which is more than the texts are good for."""
    return [float(f"{value:.4g}") for value in values]


# The real system


def _real(records: Records, grid: Grid) -> dict[str, Any]:
    """Compare the planner with the best plan measured, and both with the simulation."""
    cells = [
        {"rate": rate, "trip": trip, **_cell(group)}
        for (rate, trip), group in grouped(records, "rate", "trip")
    ]
    plans = [plan for cell in cells for plan in cell["plans"].values()]
    ratios = [plan["of_simulated"] for plan in plans]
    low, median, high = np.quantile(ratios, (0.05, 0.5, 0.95)).tolist()
    measured = [each["measured"] for each in records]
    late = [each["late"] / each["seconds"] for each in measured]
    within = {
        name: float(np.mean([cell[name] >= NEAR for cell in cells]))
        for name in ("of_best", "of_best_first", "of_best_later", "alone_of_best")
    }
    return {
        "rates": grid.rates,
        "trips": grid.trips,
        "texts": 1 + max(each["text"] for each in records),
        "cells": cells,
        "within": within,
        "of_simulated": {"median": median, "low": low, "high": high, "n": len(ratios)},
        "late": {"median": float(np.median(late)), "most": max(late)},
    }


def _cell(records: Records) -> dict[str, Any]:
    """Sum up the plans of a link."""
    plans = {name: group for (name,), group in grouped(records, "plan")}
    seconds = {
        name: np.array([each["measured"]["seconds"] for each in group])
        for name, group in plans.items()
    }
    planner = seconds[PLANNER]
    fixed = {name: times for name, times in seconds.items() if name != PLANNER}
    best = min(fixed, key=lambda name: float(fixed[name].sum()))
    later = slice(min(1, len(planner) - 1), None)
    return {
        "best": best,
        "of_best": float(fixed[best].sum() / planner.sum()),
        "of_best_first": float(fixed[best][0] / planner[0]),
        "of_best_later": float(fixed[best][later].sum() / planner[later].sum()),
        "alone_of_best": float(fixed[best].sum() / fixed[CLOUD_ALONE].sum()),
        "reason": plans[PLANNER][-1]["measured"]["reason"],
        "plans": {name: _plan(group) for name, group in plans.items()},
    }


def _plan(group: Records) -> dict[str, float]:
    """Sum up the texts of a plan on a link."""

    def total(part: str, name: str) -> float:
        return float(sum(each[part][name] for each in group))

    tokens, seconds = total("measured", "tokens"), total("measured", "seconds")
    return {
        "tokens_per_second": tokens / seconds,
        "of_simulated": seconds / total("simulated", "seconds"),
        "up": total("measured", "bytes_up") / tokens,
        "down": total("measured", "bytes_down") / tokens,
        "first": float(np.median([each["measured"]["first"] for each in group])),
    }


def checks(summary: dict[str, Any]) -> list[Check]:
    """Return the bar: the planner near the best plan."""
    if summary["quick"]:  # a text of a few tokens is over before a planner has settled
        return []
    real = summary["real"]
    share = real["within"]["of_best"]
    missed = [
        f"{_link(cell['rate'], cell['trip'])}: {cell['of_best']:.2f} of {cell['best']}"
        for cell in real["cells"]
        if cell["of_best"] < NEAR
    ]
    maps = {_title(each): each["near"][PLANNER] for each in summary["maps"]}
    has, often = f"the planner has {NEAR:.0%} of the", f"on {BAR:.0%} of the links"
    return [
        Check(
            f"in the real system {has} best plan's speed {often}",
            share >= BAR,
            f"on {share:.0%}; not on: {'; '.join(missed) or 'none'}",
        ),
        Check(
            f"in each map {has} fastest protocol's speed {often}",
            all(share >= BAR for share in maps.values()),
            "; ".join(f"{case}: {share:.0%}" for case, share in maps.items()),
        ),
    ]


def _title(each: Mapping[str, Any]) -> str:
    """Name what a map is of."""
    return f"{each['model']}, T={each['temperature']:g}, {each['cloud']} cloud"


# Tables


def tables(summary: dict[str, Any]) -> list[Table | Text]:
    """Return formats, the maps in numbers, and the real system."""
    found: list[Table | Text] = [*_format_tables(summary["formats"])]
    for each in summary["maps"]:
        found += _map_tables(each)
    return [*found, *_real_tables(summary["real"])]


def _format_tables(formats: Records) -> Iterator[Table | Text]:
    for (model, temperature), group in grouped(formats, "model", "temperature"):
        made = table(
            f"A drafted token, {model}, T={temperature:g}",
            *("protocol", "bits", "accepted, of all"),
        )
        for each in group:
            made.add_row(
                f"{each['protocol']} {each['variant']}",
                f"{each['bits']['value']:,.0f}",
                shown(each["acceptance"], ".3f"),
            )
        yield made
    yield dim(
        "bits: of the token and its distribution, packets of their own, without "
        "headers. accepted: the mean probability, with its interval of 95 % over "
        "texts."
    )


def _map_tables(each: dict[str, Any]) -> Iterator[Table | Text]:
    """Yield tokens per second, and for a slow cloud the bytes of a token of text."""
    shares = "wins", "surely", "near"
    links = [_link(rate, trip, "\n") for rate, trip in each["shown"]]
    speeds = table(
        f"Simulated tokens per second: {_title(each)}", "protocol", *links, *shares
    )
    for name, row in each["tokens_per_second"].items():
        cells = (f"{each[x][name]:.0%}" if name in each[x] else "" for x in shares)
        speeds.add_row(name, *_short(_at(each, row)), *cells)
    again = f"{each['near_again']:.0%}"
    speeds.add_row("its second text", *[""] * len(links), "", "", again)
    yield speeds
    if each["cloud"] == CLOUD:
        sizes = table(
            f"Bytes of IP, both ways, per token: {_title(each)}", "protocol", *links
        )
        for name, row in each["bytes_per_token"].items():
            sizes.add_row(name, *_short(_at(each, row)))
        yield sizes
    yield dim(
        f"{each['texts']} texts, {each['tokens']} tokens. Each protocol has the "
        "parameters and the drafts of "
        f"{', '.join(map(str, LENGTHS[:-1]))} or {LENGTHS[-1]} tokens that turned out "
        "fastest on the link for these very texts; the planner knows neither. wins: "
        "the share of all links on which it is the fastest; surely: on which it is in "
        f"{CONFIDENCE:.0%} of the resamples of the texts; near: on which it is within "
        f"{1 - NEAR:.0%} of the fastest. Only the cloud alone and ours are in the real "
        "system, too."
    )


def _at(each: dict[str, Any], values: Sequence[float]) -> list[float]:
    """Return what a grid has at the links shown."""
    width = len(each["trips"])
    return [
        values[each["rates"].index(rate) * width + each["trips"].index(trip)]
        for rate, trip in each["shown"]
    ]


def _short(values: Iterable[float]) -> Iterator[str]:
    """Yield numbers in few characters."""
    for value in values:
        yield f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _real_tables(real: dict[str, Any]) -> Iterator[Table | Text]:
    made = table(
        "The real system: the planner's speed as a share of the best plan's",
        *("link", "best plan", "tok/s", "planner", "first", "later", "of sim."),
    )
    sizes = table(
        "Measured: bytes per token up and down, and seconds to the first token",
        *("link", "cloud alone", "best plan", "planner"),
    )
    for cell in real["cells"]:
        link, best = _link(cell["rate"], cell["trip"]), cell["plans"][cell["best"]]
        shares = (cell[f"of_best{part}"] for part in ("", "_first", "_later"))
        made.add_row(
            link,
            cell["best"].replace(", K", "\nK"),
            f"{best['tokens_per_second']:.3g}",
            *(f"{share:.2f}" for share in shares),
            f"{best['of_simulated']:.2f}",
        )
        plans = (cell["plans"][n] for n in (CLOUD_ALONE, cell["best"], PLANNER))
        words = (f"{p['up']:.0f}, {p['down']:.0f}, {p['first']:.2f} s" for p in plans)
        sizes.add_row(link, *words)
    yield made
    within, told = real["within"], real["of_simulated"]
    yield dim(
        f"{real['texts']} texts on each link by one planner, which knows nothing at "
        "the first. Measured were the planner, the cloud alone, and of all plans that "
        "the planner chooses from the one that is fastest if simulated; the best of "
        "these two is the faster one over all these texts. "
        f"Within {1 - NEAR:.0%} of it: on {within['of_best']:.0%} of the "
        f"links, {within['of_best_first']:.0%} at the first text, "
        f"{within['of_best_later']:.0%} at later ones; the cloud alone on "
        f"{within['alone_of_best']:.0%}. of sim.: seconds measured over seconds "
        f"simulated; median {told['median']:.2f}, 5 to 95 % {told['low']:.2f} to "
        f"{told['high']:.2f}, over {told['n']} plans and links, the planner's "
        "included. The machine was late "
        f"{real['late']['median']:.1%} of a text's seconds (median), "
        f"{real['late']['most']:.0%} at most."
    )
    yield sizes


def _link(rate: float, trip: float, between: str = ", ") -> str:
    """Name a link.

    Examples
    --------
    >>> _link(2e3, 0.005)
    '2k, 5 ms'
    """
    power = 1 if rate < 1e6 else 2
    return f"{rate / 1000**power:g}{'kM'[power - 1]}{between}{1000 * trip:g} ms"
