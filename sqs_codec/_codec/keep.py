"""Rules that choose which tokens of a draft distribution are kept."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqs_codec._base import checks
from sqs_codec._base.format import MAX_VOCAB

if TYPE_CHECKING:
    from typing_extensions import Self


class Keep:
    """What all keep rules share.

    A rule keeps the most probable token and those that follow it in
    probability, as far as the rule goes; equally probable tokens rank by
    ascending id. Rules other than `Conformal` hold no state, so `update`,
    `checkpoint` and `rollback` do nothing for them.
    """

    _learns = False
    """Whether `update` does anything."""

    def __init_subclass__(cls) -> None:
        """Find out whether `update` does anything."""
        cls._learns = cls.update is not Keep.update

    def __new__(cls, *_: object, **__: object) -> Self:
        """Refuse to make what is no rule."""
        if cls is Keep:
            raise TypeError("Keep is abstract; take one of its rules, such as TopK(64)")
        return super().__new__(cls)

    def limits(self) -> tuple[int, float]:
        """Return ``most`` and ``least``, all that there is to a rule.

        Of a row it keeps the tokens of probability `least` or more, and of these the
        `most` most probable ones.
        """
        raise NotImplementedError(f"{type(self).__name__} has no limits")

    def update(self, dropped_mass: float) -> None:
        """Learn from the mass that a drafted token's distribution dropped."""

    def checkpoint(self) -> float:
        """Return the state to which `rollback` can return."""
        return 0.0

    def rollback(self, state: float) -> None:
        """Return to a state that `checkpoint` gave."""


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

    def limits(self) -> tuple[int, float]:
        """See `Keep.limits`."""
        return self.k, 0.0


@dataclass(frozen=True)
class Threshold(Keep):
    """Keep the tokens of probability `beta` or more.

    At 0 or below every token is kept, above 1 only the most probable one.
    """

    beta: float

    def __post_init__(self) -> None:
        beta = checks.finite("beta", self.beta, -math.inf, math.inf)
        object.__setattr__(self, "beta", beta)

    def limits(self) -> tuple[int, float]:
        """See `Keep.limits`."""
        return MAX_VOCAB, self.beta


class Conformal(Keep):
    """Keep the tokens above a threshold that adapts online (C-SQS).

    The rule is **stateful**. After each drafted token call `update` with the
    mass that its distribution dropped (`Drafter` does); quantizing alone
    changes nothing. The threshold becomes ``min(1, threshold - eta (mass - alpha))``,
    so that the mean dropped mass stays below
    ``alpha + (abs(beta) + 1 + eta alpha) / (eta T)`` after T updates,
    whatever the distributions (see `sqs_codec.theory.conformal_bound`).

    Parameters
    ----------
    alpha : float
        The target for the mean dropped mass, in [0, 1].
    eta : float
        The step, in (0, 1].
    beta : float
        The threshold to begin with, at most 1.

    Notes
    -----
    The defaults are ours; the paper leaves them open.

    References
    ----------
    arXiv:2510.09942 (SQS), arXiv:2106.00170 (adaptive conformal inference).

    Examples
    --------
    >>> keep = Conformal(alpha=0.01, eta=0.5, beta=0.1)
    >>> state = keep.checkpoint()
    >>> keep.update(0.03)  # dropped too much: keep more from now on
    >>> round(keep.threshold, 6)
    0.09
    >>> keep.rollback(state)
    >>> keep.threshold
    0.1
    """

    def __init__(
        self, alpha: float = 0.05, eta: float = 1e-3, beta: float = 1e-3
    ) -> None:
        self._alpha = checks.finite("alpha", alpha, 0, 1)
        self._eta = checks.finite("eta", eta, 0, 1)
        self._value = checks.finite("beta", beta, -math.inf, 1)
        if self._eta == 0:
            raise ValueError("eta must be above 0")

    def limits(self) -> tuple[int, float]:
        """See `Keep.limits`."""
        return MAX_VOCAB, self._value

    @property
    def alpha(self) -> float:
        """The target for the mean dropped mass."""
        return self._alpha

    @property
    def eta(self) -> float:
        """The step."""
        return self._eta

    @property
    def threshold(self) -> float:
        """The threshold beta that the next distribution will meet."""
        return self._value

    def update(self, dropped_mass: float) -> None:
        """Take one step by the mass, in [0, 1], that the last distribution dropped."""
        dropped_mass = checks.finite("dropped_mass", dropped_mass, 0, 1)
        self._value = min(1.0, self._value - self._eta * (dropped_mass - self._alpha))

    def checkpoint(self) -> float:
        """Return the threshold, to hand to `rollback` later."""
        return self._value

    def rollback(self, state: float) -> None:
        """Set the threshold back to one that `checkpoint` returned."""
        self._value = checks.finite("state", state, -math.inf, 1)

    def __repr__(self) -> str:
        return (
            f"Conformal(alpha={self.alpha:g}, eta={self.eta:g}, beta={self._value:g})"
        )


def limits_of(keep: Keep) -> tuple[int, float]:
    """Return a rule's limits, as cores and `count_kept` take them."""
    if not isinstance(keep, Keep):  # asked here, as a call takes longer
        checks.instance("keep", keep, Keep, "a rule such as TopK(64)")
    most, least = keep.limits()
    if not (most >= 1 and math.isfinite(least)):
        raise ValueError(
            f"keep.limits() must be at least 1 and a finite number, got {most}, {least}"
        )
    return min(most, MAX_VOCAB), least


def count_kept(most: int, least: float, unnormalised: Any, unmasked: Any) -> Any:
    """Return how many tokens are kept of rows in descending order, int [...].

    Internal. Arrays may be of NumPy or of PyTorch, on any device: `unnormalised`,
    float64 [..., V], has the probabilities up to a factor of each row, and `unmasked`,
    int [...], how many tokens are not masked. Where `least` is 0, those whose
    probabilities underflow to 0 count, too.
    """
    kept = unmasked.clip(1, most)
    if least > 0:
        level = least * unnormalised.sum(-1)[..., None]
        kept = count_prefix(unnormalised, level).clip(max=kept)
    return kept


def count_prefix(weights: Any, least: Any, goal: Any = None) -> Any:
    """Return how many weights of descending rows stay, one at least."""
    # Those of `least` or more and above 0, and of these no more than reach the `goal`
    # together, of which rounding may leave a sum short.
    kept = ((weights >= least) & (weights > 0)).sum(-1)
    if goal is not None:
        kept = kept.clip(max=(weights.cumsum(-1) < goal).sum(-1) + 1)
    return kept.clip(min=1)
