"""The tables of a run."""

from typing import Any

from rich.console import Group as Lines
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from benchmarks.speed import measure
from benchmarks.speed.rivals import NUMPY_TWICE, TORCH
from benchmarks.speed.timing import Timing
from benchmarks.tables import about_line, dim, table

NOTE = """\
Median microseconds per call: CPU time, or wall time for batches. +-: the largest half
interquartile range of all contestants. k: tokens left after quantization. x: time
relative to one read of the same rows.
"""

HEADS = {TORCH: "torch\nsoftmax\n+ topk", NUMPY_TWICE: "NumPy\ntwo\npasses"}


def ratios(speed: measure.Speed) -> Table:
    """Return ratios of times."""
    times = speed.groups["calls"].cases[0].times
    ours = f"{measure.ENCODE}, {speed.measured['engines'][0]}"
    pairs = [
        *((name, ours, times) for name in times if name.startswith(("torch", "NumPy"))),
        (measure.VERIFY, measure.READ_TARGET, times),
    ]
    if "threads" in speed.groups:
        batch = speed.groups["threads"].cases[-1].times
        for rule in measure.RULES:
            one, two = (measure.THREADS.format(rule, n) for n in (1, 2))
            pairs.append((one, two, batch))
    made = table("Ratios", "", "median", "quartiles")
    for name, other, of in pairs:
        low, median, high = of[name].over(of[other])
        made.add_row(f"{name} / {other}", f"{median:.2f}", f"{low:.2f} - {high:.2f}")
    return made


def report(speed: measure.Speed) -> Lines:
    """Render all measurements, 80 columns wide."""
    parts: list[RenderableType] = [_measured(speed.measured), ratios(speed)]
    for group in speed.groups.values():
        parts.append(_varied(group) if group.by else _listed(group))
    return Lines(*parts, dim(NOTE))


def _measured(m: dict[str, Any]) -> Text:
    pins = "one core and" if m["pinned"] else "no particular core,"
    return Text(
        f"{m['source']}.\n"
        f"{m['rows']} rows of {m['vocab_size']} tokens in turns, "
        f"{m['footprint'] / 2**20:g} MiB in all; median of {m['rounds']} rounds, "
        f"contestants in random order, on {pins} one thread; seed {m['seed']}.\n"
        f"The same {m['packets']} packets from {', '.join(m['engines'])}.\n"
        f"{about_line(m)}"
    )


def _listed(group: measure.Group) -> Table:
    """Render one case, a line for each contestant."""
    (case,) = group.cases
    notes = "".join(f"; {name} {_short(x)}" for name, x in case.notes.items())
    notes = notes.replace("_", " ")
    heads = ("us", "quartiles", *(("x",) if group.base else ()))
    made = table(group.title + notes, "", *heads)
    for name, timing in case.times.items():
        low, high = timing.spread
        cells = [f"{timing.median:.2f}", f"{low:.2f} - {high:.2f}"]
        if name in group.base:
            cells.append(f"{timing.over(case.times[group.base[name]])[1]:.3g}")
        made.add_row(name, *cells)
    return made


def _varied(group: measure.Group) -> Table:
    """Render many cases, a line for each, with a column for each contestant."""
    names, notes = list(group.cases[0].times), list(group.cases[0].notes)
    heads = [HEADS.get(name, name.replace(", ", ",\n")) for name in names]
    made = table(group.title, group.by, *notes, *heads, "+-")
    for case in group.cases:
        cells = [_short(case.notes[n]) if n in case.notes else "-" for n in notes]
        cells += [
            f"{case.times[name].median:.1f}" if name in case.times else "-"
            for name in names
        ]
        widest = max(map(_spread, case.times.values()))
        made.add_row(str(case.value), *cells, f"{widest:.0%}")
    return made


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _spread(timing: Timing) -> float:
    """Return half the interquartile range, relative to the median."""
    low, high = timing.spread
    return (high - low) / 2 / timing.median
