"""The pictures of ``sqs bench speed``: time against V and against K."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, StrMethodFormatter

from sqs_codec.bench import contestants as c
from sqs_codec.bench.engines import NAMES, NUMBA
from sqs_codec.bench.speed import TEMPERATURE, Group, K, Speed

FILES = {"vocabulary": "speed-vocabulary.png", "top_k": "speed-top-k.png"}
LABELS = {"vocabulary": "vocabulary V", "top_k": "tokens kept K"}

# Colour, line and marker tell the curves apart, so that grey prints do as well.
STYLES = {
    c.NUMPY: ("0.45", "--", "s"),
    c.TORCH: ("tab:red", "--", "^"),
    NUMBA: ("tab:purple", "-.", "D"),
    NAMES["scalar"]: ("tab:orange", "-.", "v"),
    NAMES["neon"]: ("tab:blue", "-", "o"),
    NAMES["avx2"]: ("tab:green", "-", "P"),
    NAMES["avx512"]: ("tab:blue", "-", "o"),
    c.READ: ("black", ":", ""),
}


def plot(speed: Speed, folder: Path) -> list[Path]:
    """Draw both pictures into a folder and return their files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, file in FILES.items():
        figure = Figure(figsize=(7.2, 5.8), layout="constrained")
        axes = figure.subplots()
        _draw(axes, speed.group(name))
        axes.set_xlabel(LABELS[name])
        axes.set_ylabel("microseconds of a call")
        m = speed.measured
        fixed = f"K = {K}" if name == "vocabulary" else f"V = {m['vocab_size']}"
        axes.set_title(
            f"Logits to bytes, one thread: {fixed}, T = {TEMPERATURE}\n{m['machine']}",
            fontsize="medium",
        )
        figure.legend(loc="outside lower center", fontsize="small", ncols=3)
        figure.savefig(folder / file, dpi=110)
        paths.append(folder / file)
    return paths


def _draw(axes: Axes, group: Group) -> None:
    values = [case.value for case in group.cases]
    for name, (color, line, marker) in STYLES.items():
        if name not in group.cases[0].times:
            continue
        timings = [case.times[name] for case in group.cases]
        ours = name in NAMES.values() or name == NUMBA
        label = f"encode_logits, {name}" if ours else name
        axes.plot(
            values,
            [timing.median for timing in timings],
            color=color,
            linestyle=line,
            marker=marker,
            markersize=5,
            linewidth=1.5,
            label=label,
        )
        low, high = zip(*(timing.spread for timing in timings), strict=True)
        axes.fill_between(values, low, high, color=color, alpha=0.15, linewidth=0)
    floor = [case.times[c.READ].median for case in group.cases]
    axes.fill_between(values, [0.01] * len(values), floor, color="0.9", zorder=0)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_ylim(bottom=min(floor) / 2)
    margin = (values[-1] / values[0]) ** 0.02  # for the outermost markers
    axes.set_xlim(values[0] / margin, values[-1] * margin)
    labels = [f"{value:,}".replace(",", " ") for value in values]
    axes.set_xticks(values, labels, rotation=30 if values[0] > 1000 else 0)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.grid(visible=True, which="both", color="0.92")
    axes.set_axisbelow(True)
