"""The handshake: both ends of a session agree on codecs, sampling and limits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from json import dumps, loads
from typing import Any

from sqs_codec import SETTINGS, Codec, Keep, Prior, Sampling, TopK
from sqs_codec._base import checks
from sqs_codec.system._base.protocol import MAX_SETTINGS
from sqs_codec.system.session import _wire as wire
from sqs_codec.system.session._wire import Limits, WireError


@dataclass(frozen=True)
class Setting:
    """A codec, and the rule that chooses the tokens to keep.

    Attributes
    ----------
    codec : Codec
        Both ends use it.
    keep : Keep
        Only the edge uses it. A rule that adapts does so within a session.
    """

    codec: Codec
    keep: Keep

    def __post_init__(self) -> None:
        checks.instance("codec", self.codec, Codec, "a Codec")
        checks.instance("keep", self.keep, Keep, "a rule such as TopK(64)")

    @classmethod
    def defaults(cls, vocab_size: int, prior: Prior | None = None) -> list[Setting]:
        """Return the settings of `sqs_codec.SETTINGS`, from coarse to fine."""
        return [
            cls(Codec(vocab_size, resolution, prior=prior), TopK(k))
            for k, resolution in SETTINGS.values()
        ]


def check_settings(settings: Sequence[Setting]) -> list[Setting]:
    found = list(settings)
    if not 1 <= (count := len(found)) <= MAX_SETTINGS:
        raise ValueError(f"there must be 1 to {MAX_SETTINGS} settings, got {count}")
    for i, setting in enumerate(found):
        checks.instance(f"settings[{i}]", setting, Setting, "a Setting")
    sizes = {setting.codec.vocab_size for setting in found}
    if len(sizes) > 1:
        raise ValueError(
            f"settings must share one vocabulary size, got {sorted(sizes)}"
        )
    return found


def make_hello(
    session_id: bytes,
    seed: bytes,
    codecs: Sequence[Codec],
    tokenizer: bytes,
    sampling: Sampling,
    stop: Collection[int],
    max_message: int,
) -> bytes:
    """Return the hello of an edge; ValueError if a part is invalid."""
    hello = wire.Hello(
        check_bytes("session_id", session_id, wire.SESSION_BYTES),
        check_bytes("seed", seed, wire.SEED_BYTES),
        tuple({**c.config(), "fingerprint": c.fingerprint.hex()} for c in codecs),
        check_bytes("tokenizer", tokenizer, wire.TOKENIZER_BYTES, optional=True),
        sampling.config(),
        tuple(sorted(stop)),
        max_message,
    ).to_bytes()
    if len(hello) > max_message:
        raise ValueError(
            f"max_message must be at least {len(hello)}, the size of the hello with "
            f"these settings and stop tokens, got {max_message}"
        )
    return hello


def why_unfit(length: int, limits: Limits, before: Limits | None) -> str | None:
    """Return why a text of this length can't continue with these limits, if so."""
    if before is not None and limits.max_text < before.max_text:
        return (
            f"the last cloud allowed texts of {before.max_text} tokens, this one "
            f"allows {limits.max_text}"
        )
    if length >= limits.max_text:
        return (
            f"the edge's text has {length} tokens, the cloud reads at most "
            f"{limits.max_text - 1} and adds one more"
        )
    return None


@dataclass(frozen=True)
class Agreement:
    """A hello, and the objects that a cloud makes from it."""

    hello: wire.Hello
    codecs: tuple[Codec, ...]
    sampling: Sampling
    stop: frozenset[int]


def agree(
    hello: wire.Hello,
    session_id: bytes,
    tokenizer: bytes,
    vocab_size: int,
    priors: Mapping[str, Prior],
) -> Agreement:
    """Return what a hello asks for; `priors` are the cloud's own, by digest."""
    if hello.session != session_id:
        raise WireError(
            f"the hello names session {hello.session.hex()}, this is {session_id.hex()}"
        )
    codecs = tuple(_codec(config, vocab_size, priors) for config in hello.codecs)
    if hello.tokenizer != tokenizer:
        edge, cloud = (t.hex() or "unknown" for t in (hello.tokenizer, tokenizer))
        raise WireError(
            f"the edge's tokenizer has fingerprint {edge}, the cloud's {cloud}; both "
            f"have {vocab_size} tokens"
        )
    outside = [token for token in hello.stop if token >= vocab_size]
    if outside:
        raise WireError(
            f"stop token {outside[0]} is outside the vocabulary of {vocab_size}"
        )
    try:
        sampling = Sampling.from_config(hello.sampling)
    except (ValueError, TypeError) as error:
        raise WireError(f"the edge's sampling is invalid: {error}") from None
    return Agreement(hello, codecs, sampling, frozenset(hello.stop))


def _codec(
    config: Mapping[str, Any], vocab_size: int, priors: Mapping[str, Prior]
) -> Codec:
    """Return the codec of a config, and check the edge's fingerprint of it."""
    if config.get("vocab_size") != vocab_size:
        raise WireError(
            f"the edge's vocabulary has {config.get('vocab_size')!r:.20} tokens, "
            f"the cloud's has {vocab_size}"
        )
    own = {key: value for key, value in config.items() if key != "fingerprint"}
    try:
        digest = own.get("prior")
        prior = priors.get(digest) if isinstance(digest, str) else None
        codec = _make_codec(dumps(own, sort_keys=True), prior)
    except (ValueError, TypeError) as error:
        raise WireError(f"the cloud can't make the edge's codec: {error}") from None
    if codec.fingerprint.hex() != config.get("fingerprint"):
        raise WireError(
            f"the edge's codec has fingerprint {config.get('fingerprint')!r:.20}, "
            f"the cloud computes {codec.fingerprint.hex()} from its config"
        )
    return codec


@lru_cache(maxsize=16)
def _make_codec(config: str, prior: Prior | None) -> Codec:
    """Return the codec of a config in JSON; sessions share codecs."""
    return Codec.from_config(loads(config), prior)


def by_digest(priors: Sequence[Prior]) -> dict[str, Prior]:
    """Return priors by digest, as in configs."""
    for i, prior in enumerate(priors):
        checks.instance(f"priors[{i}]", prior, Prior, "a Prior")
    return {prior.digest.hex(): prior for prior in priors}


def check_bytes(name: str, value: bytes, size: int, *, optional: bool = False) -> bytes:
    """Return bytes after checking their number; optional ones may be empty."""
    checks.instance(name, value, bytes, "bytes")
    if len(value) != size and (value or not optional):
        wanted = f"{size} bytes or none" if optional else f"{size} bytes"
        raise ValueError(f"{name} must have {wanted}, got {len(value)}")
    return value
