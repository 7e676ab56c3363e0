"""Bytes, errors and bias of stored distributions, by model and kind of text."""

import math
from collections import defaultdict
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from benchmarks.distill.schemes import FIXED, UNBIASED, Array, Rows, Scheme
from benchmarks.distill.teachers import Size, read, softmax, write_texts
from benchmarks.experiments.experiment import Options
from benchmarks.experiments.models import GEMMA3, SMOLLM2, load
from benchmarks.tables import dim, table

TEMPERATURES = (1.0, 0.7)
KINDS = ("en", "de", "ru", "zh", "code")
ROUNDINGS = 8
HEADS = {SMOLLM2: "Smol-\nLM2", GEMMA3: "Gem-\nma 3"}

Record = dict[str, Any]


def measure(options: Options, name: str, size: Size) -> list[Record]:
    """Measure all that is kept of a teacher's distributions, by kinds of its texts."""
    models, rng, found = load(options, name), np.random.default_rng(0), []
    kinds: dict[str, list[list[int]]] = defaultdict(list)
    for prompt in models.prompts:
        other = "en" if name == SMOLLM2 else ""
        kinds[prompt.kind if prompt.kind in KINDS else other].append(prompt.tokens)
    for kind in filter(kinds.get, KINDS):
        prompts = [list(tokens) for tokens in kinds[kind][: size.texts_of_a_kind]]
        texts = write_texts(models.pair, prompts, size.tokens)
        read_texts = [read(models.pair, text) for text in texts]
        lengths = [len(text) for text in read_texts]
        for temperature in TEMPERATURES:
            logits = np.concatenate(read_texts) / np.float32(temperature)
            probs = softmax(logits).astype(np.float32)
            rows = Rows(logits, probs, lengths, models.prior)
            for scheme, keep in (FIXED | UNBIASED).items():
                record = {"model": name, "kind": kind, "temperature": temperature}
                record |= {"scheme": scheme, "rows": len(logits)}
                found.append(record | score(rows, keep, scheme in UNBIASED, rng))
    return found


def score(
    rows: Rows, keep: Scheme, is_random: bool, rng: np.random.Generator
) -> Record:
    """Return bytes a token, and means over rows of squared errors and squared biases.

    Of deterministic ways these are the same. Of n roundings d_1 ... d_n of a row, less
    the row, the mean of the products of two different ones estimates the squared length
    of the mean rounding less the row, and is unbiased itself: it may be negative.
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
            way: sum(one[way] for one in taken) / n / len(errors) for way in taken[0]
        },
        "error": float(np.mean(errors)),
        "bias": float(np.mean(biases)),
        "bias_variance": float(np.var(biases)) / len(biases),
        "sum": float(np.mean(sums)),
        "largest": float(np.max(sums)),
    }


def distance(probs: Array, ids: Array, weights: Array) -> float:
    """Return the squared distance of a row and what came back of it."""
    own = probs[ids[ids < len(probs)]].astype(np.float64)
    if len(own) == len(ids):
        rest = max(0.0, float(probs @ probs) - float(own @ own))
    else:
        own, rest = np.append(own, 1 - own.sum()), 0.0
    return float(((weights - own) ** 2).sum()) + rest


def tables(records: list[Record]) -> list[Table | Text]:
    """Return bytes and errors by temperature, and then what is biased."""
    made: list[Table | Text] = []
    for temperature in TEMPERATURES:
        of = [one for one in records if one["temperature"] == temperature]
        places = list(dict.fromkeys((one["model"], one["kind"]) for one in of))
        heads = [f"{HEADS[model]}\n{kind}" for model, kind in places]
        taken = table(f"Bytes a token, T = {temperature:g}", "", *heads)
        errors = table(f"Error, T = {temperature:g}", "", *heads)
        for scheme in FIXED | UNBIASED:
            ones = [one for one in of if one["scheme"] == scheme]
            for way in ones[0]["bytes"]:
                label = f"  {way}" if way.startswith(("in", "zstd")) else scheme
                taken.add_row(label, *(f"{one['bytes'][way]:.1f}" for one in ones))
            errors.add_row(scheme, *(f"{math.sqrt(one['error']):.3f}" for one in ones))
        made += [taken, errors]
    return [*made, _bias(records), dim(EXPLAINED)]


def _bias(records: list[Record]) -> Table:
    heads = [f"T = {temperature:g}" for temperature in TEMPERATURES]
    made = table(
        "Bias in % of the squared error, +- 2 standard errors; sum of what comes back",
        *("", *heads, "mean sum", "largest"),
    )
    for scheme in FIXED | UNBIASED:
        ones = [one for one in records if one["scheme"] == scheme]
        shares = []
        for temperature in TEMPERATURES:
            of = [one for one in ones if one["temperature"] == temperature]
            error = sum(one["error"] for one in of)
            share = sum(one["bias"] for one in of) / error
            spread = 2 * math.sqrt(sum(one["bias_variance"] for one in of)) / error
            one = f"{100 * share:.1f} +- {100 * spread:.1f}"
            shares.append(one if scheme in UNBIASED else "100")
        mean = np.mean([one["sum"] for one in ones])
        largest = max(one["largest"] for one in ones)
        made.add_row(scheme, *shares, f"{mean:.3f}", f"{largest:.3f}")
    return made


EXPLAINED = (
    "Error: root of the mean of |b - q|^2 over the rows; with the tail, of 65 buckets. "
    f"Bias: that of the mean of b over roundings, from products of {ROUNDINGS} of "
    "each row; what is rounded in one way only is all bias. Rows are of texts that the "
    "model wrote at T = 1 after prompts that no prior was fitted to."
)
