"""A file of a teacher's distributions as a data set of Hugging Face.

Needs the extra ``[trainers]``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

try:
    from datasets import Dataset, Features, Sequence, Value
except ModuleNotFoundError as error:
    from sqs_codec._base.install import needs

    raise needs("sqs_codec.trainers.datasets", error, "trainers") from error

from sqs_codec import distill

__all__ = ["as_dataset"]


def as_dataset(
    data: distill.Dataset, top_k: int | None = None, *, cache_dir: str | None = None
) -> Dataset:
    """Return the texts of a file, and if asked the teacher's lists, as columns.

    Whatever stands at i belongs to row i of the student's logits, those of what follows
    token i.

    Parameters
    ----------
    data : sqs_codec.distill.Dataset
    top_k : int, optional
        How many tokens a list has; the file's resolution is enough for all. Each takes
        8 bytes, so lists take far more room than the file.
    cache_dir : str, optional
        Where ``datasets`` keeps the columns, for the next time with the same file.

    Returns
    -------
    datasets.Dataset
        ``input_ids`` [n] and ``labels`` [n], which are the same where the file has a
        distribution and else -100: a mask of rows, and as models of Hugging Face take
        labels, who shift them. With `top_k` ``teacher_ids`` and ``teacher_logprobs``
        [n, top_k], likeliest first, as `sqs_codec.distill.top_lists` fills them up; all
        are token 0 and -9999 where there is no distribution.

    Raises
    ------
    ValueError
        A row has more than `top_k` tokens.

    Examples
    --------
    >>> import tempfile
    >>> import sqs_codec as sqs
    >>> folder = tempfile.mkdtemp()
    >>> path = folder + "/teacher.parquet"
    >>> codec = sqs.Codec(vocab_size=8, resolution=4)
    >>> rows = sqs.SparseRows([2, 7, 5], [3, 1, 4], [0, 2, 3], 8, resolution=4)
    >>> with distill.Writer(path, distill.Header(codec)) as writer:
    ...     writer.write([1, 2, 5, 0], rows, [1, 2])
    >>> found = as_dataset(distill.open(path), top_k=2, cache_dir=folder)[0]
    >>> found["labels"]
    [-100, 2, 5, -100]
    >>> found["teacher_ids"]
    [[0, 0], [2, 7], [5, 0], [0, 0]]
    """
    columns = dict.fromkeys(("input_ids", "labels"), Sequence(Value("int32")))
    if top_k is not None:
        lists = {"teacher_ids": "int32", "teacher_logprobs": "float32"}
        for name, kind in lists.items():
            columns[name] = Sequence(Sequence(Value(kind), length=top_k))
    content = hashlib.blake2b(np.memmap(data.path, mode="r").data, digest_size=16)
    return Dataset.from_generator(
        _rows,
        features=Features(columns),
        cache_dir=cache_dir,
        gen_kwargs={"data": data, "top_k": top_k},
        fingerprint=f"{content.hexdigest()}-{top_k}",
    )


def _rows(data: distill.Dataset, top_k: int | None) -> Iterator[dict[str, Any]]:
    for text in data:
        labels = np.full(len(text.tokens), -100)
        labels[text.places] = text.tokens[text.places]
        row = {"input_ids": text.tokens, "labels": labels}
        if top_k is not None:
            shape = len(labels), top_k
            row["teacher_ids"] = np.zeros(shape, np.int64)
            row["teacher_logprobs"] = np.full(shape, distill.NOTHING)
            ids, logprobs = distill.top_lists(text.rows, top_k, tail=text.tail)
            row["teacher_ids"][text.places] = ids
            row["teacher_logprobs"][text.places] = logprobs
        yield row
