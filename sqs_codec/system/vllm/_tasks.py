"""Messages between a reader and vLLM's worker: tasks in, answers out."""

import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from sqs_codec import Codec, SparseRows
from sqs_codec.distill import Header, Text
from sqs_codec.distill._tasks import Answer, Comparing, Counting, Task

ROWS = 256  # maximum number of rows of logits that a task gets at once
ARRAYS = "token_ids", "counts", "offsets", "resolution"  # of `SparseRows`, in messages


def pack_task(task: Task) -> dict[str, Any]:
    """Pack a task for a request; this advances its generator as the task would."""
    asked: dict[str, Any] = {
        "tokens": task.tokens,
        "places": task.places,
        "vocab_size": task.vocab_size,
    }
    if isinstance(task, Comparing):
        asked |= _arrays(task.text.rows)
    elif isinstance(task, Counting):
        state = json.dumps(task.rng.bit_generator.state, default=np.ndarray.tolist)
        task.rng.integers(0, 2**64, size=len(task.places), dtype=np.uint64)
        asked |= {
            "resolution": task.header.codec.resolution,
            "temperature": task.header.temperature,
            "extras": task.header.extras,
            "rng": state,
        }
    else:
        raise TypeError(f"vLLM's worker knows Counting and Comparing, got {task!r}")
    wanted = len(task.tokens) - int(task.places[0])
    return {"task": _pack(asked), "wanted": wanted}


def do_task(
    packed: bytes,
    states: torch.Tensor,
    logits_of: Callable[[torch.Tensor], torch.Tensor | None],
) -> torch.Tensor:
    """Do a task with the hidden states of its text; pack its answer or its error."""
    # An exception would end vLLM, and tensor parallelism needs equal work everywhere.
    told: Mapping[str, Any] = {}
    error, logits = "", None
    try:
        task = _unpack_task(packed)
        wanted = states[torch.from_numpy(task.places - task.places[0])]
    except Exception as problem:
        error, wanted = str(problem) or repr(problem), states[:0]
    for start in range(0, len(wanted), ROWS):
        logits = logits_of(wanted[start : start + ROWS])
        try:
            if logits is not None and not error:
                task.tell(logits)
        except Exception as problem:
            error = str(problem) or repr(problem)
    if logits is not None and not error:
        rows, told = task.answer
        told = told if rows is None else told | _arrays(rows)
    answer = _pack({"error": error, **told})
    return torch.frombuffer(bytearray(answer), dtype=torch.uint8)


def unpack_answer(task: Task, packed: torch.Tensor) -> Answer:
    """Return a worker's answer; ValueError if the task failed there."""
    if packed.dtype != torch.uint8:  # it is one of `_message`
        raise ValueError("vLLM gave no logits")
    answer = _unpack(packed.numpy().tobytes())
    if error := str(answer.pop("error")):
        raise ValueError(error)
    if "counts" not in answer:
        return Answer(None, answer)
    return Answer(_rows(answer, task.vocab_size), answer)


def _arrays(rows: SparseRows) -> dict[str, Any]:
    return {name: getattr(rows, name) for name in ARRAYS}


def _rows(found: dict[str, Any], vocab_size: int) -> SparseRows:
    """Remove the fields of rows from a message, and return the rows."""
    ids, counts, offsets, resolution = map(found.pop, ARRAYS)
    return SparseRows(ids, counts, offsets, vocab_size, int(resolution))


def _unpack_task(packed: bytes) -> Task:
    asked = _unpack(packed)
    tokens, places, size = asked["tokens"], asked["places"], int(asked["vocab_size"])
    if "counts" in asked:
        return Comparing(0, Text(tokens, places, _rows(asked, size), 1.0, False, {}))
    header = Header(
        Codec(size, int(asked["resolution"])),
        temperature=float(asked["temperature"]),
        extras=tuple(asked["extras"].tolist()),
    )
    state = json.loads(str(asked["rng"]))
    bits = getattr(np.random, state["bit_generator"])()
    bits.state = state
    return Counting(0, tokens, places, header, np.random.Generator(bits))


def _pack(arrays: Mapping[str, Any]) -> bytes:
    sink = io.BytesIO()
    np.savez(sink, **arrays)
    return sink.getvalue()


def _unpack(packed: bytes) -> dict[str, Any]:
    with np.load(io.BytesIO(packed), allow_pickle=False) as found:
        return dict(found)
