"""How priors are fitted: to the counts of tokens in a text, and to drafts.

A draft says which ids were likely in one context, and so which ids go together. Those
of a word's beginning do, those of its middle, punctuation, the words of a language.
Contexts are put into classes, each with a table of probabilities, such that the
supports are as likely as possible under the best class of each: the classes are
assigned with the tables, the tables are counted with the assignment, and so on
(Lloyd's algorithm, with log-likelihood in place of distance). Then the ids are put
into 256 kinds in the same way, as a prior has a byte for each id.

Tables are smoothed with probabilities of a more general kind: those of a class with
those on the whole, and these with the mean of the neighbours of an id. How much is
chosen on drafts, or tokens, that the tables were not counted on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sqs_codec._base.prior_file import CODE_WEIGHTS, KINDS, MOST_WEIGHT, Tables

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


CLASSES = (1, 8, 16, 32)
"""How many are tried, unless the caller says."""

SMOOTHING = (300, 1000, 3000, 10_000)
"""Occurrences of the whole that are added to those of a class."""

TEXT_SHARES = (0.0, 0.03, 0.1, 0.3, 0.9)
"""What part of the occurrences on the whole is that of the text, if there are both."""

HELD_OUT = 5
"""Of so many runs of consecutive supports one is held out to choose the smoothing."""

FEW = 50
"""Below so many supports each part in turn is held out to choose the text's share: one
part has less than ten, whose bits differ by chance more than shares do."""

LONGEST_RUN = 1000
"""Texts that are given at several temperatures should fit into a run several times."""

FREQUENT = 800
"""Ids by which the first classes are found."""

SAMPLE = 12_000
"""Supports that the first classes are found among."""

ROUNDS = 12
"""Of assigning and counting; more change nothing that can be measured."""

KIND_ROUNDS, MOVING_ROUNDS, MOVED_KINDS = 20, 14, 12
"""Of assigning kinds; in how many of these, and how many at a time, kinds move."""

FOLLOWING = 30
"""Supports by which the chances after a class are drawn to those on the whole."""

SEED = 20_251_009


# Weights as a file has them.


EDGES = np.sqrt(CODE_WEIGHTS[1:] * CODE_WEIGHTS[:-1].astype(np.float64))
"""Between weights, so that each is nearest in proportion."""


def encode_weights(probs: Floats, ids: Ints) -> NDArray[np.uint8]:
    """Return codes of weights for kinds of ids; `ids` says how many each kind has."""
    scale = MOST_WEIGHT / float(probs @ ids)
    while True:
        codes = np.searchsorted(EDGES, probs * scale, side="right").astype(np.uint8)
        if int(CODE_WEIGHTS[codes] @ ids) <= MOST_WEIGHT:
            return codes
        scale *= 0.98  # rounding has made them a little too large together


# Counts of a text.


def neighbours(counts: Floats) -> Floats:
    """Return the mean probability of ids near each, by half octaves."""
    # Where pairs were merged by frequency, a low id is a frequent token.
    size = counts.size
    edges = np.array([0, *(e << b for b in range(4, 20) for e in (2, 3))])
    starts = edges[edges < size]
    spans = np.diff(starts, append=size)
    parts = spans / np.diff(edges)[: starts.size]  # the last may be cut off
    means = (np.add.reduceat(counts, starts) + 0.5 * parts) / spans
    probs = np.repeat(means, spans)
    return np.asarray(probs / probs.sum())


def smooth_counts(counts: Floats) -> Floats:
    """Return probabilities with as much of `neighbours` as suits tokens held out."""
    near = neighbours(counts)
    total = counts.sum()
    seen = counts > 0
    n, b = counts[seen], near[seen]
    added = 10.0 ** np.arange(0, 7, 0.5)
    likelihood = [
        n @ np.log((np.maximum(n - 1, 0) + a * b) / (total - 1 + a)) if total > 1 else a
        for a in added
    ]
    best = added[int(np.argmax(likelihood))]
    return np.asarray((counts + best * near) / (total + best))


def one_class(probs: Floats) -> Tables:
    """Return the tables of one class, where an id has the kind of its code."""
    codes = encode_weights(probs, np.ones(probs.size, np.int64))
    identity = np.arange(KINDS, dtype=np.uint8)[None]
    return Tables(np.ones((2, 1), np.uint8), identity, codes)


# Supports.


class Supports:
    """Sets of ids one after the other, in the order in which they were drafted."""

    def __init__(self, supports: Iterable[NDArray[np.integer]]) -> None:
        arrays = [np.asarray(ids, np.int64) for ids in supports]
        self.arrays = arrays
        self.sizes = np.array([ids.size for ids in arrays], np.int64)
        self.ids = np.concatenate([*arrays, np.empty(0, np.int64)])
        self.starts = np.cumsum(self.sizes) - self.sizes

    def __len__(self) -> int:
        return len(self.arrays)

    def count(self, vocab_size: int) -> Floats:
        """Return how many supports each id is in, [V]."""
        return np.bincount(self.ids, minlength=vocab_size).astype(np.float64)

    def bits(self, table: Floats) -> Floats:
        """Return the bits of each support, [N], if its ids were drawn from a table."""
        return np.add.reduceat(-np.log2(table)[self.ids], self.starts)

    def split(self, part: int) -> tuple[Supports, Supports]:
        """Return those to count, and those of a part, which are held out."""
        run = max(1, min(LONGEST_RUN, len(self) // (5 * HELD_OUT)))
        out = np.arange(len(self)) // run % HELD_OUT == part
        return (
            Supports(self.arrays[i] for i in np.flatnonzero(~out)),
            Supports(self.arrays[i] for i in np.flatnonzero(out)),
        )


@dataclass
class Classes:
    """Classes of contexts."""

    tables: Floats  # [C, V], probabilities of ids; the first are those on the whole
    shares: Floats  # [C], how many of the contexts are of each

    def costs(self, supports: Supports) -> Floats:
        """Return the bits of each support in each class, [N, C]."""
        bits = [supports.bits(table) for table in self.tables]
        return np.stack(bits, 1) - np.log2(self.shares)


def first_classes(supports: Supports, classes: int, rng: np.random.Generator) -> Ints:
    """Return a class above 0 for each support, by spherical k-means of frequent ids."""
    counts = supports.count(int(supports.ids.max()) + 1)
    frequent = np.argsort(-counts)[:FREQUENT]
    column = np.full(counts.size, -1)
    column[frequent] = np.arange(frequent.size)
    row = np.repeat(np.arange(len(supports)), supports.sizes)
    at = column[supports.ids]
    points = np.zeros((len(supports), frequent.size), np.float32)
    points[row[at >= 0], at[at >= 0]] = 1 / np.sqrt(counts[supports.ids[at >= 0]])
    points /= np.linalg.norm(points, axis=1, keepdims=True) + 1e-9
    centres = points[rng.integers(len(points), size=1)]
    while len(centres) < classes - 1:
        some = points[rng.integers(len(points), size=300)]
        farthest = np.argmin((some @ centres.T).max(1))
        centres = np.append(centres, some[farthest][None], axis=0)
    for _ in range(15):
        nearest = np.argmax(points @ centres.T, 1)
        for c in np.unique(nearest):
            centres[c] = points[nearest == c].mean(0)
            centres[c] /= np.linalg.norm(centres[c]) + 1e-9
    return np.asarray(nearest, np.int64) + 1


def count_classes(
    supports: Supports, assigned: Ints, classes: int, whole: Floats, smoothing: float
) -> Classes:
    """Return the tables and shares of classes, counted and smoothed."""
    of_ids = np.repeat(assigned, supports.sizes)
    tables = np.empty((classes, whole.size))
    for c in range(classes):
        ids = supports.ids[of_ids == c]
        counts = np.bincount(ids, minlength=whole.size)
        tables[c] = (counts + smoothing * whole) / (ids.size + smoothing)
    tables[0] = whole
    shares = np.bincount(assigned, minlength=classes) + 1.0
    return Classes(tables, shares / shares.sum())


def fit_classes(
    supports: Supports, classes: int, whole: Floats, smoothing: float
) -> tuple[Classes, Ints]:
    """Return classes, and that of each support."""
    if classes == 1:
        nothing = np.zeros(len(supports), np.int64)
        return Classes(whole[None], np.ones(1)), nothing
    rng = np.random.default_rng(SEED)
    some = supports
    if len(supports) > SAMPLE:
        picked = rng.choice(len(supports), SAMPLE, replace=False)
        some = Supports(supports.arrays[i] for i in picked)
    assigned = first_classes(some, classes, rng)
    found = count_classes(some, assigned, classes, whole, smoothing)
    for _ in range(ROUNDS):
        assigned = found.costs(supports).argmin(1)
        found = count_classes(supports, assigned, classes, whole, smoothing)
    return found, assigned


def fit_kinds(classes: Classes) -> tuple[NDArray[np.uint8], Floats]:
    """Return a kind for each id, and the tables of kinds, [C, 256]."""
    # Each id takes the kind that costs it least. At first, the kinds that would be
    # missed least go to ids that lose most, or frequent ids would have to share.
    often = (classes.shares[:, None] * classes.tables).T
    mass = often.sum(1)
    ideal = np.einsum("vc,vc->v", often, np.log(classes.tables).T) - mass
    rng = np.random.default_rng(SEED)
    chances = mass**0.6 / (mass**0.6).sum()
    picked = rng.choice(mass.size, KINDS, mass.size < KINDS, chances)
    tables = classes.tables[:, picked]
    for turn in range(KIND_ROUNDS):
        kinds, best, second = best_kinds(often, tables, classes.shares)
        ids = np.bincount(kinds, minlength=KINDS)
        for c, table in enumerate(classes.tables):
            sums = np.bincount(kinds, weights=table, minlength=KINDS)
            tables[c] = np.where(ids > 0, sums / np.maximum(ids, 1), tables[c])
        if turn < MOVING_ROUNDS:
            missed = np.bincount(kinds, weights=best - second, minlength=KINDS)
            least = np.argsort(missed)[:MOVED_KINDS]
            neediest = np.argsort(best - ideal)[:MOVED_KINDS]
            tables[:, least[: neediest.size]] = classes.tables[:, neediest]
    return kinds.astype(np.uint8), tables


def best_kinds(
    often: Floats, tables: Floats, shares: Floats
) -> tuple[Ints, Floats, Floats]:
    """Return each id's best kind, and how likely that and the second best make it."""
    size = len(often)
    kinds, best, second = np.empty(size, np.int64), np.empty(size), np.empty(size)
    logs, taken = np.log(tables), shares @ tables
    for start in range(0, size, 1 << 14):  # [V, 256] would be half a gigabyte
        part = slice(start, start + (1 << 14))
        scores = often[part] @ logs - taken
        kinds[part] = np.argmax(scores, 1)
        second[part], best[part] = np.partition(scores, -2, axis=1)[:, -2:].T
    return kinds, best, second


def count_chances(assigned: Ints, shares: Floats) -> NDArray[np.uint8]:
    """Return how likely each class is at first, and after each, [C + 1, C]."""
    classes = shares.size
    follows = np.zeros((classes, classes))
    np.add.at(follows, (assigned[:-1], assigned[1:]), 1)
    follows += FOLLOWING * shares
    rows = np.vstack([shares, follows])
    codes = np.rint(255 * rows / rows.max(1, keepdims=True)).clip(1, 255)
    return np.asarray(codes, np.uint8)


def fit_supports(
    supports: Supports,
    vocab_size: int,
    text: Floats | None = None,
    classes: int | None = None,
) -> Tables:
    """Return the tables of a prior for supports like these, and a smoothed text."""
    parts = range(0 if len(supports) < FEW else HELD_OUT - 1, HELD_OUT)
    splits = [supports.split(part) for part in parts]

    def whole_of(some: Supports, share: float) -> Floats:
        probs = smooth_counts(some.count(vocab_size))
        return probs if text is None else (1 - share) * probs + share * text

    def bits(share: float) -> float:
        return sum(float(out.bits(whole_of(c, share)).sum()) for c, out in splits)

    share = min(TEXT_SHARES if text is not None else (0.0,), key=bits)
    counted, held = splits[-1]
    whole = whole_of(counted, share)
    numbers = (classes,) if classes else CLASSES
    tried = [(n, s) for n in numbers for s in (SMOOTHING if n > 1 else SMOOTHING[:1])]

    def price(choice: tuple[int, float]) -> float:
        found, _ = fit_classes(counted, choice[0], whole, choice[1])
        return float(found.costs(held).min(1).sum())

    best = min(tried, key=price)
    whole = whole_of(supports, share)
    found, assigned = fit_classes(supports, best[0], whole, best[1])
    if best[0] == 1:
        return one_class(whole)
    kinds, tables = fit_kinds(found)
    ids = np.bincount(kinds, minlength=KINDS)
    weights = np.stack([encode_weights(table, ids) for table in tables])
    return Tables(count_chances(assigned, found.shares), weights, kinds)
