"""A model inside vLLM that tells of the texts that it reads."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqs_codec.system.hf import TextReader
from sqs_codec.system.vllm._message import TASK
from sqs_codec.system.vllm._start import PATIENCE, import_vllm, start
from sqs_codec.system.vllm._tasks import pack_task, unpack_answer

if TYPE_CHECKING:
    from sqs_codec.distill import Task

__all__ = ["ModelReader"]


class ModelReader(TextReader):
    """A `sqs_codec.distill.Reader`: vLLM's worker does tasks where its logits are.

    It is a context manager, which closes it.

    Parameters
    ----------
    target, dtype, options
        As for `VllmEngine`.

    Raises
    ------
    ModelError
        This version of vLLM or this model can't be served, or vLLM doesn't start.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        dtype: str = "auto",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        settings = {
            "dtype": dtype,
            "enable_prefix_caching": False,  # it has no hidden states
            "kv_cache_memory_bytes": 1 << 30,
        }
        on_cpu = {"max_num_batched_tokens": 2048}
        own = options or {}
        started = start(import_vllm(), target, settings, on_cpu, own, is_async=False)
        self._llm: Any = started.llm
        self._numbers = itertools.count()
        info = started.info
        super().__init__(
            started.name, started.tokenizer, info.vocab_size, info.max_text
        )

    def __enter__(self) -> ModelReader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End vLLM's processes."""
        llm, self._llm = self._llm, None
        if llm is not None:
            llm.renderer.shutdown()
            llm.engine_core.shutdown(timeout=PATIENCE)

    def read(self, tasks: Sequence[Task]) -> None:
        """Have vLLM's worker do tasks, all at once.

        Raises
        ------
        ValueError
            A text is longer than `max_tokens`, or its logits are NaN where they are to
            be counted. What isn't done by then is left.
        RuntimeError
            The reader is closed, or vLLM has died.
        """
        from vllm import PoolingParams

        if self._llm is None:
            raise RuntimeError("the reader is closed")
        waiting: dict[str, Task] = {}
        try:
            for task in tasks:
                if len(task.tokens) > self.max_tokens:
                    raise ValueError(
                        f"text {task.index}: {len(task.tokens)} tokens are more than "
                        f"the {self.max_tokens} that the model and memory have room for"
                    )
                params = PoolingParams(
                    task=TASK,
                    use_activation=False,
                    extra_kwargs={"sqs": pack_task(task)},
                )
                number = f"sqs-{next(self._numbers)}"
                text = {"prompt_token_ids": [*task.tokens]}
                self._llm.add_request(number, text, params)
                waiting[number] = task
            while waiting:
                for output in self._llm.step():
                    task = waiting.pop(output.request_id)
                    try:
                        task.take(unpack_answer(output.outputs.data))
                    except ValueError as error:
                        raise ValueError(f"text {task.index}: {error}") from error
        finally:
            self._llm.abort_request([*waiting])
