"""What crosses between a reader and vLLM's worker: tasks in, answers out."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from sqs_codec import Codec
from sqs_codec.distill import Comparing, Counting, Header, Task

__all__ = ["Asked", "pack_task", "unpack_answer"]


def pack_task(task: Task) -> dict[str, Any]:
    """Return what a request is to carry beside its text, in plain types.

    The numbers that rounding needs are drawn from the task's generator.
    """
    fields: dict[str, Any] = {
        "tokens": np.asarray(task.tokens, np.uint32).tobytes(),
        "places": task.places.tobytes(),
        "vocab_size": task.vocab_size,
        "wanted": len(task.tokens) - int(task.places[0]),
    }
    if isinstance(task, Comparing):
        return fields | {
            "task": "comparing",
            "ids": task.ids.astype(np.uint32).tobytes(),
            "sizes": task.sizes.astype(np.int64).tobytes(),
        }
    if not isinstance(task, Counting):
        raise TypeError(f"vLLM's worker knows Counting and Comparing, got {task!r}")
    # Its state is of integers of 128 bits, which vLLM's messages don't have.
    state = json.dumps(task.rng.bit_generator.state, default=np.ndarray.tolist)
    # It moves on as if it had rounded here.
    task.rng.integers(0, 2**64, size=len(task.places), dtype=np.uint64)
    return fields | {
        "task": "counting",
        "resolution": task.header.codec.resolution,
        "temperature": task.header.temperature,
        "numbers": [*task.header.numbers],
        "rng": state,
    }


class Asked:
    """The task of a request, in vLLM's worker.

    What fails is an answer, too: it mustn't end vLLM.
    """

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = fields
        self._task: Task | None = None
        self._error = ""

    def of(self, states: torch.Tensor) -> torch.Tensor:
        """Return those that are wanted of the hidden states of the text's end."""
        places = np.frombuffer(self._fields["places"], np.int64)
        return states[torch.from_numpy(places - places[0])]

    def tell(self, logits: torch.Tensor) -> None:
        """Tell the task of its next rows."""
        if self._error:
            return
        try:
            self._task = self._task or _unpack(self._fields)
            self._task.tell(logits)
        except Exception as error:
            self._error = str(error) or repr(error)

    def pack(self) -> torch.Tensor:
        """Return the task's answer as bytes, or an error; nothing if it wasn't told."""
        sink = io.BytesIO()
        told = self._task.answer if self._task and not self._error else {}
        np.savez(sink, error=self._error, **told)
        return torch.frombuffer(sink.getbuffer(), dtype=torch.uint8)


def _unpack(fields: Mapping[str, Any]) -> Task:
    tokens = np.frombuffer(fields["tokens"], np.uint32).tolist()
    places, size = np.frombuffer(fields["places"], np.int64), fields["vocab_size"]
    if fields["task"] == "comparing":
        ids = np.frombuffer(fields["ids"], np.uint32)
        sizes = np.frombuffer(fields["sizes"], np.int64)
        return Comparing(0, tokens, places, size, ids, sizes)
    if fields["task"] != "counting":
        raise ValueError(f"there is no task {fields['task']}")
    header = Header(
        Codec(size, fields["resolution"]),
        temperature=fields["temperature"],
        numbers=tuple(fields["numbers"]),
    )
    state = json.loads(fields["rng"])
    kind = getattr(np.random, state["bit_generator"])()
    kind.state = state
    return Counting(0, tokens, places, header, np.random.Generator(kind))


def unpack_answer(packed: torch.Tensor) -> dict[str, Any]:
    """Return the answer that a worker gave.

    Raises
    ------
    ValueError
        It says that something failed.
    """
    if packed.dtype != torch.uint8:  # it is one of `_message`
        raise ValueError("vLLM gave none of the logits that were wanted")
    with np.load(io.BytesIO(packed.numpy().tobytes()), allow_pickle=False) as found:
        answer = dict(found)
    if error := str(answer.pop("error")):
        raise ValueError(error)
    return answer
