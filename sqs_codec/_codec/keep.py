"""Keep rules: which tokens of a draft distribution are kept."""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from sqs_codec._base import checks
from sqs_codec._base.format import MAX_VOCAB


class Keep(ABC):
    """The base class of keep rules. A rule is immutable.

    A rule keeps a prefix of the tokens in descending order of probability, at least
    one; ties are ordered by ascending id. A rule that learns has a *state*, one number
    that the caller stores: a `Drafter` has one. To write your own rule, define
    `limits`, and for a rule that learns also `start` and `next`.
    """

    _learns = False

    def __init_subclass__(cls) -> None:
        cls._learns = cls.next is not Keep.next

    @abstractmethod
    def limits(self, state: float) -> tuple[int, float]:
        """Return ``most`` and ``least``, which define a rule at a state.

        The rule keeps tokens with a probability of at least `least`, and no more than
        the `most` most probable ones.
        """

    def start(self) -> float:
        """Return the initial state."""
        return 0.0

    def next(self, state: float, dropped_mass: float) -> float:
        """Return the state after a token whose distribution had this dropped mass."""
        return state


@dataclass(frozen=True)
class TopK(Keep):
    """Keep the `k` most probable tokens (K-SQS), or all if there are fewer.

    Examples
    --------
    >>> TopK(64)
    TopK(k=64)
    """

    k: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", checks.in_range("k", self.k, 1))

    def limits(self, state: float) -> tuple[int, float]:
        """See `Keep.limits`."""
        return self.k, 0.0


@dataclass(frozen=True)
class Threshold(Keep):
    """Keep the tokens with a probability of at least `beta`.

    A `beta` of 0 or less keeps all tokens, above 1 only the most probable one.
    """

    beta: float

    def __post_init__(self) -> None:
        beta = checks.finite("beta", self.beta, -math.inf, math.inf)
        object.__setattr__(self, "beta", beta)

    def limits(self, state: float) -> tuple[int, float]:
        """See `Keep.limits`."""
        return MAX_VOCAB, self.beta


@dataclass(frozen=True)
class Conformal(Keep):
    """Keep the tokens above a threshold that adapts online (C-SQS).

    The state is the threshold, initially `beta`. After each drafted token it becomes
    ``min(1, threshold - eta (mass - alpha))``, where `mass` is the dropped mass of the
    token's distribution. After T tokens the mean dropped mass is therefore at most
    ``alpha + (abs(beta) + 1 + eta alpha) / (eta T)`` for any distributions
    (see `sqs_codec.theory.conformal_bound`). `Drafter` updates the threshold;
    `Codec.quantize` always uses `beta`.

    Parameters
    ----------
    alpha : float
        The target of the mean dropped mass, in [0, 1].
    eta : float
        The step, in (0, 1].
    beta : float
        The initial threshold, at most 1.

    Notes
    -----
    The defaults are ours; the paper leaves them open.

    References
    ----------
    arXiv:2510.09942 (SQS), arXiv:2106.00170 (adaptive conformal inference).

    Examples
    --------
    A loop without a `Drafter`:

    >>> import numpy as np
    >>> import sqs_codec as sqs
    >>> codec, keep = sqs.Codec(vocab_size=4), sqs.Conformal(alpha=0.01, eta=0.5)
    >>> threshold = keep.start()
    >>> for probs in [0.9, 0.06, 0.04, 0.0], [0.97, 0.01, 0.01, 0.01]:
    ...     rule = sqs.Threshold(threshold)
    ...     q = codec.quantize_probs(probs, rule, dropped_mass=True)
    ...     threshold = keep.next(threshold, q.dropped_mass)
    ...     print(round(threshold, 4), len(q.token_ids))
    0.006 3
    0.011 4
    """

    alpha: float = 0.05
    eta: float = 1e-3
    beta: float = 1e-3

    def __post_init__(self) -> None:
        for name, least, most in ("alpha", 0, 1), ("eta", 0, 1), ("beta", -math.inf, 1):
            value = checks.finite(name, getattr(self, name), least, most)
            object.__setattr__(self, name, value)
        if self.eta == 0:
            raise ValueError("eta must be above 0")

    def limits(self, state: float) -> tuple[int, float]:
        """See `Keep.limits`."""
        return MAX_VOCAB, state

    def start(self) -> float:
        """Return `beta`."""
        return self.beta

    def next(self, state: float, dropped_mass: float) -> float:
        """Return the next threshold, given a dropped mass in [0, 1]."""
        dropped_mass = checks.finite("dropped_mass", dropped_mass, 0, 1)
        return min(1.0, state - self.eta * (dropped_mass - self.alpha))


def limits_of(keep: Keep, state: float | None = None) -> tuple[int, float]:
    """Return a rule's checked limits, at its start if `state` is None."""
    if not isinstance(keep, Keep):  # inline, because a call is slower
        checks.instance("keep", keep, Keep, "a rule such as TopK(64)")
    found = keep.limits(keep.start() if state is None else state)
    try:
        most, least = found
        most = most if type(most) is int else operator.index(most)
        if most >= 1 and math.isfinite(least):
            return min(most, MAX_VOCAB), least
    except (TypeError, ValueError):
        pass
    raise ValueError(
        f"keep.limits() must be an integer above 0 and a finite number, got {found}"
    )


def count_kept(most: int, least: float, unnormalised: Any, unmasked: Any) -> Any:
    """Return how many tokens are kept of rows in descending order, int [...].

    Internal. Arrays are NumPy's or PyTorch's, on any device: `unnormalised`, float64
    [..., V], has each row's probabilities up to a factor; `unmasked`, int [...], is the
    number of unmasked tokens. If `least` is 0, underflowed probabilities are kept, too.
    """
    kept = unmasked.clip(1, most)
    if least > 0:
        level = least * unnormalised.sum(-1)[..., None]
        kept = count_prefix(unnormalised, level).clip(max=kept)
    return kept


def count_prefix(weights: Any, least: Any, goal: Any = None) -> Any:
    """Return how many weights of descending rows are kept, at least one."""
    # Kept weights are positive and at least `least`. They end with the first whose
    # cumulative sum reaches the `goal`, which rounding may prevent.
    kept = ((weights >= least) & (weights > 0)).sum(-1)
    if goal is not None:
        kept = kept.clip(max=(weights.cumsum(-1) < goal).sum(-1) + 1)
    return kept.clip(min=1)
