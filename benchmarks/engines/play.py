"""Sessions really played, over the real protocol, and the jobs that came of them.

Edges draft with a real model and send their packets to clouds, whose jobs are verified
by `sqs_codec.hf.Cloud`. Both models read a row of all sessions at a time, which makes
many rounds affordable. What is kept are jobs and verdicts: a job says everything, so
whoever does it again has to come to the same verdict.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

import sqs_codec as sqs
from benchmarks.data.make_corpus import read_texts
from benchmarks.serve.replay import RESOLUTION, TEMPERATURE, K, Played
from sqs_codec._codec.verify import Verdict
from sqs_codec.hf._cloud import BLOCK
from sqs_codec.hf._ragged import Cache, Piece, RaggedModel
from sqs_codec.session import CloudSession, EdgeSession, Job, Limits, Sampling, Setting
from sqs_codec.session._text import common_length

if TYPE_CHECKING:
    from sqs_codec.hf import Cloud
    from sqs_codec.hf._models import Pair

LENGTHS = (5, 5, 3, 5, 1, 5, 4, 5, 0)
"""Drafted tokens of a session's rounds, in turns; at 0 the target decodes alone."""


@dataclass(frozen=True)
class Kind:
    """What a session is called, and at what temperature."""

    name: str
    temperature: float = TEMPERATURE


KINDS = (Kind("drawn"), Kind("drawn"), Kind("T = 0", 0.0))
"""What sessions are, in turns; 3 of them, as there are 8 sessions at once."""


@dataclass(frozen=True)
class Session:
    """A session that was played.

    Attributes
    ----------
    kind : Kind
    played : list of Played
        Its jobs in order. The verdict on one that only reads a text is None.
    """

    kind: Kind
    played: list[Played] = field(default_factory=list)

    @property
    def rounds(self) -> int:
        """How many rounds there are: a lazy one may take two jobs."""
        return sum(isinstance(turn.verdict, Verdict) for turn in self.played)

    @property
    def tokens(self) -> int:
        """How many tokens its longest job has."""
        return max(length_of(turn.job) for turn in self.played)


def length_of(job: Job) -> int:
    """Return how many tokens a job has, drafted ones included."""
    return len(job.text) + (0 if job.round_ is None else len(job.round_))


def prompts_of(pair: Pair, long: Sequence[int]) -> Iterator[list[int]]:
    """Yield prompts for ever: questions, texts in ten languages and code, in turns.

    Parameters
    ----------
    pair : Pair
    long : sequence of int
        Lengths. Every eighth prompt has such a context before it, one after the other.
    """
    kinds = read_texts(held_out=True)
    context = [i for texts in kinds.values() for t in texts for i in pair.encode(t)]
    lengths = itertools.cycle(long)
    texts = [
        text
        for turn in itertools.zip_longest(*kinds.values())
        for text in turn
        if text is not None
    ]
    for number, text in enumerate(itertools.cycle(texts)):
        prompt = pair.encode(text)
        if long and number % 8 == 3:
            n = next(lengths)
            prompt = [*(context * (n // len(context) + 1))[:n], *prompt]
        yield prompt


class Drafts:
    """Draft models of many sessions, which read together."""

    def __init__(self, pair: Pair) -> None:
        self._model = RaggedModel(pair.draft, pair.vocab_size)
        self._caches: dict[int, Cache] = {}

    def rows(self, texts: dict[int, list[int]]) -> dict[int, NDArray[np.float32]]:
        """Return the logits [V] after each session's text."""
        pieces = [self._piece(name, text) for name, text in texts.items()]
        rows = self._model.read(pieces).float().cpu().numpy()
        return dict(zip(texts, rows, strict=True))

    def forget(self) -> None:
        """Free all that is kept."""
        self._caches.clear()

    def _piece(self, name: int, text: list[int]) -> Piece:
        cache = self._caches.setdefault(name, Cache())
        del cache.tokens[min(common_length(cache.tokens, text), len(text) - 1) :]
        if cache.capacity < len(text):
            cache.grow(self._model.layout, len(text) + BLOCK)
        return Piece(cache, text[len(cache.tokens) :], 1)


class _Ends:
    """Both ends of a session, and what is played between them."""

    def __init__(
        self, kind: Kind, prompt: list[int], cloud: Cloud, seed: Sequence[int]
    ) -> None:
        rng = np.random.default_rng(seed)
        codec = sqs.Codec(cloud.vocab_size, RESOLUTION)
        session = rng.bytes(16)
        self.session = Session(kind)
        self.edge = EdgeSession(
            [Setting(codec, sqs.TopK(K))],
            prompt,
            rng=np.random.default_rng([*seed, 1]),
            sampling=Sampling(kind.temperature),
            session_id=session,
            seed=rng.bytes(16),
        )
        self._cloud = CloudSession(
            session,
            limits=Limits(),
            tokenizer=b"",
            vocab_size=cloud.vocab_size,
            max_text=cloud.max_text,
        )

    def exchange(self) -> Job | None:
        """Carry messages until there is a job, or nothing more to carry."""
        while True:
            up = self.edge.data_to_send()
            for message in up:
                self._cloud.receive(message)
            job = self._cloud.next_job()
            if job is not None:
                return job
            down = self._cloud.data_to_send()
            for message in down:
                self.edge.receive(message)
            refused = self.edge.refused or self._cloud.refused
            if refused is not None:
                raise RuntimeError(refused)
            if not up and not down:
                return None

    def complete(self, turn: Played) -> None:
        """Take the verdict on the job."""
        self.session.played.append(turn)
        self._cloud.complete(turn.job, turn.verdict)


def play(
    cloud: Cloud,
    drafts: Drafts,
    prompts: Sequence[list[int]],
    rounds: int,
    seed: Sequence[int],
) -> list[Session]:
    """Play so many rounds after each prompt, all sessions side by side.

    Parameters
    ----------
    cloud : Cloud
        The target.
    drafts : Drafts
    prompts : sequence of list of int
        One for each session; they take turns at `KINDS`.
    rounds : int
    seed : sequence of int
    """
    kinds = itertools.cycle(KINDS)
    all_ends = [
        _Ends(next(kinds), prompt, cloud, [*seed, i])
        for i, prompt in enumerate(prompts)
    ]
    _verify(cloud, all_ends)
    for number in range(rounds):
        lengths = [LENGTHS[(number + i) % len(LENGTHS)] for i in range(len(all_ends))]
        _draft(drafts, all_ends, lengths)
        for ends, length in zip(all_ends, lengths, strict=True):
            if length:
                ends.edge.flush()
            else:
                ends.edge.generate(1)
        _verify(cloud, all_ends)
    drafts.forget()
    for ends in all_ends:
        cloud.forget(ends.session.played[0].job.session)
    return [ends.session for ends in all_ends]


def _draft(drafts: Drafts, all_ends: Sequence[_Ends], lengths: Sequence[int]) -> None:
    for position in range(max(lengths)):
        texts = {
            i: [*ends.edge.text, *ends.edge.drafted]
            for i, ends in enumerate(all_ends)
            if position < lengths[i]
        }
        for i, row in drafts.rows(texts).items():
            all_ends[i].edge.push(row)


def _verify(cloud: Cloud, all_ends: Sequence[_Ends]) -> None:
    """Have jobs done until there are none."""
    while jobs := {ends: job for ends in all_ends if (job := ends.exchange())}:
        verdicts = cloud.verify(list(jobs.values()))
        for (ends, job), verdict in zip(jobs.items(), verdicts, strict=True):
            ends.complete(Played(job, verdict))
