"""Measure bits and accuracy on your own logits, as ``sqs bits`` does.

* `measure`: bits and total variation for keep rules and resolutions
* `recommend`: the settings with the fewest bits within a limit on total variation
* `prior_saving`: the bits that a prior fitted to your drafts or texts saves

Examples
--------
>>> import numpy as np
>>> import sqs_codec as sqs
>>> from sqs_codec import bits
>>> logits = np.random.default_rng(0).normal(0, 4, (50, 1000))  # of your draft model
>>> for best in bits.recommend(bits.measure(logits, temperature=0.7), most_tv=0.05):
...     print(best.keep, best.resolution, round(best.bits["entropy"]))
TopK(k=16) 50 85
Threshold(beta=0.002) 50 85
"""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

import sqs_codec as sqs
from sqs_codec._base import checks

__all__ = [
    "CODINGS",
    "RESOLUTIONS",
    "RULES",
    "Point",
    "Saving",
    "measure",
    "prior_saving",
    "recommend",
]

BETAS = (0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 5e-4, 2e-4, 1e-4)
RULES = (*(sqs.TopK(1 << i) for i in range(9)), *map(sqs.Threshold, BETAS))
RESOLUTIONS = (10, 16, 20, 32, 50, 70, 100, 150, 200, 300, 400, 700, 1000, 2000, 5000)
CODINGS: tuple[sqs.CodingName, ...] = get_args(sqs.CodingName)

HELD_OUT = 5
"""One part in this many, the last one, is held out to measure a prior."""


@dataclass(frozen=True)
class Point:
    """The measured means of one rule and resolution.

    `tokens` is the support size, `dropped_mass` the probability of the dropped tokens,
    and `tv` the total variation between softmax(logits / temperature) and the quantized
    distribution. `bits` has a value per coding, infinite if a support is too large.
    """

    keep: sqs.Keep
    resolution: int
    tokens: float
    dropped_mass: float
    tv: float
    bits: Mapping[str, float]


def measure(
    logits: ArrayLike,
    rules: Iterable[sqs.Keep] = RULES,
    resolutions: Iterable[int] = RESOLUTIONS,
    *,
    temperature: float = 1.0,
    prior: sqs.Prior | None = None,
    most_rows: int | None = None,
) -> list[Point]:
    """Measure each rule at each resolution, on logits of a draft model.

    Parameters
    ----------
    logits : array_like of float16, float32 or float64 [N, V]
        In the order of the text, for rules that learn, such as `Conformal`. May be a
        memory-mapped file: `measure` reads one row at a time.
    resolutions : iterable of int, optional
        The defaults include those of `sqs_codec.SETTINGS`.
    temperature : float, optional
        Above 0.
    prior : Prior, optional
        For coding ``"entropy"``.
    most_rows : int, optional
        Measure at most this number of rows, evenly spaced.

    Examples
    --------
    >>> k, resolution = sqs.SETTINGS["thin"]
    >>> logits = np.random.default_rng(0).normal(0, 4, (50, 1000))
    >>> (point,) = measure(logits, [sqs.TopK(k)], [resolution])
    >>> print(f"{point.bits['entropy']:.1f} bits, total variation {point.tv:.3f}")
    97.9 bits, total variation 0.146
    """
    if not (temperature := checks.temperature(temperature)):
        raise ValueError("temperature must be finite and above 0, got 0.0")
    checks.unmasked("logits", logits)
    logits = np.asanyarray(logits)
    if logits.ndim != 2 or not len(logits):
        raise ValueError(f"logits must have shape [N, V], got {list(logits.shape)}")
    total, vocab_size = logits.shape
    most = total if most_rows is None else checks.in_range("most_rows", most_rows, 1)
    chosen = np.linspace(0, total - 1, min(total, most)).round().astype(int)
    resolutions = [*resolutions]
    settings = [(keep, resolution) for keep in rules for resolution in resolutions]
    codings = [(c, prior if c == "entropy" else None) for c in CODINGS]
    codecs = {
        size: [sqs.Codec(vocab_size, size, *coding) for coding in codings]
        for size in resolutions
    }
    for keep, _ in settings:
        checks.instance("a rule", keep, sqs.Keep, "one such as TopK(64)")
    states = [keep.start() for keep, _ in settings]
    sums = np.zeros((len(settings), 3 + len(CODINGS)))
    checks.no_probabilities(np.asarray(logits[chosen[0]]))
    with warnings.catch_warnings():  # once is enough
        warnings.filterwarnings("ignore", "these logits look like probabilities")
        for i in chosen:
            row = np.array(logits[i], logits.dtype.newbyteorder("="))
            probs = _softmax(row, temperature)
            for j, (keep, resolution) in enumerate(settings):
                same = codecs[resolution]
                try:
                    q = same[0]._quantize(row, keep, temperature, True, state=states[j])
                except ValueError as error:
                    raise ValueError(f"row {i}: {error}") from error
                dropped = q.dropped_mass or 0.0
                states[j] = keep.next(states[j], dropped)
                lost = np.maximum(0.0, q.probs - probs[q.token_ids]).sum()
                n = len(q.token_ids)
                spent = [c.bits(q) if n <= c.max_survivors else math.inf for c in same]
                sums[j] += [n, dropped, lost, *spent]
    points = []
    for setting, means in zip(settings, sums / len(chosen), strict=True):
        tokens, dropped, lost, *spent = means.tolist()
        by_coding = dict(zip(CODINGS, spent, strict=True))
        points.append(Point(*setting, tokens, dropped, lost, by_coding))
    return points


def _softmax(row: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    # The result may be anything for a row that quantization rejects.
    with np.errstate(over="ignore", invalid="ignore"):
        x = row.astype(np.float64)
        weights = np.exp((x - x.max()) / temperature)
        return np.asarray(weights / weights.sum())


def recommend(points: Iterable[Point], most_tv: float = 0.05) -> list[Point]:
    """Return the point with the fewest bits for each kind of rule, with coding entropy.

    Points whose mean total variation exceeds `most_tv` don't count. See the module's
    example.
    """
    best: dict[type, Point] = {}
    for point in points:
        known = best.get(type(point.keep))
        if point.tv <= most_tv and (known is None or _cost(point) < _cost(known)):
            best[type(point.keep)] = point
    return [*best.values()]


def _cost(point: Point) -> tuple[float, float]:
    return point.bits["entropy"], point.tv


class Saving(NamedTuple):
    """Mean bits per held-out distribution or token, and the number held out."""

    held_out: int
    without: float
    with_prior: float


def prior_saving(
    vocab_size: int,
    drafts: Sequence[Sequence[sqs.SparseDistribution]] = (),
    texts: Sequence[ArrayLike] = (),
    classes: int | None = None,
) -> Saving | None:
    """Fit a prior to the first 80 % of each part, and measure the saving on the rest.

    Returns None if no part has five distributions or tokens.

    Parameters
    ----------
    drafts : sequence of sequence of SparseDistribution, optional
        Distributions of a draft model with one resolution, each part in text order.
    texts : sequence of array_like of int, optional
        Token ids. Held out, too, but measured only if there are no drafts, each token
        as a distribution with one token.
    classes : int, optional
        As for `Prior.fit`.

    Examples
    --------
    >>> text = np.random.default_rng(0).integers(500, 550, 1000)
    >>> saving = prior_saving(1000, texts=[text])
    >>> saving.held_out, round(saving.without, 1), round(saving.with_prior, 1)
    (200, 11.0, 6.3)
    """
    vocab_size = checks.vocabulary(vocab_size)
    ids_of = [checks.uint32(f"texts[{i}]", text) for i, text in enumerate(texts)]
    for i, ids in enumerate(ids_of):
        if (most := ids.max(initial=0)) >= vocab_size:
            raise ValueError(f"texts[{i}] must hold ids below {vocab_size}, got {most}")
    rows = [q for part in drafts for q in _split(part)[1]]
    numbers = np.ones(len(rows), int)
    if not rows:
        tokens = [i for part in ids_of for i in _split(part)[1].tolist()]
        ids, numbers = np.unique(np.array(tokens, int), return_counts=True)
        # With resolution 1, counts take no bits.
        rows = [sqs.SparseDistribution([i], [1], vocab_size) for i in ids.tolist()]
    if not rows:
        return None
    known = [_split(part)[0] for part in ids_of]
    counts = np.bincount(np.concatenate(known), minlength=vocab_size) if known else None
    fitted = [q for part in drafts for q in _split(part)[0]]
    prior = sqs.Prior.fit(fitted, counts, classes=classes)
    codecs = (sqs.Codec(vocab_size, rows[0].resolution, prior=p) for p in (None, prior))
    means = (np.average([c.bits(q) for q in rows], weights=numbers) for c in codecs)
    return Saving(int(numbers.sum()), *map(float, means))


def _split(part: Any) -> tuple[Any, Any]:
    """Return the part to fit to and the held-out part."""
    end = len(part) - len(part) // HELD_OUT
    return part[:end], part[end:]
