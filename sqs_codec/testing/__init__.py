"""Whether a loop of speculative decoding has its target's distribution.

`check_lossless` gives a loop two toy models and sums over all that its random numbers
can do, or counts what it writes; if its distribution is another, it says which mistake
fits. It needs only NumPy; `sqs_codec.testing.transformers` has the toys as models.
"""

from sqs_codec.testing._check import LossyError, Report, check_lossless
from sqs_codec.testing._toy import Toy

__all__ = ["LossyError", "Report", "Toy", "check_lossless"]
