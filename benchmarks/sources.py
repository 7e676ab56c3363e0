"""Sources of logits: the shipped drafts, or two models."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

import sqs_codec as sqs
from sqs_codec.cli.options import add_models, check_models, find_prior, number
from tests.drafts import (
    Drafts,
    Languages,
    Rows,
    held_out,
    load_drafts,
    load_languages,
    load_targets,
)

if TYPE_CHECKING:
    from benchmarks.pair import Pair
    from sqs_codec.system.hf import CachedModel

TEXT_TEMPERATURE = 0.7
"""The temperature of the target's completions."""

PROMPTS = Path(__file__).with_name("data") / "prompts.txt"
"""The prompts of SmolLM2's shipped rows: lines with a kind and a prompt."""


class Logits(Protocol):
    """Rows of logits, such as an array [n, V]."""

    def __len__(self) -> int:
        """Return n."""

    def __getitem__(self, index: int, /) -> NDArray[np.floating]:
        """Return the logits of one position, [V]."""


@dataclass(frozen=True)
class Session:
    """Both models' logits at consecutive positions of one text."""

    draft: Logits
    target: Logits
    length: int
    """The number of positions to use."""

    def __len__(self) -> int:
        return self.length


@dataclass(frozen=True)
class Source:
    """The input of a measurement."""

    summary: str
    """A description of the rows."""
    vocab_size: int
    """V."""
    sessions: tuple[Session, ...]
    prior: sqs.Prior | None = None
    """The prior of the entropy coding."""

    @property
    def rows(self) -> int:
        """The number of positions."""
        return sum(map(len, self.sessions))

    def pairs(self) -> Iterator[tuple[NDArray[np.floating], NDArray[np.floating]]]:
        """Yield both models' logits at each position."""
        for session in self.sessions:
            for i in range(len(session)):
                yield session.draft[i], session.target[i]

    def first(self, rows: int) -> Source:
        """Return the first rows: whole sessions and the beginning of one."""
        sessions, left = [], rows
        for session in self.sessions:
            if left > 0:
                sessions.append(replace(session, length=min(left, len(session))))
            left -= len(session)
        return replace(self, sessions=tuple(sessions))


@dataclass(frozen=True)
class Answer:
    """Shipped rows of one prompt, decoded on access."""

    rows: Rows
    indices: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> NDArray[np.float32]:
        return self.rows.row(int(self.indices[index]))


SHIPPED = ("smollm2", "gemma3")
"""Models with shipped rows, and names of their priors."""


def shipped(model: str = "smollm2", language: str | None = None) -> Source:
    """Return shipped rows to which nothing was fitted, with a session per prompt.

    The model is ``"smollm2"`` or ``"gemma3"``, optionally with only one language.
    """
    rows: Drafts | Languages = load_drafts() if model == "smollm2" else load_languages()
    if isinstance(rows, Drafts):
        targets, kinds, kept = load_targets(), rows.category, held_out(rows)
        said = "SmolLM2-135M-Instruct and itself without 2 layers; the shipped drafts"
    else:
        targets, kinds = rows, rows.language
        kept = np.full(len(rows), language is None) | (kinds == language)
        said = "Gemma 3 270M, drafting for itself; the shipped texts"
    places = [np.flatnonzero(rows.prompt == n) for n in np.unique(rows.prompt[kept])]
    names = ", ".join(sorted(set(kinds[kept].tolist())))
    return Source(
        f"{said} to which nothing was fitted: {names}",
        rows.vocab_size,
        tuple(Session(Answer(rows, at), Answer(targets, at), len(at)) for at in places),
    )


def small() -> Source:
    """Return the shipped rows of SmolLM2 with the shipped draft."""
    from sqs_codec.system.small import Draft

    lines = PROMPTS.read_text("utf-8").splitlines()
    prompts = [line.split("\t")[1] for line in lines if not line.startswith("#")]
    source, rows, draft = shipped(), load_drafts(), Draft()
    sessions = []
    for session, prompt in zip(
        source.sessions, np.unique(rows.prompt[held_out(rows)]), strict=True
    ):
        start = draft.tokenizer.encode_prompt(prompts[prompt])
        text = start + rows.token[rows.prompt == prompt].tolist()
        made = [draft.logits(text[:end])[-1] for end in range(len(start), len(text))]
        sessions.append(replace(session, draft=made))
    return replace(source, sessions=tuple(sessions))


def read_prompts(path: Path) -> list[str]:
    """Read prompts: one per line, or JSON lines with "turns" (the first is used).

    If JSON lines have a "category", categories take turns in the result. ValueError if
    there are no prompts, or a JSON line has no turns.
    """
    lines = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{path} has no prompts")
    if not lines[0].startswith("{"):
        return lines
    by_category: dict[str, list[str]] = {}
    for place, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            prompt = str(record["turns"][0])
        except (ValueError, TypeError, LookupError) as error:
            raise ValueError(f'{path}, line {place} has no "turns"') from error
        by_category.setdefault(str(record.get("category")), []).append(prompt)
    turns = zip_longest(*by_category.values())
    return [prompt for turn in turns for prompt in turn if prompt is not None]


def from_prompts(
    pair: Pair, prompts: Sequence[str], name: str, positions: int, seed: int
) -> Source:
    """Generate the target's completions, and compute both models' logits for them.

    `name` describes the prompts, `positions` is the most tokens per completion. The
    completions are sampled at `TEXT_TEMPERATURE`.
    """
    from sqs_codec.system.hf import CachedModel

    size = pair.vocab_size
    models = [partial(CachedModel, m, size) for m in (pair.draft, pair.target)]
    rng = np.random.default_rng(seed)
    encoded = [pair.encode(prompt) for prompt in prompts]
    answers = [answer(models[1], pair, prompt, positions, rng) for prompt in encoded]
    draft, target = (read(model, encoded, answers) for model in models)
    return Source(
        f"{pair.summary}; {len(prompts)} prompts of {name}, answered by the target "
        f"at temperature {TEXT_TEMPERATURE}",
        size,
        tuple(Session(d, t, len(d)) for d, t in zip(draft, target, strict=True)),
    )


def answer(
    make: Callable[[], CachedModel],
    pair: Pair,
    prompt: list[int],
    positions: int,
    rng: np.random.Generator,
) -> list[int]:
    """Sample the target's completion, including its stop token."""
    from benchmarks.schemes import softmax

    target, text = make(), list(prompt)
    while len(text) < len(prompt) + positions:
        probs = softmax(target.logits(text)[0], TEXT_TEMPERATURE)
        text.append(int(rng.choice(probs.size, p=probs)))
        if text[-1] in pair.stop:
            break
    return text[len(prompt) :]


def read(
    make: Callable[[], CachedModel], prompts: list[list[int]], answers: list[list[int]]
) -> Iterator[NDArray[np.float32]]:
    """Yield the logits at every position of each completion, [n, V]."""
    for prompt, tokens in zip(prompts, answers, strict=True):
        yield make().logits(prompt + tokens[:-1], last=len(tokens))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `from_options` reads."""
    add = parser.add_argument_group("what to measure on (shipped drafts)").add_argument
    said = 'prompts for the target: one per line, or JSON lines with "turns"'
    add("--prompts", type=Path, metavar="FILE", help=said)
    said = "maximum tokens per answer (default: %(default)s)"
    add("--positions", **number(int, 1), default=30, help=said)
    said = "maximum number of positions (default: %(default)s)"
    add("--rows", **number(int, 1), default=600, help=said)
    add("--seed", **number(int, 0), default=0, help="(default: %(default)s)")
    add_models(parser.add_argument_group("models for --prompts").add_argument)
    said = "model of the shipped rows (default: %(default)s)"
    add("--shipped", choices=SHIPPED, default=SHIPPED[0], help=said)
    languages = sorted(set(load_languages().language.tolist()))
    add("--language", choices=languages, help="language of Gemma's rows (default: all)")
    said = (
        "prior of the entropy coding, or none (default: SmolLM2's or Gemma's for their "
        "rows, none with --draft)"
    )
    add("--prior", metavar="NAME_OR_FILE", help=said)
    parser.set_defaults(usage_error=parser.error)


def from_options(args: argparse.Namespace) -> Source:
    """Return the source for a command line; OSError, ValueError or ModelError."""
    check_models(args)
    if args.language and args.shipped != "gemma3":
        args.usage_error("--language needs --shipped gemma3")
    default = None if args.draft else args.shipped
    prior = find_prior(args.prior or default)
    if not args.prompts:
        if args.draft:
            args.usage_error("--draft needs --prompts")
        source = shipped(args.shipped, args.language)
        return replace(source, prior=prior).first(args.rows)
    if args.shipped != SHIPPED[0]:
        args.usage_error("--prompts and --shipped exclude each other: omit one")
    from benchmarks.pair import load_pair

    prompts = read_prompts(args.prompts)[: -(-args.rows // args.positions)]
    pair = load_pair(args.draft, args.target, args.drop_layers)
    name, positions = args.prompts.name, args.positions
    source = from_prompts(pair, prompts, name, positions, args.seed)
    return replace(source, prior=prior).first(args.rows)
