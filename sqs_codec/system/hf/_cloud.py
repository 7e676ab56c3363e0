"""The verifier on one box: the sessions of many edges in one Hugging Face model."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqs_codec import Verdict, vocabulary_fingerprint
from sqs_codec._base import checks
from sqs_codec.system._caching import CachingVerifier, Reading, TextPiece
from sqs_codec.system.hf._models import HFModel, HFTokenizer, logits_size
from sqs_codec.system.hf._ragged import Cache, Layout, RaggedModel
from sqs_codec.system.hf._sampling import verify_jobs
from sqs_codec.system.session import Job

BLOCK = 64
"""Buffers have room for a multiple of so many tokens, so that they seldom grow."""

TEXT = 1152  # tokens of a cache that has room for a text of 1,024, a chat of some turns


class Cloud(CachingVerifier[Cache]):
    """A `Verifier` of rounds by a causal model from Hugging Face.

    A `CachingVerifier`: the new tokens of all jobs pass through the model in one row,
    without padding (``docs/verifier.md``), and keys and values stay.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A decoder of float32, bfloat16 or float16, on any device: keys and values are
        there, too, and rounds are verified there. Its logits as it computes them are
        the target, so that in another type it is another one. It is not changed and
        may be used elsewhere.
    vocab_size : int, optional
        V: the model's logits are cropped to their first V entries, for vocabularies
        padded to different sizes. If None, all that the model gives.
    tokenizer : transformers.PreTrainedTokenizerBase, optional
        For `fingerprint`.
    max_memory : int
        Bytes that keys and values may take on the model's device, which bound a text's
        length. What was used least recently goes.
    batch_tokens : int
        About how many tokens to read at once. Long texts are read in chunks.

    Attributes
    ----------
    fingerprint : bytes
        `vocabulary_fingerprint` of the tokenizer, empty without one.

    Raises
    ------
    ModelError
        The model can't be served; the message says why.

    Examples
    --------
    >>> import numpy as np
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> from sqs_codec.system.hf import Cloud
    >>> from sqs_codec import Sampling
    >>> from sqs_codec.system.session import VerifyRound
    >>> config = LlamaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2,
    ...     intermediate_size=16, num_attention_heads=2)
    >>> cloud = Cloud(LlamaForCausalLM(config))
    >>> draws = np.array([0.5])
    >>> job = VerifyRound(b"a session", [1, 2, 3], None, draws, Sampling())
    >>> [verdict] = cloud.verify([job])
    >>> verdict.accepted, 0 <= verdict.token < 50
    (0, True)
    """

    def __init__(
        self,
        model: HFModel,
        *,
        vocab_size: int | None = None,
        tokenizer: HFTokenizer | None = None,
        max_memory: int = 2**30,
        batch_tokens: int = 512,
    ) -> None:
        given = logits_size(model)
        self.vocab_size = checks.in_range(
            "vocab_size", given if vocab_size is None else vocab_size, 2, given
        )
        self._pass_tokens = checks.in_range("batch_tokens", batch_tokens, 1)
        self._piece_tokens = batch_tokens
        self.fingerprint = b""
        if tokenizer is not None:
            vocabulary = tokenizer.get_vocab()
            self.fingerprint = vocabulary_fingerprint(vocabulary, self.vocab_size)
        self._model = RaggedModel(model, self.vocab_size)
        self._caches = _Caches(
            self._model.layout, checks.in_range("max_memory", max_memory, 1)
        )
        most = self._model.max_text, self._caches.max_tokens
        self.max_text = min(most)
        self.places = max(self._caches.max_tokens // TEXT, 1)
        self._because = "the model reads {}, max_memory has room for {}".format(*most)

    def __repr__(self) -> str:
        return (
            f"<Cloud, vocabulary {self.vocab_size}, texts of at most {self.max_text} "
            "tokens>"
        )

    def _verify(
        self, pieces: Sequence[TextPiece[Cache]], jobs: Sequence[Job]
    ) -> list[Verdict | None]:
        return verify_jobs(jobs, self._model.read(pieces))


class _Caches:
    """The caches of all sessions, within a bound; any thread may forget one."""

    def __init__(self, layout: Layout, max_memory: int) -> None:
        self._layout = layout
        self._caches: OrderedDict[bytes, Cache] = OrderedDict()  # the newest is last
        self._lock = threading.Lock()
        self._pinned: set[bytes] = set()  # those in use
        self._forgotten: set[bytes] = set()  # of these, those to free afterwards
        self.max_tokens = max_memory // layout.token_bytes
        if self.max_tokens < BLOCK:
            raise ValueError(
                f"max_memory must be at least {BLOCK * layout.token_bytes} for "
                f"{BLOCK} tokens of this model, got {max_memory}"
            )

    def __contains__(self, session: bytes) -> bool:
        return session in self._caches

    @contextmanager
    def opened(
        self, waiting: Sequence[Reading[Cache]]
    ) -> Iterator[list[Reading[Cache]]]:
        """Open the caches of the first jobs, as many as fit together."""
        group, room = [], self.max_tokens
        with self._lock:
            for task in waiting:
                room -= self._capacity(task)
                if room < 0:
                    break
                group.append(task)
            self._pinned = {task.job.session for task in group}
        try:
            for task in group:
                self._open(task)
            yield group
        finally:
            with self._lock:
                for session in self._pinned & self._forgotten:
                    self._caches.pop(session, None)
                self._pinned, self._forgotten = set(), set()

    def forget(self, session: bytes) -> None:
        """Free a cache, once it isn't in use."""
        with self._lock:
            if session in self._pinned:
                self._forgotten.add(session)
            else:
                self._caches.pop(session, None)

    def _open(self, task: Reading[Cache]) -> None:
        """Open a session's cache with nothing in it but what the job can use."""
        session = task.job.session
        with self._lock:
            capacity = self._capacity(task)
            cache = self._caches.setdefault(session, Cache())
            self._caches.move_to_end(session)
            self._evict(capacity - cache.capacity)
        task.cache = cache
        del cache.tokens[task.known :]
        if capacity > cache.capacity:
            cache.grow(self._layout, capacity)

    def _evict(self, tokens: int) -> None:
        """Make room for so many tokens more."""
        room = self.max_tokens - sum(c.capacity for c in self._caches.values())
        for session in list(self._caches):
            if room >= tokens:
                break
            if session not in self._pinned:
                room += self._caches.pop(session).capacity

    def _capacity(self, task: Reading[Cache]) -> int:
        """Return how many tokens a job's cache is to have room for."""
        cache = self._caches.get(task.job.session)
        length = len(task.tokens)
        if cache is not None and cache.capacity >= length:
            return cache.capacity
        # An eighth more, so that the copies of all growth are linear in the text.
        return min(-(-length * 9 // 8 // BLOCK) * BLOCK, self.max_tokens)
