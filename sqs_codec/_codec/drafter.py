"""The edge's side of a round."""

from __future__ import annotations

import copy
import sys
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, overload

from sqs_codec._base import checks
from sqs_codec._base.format import MAX_ROUND
from sqs_codec._codec.codec import Codec
from sqs_codec._codec.distribution import Round, SparseDistribution
from sqs_codec._codec.keep import Keep, rule
from sqs_codec._codec.stream import StreamEncoder
from sqs_codec._codec.verify import Verdict, Wanted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike

__all__ = ["Drafter"]


class _Drafted(NamedTuple):
    """A token of the round, and the state that `keep` had after it."""

    distribution: SparseDistribution
    token: int
    state: float


class Drafter:
    """Draft rounds within a budget of uplink bits.

    A round is `push` for each token, then `finish`, then `feedback`; any other
    order is a RuntimeError, but `abort` may come at any time. The first `push` of
    a round always drafts. Later ones draft as long as the round's packet, padding
    included, stays within the budget and the coding's limits; then the round is
    full. (If there is a `stream`, this holds unless something else uses or restarts
    it during the round.) Whether `push` drafts depends on the distribution and
    never on the token drawn, which keeps the output exact: there must be room for
    any token of the distribution.

    A round may also leave in parts while it is drafted: `segment` in place of
    `finish`, as often as there is something new to send. Then `feedback` may come
    after any of them, as the cloud may reject a token of an early one.

    `keep` learns from every drafted token at once, and `feedback` takes back what
    it learned from positions that did not get into the text. The positions that did
    are the accepted ones and, after a rejection, the one at which the cloud
    resampled: its distribution was judged in a context that stays. If n of the L
    tokens that left were accepted, `keep` returns to its state after min(n + 1, L)
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
        Uplink bits of a round. No limit if None. With a budget, each `push` takes
        the additional time of encoding the round so far.
    max_tokens : int
        Drafted tokens of a round at most, 1 to 256.
    stream : StreamEncoder, optional
        Makes the packets, if the rounds are to learn from each other. Its codec must
        be `codec`.

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

    In parts, of which the first is rejected before the second was to leave:

    >>> edge.push(logits)
    4
    >>> round_ = edge.segment()
    >>> round_.tokens, codec.decode_round(codec.encode_round(round_)) == round_
    ((4,), True)
    >>> edge.push(logits)
    4
    >>> edge.feedback(accepted=0)
    """

    def __init__(
        self,
        codec: Codec,
        keep: Keep,
        *,
        rng: np.random.Generator,
        budget_bits: int | None = None,
        max_tokens: int = 8,
        stream: StreamEncoder | None = None,
    ) -> None:
        checks.instance("codec", codec, Codec, "a Codec")
        checks.generator(rng)
        rule(keep)  # says what is wrong with it
        if stream is not None:
            checks.instance("stream", stream, StreamEncoder, "a StreamEncoder")
            if stream.codec != codec:
                raise ValueError(
                    f"expected a stream of {codec}, got one of {stream.codec}"
                )
        if budget_bits is not None:
            budget_bits = checks.in_range("budget_bits", budget_bits, 1)
        self.codec = codec
        self.keep = keep
        self.rng = rng
        self.budget_bits = budget_bits
        self.max_tokens = checks.in_range("max_tokens", max_tokens, 1, MAX_ROUND)
        self.stream = stream
        self._start()

    def __repr__(self) -> str:
        return (
            f"<Drafter of {self.codec}, {self.keep}: {len(self._drafted)} of at most "
            f"{self.max_tokens} tokens drafted>"
        )

    def _start(self) -> None:
        self._start_state = self.keep.checkpoint()
        self._full = False
        self._finished = False
        self._encoded = False  # so that the stream may be ahead of the cloud's
        self._drafted: list[_Drafted] = []
        self._left = 0  # how many of them `finish` or `segment` have handed out

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens drafted so far in this round."""
        return tuple(drafted.token for drafted in self._drafted)

    @property
    def distributions(self) -> tuple[SparseDistribution, ...]:
        """The distributions that they were drawn from."""
        return tuple(drafted.distribution for drafted in self._drafted)

    def quantize(
        self, logits: ArrayLike, *, temperature: float = 1.0
    ) -> SparseDistribution:
        """Return the distribution that `push` would draw from, and change nothing.

        To look at it first, and then perhaps to `push` it. Parameters and errors are
        those of `push`.
        """
        keep, learns = self.keep, self.keep._learns
        torch = sys.modules.get("torch")  # where there is a tensor, there is torch
        if torch is None or not isinstance(logits, torch.Tensor):
            return self.codec._engine.quantize(logits, keep, temperature, mass=learns)
        adapter = import_module("sqs_codec.torch")  # above this one, as it is optional
        q: SparseDistribution = adapter.quantize_row(
            self.codec, logits, keep, temperature, mass=learns
        )
        return q

    @overload
    def push(self, logits: SparseDistribution) -> int | None: ...

    @overload
    def push(self, logits: ArrayLike, *, temperature: float = 1.0) -> int | None: ...

    def push(
        self,
        logits: ArrayLike | SparseDistribution,
        *,
        temperature: float | None = None,
    ) -> int | None:
        """Draft the next token.

        Parameters
        ----------
        logits : array_like of float16, float32 or float64 [vocab_size]
            The draft model's, given the text and the tokens drafted so far. Or a
            torch.Tensor, as `sqs_codec.torch.quantize` takes it; or a ready
            SparseDistribution, to which `keep` isn't applied. If `keep` learns, the
            distribution must have its `dropped_mass`.
        temperature : float, optional
            1 if not given. It doesn't go with a ready distribution.

        Returns
        -------
        int or None
            The token; None if the round is full.

        Raises
        ------
        ValueError
            As `Codec.quantize` and `Codec.encode`, or if `keep` learns and
            `dropped_mass` is None. Nothing has changed then.
        TypeError
            As `Codec.quantize`, or if there is a temperature for a distribution.
        """
        if self._finished:
            raise RuntimeError("push: the round is finished; feedback comes next")
        if self._full or len(self._drafted) == self.max_tokens:
            return None
        if isinstance(logits, SparseDistribution):
            q = self._check_ready(logits, temperature)
        else:
            temperature = 1.0 if temperature is None else temperature
            q = self.quantize(logits, temperature=temperature)
        self.codec._engine.check(q)
        if self._drafted and not self._fits(q):
            self._full = True
            return None
        if self.keep._learns:
            assert q.dropped_mass is not None  # as was seen to
            self.keep.update(q.dropped_mass)
        token = q.sample(self.rng)
        self._drafted.append(_Drafted(q, token, self.keep.checkpoint()))
        return token

    def _check_ready(
        self, q: SparseDistribution, temperature: float | None
    ) -> SparseDistribution:
        """Check that a ready distribution is all that `push` needs."""
        if temperature is not None:
            raise TypeError(
                "push: a temperature goes with logits, not with a SparseDistribution, "
                "which is drawn from as it is"
            )
        if self.keep._learns and q.dropped_mass is None:
            raise ValueError(
                f"push: {self.keep} learns from the mass that each distribution "
                "dropped, and this one's dropped_mass is None"
            )
        return q

    def _fits(self, q: SparseDistribution) -> bool:
        """Say whether `q` and any token of it fit into the round.

        The packet is made for it: what a distribution takes depends on those before
        it, and there is no useful bound on that.
        """
        distributions = [*(d.distribution for d in self._drafted), q]
        if not self.codec._engine.holds([p.token_ids.size for p in distributions]):
            return False
        if self.budget_bits is None:
            return True
        rarest = int(q.token_ids[q.counts.argmin()])  # no other token takes more bits
        round_ = Round(distributions, [*(d.token for d in self._drafted), rarest])
        encoder = self.codec if self.stream is None else copy.copy(self.stream)
        return 8 * len(encoder.encode_round(round_)) <= self.budget_bits

    def finish(self) -> bytes:
        """Return the round's packet."""
        if self._finished:
            raise RuntimeError("finish: already called; feedback comes next")
        if self._left:
            raise RuntimeError("finish: the round leaves in segments")
        if not self._drafted:
            raise RuntimeError("finish: nothing was drafted; push comes first")
        encoder = self.codec if self.stream is None else self.stream
        self._encoded = True
        data = encoder.encode_round(
            [d.distribution for d in self._drafted], [d.token for d in self._drafted]
        )
        self._finished = True
        self._left = len(self._drafted)
        return data

    def segment(self) -> Round:
        """Return what was drafted since the last segment, for the caller to send.

        In place of `finish`, if a round is to leave in parts: the next `push` goes
        on with the same round. A budget counts as if it were one packet. A `stream`
        makes packets of whole rounds only, so there must be none.
        """
        if self.stream is not None:
            raise RuntimeError("segment: a stream's rounds leave whole, by finish")
        if self._finished:
            raise RuntimeError("segment: the round is finished; feedback comes next")
        new = self._drafted[self._left :]
        if not new:
            raise RuntimeError("segment: nothing new was drafted; push comes first")
        self._left = len(self._drafted)
        return Round([d.distribution for d in new], [d.token for d in new])

    def feedback(self, accepted: int | Verdict) -> None:
        """Take the cloud's answer and start the next round.

        Parameters
        ----------
        accepted : int or Verdict
            How many of the drafted tokens the cloud accepted, or its verdict. At
            most those that have left; what was drafted after them is given up.
        """
        if not self._left:
            raise RuntimeError("feedback: finish or segment comes first")
        if isinstance(accepted, Verdict):
            accepted = accepted.accepted
        elif isinstance(accepted, Wanted):
            raise TypeError(
                f"feedback: {accepted} is no verdict yet; verify the round again with "
                "that distribution"
            )
        accepted = checks.in_range("accepted", accepted, 0, self._left)
        self.keep.rollback(self._drafted[min(accepted, self._left - 1)].state)
        self._start()

    def abort(self) -> None:
        """Give the round up and start the next one.

        At any time: after an error or an interrupt, when the user has stopped the
        text, or when no answer comes to a packet. What `keep` learned from the
        round is taken back. If `finish` was called and there is a `stream`, its
        next packet is self-contained, as the cloud may have decoded this round's
        or not.
        """
        self.keep.rollback(self._start_state)
        if self.stream is not None and self._encoded:
            self.stream.restart()
        self._start()
