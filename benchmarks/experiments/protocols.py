"""Experiment 3: our plans against what users would pick, over links thin and wide."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

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
from benchmarks.experiments.link import check as check_link
from benchmarks.experiments.measured import (
    CLOUD,
    TEMPERATURE,
    WITHIN_REACH,
    lateness,
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
from benchmarks.relay import Link
from benchmarks.tables import dim, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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

TIE = 0.98
"""Likewise: nobody would notice 2 %, and few texts could tell. Of the protocols that
are so near the fastest, the map names the one that sends the fewest bytes."""

BAR = 0.8
"""A share of the links: on so many the planner is to be within 10 % of the best."""

RATE_OFF, TRIP_OFF = 0.05, 0.005
"""What a link may be off: a share of its rate, and seconds."""

MAP = ("model", "temperature", "cloud")
"""What a map is of."""

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
    found.append(Task("links", links, (real,)))
    rates = [real.rates] if options.quick else [(rate,) for rate in real.rates]
    for each in rates:
        key = f"real, {each[0]:g} bit/s"
        found.append(Task(key, measure, (Grid(each, real.trips),)))
    return found


def links(options: Options, grid: Grid) -> Records:
    """Measure links against their own settings: each rate, each trip at the highest."""
    fastest = max(grid.rates)
    pairs = [(rate, grid.trips[0]) for rate in grid.rates]
    pairs += [(fastest, trip) for trip in grid.trips[1:]]
    found = [check_link(Link(rate, trip), options.seed) for rate, trip in pairs]
    return [{"part": "link", **_finite(each)} for each in found]


def _finite(measured: Mapping[str, float]) -> dict[str, float | None]:
    """Return numbers as JSON has them: what has no bound is None."""
    return {k: v if np.isfinite(v) else None for k, v in measured.items()}


# Summary


def summary(records: Records, options: Options) -> dict[str, Any]:
    """Return what formats cost, who wins where, and what the real system does."""
    parts: dict[str, Records] = defaultdict(list)
    for record in records:
        parts[record["part"]].append(record)
    grid, real = (QUICK_GRID,) * 2 if options.quick else (GRID, REAL_GRID)
    return {
        "quick": options.quick,
        "formats": [
            _format(key, group, options.seed)
            for key, group in grouped(
                parts["sent"], "model", "temperature", "protocol", "variant"
            )
        ],
        "maps": [
            _map(key, group, parts["planned"], grid, options)
            for key, group in grouped(
                parts["simulated"], "model", "temperature", "cloud"
            )
        ],
        "links": [_without(each, "part") for each in parts["link"]],
        "real": _real(parts["real"], real, options.seed),
    }


def _without(record: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in names}


def _format(key: tuple[Any, ...], group: Records, seed: int) -> dict[str, Any]:
    model, temperature, protocol, variant = key
    positions = [each["positions"] for each in group]

    def mean(name: str) -> dict[str, float]:
        return ratio([each[name] for each in group], positions, seed).as_json()

    return {
        "model": model,
        "temperature": temperature,
        "protocol": protocol,
        "variant": variant,
        "bits": mean("bits"),
        "acceptance": mean("accepted"),
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
    key: tuple[str, float, str],
    group: Records,
    planned: Records,
    grid: Grid,
    options: Options,
) -> dict[str, Any]:
    """Say which protocol is fastest on which link, and how near the planner is."""
    shape = len(grid.rates), len(grid.trips)
    found = {name: Best.of(each) for (name,), each in grouped(group, "protocol")}
    names = [name for name in PROTOCOLS if name in found]
    tokens = np.array([each[1][0]["tokens"] for each in grouped(group, "text")])
    speeds = np.array([tokens.sum() / found[name].seconds.sum(0) for name in names])
    data = np.array([found[name].data.sum(0) / tokens.sum() for name in names])
    best = speeds.max(0)
    sure = _sure([found[name] for name in names], options.seed)
    thrifty = np.where(speeds >= TIE * best, data, np.inf).argmin(0)
    mine = [
        each
        for each in planned
        if (each["model"], each["temperature"], each["cloud"]) == key
    ]
    return {
        "model": key[0],
        "temperature": key[1],
        "cloud": key[2],
        "rates": grid.rates,
        "trips": grid.trips,
        "texts": len(tokens),
        "tokens": int(tokens.sum()),
        "tokens_per_second": _grids(names, speeds, shape),
        "bytes_per_token": _grids(names, data, shape),
        "plans": {
            name: np.reshape(found[name].plans, shape).tolist() for name in names
        },
        "thriftiest": np.reshape([names[i] for i in thrifty], shape).tolist(),
        "wins": {n: float((speeds.argmax(0) == i).mean()) for i, n in enumerate(names)},
        "surely": {n: float(sure[i].mean()) for i, n in enumerate(names)},
        "near": {
            n: float((speeds[i] >= NEAR * best).mean()) for i, n in enumerate(names)
        },
        "planner": _planner(mine, best, shape),
        "shown": [
            _shown(link, found, tokens, grid, options.seed)
            for link in (grid.links.T if options.quick else SHOWN)
        ],
    }


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


def _grids(
    names: Sequence[str], values: Floats, shape: tuple[int, int]
) -> dict[str, list[list[float]]]:
    """Return values of each name by rate and trip."""
    return {
        name: _rounded(each).reshape(shape).tolist()
        for name, each in zip(names, values, strict=True)
    }


def _rounded(values: Floats) -> Floats:
    """Round to four digits, which is more than the texts are good for."""
    return np.array([float(f"{value:.4g}") for value in np.ravel(values)])


def _planner(mine: Records, best: Floats, shape: tuple[int, int]) -> dict[str, Any]:
    """Compare the planner with the best protocol of each link."""
    first = sum(each["tokens"] for each in mine) / np.sum(
        [each["seconds"] for each in mine], axis=0
    )
    again = sum(each["again_tokens"] for each in mine) / np.sum(
        [each["again"] for each in mine], axis=0
    )
    data = np.sum([np.add(each["up"], each["down"]) for each in mine], axis=0)
    values = {
        "tokens_per_second": first,
        "of_best": first / best,
        "of_best_again": again / best,
        "bytes_per_token": data / sum(each["tokens"] for each in mine),
    }
    lengths = np.median([np.array(each["chosen"])[:, 0] for each in mine], axis=0)
    return {
        **_grids([*values], np.array([*values.values()]), shape),
        "drafts": lengths.reshape(shape).tolist(),
        "within": float((first >= NEAR * best).mean()),
        "within_again": float((again >= NEAR * best).mean()),
    }


def _shown(
    link: Iterable[float],
    found: Mapping[str, Best],
    tokens: Floats,
    grid: Grid,
    seed: int,
) -> dict[str, Any]:
    """Return what protocols do on one link, with intervals."""
    rate, trip = map(float, link)
    at = grid.rates.index(rate) * len(grid.trips) + grid.trips.index(trip)
    return {
        "rate": rate,
        "trip": trip,
        "protocols": {
            name: {
                "plan": best.plans[at],
                "tokens_per_second": ratio(tokens, best.seconds[:, at], seed).as_json(),
                "bytes_per_token": ratio(best.data[:, at], tokens, seed).as_json(),
            }
            for name, best in found.items()
        },
    }


# The real system


def _real(records: Records, grid: Grid, seed: int) -> dict[str, Any]:
    """Compare the planner with the best plan measured, and both with the simulation."""
    cells = [_cell(key, group, seed) for key, group in grouped(records, "rate", "trip")]
    ratios = np.array(
        [plan["of_simulated"] for cell in cells for plan in cell["plans"].values()]
    )
    late = [lateness([each["measured"]]) for each in records]
    whole = {
        name: float(np.mean([cell[name] >= NEAR for cell in cells]))
        for name in ("of_best", "of_best_first", "of_best_later")
    }
    near = Counter(name for cell in cells for name in cell["near"])
    return {
        "rates": grid.rates,
        "trips": grid.trips,
        "cloud": CLOUD,
        "temperature": TEMPERATURE,
        "texts": 1 + max(each["text"] for each in records),
        "cells": cells,
        "within": whole,
        "near": {name: count / len(cells) for name, count in near.most_common()},
        "of_simulated": {
            "median": float(np.median(ratios)),
            "low": float(np.quantile(ratios, 0.05)),
            "high": float(np.quantile(ratios, 0.95)),
            "plans": len(ratios),
        },
        "late": {"median": float(np.median(late)), "most": max(late)},
    }


def _cell(key: tuple[float, float], records: Records, seed: int) -> dict[str, Any]:
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
        "rate": key[0],
        "trip": key[1],
        "best": best,
        "near": [
            name
            for name, times in fixed.items()
            if fixed[best].sum() >= NEAR * times.sum()
        ],
        "of_best": float(fixed[best].sum() / planner.sum()),
        "of_best_interval": ratio(fixed[best], planner, seed).as_json(),
        "of_best_first": float(fixed[best][0] / planner[0]),
        "of_best_later": float(fixed[best][later].sum() / planner[later].sum()),
        "of_alone": float(fixed[CLOUD_ALONE].sum() / planner.sum()),
        "reason": plans[PLANNER][-1]["measured"]["reason"],
        "plans": {name: _plan(group, seed) for name, group in plans.items()},
    }


def _plan(group: Records, seed: int) -> dict[str, Any]:
    """Sum up the texts of a plan on a link."""

    def column(part: str, name: str) -> Floats:
        return np.array([each[part][name] for each in group], np.float64)

    measured = partial(column, "measured")
    tokens, seconds = measured("tokens"), measured("seconds")
    return {
        "tokens_per_second": ratio(tokens, seconds, seed).as_json(),
        "of_simulated": float(seconds.sum() / column("simulated", "seconds").sum()),
        "up": float(measured("bytes_up").sum() / tokens.sum()),
        "down": float(measured("bytes_down").sum() / tokens.sum()),
        "simulated_up": float(column("simulated", "up").sum() / tokens.sum()),
        "first": float(np.median(measured("first"))),
    }


def checks(summary: dict[str, Any]) -> list[Check]:
    """Return the bar: the planner near the best plan, over links that are as set."""
    if summary["quick"]:  # a text of a few tokens is over before a planner has settled
        return []
    real = summary["real"]
    share = real["within"]["of_best"]
    missed = [
        f"{_link(cell['rate'], cell['trip'])}: {cell['of_best']:.2f} of {cell['best']}"
        for cell in real["cells"]
        if cell["of_best"] < NEAR
    ]
    maps = {_title(each): each["planner"]["within"] for each in summary["maps"]}
    off = [
        abs(each["measured_rate"] / each["rate"] - 1) > RATE_OFF
        or abs(each["measured_trip"] - each["trip"]) > TRIP_OFF
        for each in summary["links"]
    ]
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
        Check(
            f"links are within {RATE_OFF:.0%} of their rate and "
            f"{1000 * TRIP_OFF:g} ms of their trip",
            not any(off),
            f"{len(off) - sum(off)} of {len(off)} are",
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
    return [*found, _link_table(summary["links"]), *_real_tables(summary["real"])]


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
    title, planner = _title(each), each["planner"]
    shares = "wins", "surely", "near"
    made = _map_table(f"Simulated tokens per second: {title}", each, *shares)
    for name in each["wins"]:
        row = _at(each, each["tokens_per_second"][name])
        made.add_row(
            name, *_short(row), *(f"{each[share][name]:.0%}" for share in shares)
        )
    row = _at(each, planner["tokens_per_second"])
    made.add_row(PLANNER, *_short(row), "", "", f"{planner['within']:.0%}")
    again = f"{planner['within_again']:.0%}"
    made.add_row("its second text", *[""] * len(row), "", "", again)
    yield made
    if each["cloud"] == CLOUD:
        yield _size_table(title, each)
    yield dim(
        f"{each['texts']} texts, {each['tokens']} tokens. Each protocol has the "
        "parameters and the drafts of "
        f"{', '.join(map(str, LENGTHS[:-1]))} or {LENGTHS[-1]} tokens that turned out "
        "fastest on the link for these very texts; the planner knows neither. wins: "
        "the share of all links on which it is the fastest; surely: on which it is in "
        f"{CONFIDENCE:.0%} of the resamples of the texts; near: on which it is within "
        f"{1 - NEAR:.0%} of the fastest. Only the cloud alone, one-hot and ours are in "
        "the real system, too."
    )


def _size_table(title: str, each: dict[str, Any]) -> Table:
    made = _map_table(f"Bytes of IP, both ways, per token: {title}", each)
    rows = {**each["bytes_per_token"], PLANNER: each["planner"]["bytes_per_token"]}
    for name, grid in rows.items():
        made.add_row(name, *_short(_at(each, grid)))
    return made


def _map_table(title: str, each: dict[str, Any], *more: str) -> Table:
    links = [_link(at["rate"], at["trip"], "\n") for at in each["shown"]]
    return table(title, "protocol", *links, *more)


def _at(each: dict[str, Any], grid: Sequence[Sequence[float]]) -> list[float]:
    """Return what a grid has at the links shown."""
    return [
        grid[each["rates"].index(at["rate"])][each["trips"].index(at["trip"])]
        for at in each["shown"]
    ]


def _short(values: Iterable[float]) -> Iterator[str]:
    """Yield numbers in few characters."""
    for value in values:
        yield f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _link_table(links: Records) -> Table:
    made = table("Links against their settings", "bit/s", "measured", "ms", "measured")
    for each in links:
        made.add_row(
            f"{each['rate']:g}",
            f"{each['measured_rate']:.4g}",
            f"{1000 * each['trip']:g}",
            f"{1000 * each['measured_trip']:.1f}",
        )
    return made


def _real_tables(real: dict[str, Any]) -> Iterator[Table | Text]:
    made = table(
        "The real system: the planner's speed as a share of the best plan's",
        *("link", "best plan", "tok/s", "planner", "first", "later", "of sim."),
    )
    for cell in real["cells"]:
        best = cell["plans"][cell["best"]]
        made.add_row(
            _link(cell["rate"], cell["trip"]),
            cell["best"].replace(", K", "\nK"),
            f"{best['tokens_per_second']['value']:.3g}",
            *(
                f"{cell[name]:.2f}"
                for name in ("of_best", "of_best_first", "of_best_later")
            ),
            f"{best['of_simulated']:.2f}",
        )
    yield made
    within, told = real["within"], real["of_simulated"]
    single, near = next(iter(real["near"].items()))
    yield dim(
        f"{real['texts']} texts on each link by one planner, which knows nothing at "
        "the first. The best plan is the fastest of those measured over all these "
        f"texts. Within {1 - NEAR:.0%} of it: on {within['of_best']:.0%} of the "
        f"links, {within['of_best_first']:.0%} at the first text, "
        f"{within['of_best_later']:.0%} at later ones; of plans that stay the same, "
        f"{single} is on the most: {near:.0%}. Measured were the cloud alone, "
        "of all plans that the planner chooses from the one that is fastest if "
        "simulated, and those of one-hot and ours that then take at most "
        f"{WITHIN_REACH:g} times as long. of sim.: seconds measured over seconds "
        f"simulated; median {told['median']:.2f}, 5 to 95 % {told['low']:.2f} to "
        f"{told['high']:.2f}, over {told['plans']} plans and links, the planner's "
        "included. The machine was late "
        f"{real['late']['median']:.1%} of a text's seconds (median), "
        f"{real['late']['most']:.0%} at most."
    )
    yield _bytes_table(real)


def _bytes_table(real: dict[str, Any]) -> Table:
    made = table(
        "Measured: bytes per token up and down, and seconds to the first token",
        *("link", "cloud alone", "best plan", "planner"),
    )
    for cell in real["cells"]:
        made.add_row(
            _link(cell["rate"], cell["trip"]),
            *(
                f"{plan['up']:.0f}, {plan['down']:.0f}, {plan['first']:.2f} s"
                for plan in (
                    cell["plans"][name] for name in (CLOUD_ALONE, cell["best"], PLANNER)
                )
            ),
        )
    return made


def _link(rate: float, trip: float, between: str = ", ") -> str:
    """Name a link.

    Examples
    --------
    >>> _link(2e3, 0.005)
    '2k, 5 ms'
    """
    power = 1 if rate < 1e6 else 2
    return f"{rate / 1000**power:g}{'kM'[power - 1]}{between}{1000 * trip:g} ms"


# Plots


def plot(summary: dict[str, Any], figure: Figure) -> None:
    """Draw the maps, and the real system under them.

    In a map's cell: the protocol's speed; the planner's as a share of the fastest
    protocol's, and what it does there after two texts.
    """
    maps = summary["maps"]
    columns = 2  # fast and slow
    rows = -(-len(maps) // columns)
    figure.set_size_inches(6.4 * columns, 4.8 * (rows + 1))
    axes = figure.subplots(rows + 1, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    used = set()
    for each, axis in zip(maps, axes[:rows].flat, strict=False):
        used |= _draw_map(each, axis)
    _draw_real(summary["real"], axes[-1][0])
    _draw_ratios(summary["real"], axes[-1][1])
    _legend(figure, used)


def _colors() -> dict[str, Floats]:
    from matplotlib import colormaps

    colors = colormaps["Set3"](range(len(PROTOCOLS)))[:, :3]
    return dict(zip(PROTOCOLS, colors, strict=True))


def _legend(figure: Figure, used: set[str]) -> None:
    from matplotlib.patches import Patch

    colors = _colors()
    patches = [Patch(color=colors[n], label=n) for n in PROTOCOLS if n in used]
    figure.legend(
        handles=patches,
        loc="outside upper center",
        ncols=len(patches),
        title=(
            "Of the protocols within 2 % of the fastest the one that sends the fewest "
            "bytes, and its speed.\nBelow it the planner: its share of the fastest's "
            "speed, and how many tokens it drafts after two texts"
        ),
    )


def _draw_map(each: dict[str, Any], axis: Axes) -> set[str]:
    """Draw who wins where; return who does."""
    winner = np.array(each["thriftiest"])
    colors, planner = _colors(), each["planner"]
    axis.imshow(
        [[colors[name] for name in row] for row in winner],
        origin="lower",
        aspect="auto",
    )
    for (y, x), name in np.ndenumerate(winner):
        speed = each["tokens_per_second"][name][y][x]
        drafts = planner["drafts"][y][x]
        says = f"drafts {drafts:.0f}" if drafts else "alone"
        text = f"{speed:.3g} tok/s\n{planner['of_best'][y][x]:.2f}: {says}"
        axis.text(x, y, text, ha="center", va="center", fontsize=6.5)
    _label(axis, each, f"Simulated: {_title(each)}")
    return set(winner.flat)


def _draw_real(real: dict[str, Any], axis: Axes) -> None:
    """Draw the planner's share of the best plan measured."""
    shape = len(real["rates"]), len(real["trips"])
    share = np.full(shape, np.nan)
    for cell in real["cells"]:
        y, x = real["rates"].index(cell["rate"]), real["trips"].index(cell["trip"])
        share[y, x] = cell["of_best"]
        best = cell["best"].replace(", K", "\nK")
        text = f"{share[y, x]:.2f} ({cell['of_best_first']:.2f} first)\n{best}"
        axis.text(x, y, text, ha="center", va="center", fontsize=6)
    axis.imshow(share, vmin=0.5, vmax=1, cmap="RdYlGn", origin="lower", aspect="auto")
    _label(axis, real, "Real system: planner's share of the best plan measured")


def _draw_ratios(real: dict[str, Any], axis: Axes) -> None:
    """Draw seconds measured over seconds simulated, by rate."""
    axis.set_axis_on()
    spread = np.linspace(-0.2, 0.2, len(real["trips"]))
    for cell in real["cells"]:
        y = real["rates"].index(cell["rate"])
        x = y + spread[real["trips"].index(cell["trip"])]
        for name, plan in cell["plans"].items():
            kind = {PLANNER: "C3", CLOUD_ALONE: "C7"}.get(name, "C0")
            axis.plot(x, plan["of_simulated"], ".", color=kind)
    axis.axhline(1, color="black", linewidth=0.5)
    for label, kind in (("fixed plan", "C0"), (PLANNER, "C3"), (CLOUD_ALONE, "C7")):
        axis.plot([], [], ".", color=kind, label=label)
    axis.legend(fontsize=8)
    axis.set_xticks(range(len(real["rates"])), [f"{r / 1e3:g}" for r in real["rates"]])
    axis.set_xlabel("uplink in kbit/s; in a group, round trips from short to long")
    axis.set_title("Real system: seconds measured over seconds simulated", fontsize=9)


def _label(axis: Axes, grid: Mapping[str, Any], title: str) -> None:
    axis.set_axis_on()
    axis.set_title(title, fontsize=9)
    trips, rates = grid["trips"], grid["rates"]
    axis.set_xticks(range(len(trips)), [f"{1000 * trip:g}" for trip in trips])
    axis.set_yticks(range(len(rates)), [f"{rate / 1000:g}" for rate in rates])
    axis.set_xlabel("round trip in ms")
    axis.set_ylabel("uplink in kbit/s")
