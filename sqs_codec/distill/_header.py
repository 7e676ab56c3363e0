"""What a file says of all its sequences, and what each of them must fit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sqs_codec._base import checks
from sqs_codec._base.errors import PacketError
from sqs_codec._base.vocabulary import vocabulary_fingerprint
from sqs_codec._base.words import shown
from sqs_codec._codec.codec import Codec
from sqs_codec._codec.prior import Prior, builtins

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["MOST_TOKENS", "SCHEMA", "Header", "damage", "read_metadata"]

VERSION = 1
"""Of the file: its columns, and what stands in its metadata."""

KEY = b"sqs_codec"

MOST_TOKENS = 1 << 22
"""Of a sequence, so that what a file takes to be read has a bound."""

SCHEMA = pa.schema(
    [
        pa.field(name, kind, nullable=False)
        for name, kind in (
            ("tokens", pa.list_(pa.field("element", pa.uint32(), nullable=False))),
            ("first", pa.uint32()),
            ("distributions", pa.uint32()),
            ("packet", pa.binary()),
        )
    ]
)


@dataclass(frozen=True)
class Header:
    """What a file says of all its sequences.

    Attributes
    ----------
    codec, model, temperature, rounding, tail, tokenizer_digest, source
        As the parameters of `Writer` say.
    """

    codec: Codec
    model: str = ""
    temperature: float = 1.0
    rounding: str = "unbiased"
    tail: bool = False
    tokenizer_digest: bytes = b""
    source: str = ""

    def __post_init__(self) -> None:
        checks.instance("codec", self.codec, Codec, "a Codec")
        self.codec._check_sequences()
        for name in ("model", "rounding", "source"):
            checks.instance(name, getattr(self, name), str, "a string")
            checks.utf8(name, getattr(self, name))
        checks.instance("tail", self.tail, bool, "a bool")
        checks.instance("tokenizer_digest", self.tokenizer_digest, bytes, "bytes")
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
            "tokenizer_digest": self.tokenizer_digest.hex(),
            "source": self.source,
        }
        check = hashlib.blake2b(json.dumps(said).encode(), digest_size=8)
        return said | {"check": check.hexdigest()}

    @classmethod
    def from_json(cls, found: dict[str, Any], prior: Prior | None = None) -> Header:
        """Return what the metadata of a file says.

        Raises
        ------
        ValueError or TypeError
            The file is for another release, or its codec can't be had, as
            `Codec.from_config` says, or what stands there isn't what a `Writer` writes.
        """
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
        digest = bytes.fromhex(found.get("tokenizer_digest", ""))
        given = {name: found[name] for name in names if name in found}
        header = cls(codec, tokenizer_digest=digest, **given)
        header.require(found)
        return header

    def schema(self) -> pa.Schema:
        """Return the columns of a file with its metadata."""
        return SCHEMA.with_metadata({KEY: json.dumps(self.to_json())})

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
        if not hasattr(tokenizer, "get_vocab"):
            kind = type(tokenizer).__name__
            raise TypeError(f"tokenizer must be one, with get_vocab(), got {kind}")
        if not self.tokenizer_digest:
            raise ValueError("it doesn't say which tokenizer its tokens are of")
        digest = vocabulary_fingerprint(tokenizer.get_vocab())
        if digest != self.tokenizer_digest:
            raise ValueError(
                "its tokens are of another tokenizer: of digest "
                f"{self.tokenizer_digest.hex()}, and the one given has {digest.hex()}"
            )

    def check_sequence(
        self, tokens: ArrayLike, first: int, distributions: int
    ) -> NDArray[np.uint32]:
        """Return a sequence's tokens, which its distributions must go with."""
        ids = checks.uint32("tokens", tokens)
        if ids.size > MOST_TOKENS:
            raise ValueError(f"{ids.size} tokens are more than {MOST_TOKENS}")
        limit = self.codec.vocab_size - self.tail
        if ids.size and ids.max() >= limit:
            place = int((ids >= limit).argmax())
            raise ValueError(
                f"tokens[{place}] is {ids[place]}, and must be below {limit}"
            )
        checks.in_range("first", first, 1, ids.size)
        most = ids.size - first + 1
        if not 1 <= distributions <= most:
            raise ValueError(
                f"{ids.size} tokens, of which the first with a distribution is "
                f"{first}, go with 1 to {most} distributions, got {distributions}"
            )
        return ids


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
