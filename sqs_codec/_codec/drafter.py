"""The edge's side of a round: drafting within a budget."""

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
"""Functions that quantize other types than arrays. Importing `sqs_codec.torch` adds
tensors."""

LAST_BYTE = 8  # bits to end an entropy packet, at most
MORE = 1  # bits of the flag that another position follows, at most
NO_MORE = 2  # bits of the flag that none follows, at most
FIELDS = 8 + 7  # bits of the length and the padding in the other codings, at most


class Drafter:
    """Draft rounds within a budget of uplink bits.

    Call `push` for each token, then `finish`, then `feedback`. Any other order is a
    RuntimeError, except that `abort` is always allowed. The first `push` of a round
    always drafts. Later ones draft while the round's packet, padding included, stays
    within the budget and the coding's limits; then the round is full. To keep the
    output distribution exact, `push` decides before it samples: there must be room for
    any token of the distribution.

    The drafter's `state` is what `keep` has learned. It changes with every drafted
    token, and `feedback` rolls it back to the positions that the cloud verified: the
    accepted ones and, after a rejection, the resampled one. If n of L tokens were
    accepted, the state becomes what it was after min(n + 1, L) tokens.

    Parameters
    ----------
    keep : Keep
        Which tokens to keep.
    rng : numpy.random.Generator
        Samples the tokens. It must be independent of the generator for `verify`: two
        generators with the same seed aren't.
    budget_bits : int, optional
        Uplink bits of a round; unlimited if None. If a bound on the packet's size
        exceeds the budget, `push` encodes the round to get the exact size.
    max_tokens : int
        Drafted tokens per round at most, 1 to 256.
    max_survivors : int, optional
        Limit on the sum of a round's support sizes, equal to the one that the cloud
        passes to `Codec.decode_round`. The first distribution may exceed it. If None,
        only the coding's limits apply.

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
        limits_of(keep)  # raises if it is invalid
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
        self._sampling: Sampling | None = None  # set by sessions
        self._start(keep.start())

    def __repr__(self) -> str:
        return (
            f"<Drafter of {self._codec}, {self._keep}: {len(self._tokens)} of at most "
            f"{self._max_tokens} tokens drafted>"
        )

    def _start(self, state: float) -> None:
        # The states before and after each token. Set first, in case of an interrupt.
        self._states = [state]
        self._full = False
        self._finished = False
        self._distributions: list[SparseDistribution] = []
        self._positions: list[int] = []
        self._tokens: list[int] = []
        self._sizes: list[int] = []
        self._bits = LAST_BYTE + NO_MORE if self._entropy else FIELDS  # at most

    @property
    def codec(self) -> Codec:
        """The codec."""
        return self._codec

    @property
    def keep(self) -> Keep:
        """The keep rule."""
        return self._keep

    @property
    def rng(self) -> np.random.Generator:
        """The generator that samples the tokens."""
        return self._rng

    @property
    def budget_bits(self) -> int | None:
        """Uplink bits of a round; None if unlimited."""
        return self._budget_bits

    @property
    def max_tokens(self) -> int:
        """Drafted tokens per round, at most."""
        return self._max_tokens

    @property
    def max_survivors(self) -> int | None:
        """Limit on the sum of a round's support sizes, or None."""
        return self._max_survivors

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens drafted so far in this round."""
        return tuple(self._tokens)

    @property
    def state(self) -> float:
        """The state of `keep`, such as the threshold of `Conformal`."""
        return self._states[-1]

    @property
    def distributions(self) -> tuple[SparseDistribution, ...]:
        """The distributions that `tokens` were sampled from."""
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
            The draft model's logits after the tokens drafted so far. Also a
            torch.Tensor, as for `sqs_codec.torch.quantize`, after importing
            `sqs_codec.torch`; or a SparseDistribution, to which `keep` isn't applied.
            If `keep` learns, it must have a `dropped_mass`.
        temperature : float, optional
            1 if not given. Not allowed with a SparseDistribution.

        Raises
        ------
        ValueError
            As `Codec.quantize` and `Codec.encode`, or if `keep` learns and
            `dropped_mass` is None. The drafter stays unchanged.
        TypeError
            As `Codec.quantize`, or if a temperature is given with a distribution.
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
            given = logits, keep, t, False, self._sampling, self._states[-1]
            q = quantize_row(self._codec, *given)
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
        """Return the bits of a first distribution over a limit; sessions reject it."""
        return LAST_BYTE + (self._budget_bits or 0)

    def _draw(self, q: SparseDistribution, bits: int) -> int:
        """Draft a token of `q`; the packet then has at most `bits` bits."""
        position = q._draw(self._rng)
        state = self._states[-1]
        if self._keep._learns:
            assert q.dropped_mass is not None  # checked by `push`
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
        """Check a SparseDistribution that was given to `push`."""
        if temperature is not None:
            raise TypeError(
                "push: a temperature applies to logits only, not to a "
                "SparseDistribution"
            )
        if self._keep._learns and q.dropped_mass is None:
            raise ValueError(
                f"push: {self._keep} learns from the dropped mass, but this "
                "distribution's dropped_mass is None"
            )
        return q

    def _bits_with(self, q: SparseDistribution) -> int | None:
        """Return a bound on the packet's bits with a token of `q`, None if too many."""
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
        if not self._entropy:  # the bound is exact
            return None
        rarest = int(q.counts.argmin())  # the token with the most bits
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
        """Start the next round after a verdict, or a number of accepted tokens."""
        if not self._finished:
            raise RuntimeError("feedback: finish comes first")
        if isinstance(accepted, Verdict):
            accepted = accepted.accepted
        accepted = checks.in_range("accepted", accepted, 0, len(self._tokens))
        self._start(self._states[min(accepted + 1, len(self._tokens))])

    def abort(self) -> None:
        """Discard the round and start the next one.

        Allowed at any time: after an error or interrupt, if the user stops, or if a
        packet gets no answer. The state becomes that before the round.
        """
        self._start(self._states[0])


@lru_cache(maxsize=4096)
def _entropy_position(vocab_size: int, size: int, resolution: int) -> int:
    """Return a bound on the bits of a distribution and its token in a round."""
    token = (resolution - 1).bit_length()  # a token with a count of 1
    return entropy_bits_bound(vocab_size, size, resolution) + token + MORE
