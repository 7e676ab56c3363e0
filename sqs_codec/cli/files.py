"""Reading of files that several commands need."""

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sqs_codec._base.checks import look_like_probabilities
from sqs_codec._base.format import MAX_VOCAB, MIN_VOCAB

TOKENIZER = "tokenizer.json"


def open_logits(path: str | Path) -> NDArray[np.floating]:
    """Open a .npy file of logits [N, V], memory-mapped, or read it from stdin."""
    try:
        if str(path) == "-":
            path = "standard input"
            array = np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False)
        else:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, TypeError, OverflowError) as error:
        raise ValueError(f"{path} is not a .npy file of numbers") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path} has several arrays, expected a .npy file with one")
    sizes, floats = f"{MIN_VOCAB} to {MAX_VOCAB}", ("float16", "float32", "float64")
    is_kind = array.ndim == 2 and array.dtype.name in floats
    if not is_kind or not len(array) or not MIN_VOCAB <= array.shape[1] <= MAX_VOCAB:
        raise ValueError(
            f"{path} must have shape [N, V] with V from {sizes} and a dtype of "
            f"{', '.join(floats)}, got {array.dtype} of shape {list(array.shape)}"
        )
    if look_like_probabilities(array[0]):
        raise ValueError(
            f"{path} must have logits, but row 0 looks like probabilities: no number "
            "is negative, and they sum to 1"
        )
    return array


def load_tokenizer(name: str) -> Any:
    """Return the ``tokenizers.Tokenizer`` from a file, a folder or the hub."""
    from tokenizers import Tokenizer

    from sqs_codec.system._base.hub import ask_hub

    path = Path(name)
    if path.is_dir():
        path = path / TOKENIZER
    try:
        if path.exists() or path.suffix == ".json":
            return Tokenizer.from_file(str(path))
        ask_hub(name, TOKENIZER)
        return Tokenizer.from_pretrained(name)
    except Exception as error:  # the library raises no other class
        reason = " ".join(str(error).split())
        raise ValueError(f"cannot load the tokenizer {name}: {reason}") from error
