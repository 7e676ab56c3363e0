"""Charts of the documentation, drawn for the width of a phone.

They are SVG with real text. Black lines and text become light if the viewer's color
scheme is dark. The other colors are visible on both backgrounds, and each series also
has its own marker.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

WIDTH = 330
"""The width of a chart in CSS pixels: a phone's 360 minus a page's margins."""

STYLES = (
    ("#1f83c9", "o", "-"),
    ("#d9660b", "s", "--"),
    ("#0a9c78", "^", "-."),
    ("#a763c9", "D", ":"),
    ("#858585", "v", "-"),
    ("black", "x", ":"),
)
"""Color, marker and line of each series. Colors are similar to Okabe and Ito's, with
a contrast of 3 to white and to the site's dark background."""

INK = """<style>svg{color:#222;fill:currentColor;font-family:sans-serif}
@media(prefers-color-scheme:dark){svg{color:#ddd}}
*{stroke-linejoin:round}</style>"""

LOOK = {
    "svg.fonttype": "none",
    "font.size": 11,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.4,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 5,
}

LONG = re.compile(r"(\d\.\d)\d+")

Point = Sequence[float | str]
"""A place, its value and, if known, the ends of the value's interval."""


@dataclass(frozen=True)
class Panel:
    """A chart with the values of some series at places."""

    title: str
    """The name of the values."""
    series: Mapping[str, Sequence[Point]]
    """Named places are rows, from the top; numbers are places on an axis."""
    places: str = ""
    """The label of the axis of places."""
    beside: float | None = None
    """A reference value, drawn as a line."""
    log: str = ""
    """The logarithmic axes: "x", "y" or "xy"."""
    bars: bool = False
    """Whether rows have bars with values and names instead of markers."""

    @property
    def rows(self) -> list[str]:
        """The names of places; empty if they are numbers."""
        places = (point[0] for points in self.series.values() for point in points)
        return [*dict.fromkeys(name for name in places if isinstance(name, str))]

    @property
    def columns(self) -> int:
        """How many legend entries fit in a row."""
        return max(1, WIDTH // (7 * max(map(len, self.series)) + 40))

    @property
    def height(self) -> int:
        """The height in pixels, without a legend."""
        rows = len(self.rows) * (13 * len(self.series) + 8 if self.bars else 22)
        return 24 + (rows or 150) + 24 * (not self.bars) + 16 * bool(self.places)


def estimated(
    place: float | str, estimate: Mapping[str, float], by: float = 1
) -> Point:
    """Return an estimate, times `by`, as a point."""
    return place, *(by * estimate[name] for name in ("value", "low", "high"))


def draw(title: str, panels: Sequence[Panel], path: Path) -> None:
    """Write panels below each other as SVG; the title is its text alternative.

    >>> path = Path("speeds.svg")
    >>> speeds = {"alone": [("10 kbit/s", 8.1)], "hints": [("10 kbit/s", 12.5)]}
    >>> draw("Speeds", [Panel("tokens per second", speeds, bars=True)], path)
    >>> "<title>Speeds</title>" in path.read_text()
    True
    """
    legends = [
        not panel.bars and len(panel.series) > 1 and {*panel.series} != {*below.series}
        for panel, below in zip(panels, [*panels[1:], Panel("", {})], strict=True)
    ]  # panels with the same series share a legend
    heights = [
        panel.height + 18 * legend * -(-len(panel.series) // panel.columns)
        for panel, legend in zip(panels, legends, strict=True)
    ]
    with rc_context(LOOK | {"svg.hashsalt": path.name}):
        figure = Figure((WIDTH / 72, sum(heights) / 72), layout="constrained")
        parts = figure.subfigures(len(heights), squeeze=False, height_ratios=heights)
        for part, panel, legend in zip(parts[:, 0], panels, legends, strict=True):
            part.suptitle(panel.title, x=0, ha="left", size=11, weight="bold")
            _fill(part.subplots(), panel)
            if legend:
                part.legend(loc="outside lower left", ncols=panel.columns)
        figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})
    path.write_text(_tidy(path.read_text("utf-8"), title), "utf-8")


def _fill(axes: Axes, panel: Panel) -> None:
    rows, middle = panel.rows, (len(panel.series) - 1) / 2
    for number, (name, points) in enumerate(panel.series.items()):
        color, mark, line = STYLES[number]
        look = {"color": color, "label": name}
        places, values = ([point[i] for point in points] for i in (0, 1))
        ends = np.array([point[2:] for point in points], float).T
        spans = np.abs(ends - values) if ends.size else None
        at = np.array([rows.index(place) for place in places] if rows else places)
        if panel.bars:
            step = 1 / (len(panel.series) + 1)
            place = at + (number - middle) * step
            made = axes.barh(place, values, 0.88 * step, color=color)
            axes.bar_label(made, [f"{value:.1f} {name}" for value in values], padding=3)
        elif rows:
            at = at + (number - middle) / 5
            axes.errorbar(values, at, xerr=spans, fmt=mark, **look)
        else:
            axes.errorbar(at, values, spans, fmt=mark + line, capsize=2, **look)
    for scale in panel.log:
        getattr(axes, f"set_{scale}scale")("log")
        axis = getattr(axes, f"{scale}axis")
        low, high = axis.get_view_interval()
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 99 * low else (1,)))
        axis.set_major_formatter("{x:,g}")
        axis.set_minor_locator(NullLocator())
    if panel.beside is not None:
        line_at = axes.axvline if rows else axes.axhline
        line_at(panel.beside, color="#858585", linewidth=1)
    if rows:
        axes.set_yticks(range(len(rows)), rows)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.tick_params("y", length=0)
    if panel.bars:
        axes.grid(visible=False)
        axes.set_xlim(right=axes.get_xlim()[1] * 1.3)  # room for labels
        axes.xaxis.set_visible(False)
        axes.spines["bottom"].set_visible(False)
    axes.set_xlabel(panel.places)


def _tidy(svg: str, title: str) -> str:
    r"""Return Matplotlib's SVG with our title and text color, and shorter numbers.

    >>> _tidy('<g><defs/><path d="M 0.1234" fill="#000000"/>0.1234</g>', "It")[-55:]
    '<defs/><path d="M 0.1" fill="currentColor"/>0.1234</g>\n'
    """
    svg = re.sub(r"<metadata>.*</metadata>|<style.*?</style>", "", svg, flags=re.S)
    svg = re.sub(r"font-family: [^;\"]*;?", "", svg.replace("#000000", "currentColor"))
    svg = re.sub(r"<[^>]+>", lambda tag: LONG.sub(r"\1", tag[0]), svg)
    svg = svg.replace("<defs", f"<title>{escape(title)}</title>{INK}<defs", 1)
    return "\n".join(filter(None, map(str.strip, svg.splitlines()))) + "\n"
