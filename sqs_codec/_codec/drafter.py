"""The edge's side of a round."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import overload

import numpy as np
from numpy.typing import ArrayLike

from sqs_codec._base import checks
from sqs_codec._base.format import MAX_ENTROPY_SURVIVORS, MAX_ROUND, MAX_SURVIVORS
from sqs_codec._codec.bounds import entropy_bits_bound
from sqs_codec._codec.codec import Codec
from sqs_codec._codec.distribution import SparseDistribution
from sqs_codec._codec.keep import Keep, limits_of
from sqs_codec._codec.round import arrays_of
from sqs_codec._codec.sampling import Sampling
from sqs_codec._codec.verify import Verdict

ROW_TYPES: dict[type, Callable[..., SparseDistribution]] = {}
"""What quantizes rows of logits that are no arrays, by their type. An adapter above
adds its own: tensors are here once `sqs_codec.torch` is imported."""

LAST_BYTE = 8
"""Bits that an entropy packet has beyond those spent, at most."""
MORE, NO_MORE = 1, 2
"""Bits that say whether another position follows, at most."""
FIELDS = 8 + 7
"""Bits of the length, and of the padding at most, in the other codings."""


class Drafter:
    """Draft rounds within a budget of uplink bits.

    A round is `push` for each token, then `finish`, then `feedback`; any other
    order is a RuntimeError, but `abort` may come at any time. The first `push` of
    a round always drafts. Later ones draft as long as the round's packet, padding
    included, stays within the budget and the coding's limits; then the round is
    full. Whether `push` drafts depends on the distribution and never on the token
    drawn, which keeps the output exact: there must be room for any token of the
    distribution.

    What `keep` learns is this drafter's `state`. It learns from every drafted token at
    once, and `feedback` takes back what it learned from positions that did not get into
    the text. The positions that did are the accepted ones and, after a rejection, the
    one at which the cloud resampled: its distribution was judged in a context that
    stays. If n of L tokens were accepted, the state becomes what it was after
    min(n + 1, L) tokens.

    Parameters
    ----------
    codec : Codec
    keep : Keep
        Which tokens to keep.
    rng : numpy.random.Generator
        Draws the tokens. It has to be independent of the one that `verify` is
        given: two generators of one seed aren't.
    budget_bits : int, optional
        Uplink bits of a round. No limit if None. Near it, where the bound on what
        distributions take leaves it open, `push` encodes the round so far to know.
    max_tokens : int
        Drafted tokens of a round at most, 1 to 256.
    max_survivors : int, optional
        Tokens in the supports of a round's distributions at most, summed, as a cloud
        gives it to `Codec.decode_round`; a first distribution may have more. No limit
        but the coding's if None.

    Examples
    --------
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
        max_survivors: int | None = None,
    ) -> None:
        checks.instance("codec", codec, Codec, "a Codec")
        checks.generator(rng)
        limits_of(keep)  # says what is wrong with it
        if budget_bits is not None:
            budget_bits = checks.in_range("budget_bits", budget_bits, 1)
        if max_survivors is not None:
            max_survivors = checks.in_range("max_survivors", max_survivors, 1)
        self._codec = codec
        self._keep = keep
        self._rng = rng
        self._budget_bits = budget_bits
        self._max_tokens = checks.in_range("max_tokens", max_tokens, 1, MAX_ROUND)
        self._max_survivors = max_survivors
        self._entropy = codec.coding == "entropy"
        most = MAX_ENTROPY_SURVIVORS if self._entropy else MAX_SURVIVORS
        self._most = most if max_survivors is None else min(most, max_survivors)
        self._sampling: Sampling | None = None  # sessions truncate
        self._start(keep.start())

    def __repr__(self) -> str:
        return (
            f"<Drafter of {self._codec}, {self._keep}: {len(self._tokens)} of at most "
            f"{self._max_tokens} tokens drafted>"
        )

    def _start(self, state: float) -> None:
        # Before the first of them, and after each; first, as an interrupt may follow.
        self._states = [state]
        self._full = False
        self._finished = False
        self._distributions: list[SparseDistribution] = []
        self._positions: list[int] = []
        self._tokens: list[int] = []
        self._sizes: list[int] = []
        # What the packet takes at most.
        self._bits = LAST_BYTE + NO_MORE if self._entropy else FIELDS

    @property
    def codec(self) -> Codec:
        """What both ends agree on."""
        return self._codec

    @property
    def keep(self) -> Keep:
        """Which tokens it keeps."""
        return self._keep

    @property
    def rng(self) -> np.random.Generator:
        """What draws the tokens."""
        return self._rng

    @property
    def budget_bits(self) -> int | None:
        """Uplink bits of a round; None is no limit."""
        return self._budget_bits

    @property
    def max_tokens(self) -> int:
        """Drafted tokens of a round at most."""
        return self._max_tokens

    @property
    def max_survivors(self) -> int | None:
        """Tokens in the supports of a round at most; None is no limit."""
        return self._max_survivors

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens drafted so far in this round."""
        return tuple(self._tokens)

    @property
    def state(self) -> float:
        """What `keep` has learned so far: of `Conformal` the threshold."""
        return self._states[-1]

    @property
    def distributions(self) -> tuple[SparseDistribution, ...]:
        """The distributions that they were drawn from."""
        return tuple(self._distributions)

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
        """Draft the next token; None if the round is full.

        Parameters
        ----------
        logits : array_like of float16, float32 or float64 [vocab_size]
            The draft model's, given the text and the tokens drafted so far. Or a
            torch.Tensor, as `sqs_codec.torch.quantize` takes it, once `sqs_codec.torch`
            is imported; or a ready
            SparseDistribution, to which `keep` isn't applied. If `keep` learns, the
            distribution must have its `dropped_mass`.
        temperature : float, optional
            1 if not given. It doesn't go with a ready distribution.

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
        if self._full or len(self._tokens) == self._max_tokens:
            return None
        if isinstance(logits, SparseDistribution):
            q = self._check_ready(logits, temperature)
        else:
            keep, t = self._keep, 1.0 if temperature is None else temperature
            quantize_row = Codec._quantize
            for kind, quantize_other in ROW_TYPES.items():
                if isinstance(logits, kind):
                    quantize_row = quantize_other
            q = quantize_row(
                self._codec, logits, keep, t, sampling=self._sampling, state=self.state
            )
        if q is logits or q._token_ids.size > self._codec.max_survivors:
            self._codec._check(q)
        bits = self._bits_with(q)
        if bits is None:
            if self._tokens:
                self._full = True
                return None
            bits = self._bits_of_large(q)
        return self._draw(q, bits)

    def _bits_of_large(self, q: SparseDistribution) -> int:
        """Return the bits of a round whose first is beyond a limit; sessions refuse."""
        return LAST_BYTE + (self._budget_bits or 0)

    def _draw(self, q: SparseDistribution, bits: int) -> int:
        """Draft a token of `q`, with which the packet takes so many bits at most."""
        position = q._draw(self._rng)
        state = self._states[-1]
        if self._keep._learns:
            assert q.dropped_mass is not None  # as was seen to
            state = self._keep.next(state, q.dropped_mass)
        token = int(q._token_ids[position])
        self._states.append(state)
        self._distributions.append(q)
        self._positions.append(position)
        self._tokens.append(token)
        self._sizes.append(q._token_ids.size)
        self._bits = bits
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
        if self._keep._learns and q.dropped_mass is None:
            raise ValueError(
                f"push: {self._keep} learns from the mass that each distribution "
                "dropped, and this one's dropped_mass is None"
            )
        return q

    def _bits_with(self, q: SparseDistribution) -> int | None:
        """Return the most bits a packet takes with a token of `q`, None if too many."""
        size = q._token_ids.size
        sizes = [*self._sizes, size]
        if sum(sizes) > self._most or not (self._entropy or self._codec._holds(sizes)):
            return None
        if self._budget_bits is None:
            return 0
        bits = self._bits
        if self._entropy:
            bits += _entropy_position(q._vocab_size, size, q._resolution)
        else:
            bits += self._codec._core.bits(q._token_ids, q._counts)
            bits += (size - 1).bit_length()
        if bits // 8 <= self._budget_bits // 8:
            return bits
        if not self._entropy:  # where that is what it takes
            return None
        rarest = int(q.counts.argmin())  # no other token takes more bits
        packet = self._encode([*self._distributions, q], [*self._positions, rarest])
        bits = 8 * len(packet)
        return bits + LAST_BYTE if bits <= self._budget_bits else None

    def finish(self) -> bytes:
        """Return the round's packet."""
        if self._finished:
            raise RuntimeError("finish: already called; feedback comes next")
        if not self._tokens:
            raise RuntimeError("finish: nothing was drafted; push comes first")
        data = self._encode(self._distributions, self._positions)
        self._finished = True
        return data

    def _encode(
        self, distributions: list[SparseDistribution], positions: list[int]
    ) -> bytes:
        return self._codec._core.encode_round(arrays_of(distributions, positions))

    def feedback(self, accepted: int | Verdict) -> None:
        """Take the cloud's verdict, or how many it accepted; start the next round."""
        if not self._finished:
            raise RuntimeError("feedback: finish comes first")
        if isinstance(accepted, Verdict):
            accepted = accepted.accepted
        accepted = checks.in_range("accepted", accepted, 0, len(self._tokens))
        self._start(self._states[min(accepted + 1, len(self._tokens))])

    def abort(self) -> None:
        """Give the round up and start the next one.

        At any time: after an error or an interrupt, when the user has stopped the
        text, or when no answer comes to a packet. What `keep` learned from the
        round is taken back.
        """
        self._start(self._states[0])


@lru_cache(maxsize=4096)
def _entropy_position(vocab_size: int, size: int, resolution: int) -> int:
    """Return the most bits that a distribution and a token of it take in a round."""
    token = (resolution - 1).bit_length()  # of a count of 1
    return entropy_bits_bound(vocab_size, size, resolution) + token + MORE
