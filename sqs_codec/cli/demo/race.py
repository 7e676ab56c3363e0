"""One text three ways, and what each of them takes."""

import contextlib
import statistics
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sqs_codec.system import edge
from sqs_codec.system.session import (
    ROUND_HEAD,
    EdgeSession,
    Link,
    Sampling,
    Setting,
    seed_of,
)

ROUND = 0x80
"""The bit by which a message is a round."""


@dataclass
class Figures(edge.EdgeMetrics):
    """What the texts took that came one way."""

    texts: list[list[int]] = field(default_factory=list)
    packets: list[bytes] = field(default_factory=list)  # of the rounds
    rows: int = 0  # that the draft model gave
    steps: list[float] = field(default_factory=list)  # seconds for each of these


@dataclass
class Race:
    """Texts by each way, one after the other, with one draft model.

    The seed is that of texts that come alone or with hints, and of what is drafted;
    the setting that of the rounds. `figures` has what each way took, by its name.
    """

    draft: edge.TextDraft
    setting: Setting
    sampling: Sampling
    seed: int
    max_tokens: int
    draft_length: int = 4
    figures: dict[edge.Mode, Figures] = field(
        default_factory=lambda: {way: Figures() for way in edge.MODES}
    )

    def write(
        self, way: edge.Mode, prompt: Sequence[int], link: Link
    ) -> Generator[edge.Step, None, None]:
        """Write a text, and close the link."""
        figures = self.figures[way]
        draft = _Watched(self.draft.twin())
        session = _Session(
            [self.setting],
            prompt,
            rng=np.random.default_rng(self.seed),
            sampling=self.sampling,
            tokenizer=self.draft.fingerprint,
            stop=sorted(self.draft.stop),
            max_message=link.max_message,
            seed=seed_of(self.seed, prompt),
            rounds=way == "rounds",
        )
        began = time.monotonic() - figures.seconds
        sent, received = figures.bytes_up, figures.bytes_down
        length = self.draft_length if way == "rounds" else 0
        plan = edge.FixedPlan(length, hints=edge.Hints() if way == "hints" else None)
        steps = edge.generate(session, draft, link, plan, max_tokens=self.max_tokens)
        with contextlib.closing(steps):  # while there is a link to say it
            for step in steps:
                figures.add(step)
                figures.seconds = time.monotonic() - began
                yield step
        # With the end of the session, which no step has.
        figures.bytes_up = sent + link.sent
        figures.bytes_down = received + link.received
        figures.texts.append(session.text[len(prompt) :])
        figures.packets += [message[ROUND_HEAD:] for message in session.rounds]
        figures.rows += draft.rows
        figures.steps += draft.steps[1:]  # the first has read the prompt

    @property
    def same(self) -> bool:
        """Whether the texts are the same alone and with hints, as they should be."""
        return self.figures["alone"].texts == self.figures["hints"].texts

    @property
    def step_seconds(self) -> float:
        """What a token took the draft model in rounds, a median."""
        return statistics.median(self.figures["rounds"].steps or [0.0])


class _Session(EdgeSession):
    """A session that keeps the rounds that it sends, once each."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.rounds: dict[bytes, None] = {}

    def data_to_send(self) -> list[bytes]:
        messages = super().data_to_send()
        self.rounds |= dict.fromkeys(m for m in messages if m[0] & ROUND)
        return messages


class _Watched(edge.DraftModel):
    """A draft model that counts its rows and times its steps."""

    def __init__(self, draft: edge.DraftModel) -> None:
        self._draft = draft
        self.rows = 0
        self.steps: list[float] = []
        # Whether it can read a tree is found out once, and not in the race.
        draft.branches([[0, 1], [0, 2]])

    def logits(self, tokens: Sequence[int]) -> Any:
        return self._step(self._draft.logits, tokens, 1)

    def branches(self, texts: Sequence[Sequence[int]]) -> Any:
        return self._step(self._draft.branches, texts, len(texts))

    def _step(self, call: Callable[[Any], Any], given: Any, rows: int) -> Any:
        began = time.perf_counter()
        logits = call(given)
        self.steps.append(time.perf_counter() - began)
        self.rows += rows
        return logits
