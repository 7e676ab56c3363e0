"""Rounds that were really played, to be verified again and again.

What a verifier takes depends on texts and drafts, not on who drafts. Drafting for many
sessions on the same cores would hide it, so a few sessions are played once with a real
draft model, and then each of many sessions goes through the rounds of one of them, from
a place of its own. The numbers are the same, so the verdicts have to be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

import sqs_codec as sqs
from sqs_codec._codec.verify import Verdict
from sqs_codec.session import Job, Sampling

if TYPE_CHECKING:
    from sqs_codec.hf import Cloud
    from sqs_codec.hf._models import Pair

K, RESOLUTION, ROUND = 64, 100, 5
TEMPERATURE = 0.7


@dataclass(frozen=True)
class Played:
    """A job and the verdict on it."""

    job: Job
    verdict: Verdict


def play(
    pair: Pair, cloud: Cloud, prompts: Sequence[list[int]], rounds: int, seed: int
) -> list[list[Played]]:
    """Play so many rounds after each prompt."""
    return [
        _play(pair, cloud, prompt, rounds, np.random.default_rng([seed, i]))
        for i, prompt in enumerate(prompts)
    ]


def _play(
    pair: Pair, cloud: Cloud, prompt: list[int], rounds: int, rng: np.random.Generator
) -> list[Played]:
    from sqs_codec.hf._models import CachedModel

    codec = sqs.Codec(pair.vocab_size, RESOLUTION)
    drafter = sqs.Drafter(codec, sqs.TopK(K), rng=rng, max_tokens=ROUND)
    draft = CachedModel(pair.draft, pair.vocab_size)
    numbers = np.random.default_rng(rng.integers(1 << 62, size=2))
    session, text, played = rng.bytes(16), list(prompt), []
    for _ in range(rounds):
        draft.rollback(min(len(draft), len(text) - 1))
        guess: list[int] = []
        for _ in range(ROUND):
            row = draft.logits([*text, *guess])[0]
            token = drafter.push(row, temperature=TEMPERATURE)
            assert token is not None
            guess.append(token)
        round_ = codec.decode_round(drafter.finish())
        job = Job(
            session,
            list(text),
            round_,
            numbers.random(ROUND + 1),
            Sampling(TEMPERATURE),
        )
        [verdict] = cloud.verify([job])
        assert isinstance(verdict, Verdict)
        drafter.feedback(verdict)
        played.append(Played(job, verdict))
        text += [*guess[: verdict.accepted], verdict.token]
    cloud.forget(session)
    return played


class Replay:
    """Many sessions, each of which goes through the rounds of one that was played.

    Parameters
    ----------
    played : sequence of sequence of Played
    sessions : int

    Attributes
    ----------
    tokens : int
        Written so far.
    wrong : int
        Verdicts so far that weren't those of the session that was played.
    """

    def __init__(self, played: Sequence[Sequence[Played]], sessions: int) -> None:
        self._played = [played[i % len(played)] for i in range(sessions)]
        self._places = [7 * i for i in range(sessions)]
        self.tokens = self.wrong = 0

    def fill(self, cloud: Cloud) -> None:
        """Have the cloud read the longest text of every session."""
        cloud.verify(self._jobs([rounds[-1] for rounds in self._played]))

    def turn(self, cloud: Cloud) -> None:
        """Verify a round of every session."""
        turns = [
            rounds[place % len(rounds)]
            for rounds, place in zip(self._played, self._places, strict=True)
        ]
        verdicts = cloud.verify(self._jobs(turns))
        self._places = [place + 1 for place in self._places]
        self.tokens += sum(turn.verdict.accepted + 1 for turn in turns)
        self.wrong += sum(
            verdict != turn.verdict
            for verdict, turn in zip(verdicts, turns, strict=True)
        )

    def _jobs(self, turns: Sequence[Played]) -> list[Job]:
        return [
            replace(turn.job, session=i.to_bytes(16, "big"))
            for i, turn in enumerate(turns)
        ]
