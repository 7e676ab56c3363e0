"""GGUF files in llama.cpp, and contexts that run their models."""

import ctypes
import os
import re
import weakref
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import llama_cpp as llama
import numpy as np
from numpy.typing import NDArray

from sqs_codec import vocabulary_fingerprint
from sqs_codec.system._base.protocol import MAX_DRAFT
from sqs_codec.system.llama_cpp._options import CacheType, Options

if not hasattr(llama, "llama_memory_seq_rm"):
    raise ImportError(
        f"sqs_codec.system.llama_cpp needs llama-cpp-python 0.3.16 or newer, "
        f"not {llama.__version__}"
    )

USER_DEFINED = llama.LLAMA_TOKEN_ATTR_USER_DEFINED
"""Tokens that were added to the tokenizer."""

LOG_ERROR = 4  # GGML_LOG_LEVEL_ERROR, which llama-cpp-python doesn't define
BF16 = 30  # GGML_TYPE_BF16, which it doesn't define either

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # the character for a space in many vocabularies
PADDING = re.compile(r"\[PAD\d+\]")  # the converter's name for logits without a token

BUFFER = re.compile(r"(\S+) +(model|KV|RS|compute) buffer size = +([0-9.]+) MiB")
"""Lines of llama.cpp's log about memory: device, kind and size."""

_errors: deque[str] = deque(maxlen=8)
_buffers: deque[tuple[str, str, float]] = deque(maxlen=256)


@llama.llama_log_callback  # type: ignore[untyped-decorator]  # theirs
def _log(level: int, text: bytes, _: object) -> None:
    """Store llama.cpp's errors and sizes of buffers; discard the rest of its log."""
    said = text.decode(errors="replace").strip()
    if level == LOG_ERROR:
        _errors.append(said)
    elif found := BUFFER.search(said):
        _buffers.append((found[1], found[2], float(found[3])))


class Model:
    """A GGUF file: its weights, and its vocabulary without padding."""

    # Texts can't share a prefix of a recurrent state, so `can_branch` is then False.

    def __init__(self, path: str | os.PathLike[str], options: Options) -> None:
        self.path, self.options = path, options
        llama.llama_log_set(_log, ctypes.c_void_p(0))
        llama.llama_backend_init()
        _buffers.clear()
        self.pointer = _load(path, options)
        self.buffers = [*_buffers]
        _free(self, llama.llama_model_free, self.pointer)
        kind = ctypes.create_string_buffer(128)
        llama.llama_model_desc(self.pointer, kind, 128)
        self.name = f"{Path(path).name} ({kind.value.decode(errors='replace')})"
        self.max_tokens: int = llama.llama_model_n_ctx_train(self.pointer)
        self.vocab = llama.llama_model_get_vocab(self.pointer)
        self.logits_size: int = llama.llama_vocab_n_tokens(self.vocab)
        self.vocabulary = self._read_vocabulary()
        if not self.vocabulary or self.max_tokens < 1:
            raise ValueError(f"{path} lacks a vocabulary or a context length")
        self.vocab_size = max(self.vocabulary.values()) + 1
        self.fingerprint = vocabulary_fingerprint(self.vocabulary)
        self.can_branch = hasattr(llama, "llama_model_is_hybrid") and not (
            llama.llama_model_is_recurrent(self.pointer)
            or llama.llama_model_is_hybrid(self.pointer)
        )

    def _read_vocabulary(self) -> dict[str, int]:
        """Map tokens to ids without padding, with spaces as in the tokenizer."""
        if llama.llama_vocab_type(self.vocab) == llama.LLAMA_VOCAB_TYPE_NONE:
            return {}  # llama.cpp would abort if asked for its tokens
        words = [self.word(i) for i in range(self.logits_size)]
        if any(SPACE in word for word in words):
            for i, word in enumerate(words):
                if " " in word and self.attributes(i) & USER_DEFINED:
                    words[i] = word.replace(" ", SPACE)
        return {word: i for i, word in enumerate(words) if not PADDING.fullmatch(word)}

    def word(self, token: int) -> str:
        """Return the vocabulary's spelling of a token; empty if there is no token."""
        if token < 0:
            return ""
        word: bytes = llama.llama_vocab_get_text(self.vocab, token)
        return word.decode(errors="replace")

    def attributes(self, token: int) -> int:
        return int(llama.llama_vocab_get_attr(self.vocab, token))

    def tokenize(self, text: str, *, ends: bool, spells: bool) -> list[int]:
        """Tokenize a text; `ends` adds BOS and EOS, `spells` parses special tokens."""
        data = text.encode()
        given = self.vocab, data, len(data)
        # Without a buffer it returns the negated number of tokens.
        size = -llama.llama_tokenize(*given, None, 0, ends, spells)
        tokens = (llama.llama_token * size)()
        llama.llama_tokenize(*given, tokens, size, ends, spells)
        return list(tokens)


Part = tuple[int, int, Sequence[int], Sequence[int]]
"""A sequence's index, its number of cached tokens, its new tokens, and the ascending
offsets of new tokens whose logits are wanted."""


class Context:
    """A KV cache of `n_ctx` tokens that `places` texts share; if `apart`, equally."""

    def __init__(
        self,
        model: Model,
        n_ctx: int,
        places: int,
        *,
        goes_back: bool = False,
        apart: bool = False,
    ) -> None:
        self.model, self.n_ctx = model, n_ctx
        options = model.options
        self.batch_size = min(options.batch_size, n_ctx)
        # llama.cpp aborts if there are more texts than tokens in a batch.
        self.places = min(places if model.can_branch or apart else 1, self.batch_size)
        params = llama.llama_context_default_params()
        params.n_ctx, params.n_seq_max = n_ctx, self.places
        params.n_batch = params.n_ubatch = self.batch_size
        params.n_threads = params.n_threads_batch = options.threads
        params.kv_unified = not apart
        # After a rollback, a sliding window needs tokens that it had passed.
        params.swa_full = goes_back
        if apart and not model.can_branch and hasattr(params, "n_rs_seq"):
            params.n_rs_seq = MAX_DRAFT
        if options.flash_attn != "auto":
            params.flash_attn_type = int(options.flash_attn == "on")
        params.type_k = _ggml_type(options.cache_type_k)
        params.type_v = _ggml_type(options.cache_type_v)
        _errors.clear()
        _buffers.clear()
        self._pointer = llama.llama_init_from_model(model.pointer, params)
        if self._pointer is None:
            raise ValueError(f"cannot use {model.path}: {_reason()}")
        self.buffers = [*_buffers]
        _free(self, llama.llama_free, self._pointer, model)
        self.memory = llama.llama_get_memory(self._pointer)
        embeds = llama.llama_pooling_type(self._pointer) > 0
        encodes = llama.llama_model_has_encoder(model.pointer)
        if self.memory is None or embeds or encodes:
            raise ValueError(f"{model.path} isn't a causal language model")
        self._batch = llama.llama_batch_init(self.batch_size, 0, 1)
        _free(self, llama.llama_batch_free, self._batch)
        for i in range(self.batch_size):
            self._batch.n_seq_id[i] = 1

    def clear(self) -> None:
        llama.llama_memory_clear(self.memory, True)

    def cut(self, place: int, length: int) -> bool:
        """Cut a text to its first `length` tokens; False if it can't be cut."""
        return bool(llama.llama_memory_seq_rm(self.memory, place, length, -1))

    def size(self, place: int) -> int:
        """Return the bytes of a text's KV cache."""
        return int(llama.llama_state_seq_get_size(self._pointer, place))

    @property
    def most_back(self) -> int:
        """Maximum rollback of a recurrent state in tokens."""
        known = getattr(llama, "llama_n_rs_seq", lambda _: 0)
        return int(known(self._pointer))

    def decode(self, parts: Iterable[Part]) -> NDArray[np.float32]:
        """Read up to `batch_size` tokens; return the wanted logits, [n, V]."""
        # The logits are llama.cpp's own memory: the next call overwrites or moves it.
        # After a RuntimeError, call `clear`.
        batch, i, rows = self._batch, 0, 0
        for place, start, tokens, wanted in parts:
            first = i
            if i + len(tokens) > self.batch_size:
                raise ValueError(f"a batch has at most {self.batch_size} tokens")
            for position, token in enumerate(tokens, start):
                batch.token[i], batch.pos[i] = token, position
                batch.seq_id[i][0], batch.logits[i] = place, 0
                i += 1
            for offset in wanted:
                batch.logits[first + offset] = 1
            rows += len(wanted)
        batch.n_tokens = i
        _errors.clear()
        if code := llama.llama_decode(self._pointer, batch):
            raise RuntimeError(f"llama.cpp can't decode ({code}): {_reason()}")
        size = self.model.logits_size
        if not rows:
            return np.empty((0, self.model.vocab_size), np.float32)
        address = ctypes.addressof(llama.llama_get_logits(self._pointer).contents)
        buffer: Any = (ctypes.c_float * (rows * size)).from_address(address)
        buffer.owner = self  # keeps this context alive as long as the rows
        logits: NDArray[np.float32] = np.frombuffer(buffer, np.float32)
        return logits.reshape(rows, size)[:, : self.model.vocab_size]


def _load(path: str | os.PathLike[str], options: Options) -> llama.llama_model_p:
    if not os.path.isfile(path):
        is_folder = os.path.isdir(path)
        said = f"{path} is a folder" if is_folder else f"there is no file {path}"
        raise FileNotFoundError(said)
    params = llama.llama_model_default_params()
    if options.n_gpu_layers is not None:
        params.n_gpu_layers = options.n_gpu_layers
    most = llama.llama_max_devices()
    if len(options.tensor_split) > most:
        raise ValueError(
            f"tensor-split has {len(options.tensor_split)} numbers, but there are at "
            f"most {most} devices here"
        )
    wants = options.n_gpu_layers or options.tensor_split
    if wants and not llama.llama_supports_gpu_offload():
        raise ValueError(
            "n-gpu-layers and tensor-split need a GPU, and llama.cpp finds none: build "
            "llama-cpp-python for your GPU, or omit these options"
        )
    split = (ctypes.c_float * most)(*options.tensor_split)
    if options.tensor_split:
        params.tensor_split = split
    _errors.clear()
    model = llama.llama_model_load_from_file(os.fsencode(path), params)
    if model is None:
        raise ValueError(f"cannot load {path}: {_reason()}")
    return model


def _ggml_type(name: CacheType) -> int:
    return BF16 if name == "bf16" else int(getattr(llama, f"GGML_TYPE_{name.upper()}"))


def _reason() -> str:
    """Return llama.cpp's first error without the function's name."""
    return _errors[0].partition(": ")[2] if _errors else "llama.cpp gives no reason"


def _free(owner: object, free: Any, what: Any, needed: object = None) -> None:
    """Free an object of llama.cpp after its owner, except when the process ends."""
    weakref.finalize(owner, lambda _: free(what), needed).atexit = False
