"""How llama.cpp runs a file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from sqs_codec._base import checks

BATCH = 512
"""Tokens that are read at once."""

TEXTS = 64
"""Texts that are read side by side, which all of llama.cpp's versions can."""

RANGES = {
    "threads": (1, 512),
    "n_gpu_layers": (0, 1 << 30),
    "ctx_size": (1, 1 << 30),
    "parallel": (1, TEXTS),
    "batch_size": (64, 1 << 30),
}
"""What integers may be: llama.cpp's have 32 bits, and a batch has room for a draft."""

WORDS = {"auto": None, "all": 1 << 20}
"""What `Options.n_gpu_layers` may be called: "all" is more than any model has."""

CacheType = Literal[
    "f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"
]
FlashAttention = Literal["auto", "on", "off"]


@dataclass(frozen=True)
class Options:
    """Options of llama.cpp's programs, by their names; and `repeatable`.

    Attributes
    ----------
    threads : int
        Half of the machine's cores by default.
    n_gpu_layers : int or None
        How many layers are on GPUs; ``"all"``, or ``"auto"`` for llama.cpp's choice.
    tensor_split : sequence of float
        The proportions by which GPUs share the model; a text has commas between them.
    ctx_size, parallel : int or None
        Tokens of all sessions together, and how many sessions are cached.
    batch_size : int
        Tokens that are read at once.
    repeatable : bool
        Whether a row's logits must be the same to the bit, whatever is beside it.
    """

    threads: int | None = None
    n_gpu_layers: int | None = None
    tensor_split: Sequence[float] = ()
    ctx_size: int | None = None
    parallel: int | None = None
    batch_size: int = BATCH
    flash_attn: FlashAttention = "auto"
    cache_type_k: CacheType = "f16"
    cache_type_v: CacheType = "f16"
    repeatable: bool = False

    def __post_init__(self) -> None:
        put = object.__setattr__
        if self.threads is None:
            put(self, "threads", max(1, (os.cpu_count() or 1) // 2))
        if isinstance(self.n_gpu_layers, str) and self.n_gpu_layers in WORDS:
            put(self, "n_gpu_layers", WORDS[self.n_gpu_layers])
        given: Any = self.tensor_split
        if isinstance(given, (str, int, float)):
            given = str(given).split(",")
        try:
            shares = [*map(float, given)]
        except (TypeError, ValueError) as error:
            raise ValueError(f"tensor-split must be numbers: {error}") from None
        for share in shares:
            checks.finite("tensor-split", share, 0, 1e9)
        put(self, "tensor_split", tuple(shares))
        for name, (least, most) in RANGES.items():
            value, called = getattr(self, name), name.replace("_", "-")
            if isinstance(value, bool):
                raise TypeError(f"{called} must be an integer, got {value}")
            if value is not None or name == "batch_size":
                checks.in_range(called, value, least, most)
        checks.one_of("flash-attn", self.flash_attn, FlashAttention)
        checks.one_of("cache-type-k", self.cache_type_k, CacheType)
        checks.one_of("cache-type-v", self.cache_type_v, CacheType)
        checks.instance("repeatable", self.repeatable, bool, "true or false")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Options:
        """Return what `config` says; ValueError if it has other keys or values."""
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(config) - {*known}):
            said = f"options {', '.join(known)}, not {', '.join(unknown)}"
            raise ValueError(f"llama.cpp's engine takes the {said.replace('_', '-')}")
        try:
            return cls(**config)
        except TypeError as error:
            raise ValueError(str(error)) from error
