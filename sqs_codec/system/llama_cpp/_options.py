"""Options for running a model in llama.cpp."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from sqs_codec._base import checks

BATCH = 512  # default maximum number of tokens in a batch
TEXTS = 64  # maximum number of texts in a batch that all versions of llama.cpp support

RANGES = {
    "threads": (1, 512),
    "n_gpu_layers": (0, 1 << 30),
    "ctx_size": (1, 1 << 30),
    "parallel": (1, TEXTS),
    "batch_size": (64, 1 << 30),
}
"""Ranges of integers: llama.cpp's have 32 bits, and a draft must fit in a batch."""

WORDS = {"auto": None, "all": 1 << 20}
"""Names of values of `Options.n_gpu_layers`; "all" exceeds any model's number."""

CacheType = Literal[
    "f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"
]
FlashAttention = Literal["auto", "on", "off"]


@dataclass(frozen=True)
class Options:
    """Options of llama.cpp's programs under their own names, and `repeatable`.

    Attributes
    ----------
    threads : int
        Number of threads; by default half of the machine's cores.
    n_gpu_layers : int or None
        Number of layers on GPUs; ``"all"``, or ``"auto"`` for llama.cpp's choice.
    tensor_split : sequence of float
        Proportions of the model on each GPU; in a string, separated by commas.
    ctx_size, parallel : int or None
        Total number of tokens of all sessions, and number of cached sessions.
    batch_size : int
        Maximum number of tokens in a batch.
    repeatable : bool
        Whether logits must be bitwise identical in different batches.
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
        """Make options from `config`; ValueError if it has other keys or values."""
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(config) - {*known}):
            said = f"options {', '.join(known)}, not {', '.join(unknown)}"
            raise ValueError(f"llama.cpp's engine takes the {said.replace('_', '-')}")
        try:
            return cls(**config)
        except TypeError as error:
            raise ValueError(str(error)) from error
