"""What a file says of all its sequences, and what each of them must fit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from sqs_codec._base import checks
from sqs_codec._base.errors import PacketError
from sqs_codec._base.vocabulary import vocabulary_fingerprint
from sqs_codec._base.words import shown
from sqs_codec._codec.codec import Codec
from sqs_codec._codec.prior import Prior, builtins
from sqs_codec._codec.rows import SparseRows

VERSION = 1
"""Of the file: its columns, and what stands in its metadata."""

KEY = b"sqs_codec"

MOST_TOKENS = 1 << 22
"""Of a sequence, so that what a file takes to be read has a bound."""

LEAST_LOG = -2047
"""The least logarithm of a probability that is kept."""

STEPS = 16
"""For a nat, and each count of a token: likelier ones are kept in smaller steps."""

ExtraName = Literal["logprobs", "token_logprobs", "likeliest"]
"""What a file may have of each distribution in addition, as `Writer.write` says."""

EXTRAS: dict[ExtraName, type[np.generic]] = {
    "logprobs": np.int16,
    "token_logprobs": np.float16,
    "likeliest": np.uint32,
}
"""The types of their columns."""


def _lists(name: str, kind: type[np.generic]) -> pa.Field:
    element = pa.field("element", pa.from_numpy_dtype(kind), nullable=False)
    return pa.field(name, pa.list_(element), nullable=False)


COLUMNS = (
    _lists("tokens", np.uint32),
    _lists("starts", np.uint32),  # of runs of distributions: the place of the first
    _lists("lengths", np.uint32),  # and how many there are, in the packet's order
    pa.field("packet", pa.binary(), nullable=False),
)


@dataclass(frozen=True)
class Header:
    """What a file says of all its sequences.

    Attributes
    ----------
    codec : Codec
        Of coding ``"entropy"``.
    model : str
        The teacher's name.
    temperature : float
        Of the teacher's distributions.
    rounding : str
        How probabilities became counts: ``"unbiased"``, ``"lattice"`` or another word.
    tail : bool
        Whether the vocabulary's last id stands for all tokens that a list left out,
        as `Codec.quantize_top_logprobs_rows` has it. It is then no token.
    tokenizer_fingerprint : bytes
        As `sqs.vocabulary_fingerprint` gives it, or none if it isn't known.
    source : str
        Where the texts are from, and how they were cut: it tells two files in the
        making apart.
    extras : tuple of str
        What else the file has of each distribution, as `Writer.write` says.
    """

    codec: Codec
    model: str = ""
    temperature: float = 1.0
    rounding: str = "unbiased"
    tail: bool = False
    tokenizer_fingerprint: bytes = b""
    source: str = ""
    extras: tuple[ExtraName, ...] = ()

    def __post_init__(self) -> None:
        checks.instance("codec", self.codec, Codec, "a Codec")
        self.codec._check_sequences()
        for name in ("model", "rounding", "source"):
            checks.instance(name, getattr(self, name), str, "a string")
            checks.utf8(name, getattr(self, name))
        checks.instance("tail", self.tail, bool, "a bool")
        fingerprint = self.tokenizer_fingerprint
        checks.instance("tokenizer_fingerprint", fingerprint, bytes, "bytes")
        extras = (*self.extras,)
        if extras != tuple(name for name in EXTRAS if name in extras):
            raise ValueError(
                f"extras must be some of {', '.join(EXTRAS)}, in this order, got "
                f"{self.extras!r}"
            )
        object.__setattr__(self, "extras", extras)
        temperature = checks.temperature(self.temperature)
        object.__setattr__(self, "temperature", temperature)

    def to_json(self) -> dict[str, Any]:
        """Return what stands in the metadata of a file."""
        said = {
            "version": VERSION,
            "codec": self.codec.config(),
            "fingerprint": self.codec.fingerprint.hex(),
            "model": self.model,
            "temperature": self.temperature,
            "rounding": self.rounding,
            "tail": self.tail,
            "tokenizer_fingerprint": self.tokenizer_fingerprint.hex(),
            "source": self.source,
            "extras": [*self.extras],
        }
        if "logprobs" in self.extras:
            said["log_rounding"] = "random"  # which is right on average
        check = hashlib.blake2b(json.dumps(said).encode(), digest_size=8)
        return said | {"check": check.hexdigest()}

    @classmethod
    def from_json(cls, found: dict[str, Any], prior: Prior | None = None) -> Header:
        """Return what a file's metadata says, or say why it can't be read."""
        if found.get("version") != VERSION:
            raise ValueError(
                f"it is a file of version {found.get('version')!r}, and this release "
                f"of sqs_codec writes and reads version {VERSION}"
            )
        config = found.get("codec", {})
        if found.get("tail") and isinstance(config, dict):
            known = (one.with_tail() for one in ([prior] if prior else builtins()))
            wanted = config.get("prior")
            prior = next((p for p in known if p.digest.hex() == wanted), prior)
        codec = Codec.from_config(config, prior)
        names = ("model", "temperature", "rounding", "tail", "source")
        fingerprint = bytes.fromhex(found.get("tokenizer_fingerprint", ""))
        given = {name: found[name] for name in names if name in found}
        given["extras"] = found.get("extras", ())
        header = cls(codec, tokenizer_fingerprint=fingerprint, **given)
        header.require(found)
        return header

    def schema(self) -> pa.Schema:
        """Return the columns of a file with its metadata."""
        fields = *COLUMNS, *(_lists(name, EXTRAS[name]) for name in self.extras)
        return pa.schema(fields, {KEY: json.dumps(self.to_json())})

    def require(self, found: dict[str, Any]) -> None:
        """Refuse metadata that isn't this; the message names what differs."""
        own = self.to_json()
        for name in own | found:
            if own.get(name) != found.get(name):
                raise ValueError(
                    f"its {name} is {found.get(name)!r}, and {own.get(name)!r} was "
                    "expected"
                )

    def check_tokenizer(self, tokenizer: Any) -> None:
        """Refuse a tokenizer that isn't the one of the file's tokens."""
        if not self.tokenizer_fingerprint:
            raise ValueError("it doesn't say which tokenizer its tokens are of")
        own, given = self.tokenizer_fingerprint, tokenizer.get_vocab()
        if (found := vocabulary_fingerprint(given, self.codec.vocab_size)) != own:
            raise ValueError(
                "its tokens are of another tokenizer: of fingerprint "
                f"{own.hex()}, and the one given has {found.hex()}"
            )

    def check_sequence(
        self, tokens: ArrayLike, places: ArrayLike, distributions: int
    ) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Return a sequence's tokens and places, which must go together."""
        ids = self._check_ids("tokens", tokens)
        if ids.size > MOST_TOKENS:
            raise ValueError(f"{ids.size} tokens are more than {MOST_TOKENS}")
        at = checks.uint32("places", places).astype(np.int64)
        ascends = (np.diff(at, append=ids.size) > 0).all()
        if not (0 < at.size == distributions and ascends):
            raise ValueError(
                f"{ids.size} tokens and {distributions} distributions, one at least, "
                f"need as many places, which ascend and are below {ids.size}, got "
                f"{np.array2string(at, threshold=8)}"
            )
        return ids, at

    def check_extras(
        self, extras: Mapping[str, ArrayLike], rows: SparseRows
    ) -> dict[ExtraName, NDArray[Any]]:
        """Return a text's extras, which must go with its distributions."""
        if {*extras} != {*self.extras}:
            raise ValueError(
                f"extras must be those of the file, {self.extras}, got {(*extras,)}"
            )
        found: dict[ExtraName, NDArray[Any]] = {}
        for name in self.extras:
            if name == "likeliest":
                values: NDArray[Any] = self._check_ids(name, extras[name])
            else:
                checks.unmasked(name, extras[name])
                values = np.asarray(extras[name], np.float32)
            shape = rows.token_ids.shape if name == "logprobs" else (len(rows),)
            if values.shape != shape:
                raise ValueError(f"{name} must have shape {shape}, got {values.shape}")
            bad = ~((values >= LEAST_LOG) & (values <= 0))
            if name != "likeliest" and bad.any():
                got = values[bad][0]
                raise ValueError(f"{name} must be in [{LEAST_LOG}, 0], got {got}")
            found[name] = values
        return found

    def _check_ids(self, name: str, values: ArrayLike) -> NDArray[np.uint32]:
        ids = checks.uint32(name, values)
        limit = self.codec.vocab_size - self.tail
        if ids.size and ids.max() >= limit:
            at = int((ids >= limit).argmax())
            raise ValueError(f"{name}[{at}] is {ids[at]}, and must be below {limit}")
        return ids


def step_of(rows: SparseRows) -> NDArray[np.float64]:
    """Return how fine the logarithms are kept, for each token of rows."""
    return 1 / (STEPS * rows.counts.astype(np.float64))


def in_steps(
    rows: SparseRows, logprobs: NDArray[np.float32], up: NDArray[np.float64] | float
) -> NDArray[np.int16]:
    """Return the steps of logarithms below (c + 1) / l; `up` is added, then floor."""
    steps = np.floor(up - logprobs / step_of(rows)) - _first_step(rows)
    if (bad := abs(steps) >= 1 << 15).any():
        i = int(bad.argmax())
        raise ValueError(
            f"logprobs[{i}] is {logprobs[i]}, too far from what it is of: "
            f"{rows.counts[i]} counts of {rows.resolution}"
        )
    return steps.astype(np.int16)


def of_steps(rows: SparseRows, steps: NDArray[np.int16]) -> NDArray[np.float32]:
    """Return the logarithms of `in_steps`."""
    found = -(steps + _first_step(rows)) * step_of(rows)
    return found.astype(np.float32)


def _first_step(rows: SparseRows) -> NDArray[np.float64]:
    most = np.minimum((rows.counts + 1.0) / rows.resolution, 1)
    return -np.log(most) // step_of(rows)


def read_metadata(file: pq.FileMetaData) -> dict[str, Any]:
    """Return what a `Writer` wrote into a file's metadata."""
    text = (file.metadata or {}).get(KEY)
    try:
        found = json.loads(text) if text is not None else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError("it lacks the metadata that sqs_codec.distill writes")
    return found


def value_of(cell: pa.Scalar) -> Any:
    """Return what is in a cell: an array or bytes."""
    return cell.values.to_numpy() if isinstance(cell, pa.ListScalar) else cell.as_py()


@contextmanager
def damage(name: object) -> Iterator[None]:
    """Say of which file an error is; those of pyarrow mean that it is damaged."""
    try:
        yield
    except (pa.ArrowException, OSError, TypeError, ValueError) as error:
        said = shown(" ".join(str(error).split()))  # it may quote the file
        if isinstance(error, pa.ArrowException | OSError):
            if getattr(error, "errno", None) is not None:
                raise  # of the system
            said = f"cut, damaged or no Parquet file: {said}"
        kind = PacketError if isinstance(error, PacketError) else ValueError
        raise kind(f"{name}: {said}") from error
