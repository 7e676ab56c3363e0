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
"""As many as there is time for; of another pair as many as of the first."""

WAYS = measured.ALONE, ROUNDS, HINTS, PLANNER

ALIKE = 0.05
"""How far a virtual clock may be from the real one, where nothing is lost by chance."""


def places(options: Options) -> list[tuple[str, float]]:
    """Return the models and temperatures whose texts are read."""
    first = (options.model, TEMPERATURE)
    if options.quick:
        return [first]
    others = [(name, TEMPERATURE) for name in options.models[1:]]
    return [first, (options.model, 1.0), *others]


def tasks(options: Options) -> list[Task]:
    """Return what is sent of the texts of each model, and what is measured."""
    return [
        *(Task(f"{m} {t:g}", sent, (m, t)) for m, t in places(options)),
        Task("real", measured.measure, (QUICK_PLACES if options.quick else PLACES,)),
    ]


def sent(options: Options, name: str, temperature: float) -> Records:
    """Return what positions cost and give in each format, summed over each text."""
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
    """Return how probable a draft is right that shares its numbers with the cloud.

    Both ends draw by exponential clocks: E_i rings for each token, the edge takes the
    least E_i / q_i, the cloud the least E_i / p_i: Gumbel sampling, as in arXiv
    2408.07978. Given that the cloud draws y, its clock divided by p rings at a time t
    of density e^-t, and each other one later than p_i t; the edge takes the same token
    if each also rings later than q_i p_y t / q_y. So the probability is
    1 / sum_i max(p_i, q_i p_y / q_y), whose mean over y is (1 - TV) / (1 + TV) or more.
    """
    if q[token] == 0:
        return 0.0
    return float(1 / np.maximum(p, q * (p[token] / q[token])).sum())


# Summary


def summary(records: Records, options: Options) -> dict[str, Any]:
    """Return what formats cost and give, and what links do."""
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
    """Return what a position takes and gives."""
    positions = [each["positions"] for each in group]
    bits, right = ([each[n] for each in group] for n in ("bits", "accepted"))
    return {
        "bits": ratio(bits, positions, seed).as_json(),
        "acceptance": ratio(right, positions, seed).as_json(),
    }


def _link(records: Records) -> dict[str, Any]:
    """Compare the ways to write over a link."""
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
    """Sum up texts; bytes, rows and passes are those of a token."""
    names = "seconds", "late", "simulated", "bytes_up", "bytes_down", "rows", "passes"
    tokens = sum(text["tokens"] for text in texts)
    each = {name: sum(text[name] for text in texts) / tokens for name in names}
    return {**each, "tokens_per_second": 1 / each["seconds"]}


def _off(seconds: float, late: float, simulated: float, **_: float) -> float:
    """Return how much longer the real system took than it would by a virtual clock.

    It may have waited for what was late, or not, if it came while something else was
    waited for.
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
            f"where nothing is lost, the virtual clock is within {ALIKE:.0%} of the "
            "real one, as far as this machine wasn't late",
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
            f"A drafted token, {model}, T={temperature:g}",
            *("format", "bits", "accepted, of all"),
        )
        for each in group:
            bits, acceptance = each["bits"]["value"], shown(each["acceptance"], ".3f")
            made.add_row(each["format"], f"{bits:,.0f}", acceptance)
        yield made
    yield dim(
        "bits: of the token and its distribution, packets of their own, without "
        "headers. accepted: the mean probability, with its interval of 95 % over "
        "texts."
    )


def _link_tables(summary: dict[str, Any]) -> Iterator[Table | Text]:
    """Yield how fast texts come over each link, and what they take."""
    speeds = table(
        "The real system: tokens per second", *("link", *WAYS, "gain", "of best")
    )
    virtual = table("The same on a virtual clock", "link", *WAYS)
    sizes = table("Bytes of IP up and down, for a token of text", "link", *WAYS)
    work = table(
        "Draft rows and target passes, for a token of text",
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
        f"{summary['texts']} texts of {summary['tokens']} tokens on each link. The "
        "rounds are those of the length and setting that are fastest by their law; for "
        "hints and the planner nothing was chosen. gain: hints' speed over the better "
        "one of rounds and the cloud alone; of best: the planner's over the fastest "
        "way's. The machine was late "
        f"{late['median']:.1%} of a text's seconds (median), {late['most']:.0%} at "
        "most."
    )


def chart(summary: dict[str, Any]) -> list[Panel]:
    """Show the real system's speeds, and what formats cost and give."""
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
        Panel("Tokens a second in the real system", speeds),
        Panel(title, formats, "bits of a drafted token", log="x"),
    ]
