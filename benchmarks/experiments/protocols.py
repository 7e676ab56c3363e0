"""The cost of a drafted token, and the speed of completions in the real system."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

import sqs_codec as sqs
from benchmarks.charts import Panel, Point
from benchmarks.experiments import measured
from benchmarks.experiments.estimate import ratio, shown
from benchmarks.experiments.experiment import (
    NAMES,
    Check,
    Options,
    Records,
    Task,
    grouped,
)
from benchmarks.experiments.measured import HINTS, PLANNER, ROUNDS, TEMPERATURE, Place
from benchmarks.experiments.models import GEMMA3, SMOLLM2, load
from benchmarks.experiments.traces import traces
from benchmarks.schemes import Row, formats, ours
from benchmarks.tables import dim, table
from sqs_codec.system.session import Setting

TITLE = "Protocols over links of 2 kbit/s to 1 Mbit/s"
ALONE = True

PLACES = [
    *(Place(rate, trip) for rate in (2e3, 1e4, 1e5, 1e6) for trip in (0.02, 0.1, 0.3)),
    *(Place(rate, 0.1, 0.05) for rate in (1e4, 1e5)),
]
QUICK_PLACES = [Place(1e4, 0.02), Place(1e6, 0.1, 0.05)]

PROMPTS = {SMOLLM2: 24, GEMMA3: 12}
"""Prompts per pair, limited by time; other pairs have as many as the first."""

WAYS = measured.ALONE, ROUNDS, HINTS, PLANNER

ALIKE = 0.05
"""The largest relative difference of virtual and real clock on links without loss."""


def places(options: Options) -> list[tuple[str, float]]:
    """Return the models and temperatures of the completions."""
    first = (options.model, TEMPERATURE)
    if options.quick:
        return [first]
    others = [(name, TEMPERATURE) for name in options.models[1:]]
    return [first, (options.model, 1.0), *others]


def tasks(options: Options) -> list[Task]:
    """Return the tasks of the formats, one per model, and of the real system."""
    return [
        *(Task(f"{m} {t:g}", sent, (m, t)) for m, t in places(options)),
        Task("real", measured.measure, (QUICK_PLACES if options.quick else PLACES,)),
    ]


def sent(options: Options, name: str, temperature: float) -> Records:
    """Return each completion's bits and expected acceptances in each format."""
    models = load(options, name)
    v = models.vocab_size
    one_hot = Setting(sqs.Codec(v, 1, prior=models.prior), sqs.TopK(1))
    settings = one_hot, *Setting.defaults(v, models.prior)
    ways = [*formats(v), *map(ours, settings)]
    names = [*(way.name for way in ways), "hints, first guess"]
    about = {"part": "sent", "model": name, "temperature": temperature}
    prompts = PROMPTS.get(name, PROMPTS[SMOLLM2])
    found = []
    for text in traces(options, name, temperature, prompts=prompts):
        sums = np.zeros((len(names), 2))
        for draft, target, token in zip(
            text.draft, text.target, text.tokens, strict=True
        ):
            row = Row(draft, target, temperature)
            guess = 16 if v <= 1 << 16 else 24, coupled(row.p, row.q, token)
            sums += [*(way.position(row) for way in ways), guess]
        found += [
            {**about, "format": way, "positions": len(text)}
            | {"bits": bits, "accepted": right}
            for way, (bits, right) in zip(names, sums.tolist(), strict=True)
        ]
    return found


def coupled(p: NDArray[np.float64], q: NDArray[np.float64], token: int) -> float:
    """Return the probability that a hint with shared random numbers is right.

    Each token has an exponential number E_i. The edge takes the least E_i / q_i, the
    cloud the least E_i / p_i: Gumbel sampling, as in arXiv 2408.07978. Given that the
    cloud takes y, t = E_y / p_y has density e^-t, and each other E_i exceeds p_i t. The
    edge takes y as well if each E_i exceeds q_i p_y t / q_y. So the probability is
    1 / sum_i max(p_i, q_i p_y / q_y). Its mean over y is at least (1 - TV) / (1 + TV).
    """
    if q[token] == 0:
        return 0.0
    return float(1 / np.maximum(p, q * (p[token] / q[token])).sum())


# Summary


def summary(records: Records, options: Options) -> dict[str, Any]:
    """Return the results of the formats and the links."""
    parts: dict[str, Records] = {key[0]: of for key, of in grouped(records, "part")}
    names = "model", "temperature", "format"
    late = [each["late"] / each["seconds"] for each in parts["real"]]
    return {
        "quick": options.quick,
        "formats": [
            dict(zip(names, key, strict=True)) | _format(group, options.seed)
            for key, group in grouped(parts["sent"], *names)
        ],
        "texts": 1 + max(each["text"] for each in parts["real"]),
        "tokens": parts["real"][0]["tokens"],
        "links": [
            {"place": key, **_link(group)}
            for key, group in grouped(parts["real"], *Place._fields)
        ],
        "late": {"median": float(np.median(late)), "most": max(late)},
    }


def _format(group: Records, seed: int) -> dict[str, Any]:
    """Return bits and acceptance per position."""
    positions = [each["positions"] for each in group]
    bits, right = ([each[n] for each in group] for n in ("bits", "accepted"))
    return {
        "bits": ratio(bits, positions, seed).as_json(),
        "acceptance": ratio(right, positions, seed).as_json(),
    }


def _link(records: Records) -> dict[str, Any]:
    """Compare the modes over a link."""
    ways = {way: _way(group) for (way,), group in grouped(records, "way")}
    speeds = {way: sums["tokens_per_second"] for way, sums in ways.items()}
    without = max(speeds[measured.ALONE], speeds[ROUNDS])
    return {
        "rounds": records[0]["plan"],
        "ways": ways,
        "gain": speeds[HINTS] / without,
        "planner": speeds[PLANNER] / max(without, speeds[HINTS]),
    }


def _way(texts: Records) -> dict[str, float]:
    """Sum up completions; bytes, rows and passes are per token."""
    names = "seconds", "late", "simulated", "bytes_up", "bytes_down", "rows", "passes"
    tokens = sum(text["tokens"] for text in texts)
    each = {name: sum(text[name] for text in texts) / tokens for name in names}
    return {**each, "tokens_per_second": 1 / each["seconds"]}


def _off(seconds: float, late: float, simulated: float, **_: float) -> float:
    """Return the relative excess of the real time over the virtual clock's.

    A delay counts unless it can have been hidden by another wait.
    """
    least, most = (each / simulated - 1 for each in (seconds - late, seconds))
    return min(max(0.0, least), most)


def checks(summary: dict[str, Any]) -> list[Check]:
    """Return whether the virtual clock is right."""
    if summary["quick"]:  # texts of a few tokens
        return []
    links = [(Place(*link["place"]), link) for link in summary["links"]]
    off = {
        f"{way} on {place}": _off(**sums)
        for place, link in links
        for way, sums in link["ways"].items()
        if not place.loss
    }
    farthest = max(off, key=lambda x: abs(off[x]))
    return [
        Check(
            f"without loss, the virtual clock is within {ALIKE:.0%} of the real one, "
            "except for delays of this machine",
            abs(off[farthest]) <= ALIKE,
            f"{off[farthest]:+.1%} for {farthest}",
        ),
    ]


# Tables


def tables(summary: dict[str, Any]) -> Iterator[Table | Text]:
    """Yield formats, and the real system."""
    yield from _format_tables(summary["formats"])
    yield from _link_tables(summary)


def _format_tables(formats: Records) -> Iterator[Table | Text]:
    for (model, temperature), group in grouped(formats, "model", "temperature"):
        made = table(
            f"Per drafted token, {model}, T={temperature:g}",
            *("format", "bits", "acceptance rate"),
        )
        for each in group:
            bits, acceptance = each["bits"]["value"], shown(each["acceptance"], ".3f")
            made.add_row(each["format"], f"{bits:,.0f}", acceptance)
        yield made
    yield dim(
        "bits: the token and its distribution, in single packets without headers. "
        "acceptance rate: the mean probability, with its 95 % interval over "
        "completions."
    )


def _link_tables(summary: dict[str, Any]) -> Iterator[Table | Text]:
    """Yield speeds, bytes and work over each link."""
    speeds = table(
        "The real system: tokens per second", *("link", *WAYS, "gain", "of best")
    )
    virtual = table("The same on a virtual clock", "link", *WAYS)
    sizes = table("Bytes up and down per token, with IP headers", "link", *WAYS)
    work = table(
        "Draft steps and forward passes of the target, per token",
        *("link", "the rounds", *WAYS[1:]),
    )
    for link in summary["links"]:
        place, ways = str(Place(*link["place"])), [link["ways"][way] for way in WAYS]
        found = [f"{way['tokens_per_second']:.2f}" for way in ways]
        speeds.add_row(place, *found, f"{link['gain']:.2f}", f"{link['planner']:.2f}")
        virtual.add_row(place, *(f"{1 / way['simulated']:.2f}" for way in ways))
        told = (f"{way['bytes_up']:.0f} + {way['bytes_down']:.0f}" for way in ways)
        sizes.add_row(place, *told)
        done = (f"{way['rows']:.2f}, {way['passes']:.2f}" for way in ways[1:])
        work.add_row(place, link["rounds"], *done)
    yield from (speeds, virtual, sizes, work)
    late = summary["late"]
    yield dim(
        f"{summary['texts']} completions of {summary['tokens']} tokens on each link. "
        "Rounds have the length and setting with the lowest expected time; hints and "
        "the planner have no choice made for them. gain: the speed of hints relative "
        "to the faster of rounds and alone; of best: the planner's relative to the "
        f"fastest mode. Delays of the machine: {late['median']:.1%} of a completion's "
        f"time (median), {late['most']:.0%} at most."
    )


def chart(summary: dict[str, Any]) -> list[Panel]:
    """Return the real system's speeds, and bits and acceptance of formats."""
    speeds: dict[str, list[Point]] = {
        way: [
            (str(Place(*link["place"])), link["ways"][way]["tokens_per_second"])
            for link in summary["links"]
        ]
        for way in WAYS[:3]
    }
    (model, temperature), first = grouped(summary["formats"], "model", "temperature")[0]
    formats: dict[str, list[Point]] = {}
    for one in first[1:]:  # dense is far off
        family = one["format"].partition(" ")[0].rstrip(",")
        point = one["bits"]["value"], one["acceptance"]["value"]
        formats.setdefault(family, []).append(point)
    title = f"Accepted: {NAMES[model]}, T = {temperature:g}"
    return [
        Panel("Tokens per second in the real system", speeds),
        Panel(title, formats, "bits per drafted token", log="x"),
    ]
