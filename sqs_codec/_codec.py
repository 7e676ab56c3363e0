"""The codec, and what it codes: distributions and rounds of them."""

from __future__ import annotations

import math
import operator
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from sqs_codec._backend import core_class, frozen
from sqs_codec._errors import Status, packet_error
from sqs_codec._format import (
    MAX_ENTROPY_SURVIVORS,
    MAX_ENUMERATIVE_SQUARES,
    MAX_ENUMERATIVE_SUPPORT,
    MAX_RESOLUTION,
    MAX_ROUND,
    MAX_VOCAB,
    MIN_VOCAB,
    SUM_TOLERANCE,
    TAIL_BYTES,
    TAIL_UNITS,
    VARIABLE,
    Coding,
)
from sqs_codec._keep import Keep
from sqs_codec._resolution import Resolution
from sqs_codec._threads import share, useful

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike, NDArray

__all__ = ["Codec", "DraftedTokens", "Round", "SparseDistribution"]

if TYPE_CHECKING:
    Array = NDArray[np.uint32]
    RoundArrays = tuple[Array, Array, Array, Array]

FLOATS = tuple(map(np.dtype, (np.float32, np.float16, np.float64)))


class SparseDistribution:
    """A distribution on the tokens of a vocabulary, as integer counts.

    The probability of token ``token_ids[i]`` is ``counts[i] / resolution``;
    every other token has probability 0. Immutable.

    Parameters
    ----------
    token_ids : array_like of int [k]
        Strictly ascending, below `vocab_size`.
    counts : array_like of int [k]
        All at least 1. Their sum is the resolution, at most 65 536.
    vocab_size : int
    dropped_mass : float, optional
        The probability that was dropped when the tokens were chosen. It is sent
        only by a codec with `tail_mass`, and otherwise None after decoding; it
        plays no part in ``==``.

    Examples
    --------
    >>> q = SparseDistribution([2, 7], [3, 1], vocab_size=10)
    >>> q.probs
    array([0.75, 0.25])
    >>> q.prob(7), q.prob(3)
    (0.25, 0.0)
    """

    __slots__ = ("_counts", "_dropped_mass", "_resolution", "_token_ids", "_vocab_size")

    def __init__(
        self,
        token_ids: ArrayLike,
        counts: ArrayLike,
        vocab_size: int,
        dropped_mass: float | None = None,
    ) -> None:
        ids = _as_uint32("token_ids", token_ids)
        occupancy = _as_uint32("counts", counts)
        vocab_size = _in_range("vocab_size", vocab_size, MIN_VOCAB, MAX_VOCAB)
        if ids.size != occupancy.size or ids.size == 0:
            raise ValueError(
                "expected as many token_ids as counts and at least one, "
                f"got {ids.size} and {occupancy.size}"
            )
        if np.any(ids[1:] <= ids[:-1]):
            raise ValueError("token_ids must be strictly ascending")
        if ids[-1] >= vocab_size:
            raise ValueError(
                f"token id {ids[-1]} lies outside the vocabulary of {vocab_size}"
            )
        if not occupancy.all():
            raise ValueError("counts must all be at least 1")
        resolution = int(occupancy.sum(dtype=np.uint64))
        if resolution > MAX_RESOLUTION:
            raise ValueError(
                f"counts must sum to at most {MAX_RESOLUTION}, got {resolution}"
            )
        if dropped_mass is not None:
            dropped_mass = float(dropped_mass)
            if not 0 <= dropped_mass <= 1:
                raise ValueError(f"dropped_mass must be in [0, 1], got {dropped_mass}")
        self._set(frozen(ids), frozen(occupancy), vocab_size, resolution, dropped_mass)

    def _set(
        self,
        token_ids: NDArray[np.uint32],
        counts: NDArray[np.uint32],
        vocab_size: int,
        resolution: int,
        dropped_mass: float | None,
    ) -> None:
        self._token_ids = token_ids
        self._counts = counts
        self._vocab_size = vocab_size
        self._resolution = resolution
        self._dropped_mass = dropped_mass

    @classmethod
    def _from_core(
        cls,
        token_ids: NDArray[np.uint32],
        counts: NDArray[np.uint32],
        codec: Codec,
        dropped_mass: float | None = None,
    ) -> SparseDistribution:
        """Wrap frozen arrays that a core vouches for."""
        resolution = codec.resolution
        if isinstance(resolution, Resolution):
            resolution = int(counts.sum())
        q = cls.__new__(cls)
        q._set(token_ids, counts, codec.vocab_size, resolution, dropped_mass)
        return q

    @property
    def token_ids(self) -> NDArray[np.uint32]:
        """The support, uint32 [k], ascending, read-only."""
        return self._token_ids

    @property
    def counts(self) -> NDArray[np.uint32]:
        """Counts of the tokens in the support, uint32 [k], read-only."""
        return self._counts

    @property
    def vocab_size(self) -> int:
        """How many tokens the vocabulary has."""
        return self._vocab_size

    @property
    def resolution(self) -> int:
        """The sum of the counts."""
        return self._resolution

    @property
    def dropped_mass(self) -> float | None:
        """The probability of the tokens not kept; None if it wasn't sent."""
        return self._dropped_mass

    @property
    def probs(self) -> NDArray[np.float64]:
        """Probabilities of the tokens in the support, float64 [k]."""
        return self._counts / np.float64(self._resolution)

    def prob(self, token: int) -> float:
        """Return the probability of a token; ValueError outside the vocabulary."""
        position = self._position(token)
        if position is None:
            return 0.0
        return int(self._counts[position]) / self._resolution

    def _position(self, token: int) -> int | None:
        """Return where the support holds a token; ValueError as `prob`."""
        token = operator.index(token)
        if not 0 <= token < self._vocab_size:
            raise ValueError(
                f"token {token} lies outside the vocabulary of {self._vocab_size}"
            )
        position = bisect_left(self._token_ids, token)  # of few, faster than numpy's
        if position < self._token_ids.size and self._token_ids[position] == token:
            return position
        return None

    def sample(self, rng: np.random.Generator) -> int:
        """Draw a token, with exactly the probabilities of the counts.

        Parameters
        ----------
        rng : numpy.random.Generator
            Asked for one integer in [0, resolution). It has to be independent
            of the one that `verify` is given: two generators of one seed aren't.
        """
        at = rng.integers(self._resolution)
        return int(self._token_ids[self._counts.cumsum().searchsorted(at, "right")])

    def to_dense(self, dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """Return the probabilities of the whole vocabulary, float [vocab_size]."""
        dense = np.zeros(self._vocab_size, dtype)
        if dense.dtype.kind != "f":
            raise TypeError(f"dtype must be a floating-point type, got {dense.dtype}")
        dense[self._token_ids] = self.probs
        return dense

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SparseDistribution):
            return NotImplemented
        return (
            self._vocab_size == other._vocab_size
            and np.array_equal(self._token_ids, other._token_ids)
            and np.array_equal(self._counts, other._counts)
        )

    def __hash__(self) -> int:
        return hash(
            (self._vocab_size, self._token_ids.tobytes(), self._counts.tobytes())
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return SparseDistribution, (
            self._token_ids,
            self._counts,
            self._vocab_size,
            self._dropped_mass,
        )

    def __repr__(self) -> str:
        return (
            f"<SparseDistribution of {self._token_ids.size} tokens, "
            f"resolution {self._resolution}, vocabulary {self._vocab_size}>"
        )


@dataclass(frozen=True)
class Round:
    """Distributions in drafting order and the token drawn from each.

    Parameters
    ----------
    distributions : sequence of SparseDistribution
        1 to 256 of them, of one vocabulary.
    tokens : sequence of int
        ``tokens[i]`` is in the support of ``distributions[i]``.
    """

    distributions: tuple[SparseDistribution, ...]
    tokens: tuple[int, ...]
    # Token ids, counts, sizes of supports and positions of the tokens in them, as
    # cores take them.
    _arrays: RoundArrays = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "distributions", tuple(self.distributions))
        object.__setattr__(self, "tokens", tuple(map(operator.index, self.tokens)))
        length = len(self.distributions)
        if not 1 <= length <= MAX_ROUND or len(self.tokens) != length:
            raise ValueError(
                f"a round holds 1 to {MAX_ROUND} distributions and a token of each, "
                f"got {length} distributions and {len(self.tokens)} tokens"
            )
        for i, q in enumerate(self.distributions):
            if not isinstance(q, SparseDistribution):
                raise TypeError(
                    f"distributions[{i}] must be a SparseDistribution, "
                    f"got {type(q).__name__}"
                )
        if len({q.vocab_size for q in self.distributions}) > 1:
            raise ValueError("distributions must share one vocabulary")
        positions = []
        for i, (q, token) in enumerate(
            zip(self.distributions, self.tokens, strict=True)
        ):
            position = q._position(token)
            if position is None:
                raise ValueError(
                    f"tokens[{i}] = {token} is not in the support of its distribution"
                )
            positions.append(position)
        arrays = (
            _joined([q._token_ids for q in self.distributions]),
            _joined([q._counts for q in self.distributions]),
            _words([q._counts.size for q in self.distributions]),
            _words(positions),
        )
        object.__setattr__(self, "_arrays", arrays)

    @classmethod
    def _from_core(cls, arrays: RoundArrays, codec: Codec) -> Round:
        """Wrap what a core vouches for."""
        ids, counts, _, _ = arrays
        distributions, tokens = [], []
        start = 0
        for n, position in zip(arrays[2].tolist(), arrays[3].tolist(), strict=True):
            part = slice(start, start + n)
            q = SparseDistribution._from_core(ids[part], counts[part], codec)
            distributions.append(q)
            tokens.append(int(ids[start + position]))
            start += n
        round_ = cls.__new__(cls)
        object.__setattr__(round_, "distributions", tuple(distributions))
        object.__setattr__(round_, "tokens", tuple(tokens))
        object.__setattr__(round_, "_arrays", arrays)
        return round_

    def __reduce__(self) -> tuple[Any, ...]:
        return Round, (self.distributions, self.tokens)

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class DraftedTokens:
    """Drafted tokens and their counts, without their distributions.

    Parameters
    ----------
    tokens, counts, resolutions : tuple of int
        The probability with which ``tokens[i]`` was drawn is ``counts[i] /
        resolutions[i]``. 1 to 256 of each.
    """

    tokens: tuple[int, ...]
    counts: tuple[int, ...]
    resolutions: tuple[int, ...]

    def __post_init__(self) -> None:
        lengths = [len(self.tokens), len(self.counts), len(self.resolutions)]
        if not 1 <= lengths[0] <= MAX_ROUND or len(set(lengths)) > 1:
            raise ValueError(
                f"expected 1 to {MAX_ROUND} tokens with a count and a resolution each, "
                f"got {lengths[0]}, {lengths[1]} and {lengths[2]}"
            )

    @property
    def probs(self) -> NDArray[np.float64]:
        """Probabilities with which the tokens were drawn, float64 [L]."""
        return np.array(self.counts) / np.array(self.resolutions, np.float64)

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Codec:
    """What both ends agree on, and the functions between them.

    Immutable, hashable, picklable, and safe to share between threads.

    Parameters
    ----------
    vocab_size : int
        2 to 1 048 576.
    resolution : int or Resolution
        The sum of every distribution's counts, 1 to 65 536; or a rule by which
        each distribution gets its own, which it sends (``"entropy"`` only).
    coding : {"entropy", "enumerative", "bitpack"}
        ``"entropy"`` takes the fewest bits for what language models produce, and
        hardly more than ``"enumerative"`` for anything else. ``"enumerative"``
        packs a distribution into a single number, in the fewest bits that can
        tell apart all distributions with so many tokens; at most 1 024 tokens.
        ``"bitpack"`` uses fields of fixed width: simple to decode anywhere.
    tail_mass : bool
        Whether `encode` sends `SparseDistribution.dropped_mass`, in 2 bytes, to
        the nearest multiple of 1/65 536. Rounds never do: `verify` has no use
        for it.

    Examples
    --------
    >>> import numpy as np
    >>> import sqs_codec as sqs
    >>> codec = sqs.Codec(vocab_size=8, resolution=10)
    >>> logits = np.array([0, 5, 1, -np.inf, 4, 0, 0, 0], np.float32)
    >>> q = codec.quantize(logits, sqs.TopK(3), temperature=0.8)
    >>> q.token_ids, q.counts
    (array([1, 4], dtype=uint32), array([8, 2], dtype=uint32))
    >>> data = codec.encode(q)
    >>> len(data), codec.bits(q)
    (2, 12)
    >>> codec.decode(data) == q
    True
    """

    vocab_size: int
    resolution: int | Resolution = 100
    coding: str = "entropy"
    tail_mass: bool = False

    def __post_init__(self) -> None:
        vocab_size = _in_range("vocab_size", self.vocab_size, MIN_VOCAB, MAX_VOCAB)
        object.__setattr__(self, "vocab_size", vocab_size)
        if not isinstance(self.resolution, Resolution):
            resolution = _in_range("resolution", self.resolution, 1, MAX_RESOLUTION)
            object.__setattr__(self, "resolution", resolution)
        if not isinstance(self.tail_mass, bool):
            raise TypeError(f"tail_mass must be True or False, got {self.tail_mass!r}")
        names = [coding.name.lower() for coding in Coding]
        if self.coding not in names:
            raise ValueError(f"coding must be one of {names}, got {self.coding!r}")
        if isinstance(self.resolution, Resolution) and self.coding != "entropy":
            raise ValueError(
                f"coding {self.coding!r} needs a number for its resolution; only "
                "'entropy' can send one with each distribution"
            )

    @cached_property
    def _core(self) -> Any:
        coding, rule = Coding[self.coding.upper()], self.resolution
        if isinstance(rule, Resolution):
            return core_class()(self.vocab_size, VARIABLE, coding, rule.error)
        return core_class()(self.vocab_size, rule, coding, 0.0)

    def __reduce__(self) -> tuple[Any, ...]:
        return Codec, (self.vocab_size, self.resolution, self.coding, self.tail_mass)

    @property
    def max_support(self) -> int:
        """The most tokens that a packet of this codec can hold."""
        resolution = self.resolution
        if isinstance(resolution, Resolution):
            resolution = MAX_RESOLUTION
        most = min(self.vocab_size, resolution)
        if self.coding == "enumerative":
            return min(most, MAX_ENUMERATIVE_SUPPORT)
        return most

    def quantize(
        self,
        logits: ArrayLike,
        keep: Keep,
        temperature: float = 1.0,
        bits_per_tv: float | None = None,
    ) -> SparseDistribution:
        """Sparsify and quantize ``softmax(logits / temperature)``.

        Parameters
        ----------
        logits : array_like of float16, float32 or float64 [vocab_size]
            ``-inf`` masks a token.
        keep : Keep
            Which tokens to keep. Its state isn't changed.
        temperature : float
            At 0 the most probable token gets all counts.
        bits_per_tv : float, optional
            How many bits a total variation of 1 between row and result is worth.
            Tokens are then left out where that saves more bits than it costs,
            and of a `Resolution` the power of two that pays best is taken. From
            300 (few bits) to 10 000 is useful; to be combined with a `keep` that
            keeps a few more tokens than are worth sending. `dropped_mass` stays
            that of `keep`, as it is what `Conformal` steers, and doesn't count
            what is left out here. Needs ``"entropy"``.

        Returns
        -------
        SparseDistribution
            The nearest point of the lattice to the renormalised tokens kept,
            without those whose count came out as 0; with `bits_per_tv`, the
            point found to have the least sum of its bits and what its distance
            is worth.

        Raises
        ------
        ValueError
            If the shape doesn't fit, a value is NaN or +inf, or all are -inf.
        TypeError
            If the dtype isn't one of those above.

        Notes
        -----
        The same logits give the same result on every machine, in the default
        floating-point environment: `torch.set_flush_denormal`, for one, makes
        logits below 1e-38 equal to 0.
        """
        return self._quantize_row(logits, keep, temperature, bits_per_tv, mass=True)

    def _quantize_row(
        self,
        logits: ArrayLike,
        keep: Keep,
        temperature: float,
        bits_per_tv: float | None,
        mass: bool,
    ) -> SparseDistribution:
        """Do what `quantize` does, without dropped mass if not `mass`."""
        row = self._row("logits", logits)
        options = self._options(keep, temperature, bits_per_tv, mass)
        status, _, pairs, masses = self._core.quantize_logits(row, *options)
        if status:
            raise self._rows_error(row[None], (), 0, status)
        ids, counts = pairs[0]
        dropped = masses[0] if mass else None
        return SparseDistribution._from_core(ids, counts, self, dropped)

    def _quantize_rows(
        self,
        rows: NDArray[Any],
        shape: Sequence[int],
        keep: Keep,
        temperature: float,
        bits_per_tv: float | None,
        threads: int = 1,
    ) -> list[SparseDistribution]:
        call = self._core.quantize_logits
        options = self._options(keep, temperature, bits_per_tv, True)
        pairs, masses = self._run(call, rows, shape, options, threads)
        return [
            SparseDistribution._from_core(ids, counts, self, mass)
            for (ids, counts), mass in zip(pairs, masses, strict=True)
        ]

    def _options(
        self, keep: Keep, temperature: float, bits_per_tv: float | None, mass: bool
    ) -> tuple[float, Keep, float, bool]:
        """Check what a core takes beside rows of logits."""
        temperature = _check_temperature(temperature)
        _check_keep(keep)
        return temperature, keep, self._price(bits_per_tv), mass

    def _run(
        self,
        call: Callable[..., tuple[int, int, list[Any], list[float]]],
        rows: NDArray[Any],
        shape: Sequence[int],
        options: tuple[Any, ...],
        threads: int,
    ) -> tuple[list[Any], list[float]]:
        """Return what a core makes of rows of logits, and their dropped masses.

        The shape is what the rows had before they were put one after the other.
        """
        results = share(
            lambda start, end: call(rows[start:end], *options), len(rows), threads
        )
        before = 0
        for status, done, _, _ in results:
            if status != Status.OK:
                raise self._rows_error(rows, shape, before + done, status)
            before += done
        return (
            [one for _, _, found, _ in results for one in found],
            [mass for _, _, _, masses in results for mass in masses],
        )

    def _rows_error(
        self, rows: NDArray[Any], shape: Sequence[int], done: int, status: int
    ) -> ValueError:
        """Describe what a core found wrong with the row after those done."""
        index = [int(i) for i in np.unravel_index(done, shape)] if shape else ""
        name = f"logits{index}"
        if status == Status.LARGE_SUPPORT:
            return ValueError(
                f"{name}: coding {self.coding!r} holds at most {self.max_support} "
                "tokens; keep fewer, lower the resolution or use 'entropy'"
            )
        return _row_error(name, rows[done], status)

    def quantize_probs(
        self, probs: ArrayLike, keep: Keep, bits_per_tv: float | None = None
    ) -> SparseDistribution:
        """Sparsify and quantize a distribution that is there already.

        Parameters
        ----------
        probs : array_like of float16, float32 or float64 [vocab_size]
            Non-negative, summing to 1 within 0.001.
        keep : Keep
            Which tokens to keep. Its state isn't changed.
        bits_per_tv : float, optional
            As for `quantize`.

        Returns
        -------
        SparseDistribution

        Raises
        ------
        ValueError
            If the shape doesn't fit or the values are no distribution.
        TypeError
            If the dtype isn't one of those above.

        Examples
        --------
        >>> import sqs_codec as sqs
        >>> codec = sqs.Codec(vocab_size=4, resolution=8)
        >>> codec.quantize_probs([0.5, 0.25, 0.25, 0.0], sqs.TopK(2)).counts
        array([5, 3], dtype=uint32)
        """
        row = self._row("probs", probs)
        _check_keep(keep)
        price = self._price(bits_per_tv)
        status, ids, counts, dropped = self._core.quantize_probs(row, keep, price)
        if status != Status.OK:
            raise _row_error("probs", row, status)
        return SparseDistribution._from_core(ids, counts, self, dropped)

    def encode_logits(
        self,
        logits: ArrayLike,
        keep: Keep,
        temperature: float = 1.0,
        bits_per_tv: float | None = None,
    ) -> bytes:
        """Return the packet of what `quantize` makes of logits.

        The same bytes as ``encode(quantize(...))``, in less time: nothing is made
        in between, and with `TopK` most of the work is to read the logits once, as
        the dropped mass is left out.

        Parameters and errors are those of `quantize` and `encode`.

        Examples
        --------
        >>> import numpy as np
        >>> import sqs_codec as sqs
        >>> codec = sqs.Codec(vocab_size=8, resolution=10)
        >>> logits = np.array([0, 5, 1, -np.inf, 4, 0, 0, 0], np.float32)
        >>> data = codec.encode_logits(logits, sqs.TopK(3), temperature=0.8)
        >>> data == codec.encode(codec.quantize(logits, sqs.TopK(3), 0.8))
        True
        """
        row = self._row("logits", logits)
        options = self._options(keep, temperature, bits_per_tv, self.tail_mass)
        status, _, packets, masses = self._core.encode_logits(row, *options)
        if status:
            raise self._rows_error(row[None], (), 0, status)
        packet: bytes = packets[0]
        return packet + _tail(masses[0]) if self.tail_mass else packet

    def _encode_rows(
        self,
        rows: NDArray[Any],
        shape: Sequence[int],
        keep: Keep,
        temperature: float,
        bits_per_tv: float | None,
        threads: int = 1,
    ) -> list[bytes]:
        call = self._core.encode_logits
        options = self._options(keep, temperature, bits_per_tv, self.tail_mass)
        packets, masses = self._run(call, rows, shape, options, threads)
        if not self.tail_mass:
            return packets
        return [
            packet + _tail(mass) for packet, mass in zip(packets, masses, strict=True)
        ]

    def quantize_batch(
        self,
        logits: ArrayLike,
        keep: Keep,
        temperature: float = 1.0,
        bits_per_tv: float | None = None,
        *,
        threads: int = 1,
    ) -> list[SparseDistribution]:
        """Sparsify and quantize rows of logits, as `quantize` does each of them.

        Parameters
        ----------
        logits : array_like of float16, float32 or float64 [B, vocab_size]
            Not copied if every row is contiguous, whatever lies between rows.
        keep : Keep
            Which tokens to keep. The same state serves all rows and isn't changed.
        temperature : float
        bits_per_tv : float, optional
            As for `quantize`.
        threads : int
            How many threads share the rows, which pays where a thread's share takes
            over a tenth of a millisecond. Other Python threads run meanwhile in any
            case.

        Returns
        -------
        list of SparseDistribution [B]

        Raises
        ------
        ValueError, TypeError
            As `quantize`; the message names the row.
        """
        rows = self._rows("logits", logits)
        threads = _check_threads(threads, len(rows))
        shape = (len(rows),)
        return self._quantize_rows(rows, shape, keep, temperature, bits_per_tv, threads)

    def encode_batch(
        self,
        logits: ArrayLike,
        keep: Keep,
        temperature: float = 1.0,
        bits_per_tv: float | None = None,
        *,
        threads: int = 1,
    ) -> list[bytes]:
        """Return the packets of rows of logits, as `encode_logits` has each of them.

        Parameters and errors are those of `quantize_batch` and `encode`.
        """
        rows = self._rows("logits", logits)
        threads = _check_threads(threads, len(rows))
        shape = (len(rows),)
        return self._encode_rows(rows, shape, keep, temperature, bits_per_tv, threads)

    def bits(self, q: SparseDistribution) -> int:
        """Return the bits of a distribution, before padding to a byte.

        Exact for ``"enumerative"`` and ``"bitpack"``. For ``"entropy"`` it is what
        `encode` spends to within a bit, in half the time if `q` has at most 128
        tokens and is like what language models give. In a round a distribution
        takes less if it shares tokens with those before it.
        """
        self._check(q)
        bits = self._bits(q)
        return bits + 8 * TAIL_BYTES if self.tail_mass else bits

    def _bits(self, q: SparseDistribution) -> int:
        """Return the bits without those of the tail mass."""
        return int(self._core.bits(q.token_ids, q.counts))

    def token_bits(self, q: SparseDistribution) -> int:
        """Return the most bits that a token drawn from `q` can take in a round.

        To stop drafting because the token drawn is a dear one would change the
        distribution of those that are sent, so plan with this.
        """
        self._check(q)
        if self.coding == "entropy":
            return int(-(-q.resolution // int(q.counts.min())) - 1).bit_length()
        return int(q.token_ids.size - 1).bit_length()

    def encode(self, q: SparseDistribution) -> bytes:
        """Return the packet of one distribution.

        Raises
        ------
        ValueError
            If `q` has another vocabulary or resolution than the codec, more
            tokens than its coding can hold, or no `dropped_mass` to send.
        """
        self._check(q)
        tail = b""
        if self.tail_mass:
            if q.dropped_mass is None:
                raise ValueError(
                    "the codec sends the tail mass, but q has no dropped_mass"
                )
            tail = _tail(q.dropped_mass)
        return bytes(self._core.encode(q.token_ids, q.counts)) + tail

    def decode(self, data: bytes) -> SparseDistribution:
        """Return the distribution of a packet.

        Parameters
        ----------
        data : bytes-like
            Exactly one packet. It may come from anywhere.

        Raises
        ------
        PacketError
            If the packet breaks a rule of the format.
        """
        packet = memoryview(data).tobytes()
        dropped = None
        end = len(packet)
        if self.tail_mass:
            end -= TAIL_BYTES
            if end < 0:
                raise packet_error(Status.TRUNCATED, len(packet))
            dropped = int.from_bytes(packet[end:], "big") / TAIL_UNITS
        status, ids, counts = self._core.decode(packet[:end])
        if status != Status.OK:
            raise packet_error(status, len(packet))
        return SparseDistribution._from_core(ids, counts, self, dropped)

    def encode_round(
        self, distributions: Sequence[SparseDistribution], tokens: Sequence[int]
    ) -> bytes:
        """Return the packet of a round.

        Parameters
        ----------
        distributions : sequence of SparseDistribution
            1 to 256 of them, in drafting order.
        tokens : sequence of int
            The token drawn from each.

        Raises
        ------
        ValueError
            If a distribution doesn't fit the codec or a token isn't in its
            distribution's support.
        """
        round_ = Round(tuple(distributions), tuple(tokens))
        return self._encode_round(round_, None)

    def _encode_round(self, round_: Round, memory: NDArray[np.uint32] | None) -> bytes:
        for q in round_.distributions:
            self._check(q)
        sizes = [q.token_ids.size for q in round_.distributions]
        if not self._round_holds(sizes):
            raise ValueError(
                f"too many tokens for one {self.coding!r} round: the sizes of its "
                f"supports sum to {sum(sizes)}, their squares to "
                f"{sum(k * k for k in sizes)}, and at most {MAX_ENTROPY_SURVIVORS} "
                f"('entropy') and {MAX_ENUMERATIVE_SQUARES} ('enumerative') are "
                "allowed; draft fewer tokens"
            )
        packet = self._core.encode_round(*round_._arrays, memory)
        return bytes(packet)

    def decode_round(self, data: bytes) -> Round:
        """Return the round of a packet.

        Parameters
        ----------
        data : bytes-like
            Exactly one packet. It may come from anywhere.

        Raises
        ------
        PacketError
            If the packet breaks a rule of the format.
        """
        return self._decode_round(memoryview(data).tobytes(), None)

    def _decode_round(self, packet: bytes, memory: NDArray[np.uint32] | None) -> Round:
        status, *arrays = self._core.decode_round(packet, memory)
        if status != Status.OK:
            raise packet_error(status, len(packet))
        return Round._from_core(tuple(arrays), self)

    def encode_tokens(
        self,
        tokens: Sequence[int],
        counts: Sequence[int],
        resolutions: Sequence[int] | None = None,
    ) -> bytes:
        """Return the packet of drafted tokens and their counts alone.

        For protocols that send a distribution only when it is needed: to accept a
        token or not takes only its own probability; the rest of its distribution
        is needed after a rejection.

        Parameters
        ----------
        tokens : sequence of int
            1 to 256 of them, in drafting order.
        counts : sequence of int
            The count of each in the distribution that it was drawn from.
        resolutions : sequence of int, optional
            Those of the distributions, if the codec has a rule for them.

        Raises
        ------
        ValueError
            If a token lies outside the vocabulary, or a count or resolution
            doesn't fit.

        Examples
        --------
        >>> codec = Codec(vocab_size=1000)
        >>> data = codec.encode_tokens([17, 4], [90, 38])
        >>> codec.decode_tokens(data).probs
        array([0.9 , 0.38])
        """
        given = [_as_ints("tokens", tokens), _as_ints("counts", counts)]
        if resolutions is not None:
            given.append(_as_ints("resolutions", resolutions))
        elif isinstance(self.resolution, Resolution):
            raise ValueError("resolutions must be given: the codec has a rule for them")
        else:
            given.append([self.resolution] * len(given[0]))
        length = len(given[0])
        if not 1 <= length <= MAX_ROUND or any(len(g) != length for g in given):
            raise ValueError(
                f"expected 1 to {MAX_ROUND} tokens with a count and a resolution each, "
                f"got {len(given[0])}, {len(given[1])} and {len(given[2])}"
            )
        for i, (token, count, resolution) in enumerate(zip(*given, strict=True)):
            if not 0 <= token < self.vocab_size:
                raise ValueError(
                    f"tokens[{i}] = {token} lies outside the vocabulary of "
                    f"{self.vocab_size}"
                )
            if not self._is_resolution(resolution):
                raise ValueError(
                    f"resolutions[{i}]: expected {self._resolution_text}, "
                    f"got {resolution}"
                )
            if not 1 <= count <= resolution:
                raise ValueError(f"counts[{i}] = {count} is not in [1, {resolution}]")
        return bytes(self._core.encode_tokens(*map(_words, given)))

    def decode_tokens(self, data: bytes) -> DraftedTokens:
        """Return the tokens and counts of a packet.

        Parameters
        ----------
        data : bytes-like
            Exactly one packet. It may come from anywhere.

        Raises
        ------
        PacketError
            If the packet breaks a rule of the format.
        """
        packet = memoryview(data).tobytes()
        status, *found = self._core.decode_tokens(packet)
        if status != Status.OK:
            raise packet_error(status, len(packet))
        return DraftedTokens(*(tuple(array.tolist()) for array in found))

    def _round_holds(self, sizes: Sequence[int]) -> bool:
        """Say whether supports of these sizes may share a round."""
        if self.coding == "entropy":
            return sum(sizes) <= MAX_ENTROPY_SURVIVORS
        squares = sum(k * k for k in sizes)
        return self.coding != "enumerative" or squares <= MAX_ENUMERATIVE_SQUARES

    def _row(self, name: str, values: ArrayLike) -> NDArray[np.floating]:
        """Return a contiguous row [V], itself if it is one."""
        row = _floats(name, values)
        if row.shape != (self.vocab_size,):
            raise ValueError(
                f"{name} must have shape ({self.vocab_size},), got {row.shape}"
            )
        if row.strides[0] == row.itemsize and row.flags.aligned:
            return row
        return np.require(row, requirements=["C_CONTIGUOUS", "ALIGNED"])

    def _rows(self, name: str, values: ArrayLike) -> NDArray[np.floating]:
        """Return rows [B, V], each of them contiguous."""
        rows = _floats(name, values)
        if rows.ndim != 2 or rows.shape[1] != self.vocab_size:
            raise ValueError(
                f"{name} must have shape (B, {self.vocab_size}), got {rows.shape}"
            )
        return _contiguous_rows(rows)

    def _price(self, bits_per_tv: float | None) -> float:
        """Return what the core takes: 0 is for None."""
        if bits_per_tv is None:
            return 0.0
        price = _as_float("bits_per_tv", bits_per_tv)
        if not 0 < price < float("inf"):
            raise ValueError(f"bits_per_tv must be finite and above 0, got {price}")
        if self.coding != "entropy":
            raise ValueError(
                f"bits_per_tv weighs the bits of coding 'entropy', not {self.coding!r}"
            )
        return price

    def _is_resolution(self, number: int) -> bool:
        if isinstance(self.resolution, Resolution):
            return 1 <= number <= MAX_RESOLUTION and number & (number - 1) == 0
        return number == self.resolution

    @property
    def _resolution_text(self) -> str:
        if isinstance(self.resolution, Resolution):
            return f"as resolution a power of two up to {MAX_RESOLUTION}"
        return f"resolution {self.resolution}"

    def _check(self, q: SparseDistribution) -> None:
        if not isinstance(q, SparseDistribution):
            raise TypeError(f"expected a SparseDistribution, got {type(q).__name__}")
        fits = self._is_resolution(q.resolution)
        if q.vocab_size != self.vocab_size or not fits:
            raise ValueError(
                f"expected vocabulary {self.vocab_size} and {self._resolution_text}, "
                f"got {q.vocab_size} and {q.resolution}"
            )
        if q.token_ids.size > self.max_support:
            raise ValueError(
                f"coding {self.coding!r} holds at most {self.max_support} tokens, got "
                f"{q.token_ids.size}; keep fewer, lower the resolution or use 'entropy'"
            )


def _floats(name: str, values: ArrayLike) -> NDArray[np.floating]:
    """Return an array of floats in the machine's byte order."""
    array = np.asarray(values)
    if array.dtype in FLOATS:
        return array
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype not in FLOATS:
        raise TypeError(
            f"{name} must be float16, float32 or float64, got {array.dtype}"
        )
    return array


def _contiguous_rows(rows: NDArray[Any]) -> NDArray[Any]:
    """Return rows [B, V] that cores take, without a copy if these are."""
    between, within = rows.strides
    steps, rest = divmod(between, rows.itemsize)
    if within == rows.itemsize and steps >= 0 and not rest and rows.flags.aligned:
        return rows
    return np.require(rows, requirements=["C_CONTIGUOUS", "ALIGNED"])


def _check_threads(threads: int, rows: int) -> int:
    """Return how many threads have something to do."""
    threads = _as_int("threads", threads)
    if threads < 1:
        raise ValueError(f"threads must be at least 1, got {threads}")
    return useful(threads, rows)


def _tail(dropped_mass: float) -> bytes:
    """Return the two bytes of a dropped mass."""
    units = min(round(dropped_mass * TAIL_UNITS), TAIL_UNITS - 1)
    return units.to_bytes(TAIL_BYTES, "big")


def _joined(arrays: Sequence[NDArray[np.uint32]]) -> NDArray[np.uint32]:
    """Return one array of all; np.concatenate takes three times as long."""
    return np.frombuffer(b"".join([array.data for array in arrays]), np.uint32)


def _words(values: Sequence[int]) -> NDArray[np.uint32]:
    return np.array(values, np.uint32)


def _check_keep(keep: Keep) -> None:
    if not isinstance(keep, Keep):
        raise TypeError(
            f"keep must be a rule such as TopK(64), got {type(keep).__name__}"
        )


def _as_int(name: str, value: int) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None


def _as_ints(name: str, values: Sequence[int]) -> list[int]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a sequence of integers, got {values!r}")
    return [_as_int(f"{name}[{i}]", value) for i, value in enumerate(values)]


def _as_float(name: str, value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {value!r}") from None


def _check_temperature(temperature: float) -> float:
    temperature = _as_float("temperature", temperature)
    if not 0 <= temperature < float("inf"):
        raise ValueError(
            f"temperature must be finite and at least 0, got {temperature}"
        )
    return temperature


def _row_error(name: str, row: NDArray[Any], status: int) -> ValueError:
    """Describe what a core found wrong with a row."""
    if row.dtype == np.uint16:  # bfloat16
        row = (row.astype(np.uint32) << 16).view(np.float32)
    if status == Status.ALL_MASKED:
        return ValueError(f"{name}: every token is masked (-inf)")
    if status == Status.SUM:
        with np.errstate(over="ignore"):
            total = float(row.sum(dtype=np.float64))
        return ValueError(
            f"{name} must sum to 1 within {SUM_TOLERANCE}, got {total:.6g}"
        )
    bad = row < 0 if status == Status.NEGATIVE else ~np.isfinite(row)
    if name != "probs":
        bad &= row != -np.inf
    token = int(np.flatnonzero(bad)[0])
    allowed = "finite and not negative" if name == "probs" else "finite or -inf"
    return ValueError(f"{name}[{token}] is {row[token]}; values must be {allowed}")


def _as_uint32(name: str, values: ArrayLike) -> NDArray[np.uint32]:
    """Copy integers to a new uint32 [k]."""
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got {array.dtype}")
    if array.ndim != 1:
        raise ValueError(f"{name} must have one dimension, got shape {array.shape}")
    if array.size and not 0 <= int(array.min()) <= int(array.max()) < 1 << 32:
        raise ValueError(f"{name} must fit 32 bits without sign")
    return array.astype(np.uint32)


def _in_range(name: str, value: int, least: int, most: int) -> int:
    number = _as_int(name, value)
    if not least <= number <= most:
        raise ValueError(f"{name} must be in [{least}, {most}], got {number}")
    return number
