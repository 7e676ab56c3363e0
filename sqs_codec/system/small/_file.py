"""Reading the file of a small draft: arrays in ``.npz``, without pickles."""

from __future__ import annotations

import json
import lzma
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tokenizers
from jinja2.sandbox import ImmutableSandboxedEnvironment
from numpy.typing import NDArray

from sqs_codec import vocabulary_fingerprint
from sqs_codec._base import checks
from sqs_codec._base.files import require_file
from sqs_codec.system._base import chat
from sqs_codec.system.small._network import Array, Network

VERSION = 1

MOST_BYTES = 1 << 25
"""Limit of a file and of its unpacked arrays in bytes. The largest draft tried has 13
million int8 parameters (docs/benchmarks/drafts.md). Loading takes 6 times the bytes."""

MOST_TEXT = 1 << 24
"""Limit of the tokenizer's JSON in bytes, enough for 2^18 tokens of 64 bytes."""

MOST_PARTS = 1 << 20
"""Limit of the tokenizer's JSON lists, one per merge, with an object counted as eight.
SmolLM2 has 48,900. Loading takes up to 560 bytes per list and 1,100 per object."""

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
"""Shapes of a network's weights, with g = 3h and p odd. A matrix of int8 has a scale
per row in another array, named with ``_scale``."""


class Tokenizer(chat.Tokenizer):
    """A tokenizer of ``tokenizers`` with a Jinja template, which may be empty."""

    sampling: Mapping[str, float] = {}  # files don't have it

    def __init__(
        self,
        own: tokenizers.Tokenizer,
        template: str,
        stop: frozenset[int],
        vocab_size: int,
    ) -> None:
        self._own, self._template, self.stop = own, template, stop
        self.fingerprint = vocabulary_fingerprint(own.get_vocab(), vocab_size)
        self.has_template = bool(template)
        self._decode, self._spell = own.decode, own.id_to_token

    def _tokenize(self, text: str, *, ends: bool) -> list[int]:
        return list(self._own.encode(text, add_special_tokens=ends).ids)

    def _render(self, messages: Sequence[Mapping[str, str]]) -> str:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True
        )
        template = environment.from_string(self._template)
        return template.render(messages=messages, add_generation_prompt=True)

    def _reserved(self) -> dict[int, str]:
        unknown = self._tokenize(chat.OPEN, ends=False)
        added = self._own.get_added_tokens_decoder()
        return chat.reserved(added, self._template, unknown)


def read(path: str | os.PathLike[str]) -> tuple[Network, Tokenizer, str]:
    """Read a file, which may be untrusted; ValueError if it isn't a small draft."""
    require_file(path)
    try:
        _limit("it has {} bytes", os.path.getsize(path), MOST_BYTES)
        with zipfile.ZipFile(path) as file:
            size = sum(each.file_size for each in file.infolist())
            _limit("it has {} bytes, unpacked", size, MOST_BYTES)
        with np.load(path, allow_pickle=False) as arrays:
            about_it = arrays["about"].tobytes()
            _limit("it has {} bytes about itself", len(about_it), MOST_PARTS)
            about = json.loads(about_it)
            if about["version"] != VERSION:
                raise ValueError(
                    f"it is of version {about['version']!r}, and this package "
                    f"reads version {VERSION}"
                )
            network = read_network(arrays.__getitem__)
            text = _unpack(arrays["tokenizer"].tobytes()).decode()
        tokenizer = tokenizers.Tokenizer.from_str(text)
        tokenizer.no_padding()  # the file's padding may be of any length
        tokenizer.no_truncation()
        for ids in tokenizer.encode("A text").ids, []:  # [] if all are special
            tokenizer.decode(ids)  # otherwise it might fail later
        summary, template = str(about["summary"]), str(about["template"])
        stop = frozenset(map(int, about["stop"]))
        own = Tokenizer(tokenizer, template, stop, network.inputs.size)
    except (OSError, KeyboardInterrupt, SystemExit):
        raise
    # tokenizers raises only Exception, and its panics are BaseExceptions.
    except BaseException as error:
        damage = zipfile.BadZipFile, zlib.error, EOFError, KeyError
        why = "cut or damaged" if isinstance(error, damage) else str(error)
        raise ValueError(f"{path} isn't a small draft: {why}") from error
    return network, own, summary


def _limit(said: str, found: int, most: int) -> None:
    if found > most:
        raise ValueError(f"{said.format(found)}; the limit is {most}")


def _unpack(data: bytes) -> bytes:
    found = lzma.LZMADecompressor(memlimit=5 * MOST_TEXT)  # preset 9 takes 65 MiB
    text = found.decompress(data, MOST_TEXT + 1)
    if len(text) > MOST_TEXT:
        raise ValueError(f"its tokenizer is larger than {MOST_TEXT} bytes")
    parts = text.count(b"[") + 8 * text.count(b"{")
    what = "its tokenizer has {} JSON lists (an object counts as 8)"
    _limit(what, parts, MOST_PARTS)
    if not found.eof:
        raise EOFError
    return text


def read_network(array: Callable[[str], NDArray[Any]]) -> Network:
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
    checks.vocabulary(array("inputs").size)
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
