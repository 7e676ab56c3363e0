"""Comparison of models with a reference (docs/distill/kld.md)."""

from collections.abc import Callable, Iterable
from typing import Any

from numpy.typing import NDArray

from sqs_codec.distill._dataset import Dataset
from sqs_codec.distill._divergence import KLD, estimate_rows, summarize
from sqs_codec.distill._header import EXTRAS
from sqs_codec.distill._tasks import Comparing, Reader, read_all


def kld(data: Dataset, logits: Iterable[Any]) -> KLD:
    """Compare the logits of any model with a reference.

    Parameters
    ----------
    data : Dataset
        A reference, with all extras of `Writer.write`.
    logits : iterable of array_like or torch.Tensor of floats [N, V]
        For each sequence in order, the model's logits at its places.

    Raises
    ------
    ValueError
        The file is not a reference, or the logits have the wrong number or shape.

    Examples
    --------
    >>> import numpy as np
    >>> import sqs_codec as sqs
    >>> from sqs_codec import distill
    >>> rng, codec = np.random.default_rng(0), sqs.Codec(1000, 32)
    >>> logits = rng.normal(0, 3, (64, 1000))
    >>> logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    >>> rows = codec.quantize_unbiased_rows(logits, rng=rng)
    >>> at, text = np.repeat(range(64), np.diff(rows.offsets)), np.arange(1, 65)
    >>> extras = {"logprobs": logs[at, rows.token_ids], "likeliest": logits.argmax(1)}
    >>> extras["token_logprobs"] = logs[range(64), text]
    >>> names = "logprobs", "token_logprobs", "likeliest"
    >>> path, header = "reference.parquet", distill.Header(codec, extras=names)
    >>> with distill.Writer(path, header) as writer:
    ...     writer.write([0, *text], rows, extras=extras)
    >>> other = logits + rng.normal(0, 0.1, logits.shape)
    >>> 0.003 < distill.kld(distill.load(path), [other]).mean.value < 0.007
    True
    """
    require_reference(data)
    found: list[NDArray[Any]] = []
    for i, own in enumerate(logits):
        if i == len(data):
            raise ValueError(f"got logits for more than {i} sequences")
        sequence = data[i]
        task = Comparing(i, sequence)
        task.tell(own)
        found.append(estimate_rows(sequence, task.answer.told))
    if len(found) < len(data):
        raise ValueError(f"got logits for {len(found)} of {len(data)} sequences")
    return summarize(found)


def measure(
    data: Dataset,
    reader: Reader,
    *,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> KLD:
    """Run a model on a reference's texts and compare it.

    Parameters
    ----------
    data : Dataset
        As for `kld`.
    reader : Reader
        The model, with the reference's tokenizer.
    progress : callable, optional
        Wraps the texts, for example in a progress bar.
    """
    require_reference(data)
    own, given = data.header.tokenizer_fingerprint, reader.tokenizer.fingerprint
    if own and given and own != given:
        raise ValueError(
            f"the reference's tokenizer has the fingerprint {own.hex()}, but the "
            f"reader's has {given.hex()}"
        )
    size, expected = reader.tokenizer.vocab_size, data.header.codec.vocab_size
    if size != expected:
        raise ValueError(
            f"the reference has a vocabulary of {expected}, but the reader has {size}"
        )
    tasks = read_all(reader, progress(data), Comparing)
    return summarize([estimate_rows(t.text, t.answer.told) for t in tasks])


def require_reference(data: Dataset) -> None:
    header = data.header
    if header.extras != (*EXTRAS,) or header.tail or header.temperature != 1:
        raise ValueError(
            f"{data.path} is not a reference: a reference has temperature 1, no tail, "
            f"and {', '.join(EXTRAS)}. Make one with sqs kld make"
        )
    if not len(data):
        raise ValueError(f"{data.path} has no texts")
