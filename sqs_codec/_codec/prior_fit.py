"""Fitting priors to the counts of tokens in a text, and to drafted distributions.

A draft's support shows which ids are probable in the same context: starts of words,
middles of words, punctuation, or words of a language. Contexts are grouped into
classes, each with a table of probabilities, to maximize the likelihood of the supports.
This is Lloyd's algorithm with log-likelihood as distance: assign each support to its
best class, recount the tables, and repeat. Ids are then grouped into 256 kinds in
the same way, because a prior has one byte per id.

A class's table is smoothed with the overall table, and that with the mean of each id's
neighbors. The amounts are chosen on held-out drafts or tokens.
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
"""Numbers of classes to try by default."""

SMOOTHING = (300, 1000, 3000, 10_000)
"""Numbers to try: how many occurrences of the overall table to add to a class."""

TEXT_SHARES = (0.0, 0.03, 0.1, 0.3, 0.9)
"""Shares of the text in the overall table to try, if there are also distributions."""

HELD_OUT = 5
"""One of this many runs of consecutive supports is held out to choose the smoothing."""

FEW = 50
"""With fewer supports, each part is held out in turn to choose the text's share: in one
part of less than ten, bits vary more by chance than with the share."""

LONGEST_RUN = 1000
"""Supports per run, at most: a run should hold a text at several temperatures."""

FREQUENT = 800
"""The number of ids that the initial clustering uses."""

SAMPLE = 12_000
"""The number of supports that the initial clustering uses, at most."""

ROUNDS = 12
"""Iterations of Lloyd's algorithm for classes; more have no measurable effect."""

KIND_ROUNDS = 20  # iterations for kinds
MOVING_ROUNDS = 14  # iterations in which kinds move to other ids
MOVED_KINDS = 12  # kinds that move per iteration

FOLLOWING = 30
"""Occurrences of the overall shares that are added to the transitions of a class."""

SEED = 20_251_009


EDGES = np.sqrt(CODE_WEIGHTS[1:] * CODE_WEIGHTS[:-1].astype(np.float64))
"""Geometric means of adjacent weights: the limits of each code."""


def encode_weights(probs: Floats, ids: Ints) -> NDArray[np.uint8]:
    """Return the weights' codes for kinds; `ids` has the number of ids per kind."""
    scale = MOST_WEIGHT / float(probs @ ids)
    while True:
        codes = np.searchsorted(EDGES, probs * scale, side="right").astype(np.uint8)
        if int(CODE_WEIGHTS[codes] @ ids) <= MOST_WEIGHT:
            return codes
        scale *= 0.98  # rounded up, the sum exceeds the limit


def neighbors(counts: Floats) -> Floats:
    """Return each id's mean probability over its half octave of ids."""
    # In byte-pair vocabularies, low ids are frequent.
    size = counts.size
    edges = np.array([0, *(e << b for b in range(4, 20) for e in (2, 3))])
    starts = edges[edges < size]
    spans = np.diff(starts, append=size)
    parts = spans / np.diff(edges)[: starts.size]  # the last may be shorter
    means = (np.add.reduceat(counts, starts) + 0.5 * parts) / spans
    probs = np.repeat(means, spans)
    return np.asarray(probs / probs.sum())


def smooth_counts(counts: Floats) -> Floats:
    """Return probabilities smoothed with `neighbors`, best for held-out tokens."""
    near = neighbors(counts)
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
    """Return the tables of one class, in which an id's kind is its code."""
    codes = encode_weights(probs, np.ones(probs.size, np.int64))
    identity = np.arange(KINDS, dtype=np.uint8)[None]
    return Tables(np.ones((2, 1), np.uint8), identity, codes)


class Supports:
    """Sets of ids, concatenated in drafting order."""

    def __init__(self, supports: Iterable[NDArray[np.integer]]) -> None:
        arrays = [np.asarray(ids, np.int64) for ids in supports]
        self.arrays = arrays
        self.sizes = np.array([ids.size for ids in arrays], np.int64)
        self.ids = np.concatenate([*arrays, np.empty(0, np.int64)])
        self.starts = np.cumsum(self.sizes) - self.sizes

    def __len__(self) -> int:
        return len(self.arrays)

    def count(self, vocab_size: int) -> Floats:
        """Return the number of supports that contain each id, [V]."""
        return np.bincount(self.ids, minlength=vocab_size).astype(np.float64)

    def bits(self, table: Floats) -> Floats:
        """Return the bits of each support, [N], with a table's probabilities."""
        return np.add.reduceat(-np.log2(table)[self.ids], self.starts)

    def split(self, part: int) -> tuple[Supports, Supports]:
        """Return the supports to count, and a part to hold out."""
        run = max(1, min(LONGEST_RUN, len(self) // (5 * HELD_OUT)))
        out = np.arange(len(self)) // run % HELD_OUT == part
        return (
            Supports(self.arrays[i] for i in np.flatnonzero(~out)),
            Supports(self.arrays[i] for i in np.flatnonzero(out)),
        )


@dataclass
class Classes:
    tables: Floats  # [C, V], probabilities of ids; the first row is the overall table
    shares: Floats  # [C], the share of contexts in each class

    def costs(self, supports: Supports) -> Floats:
        """Return the bits of each support in each class, [N, C]."""
        bits = [supports.bits(table) for table in self.tables]
        return np.stack(bits, 1) - np.log2(self.shares)


def first_classes(supports: Supports, classes: int, rng: np.random.Generator) -> Ints:
    """Return a class above 0 for each support: spherical k-means on frequent ids."""
    counts = supports.count(int(supports.ids.max()) + 1)
    frequent = np.argsort(-counts)[:FREQUENT]
    column = np.full(counts.size, -1)
    column[frequent] = np.arange(frequent.size)
    row = np.repeat(np.arange(len(supports)), supports.sizes)
    at = column[supports.ids]
    points = np.zeros((len(supports), frequent.size), np.float32)
    points[row[at >= 0], at[at >= 0]] = 1 / np.sqrt(counts[supports.ids[at >= 0]])
    points /= np.linalg.norm(points, axis=1, keepdims=True) + 1e-9
    centers = points[rng.integers(len(points), size=1)]
    while len(centers) < classes - 1:
        some = points[rng.integers(len(points), size=300)]
        farthest = np.argmin((some @ centers.T).max(1))
        centers = np.append(centers, some[farthest][None], axis=0)
    for _ in range(15):
        nearest = np.argmax(points @ centers.T, 1)
        for c in np.unique(nearest):
            centers[c] = points[nearest == c].mean(0)
            centers[c] /= np.linalg.norm(centers[c]) + 1e-9
    return np.asarray(nearest, np.int64) + 1


def count_classes(
    supports: Supports, assigned: Ints, classes: int, whole: Floats, smoothing: float
) -> Classes:
    """Return classes with counted and smoothed tables, and shares."""
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
    """Return the classes, and the class of each support."""
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
    # Each id takes its cheapest kind. In the first iterations, the least useful kinds
    # move to the ids with the largest loss, so that frequent ids get their own kind.
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
    """Return each id's best kind, and the log-likelihoods of its best two kinds."""
    size = len(often)
    kinds, best, second = np.empty(size, np.int64), np.empty(size), np.empty(size)
    logs, taken = np.log(tables), shares @ tables
    for start in range(0, size, 1 << 14):  # in parts: [V, 256] would take 0.5 GB
        part = slice(start, start + (1 << 14))
        scores = often[part] @ logs - taken
        kinds[part] = np.argmax(scores, 1)
        second[part], best[part] = np.partition(scores, -2, axis=1)[:, -2:].T
    return kinds, best, second


def count_chances(assigned: Ints, shares: Floats) -> NDArray[np.uint8]:
    """Return codes of each class's likelihood at first and after each, [C + 1, C]."""
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
    """Return the tables of a prior fitted to supports and a smoothed text."""
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
