"""Tests that a loop of speculative decoding has its target's output distribution.

`check_lossless` runs a loop with two toy models. It sums over all outcomes of the
random numbers, or counts samples. If the distribution is wrong, it names the likely
mistake. It needs only NumPy; `sqs_codec.testing.transformers` has the toys as models.
"""

from sqs_codec.testing._check import LossyError, Report, check_lossless
from sqs_codec.testing._toy import Toy

__all__ = ["LossyError", "Report", "Toy", "check_lossless"]
