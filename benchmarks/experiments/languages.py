"""Acceptance and bits by language, without and with the built-in prior.

Gemma 3 goes on with beginnings of texts in nine languages and in code; SmolLM2 answers
in English and in code. No prior was fitted to the prompts. Each text is replayed in
rounds of real packets: the acceptances have their true law (see ``speculate.py``).
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

import sqs_codec as sqs
from benchmarks.charts import Panel, Point
from benchmarks.experiments.estimate import ratio
from benchmarks.experiments.experiment import NAMES, Options, Records, grouped
from benchmarks.experiments.models import GEMMA3, GIVEN, SMOLLM2, load
from benchmarks.experiments.speculate import Edge, Round, draw, read_rows, replay
from benchmarks.experiments.traces import traces
from benchmarks.rate.languages import KEEP, RESOLUTION
from benchmarks.rate.schemes import Row, codec, paper_bits
from benchmarks.tables import dim, table

TITLE = "Languages, without and with a prior"
ALONE = False

TEMPERATURE = 0.7
LENGTH = 4
"""Of a round."""

EACH = 12
"""Texts of a kind at most: English has a few more."""

LANGUAGES = {"ar": "Arabic", "de": "German", "en": "English", "es": "Spanish"}
LANGUAGES |= {"fr": "French", "hi": "Hindi", "ja": "Japanese", "ru": "Russian"}
LANGUAGES |= {"zh": "Chinese"}

WAYS = {"no_prior": "without", "prior": "with"}

KINDS = {SMOLLM2: {"code": "code", "continue": "texts"}}
"""Names for kinds of prompts; SmolLM2's others are requests in English."""

Floats = NDArray[np.float64]


def places(options: Options) -> list[tuple[str, float]]:
    """Return the models and temperatures whose texts are read."""
    # In miniature only the one that knows languages.
    names = options.models[-1:] if options.quick else options.models
    return [(name, TEMPERATURE) for name in names]


def measure(options: Options, name: str, temperature: float) -> Records:
    """Measure each text of a target."""
    models = load(options, name)
    codecs = {
        "no_prior": codec(models.vocab_size, RESOLUTION, "entropy"),
        "prior": codec(models.vocab_size, RESOLUTION, "entropy", models.prior),
    }
    found = []
    seen: dict[str, int] = defaultdict(int)
    for trace in traces(options, name, temperature):
        seen[trace.kind] += 1
        if seen[trace.kind] > EACH:
            continue
        rows, draws = read_rows(trace, temperature), draw(options.seed, trace)
        rounds = list(replay(Edge(KEEP, RESOLUTION, LENGTH), rows, trace.tokens, draws))
        record: dict[str, Any] = {"model": name, "kind": _kind(name, trace.kind)}
        record |= _verdicts(rounds)
        found.append(record | _distributions(rows, codecs))
    return found


def _kind(name: str, kind: str) -> str:
    return KINDS.get(name, {}).get(kind, "en" if name == SMOLLM2 else kind)


def _verdicts(rounds: Sequence[Round]) -> dict[str, int]:
    """Return how often a text was judged, and resampled."""
    return {
        "judged": sum(len(round_.judged) for round_ in rounds),
        "resampled": sum(round_.rejected for round_ in rounds),
    }


def _distributions(
    rows: Sequence[Row], codecs: dict[str, sqs.Codec]
) -> dict[str, float]:
    """Return sums over positions, each distribution in a packet of its own."""
    keep = sqs.Conformal()
    sums: dict[str, float] = defaultdict(float)
    for row in rows:
        top_k, conformal = (row.send(rule, RESOLUTION) for rule in (KEEP, keep))
        v = row.q.size
        keep.update(row.dropped_mass(conformal.kept))
        sums["rows"] += 1
        sums["acceptance"] += top_k.loss.acceptance
        sums["c_acceptance"] += conformal.loss.acceptance
        sums["k_formula"] += paper_bits(v, top_k.kept, RESOLUTION, False)
        sums["c_formula"] += paper_bits(v, conformal.kept, RESOLUTION, True)
        for way, one in codecs.items():
            sums[f"single_{way}"] += one.bits(top_k.q)
            sums[f"c_single_{way}"] += one.bits(conformal.q)
    return sums


OVER = {
    "acceptance": "rows",
    "c_acceptance": "rows",
    "resampled": "judged",
    "k_formula": "rows",
    "c_formula": "rows",
    **{f"{what}_{way}": "rows" for what in ("single", "c_single") for way in WAYS},
}
"""What each figure is a mean over."""


def summary(records: Records, options: Options) -> dict[str, Any]:
    """Return figures by model and kind."""
    kinds = dict(grouped(records, "model", "kind"))
    order = (GEMMA3, SMOLLM2, GIVEN)
    found = []
    for model, kind in sorted(kinds, key=lambda key: (order.index(key[0]), key[1])):
        texts = kinds[model, kind]
        sums = {
            what: np.array([text[what] for text in texts], np.float64)
            for what in {*OVER, *OVER.values()}
        }
        one = {"model": model, "kind": kind, "texts": len(texts)}
        one["positions"] = int(sums["rows"].sum())
        one |= {x: ratio(sums[x], sums[by]).as_json() for x, by in OVER.items()}
        with_prior, without = (sums[f"single_{w}"] for w in ("prior", "no_prior"))
        one["single_ratio"] = ratio(with_prior, without).as_json()
        one["formula_ratio"] = ratio(sums["single_prior"], sums["k_formula"]).as_json()
        found.append(one)
    return {"kinds": found}


def tables(summary: dict[str, Any]) -> list[Table | Text]:
    """Return what is sent, and what a prior saves."""
    drafts = table(
        f"T = {TEMPERATURE:g}, rounds of {LENGTH}: bits by the formulas",
        *("", "texts", "accepted", "", "resam-\npled", "K-SQS"),
        *("C-SQS", "acc.", "coded"),
    )
    bits = table(
        "Bits of a distribution, top-64, entropy coding",
        *("", "no prior", "prior", "ratio", "prior / K-SQS"),
    )
    model = ""
    for one in summary["kinds"]:
        if model != (model := one["model"]):
            for made in (drafts, bits):
                made.add_row(model, style="bold")
        drafts.add_row(one["kind"], *_draft_columns(one))
        bits.add_row(one["kind"], *_bits_columns(one))
    explained = (
        "Intervals of 95 % over texts. C-SQS: the conformal rule as by default, anew "
        "for each text; how much is accepted, and what the entropy coding with the "
        "prior takes."
    )
    return [drafts, bits, dim(explained)]


def _draft_columns(one: dict[str, Any]) -> list[str]:
    return [
        str(one["texts"]),
        f"{one['acceptance']['value']:.3f}",
        _interval(one["acceptance"]),
        f"{one['resampled']['value']:.3f}",
        f"{one['k_formula']['value']:.0f}",
        f"{one['c_formula']['value']:.0f}",
        f"{one['c_acceptance']['value']:.3f}",
        f"{one['c_single_prior']['value']:.0f}",
    ]


def _bits_columns(one: dict[str, Any]) -> list[str]:
    both = [f"{one[f'single_{way}']['value']:.0f}" for way in WAYS]
    return [*both, _interval(one["single_ratio"]), _interval(one["formula_ratio"])]


def _interval(estimate: dict[str, float]) -> str:
    return f"{estimate['low']:.2f} to {estimate['high']:.2f}"


def chart(summary: dict[str, Any]) -> list[Panel]:
    """Show what a prior saves in each language."""
    series: dict[str, list[Point]] = {"without a prior": [], "with it": []}
    for one in summary["kinds"]:
        name = f"{NAMES[one['model']]}, {LANGUAGES.get(one['kind'], one['kind'])}"
        for way, points in zip(WAYS, series.values(), strict=True):
            points.append((name, one[f"single_{way}"]["value"]))
    return [Panel("Bits of a distribution", series)]
