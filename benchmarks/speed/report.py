"""The tables of ``sqs bench speed``."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group as Lines
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from sqs_codec.bench import contestants as c
from sqs_codec.bench.report import _dim, _table
from sqs_codec.bench.speed import (
    CONSTRICTION,
    DECODE_ONE,
    DECODE_ROUND,
    ENCODE,
    ENCODE_ONE,
    ENCODE_ROUND,
    PUSH_BUDGET,
    READ_TARGET,
    STEP,
    VERIFY,
    Group,
    Speed,
)
from sqs_codec.bench.timing import Timing

TIMES_NOTE = """\
Microseconds of a call, medians. +-: half the distance of the quartiles, of the
contestant for which it is largest. k: tokens left after quantization. ns per
logit: of the first column.
"""

OVERHEAD_NOTE = """\
On 32 tokens, K = 1. C: the same call with its arguments prepared, less what it
takes when it has nothing to do."""

HEADS = {c.TORCH: "softmax\n+ topk", c.NUMPY: "arg-\npart.", c.READ: "one\nread"}
NOTES = {"survivors": "k"}
WITHOUT_LOGITS = (ENCODE_ONE, DECODE_ONE, ENCODE_ROUND, DECODE_ROUND)


def report(speed: Speed) -> Lines:
    """Render everything that was measured, 80 columns wide."""
    parts: list[RenderableType] = [_measured(speed), _bars(speed)]
    for group in speed.groups:
        if group.name == "calls":
            parts.append(_calls(group))
        elif group.name == "support":
            parts.append(_support(group))
        elif group.name == "symbols":
            parts.append(_symbols(group))
        elif group.name == "draft_step":
            parts.append(_draft_step(group))
        else:
            parts.append(_varied(group, list(group.cases[0].times)))
    parts.append(_dim(TIMES_NOTE))
    if speed.calls:
        parts += [_overhead(speed), _dim(OVERHEAD_NOTE)]
    return Lines(*parts)


def _measured(speed: Speed) -> Text:
    m = speed.measured
    packages = ", ".join(f"{name} {number}" for name, number in m["packages"].items())
    pins = "one core and" if m["pinned"] else "no particular core,"
    flags = f" ({m['cpu_flags']})" if m["cpu_flags"] else ""
    return Text(
        f"{m['source']}.\n"
        f"{m['rows']} rows of {m['vocab_size']} tokens in turns, "
        f"{m['footprint'] / 2**20:g} MiB in all; median of {m['rounds']} rounds, "
        f"contestants in random order, on {pins} one thread; seed {m['seed']}.\n"
        f"The same {m['packets']} packets from {', '.join(m['engines'])}.\n"
        f"sqs-codec {m['version']} ({m['backend']}), Python {m['python']}, {packages}; "
        f"{m['machine']}{flags}; {m['seconds']:.0f} s.\n"
    )


def _bars(speed: Speed) -> Table:
    table = _table("What it is held to", "", "measured", "bar", "", "stretch")
    for bar in speed.bars:
        sign = ">=" if bar.at_least else "<="
        stretch = ""
        if bar.stretch is not None:
            stretch = f"{sign} {bar.stretch:g}: {'yes' if bar.stretches else 'no'}"
        table.add_row(
            bar.name,
            f"{bar.value:.2f} {bar.unit}",
            f"{sign} {bar.limit:g}",
            "pass" if bar.passes else "FAIL",
            stretch,
        )
    return table


def _calls(group: Group) -> Table:
    case = group.cases[0]
    survivors = case.notes["survivors"]
    table = _table(
        f"{group.title}; {survivors:.1f} survivors",
        *("", "us", "quartiles", "ns / logit", "reads"),
    )
    assert case.logits is not None
    for name, timing in case.times.items():
        low, high = timing.spread
        cells = [f"{timing.median:.2f}", f"{low:.2f} - {high:.2f}"]
        if name in (VERIFY, READ_TARGET):
            cells += ["", f"{timing.over(case.times[READ_TARGET]):.2f}"]
        elif name not in WITHOUT_LOGITS:
            cells.append(f"{timing.median * 1000 / case.logits:.3f}")
            cells.append(f"{timing.over(case.times[c.READ]):.2f}")
        table.add_row(name, *cells)
    return table


def _varied(group: Group, names: Sequence[str]) -> Table:
    notes = list(group.cases[0].notes)
    per_logit = names[0] if group.name == "vocabulary" else None
    heads = [HEADS.get(name, name.replace(", ", ",\n")) for name in names]
    table = _table(
        group.title,
        *(group.by, *(NOTES[note] for note in notes), *heads, "+-"),
        *(["ns /\nlogit"] if per_logit else []),
    )
    for case in group.cases:
        cells = [f"{case.notes[n]:.1f}" if n in case.notes else "-" for n in notes]
        cells += [_cell(case.times.get(name)) for name in names]
        cells.append(f"{max(map(_spread, case.times.values())):.0%}")
        if per_logit and case.logits:
            cells.append(f"{case.times[per_logit].median * 1000 / case.logits:.3f}")
        table.add_row(str(case.value), *cells)
    return table


def _cell(timing: Timing | None) -> str:
    return "-" if timing is None else f"{timing.median:.1f}"


def _spread(timing: Timing) -> float:
    """Return half the distance of the quartiles, relative to the median."""
    low, high = timing.spread
    return (high - low) / 2 / timing.median


def _support(group: Group) -> Table:
    names = list(group.cases[0].times)
    heads = [name.replace(", ", "\n") for name in names]
    table = _table(group.title, "k", "l", *heads, "+-")
    for case in group.cases:
        cells = [_cell(case.times[name]) for name in names]
        spread = f"{max(map(_spread, case.times.values())):.0%}"
        table.add_row(str(case.value), f"{case.notes['l']:.0f}", *cells, spread)
    return table


def _symbols(group: Group) -> Table:
    case = group.cases[0]
    table = _table(
        f"{group.title}, {case.notes['survivors']:.1f} tokens", "", "us", "bits"
    )
    for name, timing in case.times.items():
        bits = "constriction_bits" if name in CONSTRICTION else "bits"
        table.add_row(name, _cell(timing), f"{case.notes[bits]:.0f}")
    return table


def _draft_step(group: Group) -> Table:
    case = group.cases[0]
    table = _table(f"{group.title}; {case.value}", "", "us", "of the step")
    for name in (STEP, ENCODE, PUSH_BUDGET):
        share = case.times[name].over(case.times[STEP])
        table.add_row(name, _cell(case.times[name]), f"{share:.3%}")
    return table


def _overhead(speed: Speed) -> Table:
    table = _table("What Python adds, us", "", "through Python", "C", "Python's part")
    for name, (python, alone) in speed.calls.items():
        beyond = f"{python.beyond(alone):.2f}"
        table.add_row(name, f"{python.median:.2f}", f"{alone.median:.2f}", beyond)
    return table
