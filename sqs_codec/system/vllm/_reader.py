"""A reader of texts inside vLLM."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from sqs_codec.system.hf import Tokenizer
from sqs_codec.system.hf._reader import TextReader
from sqs_codec.system.vllm._message import TASK
from sqs_codec.system.vllm._start import PATIENCE, start
from sqs_codec.system.vllm._tasks import pack_task, unpack_answer

if TYPE_CHECKING:
    from sqs_codec.distill._tasks import Answer, Task


AT_ONCE = 1 << 16  # tokens of texts that vLLM gets at once, to make batches of them


class ModelReader(TextReader, AbstractContextManager["ModelReader"]):
    """A `sqs_codec.distill.Reader` that does tasks in vLLM's worker.

    It is a context manager. Parameters are those of `VllmEngine`. A ModelError says why
    this version of vLLM or this model isn't supported.
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
            "enable_prefix_caching": False,  # tasks need hidden states of all tokens
            "kv_cache_memory_bytes": 1 << 30,
        }
        asked = target, settings, {"max_num_batched_tokens": 2048}, options or {}
        self._llm, info, name, tokenizer = start(*asked, is_async=False)
        self._numbers = itertools.count()
        words = Tokenizer(tokenizer, vocab_size=info.vocab_size)
        super().__init__(name, words, info.max_text, AT_ONCE)

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End vLLM's processes."""
        llm, self._llm = self._llm, None
        if llm is not None:
            llm.renderer.shutdown()
            llm.engine_core.shutdown(timeout=PATIENCE)

    def read(self, texts: Iterable[Task]) -> Iterator[tuple[Task, Answer]]:
        """Yield texts with the worker's answers.

        Raises a ValueError if counted logits are NaN; a RuntimeError if the reader is
        closed or vLLM has died.
        """
        for _, together in itertools.groupby(texts, attrgetter("batch")):
            yield from self._read([*together])

    def _read(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, Answer]]:
        from vllm import PoolingParams

        if self._llm is None:
            raise RuntimeError("the reader is closed")
        waiting: dict[str, Task] = {}
        try:
            for task in tasks:
                fields, text = pack_task(task), {"prompt_token_ids": [*task.tokens]}
                params = PoolingParams(task=TASK, extra_kwargs={"sqs": fields})
                number = f"sqs-{next(self._numbers)}"
                self._llm.add_request(number, text, params)
                waiting[number] = task
            while waiting:
                for output in self._llm.step():
                    task = waiting.pop(output.request_id)
                    try:
                        answer = unpack_answer(task, output.outputs.data)
                    except ValueError as error:
                        raise ValueError(f"text {task.index}: {error}") from error
                    yield task, answer
        finally:
            self._llm.abort_request([*waiting])
