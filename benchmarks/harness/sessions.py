"""Real sessions over the real protocol, and their jobs.

Edges draft with a real model and send their packets to clouds, whose jobs are verified
by `sqs_codec.system.hf.Cloud`. Both models process all sessions in batches, which makes
many rounds affordable. The results are jobs and verdicts. A job is self-contained, so
repeating it must give the same verdict. A verifier's time depends only on texts and
drafts, not on the draft model.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

import sqs_codec as sqs
from benchmarks.data.make_corpus import read_texts
from sqs_codec import Sampling
from sqs_codec._codec.verify import Verdict
from sqs_codec.system._base.tokens import common_length
from sqs_codec.system._caching import TextPiece
from sqs_codec.system.hf._cloud import BLOCK
from sqs_codec.system.hf._ragged import Cache, RaggedModel
from sqs_codec.system.session import CloudSession, EdgeSession, Job, Limits, Setting

if TYPE_CHECKING:
    from benchmarks.pair import Pair
    from sqs_codec.system.hf import Cloud


K, RESOLUTION, TEMPERATURE = 64, 100, 0.7

HINTED = 4
"""Tokens per hint."""


class Played(NamedTuple):
    """A job and its verdict, or None for a prefill."""

    job: Job
    verdict: Verdict | None


@dataclass(frozen=True)
class Session:
    """The jobs of a session, in order."""

    temperature: float = TEMPERATURE
    played: list[Played] = field(default_factory=list)

    @property
    def rounds(self) -> list[Played]:
        """The jobs with a verdict."""
        return [turn for turn in self.played if turn.verdict is not None]

    @property
    def tokens(self) -> int:
        """The number of tokens of the longest job, including drafted ones."""
        return max(len(job.text) + len(drafted(job)) for job, _ in self.played)


def drafted(job: Job) -> list[int]:
    """Return a job's drafted tokens."""
    return [*map(int, job.drafted)]


def texts_of(pair: Pair, long: Sequence[int]) -> Iterator[list[int]]:
    """Yield prompts forever: questions, texts in ten languages and code, in turns.

    Every eighth prompt follows a context, with the lengths of `long` in turns.
    """
    kinds = read_texts(held_out=True)
    context = [i for texts in kinds.values() for t in texts for i in pair.encode(t)]
    lengths = itertools.cycle(long)
    turns = itertools.chain(*itertools.zip_longest(*kinds.values()))
    texts = [text for text in turns if text is not None]
    for number, text in enumerate(itertools.cycle(texts)):
        before = next(lengths) if long and number % 8 == 3 else 0
        yield [*_repeated(context, before), *pair.encode(text)]


def _repeated(tokens: list[int], length: int) -> list[int]:
    return (tokens * (length // len(tokens) + 1))[:length]


class Drafts:
    """The draft model of many sessions, run in batches."""

    def __init__(self, pair: Pair) -> None:
        self._model = RaggedModel(pair.draft, pair.vocab_size)
        self._caches: dict[int, Cache] = {}

    def rows(self, texts: dict[int, list[int]]) -> dict[int, NDArray[np.float32]]:
        """Return the logits [V] after each session's text."""
        pieces = [self._piece(name, text) for name, text in texts.items()]
        rows = self._model.read(pieces).float().cpu().numpy()
        return dict(zip(texts, rows, strict=True))

    def _piece(self, name: int, text: list[int]) -> TextPiece[Cache]:
        cache = self._caches.setdefault(name, Cache())
        del cache.tokens[min(common_length(cache.tokens, text), len(text) - 1) :]
        if cache.capacity < len(text):
            cache.grow(self._model.layout, len(text) + BLOCK)
        return TextPiece(cache, text[len(cache.tokens) :], 1)


class _Ends:
    """Both ends of a session, and its results."""

    def __init__(
        self, temperature: float, prompt: list[int], cloud: Cloud, seed: Sequence[int]
    ) -> None:
        rng = np.random.default_rng(seed)
        codec = sqs.Codec(cloud.vocab_size, RESOLUTION)
        session = rng.bytes(16)
        self.session = Session(temperature)
        self.edge = EdgeSession(
            [Setting(codec, sqs.TopK(K))],
            prompt,
            rng=np.random.default_rng([*seed, 1]),
            sampling=Sampling(temperature),
            session_id=session,
            seed=rng.bytes(16),
        )
        self._hinted: list[sqs.Guesses] = []
        self._cloud = CloudSession(
            session,
            limits=Limits(),
            tokenizer=b"",
            vocab_size=cloud.vocab_size,
            max_text=cloud.max_text,
        )

    @property
    def ahead(self) -> list[int]:
        """The text with drafted or hinted tokens."""
        hinted = [guesses.tokens[0] for guesses in self._hinted]
        return [*self.edge.text, *self.edge.drafted, *hinted]

    def draft(self, row: NDArray[np.float32], *, hint: bool) -> None:
        """Draft or hint a token."""
        if hint:
            self._hinted.append(self.edge.guess(row, len(self.ahead)))
        else:
            self.edge.push(row)

    def send(self) -> None:
        """Send the drafted or hinted tokens."""
        if not self._hinted:
            return self.edge.flush()
        tokens, chances = zip(
            *((one.tokens[0], one.chances[0]) for one in self._hinted), strict=True
        )
        self._hinted = []
        self.edge.generate(HINTED + 1)
        return self.edge.hint(len(self.edge.text), [((), tokens, chances)])

    def exchange(self) -> Job | None:
        """Carry messages until there is a job, or no message is left."""
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
    pair: Pair,
    prompts: Sequence[list[int]],
    rounds: int,
    seed: Sequence[int],
    lengths: Sequence[int],
    temperatures: Sequence[float],
) -> list[Session]:
    """Play `rounds` rounds after each prompt, with all sessions in parallel.

    A session's drafts have the given lengths in turns; at 0 the target decodes, with
    hints of the next `HINTED` tokens. Sessions have the temperatures in turns.
    """
    drafts, warmth = Drafts(pair), itertools.cycle(temperatures)
    all_ends = [
        _Ends(next(warmth), prompt, cloud, [*seed, i])
        for i, prompt in enumerate(prompts)
    ]
    _verify(cloud, all_ends)
    for number in range(rounds):
        here = [lengths[(number + i) % len(lengths)] for i in range(len(all_ends))]
        _draft(drafts, all_ends, here)
        _verify(cloud, all_ends)
    for ends in all_ends:
        cloud.forget(ends.session.played[0].job.session)
    return [ends.session for ends in all_ends]


def _draft(drafts: Drafts, all_ends: Sequence[_Ends], lengths: Sequence[int]) -> None:
    counts = [length or HINTED for length in lengths]
    for position in range(max(counts)):
        texts = {
            i: ends.ahead for i, ends in enumerate(all_ends) if position < counts[i]
        }
        for i, row in drafts.rows(texts).items():
            all_ends[i].draft(row, hint=not lengths[i])
    for ends in all_ends:
        ends.send()


def _verify(cloud: Cloud, all_ends: Sequence[_Ends]) -> None:
    """Verify jobs until none is left."""
    while jobs := {ends: job for ends in all_ends if (job := ends.exchange())}:
        verdicts = cloud.verify(list(jobs.values()))
        for (ends, job), verdict in zip(jobs.items(), verdicts, strict=True):
            ends.complete(Played(job, verdict))
