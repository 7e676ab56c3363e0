"""The tables of a run, and the picture: each scheme's front at each temperature."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from benchmarks.rate.measure import (
    ACCEPTANCE_POINTS,
    OPERATING_POINTS,
    Results,
    Temperature,
)
from benchmarks.rate.schemes import (
    C_SQS,
    ENTROPY,
    ENUMERATIVE,
    K_SQS,
    NO_PRIOR,
    QS,
    RAW,
    SAME,
    SCHEMES,
)
from benchmarks.tables import about_line, dim, table, write_figure

POINTS_NOTE = """\
Bits of a distribution, log-linear between neighbouring points of each scheme's
Pareto front, and how many times the better of K-SQS and C-SQS that is. Every
scheme at its own best setting; no drafted token is counted; - is out of reach.
"""

# Colour, line and marker tell the curves apart, so that grey prints do as well.
STYLES = {
    QS: ("0.6", ":", "x"),
    RAW: ("0.5", "--", "s"),
    K_SQS: ("tab:red", "--", "^"),
    C_SQS: ("tab:purple", "-", "v"),
    ENUMERATIVE: ("tab:orange", "-.", "D"),
    ENTROPY: ("tab:blue", "--", "o"),
}

TVS = (0.005, 0.02, 0.1, 0.4)
MOST_LOST_ACCEPTANCE = 0.12
BITS = (10, 8000)
MARKERS = 7
"""How many points of a front are marked."""


def report(results: Results) -> Group:
    """Render everything that was measured, 80 columns wide."""
    m = results.measured
    parts: list[RenderableType] = [
        Text(
            f"{m['source']}.\n"
            f"{m['rows']} rows of {m['vocab_size']} tokens in {m['sessions']} "
            f"sessions; rounds of {m['round']}; "
            f"prior {m['prior'] or 'none'}; seed {m['seed']}.\n{about_line(m)}"
        ),
        _same(results.temperatures),
    ]
    points = results.at(OPERATING_POINTS, "tv")
    if points:
        parts += [_points(points), dim(POINTS_NOTE)]
        parts.append(_acceptance(results.at(ACCEPTANCE_POINTS, "acceptance")))
    return Group(*parts)


def _same(temperatures: list[Temperature]) -> Table:
    made = table(
        "Bits of the same distribution (K = 64, l = 100)",
        *("T", "K-SQS\nformula", "enumer-\native", "no\nprior", "\nentropy"),
        *("formula /\nentropy", "draft's\nacceptance"),
    )
    for t in temperatures:
        paper, ranks, plain, entropy = (
            t.mean(scheme, SAME)[0]
            for scheme in (K_SQS, ENUMERATIVE, NO_PRIOR, ENTROPY)
        )
        made.add_row(
            f"{t.temperature:g}",
            *(f"{bits:.1f}" for bits in (paper, ranks, plain, entropy)),
            f"{paper / entropy:.2f}",
            f"{t.draft_acceptance / t.rows:.3f}",
        )
    return made


def _points(points: list[dict[str, Any]]) -> Table:
    heads = [f"T={p['temperature']:g}\nTV={p['loss']:g}" for p in points]
    made = table("Bits at the same mean TV", "", *heads, "mean\nratio")
    for scheme in SCHEMES:
        ratios = [point["ratio"][scheme] for point in points]
        cells = [
            "-" if ratio is None else f"{point['bits'][scheme]:.0f} {_short(ratio)}"
            for point, ratio in zip(points, ratios, strict=True)
        ]
        mean = None if None in ratios else sum(ratios) / len(ratios)
        made.add_row(scheme, *cells, "-" if mean is None else f"{mean:.3f}")
    return made


def _acceptance(points: list[dict[str, Any]]) -> Table:
    heads = [f"T={p['temperature']:g}\n-{p['loss']:g}" for p in points]
    made = table("Bits at an acceptance rate so much below the draft's", "", *heads)
    for scheme in SCHEMES:
        bits = [point["bits"][scheme] for point in points]
        made.add_row(scheme, *("-" if b is None else f"{b:.0f}" for b in bits))
    return made


def _short(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.1f}"


def plot(results: Results, path: Path) -> None:
    """Draw bits against TV and against acceptance rate, a row per temperature."""
    rows = len(results.temperatures)
    figure = Figure(figsize=(5.2, 0.8 + 2.3 * rows), layout="constrained")
    axes = figure.subplots(rows, 2, squeeze=False, sharey=True)
    for (left, right), measured in zip(axes, results.temperatures, strict=True):
        left.set_ylabel(f"bits, T = {measured.temperature:g}")
        _draw_tv(left, measured)
        _draw_acceptance(right, measured)
    axes[-1][0].set_xlabel("mean TV(draft, sent)")
    axes[-1][1].set_xlabel("acceptance rate")
    lines = axes[0][1].get_legend_handles_labels()
    figure.legend(*lines, loc="outside lower center", ncols=3, frameon=False)
    write_figure(figure, path)


def _draw_tv(axes: Axes, measured: Temperature) -> None:
    _draw(axes, measured, "tv")
    axes.set_xscale("log")
    axes.set_xlim(TVS[0], TVS[-1])
    axes.set_xticks(TVS, [f"{tv:g}" for tv in TVS])
    axes.xaxis.minorticks_off()


def _draw_acceptance(axes: Axes, measured: Temperature) -> None:
    _draw(axes, measured, "acceptance")
    axes.locator_params(axis="x", nbins=4)
    most = measured.draft_acceptance / measured.rows
    axes.axvline(most, color="0.6", linewidth=0.8, label="the draft itself")
    lost = max(measured.front(scheme, "acceptance")[1][-1] for scheme in STYLES)
    axes.set_xlim(most - min(lost, MOST_LOST_ACCEPTANCE) - 0.002, most + 0.003)


def _draw(axes: Axes, measured: Temperature, against: str) -> None:
    for scheme, (color, line, marker) in STYLES.items():
        bits, loss = measured.front(scheme, against)
        most = measured.draft_acceptance / measured.rows
        axes.plot(
            loss if against == "tv" else most - loss,
            bits,
            color=color,
            linestyle=line,
            marker=marker,
            markevery=max(1, len(bits) // MARKERS),
            markersize=3,
            linewidth=1.1,
            label=scheme,
        )
    axes.set_yscale("log")
    axes.set_ylim(*BITS)
    axes.grid(visible=True, alpha=0.3)
