"""The verifier in vLLM's worker: a causal model whose pooler verifies drafted tokens.

vLLM's pooling models answer a prompt with a function of its hidden states, the pooler.
Here the prompt is a text with its draft, and the answer a verdict. Logits stay in the
worker, and one step computes those of all its requests. Only vLLM imports this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any

import torch
from vllm.model_executor.layers.pooler import Pooler
from vllm.model_executor.models.interfaces_base import default_pooling_type

from sqs_codec.system.hf._sampling import verify_jobs
from sqs_codec.system.vllm import _message
from sqs_codec.system.vllm._plugin import ARCHITECTURES


class RoundPooler(Pooler):  # type: ignore[misc]  # vLLM may not be installed
    """Verifies the jobs and does the tasks of the requests that a step completes."""

    def __init__(
        self,
        compute_logits: Callable[[torch.Tensor], torch.Tensor | None],
        vocab_size: int,
    ) -> None:
        super().__init__()
        # With tensor parallelism, only the first process gets logits, others None.
        self._compute_logits = compute_logits
        self._vocab_size = vocab_size

    def get_supported_tasks(self) -> set[str]:
        return {_message.TASK}

    def forward(
        self, hidden_states: torch.Tensor, pooling_metadata: Any
    ) -> list[torch.Tensor | None]:
        """Return an answer for each request, or None if its text isn't complete."""
        cursor = pooling_metadata.get_pooling_cursor()
        counts = cursor.num_scheduled_tokens_cpu.tolist()
        requests = zip(
            torch.split(hidden_states, counts),
            cursor.seq_lens_cpu.tolist(),
            cursor.prompt_lens_cpu.tolist(),
            pooling_metadata.pooling_params,
            pooling_metadata.pooling_states,
            strict=True,
        )
        answers: list[tuple[int, int] | torch.Tensor | None] = []
        waiting: list[tuple[int, Mapping[str, Any], torch.Tensor]] = []
        for chunk, end, length, params, state in requests:
            fields = (params.extra_kwargs or {}).get("sqs", {})
            wanted = _message.count_wanted(fields)
            rows = _collect(state.hidden_states_cache, chunk, end, length - wanted)
            if end < length:
                answers.append(None)
                continue
            if "task" in fields and len(rows) == wanted:
                answers.append(self._do(fields["task"], rows))
                state.clean()
                continue
            if wanted and len(rows) == wanted:
                waiting.append((len(answers), fields, rows))
            answers.append(_message.READ if len(rows) == wanted else _message.SHORT)
            state.clean()
        if waiting:
            # All processes of tensor parallelism must call this.
            logits = self._compute_logits(torch.cat([rows for _, _, rows in waiting]))
            if logits is not None:
                jobs = [fields for _, fields, _ in waiting]
                verified = _verify(jobs, logits[:, : self._vocab_size])
                for (i, _, _), answer in zip(waiting, verified, strict=True):
                    answers[i] = answer
        return [None if one is None else torch.as_tensor(one) for one in answers]

    def _do(self, packed: bytes, rows: torch.Tensor) -> torch.Tensor:
        from sqs_codec.system.vllm._tasks import do_task  # needs more packages

        def logits_of(rows: torch.Tensor) -> torch.Tensor | None:
            logits = self._compute_logits(rows)
            return None if logits is None else logits[:, : self._vocab_size]

        return do_task(packed, rows, logits_of)


def _collect(
    kept: list[torch.Tensor], chunk: torch.Tensor, end: int, first: int
) -> torch.Tensor:
    """Return hidden states from `first` to `end`, or none if some are missing."""
    # A chunk that starts after `first` needs those kept from earlier chunks. After a
    # preemption, a request may start anywhere.
    start = end - len(chunk)
    before = kept[0][: start - first] if kept and start > first else chunk[:0]
    if len(before) < start - first:
        kept.clear()
        return chunk[:0]
    rows = torch.cat([before, chunk[max(first - start, 0) :]])
    kept[:] = [rows]  # `cat` has copied them: the next step may overwrite the chunk
    return rows


def _verify(
    jobs: Sequence[Mapping[str, Any]], logits: torch.Tensor
) -> list[tuple[int, int]]:
    """Verify jobs together, or one by one if that fails; errors would end vLLM."""
    try:
        whole = [_message.unpack_job(fields, logits.shape[-1]) for fields in jobs]
        return [
            (verdict.accepted, verdict.token) if verdict else _message.READ
            for verdict in verify_jobs(whole, logits)
        ]
    except ValueError:
        if len(jobs) == 1:
            return [_message.FAILED]
    parts = torch.split(logits, [*map(_message.count_wanted, jobs)])
    return [
        _verify([fields], part)[0] for fields, part in zip(jobs, parts, strict=True)
    ]


@cache
def _make(name: str) -> type:
    module = import_module(f"vllm.model_executor.models.{ARCHITECTURES[name]}")
    stock: Any = getattr(module, name)

    class Verifier(stock):  # type: ignore[misc]  # a class known at run time only
        is_pooling_model = True

        def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
            super().__init__(vllm_config=vllm_config, prefix=prefix)
            vocab_size = vllm_config.model_config.hf_config.sqs_vocab_size
            self.pooler = RoundPooler(self.compute_logits, vocab_size)

    Verifier.__name__ = Verifier.__qualname__ = f"Sqs{name}"
    default_pooling_type(seq_pooling_type="LAST", tok_pooling_type="ALL")(Verifier)
    return Verifier


def __getattr__(name: str) -> type:
    """Return a verifier class by the name that `register` gave it."""
    if name.removeprefix("Sqs") not in ARCHITECTURES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _make(name.removeprefix("Sqs"))
