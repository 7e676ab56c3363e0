"""The metadata of a file, and checks of its sequences against it."""

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
"""The version of a file's columns and metadata."""

KEY = b"sqs_codec"

MOST_TOKENS = 1 << 22
"""Limit on the tokens of a sequence, which bounds the memory for reading a file."""

LEAST_LOG = -2047
"""The smallest log-probability that is stored; smaller ones become this one."""

STEPS = 16
"""Steps per nat and count, so that larger probabilities are stored more precisely."""

ExtraName = Literal["logprobs", "token_logprobs", "likeliest"]
"""Optional columns of a file; see `Writer.write`."""

EXTRAS: dict[ExtraName, type[np.generic]] = {
    "logprobs": np.int16,
    "token_logprobs": np.float16,
    "likeliest": np.uint32,
}


def _lists(name: str, kind: type[np.generic]) -> pa.Field:
    element = pa.field("element", pa.from_numpy_dtype(kind), nullable=False)
    return pa.field(name, pa.list_(element), nullable=False)


COLUMNS = (
    _lists("tokens", np.uint32),
    _lists("starts", np.uint32),  # the first place of each run of distributions
    _lists("lengths", np.uint32),  # the number of distributions in each run
    pa.field("packet", pa.binary(), nullable=False),
)


@dataclass(frozen=True)
class Header:
    """The metadata of a file, which holds for all its sequences.

    Attributes
    ----------
    codec : Codec
        A codec with the coding ``"entropy"``.
    model : str
        The teacher's name.
    temperature : float
        The temperature of the teacher's distributions.
    rounding : str
        How probabilities became counts: ``"unbiased"``, ``"lattice"`` or another word.
    tail : bool
        Whether the vocabulary's last id is no token, but represents all tokens missing
        in a list, as in `Codec.quantize_top_logprobs_rows`.
    tokenizer_fingerprint : bytes
        The result of `sqs.vocabulary_fingerprint`; empty if unknown.
    source : str
        Where the texts are from and how they were cut. Only a writer with the same
        source continues the file.
    extras : tuple of str
        The optional columns of the file; see `Writer.write`.
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
        """Return the file's metadata."""
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
            said["log_rounding"] = "random"  # unbiased
        check = hashlib.blake2b(json.dumps(said).encode(), digest_size=8)
        return said | {"check": check.hexdigest()}

    @classmethod
    def from_json(cls, found: dict[str, Any], prior: Prior | None = None) -> Header:
        """Return the header of a file's metadata; ValueError if it can't be read."""
        if found.get("version") != VERSION:
            raise ValueError(
                f"the file has version {found.get('version')!r}, but this release of "
                f"sqs_codec reads version {VERSION}"
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
        """Reject different metadata; the message names the first difference."""
        own = self.to_json()
        for name in own | found:
            if own.get(name) != found.get(name):
                raise ValueError(
                    f"its {name} is {found.get(name)!r}, but {own.get(name)!r} was "
                    "expected"
                )

    def check_tokenizer(self, tokenizer: Any) -> None:
        """Reject a tokenizer other than the file's."""
        if not self.tokenizer_fingerprint:
            raise ValueError("the file doesn't name its tokenizer")
        own, given = self.tokenizer_fingerprint, tokenizer.get_vocab()
        if (found := vocabulary_fingerprint(given, self.codec.vocab_size)) != own:
            raise ValueError(
                f"the file's tokenizer has the fingerprint {own.hex()}, but this "
                f"tokenizer has {found.hex()}"
            )

    def check_sequence(
        self, tokens: ArrayLike, places: ArrayLike, distributions: int
    ) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Check a sequence's tokens and places, and return them."""
        ids = self._check_ids("tokens", tokens)
        if ids.size > MOST_TOKENS:
            raise ValueError(
                f"a sequence may have {MOST_TOKENS} tokens, but has {ids.size}"
            )
        at = checks.uint32("places", places).astype(np.int64)
        ascends = (np.diff(at, append=ids.size) > 0).all()
        if not (0 < at.size == distributions and ascends):
            raise ValueError(
                "a sequence needs one distribution or more, and one place for each, "
                f"ascending and below the number of tokens: got {distributions} "
                f"distributions, {ids.size} tokens and the places "
                f"{np.array2string(at, threshold=8)}"
            )
        return ids, at

    def check_extras(
        self, extras: Mapping[str, ArrayLike], rows: SparseRows
    ) -> dict[ExtraName, NDArray[Any]]:
        """Check a text's extras against its distributions, and return them."""
        if {*extras} != {*self.extras}:
            raise ValueError(
                f"extras must be the file's, {self.extras}, got {(*extras,)}"
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
            raise ValueError(f"{name}[{at}] must be below {limit}, got {ids[at]}")
        return ids


def step_of(rows: SparseRows) -> NDArray[np.float64]:
    """Return the step size of each token's stored log-probability."""
    return 1 / (STEPS * rows.counts.astype(np.float64))


def in_steps(
    rows: SparseRows, logprobs: NDArray[np.float32], up: NDArray[np.float64] | float
) -> NDArray[np.int16]:
    """Return logprobs in steps x below log((count + 1) / l), as ``floor(x + up)``."""
    steps = np.floor(up - logprobs / step_of(rows)) - _first_step(rows)
    if (bad := abs(steps) >= 1 << 15).any():
        i = int(bad.argmax())
        raise ValueError(
            f"logprobs[{i}] is {logprobs[i]}, too far from its count, "
            f"{rows.counts[i]} of {rows.resolution}"
        )
    return steps.astype(np.int16)


def of_steps(rows: SparseRows, steps: NDArray[np.int16]) -> NDArray[np.float32]:
    """Return the logprobs of the steps of `in_steps`."""
    found = -(steps + _first_step(rows)) * step_of(rows)
    return found.astype(np.float32)


def _first_step(rows: SparseRows) -> NDArray[np.float64]:
    most = np.minimum((rows.counts + 1.0) / rows.resolution, 1)
    return -np.log(most) // step_of(rows)


def read_metadata(file: pq.FileMetaData) -> dict[str, Any]:
    text = (file.metadata or {}).get(KEY)
    try:
        found = json.loads(text) if text is not None else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError("the file has no metadata of sqs_codec.distill")
    return found


def value_of(cell: pa.Scalar) -> Any:
    """Return a cell's array or bytes."""
    return cell.values.to_numpy() if isinstance(cell, pa.ListScalar) else cell.as_py()


@contextmanager
def damage(name: object) -> Iterator[None]:
    """Name the file in errors. Errors of pyarrow mean that the file is damaged."""
    try:
        yield
    except (pa.ArrowException, OSError, TypeError, ValueError) as error:
        said = shown(" ".join(str(error).split()))  # it may quote the file
        if isinstance(error, pa.ArrowException | OSError):
            if getattr(error, "errno", None) is not None:
                raise  # from the system, with a file name
            said = f"truncated, damaged or not a Parquet file: {said}"
        kind = PacketError if isinstance(error, PacketError) else ValueError
        raise kind(f"{name}: {said}") from error
