"""The picture of ``sqs bench rate``: each scheme's front, a column per temperature."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from sqs_codec.bench.results import (
    C_SQS,
    CODED,
    ENUMERATIVE,
    K_SQS,
    QS,
    RAW,
    Results,
    Temperature,
)

# Colour, line and marker tell the curves apart, so that grey prints do as well.
STYLES = {
    QS: ("0.6", ":", "x"),
    RAW: ("0.45", "--", "s"),
    K_SQS: ("tab:red", "--", "^"),
    C_SQS: ("darkred", "-", "v"),
    ENUMERATIVE: ("tab:orange", "-.", "D"),
    CODED["rdo"][0]: ("tab:green", "-", "*"),
    CODED["fixed"][0]: ("tab:blue", "--", "o"),
    CODED["fixed"][2]: ("black", "-", "P"),
}

LEAST_TV, MOST_TV = 0.005, 0.4
MOST_LOST_ACCEPTANCE = 0.12
LEAST_BITS, MOST_BITS = 10, 8000
MARKERS = 9
"""How many points of a front are marked."""

DRAFT = "the draft itself"


def plot(results: Results, path: Path) -> None:
    """Draw bits against TV, and against acceptance rate where the target is known."""
    temperatures = results.temperatures
    targets = all(t.has_target for t in temperatures)
    figure = Figure(
        figsize=(1 + 4.2 * len(temperatures), 1.6 + (8 if targets else 4)),
        layout="constrained",
    )
    axes = figure.subplots(1 + targets, len(temperatures), squeeze=False)
    for column, measured in enumerate(temperatures):
        _draw_tv(axes[0][column], measured)
        if targets:
            _draw_acceptance(axes[1][column], measured)
    for row in axes:
        row[0].set_ylabel("bits per distribution")
    figure.legend(
        *axes[-1][0].get_legend_handles_labels(), loc="outside lower center", ncols=3
    )
    m = results.measured
    figure.suptitle(
        f"{m['source']}\n{m['rows']} positions, vocabulary {m['vocab_size']}",
        fontsize="medium",
    )
    figure.savefig(path, dpi=110)


def _draw_tv(axes: Axes, measured: Temperature) -> None:
    _draw(axes, measured, "tv")
    axes.set_title(f"T = {measured.temperature:g}")
    axes.set_xlabel("mean TV(draft, sent)")
    axes.set_xscale("log")
    axes.set_xlim(LEAST_TV, MOST_TV)
    axes.set_xticks([0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4])
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.minorticks_off()


def _draw_acceptance(axes: Axes, measured: Temperature) -> None:
    _draw(axes, measured, "acceptance")
    most = measured.draft_acceptance
    axes.axvline(most, color="0.7", linewidth=0.8, label=DRAFT)
    lost = max(measured.front(scheme, "acceptance")[1][-1] for scheme in STYLES)
    lost = min(lost, MOST_LOST_ACCEPTANCE)
    axes.set_xlim(most - lost - 0.002, most + 0.003)
    axes.set_xlabel("acceptance rate")


def _draw(axes: Axes, measured: Temperature, against: str) -> None:
    for scheme, (color, line, marker) in STYLES.items():
        bits, loss, _ = measured.front(scheme, against)
        axes.plot(
            loss if against == "tv" else measured.draft_acceptance - loss,
            bits,
            color=color,
            linestyle=line,
            marker=marker,
            markevery=max(1, len(bits) // MARKERS),
            markersize=5,
            linewidth=1.3,
            label=scheme,
        )
    axes.set_yscale("log")
    axes.set_ylim(LEAST_BITS, MOST_BITS)
    axes.grid(visible=True, which="both", color="0.92")
