"""The rule that chooses the resolution of each distribution."""

from __future__ import annotations

from dataclasses import dataclass

from sqs_codec._keep import _check

__all__ = ["Resolution"]


@dataclass(frozen=True)
class Resolution:
    """Choose the resolution by what quantization may move.

    Every distribution gets the coarsest power of two, 1 to 65 536, at which
    quantization moves no more probability than sparsification has dropped, or
    `error` if that is more. What it moves is measured as total variation, against
    the tokens kept, renormalised; what was dropped is
    `SparseDistribution.dropped_mass`. Where `Codec.quantize` is given `bits_per_tv`,
    that chooses the power of two in place of this rule.

    Parameters
    ----------
    error : float
        In (0, 1]. The default is ours.

    Notes
    -----
    The rule bounds the error of every distribution. It isn't the way to the
    fewest bits at a given mean error: for that, one resolution for all
    distributions does better.

    The decoding end only has to know that there is a rule: a codec with any
    `error` reads what a codec with another one wrote.

    Examples
    --------
    >>> import numpy as np
    >>> import sqs_codec as sqs
    >>> codec = sqs.Codec(vocab_size=8, resolution=sqs.Resolution(error=0.02))
    >>> logits = np.array([0, 5, 1, 2, 4, 0, 0, 0], np.float32)
    >>> codec.quantize(logits, sqs.TopK(3)).resolution
    16
    >>> codec.quantize(10 * logits, sqs.TopK(3)).resolution
    1
    """

    error: float = 0.01

    def __post_init__(self) -> None:
        object.__setattr__(self, "error", _check("error", self.error, 0, 1))
        if self.error == 0:
            raise ValueError("error must be above 0")
