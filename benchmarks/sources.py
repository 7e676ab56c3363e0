"""Where the logits come from: arrays, prompts through two models, or a script."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sqs_codec.demo.models import CachedModel, Pair

TEXT_TEMPERATURE = 0.7
"""At which the target writes the text whose positions are measured."""


class Logits(Protocol):
    """Rows of logits, such as an array [n, V] or something that makes them."""

    def __len__(self) -> int:
        """Return n."""

    def __getitem__(self, index: int, /) -> NDArray[np.floating]:
        """Return the logits of one position, [V]."""


@dataclass(frozen=True)
class Session:
    """Consecutive positions of one text.

    Attributes
    ----------
    draft : Logits
        The draft model's.
    target : Logits or None
        The target model's at the same positions, if they are known.
    """

    draft: Logits
    target: Logits | None

    def __len__(self) -> int:
        return len(self.draft)

    def first(self, rows: int) -> Session:
        """Return the session's first positions."""
        return replace(
            self,
            draft=Part(self.draft, rows),
            target=None if self.target is None else Part(self.target, rows),
        )


@dataclass(frozen=True)
class Part:
    """The first rows of logits."""

    logits: Logits
    rows: int

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int, /) -> NDArray[np.floating]:
        return self.logits[index]


@dataclass(frozen=True)
class Source:
    """What is measured on.

    Attributes
    ----------
    summary : str
        What the rows are, for people.
    vocab_size : int
        V.
    sessions : tuple of Session
    """

    summary: str
    vocab_size: int
    sessions: tuple[Session, ...]

    @property
    def rows(self) -> int:
        """How many positions there are."""
        return sum(map(len, self.sessions))

    @property
    def has_target(self) -> bool:
        """Whether the target's distributions are known."""
        return all(session.target is not None for session in self.sessions)

    def first(self, rows: int) -> Source:
        """Return at most so many rows: whole sessions and the beginning of one."""
        sessions, left = [], rows
        for session in self.sessions:
            if left > 0:
                sessions.append(session.first(min(left, len(session))))
            left -= len(session)
        return replace(self, sessions=tuple(sessions))


def shipped() -> Source:
    """Return the shipped drafts, where the package runs from its source tree.

    Raises
    ------
    ValueError
        It doesn't.
    """
    root = Path(__file__).parents[2]
    if not (root / "benchmarks" / "rate.py").exists():
        raise ValueError(
            "the shipped drafts are in the source tree only; "
            "give --logits or --prompts to measure on something else"
        )
    if str(root) not in sys.path:
        sys.path.append(str(root))
    source: Source = import_module("benchmarks.rate").shipped()
    return source


def from_arrays(draft: Path, target: Path | None) -> Source:
    """Read logits of consecutive positions from .npy files of shape [N, V].

    Raises
    ------
    ValueError
        The arrays are no floats of one such shape.
    """
    arrays: list[NDArray[np.floating]] = []
    for path in (draft, target):
        if path is not None:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            if array.ndim != 2 or array.dtype.kind != "f" or len(array) == 0:
                raise ValueError(
                    f"{path} must hold floats of shape [N, V], "
                    f"not {array.dtype} of shape {array.shape}"
                )
            arrays.append(array)
    if len({array.shape for array in arrays}) > 1:
        raise ValueError(
            f"{draft} and {target} must be of one shape, "
            f"not {arrays[0].shape} and {arrays[1].shape}"
        )
    session = Session(arrays[0], arrays[1] if target else None)
    return Source(f"{draft.name}, one session", arrays[0].shape[1], (session,))


def read_prompts(path: Path) -> list[str]:
    """Read prompts: one a line, or JSON lines with "turns" (the first is taken).

    Where every JSON line has a "category", the prompts are put in an order that
    takes one of each category in turn, so that any number of them is balanced.

    Raises
    ------
    ValueError
        There are none, or a JSON line has no turns.
    """
    lines = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{path} holds no prompts")
    if not lines[0].startswith("{"):
        return lines
    by_category: dict[str, list[str]] = {}
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            prompt = str(record["turns"][0])
        except (ValueError, TypeError, LookupError) as error:
            raise ValueError(f'{path}, line {number} has no "turns"') from error
        by_category.setdefault(str(record.get("category")), []).append(prompt)
    turns = zip_longest(*by_category.values())
    return [prompt for turn in turns for prompt in turn if prompt is not None]


def from_prompts(
    pair: Pair, prompts: Sequence[str], name: str, positions: int, seed: int
) -> Source:
    """Let the target answer prompts, and both models judge every position.

    Parameters
    ----------
    pair : Pair
    prompts : sequence of str
    name : str
        Of the prompts, for people.
    positions : int
        The most tokens of each answer.
    seed : int
        Of the generator that samples the answers, at `TEXT_TEMPERATURE`.
    """
    from sqs_codec.demo.models import CachedModel

    models = [CachedModel(m, pair.vocab_size) for m in (pair.draft, pair.target)]
    rng = np.random.default_rng(seed)
    encoded = [pair.encode(prompt) for prompt in prompts]
    answers = [answer(models[1], pair, prompt, positions, rng) for prompt in encoded]
    draft, target = (read(model, encoded, answers) for model in models)
    return Source(
        f"{pair.summary}; {len(prompts)} prompts of {name}, answered by the target "
        f"at temperature {TEXT_TEMPERATURE}",
        pair.vocab_size,
        tuple(Session(*both) for both in zip(draft, target, strict=True)),
    )


def answer(
    target: CachedModel,
    pair: Pair,
    prompt: list[int],
    positions: int,
    rng: np.random.Generator,
) -> list[int]:
    """Sample the target's answer, its stop token included."""
    from sqs_codec.demo.loop import softmax

    text = list(prompt)
    target.rollback(0)
    while len(text) < len(prompt) + positions:
        probs = softmax(target.logits(text)[0], TEXT_TEMPERATURE)
        text.append(int(rng.choice(probs.size, p=probs)))
        if text[-1] in pair.stop:
            break
    return text[len(prompt) :]


def read(
    model: CachedModel, prompts: list[list[int]], answers: list[list[int]]
) -> Iterator[NDArray[np.float32]]:
    """Logits of every position of each answer, [n, V]."""
    for prompt, tokens in zip(prompts, answers, strict=True):
        model.rollback(0)
        yield model.logits(prompt + tokens[:-1], last=len(tokens))
