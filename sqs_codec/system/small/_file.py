"""What the file of a small draft has: arrays in ``.npz``, and no pickles."""

from __future__ import annotations

import json
import lzma
import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray

from sqs_codec._base.files import require_file
from sqs_codec.system.small._network import Array, Network

VERSION = 1

MOST_BYTES = 1 << 28
"""Of what a file has, unpacked."""

SHAPES = {
    "embedding": "Ce",
    "bias": "C",
    "given": "ge",
    "given_bias": "g",
    "kept": "gh",
    "kept_bias": "g",
    "out": "eh",
    "out_bias": "e",
    "pointer": "ph",
    "pointer_bias": "p",
}
"""Sizes of a network's weights; g is 3h, and p odd. Those of two have int8, and a scale
for each row in an array of the same name with ``_scale``."""


@dataclass(frozen=True)
class File:
    """What is in a file."""

    network: Network
    tokenizer: tokenizers.Tokenizer
    summary: str
    template: str
    """Of chats, in Jinja; empty if there is none."""
    stop: list[int]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> File:
        """Read a file, which may come from anywhere.

        FileNotFoundError if there is none, ValueError if it isn't a small draft's.
        """
        require_file(path)
        try:
            with zipfile.ZipFile(path) as file:
                if sum(each.file_size for each in file.infolist()) > MOST_BYTES:
                    raise ValueError(f"it has more than {MOST_BYTES >> 20} MiB")
            with np.load(path, allow_pickle=False) as arrays:
                about = json.loads(arrays["about"].tobytes())
                if about["version"] != VERSION:
                    raise ValueError(
                        f"it is of version {about['version']!r}, and this package "
                        f"reads version {VERSION}"
                    )
                network = read_network(arrays.__getitem__)
                text = _unpack(arrays["tokenizer"].tobytes()).decode()
            tokenizer = tokenizers.Tokenizer.from_str(text)
            said = str(about["summary"]), str(about["template"])
            stop = [int(token) for token in about["stop"]]
        except OSError:
            raise
        # tokenizers raises no narrower one.
        except Exception as error:
            why = "cut or damaged" if isinstance(error, DAMAGE) else str(error)
            raise ValueError(f"{path} is no small draft: {why}") from error
        return cls(network, tokenizer, *said, stop)


DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, KeyError)


def _unpack(data: bytes) -> bytes:
    found = lzma.LZMADecompressor()
    text = found.decompress(data, MOST_BYTES)
    if not found.eof:
        raise EOFError
    return text


def read_network(array: Callable[[str], NDArray[Any]]) -> Network:
    """Make a network of a file's arrays."""
    weights: dict[str, Array] = {}
    sizes: dict[str, int] = {}
    for name, shape in SHAPES.items():
        found = array(name)
        for letter, size in zip(shape, found.shape, strict=True):
            if sizes.setdefault(letter, size) != size or not size:
                raise ValueError(f"{name} has the shape {found.shape}")
        if found.dtype == np.int8:
            scale = array(f"{name}_scale")
            if scale.shape != found.shape[:1]:
                raise ValueError(f"{name}_scale has the shape {scale.shape}")
            found = found * scale.astype(np.float32)[:, None]
        weights[name] = np.ascontiguousarray(found, np.float32)
        if not np.isfinite(weights[name]).all():
            raise ValueError(f"{name} has values that are not finite")
    if sizes["g"] != 3 * sizes["h"] or sizes["p"] % 2 == 0:
        raise ValueError(f"given and pointer have the sizes {sizes['g']}, {sizes['p']}")
    inputs, columns = (array(n).astype(np.int64) for n in ("inputs", "columns"))
    for name, ids, end in (
        ("inputs", inputs, sizes["C"]),
        ("columns", columns, inputs.size),
    ):
        if ids.ndim != 1 or not ids.size or ids.min() < 0 or ids.max() >= end:
            raise ValueError(f"{name} has ids outside 0 to {end - 1}")
    if columns.size != sizes["C"]:
        raise ValueError(f"there are {columns.size} columns, not {sizes['C']}")
    return Network(inputs, columns, **weights)
