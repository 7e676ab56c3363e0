"""A teacher file as a Hugging Face data set."""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from datasets import Dataset, Features, Sequence, Value
from datasets.exceptions import DatasetGenerationError

from sqs_codec import distill
from sqs_codec.distill._lists import NOTHING

__all__ = ["as_dataset"]


def as_dataset(
    data: distill.Dataset, top_k: int | None = None, *, cache_dir: str | None = None
) -> Dataset:
    """Return a file's texts, and optionally the teacher's lists, as columns.

    Index i of each column belongs to row i of the student's logits, which predicts the
    token after token i.

    Parameters
    ----------
    top_k : int, optional
        The length of the lists, 8 bytes per token.
    cache_dir : str, optional
        The folder in which ``datasets`` caches the columns.

    Returns
    -------
    datasets.Dataset
        ``input_ids`` and ``labels`` [n]; labels are -100 without a distribution. Don't
        shift this mask. With `top_k` also ``teacher_ids`` and ``teacher_logprobs``
        [n, top_k] of `sqs_codec.distill.top_lists`, with its errors; token 0 and -9999
        are padding.
    """
    columns = dict.fromkeys(("input_ids", "labels"), Sequence(Value("int32")))
    if top_k is not None:
        lists = {"teacher_ids": "int32", "teacher_logprobs": "float32"}
        columns |= {k: Sequence(Sequence(Value(v), top_k)) for k, v in lists.items()}
    content = hashlib.blake2b(np.memmap(data.path, mode="r").data, digest_size=16)
    try:
        return Dataset.from_generator(
            _rows,
            features=Features(columns),
            cache_dir=cache_dir,
            gen_kwargs={"data": data, "top_k": top_k},
            fingerprint=f"{content.hexdigest()}-{top_k}",
        )
    except DatasetGenerationError as error:  # its message doesn't name the cause
        raise error.__cause__ or error from None


def _rows(data: distill.Dataset, top_k: int | None) -> Iterator[dict[str, Any]]:
    for text in data:
        n, at = len(text.tokens), text.places
        row = {"input_ids": text.tokens, "labels": np.full(n, -100)}
        row["labels"][at] = text.tokens[at]
        if top_k is not None:
            ids, logprobs = distill.top_lists(text.rows, top_k, tail=text.tail)
            row["teacher_ids"] = np.zeros((n, top_k), ids.dtype)
            row["teacher_logprobs"] = np.full((n, top_k), NOTHING)
            row["teacher_ids"][at], row["teacher_logprobs"][at] = ids, logprobs
        yield row
