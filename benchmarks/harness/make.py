"""Engines by name, with the settings for a measurement."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqs_codec.system.engine import Engine
    from sqs_codec.system.hf._models import LanguageModel

KNOWN = {name: f"{__name__}:{name}_engine" for name in ("transformers", "vllm")}

PLENTY = 1024
"""MiB for the KV cache, enough for any measurement."""

Make = Callable[..., "Engine"]


def maker(name: str) -> Make:
    """Return the function that makes an engine; ValueError if there is none.

    Names are ``transformers``, ``vllm``, ``smollm2-F32`` for llama.cpp with a file of
    `gguf_files`, or MODULE:FUNCTION for a custom engine. Keywords of the function are
    `target` (a model's directory or name, None for SmolLM2), `max_memory` (MiB of the
    KV cache) and `batch_tokens` (approximate tokens per forward pass, None for the
    engine's own choice). Values of `dtype` and `device` as in `sqs serve` are passed
    only if they aren't the defaults.
    """
    model, dash, kind = name.partition("-")
    if dash and model in ("smollm2", "gemma3"):
        return partial(llama_cpp_engine, model, kind)
    module, _, function = KNOWN.get(name, name).partition(":")
    try:
        made: Make = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{name!r} is not an engine: use one of {', '.join(KNOWN)}, or "
            f"MODULE:FUNCTION ({error})"
        ) from error
    return made


def packages() -> list[str]:
    """Return the packages of engines; vLLM's has several names."""
    vllm = importlib.metadata.packages_distributions().get("vllm", [])
    return ["torch", "transformers", *vllm[:1]]


def transformers_engine(
    target: str | None,
    max_memory: int,
    batch_tokens: int | None,
    dtype: str = "float32",
    device: str = "cpu",
) -> Engine:
    """Return the engine on transformers."""
    from sqs_codec.system.engine import BatchEngine
    from sqs_codec.system.hf import Cloud

    loaded = _load(target, device, dtype)
    cloud = Cloud(
        loaded.model,
        vocab_size=loaded.vocab_size,
        max_memory=max_memory << 20,
        batch_tokens=batch_tokens or 512,
    )
    return BatchEngine(cloud, summary=f"{loaded.summary} {loaded.placement}")


@lru_cache(maxsize=1)
def _load(target: str | None, device: str, dtype: str) -> LanguageModel:
    from sqs_codec.system.hf import load_model

    return load_model(target, device=device, dtype=dtype)


def llama_cpp_engine(
    model: str, kind: str, *, target: None, max_memory: int, batch_tokens: int | None
) -> Engine:
    """Return the engine on llama.cpp, with one thread; F32 files use only F32.

    It gets more memory, because all texts reserve the same amount.
    """
    from benchmarks.gguf_files import gguf_file
    from sqs_codec.system.engine import BatchEngine
    from sqs_codec.system.llama_cpp import Cloud, Options

    wide: dict[str, Any] = {}
    if kind == "F32":  # flash attention rounds the KV cache to F16
        wide = {"flash_attn": "off", "cache_type_k": "f32", "cache_type_v": "f32"}
    options = Options(threads=1, batch_size=max(batch_tokens or 512, 64), **wide)
    memory = max_memory << (22 if wide else 21)
    cloud = Cloud(gguf_file(model, kind), max_memory=memory, options=options)
    return BatchEngine(cloud, summary=cloud.summary)


def vllm_engine(
    target: str | None,
    max_memory: int,
    batch_tokens: int | None,
    dtype: str = "float32",
    device: str = "cpu",
) -> Engine:
    """Return the engine on vLLM, which chooses its device itself."""
    from sqs_codec.system.vllm import VllmEngine

    options: dict[str, Any] = {}
    if batch_tokens is not None:
        options["max_num_batched_tokens"] = batch_tokens
    if device == "cuda":
        # vLLM only checks this at the start; `max_memory` is the memory it takes.
        import torch

        free, total = torch.cuda.mem_get_info()
        options["gpu_memory_utilization"] = 0.9 * free / total
    return VllmEngine(target, max_memory=max_memory, dtype=dtype, options=options)
