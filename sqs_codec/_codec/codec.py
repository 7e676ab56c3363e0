"""The codec: settings that both ends share, and its functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sqs_codec._backend import core_class
from sqs_codec._backend.core import Core, joined
from sqs_codec._base import checks
from sqs_codec._base.errors import packet_error, row_error
from sqs_codec._base.format import (
    FORMAT_VERSION,
    MAX_ENTROPY_SURVIVORS,
    MAX_ENUMERATIVE_SQUARES,
    MAX_ENUMERATIVE_SUPPORT,
    MAX_RESOLUTION,
    MAX_SEQUENCE,
    MAX_SURVIVORS,
    MAX_VOCAB,
    Coding,
    CodingName,
)
from sqs_codec._base.lazy import lazy
from sqs_codec._base.threads import share
from sqs_codec._codec.distribution import SparseDistribution, as_distribution
from sqs_codec._codec.keep import Keep, limits_of
from sqs_codec._codec.lists import quantize_lists
from sqs_codec._codec.prior import Prior, agreed_prior
from sqs_codec._codec.round import Round, as_round, make_round
from sqs_codec._codec.rows import SparseRows, as_rows
from sqs_codec._codec.sampling import Sampling
from sqs_codec._codec.truncation import truncate

Draw = Callable[[int], NDArray[np.uint64]]  # returns n random 64-bit numbers


@dataclass(frozen=True, repr=False)
class Codec:
    """The settings that both ends share, and the codec's functions.

    Immutable, hashable, picklable, and safe to share between threads and with
    signal handlers.

    Parameters
    ----------
    vocab_size : int
        2 to 1 048 576.
    resolution : int
        The sum of every distribution's counts, 1 to 65 536.
    coding : {"entropy", "enumerative", "bitpack"}
        ``"entropy"`` takes the fewest bits for distributions of language models, and
        at most slightly more than ``"enumerative"`` for any other. ``"enumerative"``
        packs a distribution into a single number, in the fewest bits that can
        distinguish all distributions of the same support size, at most 1 024.
        ``"bitpack"`` uses fields of fixed width, which are simple to decode.
    prior : Prior, optional
        Frequencies of the ids, for coding ``"entropy"``; of the same vocabulary.
        Without a prior, low ids are assumed to be frequent.

    Examples
    --------
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
    resolution: int = 100
    coding: CodingName = "entropy"
    prior: Prior | None = None

    def __post_init__(self) -> None:
        vocab_size = checks.vocabulary(self.vocab_size)
        resolution = checks.in_range("resolution", self.resolution, 1, MAX_RESOLUTION)
        coding = checks.one_of("coding", self.coding, CodingName)
        if self.prior is not None:
            _check_prior(self.prior, vocab_size, self.coding)
        object.__setattr__(self, "vocab_size", vocab_size)
        object.__setattr__(self, "resolution", resolution)
        object.__setattr__(self, "coding", coding)

    def __reduce__(self) -> tuple[Any, ...]:
        return Codec, (self.vocab_size, self.resolution, self.coding, self.prior)

    def __repr__(self) -> str:
        prior = "" if self.prior is None else f", prior={self.prior}"
        return (
            f"Codec(vocab_size={self.vocab_size}, resolution={self.resolution}, "
            f"coding={self.coding!r}{prior})"
        )

    @lazy
    def _core(self) -> Core:
        prior = None if self.prior is None else self.prior.to_bytes()
        coding = Coding[self.coding.upper()]
        return core_class()(self.vocab_size, self.resolution, coding, prior)

    # Settings

    def config(self) -> dict[str, Any]:
        """Return everything that both ends must share, as plain JSON types.

        A prior is represented by its digest, in hex.

        Examples
        --------
        >>> Codec(vocab_size=1000).config()
        {'format_version': 1, 'vocab_size': 1000, 'resolution': 100, \
'coding': 'entropy', 'prior': None}
        >>> Codec.from_config(Codec(vocab_size=1000).config())
        Codec(vocab_size=1000, resolution=100, coding='entropy')
        """
        return {
            "format_version": FORMAT_VERSION,
            "vocab_size": self.vocab_size,
            "resolution": self.resolution,
            "coding": self.coding,
            "prior": None if self.prior is None else self.prior.digest.hex(),
        }

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], prior: Prior | None = None
    ) -> Codec:
        """Return the codec of a `config`.

        Another format version, other keys, invalid values or another prior raise a
        ValueError or a TypeError.

        Parameters
        ----------
        config : mapping
            As `Codec.config` returns it, with all of its keys and no others.
        prior : Prior, optional
            The config's prior, unless that comes with this package.
        """
        checks.instance("config", config, Mapping, "a mapping")
        wanted = {"format_version", "vocab_size", "resolution", "coding", "prior"}
        version = config.get("format_version", FORMAT_VERSION)
        if version != FORMAT_VERSION:
            raise ValueError(
                f"the config has format version {version!r}, but this release of "
                f"sqs_codec reads and writes version {FORMAT_VERSION}"
            )
        if set(config) != wanted:
            raise ValueError(
                f"config must have the keys {sorted(wanted)}, got "
                f"{sorted(map(str, config))}"
            )
        prior = agreed_prior(config["prior"], prior)
        return cls(config["vocab_size"], config["resolution"], config["coding"], prior)

    @property
    def fingerprint(self) -> bytes:
        """8 bytes that differ between incompatible codecs.

        A digest of `config`, which includes the format version. Compare fingerprints
        before you exchange packets, to detect another vocabulary, resolution, coding,
        prior or release.

        Examples
        --------
        >>> Codec(vocab_size=1000).fingerprint.hex()
        '42bdea817c45f33c'
        """
        import hashlib  # with json, a quarter of the package's import time
        import json

        text = json.dumps(self.config(), sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=8).digest()

    @lazy
    def max_survivors(self) -> int:
        """Return the largest support size that a packet can hold."""
        limit = MAX_ENUMERATIVE_SUPPORT if self.coding == "enumerative" else MAX_VOCAB
        return min(self.vocab_size, self.resolution, limit)

    # Logits and probabilities

    def quantize(
        self,
        logits: ArrayLike,
        keep: Keep,
        *,
        temperature: float = 1.0,
        dropped_mass: bool = False,
    ) -> SparseDistribution:
        """Sparsify and quantize ``softmax(logits / temperature)``.

        Parameters
        ----------
        logits : array_like of float16, float32 or float64 [vocab_size]
            ``-inf`` masks a token.
        keep : Keep
            Which tokens to keep. A rule that learns is used in its initial state: a
            `Conformal` has its initial threshold.
        temperature : float
            At 0 the most probable token gets all counts.
        dropped_mass : bool
            Whether to compute the result's `dropped_mass`, which takes most of the
            time. Always computed for a rule that learns.

        Returns
        -------
        SparseDistribution
            The lattice point nearest to the renormalized kept tokens, without tokens
            whose count is 0.

        Raises
        ------
        ValueError
            If the shape is wrong, a value is NaN or +inf, or all are -inf.
        TypeError
            If the dtype isn't one of those above.

        Notes
        -----
        The same logits give the same result on every machine, in the default
        floating-point environment. `torch.set_flush_denormal`, for example, makes
        logits below 1e-38 equal to 0. Logits that look like probabilities cause a
        warning.
        """
        return self._quantize(logits, keep, temperature, dropped_mass)

    def _quantize(
        self,
        logits: ArrayLike | checks.Rows,
        keep: Keep,
        temperature: float,
        mass: bool = False,
        sampling: Sampling | None = None,
        state: float | None = None,
    ) -> SparseDistribution:
        """Quantize after an optional truncation, with a rule at a state."""
        row = checks.row("logits", logits, self.vocab_size)
        checks.no_probabilities(row)
        temperature = checks.temperature(temperature)
        if sampling is not None and sampling._truncates:
            row = truncate(row[None], sampling)[0]
        limits = limits_of(keep, state)
        mass = mass or keep._learns
        status, ids, counts, dropped = self._core.quantize_logits(
            row, temperature, limits, mass
        )
        if status:
            raise row_error("logits", row, status)
        return as_distribution(ids, counts, self.vocab_size, self.resolution, dropped)

    def quantize_probs(
        self, probs: ArrayLike, keep: Keep, *, dropped_mass: bool = False
    ) -> SparseDistribution:
        """Sparsify and quantize probabilities, with the errors of `quantize`.

        Parameters
        ----------
        probs : array_like of float16, float32 or float64 [vocab_size]
            Non-negative, with a sum of 1 within 0.001.
        keep, dropped_mass
            As for `quantize`.

        Examples
        --------
        >>> import sqs_codec as sqs
        >>> codec = sqs.Codec(vocab_size=4, resolution=8)
        >>> codec.quantize_probs([0.5, 0.25, 0.25, 0.0], sqs.TopK(2)).counts
        array([5, 3], dtype=uint32)
        """
        row = checks.row("probs", probs, self.vocab_size)
        limits = limits_of(keep)
        mass = dropped_mass or keep._learns
        status, ids, counts, dropped = self._core.quantize_probs(row, limits, mass)
        if status:
            raise row_error("probs", row, status)
        return as_distribution(ids, counts, self.vocab_size, self.resolution, dropped)

    def quantize_unbiased(
        self, logits: ArrayLike, *, temperature: float = 1.0, rng: np.random.Generator
    ) -> SparseDistribution:
        """Round ``softmax(logits / temperature)`` at random, without bias.

        Systematic sampling over the whole vocabulary: a token of probability p gets
        ``resolution * p`` counts, rounded up or down at random. The mean is exact for
        probabilities in single precision (section 10 of docs/theory.md). Use it where
        many distributions are averaged, as in distillation; the errors of `quantize`
        always have the same sign. The dropped mass is 0: any token can get a count.

        Parameters
        ----------
        logits, temperature
            As for `quantize`, with its errors.
        rng : numpy.random.Generator
            Called for one integer in [0, 2**64). The same integer gives the same result
            on every machine.

        Examples
        --------
        >>> codec, rng = Codec(vocab_size=4, resolution=8), np.random.default_rng(1)
        >>> logits = np.log([0.70, 0.2, 0.08, 0.02])
        >>> codec.quantize_unbiased(logits, rng=rng).to_dense()
        array([0.75 , 0.125, 0.125, 0.   ], dtype=float32)
        >>> many = codec.quantize_unbiased_rows(np.tile(logits, (10_000, 1)), rng=rng)
        >>> many.to_dense(np.float64).mean(0).round(2)
        array([0.7 , 0.2 , 0.08, 0.02])
        """
        row = checks.row("logits", logits, self.vocab_size)
        checks.no_probabilities(row)
        temperature = checks.temperature(temperature)
        status, _, ids, counts, _ = self._core.quantize_unbiased(
            row, random_numbers(rng, 1), temperature
        )
        if status:
            raise row_error("logits", row, status)
        return as_distribution(ids, counts, self.vocab_size, self.resolution, 0.0)

    def quantize_top_logprobs_rows(
        self,
        token_ids: ArrayLike | Sequence[ArrayLike],
        logprobs: ArrayLike | Sequence[ArrayLike],
    ) -> SparseRows:
        """Quantize lists of the most probable tokens, as servers return them.

        The codec's last id, ``vocab_size - 1``, isn't a token here. It is the *tail*,
        which represents all tokens that a row doesn't list. For a tokenizer of V ids,
        use ``vocab_size=V + 1``, and make the prior with `Prior.with_tail`.

        Each row becomes the lattice point nearest to its K + 1 probabilities: the
        listed ones and the tail's, which is the rest up to 1. Tokens whose count is 0
        are left out. A list whose sum exceeds 1 through rounding is renormalized. The
        result doesn't depend on the machine, the other rows or the order of the list.

        Parameters
        ----------
        token_ids : array_like of int [N, K], or sequence of N of them [K_i]
            In any order, without duplicates in a row, each in [0, vocab_size - 1).
        logprobs : array_like of float, as `token_ids`
            Natural logarithms. ``-inf`` is padding: its id is ignored.

        Raises
        ------
        ValueError
            If shapes or lengths don't match; if a row is empty, has a duplicate token
            or one that is out of range; if a log-probability is NaN or above 1/64; or
            if a row sums to more than 1 + 1/64. Both limits allow rounding to bfloat16.

        Examples
        --------
        >>> codec = Codec(vocab_size=8 + 1, resolution=16)
        >>> logprobs = [[-0.357, -2.303], [-0.693, -0.693, -float("inf")]]
        >>> for q in codec.quantize_top_logprobs_rows([[5, 1], [3, 2, -1]], logprobs):
        ...     print(q.token_ids, q.counts)
        [1 5 8] [ 2 11  3]
        [2 3] [8 8]
        """
        return quantize_lists(token_ids, logprobs, self.vocab_size, self.resolution)

    def quantize_rows(
        self,
        logits: ArrayLike | checks.Rows,
        keep: Keep,
        *,
        temperature: float = 1.0,
        threads: int = 1,
    ) -> SparseRows:
        """Sparsify and quantize rows of logits, each like `quantize`.

        The rows' `dropped_mass` is None. Rules that learn need it after each row: use
        `quantize` with them.

        Parameters
        ----------
        logits : array_like of float16, float32 or float64 [B, vocab_size]
            Not copied if each row is contiguous, with any stride between rows. Errors
            name the row.
        keep : Keep
            As for `quantize`, for all rows.
        threads : int
            The number of threads that share the rows. More threads pay off if each
            works for at least 0.1 ms. The GIL is released with any number.
        """
        arguments = checks.temperature(temperature), limits_of(keep)
        call = self._core.quantize_rows
        return self._join(self._share(call, arguments, logits, threads))

    def quantize_unbiased_rows(
        self,
        logits: ArrayLike | checks.Rows,
        *,
        temperature: float = 1.0,
        rng: np.random.Generator,
        threads: int = 1,
    ) -> SparseRows:
        """Round rows of logits at random, each like `quantize_unbiased`.

        Parameters
        ----------
        logits, temperature, threads
            As for `quantize_rows`, with its errors. The result doesn't depend on
            `threads`.
        rng : numpy.random.Generator
            Called once, for N integers in [0, 2**64), one per row.
        """
        checks.generator(rng)
        draw = partial(random_numbers, rng)
        return self._round(logits, temperature, draw, threads)

    def _round(
        self, logits: Any, temperature: float, draw: Draw, threads: int = 1
    ) -> SparseRows:
        """Round rows with the random numbers of `draw`; also used for tensors."""
        call, t = self._core.quantize_unbiased, checks.temperature(temperature)
        return self._join(self._share(call, (t,), logits, threads, draw))

    def _share(
        self,
        call: Callable[..., Any],
        arguments: tuple[Any, ...],
        logits: ArrayLike | checks.Rows,
        threads: int,
        draw: Draw | None = None,
    ) -> list[Any]:
        """Return the core's results for parts of the rows, with a number per row."""
        rows, shape = checks.rows("logits", logits, self.vocab_size)
        given = [rows]
        if draw is not None:
            given.append(draw(len(rows)))
        if len(rows):
            checks.no_probabilities(rows[0])
        parts = share(
            lambda start, end: call(*(a[start:end] for a in given), *arguments),
            len(rows),
            threads,
        )
        before = 0
        for status, done, *_ in parts:
            before += done
            if status:
                raise row_error(row_name(before, shape), rows[before], status)
        return parts

    # Distributions

    def bits(self, q: SparseDistribution) -> int:
        """Return the bits of a distribution, before padding to a byte.

        Exact for ``"enumerative"`` and ``"bitpack"``. For ``"entropy"`` it is within a
        bit of the result of `encode`. For typical distributions of up to 128 tokens it
        takes 40 to 75 % of the time of `encode`. In a round, distributions that share
        tokens with earlier ones take fewer bits.
        """
        self._check(q)
        return self._core.bits(q.token_ids, q.counts)

    def token_bits(self, q: SparseDistribution) -> int:
        """Return the largest number of bits of a token of `q` in a round.

        Plan a round with this number, not with the bits of the sampled token: a draft
        that stops because of a token changes the output distribution.
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
            If `q` differs from the codec in vocabulary or resolution, or has more
            tokens than the coding can hold.
        """
        self._check(q)
        return self._core.encode(q._token_ids, q._counts)

    def decode(
        self, data: bytes, *, max_survivors: int | None = None
    ) -> SparseDistribution:
        """Return the distribution of a packet.

        Parameters
        ----------
        data : bytes-like
            Exactly one packet of `encode`; untrusted data is safe. With coding
            'entropy', a packet of `encode_round` may decode without an error.
        max_survivors : int, optional
            Reject packets with more survivors (tokens with a count) than this, as soon
            as their number is known. If None, only the format's limits apply.

        Raises
        ------
        PacketError
            If the packet breaks a rule of the format or exceeds a limit.
        """
        packet = checks.packet(data)
        most = _survivors_limit(max_survivors)
        status, ids, counts = self._core.decode(packet, most)
        if status:
            raise packet_error(status, len(packet), most)
        return as_distribution(ids, counts, self.vocab_size, self.resolution)

    def _check(self, q: SparseDistribution) -> None:
        if not isinstance(q, SparseDistribution):
            raise TypeError(f"expected a SparseDistribution, got {type(q).__name__}")
        self._check_fit("the distribution", q.vocab_size, q.resolution)
        self._check_support(q.token_ids.size)

    def _check_support(self, size: int, where: str = "") -> None:
        if size > self.max_survivors:
            raise ValueError(
                f"coding {self.coding!r} holds at most {self.max_survivors} tokens, "
                f"got {size}{where}; keep fewer, lower the resolution or use 'entropy'"
            )

    def _check_fit(self, name: str, vocab_size: int, resolution: int) -> None:
        if (vocab_size, resolution) != (self.vocab_size, self.resolution):
            raise ValueError(
                f"{name} doesn't fit the codec: expected vocabulary {self.vocab_size} "
                f"and resolution {self.resolution}, got {vocab_size} and {resolution}"
            )

    # Many distributions

    def encode_rows(
        self, rows: Sequence[SparseDistribution], *, threads: int = 1
    ) -> list[bytes]:
        """Return the packet of each row, faster than repeated calls of `encode`.

        Parameters
        ----------
        rows : SparseRows
            Or a sequence of SparseDistribution, which may be empty.
        threads : int
            As for `quantize_rows`. More than one pays off from about 100 rows.

        Examples
        --------
        >>> codec = Codec(vocab_size=8, resolution=4)
        >>> rows = SparseRows([2, 7, 5], [3, 1, 4], [0, 2, 3], 8, 4)
        >>> packets = codec.encode_rows(rows)
        >>> packets == [codec.encode(q) for q in rows]
        True
        >>> codec.decode_rows(packets) == rows
        True
        """
        if not isinstance(rows, SparseRows) and not len(rows):
            rows = SparseRows([], [], [0], self.vocab_size, self.resolution)
        rows, sizes = self._check_rows(rows)
        ids, counts, ends = rows.token_ids, rows.counts, rows.offsets

        def encode(start: int, end: int) -> list[bytes]:
            cut = slice(ends[start], ends[end])
            return self._core.encode_rows(ids[cut], counts[cut], sizes[start:end])

        parts = share(encode, len(rows), threads)
        return [packet for part in parts for packet in part]

    def decode_rows(
        self,
        packets: Sequence[bytes],
        *,
        max_survivors: int | None = None,
        threads: int = 1,
    ) -> SparseRows:
        """Return the distributions of packets, each like `decode`.

        Errors show the packet's index. `max_survivors` applies to each packet;
        `threads` is as for `encode_rows`.
        """
        data = [
            one if type(one) is bytes else checks.packet(one, f"packets[{i}]: ")
            for i, one in enumerate(packets)
        ]
        most = _survivors_limit(max_survivors)
        parts = share(
            lambda start, end: self._core.decode_rows(data[start:end], most),
            len(data),
            threads,
        )
        before = 0
        for status, done, *_ in parts:
            before += done
            if status:
                name = f"packet {before},"
                raise packet_error(status, len(data[before]), most, name)
        return self._join(parts)

    def encode_sequence(self, rows: Sequence[SparseDistribution]) -> bytes:
        """Return one packet of 1 to 65 536 distributions, such as those of a text.

        Each distribution is coded relative to the ones before it, and can't be decoded
        without them.

        Raises
        ------
        ValueError
            The coding isn't ``"entropy"``, or a row doesn't match the codec. There are
            too many rows, or more than 1 048 576 tokens in all rows.

        Examples
        --------
        >>> codec = Codec(vocab_size=8, resolution=4)
        >>> rows = SparseRows([2, 7, 5], [3, 1, 4], [0, 2, 3], 8, 4)
        >>> codec.decode_sequence(codec.encode_sequence(rows)) == rows
        True
        """
        self._check_sequences()
        rows, sizes = self._check_rows(rows)
        ids = rows.token_ids
        if not 1 <= len(rows) <= MAX_SEQUENCE or ids.size > MAX_ENTROPY_SURVIVORS:
            raise ValueError(
                f"a sequence holds 1 to {MAX_SEQUENCE} distributions of at most "
                f"{MAX_ENTROPY_SURVIVORS} tokens together, got {len(rows)} of "
                f"{ids.size}"
            )
        return self._core.encode_sequence(ids, rows.counts, sizes)

    def decode_sequence(
        self,
        data: bytes,
        *,
        max_survivors: int | None = None,
        length: int = MAX_SEQUENCE,
    ) -> SparseRows:
        """Return the distributions of `encode_sequence`, with the errors of `decode`.

        Parameters
        ----------
        max_survivors : int, optional
            As for `decode`, for the sum over all distributions. If None, a small packet
            may hold 65 536 distributions and 1 048 576 survivors, which take 8 MB and
            up to 0.3 s.
        length : int
            The number of distributions to read. The rest of the packet is neither read
            nor checked.
        """
        self._check_sequences()
        packet, most = checks.packet(data), _survivors_limit(max_survivors)
        length = min(checks.in_range("length", length, 1), MAX_SEQUENCE)
        status, ids, counts, sizes = self._core.decode_sequence(packet, length, most)
        if status:
            raise packet_error(status, len(packet), most)
        return as_rows(ids, counts, sizes, self.vocab_size, self.resolution)

    def _join(self, parts: Sequence[tuple[Any, ...]]) -> SparseRows:
        """Return the rows of the core's results for parts."""
        ids = joined([part[2] for part in parts])
        counts = joined([part[3] for part in parts])
        sizes = joined([part[4] for part in parts])
        return as_rows(ids, counts, sizes, self.vocab_size, self.resolution)

    def _check_rows(
        self, rows: Sequence[SparseDistribution]
    ) -> tuple[SparseRows, NDArray[np.uint32]]:
        """Return rows that this codec can encode, and their support sizes."""
        rows = SparseRows.stack(rows)
        self._check_fit("a row", rows.vocab_size, rows.resolution)
        sizes = np.diff(rows.offsets).astype(np.uint32)
        if len(rows):
            self._check_support(int(sizes.max()), f" in row {sizes.argmax()}")
        return rows, sizes

    def _check_sequences(self) -> None:
        if self.coding != "entropy":
            raise ValueError(f"sequences need coding 'entropy', got {self.coding!r}")

    # Rounds

    @overload
    def encode_round(self, distributions: Round, /) -> bytes: ...
    @overload
    def encode_round(
        self, distributions: Sequence[SparseDistribution], tokens: Sequence[int]
    ) -> bytes: ...
    def encode_round(
        self,
        distributions: Round | Sequence[SparseDistribution],
        tokens: Sequence[int] | None = None,
    ) -> bytes:
        """Return the packet of a round.

        Parameters
        ----------
        distributions : sequence of SparseDistribution, or Round
            1 to 256 distributions in drafting order; or a round, without `tokens`.
        tokens : sequence of int
            The token sampled from each distribution.

        Raises
        ------
        ValueError
            If a distribution doesn't match the codec, or a token isn't in its
            distribution's support.
        """
        round_ = make_round(distributions, tokens)
        self._check_fit("the round", round_.vocab_size, round_.resolution)
        arrays = round_.arrays
        sizes = arrays[2].tolist()
        self._check_support(max(sizes))
        if not self._holds(sizes):
            raise ValueError(
                f"too many tokens for one {self.coding!r} round: the support sizes sum "
                f"to {sum(sizes)} (at most {MAX_ENTROPY_SURVIVORS} for 'entropy'), "
                f"their squares to {sum(k * k for k in sizes)} (at most "
                f"{MAX_ENUMERATIVE_SQUARES} for 'enumerative'); draft fewer tokens"
            )
        return self._core.encode_round(arrays)

    def _holds(self, sizes: Sequence[int]) -> bool:
        """Return whether one round may hold supports of these sizes."""
        if self.coding == "entropy":
            return sum(sizes) <= MAX_ENTROPY_SURVIVORS
        squares = sum(k * k for k in sizes)
        return self.coding != "enumerative" or squares <= MAX_ENUMERATIVE_SQUARES

    def decode_round(self, data: bytes, *, max_survivors: int | None = None) -> Round:
        """Return the round of a packet, with the errors of `decode`.

        Parameters
        ----------
        data : bytes-like
            Exactly one packet of `encode_round`. With coding 'entropy', many packets of
            `encode` decode as rounds of one token without an error (``docs/faq.md`` has
            the share). Use `decode` for those.
        max_survivors : int, optional
            As for `decode`, for the sum over all distributions. If None, a packet of 72
            bytes may hold 1 048 576 survivors, which take 8 MB and up to 0.2 s. Rounds
            of five drafted tokens rarely have more than 200.
        """
        packet, most = checks.packet(data), _survivors_limit(max_survivors)
        status, ids, counts, sizes, positions = self._core.decode_round(packet, most)
        if status:
            raise packet_error(status, len(packet), most)
        arrays = ids, counts, sizes, positions
        return as_round(arrays, self.vocab_size, self.resolution)


def row_name(row: int, shape: Sequence[int]) -> str:
    """Return the name of a row in errors; `shape` has the leading dimensions."""
    index = [int(i) for i in np.unravel_index(row, shape)] if shape else ""
    return f"logits{index}"


def random_numbers(rng: np.random.Generator, n: int) -> NDArray[np.uint64]:
    checks.generator(rng)
    given = rng.integers(0, 2**64, size=n, dtype=np.uint64)
    return checks.numbers(f"rng.integers(size={n})", given, n, np.uint64)


def _survivors_limit(max_survivors: int | None) -> int:
    """Return the checked limit on a packet's survivors, MAX_SURVIVORS if None."""
    if max_survivors is None:
        return MAX_SURVIVORS
    return min(checks.in_range("max_survivors", max_survivors, 1), MAX_SURVIVORS)


def _check_prior(prior: Prior, vocab_size: int, coding: str) -> None:
    checks.instance("prior", prior, Prior, "a Prior, such as Prior.builtin(name)")
    if coding != "entropy":
        raise ValueError(f"a prior needs coding 'entropy', got {coding!r}")
    if prior.vocab_size != vocab_size:
        raise ValueError(
            f"the prior has a vocabulary of {prior.vocab_size} ids, but the codec's "
            f"vocab_size is {vocab_size}"
        )
