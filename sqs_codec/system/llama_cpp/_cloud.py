"""The verifier with a GGUF file, for the sessions of many edges in one context."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sqs_codec import Verdict
from sqs_codec._base import checks
from sqs_codec.system._base.protocol import MAX_DRAFT
from sqs_codec.system._caching import CachingVerifier, Reading, TextPiece
from sqs_codec.system.llama_cpp._model import Context, Model, Part
from sqs_codec.system.llama_cpp._options import TEXTS, Options
from sqs_codec.system.session import Job, verify_jobs

CONTEXT = 4096  # default maximum length of a session in tokens
PAGE = 256  # llama.cpp rounds a session's capacity up to a multiple of this

ALIKE = 8
"""If logits must be repeatable, each text of a batch has a multiple of this number of
tokens: ggml computes other numbers with other functions."""

SHORT = 56
"""Also its maximum number of tokens: ggml has another attention from 64 on."""

KINDS = {"model": "weights", "KV": "KV cache", "RS": "states", "compute": "buffers"}
"""llama.cpp's kinds of memory, and their names in `Cloud.summary`."""


@dataclass(eq=False)
class _Slot:
    """One of llama.cpp's sequences, with its session and cached tokens."""

    place: int
    session: bytes | None = None
    tokens: list[int] = field(default_factory=list)
    last: int = 0  # how many of them the last forward pass read
    used: int = -1  # time of last use


class _Slots:
    """The caches of all sessions: llama.cpp's sequences."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._is_recurrent = not context.model.can_branch
        self._slots = [_Slot(place) for place in range(context.places)]
        self._clock = itertools.count()

    def __contains__(self, session: bytes) -> bool:
        return any(slot.session == session for slot in self._slots)

    @contextmanager
    def opened(
        self, waiting: Sequence[Reading[_Slot]]
    ) -> Iterator[list[Reading[_Slot]]]:
        """Assign slots to the first jobs; keep only tokens that they can use."""
        group = waiting[: len(self._slots)]
        try:
            self._open(group)
            # llama.cpp reads adjacent sequences together.
            yield sorted(group, key=lambda reading: reading.cache.place)
        except BaseException:
            # NaN would stay in memory and break the next text there.
            for slot in self._slots:
                slot.tokens.clear()
            self._context.clear()
            raise

    def forget(self, session: bytes) -> None:
        """Mark a session's slot as free. Thread-safe."""
        for slot in self._slots:
            if slot.session == session:
                slot.session, slot.used = None, -1

    def _open(self, group: Sequence[Reading[_Slot]]) -> None:
        own = {slot.session: slot for slot in self._slots if slot.session is not None}
        kept = [own[each.job.session] for each in group if each.job.session in own]
        # Free slots first, the lowest first; then the least recently used.
        free = (slot for slot in self._slots if slot not in kept)
        others = iter(sorted(free, key=lambda slot: (slot.used, slot.place)))
        for reading in group:
            session = reading.job.session
            if session not in own:
                own[session] = next(others)
                own[session].tokens.clear()  # sessions must not see each other's text
            slot = reading.cache = own[session]
            slot.session, slot.used = session, next(self._clock)
            length = reading.known
            back = len(slot.tokens) - length
            del slot.tokens[length:]
            # A recurrent state can be rolled back once, within the last forward pass.
            lost = self._is_recurrent and 0 < slot.last <= back
            if lost or not self._context.cut(slot.place, length):
                slot.tokens.clear()
                self._context.cut(slot.place, 0)


class Cloud(CachingVerifier[_Slot]):
    """A `Verifier` with a GGUF file.

    It is a `CachingVerifier`: the new tokens of all jobs are one batch of llama.cpp.
    Each session has its own memory for a text. If there are more sessions than memory,
    the least recently used one is evicted. If llama.cpp fails, `verify` raises a
    RuntimeError and all caches are cleared. llama.cpp's log is silenced for the whole
    process.

    Parameters
    ----------
    path : str or path
        As for `Draft`, with its errors.
    max_memory : int
        Limit of the KV cache in bytes. Without effect if ``ctx_size`` is given.

    Attributes
    ----------
    fingerprint : bytes
        Fingerprint of the vocabulary, as of a `Draft`'s tokenizer.
    summary : str
        The model, its memory on each device, and the sessions, for people.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_memory: int = 2**30,
        options: Options | None = None,
    ) -> None:
        checks.in_range("max_memory", max_memory, 1)
        options = options or Options()
        model = Model(path, options)
        self.vocab_size, self.fingerprint = model.vocab_size, model.fingerprint
        tokens, self.places = _sizes(model, max_memory)
        self._context = Context(
            model, tokens * self.places, self.places, goes_back=True, apart=True
        )
        self._context.decode([(0, 0, [0] * (1 + MAX_DRAFT), ())])
        if not self._context.cut(0, 1):
            raise ValueError(
                f"{path} keeps a recurrent state, which llama.cpp can't roll back by "
                f"{MAX_DRAFT} tokens, the maximum of a draft: use another model"
            )
        self._context.clear()
        self.max_text = min(model.max_tokens, tokens)
        self._because = f"each of {self.places} sessions has memory for that many"
        self._pass_tokens = self._piece_tokens = self._context.batch_size
        self._caches = _Slots(self._context)
        self.summary = f"{model.name} by llama.cpp, {_where(model, self._context)}"
        if options.repeatable:
            if not model.can_branch:
                raise ValueError(
                    f"{path} keeps a recurrent state: run it without repeatable"
                )
            self.max_text -= ALIKE
            self._multiple, self._piece_tokens = ALIKE, SHORT
            self._pass_tokens -= self._pass_tokens % ALIKE
            self._compare()

    def __repr__(self) -> str:
        return (
            f"<Cloud of llama.cpp, vocabulary {self.vocab_size}, {self.places} texts "
            f"of at most {self.max_text} tokens>"
        )

    def _verify(
        self, pieces: Sequence[TextPiece[_Slot]], jobs: Sequence[Job]
    ) -> list[Verdict | None]:
        return verify_jobs(jobs, self._read(pieces))

    def _read(self, pieces: Sequence[TextPiece[_Slot]]) -> NDArray[np.float32]:
        """Return the wanted logits. For repeatable ones, pad the batch."""
        parts: list[Part] = []
        kept: list[int] = []
        rows = 0
        for piece in pieces:
            size, unit = len(piece.tokens), self._multiple
            spare = -size % unit
            wanted = piece.wanted and -(-(piece.wanted + spare) // unit) * unit
            text = [*piece.tokens, *[0] * spare]
            places = range(len(text) - wanted, len(text))
            parts.append((piece.cache.place, piece.past, text, places))
            rows += wanted
            kept += range(rows - spare - piece.wanted, rows - spare)
        logits = self._context.decode(parts)
        for piece in pieces:
            piece.cache.tokens += piece.tokens
            piece.cache.last = len(piece.tokens)
            if self._multiple > 1:  # remove the padding
                self._context.cut(piece.cache.place, len(piece.cache.tokens))
        return logits if len(kept) == rows else logits[kept]

    def _compare(self) -> None:
        """Raise unless the logits of a text are the same in different batches."""
        text = [(7 * i + 1) % self.vocab_size for i in range(SHORT + ALIKE)]
        two = min(self.places, 2)
        most = min(two, self._pass_tokens // SHORT)
        found: list[NDArray[np.float32]] = []
        for size, beside in (SHORT, most), (2 * ALIKE, 1), (ALIKE, two):
            slots = [_Slot(place) for place in range(beside)]
            for start in range(0, SHORT, size):
                piece = text[start : min(start + size, SHORT)]
                self._read([TextPiece(slot, piece, 0) for slot in slots])
            rows = self._read([TextPiece(slot, text[SHORT:], ALIKE) for slot in slots])
            found.extend(rows.reshape(beside, ALIKE, -1).copy())
            self._context.clear()
        error = float(np.abs(np.stack(found) - found[0]).max())
        if error:  # or NaN
            raise ValueError(
                f"logits aren't repeatable here: those of a text change by up to "
                f"{error:.2g} with the other texts of its batch"
            )


def _sizes(model: Model, max_memory: int) -> tuple[int, int]:
    """Return the maximum tokens of a session, and the number of sessions."""
    options, places = model.options, model.options.parallel
    most = min(model.max_tokens, CONTEXT)
    if options.ctx_size is not None:
        places = places or min(max(options.ctx_size // most, 1), TEXTS)
        return options.ctx_size // places // PAGE * PAGE or PAGE, places
    fixed, each = _memory(model)
    pages = -(-most // PAGE)
    if places is None:
        places = min(max(max_memory // (fixed + pages * PAGE * each), 1), TEXTS)
    else:
        pages = -(-model.max_tokens // PAGE)
    pages = min(pages, (max_memory // places - fixed) // (PAGE * each))
    if pages < 1:
        least = places * (fixed + PAGE * each)
        raise ValueError(
            f"max_memory must be at least {least} bytes, {-(-least >> 20)} MiB, for "
            f"{PAGE} tokens of {places} sessions of this model, got {max_memory}"
        )
    return pages * PAGE, places


def _memory(model: Model) -> tuple[int, int]:
    """Return the bytes that a text takes at any length, and those per token."""
    context = Context(model, PAGE, 1, goes_back=True, apart=True)
    sizes = []
    for i in range(2):
        context.decode([(0, i, [0], ())])
        sizes.append(context.size(0))
    each = max(sizes[1] - sizes[0], 1)
    return max(sizes[0] - each, 0) * (1 + context.most_back), each


def _where(model: Model, context: Context) -> str:
    """Describe the memory on each device, and the sessions."""
    found: dict[str, dict[str, float]] = {}
    for where, what, size in model.buffers + context.buffers:
        device = where.removesuffix("_Mapped").removesuffix("_REPACK")
        sizes = found.setdefault(device, {})
        sizes[KINDS[what]] = sizes.get(KINDS[what], 0.0) + size
    said = []
    for device, sizes in found.items():
        parts = (f"{size:,.0f} MiB of {name}" for name, size in sizes.items())
        said.append(f"on {device} {', '.join(parts)}")
    places, tokens = context.places, context.n_ctx // context.places
    said.append(f"{places} session{'s' * (places > 1)} of {tokens:,} tokens")
    return "; ".join(said)
