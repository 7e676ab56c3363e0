"""Draft models from GGUF files, run by llama.cpp (the extra ``[llama-cpp]``).

`Draft` is what `sqs_codec.system.edge.Edge` takes. It needs neither torch nor
transformers: the file also says how prompts are encoded and what tokens mean.
"""

from __future__ import annotations

import codecs
import copy
import ctypes
import functools
import json
import os
import re
import weakref
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

try:
    import llama_cpp as llama
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter
except ModuleNotFoundError as error:
    from sqs_codec._base.install import needs

    raise needs("sqs_codec.system.llama_cpp", error, "llama-cpp") from error

from sqs_codec import vocabulary_fingerprint
from sqs_codec._base import checks
from sqs_codec.system._base import chat
from sqs_codec.system._base.tokens import common_length

__all__ = ["Draft", "TextStream"]

if not hasattr(llama, "llama_memory_seq_rm"):
    raise ImportError(
        f"sqs_codec.system.llama_cpp needs llama-cpp-python 0.3.16 or newer, "
        f"not {llama.__version__}"
    )

BATCH = 512
"""Tokens of a long text that are read at once."""

BRANCHES = 8
"""Texts that share a beginning and are read at once."""

SAMPLING = {"temperature": "temp", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p"}
"""What a file calls the fields of `sqs_codec.system.session.Sampling`."""

CONTROL = llama.LLAMA_TOKEN_ATTR_CONTROL
USER_DEFINED = llama.LLAMA_TOKEN_ATTR_USER_DEFINED
"""Tokens that aren't parts of words: special ones, and those beside these."""

LOG_ERROR = 4
"""``GGML_LOG_LEVEL_ERROR``, which the package doesn't name."""

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""What stands for a space in many vocabularies."""

PADDING = re.compile(r"\[PAD\d+\]")
"""What a converter adds where a model has more logits than its tokenizer tokens."""

_errors: deque[str] = deque(maxlen=8)


@llama.llama_log_callback  # type: ignore[untyped-decorator]  # theirs
def _log(level: int, text: bytes, _: object) -> None:
    """Keep llama.cpp's errors for our own, and the rest of its log from the screen."""
    if level == LOG_ERROR:
        _errors.append(text.decode(errors="replace").strip())


class Draft:
    """A GGUF file as a draft model, with the keys and values of the text it has read.

    llama.cpp's log is silenced for the whole process. The object is for one thread.

    Parameters
    ----------
    path : str or path
        The file; of a model in several files, the first one.
    n_ctx : int, optional
        The longest text in tokens. Memory for it is taken at once; it is never more
        than the model was trained for.
    threads : int, optional
        If None, half of the machine's cores.

    Attributes
    ----------
    vocab_size : int
        V, without what only pads the vocabulary.
    stop : frozenset of int
        Tokens that end a text.
    fingerprint : bytes
        That of the Hugging Face tokenizer from which the file was made.
    n_ctx : int
        The longest text in tokens.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        llama.cpp can't load it, or it isn't a model that writes texts.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        n_ctx: int = 4096,
        threads: int | None = None,
    ) -> None:
        checks.in_range("n_ctx", n_ctx, 1)
        if threads is None:
            threads = max(1, (os.cpu_count() or 1) // 2)
        checks.in_range("threads", threads, 1)
        llama.llama_log_set(_log, ctypes.c_void_p(0))
        llama.llama_backend_init()
        self._model = _load(path)
        weakref.finalize(self, llama.llama_model_free, self._model)
        self._vocab = llama.llama_model_get_vocab(self._model)
        self.n_ctx = min(n_ctx, llama.llama_model_n_ctx_train(self._model))
        self._read_vocabulary()
        self._path, self._threads = path, threads
        self._weights: Draft | None = None  # whose they are, if not its own
        self._open()

    def twin(self) -> Draft:
        """Return a draft of the same weights, with memory for a text of its own.

        It may be used in another thread, though not at the same time.
        """
        twin = copy.copy(self)
        twin._weights = self  # which live as long
        twin._open()
        return twin

    def _open(self) -> None:
        """Take memory for a text. What is finalized last is freed first."""
        self._batch_size = min(BATCH, self.n_ctx)
        params = llama.llama_context_default_params()
        params.n_ctx = self.n_ctx
        params.n_batch = params.n_ubatch = self._batch_size
        params.n_threads = params.n_threads_batch = self._threads
        most = BRANCHES if _can_branch(self._model) else 1
        params.n_seq_max = min(most, self._batch_size)  # or llama.cpp aborts
        params.kv_unified = True  # so that what texts share is there once
        # After a rollback a window reaches back to what had already left it.
        params.swa_full = True
        self._context = llama.llama_init_from_model(self._model, params)
        if self._context is None:
            raise ValueError(f"cannot use {self._path}: {_reason()}")
        weakref.finalize(self, llama.llama_free, self._context)
        self._memory = llama.llama_get_memory(self._context)
        if self._memory is None or llama.llama_model_has_encoder(self._model):
            raise ValueError(f"{self._path} is no model that continues a text")
        self._batch = llama.llama_batch_init(self._batch_size, 0, 1)
        weakref.finalize(self, llama.llama_batch_free, self._batch)
        for i in range(self._batch_size):
            self._batch.n_seq_id[i] = 1
        # The text of each of llama.cpp's sequences, as far as it is cached.
        self._texts: list[list[int]] = [[] for _ in range(params.n_seq_max)]

    def __repr__(self) -> str:
        return f"<Draft of llama.cpp, vocabulary {self.vocab_size}>"

    def _read_vocabulary(self) -> None:
        vocab = self._vocab
        self._logits_size = llama.llama_vocab_n_tokens(vocab)
        vocabulary = _vocabulary(vocab)
        self.vocab_size = max(vocabulary.values()) + 1
        self.fingerprint = vocabulary_fingerprint(vocabulary)
        # Not all that llama.cpp holds for an end: it goes by the spelling, and ``</s>``
        # is HTML to some.
        ends = llama.llama_vocab_eos(vocab), llama.llama_vocab_eot(vocab)
        self.stop = frozenset(token for token in ends if token >= 0)
        template = llama.llama_model_chat_template(self._model, None)
        self._template = None if template is None else template.decode()
        self._reserved = {
            i: word
            for word, i in vocabulary.items()
            if (kind := llama.llama_vocab_get_attr(vocab, i)) & CONTROL
            or (kind & USER_DEFINED and chat.names(self._template or "", word))
        }

    def __len__(self) -> int:
        """How many tokens are cached, of the longest text."""
        return max(map(len, self._texts))

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Logits after a text.

        Parameters
        ----------
        tokens : sequence of int
            The whole text. What it has in common with the cached one is not read
            again; the rest of what is cached is forgotten.

        Returns
        -------
        ndarray of float32, shape [1, V]
            llama.cpp's own memory: the next call overwrites it. Copy what has to stay.

        Raises
        ------
        ValueError
            The text is empty or longer than `n_ctx`.
        RuntimeError
            llama.cpp failed.
        """
        self._check(tokens)
        (place,) = self._place([tokens])
        while (left := len(tokens) - len(self._texts[place])) > 0:
            start = len(self._texts[place])
            chunk = tokens[start : start + self._batch_size]
            self._decode([place], [chunk], wanted=len(chunk) == left)
        return self._row(-1)

    def branches(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Logits after each of some texts that share a beginning.

        Up to eight are read side by side, once what they share is cached, if `n_ctx`
        has room for what they don't. Otherwise, and by a recurrent model, they are read
        one after the other.

        Parameters
        ----------
        texts : sequence of sequence of int
            The whole texts. Their last tokens, and what isn't cached of the others,
            are read; what is in none of them is forgotten.

        Returns
        -------
        ndarray of float32, shape [len(texts), V]

        Raises
        ------
        ValueError
            There is no text, or one is empty or longer than `n_ctx`.
        RuntimeError
            llama.cpp failed.
        """
        if len(texts) == 0:
            raise ValueError("expected one or more texts, got none")
        for text in texts:
            self._check(text)
        shared = min(common_length(texts[0], text[:-1]) for text in texts)
        known = max(common_length(seen, texts[0][:shared]) for seen in self._texts)
        apart = sum(len(text) - shared for text in texts)
        room = min(self.n_ctx - shared, self._batch_size)
        if known >= shared and apart <= room and 1 < len(texts) <= len(self._texts):
            places = self._place(texts)
            fresh = [
                text[len(self._texts[place]) :]
                for place, text in zip(places, texts, strict=True)
            ]
            # All that was cached is gone if llama.cpp couldn't forget a part of it.
            if sum(map(len, fresh)) <= self._batch_size:
                ends = self._decode(places, fresh)
                return np.concatenate([self._row(end) for end in ends])
        return np.concatenate([self.logits(text).copy() for text in texts])

    def _check(self, text: Sequence[int]) -> None:
        if not 1 <= len(text) <= self.n_ctx:
            raise ValueError(
                f"a text must have 1 to {self.n_ctx} tokens for this draft model "
                f"(its n_ctx), got {len(text)}"
            )

    def _place(self, texts: Sequence[Sequence[int]]) -> list[int]:
        """Return a sequence for each text, which holds what is cached of it.

        All else is forgotten, and a text's last token, which has to pass through the
        model again to give logits.
        """
        found = []
        for text in texts:
            known = [common_length(seen, text[:-1]) for seen in self._texts]
            found.append((known.index(max(known)), max(known)))
        free = {*range(len(self._texts))} - {source for source, _ in found}
        places: list[int] = []
        for source, length in found:
            place = source
            if source in places:
                place = free.pop()
                self._rollback(place, 0)
                llama.llama_memory_seq_cp(self._memory, source, place, 0, length)
                self._texts[place] = self._texts[source][:length]
            places.append(place)
        for place, (_, length) in zip(places, found, strict=True):
            self._rollback(place, length)
        for place in free:
            self._rollback(place, 0)
        return places

    def _rollback(self, place: int, length: int) -> None:
        """Forget everything after the first `length` tokens of a sequence.

        A recurrent state can't be cut: what keeps one has to read the text again. An
        interrupt may leave more in llama.cpp's memory than is noted here, never less;
        so it is asked each time.
        """
        del self._texts[place][length:]
        if not llama.llama_memory_seq_rm(self._memory, place, length, -1):
            self._clear()

    def _clear(self) -> None:
        for text in self._texts:
            text.clear()
        llama.llama_memory_clear(self._memory, True)

    def _decode(
        self,
        places: Sequence[int],
        texts: Sequence[Sequence[int]],
        *,
        wanted: bool = True,
    ) -> list[int]:
        """Read what follows in sequences; return where in the batch each of them ends.

        Say whether the logits there are wanted. They are `BRANCHES` rows at most, so
        that llama.cpp never moves its buffer.
        """
        batch = self._batch
        ends, i = [], 0
        for place, tokens in zip(places, texts, strict=True):
            for position, token in enumerate(tokens, len(self._texts[place])):
                batch.token[i], batch.pos[i] = token, position
                batch.seq_id[i][0], batch.logits[i] = place, 0
                i += 1
            batch.logits[i - 1] = wanted
            ends.append(i - 1)
        batch.n_tokens = i
        _errors.clear()
        if code := llama.llama_decode(self._context, batch):
            self._clear()
            raise RuntimeError(f"llama.cpp can't decode ({code}): {_reason()}")
        for place, tokens in zip(places, texts, strict=True):
            self._texts[place].extend(tokens)
        return ends

    def _row(self, index: int) -> NDArray[np.float32]:
        pointer = llama.llama_get_logits_ith(self._context, index)
        address = ctypes.addressof(pointer.contents)
        buffer = (ctypes.c_float * self._logits_size).from_address(address)
        buffer.owner = self  # which then lives as long as the row
        return np.frombuffer(buffer, np.float32)[None, : self.vocab_size]

    def encode_prompt(self, prompt: str) -> list[int]:
        """Token ids of one user message, in the chat template if the file has one.

        Raises
        ------
        ValueError
            The prompt has bytes that aren't text, or the template fails.
        """
        checks.utf8("the prompt", prompt)
        if not self.has_template:
            return self.encode_text(prompt)
        return self.encode_chat([{"role": "user", "content": prompt}])

    @property
    def has_template(self) -> bool:
        """Whether the file has a chat template."""
        return self._template is not None

    @property
    def sampling(self) -> dict[str, float]:
        """What the file has for `sqs_codec.system.session.Sampling`."""
        found, buffer = {}, ctypes.create_string_buffer(64)
        for name, key in SAMPLING.items():
            path = f"general.sampling.{key}".encode()
            if llama.llama_model_meta_val_str(self._model, path, buffer, 64) > 0:
                found[name] = json.loads(buffer.value)
        return found

    def encode_text(self, text: str) -> list[int]:
        """Token ids of a text as it is."""
        return self._tokenize(text, special=True)

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Token ids of a chat in the template, up to where the answer begins.

        What a message says is text: it can't spell a token that tells roles apart.

        Parameters
        ----------
        messages : sequence of mapping
            Each with a role and its content.

        Raises
        ------
        ValueError
            There is no template, or it fails, or a message spells such a token anyway.
        """
        template = self._template
        if template is None:
            raise ValueError("the file has no chat template")

        def render(messages: Sequence[Mapping[str, str]]) -> str:
            try:
                formatter = Jinja2ChatFormatter(
                    template,
                    bos_token=_word(self._vocab, llama.llama_vocab_bos(self._vocab)),
                    eos_token=_word(self._vocab, llama.llama_vocab_eos(self._vocab)),
                )
                return str(formatter(messages=list(messages)).prompt)
            except Exception as error:  # a template is a program
                raise ValueError(f"the file's chat template fails: {error}") from error

        return chat.encode(
            messages,
            render=render,
            tokenize=functools.partial(self._tokenize, special=False),
            reserved=self._reserved,
        )

    def _tokenize(self, text: str, *, special: bool) -> list[int]:
        """Cut a text, with the beginning and end of its own that a model may want."""
        data = text.encode()
        given = self._vocab, data, len(data)
        # Without room it says how many there are, negated: a space alone may be three.
        size = -llama.llama_tokenize(*given, None, 0, special, True)
        tokens = (llama.llama_token * size)()
        llama.llama_tokenize(*given, tokens, size, special, True)
        return list(tokens)

    def stream(self) -> TextStream:
        """Return a text that comes token by token."""
        return TextStream(self)

    def piece(self, token: int) -> bytes:
        """Return what a token adds to a text in UTF-8, maybe half a character.

        Special tokens add nothing.
        """
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            count = llama.llama_token_to_piece(
                self._vocab, token, buffer, size, 0, False
            )
            if count >= 0:
                return buffer.raw[:count]
            size = -count


class TextStream:
    """What tokens say, as far as it is whole characters."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def __repr__(self) -> str:
        return f"<TextStream of {self._draft}>"

    def add(self, tokens: Iterable[int]) -> str:
        """Return what these tokens add to the text; special ones add nothing."""
        return self._decoder.decode(b"".join(map(self._draft.piece, tokens)))


def _load(path: str | os.PathLike[str]) -> llama.llama_model_p:
    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no file {path}")
    _errors.clear()
    model = llama.llama_model_load_from_file(
        os.fsencode(path), llama.llama_model_default_params()
    )
    if model is None:
        raise ValueError(f"cannot load {path}: {_reason()}")
    return model


def _can_branch(model: llama.llama_model_p) -> bool:
    """Whether a model keeps no recurrent state, which texts can't share in part.

    An older llama-cpp-python can't say it of all models.
    """
    return hasattr(llama, "llama_model_is_hybrid") and not (
        llama.llama_model_is_recurrent(model) or llama.llama_model_is_hybrid(model)
    )


def _vocabulary(vocab: llama.llama_vocab_p) -> dict[str, int]:
    """Return the ids of a file's tokens, spelled as they were before its conversion.

    The converter fills the vocabulary up, and in tokens that the tokenizer was given
    beside its own it writes spaces for the marks that stand for them.
    """
    words = [_word(vocab, i) for i in range(llama.llama_vocab_n_tokens(vocab))]
    if any(SPACE in word for word in words):
        for i, word in enumerate(words):
            attributes = llama.llama_vocab_get_attr(vocab, i) if " " in word else 0
            if attributes & USER_DEFINED:
                words[i] = word.replace(" ", SPACE)
    return {word: i for i, word in enumerate(words) if not PADDING.fullmatch(word)}


def _word(vocab: llama.llama_vocab_p, token: int) -> str:
    """How a vocabulary spells a token, which may not be there."""
    if token < 0:
        return ""
    word: bytes = llama.llama_vocab_get_text(vocab, token)
    return word.decode(errors="replace")


def _reason() -> str:
    """Return llama.cpp's first error without the function's name."""
    return _errors[0].partition(": ")[2] if _errors else "it doesn't say why"
