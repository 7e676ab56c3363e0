"""sqs-codec: a codec for the token distributions of speculative decoding.

The edge truncates and quantizes each draft distribution before it samples a token. The
cloud verifies the tokens, and the output distribution is exactly the target's.

Examples
--------
>>> import numpy as np
>>> import sqs_codec as sqs
>>> codec = Codec(vocab_size=1000)  # the settings that both ends share
>>> rng, cloud_rng = np.random.default_rng(0), np.random.default_rng(1)
>>> edge = Drafter(codec, TopK(64), rng=rng, max_tokens=4)
>>> while (token := edge.push(rng.normal(0, 4, 1000), temperature=0.7)) is not None:
...     pass  # a real draft model would read the token before the next logits
>>> data = edge.finish()  # bytes for the uplink
>>> round_ = codec.decode_round(data)
>>> target = rng.dirichlet(np.ones(1000), size=len(round_) + 1)
>>> verdict = verify(round_, target, cloud_rng)
>>> edge.feedback(verdict)
"""

from typing import TYPE_CHECKING

from sqs_codec import theory
from sqs_codec._backend import backend, isa
from sqs_codec._base.errors import PacketError
from sqs_codec._base.format import FORMAT_VERSION, CodingName
from sqs_codec._base.vocabulary import vocabulary_fingerprint
from sqs_codec._codec.codec import Codec
from sqs_codec._codec.distribution import SparseDistribution
from sqs_codec._codec.drafter import Drafter
from sqs_codec._codec.gumbel import Guesses, gumbel_draw, gumbel_guess, gumbel_verify
from sqs_codec._codec.keep import Conformal, Keep, Threshold, TopK
from sqs_codec._codec.prior import Prior, PriorName
from sqs_codec._codec.round import Round
from sqs_codec._codec.rows import SparseRows
from sqs_codec._codec.sampling import Sampling
from sqs_codec._codec.settings import SETTINGS
from sqs_codec._codec.verify import Verdict, verify, verify_rounds

__all__ = [
    "SETTINGS",
    "Codec",
    "CodingName",
    "Conformal",
    "Drafter",
    "Guesses",
    "Keep",
    "PacketError",
    "Prior",
    "PriorName",
    "Round",
    "Sampling",
    "SparseDistribution",
    "SparseRows",
    "Threshold",
    "TopK",
    "Verdict",
    "backend",
    "gumbel_draw",
    "gumbel_guess",
    "gumbel_verify",
    "isa",
    "theory",
    "verify",
    "verify_rounds",
    "vocabulary_fingerprint",
]

__format_version__ = FORMAT_VERSION
"""Two ends are compatible if this version and their codecs are equal."""

__version__: str

if not TYPE_CHECKING:  # type checkers would accept any misspelled name

    def __getattr__(name):
        """Look up the version on first use, because it is slow."""
        if name == "__version__":
            from importlib.metadata import version

            return version("sqs-codec")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
