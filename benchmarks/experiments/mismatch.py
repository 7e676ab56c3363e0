"""What a worse or better draft does to acceptance, bits and the best draft length.

Drafts of one target: itself; itself with weights rounded to some bits; itself without
layers; and a bigram table, counted from what the target wrote after other prompts. All
of them read the target's own texts, once.

How long a text takes follows from how probable it is that each token was accepted.
Given the text, the acceptances of its positions are independent, so that the rounds
which begin at each position can be counted exactly, without drawing anything. A round
takes its drafts, its bits, a round trip and the target's step.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

import sqs_codec as sqs
from benchmarks.charts import Panel, estimated
from benchmarks.data.make_corpus import read_texts
from benchmarks.experiments.estimate import ratio, shown
from benchmarks.experiments.experiment import NAMES, Options, Records, grouped
from benchmarks.experiments.models import (
    DROP_ORDERS,
    GEMMA3,
    GIVEN,
    SMOLLM2,
    Models,
    Prompt,
    load,
)
from benchmarks.experiments.traces import Trace, traces, write
from benchmarks.harness.recorded import STEPS, Steps
from benchmarks.rate.schemes import SAME, Row, codec
from benchmarks.tables import dim, table
from sqs_codec.system.edge._costs import LENGTHS
from sqs_codec.system.hf import CachedModel
from sqs_codec.system.hf._models import HFModel
from sqs_codec.system.serve._datagram.link import DatagramLink
from sqs_codec.system.session._wire import ROUND_HEAD

TITLE = "Drafts from the target itself to a bigram table"
ALONE = False

ITSELF, BIGRAM = "itself", "bigram"
BITS, QUICK_BITS = (12, 8, 5), (8,)
"""Of rounded weights: the mismatch grows nearly twofold with each bit less."""

LAYERS, QUICK_LAYERS = (1, 2, 3, 4, 6, 8, 10, 12), (1, 4)
"""How many a draft does without, as far as it is known which."""

PROMPTS = {SMOLLM2: 16, GEMMA3: 12, GIVEN: 16}
QUICK_PROMPTS = 4
BEGINNINGS = 64
"""Texts that the bigram table is counted from."""


class Uplink(NamedTuple):
    """A link: bits per second and seconds of a round trip."""

    rate: float
    trip: float

    @property
    def asked(self) -> float:
        """Seconds that a message without drafts and its answer are on the way."""
        return self.trip + 8 * (ROUND_HEAD + DatagramLink.overhead) / self.rate

    def __str__(self) -> str:
        unit, name = (1e6, "Mbit/s") if self.rate >= 1e6 else (1e3, "kbit/s")
        return f"{self.rate / unit:g} {name}, {1000 * self.trip:g} ms"


UPLINKS = (Uplink(1e4, 0.1), Uplink(1e5, 0.05), Uplink(1e7, 0.02))
"""A radio link of few bits, a poor mobile link, a good access network."""

NEAR = 0.03
"""Lengths that give so much less than the best one are as good."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bigram:
    """A draft that looks at one token, smoothed by the method of Witten and Bell.

    What follows a token is counted as if unknown tokens had followed it as often as
    there are different ones among the known, by the frequency of each; and so is the
    frequency, with all tokens alike.

    >>> bigram = Bigram.of([[0, 1, 0, 1, 0, 2]], 4)
    >>> bigram.probs(0).round(3).tolist()
    [0.167, 0.522, 0.278, 0.033]
    """

    follows: dict[int, Counter[int]]
    """How often tokens followed a token."""
    singles: Floats
    """[V]: probabilities of tokens."""

    @classmethod
    def of(cls, texts: Iterable[Sequence[int]], vocab_size: int) -> Bigram:
        """Count the tokens of texts."""
        counts = np.zeros(vocab_size)
        follows: dict[int, Counter[int]] = {}
        for text in texts:
            np.add.at(counts, list(text), 1)
            for first, second in itertools.pairwise(text):
                follows.setdefault(first, Counter())[second] += 1
        kinds = np.count_nonzero(counts)
        singles = (counts + kinds / vocab_size) / (counts.sum() + kinds)
        return cls(follows, singles)

    @property
    def pairs(self) -> int:
        """How many different ones were counted."""
        return sum(map(len, self.follows.values()))

    def probs(self, token: int) -> Floats:
        """Return the probabilities of what follows a token, [V]."""
        seen = self.follows.get(token, Counter())
        if not seen:
            return self.singles
        found = len(seen) * self.singles
        found[list(seen)] += list(seen.values())
        return np.asarray(found / (len(seen) + seen.total()))

    def logits(self, tokens: Sequence[int], temperature: float) -> NDArray[np.float32]:
        """Return them after each token [n, V], of texts written at a temperature."""
        probs = np.array([self.probs(token) for token in tokens])
        return (temperature * np.log(probs)).astype(np.float32)


def rounded(model: HFModel, bits: int) -> HFModel:
    """Return a model whose matrices are rounded to integers of some bits, row by row.

    Embeddings aren't, and are shared with the model.
    """
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    shared = {id(end.weight): end.weight for end in ends}
    coarse = copy.deepcopy(model, dict(shared))
    largest = 2 ** (bits - 1) - 1
    with torch.no_grad():
        for parameter in coarse.parameters():
            if parameter.ndim == 2 and id(parameter) not in shared:
                step = parameter.abs().amax(1, keepdim=True).clamp(min=1e-12) / largest
                parameter.copy_((parameter / step).round() * step)
    return coarse


class Count(NamedTuple):
    """What a text takes by rounds of one length, on average."""

    rounds: float
    drafted: float
    bytes: float
    """Of messages, without what is around them."""

    def seconds(self, uplink: Uplink, steps: Steps) -> float:
        """Return what the text takes over a link."""
        message = 8 * DatagramLink.overhead / uplink.rate
        each = uplink.trip + message + steps.target
        drafting = self.drafted * (steps.draft + steps.more)
        return self.rounds * each + drafting + 8 * self.bytes / uplink.rate


def count(accepted: Floats, bits: Floats, length: int) -> Count:
    """Count the rounds in which a text comes about.

    Each of its tokens is drafted and accepted with a probability `accepted`, [n], and
    takes `bits`, [n]. A round has `length` drafts, or as many as the text's end has.

    >>> count(np.ones(6), np.full(6, 8.0), 2)
    Count(rounds=2.0, drafted=4.0, bytes=12.0)
    """
    n = len(accepted)
    begins = np.zeros(n + 1)  # how probable it is that a round begins at a position
    begins[0] = 1
    rounds = drafted = size = 0.0
    ends = np.concatenate([[0.0], bits.cumsum()])
    for i in range(n):
        here = min(length, n - 1 - i)
        rounds += begins[i]
        drafted += begins[i] * here
        size += begins[i] * (ROUND_HEAD + math.ceil((ends[i + here] - ends[i]) / 8))
        reached = begins[i] * np.cumprod([1.0, *accepted[i : i + here]])
        begins[i + 1 : i + 1 + here] += reached[:-1] - reached[1:]
        begins[i + 1 + here] += reached[-1]
    return Count(float(rounds), float(drafted), float(size))


def places(options: Options) -> list[tuple[str, float]]:
    """Return the models and temperatures whose texts are read."""
    if options.quick:
        return [(options.model, 0.7)]
    return [
        (name, t)
        for name in options.models
        for t in ((0.7,) if name == GEMMA3 else (0.7, 1.0))
    ]


def measure(options: Options, name: str, temperature: float) -> Records:
    """Let all drafts read the texts of a target."""
    models = load(options, name)
    prompts = QUICK_PROMPTS if options.quick else PROMPTS[name]
    others = _others(options, models)
    layers = _layers(options, models)
    steps = _draft_steps(models, layers, others)
    bigram = Bigram.of(written(options, models, temperature), models.vocab_size)
    records = []
    for trace in traces(options, name, temperature, layers, prompts):
        for draft, logits in _rows(models, trace, others, bigram, temperature):
            cell = {"model": name, "temperature": temperature, "prompt": trace.prompt}
            named = {"draft": draft, "step": steps[draft]}
            pairs = zip(logits, trace.target, strict=True)
            rows = (Row(*pair, temperature) for pair in pairs)
            records.append(cell | named | judged(models, rows, trace.tokens))
    return records


def _layers(options: Options, models: Models) -> tuple[int, ...]:
    """Return the drafts that `traces` makes, by how many layers they do without."""
    if not models.dropped:
        return (0,)  # the given draft
    most = len(DROP_ORDERS[models.name])
    wanted = QUICK_LAYERS if options.quick else LAYERS
    return tuple(n for n in wanted if n <= most)


def _layers_name(dropped: int) -> str:
    if not dropped:
        return "the given draft"
    return f"without {dropped} layer{'s' * (dropped > 1)}"


def _others(options: Options, models: Models) -> dict[str, HFModel]:
    """Return the target with rounded weights; one alone if it may be a large one."""
    few = options.quick or not models.dropped
    return {
        f"{bits} bits": rounded(models.pair.target, bits)
        for bits in (QUICK_BITS if few else BITS)
    }


def _draft_steps(
    models: Models, layers: Sequence[int], others: dict[str, HFModel]
) -> dict[str, float]:
    """Return seconds for a drafted token, as a share of what the pair's draft takes.

    To decode is to read the weights, so the share is that of the weights. A bigram
    table takes nothing; a rounded model as much as the whole one, as it is here for
    its mismatch only.
    """
    drafts = {_layers_name(n): models.draft(n) for n in layers}
    drafts |= {ITSELF: models.pair.target, **others}
    whole = weights(models.pair.draft)
    drafting = STEPS["slow"].draft
    steps = {name: drafting * weights(m) / whole for name, m in drafts.items()}
    return steps | {BIGRAM: 0.0}


def weights(model: HFModel) -> int:
    """Return how many parameters a model has."""
    return sum(parameter.numel() for parameter in model.parameters())


def written(
    options: Options, models: Models, temperature: float
) -> Iterator[list[int]]:
    """Yield texts, with what they begin with: prompts that nothing is measured on."""
    kinds = read_texts(held_out=False)
    asked = kinds.pop("chat")
    tokenizer = models.pair.tokenizer
    if models.name == GEMMA3:
        begin = [tokenizer.bos_token_id]
        beginnings = [
            (*begin, *tokenizer(text, add_special_tokens=False)["input_ids"])
            for texts in kinds.values()
            for text in texts
        ]
    else:
        texts = (*asked, *kinds["en"], *kinds["code"])
        beginnings = [tuple(models.pair.encode(text)) for text in texts]
    rng = np.random.default_rng([options.seed, 0])
    chosen = rng.permutation(len(beginnings))[:BEGINNINGS]
    prompts = tuple(Prompt("", beginnings[i]) for i in chosen)
    # By other numbers than the texts that are measured, or these would be alike.
    other = replace(options, seed=options.seed + 1)
    found = write(replace(models, prompts=prompts), temperature, other)
    for prompt, tokens in zip(prompts, found, strict=False):
        yield [*prompt.tokens, *tokens]


def _rows(
    models: Models,
    trace: Trace,
    others: dict[str, HFModel],
    bigram: Bigram,
    temperature: float,
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield the logits of each draft, [n, V]."""
    text = [*models.prompts[trace.prompt].tokens, *trace.tokens[:-1]]
    yield ITSELF, trace.target
    for dropped, logits in trace.drafts.items():
        yield _layers_name(dropped), logits
    for name, model in others.items():
        yield name, CachedModel(model, models.vocab_size).logits(text, len(trace))
    yield BIGRAM, bigram.logits(text[-len(trace) :], temperature)


def judged(
    models: Models, rows: Iterable[Row], tokens: Sequence[int]
) -> dict[str, Any]:
    """Return sums over a text, and what it takes by rounds of each length."""
    one = codec(models.vocab_size, SAME.resolution or 0, "entropy", models.prior)
    keep = SAME.keep or sqs.TopK(models.vocab_size)
    found = []
    for row, token in zip(rows, tokens, strict=True):
        sent = row.send(keep, one.resolution)
        # The token takes the entropy of what it is drawn from, on average.
        drawn = -float(sent.q.probs @ np.log2(sent.q.probs))
        here = float(min(1.0, sent.q.prob(token) / row.p[token]))
        found.append(
            (row.mismatch, sent.loss.acceptance, one.bits(sent.q), here, drawn)
        )
    tv, acceptance, bits, accepted, drawn = np.array(found).T
    return {
        "rows": len(tokens),
        "tv": tv.sum(),
        "acceptance": acceptance.sum(),
        "bits": bits.sum(),
        "counts": [list(count(accepted, bits + drawn, n)) for n in LENGTHS],
    }


def summary(records: Records, options: Options) -> dict[str, Any]:
    """Return what each draft comes to, by models and temperature."""
    cells = []
    for (name, temperature), of_cell in grouped(records, "model", "temperature"):
        drafts = grouped(of_cell, "draft")
        found = [_draft(draft, of_draft) for (draft,), of_draft in drafts]
        found.sort(key=lambda draft: draft["tv"]["value"])
        cells.append(
            {
                "model": name,
                "temperature": temperature,
                "prompts": len(drafts[0][1]),
                "drafts": found,
                "orders": _orders([draft["tv"]["value"] for draft in found]),
            }
        )
    return {"cells": cells}


def _orders(mismatches: Sequence[float]) -> float:
    """Return the powers of ten from the least mismatch to the largest.

    Less than 1e-5 is rounding: itself.
    """
    seen = [tv for tv in mismatches if tv > 1e-5]
    return math.log10(max(seen) / min(seen))


def _draft(name: str, records: Records) -> dict[str, Any]:
    rows = np.array([record["rows"] for record in records])
    found: dict[str, Any] = {"draft": name, "step": records[0]["step"]}
    for what in ("tv", "acceptance", "bits"):
        found[what] = ratio([record[what] for record in records], rows).as_json()
    found["best"] = [
        {"cloud": cloud, "uplink": str(uplink)} | fastest(records, rows, uplink, steps)
        for cloud, steps in STEPS.items()
        for uplink in UPLINKS
    ]
    return found


def fastest(
    records: Records, rows: Floats, uplink: Uplink, steps: Steps
) -> dict[str, Any]:
    """Return the length that gives the most tokens per second; 0 is no draft."""
    steps = steps._replace(draft=records[0]["step"])
    seconds = {0: uplink.asked + rows * steps.target}
    for length, counts in zip(
        LENGTHS, zip(*(r["counts"] for r in records), strict=True), strict=True
    ):
        seconds[length] = np.array([Count(*c).seconds(uplink, steps) for c in counts])
    rates = {length: rows.sum() / taken.sum() for length, taken in seconds.items()}
    best = max(rates, key=rates.__getitem__)
    near = [n for n, rate in rates.items() if rate >= (1 - NEAR) * rates[best]]
    return {
        "length": best,
        "near": [min(near), max(near)],
        "speed": ratio(rows, seconds[best]).as_json(),
        "alone": float(rates[0]),
    }


def tables(summary: dict[str, Any]) -> list[Table | Text]:
    """Return two tables for each cell."""
    made: list[Table | Text] = []
    for cell in summary["cells"]:
        title = f"{cell['model']}, T = {cell['temperature']:g}"
        of_drafts = table(
            f"{title}: {cell['prompts']} texts, mismatch over {cell['orders']:.1f} "
            "orders of magnitude",
            *("", "TV(p, q)", "accepted", "bits", "ms"),
        )
        for draft in cell["drafts"]:
            of_drafts.add_row(draft["draft"], *_columns(draft))
        made += [of_drafts, *(_speeds(cell, title, cloud) for cloud in STEPS)]
    made.append(
        dim(
            "With top-64 of l = 100; intervals of 95 % over texts. Length of a round "
            "and tokens per second at the length that gives the most, beside those "
            f"that give at most {100 * NEAR:.0f} % less; 0 means that the cloud alone "
            "is faster. Steps are stated, not measured: 15 ms for a token of the "
            "pair's draft, others by their weights (ms); the target takes 30 ms "
            "(fast) or 120 ms (slow) for a token, and 5 % of that for each more."
        )
    )
    return made


def _columns(draft: dict[str, Any]) -> list[str]:
    return [
        f"{draft['tv']['value']:.4f}",
        shown(draft["acceptance"], ".3f"),
        shown(draft["bits"], ".0f"),
        f"{1000 * draft['step']:.1f}",
    ]


def _speeds(cell: dict[str, Any], title: str, cloud: str) -> Table:
    made = table(f"{title}, {cloud} cloud: best length: tokens per second", "")
    for uplink in UPLINKS:
        made.add_column(f"{uplink}", justify="right", no_wrap=True)
    for draft in cell["drafts"]:
        best = [one for one in draft["best"] if one["cloud"] == cloud]
        made.add_row(draft["draft"], *map(_speed, best))
    made.add_row("the cloud alone", *(f"{one['alone']:.1f}" for one in best))
    return made


def _speed(best: dict[str, Any]) -> str:
    low, high = best["near"]
    near = f"({low} to {high}) " if low < high else ""
    return f"{near}{best['length']}: {best['speed']['value']:.1f}"


def chart(summary: dict[str, Any]) -> list[Panel]:
    """Show what a worse draft costs and gives, in the first cell and its slow cloud."""
    cell = summary["cells"][0]
    bits = [estimated(draft["tv"]["value"], draft["bits"]) for draft in cell["drafts"]]
    speeds = {
        str(uplink): [
            (draft["tv"]["value"], best["speed"]["value"])
            for draft in cell["drafts"]
            for best in draft["best"]
            if (best["cloud"], best["uplink"]) == ("slow", str(uplink))
        ]
        for uplink in UPLINKS
    }
    mismatch = "TV between draft and target"
    return [
        Panel(f"Bits of a distribution, {NAMES[cell['model']]}", {"": bits}, mismatch),
        Panel("Tokens a second at the best length", speeds, mismatch),
    ]
