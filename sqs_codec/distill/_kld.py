"""Comparing models with a reference (docs/howto/kld.md)."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqs_codec.distill._dataset import Dataset, Sequence
from sqs_codec.distill._divergence import KLD, estimate_rows, summarize
from sqs_codec.distill._header import NUMBERS
from sqs_codec.distill._make import windows
from sqs_codec.distill._tasks import Comparing, Reader, done


def kld(data: Dataset, logits: Iterable[Any]) -> KLD:
    """Compare a model of any framework with a reference.

    Parameters
    ----------
    data : Dataset
        A reference, with all that `Writer.write` names as numbers.
    logits : iterable of array_like or torch.Tensor of floats [N, V]
        Of each sequence of the data, in order, the model's rows at its places.

    Raises
    ------
    ValueError
        The file is no reference, or the logits aren't as many or of another shape.

    Examples
    --------
    >>> import sqs_codec as sqs
    >>> from sqs_codec import distill
    >>> path, rng = "reference.parquet", np.random.default_rng(0)
    >>> logits = rng.normal(0, 3, (64, 1000))
    >>> header = distill.Header(sqs.Codec(1000, 32), numbers=tuple(distill.NUMBERS))
    >>> with distill.Writer(path, header) as writer:
    ...     task = distill.Counting(0, range(64), range(64), header, rng)
    ...     task.tell(logits)
    ...     writer.write(task.tokens, *task.rows()[:1], numbers=task.rows()[1])
    >>> other = logits + rng.normal(0, 0.1, logits.shape)
    >>> 0.003 < distill.kld(distill.open(path), [other]).mean.value < 0.007
    True
    """
    require_reference(data)
    found: list[NDArray[Any]] = []
    for i, own in enumerate(logits):
        if i == len(data):
            raise ValueError(f"the logits are of more than {i} sequences")
        sequence = data[i]
        task = _task(i, sequence, data)
        task.tell(own)
        found.append(estimate_rows(sequence, task.answer, data.header.log_rounding))
    if len(found) < len(data):
        raise ValueError(f"the logits are of {len(found)} sequences of {len(data)}")
    return summarize(found)


def measure(
    data: Dataset,
    reader: Reader,
    *,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> KLD:
    """Let a model read a reference's texts, and compare it.

    Parameters
    ----------
    data : Dataset
        As for `kld`.
    reader : Reader
        Of the same tokenizer.
    progress : callable, optional
        Put around the texts.
    """
    require_reference(data)
    _require_same_tokens(data, reader)
    texts = deque[Sequence]()

    def batches() -> Iterator[list[Comparing]]:
        for first, window in windows(progress(data), reader.at_once):
            texts.extend(window)
            yield [_task(i, own, data) for i, own in enumerate(window, first)]

    tasks = chain.from_iterable(done(reader, batches()))
    how = data.header.log_rounding
    return summarize([estimate_rows(texts.popleft(), t.answer, how) for t in tasks])


def require_reference(data: Dataset) -> None:
    """Refuse a file that no model can be compared with."""
    header = data.header
    if header.numbers != (*NUMBERS,) or header.tail or header.temperature != 1:
        raise ValueError(
            f"{data.path}: it is no reference, which is of temperature 1, without a "
            f"tail and with {', '.join(NUMBERS)}: sqs kld make makes one"
        )
    if not len(data):
        raise ValueError(f"{data.path}: it has no text")


def _require_same_tokens(data: Dataset, reader: Reader) -> None:
    own, given = data.header.tokenizer_fingerprint, reader.tokenizer_fingerprint
    if own and given and own != given:
        raise ValueError(
            f"{reader.name} has another tokenizer than the reference: its fingerprint "
            f"is {given.hex()}, and {own.hex()} was expected"
        )
    if data.header.codec.vocab_size != reader.vocab_size:
        raise ValueError(
            f"{reader.name} has {reader.vocab_size} tokens, and the reference "
            f"{data.header.codec.vocab_size}"
        )


def _task(index: int, sequence: Sequence, data: Dataset) -> Comparing:
    rows = sequence.rows
    ids, sizes = rows.token_ids, np.diff(rows.offsets)
    text = sequence.tokens.tolist()
    size = data.header.codec.vocab_size
    return Comparing(index, text, sequence.places, size, ids, sizes)
