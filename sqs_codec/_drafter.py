"""The edge's side of a round."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

import numpy as np

from sqs_codec._codec import (
    Codec,
    Round,
    SparseDistribution,
    _as_int,
    _check_keep,
)
from sqs_codec._format import MAX_ROUND
from sqs_codec._stream import StreamEncoder

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from sqs_codec._keep import Keep

__all__ = ["Drafter"]

FRAMING_BITS = 48
"""More than a round takes beside its distributions: number or length, padding."""

ROUNDING_BITS = 4
"""More than estimates err by."""


class Drafter:
    """Draft rounds within a budget of uplink bits.

    A round goes `push` (once for each token), `finish`, `feedback`; any other
    order is a RuntimeError. The first `push` of a round always drafts; later
    ones draft while the round's packet, padding included, stays within the
    budget and the coding's limits, and once one doesn't the round is full.
    (With a `stream`, as long as nothing else uses or restarts that meanwhile.)
    Whether one drafts depends on its distribution and never on the token drawn,
    which keeps the output exact: the token is planned for as the dearest of them.

    The rule for `keep`'s state: it learns from every drafted token at once, and
    `feedback` takes back what it learned from positions that did not get into
    the text. Those that did are the accepted ones and, after a rejection, the
    one at which the cloud resampled: its distribution was judged in a context
    that stays. With n of L accepted, the state becomes that after min(n + 1, L)
    tokens.

    Parameters
    ----------
    codec : Codec
    keep : Keep
        Which tokens to keep; a stateful rule belongs to one drafter.
    rng : numpy.random.Generator
        Draws the tokens. It has to be independent of the one that `verify` is
        given: two generators of one seed aren't.
    budget_bits : int, optional
        Uplink bits of a round. No limit if None.
    max_tokens : int
        Drafted tokens of a round at most, 1 to 256.
    bits_per_tv : float, optional
        As for `Codec.quantize`.
    stream : StreamEncoder, optional
        Makes the packets, if the rounds are to learn from each other; of the same
        codec.

    Examples
    --------
    >>> import numpy as np
    >>> import sqs_codec as sqs
    >>> codec, rng = sqs.Codec(vocab_size=8, resolution=10), np.random.default_rng(1)
    >>> edge = sqs.Drafter(codec, sqs.TopK(3), rng=rng, max_tokens=2)
    >>> logits = np.array([0, 5, 1, 2, 4, 0, 0, 0], np.float32)
    >>> edge.push(logits), edge.push(logits), edge.push(logits)
    (1, 1, None)
    >>> data = edge.finish()
    >>> codec.decode_round(data).tokens
    (1, 1)
    >>> edge.feedback(accepted=1)
    """

    def __init__(
        self,
        codec: Codec,
        keep: Keep,
        *,
        rng: np.random.Generator,
        budget_bits: int | None = None,
        max_tokens: int = 8,
        bits_per_tv: float | None = None,
        stream: StreamEncoder | None = None,
    ) -> None:
        if not isinstance(codec, Codec):
            raise TypeError(f"codec must be a Codec, got {type(codec).__name__}")
        if not isinstance(rng, np.random.Generator):
            raise TypeError(
                f"rng must be a numpy.random.Generator, got {type(rng).__name__}"
            )
        _check_keep(keep)
        if stream is not None and not isinstance(stream, StreamEncoder):
            raise TypeError(
                f"stream must be a StreamEncoder, got {type(stream).__name__}"
            )
        if stream is not None and stream.codec != codec:
            raise ValueError(f"expected a stream of {codec}, got one of {stream.codec}")
        self.codec = codec
        self.stream = stream
        self.keep = keep
        self.rng = rng
        self.budget_bits = (
            None if budget_bits is None else _as_int("budget_bits", budget_bits)
        )
        self.max_tokens = _as_int("max_tokens", max_tokens)
        self.bits_per_tv = bits_per_tv
        codec._price(bits_per_tv)  # says what is wrong with it
        if self.budget_bits is not None and self.budget_bits < 1:
            raise ValueError(f"budget_bits must be at least 1, got {budget_bits}")
        if not 1 <= self.max_tokens <= MAX_ROUND:
            raise ValueError(
                f"max_tokens must be in [1, {MAX_ROUND}], got {self.max_tokens}"
            )
        self._start()

    def _start(self) -> None:
        self._full = False
        self._finished = False
        self._bits = FRAMING_BITS  # at most, of the round so far
        self._distributions: list[SparseDistribution] = []
        self._tokens: list[int] = []
        self._states = [self.keep.checkpoint()]

    def push(self, logits: ArrayLike, temperature: float = 1.0) -> int | None:
        """Draft the next token.

        Parameters
        ----------
        logits : array_like of float16, float32 or float64 [vocab_size]
            The draft model's, given the text and the tokens drafted so far.
        temperature : float

        Returns
        -------
        int or None
            The token; None if the round is full.

        Raises
        ------
        ValueError
            As `Codec.quantize` and `Codec.encode`; nothing has changed then.
        """
        if self._finished:
            raise RuntimeError("push: the round is finished; feedback comes next")
        if self._full or len(self._tokens) == self.max_tokens:
            return None
        learns = self.keep._learns
        q = self.codec._quantize_row(
            logits, self.keep, temperature, self.bits_per_tv, mass=learns
        )
        self.codec._check(q)
        if self._tokens and not self._fits(q):
            self._full = True
            return None
        if not self._tokens:
            self._bits += self._most_bits(q)
        if learns:
            assert q.dropped_mass is not None  # as it was asked for
            self.keep.update(q.dropped_mass)
        token = q.sample(self.rng)
        self._distributions.append(q)
        self._tokens.append(token)
        self._states.append(self.keep.checkpoint())
        return token

    def _fits(self, q: SparseDistribution) -> bool:
        """Say whether `q` and any token of it fit into the round."""
        drafted = [*self._distributions, q]
        if not self.codec._round_holds([p.token_ids.size for p in drafted]):
            return False
        if self.budget_bits is None:
            return True
        bits = self._bits + self._most_bits(q)
        if bits > self.budget_bits:  # the estimate is no longer good enough
            dearest = int(q.token_ids[q.counts.argmin()])
            round_ = Round(tuple(drafted), (*self._tokens, dearest))
            bits = 8 * self._size(round_)
        if bits > self.budget_bits:
            return False
        self._bits = bits
        return True

    def _most_bits(self, q: SparseDistribution) -> int:
        """Return more bits than `q` and any token of it can take in a round.

        To mix in what is remembered makes no id less than half as likely, so a
        round adds at most a bit for each.
        """
        bits = self.codec._bits(q) + self.codec.token_bits(q)
        return bits + q.token_ids.size + ROUNDING_BITS

    def _size(self, round_: Round) -> int:
        """Return the size of a round's packet in bytes."""
        if self.stream is not None:
            return self.stream._size(round_)
        return len(self.codec._encode_round(round_, None))

    def finish(self) -> bytes:
        """Return the round's packet."""
        if self._finished:
            raise RuntimeError("finish: already called; feedback comes next")
        if not self._tokens:
            raise RuntimeError("finish: nothing was drafted; push comes first")
        encoder = self.stream or self.codec
        data = encoder.encode_round(self._distributions, self._tokens)
        self._finished = True
        return data

    def feedback(self, accepted: int) -> None:
        """Take the cloud's answer and start the next round.

        Parameters
        ----------
        accepted : int
            How many of the drafted tokens the cloud accepted.
        """
        if not self._finished:
            raise RuntimeError("feedback: finish comes first")
        accepted = operator.index(accepted)
        if not 0 <= accepted <= len(self._tokens):
            raise ValueError(
                f"accepted must be in [0, {len(self._tokens)}], got {accepted}"
            )
        self.keep.rollback(self._states[min(accepted + 1, len(self._tokens))])
        self._start()
