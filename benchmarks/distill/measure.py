"""Bytes, errors and bias of stored distributions, by model and kind of text."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from benchmarks.data.make_corpus import read_texts
from benchmarks.distill.schemes import FIXED, UNBIASED, Array, Rows, Scheme
from benchmarks.distill.teachers import Size, read, softmax, write_texts
from benchmarks.experiments.experiment import Options
from benchmarks.experiments.models import CONTINUE, GEMMA3, SMOLLM2, load
from benchmarks.tables import dim, table

KINDS = {SMOLLM2: ("en", "code"), GEMMA3: ("en", "zh")}
ROUNDINGS = 8
HEADS = {SMOLLM2: "SmolLM2", GEMMA3: "Gemma 3"}

Record = dict[str, Any]


def measure(options: Options, name: str, size: Size) -> list[Record]:
    """Measure all storage schemes on a teacher's distributions, by kind of text."""
    models, rng, found = load(options, name), np.random.default_rng(0), []
    kinds: dict[str, list[list[int]]] = defaultdict(list)
    for prompt in models.prompts:
        other = "en" if name == SMOLLM2 and prompt.kind != "code" else prompt.kind
        kinds[other].append([*prompt.tokens])
    if name == SMOLLM2:  # only five of its prompts are code
        more = read_texts(held_out=True)["code"]
        kinds["code"] += [models.pair.encode(CONTINUE.format(text)) for text in more]
    for kind in KINDS[name]:
        prompts = kinds[kind][: size.texts_of_a_kind]
        texts = write_texts(models.pair, prompts, size.tokens)
        rows_of = [read(models.pair, text) for text in texts]
        lengths = [len(text) for text in rows_of]
        logits = np.concatenate(rows_of)
        rows = Rows(logits, softmax(logits).astype(np.float32), lengths, models.prior)
        for scheme, keep in (FIXED | UNBIASED).items():
            record = {"model": name, "kind": kind, "scheme": scheme, "rows": lengths}
            found.append(record | score(rows, keep, scheme in UNBIASED, rng))
    return found


def score(
    rows: Rows, keep: Scheme, is_random: bool, rng: np.random.Generator
) -> Record:
    """Return bytes and squared errors per text, and the mean squared bias of rows.

    The error of a deterministic scheme is its bias. For a random one, let d_1 ... d_n
    be n roundings minus the row. The mean product of two different ones estimates the
    squared bias without bias, so it may be negative.
    """
    n = ROUNDINGS if is_random else 1
    taken, kept = zip(*(keep(rows, rng) for _ in range(n)), strict=True)
    errors, biases, sums = [], [], []
    for probs, *found in zip(rows.probs, *kept, strict=True):
        squares = [distance(probs, ids, weights) for ids, weights in found]
        all_ids, weights = map(np.concatenate, zip(*found, strict=True))
        ids, at = np.unique(all_ids, return_inverse=True)
        mean = np.bincount(at, weights) / n
        of_mean = distance(probs, ids, mean)
        errors.append(np.mean(squares))
        biases.append((n * of_mean - errors[-1]) / (n - 1) if is_random else of_mean)
        sums.append(mean.sum())
    return {
        "bytes": {
            way: np.mean([one[way] for one in taken], 0).tolist() for way in taken[0]
        },
        "errors": [float(np.sum(text)) for text in rows.texts(errors)],
        "bias": float(np.mean(biases)),
        "bias_variance": float(np.var(biases)) / len(biases),
        "sum": float(np.mean(sums)),
        "largest": float(np.max(sums)),
    }


def distance(probs: Array, ids: Array, weights: Array) -> float:
    """Return the squared distance of a row and its stored form.

    A tail is distributed evenly over the tokens that aren't listed.
    """
    listed = ids < len(probs)
    own, tail = probs[ids[listed]].astype(np.float64), weights[~listed].sum()
    rest = max(0.0, float(probs @ probs) - float(own @ own))
    shared = tail * (2 * (1 - own.sum()) - tail) / max(1, len(probs) - len(own))
    return float(((weights[listed] - own) ** 2).sum() + rest - shared)


def half_width(values: Array) -> float:
    """Return half the 95 % interval of a mean, with Student's t."""
    n = len(values)  # Abramowitz and Stegun, 26.7.5
    wider = np.polyval([1.304, 1.44, 1.21, 1], 1 / (n - 1))
    return float(1.96 * wider * values.std(ddof=1) / math.sqrt(n))


def ratio(sums: Sequence[float], sizes: Sequence[int]) -> tuple[float, float]:
    """Return a mean over rows, and half its interval over texts."""
    own, n = np.array(sums), np.array(sizes)
    mean = own.sum() / n.sum()
    return float(mean), half_width((own - mean * n) / n.mean())


def tables(records: list[Record]) -> list[Table | Text]:
    """Return the tables of bytes, errors and biases."""
    places = list(dict.fromkeys((one["model"], one["kind"]) for one in records))
    heads = [f"{HEADS[model]}\n{kind}" for model, kind in places]
    taken = table("Bytes per token, T = 1", "", *heads)
    errors = table("Error, T = 1", "", *heads)
    bias = table(
        "Bias in % of the squared error, +- 2 standard errors; sum of probabilities",
        *("", "bias", "mean sum", "largest"),
    )
    for scheme in FIXED | UNBIASED:
        ones = [one for one in records if one["scheme"] == scheme]
        for way in ones[0]["bytes"]:
            found = [ratio(one["bytes"][way], one["rows"]) for one in ones]
            label = f"  {way}" if way else scheme
            taken.add_row(label, *(f"{x:.1f} ± {half:.1f}" for x, half in found))
        squares = [ratio(one["errors"], one["rows"]) for one in ones]
        roots = [(math.sqrt(x), half / 2 / math.sqrt(x)) for x, half in squares]
        errors.add_row(scheme, *(f"{x:.3f} ± {half:.3f}" for x, half in roots))
        error = sum(x for x, _ in squares)
        share = 100 * sum(one["bias"] for one in ones) / error
        spread = 200 * math.sqrt(sum(one["bias_variance"] for one in ones)) / error
        shown = f"{share:.1f} +- {spread:.1f}" if scheme in UNBIASED else "100"
        mean = np.mean([one["sum"] for one in ones])
        largest = max(one["largest"] for one in ones)
        bias.add_row(scheme, shown, f"{mean:.3f}", f"{largest:.3f}")
    said = "; ".join(
        f"{model}, {kind}: {sum(one['rows'])} rows of {len(one['rows'])} texts"
        for (model, kind), one in zip(
            places, records[:: len(FIXED | UNBIASED)], strict=True
        )
    )
    return [taken, errors, bias, dim(f"{EXPLAINED} {said}.")]


EXPLAINED = (
    "Error: root of the mean of |b - q|^2 over the rows; a tail is distributed evenly. "
    "Intervals of 95 % over texts. "
    f"Bias: the bias of b's mean over roundings, from products of {ROUNDINGS} per row; "
    "the error of deterministic schemes is all bias. The model generated the texts at "
    "T = 1, from prompts to which no prior was fitted."
)
