"""The verifier with one Hugging Face model, for the sessions of many edges."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqs_codec import Verdict, vocabulary_fingerprint
from sqs_codec._base import checks
from sqs_codec.system._caching import CachingVerifier, Reading, TextPiece
from sqs_codec.system.hf._models import HFModel, HFTokenizer, logits_size
from sqs_codec.system.hf._ragged import Cache, RaggedModel
from sqs_codec.system.hf._sampling import verify_jobs
from sqs_codec.system.session import Job

BLOCK = 64  # capacities of caches are multiples of this, so that they grow rarely
TEXT = 1152  # capacity of a typical cache in tokens: a chat of 1,024, and growth


class Cloud(CachingVerifier[Cache]):
    """A `Verifier` with a causal model from Hugging Face.

    It is a `CachingVerifier`: one forward pass reads the new tokens of all jobs,
    without padding (``docs/verifier.md``), and the KV cache of each session stays.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A decoder of float32, bfloat16 or float16, on any device. The KV cache and
        verification use the same device. The output distribution is exact for the
        logits as computed, which depend on the dtype. The model isn't changed.
    vocab_size : int, optional
        V: the model's logits are cropped to their first V entries, for vocabularies
        padded to different sizes. If None, all of the model's logits.
    tokenizer : transformers.PreTrainedTokenizerBase, optional
        For `fingerprint`.
    max_memory : int
        Limit of the KV cache in bytes, which also limits the length of a text. The
        least recently used sessions are evicted.
    batch_tokens : int
        Approximate number of tokens per forward pass. Long texts are read in chunks.

    Attributes
    ----------
    fingerprint : bytes
        `vocabulary_fingerprint` of the tokenizer; empty without a tokenizer.

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
            self._model, checks.in_range("max_memory", max_memory, 1)
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
    """The caches of all sessions, within a limit. `forget` is thread-safe."""

    def __init__(self, model: RaggedModel, max_memory: int) -> None:
        self._layout = model.layout
        self._caches: OrderedDict[bytes, Cache] = OrderedDict()  # the newest is last
        self._lock = threading.Lock()
        self._pinned: set[bytes] = set()  # sessions in use
        self._forgotten: set[bytes] = set()  # sessions to free after use
        self.max_tokens = max_memory // model.token_bytes
        if self.max_tokens < BLOCK:
            raise ValueError(
                f"max_memory must be at least {BLOCK * model.token_bytes} for "
                f"{BLOCK} tokens of this model, got {max_memory}"
            )

    def __contains__(self, session: bytes) -> bool:
        return session in self._caches

    @contextmanager
    def opened(
        self, waiting: Sequence[Reading[Cache]]
    ) -> Iterator[list[Reading[Cache]]]:
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
        """Free a cache, or schedule that if it is in use."""
        with self._lock:
            if session in self._pinned:
                self._forgotten.add(session)
            else:
                self._caches.pop(session, None)

    def _open(self, task: Reading[Cache]) -> None:
        """Open a session's cache; keep only the tokens that the job can use."""
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
        room = self.max_tokens - sum(c.capacity for c in self._caches.values())
        for session in list(self._caches):
            if room >= tokens:
                break
            if session not in self._pinned:
                room += self._caches.pop(session).capacity

    def _capacity(self, task: Reading[Cache]) -> int:
        """Return the capacity in tokens that a job's cache needs."""
        cache = self._caches.get(task.job.session)
        length = len(task.tokens)
        if cache is not None and cache.capacity >= length:
            return cache.capacity
        # An eighth more, so that the total cost of copies is linear in the length.
        return min(-(-length * 9 // 8 // BLOCK) * BLOCK, self.max_tokens)
