"""Bounds and bit counts of sparse quantize-and-sample.

Bit counts are exact: binomials are Python integers, and a ceiling of log2 is a bit
length. The formulas are the paper's [1] unless a function names another source; the
proofs are in ``docs/theory.md``.

V (`vocab_size`) is the vocabulary size. K (`support`) is the number of tokens that the
sparsifier keeps, k (`survivors`) the number with a nonzero count, and l (`resolution`)
the sum of the counts. q and p are the distributions of draft and target; q^ is the one
that the edge samples from and sends. Arguments out of range or of the wrong shape raise
a ValueError; arguments that must be integers and aren't raise a TypeError.

References
----------
1. *Conformal Sparsification for Bandwidth-Efficient Edge-Cloud Speculative
   Decoding*, arXiv 2510.09942.
2. Y. Reznik, *An Algorithm for Quantization of Discrete Probability Distributions*,
   arXiv 1008.3597.
3. Y. Leviathan, M. Kalman, Y. Matias, *Fast Inference from Transformers via
   Speculative Decoding*, arXiv 2211.17192.
4. I. Gibbs, E. Candes, *Adaptive Conformal Inference Under Distribution Shift*,
   arXiv 2106.00170.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from sqs_codec._base import checks
from sqs_codec._base.format import SUM_TOLERANCE
from sqs_codec._codec.bounds import entropy_bits_bound
from sqs_codec._codec.distribution import SparseDistribution

__all__ = [
    "acceptance_rate",
    "conformal_bound",
    "entropy_bits_bound",
    "enumerative_bits",
    "paper_bits",
    "paper_count_bits",
    "paper_support_bits",
    "quantizer_tv_bound",
    "rejection_bound",
    "total_variation",
]


def paper_support_bits(
    vocab_size: int, support: int, *, conformal: bool = False
) -> int:
    """Bits of the support in the paper: ceil(log2 C(V, K)).

    If `conformal`, plus ceil(log2 V) for K, which the receiver of C-SQS doesn't know.

    Examples
    --------
    >>> paper_support_bits(49152, 64)
    702
    >>> paper_support_bits(49152, 64, conformal=True)
    718
    """
    vocab_size = checks.in_range("vocab_size", vocab_size, 1)
    support = checks.in_range("support", support, 1, vocab_size)
    bits = _ceil_log2(math.comb(vocab_size, support))
    return bits + _ceil_log2(vocab_size) if conformal else bits


def paper_count_bits(support: int, resolution: int) -> int:
    """Bits of the counts in the paper: ceil(log2 C(l+K-1, K-1)), after [2].

    Examples
    --------
    >>> paper_count_bits(64, 100)
    153
    """
    support = checks.in_range("support", support, 1)
    resolution = checks.in_range("resolution", resolution, 1)
    return _ceil_log2(math.comb(resolution + support - 1, support - 1))


def paper_bits(
    vocab_size: int, support: int, resolution: int, *, conformal: bool = False
) -> int:
    """Bits of one distribution in the paper: support and counts.

    Examples
    --------
    >>> paper_bits(49152, 64, 100)
    855
    """
    return paper_support_bits(
        vocab_size, support, conformal=conformal
    ) + paper_count_bits(support, resolution)


def enumerative_bits(vocab_size: int, survivors: int, resolution: int) -> int:
    """Bits of the joint rank in an ``"enumerative"`` packet, without its other fields.

    This formula is ours: ceil(log2(C(V, k) * C(l-1, k-1))). No fixed-length code for
    distributions with k survivors is shorter.

    Examples
    --------
    >>> enumerative_bits(49152, 11, 100)
    191
    >>> enumerative_bits(4, 4, 4)  # one distribution only
    0
    """
    vocab_size = checks.in_range("vocab_size", vocab_size, 1)
    resolution = checks.in_range("resolution", resolution, 1)
    survivors = checks.in_range("survivors", survivors, 1, min(vocab_size, resolution))
    return _ceil_log2(
        math.comb(vocab_size, survivors) * math.comb(resolution - 1, survivors - 1)
    )


def quantizer_tv_bound(support: int, resolution: int) -> float:
    """Bound on the total variation that lattice quantization adds: K/(4 l) [2].

    Equality is possible for even K. K includes tokens whose count becomes 0.

    Examples
    --------
    >>> quantizer_tv_bound(64, 100)
    0.16
    """
    support = checks.in_range("support", support, 1)
    resolution = checks.in_range("resolution", resolution, 1)
    return support / (4 * resolution)


def rejection_bound(
    mismatch: npt.ArrayLike,
    dropped_mass: npt.ArrayLike,
    support: npt.ArrayLike,
    resolution: npt.ArrayLike,
) -> float:
    """Bound on the expected number of rejected tokens.

    The sum over N positions of mismatch + dropped_mass + K/(4 l): the costs of the
    draft model, the sparsifier and the quantizer. Leave out unverified positions.

    Parameters
    ----------
    mismatch, dropped_mass : array_like, [N]
        TV(q_n, p_n), and the mass of q_n outside the support, each in [0, 1].
    support : array_like, [N]
    resolution : array_like, scalar or [N]

    Examples
    --------
    >>> rejection_bound([0.25, 0.5], [0.125, 0.0], [8, 16], 32)
    1.0625
    """
    given = mismatch, dropped_mass, support, resolution
    for values in given:
        checks.unmasked("each argument", values)
    *terms, steps = (np.asarray(values, dtype=np.float64) for values in given)
    shapes = [values.shape for values in terms]
    if terms[0].ndim != 1 or len(set(shapes)) != 1:
        raise ValueError(
            "mismatch, dropped_mass and support must be of one shape [N], "
            f"got {shapes[0]}, {shapes[1]} and {shapes[2]}"
        )
    if steps.shape not in ((), shapes[0]):
        raise ValueError(
            f"resolution must be a scalar or of shape {shapes[0]}, got {steps.shape}"
        )
    for name, values in (("mismatch", terms[0]), ("dropped_mass", terms[1])):
        if not np.all((values >= 0.0) & (values <= 1.0)):
            raise ValueError(f"{name} must be in [0, 1], got {values}")
    for name, values in (("support", terms[2]), ("resolution", steps)):
        if not np.all((values >= 1.0) & np.isfinite(values)):
            raise ValueError(f"{name} must be finite and at least 1, got {values}")
    return float(np.sum(terms[0] + terms[1] + terms[2] / (4.0 * steps)))


def conformal_bound(alpha: float, eta: float, beta: float, steps: int) -> float:
    """Bound on the mean dropped mass of C-SQS after any number of updates, after [4].

    It equals alpha + (|beta| + 1 + eta alpha)/(eta T), for every sequence of
    distributions. It also holds with our extensions, the threshold's cap at 1 and the
    rollback of rejected tokens.

    Parameters
    ----------
    alpha : float
        The target of the mean dropped mass, in [0, 1].
    eta : float
        The step, in (0, 1]. With larger steps the bound can fail.
    beta : float
        The initial threshold, any finite number.
    steps : int
        T, the number of updates.

    Examples
    --------
    >>> conformal_bound(alpha=0.25, eta=0.5, beta=0.5, steps=26)
    0.375
    """
    alpha = checks.finite("alpha", alpha, 0, 1)
    if not 0.0 < eta <= 1.0:
        raise ValueError(
            f"eta must be in (0, 1], got {eta}: the bound can fail for larger steps"
        )
    beta = checks.finite("beta", beta, -math.inf, math.inf)
    steps = checks.in_range("steps", steps, 1)
    return alpha + (abs(beta) + 1.0 + eta * alpha) / (eta * steps)


def acceptance_rate(target: npt.ArrayLike, distribution: SparseDistribution) -> float:
    """Probability that `verify` accepts a token of q^: sum_x min(p(x), q^(x)) [3].

    `target` is p, [V]: non-negative, with a sum within 1e-3 of 1, and normalized.

    Examples
    --------
    >>> q = SparseDistribution([1, 3], [3, 1], vocab_size=4)
    >>> acceptance_rate([0.25, 0.5, 0.125, 0.125], q)
    0.625
    """
    p = _distribution("target", target)
    if p.size != distribution.vocab_size:
        raise ValueError(
            f"target must have the distribution's vocabulary of "
            f"{distribution.vocab_size} tokens, got {p.size}"
        )
    shared = np.minimum(p[distribution.token_ids], distribution.probs).sum()
    return min(1.0, float(shared))


def total_variation(p: npt.ArrayLike, q: npt.ArrayLike) -> float:
    """Total variation distance of dense distributions [V]: (1/2) sum_x |p(x) - q(x)|.

    Both are normalized; their sums must be within 1e-3 of 1.

    Examples
    --------
    >>> total_variation([0.25, 0.75], [0.5, 0.5])
    0.25
    """
    left, right = _distribution("p", p), _distribution("q", q)
    if left.shape != right.shape:
        raise ValueError(
            f"p and q must have the same shape, got {left.shape} and {right.shape}"
        )
    return min(1.0, 0.5 * float(np.abs(left - right).sum()))


def _ceil_log2(count: int) -> int:
    """Return ceil(log2(count)) for `count` >= 1."""
    return (count - 1).bit_length()


def _distribution(name: str, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Check a distribution, and return it normalized, float64 [V]."""
    checks.unmasked(name, values)
    probs = np.asarray(values, dtype=np.float64)
    if probs.ndim != 1:
        raise ValueError(f"{name} must have shape [V], got {probs.shape}")
    if not np.all((probs >= 0.0) & np.isfinite(probs)):
        raise ValueError(f"{name} must be finite and not negative")
    total = float(probs.sum())
    if abs(total - 1.0) > SUM_TOLERANCE:
        raise ValueError(f"{name} must sum to 1 within {SUM_TOLERANCE}, got {total}")
    scaled: npt.NDArray[np.float64] = probs / total
    return scaled
