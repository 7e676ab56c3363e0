"""The tables of a run, and its limits."""

from dataclasses import dataclass
from typing import Any

from rich.console import Group as Lines
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from benchmarks.speed import measure
from benchmarks.speed.engines import NUMBA
from benchmarks.speed.rivals import NUMPY, READ, TORCH
from benchmarks.speed.timing import Timing
from benchmarks.tables import about_line, dim, table

NOTE = """\
Microseconds of a call, medians. +-: half the distance of the quartiles, of the
contestant for which it is largest. k: tokens left after quantization. x: how
many times one read of the same rows this takes.
"""

HEADS = {TORCH: "softmax\n+ topk", NUMPY: "arg-\npart.", READ: "one\nread"}


@dataclass(frozen=True)
class Bar:
    """What a run is held to."""

    name: str
    value: float
    limit: float
    at_least: bool = False
    """Whether `value` must reach the limit; otherwise it must not exceed it."""
    unit: str = "x"

    @property
    def passes(self) -> bool:
        """Whether the limit is kept."""
        return (self.value >= self.limit) if self.at_least else self.value <= self.limit


def bars(speed: measure.Speed) -> list[Bar]:
    """Hold a run to what the design asks for."""
    times = speed.groups["calls"].cases[0].times
    names = speed.measured["engines"]
    ours = times[f"{measure.ENCODE}, {names[0]}"]
    races = speed.groups["races"].cases[0].times
    race = races[measure.RACE.format(1, names[0])]
    verify = times[measure.VERIFY].over(times[measure.READ_TARGET])
    update = times[measure.CONFORMAL].beyond(times[measure.FIXED])
    few, *_, many = speed.groups["vocabulary"].cases
    growth = many.times[names[0]].median / few.times[names[0]].median
    grown = growth / (many.value / few.value)
    found = [
        Bar(f"{TORCH} / {measure.ENCODE}", times[TORCH].over(ours), 5, at_least=True),
        Bar("the best of a race / one read", race.over(races[READ]), 2.5),
        Bar(measure.DECODE_ONE, times[measure.DECODE_ONE].median, 5, unit="us"),
        Bar("Conformal, update beyond Threshold", update, 1, unit="us"),
        Bar(f"verify / one read of its {measure.GROUP_ROWS} rows", verify, 3),
        Bar(f"growth of the time / of V, {few.value} to {many.value}", grown, 1.1),
    ]
    base = next((name for name in ("AVX2", "NEON", "scalar") if name in names), None)
    if base:
        ratio = times[f"{measure.ENCODE}, {NUMBA}"].over(
            times[f"{measure.ENCODE}, {base}"]
        )
        found.append(Bar(f"{measure.ENCODE}, {NUMBA} / {base}", ratio, 2))
    if "threads" in speed.groups:
        batch = speed.groups["threads"].cases[-1]
        for rule in measure.RULES:
            one, two = (batch.times[measure.THREADS.format(rule, n)] for n in (1, 2))
            name = f"{batch.value} rows, {rule}: 1 thread / 2"
            found.append(Bar(name, one.over(two), 1.8, at_least=True))
    return found


def report(speed: measure.Speed) -> Lines:
    """Render everything that was measured, 80 columns wide."""
    parts: list[RenderableType] = [_measured(speed.measured), _bars(bars(speed))]
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


def _bars(held: list[Bar]) -> Table:
    made = table("What it is held to", "", "measured", "bar", "")
    for bar in held:
        limit = f"{'>=' if bar.at_least else '<='} {bar.limit:g}"
        passes = "pass" if bar.passes else "FAIL"
        made.add_row(bar.name, f"{bar.value:.2f} {bar.unit}", limit, passes)
    return made


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
            cells.append(f"{timing.over(case.times[group.base[name]]):.3g}")
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
    """Return half the distance of the quartiles, relative to the median."""
    low, high = timing.spread
    return (high - low) / 2 / timing.median
