"""The tables of ``sqs bench rate``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sqs_codec.bench import schemes
from sqs_codec.bench.results import (
    CODED,
    ENUMERATIVE,
    K_SQS,
    OURS,
    PAPER,
    QS,
    RAW,
    Results,
    Temperature,
    operating_points,
)

TVS = (0.01, 0.02, 0.05, 0.10, 0.15, 0.20)
LOST_ACCEPTANCE = (0.005, 0.01, 0.02, 0.05)
ORDER = (*PAPER, QS, RAW, *OURS)

POINTS_NOTE = """\
Bits of a distribution, log-linear between neighbouring points of each scheme's
Pareto front, and how many times the better of K-SQS and C-SQS that is. Every
scheme at its own best setting; no drafted token is counted; - is out of reach.
"""

PARTS_NOTE = """\
Ideal: the models' chances as real numbers. What is sent beyond it comes of the
integers, the end of the coder and the padding of a round to bytes."""


def report(results: Results) -> Group:
    """Render everything that was measured, 80 columns wide."""
    temperatures = results.temperatures
    parts: list[RenderableType] = [_measured(results), _same(temperatures)]
    points = operating_points(temperatures)
    if points:
        parts += [_points(points), _dim(POINTS_NOTE)]
    parts += [_against_tv(measured) for measured in temperatures]
    parts += [_against_acceptance(t) for t in temperatures if t.has_target]
    parts += [_parts(temperatures, setting) for setting in schemes.TAKEN_APART]
    parts.append(_dim(PARTS_NOTE))
    return Group(*parts)


def _dim(text: str) -> Text:
    return Text(text, style="dim")


def _table(title: str, *columns: str) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
    )
    table.pad_edge = False
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left", no_wrap=True)
    return table


def _measured(results: Results) -> Text:
    m = results.measured
    return Text(
        f"{m['source']}.\n"
        f"{m['rows']} rows of {m['vocab_size']} tokens in {m['sessions']} sessions; "
        f"rounds of {m['round']}, a stream for each session; seed {m['seed']}.\n"
        f"sqs-codec {m['version']} ({m['backend']}), Python {m['python']}, "
        f"NumPy {m['numpy']}, {m['machine']}; {m['seconds']:.0f} s.\n"
    )


def _same(temperatures: Sequence[Temperature]) -> Table:
    table = _table(
        f"Bits of the same distribution ({schemes.SAME})",
        *("T", "K-SQS\nformula", "\nenumerative", "\nentropy"),
        *("formula /\nenumerative", "formula /\nentropy", "token and\ncount alone"),
    )
    entropy = CODED["fixed"][0]
    for t in temperatures:
        paper = t.same(K_SQS)
        table.add_row(
            f"{t.temperature:g}",
            *(f"{t.same(scheme):.1f}" for scheme in (K_SQS, ENUMERATIVE, entropy)),
            *(f"{paper / t.same(scheme):.2f}" for scheme in (ENUMERATIVE, entropy)),
            f"{t.token_bits:.1f}",
        )
    return table


def _points(points: Sequence[dict[str, Any]]) -> Table:
    heads = [f"T={p['temperature']:g}\nTV={p['tv']:g}" for p in points]
    table = _table("Bits at the same mean TV", "", *heads, "mean\nratio")
    for scheme in ORDER:
        ratios = [point["ratio"][scheme] for point in points]
        cells = [
            "-" if ratio is None else f"{point['bits'][scheme]:.0f} {_short(ratio)}"
            for point, ratio in zip(points, ratios, strict=True)
        ]
        mean = None if None in ratios else sum(ratios) / len(ratios)
        table.add_row(scheme, *cells, "-" if mean is None else f"{mean:.3f}")
    return table


def _short(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.1f}"


def _against_tv(measured: Temperature) -> Table:
    title = f"T = {measured.temperature:g}: bits at a mean TV"
    return _rates(measured, title, "tv", {f"{tv:g}": tv for tv in TVS})


def _against_acceptance(measured: Temperature) -> Table:
    most = measured.draft_acceptance
    return _rates(
        measured,
        f"T = {measured.temperature:g}: bits at an acceptance rate; "
        f"the draft itself has {most:.3f}",
        "acceptance",
        {f"{most - lost:.3f}": lost for lost in LOST_ACCEPTANCE},
    )


def _rates(
    measured: Temperature, title: str, against: str, losses: dict[str, float]
) -> Table:
    table = _table(title, "", *losses)
    for scheme in ORDER:
        bits = [measured.bits_at(scheme, loss, against) for loss in losses.values()]
        table.add_row(scheme, *("-" if b is None else f"{b:.0f}" for b in bits))
    return table


def _parts(temperatures: Sequence[Temperature], setting: schemes.Setting) -> Table:
    table = _table(
        f"Where the bits of a distribution go, in rounds ({setting})",
        *("\nT", "reso-\nlution", "\nsize", "\ncounts", "\nids", "\ntoken"),
        *("\nmore?", "\nideal", "\nsent", "beyond\nideal", "bits a\nround"),
    )
    for t in temperatures:
        b = t.breakdowns[setting]
        bits = [*astuple(b.ideal), b.ideal.total, b.sent]
        table.add_row(
            f"{t.temperature:g}",
            *(f"{x / b.distributions:.1f}" for x in bits),
            f"{b.overhead / b.ideal.total:.2%}",
            f"{b.overhead / b.rounds:.1f}",
        )
    return table
