"""A file of a teacher's distributions as a data set of Hugging Face."""

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
    """Return the texts of a file, and if asked the teacher's lists, as columns.

    Whatever stands at i belongs to row i of a student's logits, those of what follows
    token i.

    Parameters
    ----------
    top_k : int, optional
        How many tokens a list has, of 8 bytes each.
    cache_dir : str, optional
        Where ``datasets`` keeps the columns, for the next time with the same file.

    Returns
    -------
    datasets.Dataset
        ``input_ids`` and ``labels`` [n], equal where the file has a distribution, else
        -100: a mask of rows that isn't to be shifted. With `top_k` ``teacher_ids`` and
        ``teacher_logprobs`` [n, top_k], as `sqs_codec.distill.top_lists` gives them,
        and refuses too small a `top_k`; token 0 and -9999 where there is none.
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
    except DatasetGenerationError as error:  # which only says that there was one
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
