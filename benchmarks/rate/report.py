"""The tables of a run and its plot: each scheme's Pareto front at each temperature."""

from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from benchmarks import schemes
from benchmarks.charts import Panel
from benchmarks.rate import measure
from benchmarks.schemes import C_SQS, ENTROPY, ENUMERATIVE, K_SQS, NONZERO, SAME
from benchmarks.tables import about_line, dim, table

POINTS_NOTE = """\
Bits per distribution, log-linear between neighboring points of each scheme's
Pareto front, and their ratio to the better of K-SQS and C-SQS, then to C-SQS
online. Each scheme has its best setting; drafted tokens aren't counted; - is
unreachable. Nonzero: for tokens with a count. Online: the paper's moving threshold.
"""

SHOWN = (ENTROPY, K_SQS, ENUMERATIVE, C_SQS, schemes.RAW, schemes.QS)
LEAST_TV, MOST_BITS, POINTS = 0.005, 8000, 7


def report(results: measure.Results) -> Group:
    """Render all measurements, 80 columns wide."""
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
    points = results.at(measure.OPERATING_POINTS, "tv")
    if points:
        online = schemes.STEERED, schemes.STEERED[:1]
        steered = results.at(measure.OPERATING_POINTS, "tv", *online)
        parts += [_points("mean TV", points)]
        parts += [_points("mean TV, online threshold", steered), dim(POINTS_NOTE)]
        parts.append(_acceptance(results.at(measure.ACCEPTANCE_POINTS, "acceptance")))
    return Group(*parts)


def _same(temperatures: list[measure.Temperature]) -> Table:
    made = table(
        "Bits of the same distribution (K = 64, l = 100)",
        *("T", "K-SQS\nformula", "C-SQS\nnonzero", "enumer-\native", "no\nprior"),
        *("\nentropy", "over\nK-SQS", "over\nnonzero", "draft's\nacceptance"),
    )
    same = K_SQS, NONZERO, ENUMERATIVE, schemes.NO_PRIOR, ENTROPY
    for t in temperatures:
        bits = [float(t.mean(scheme, SAME)[0]) for scheme in same]
        shares = (
            *(f"{x / bits[-1]:.2f}" for x in bits[:2]),
            f"{t.draft_acceptance / t.rows:.3f}",
        )
        made.add_row(f"{t.temperature:g}", *(f"{x:.1f}" for x in bits), *shares)
    return made


def _points(what: str, points: list[dict[str, Any]]) -> Table:
    heads = [f"T={p['temperature']:g}\nTV={p['loss']:g}" for p in points]
    made = table(f"Bits at the same {what}", "", *heads, "mean\nratio")
    for scheme in points[0]["bits"]:
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
    made = table("Bits at a loss of acceptance rate", "", *heads)
    for scheme in schemes.SCHEMES:
        bits = [point["bits"][scheme] for point in points]
        made.add_row(scheme, *("-" if b is None else f"{b:.0f}" for b in bits))
    return made


def _short(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.1f}"


def chart(results: measure.Results) -> list[Panel]:
    """Return panels of bits against TV, with some points of each scheme's front."""
    panels = []
    for measured in results.temperatures:
        series = {}
        for scheme in SHOWN:
            bits, tv = measured.front(scheme)
            seen = np.flatnonzero((tv >= LEAST_TV) & (bits <= MOST_BITS))
            some = seen[:: max(1, len(seen) // POINTS)]
            series[scheme] = [*zip(tv[some].tolist(), bits[some].tolist(), strict=True)]
        title = f"Bits per distribution, T = {measured.temperature:g}"
        panels.append(Panel(title, series, "mean TV between draft and sent", log="xy"))
    return panels
