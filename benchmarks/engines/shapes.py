"""Say how far rows of llama.cpp depend on what is read beside them, by a file's type.

The last rows of a text are computed in other shapes: several at once, beside others'
texts, after a prompt that was read in other parts, at another place, or all of it. The
change is the largest one of how far any token is ahead of another. Then 16 texts are
drawn by seeds, each by itself, and again all at once, with hints, after prompts in
parts. Where a token is another, its margin says how far behind it was before. Both are
in nats. An error says that a margin is larger than the change. What a token alone takes
is the processor's time.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Sequence
from dataclasses import replace
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

import sqs_codec as sqs
from benchmarks.data.make_corpus import read_texts
from benchmarks.gguf_files import MODELS, gguf_file
from benchmarks.harness import TEMPERATURE
from benchmarks.rate.schemes import softmax
from benchmarks.tables import about, about_line, dim, table
from sqs_codec.cli.options import number
from sqs_codec.system.llama_cpp import Cloud, Draft, Options
from sqs_codec.system.session import Job, Sampling, verify_jobs

SESSIONS, ROOM, PROMPT, ROWS = 16, 256, 72, 8
SHAPES = {
    "rows": [(n, 1, PROMPT, 0) for n in (2, 3, 4, 5, 8)],
    "sessions": [(1, n, PROMPT, 0) for n in (2, 4, 16)],
    "parts": [(1, 1, n, 0) for n in (1, 7, 32, 64)],
    "places": [(1, 1, PROMPT, n) for n in (3, 15)],
    "all": [(8, 4, 32, 3), (5, 16, 7, 11)],
}
"""Rows at once, sessions at once, tokens of the prompt's parts, and the place; by what
differs from a row alone."""

QUICK = {"types": ["Q8_0"], "shapes": ["parts"], "tokens": 2}

Rows = NDArray[np.float32]
Texts = Sequence[Sequence[int]]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what this measurement can be told."""
    add = parser.add_argument
    add("--model", choices=MODELS, default=MODELS[0])
    add("--types", nargs="+", default=["F32", "F16", "Q8_0", "Q4_K_M"])
    add("--shapes", nargs="+", choices=SHAPES, default=[*SHAPES])
    add("--tokens", **number(int, 1, ROOM // 2), default=16, help="of a text")


def main(args: argparse.Namespace) -> int:
    """Run it and print what came of it."""
    rows = table("Total variation, at most", "", *args.shapes, "change")
    words = "", "apart", "other tokens", "largest margin", "ms a row"
    texts = table(f"{SESSIONS} texts of {args.tokens} tokens", *words)
    for name, repeatable in itertools.product(args.types, (False, True)):
        label, file = name + ", repeatable" * repeatable, gguf_file(args.model, name)
        options = Options(1, parallel=SESSIONS, ctx_size=SESSIONS * ROOM)
        cloud = Cloud(file, options=replace(options, repeatable=repeatable))
        said = "\n".join(itertools.chain(*read_texts(held_out=False).values()))
        tokens = iter(Draft(file).encode_text(said))
        prompts = [*zip(*[tokens] * (PROMPT + ROWS), strict=False)][:SESSIONS]
        *apart, change = compare(cloud, prompts, args.shapes)
        rows.add_row(label, *(f"{x:.1g}" for x in apart), f"{change:.2g}")
        found, seconds = differ(cloud, prompts, args.tokens)
        most = max(itertools.chain([0.0], *found))
        assert most <= change, label
        counts = f"{sum(map(bool, found))}", f"{sum(map(len, found))}"
        texts.add_row(label, *counts, f"{most:.2g}", f"{1e3 * seconds:.0f}")
    ran = about_line(about("llama-cpp-python")) + f"{args.model}, T = {TEMPERATURE}"
    Console().print(rows, texts, dim(ran))
    return 0


def draw(number: int, text: Sequence[int], hints: Sequence[int] = ()) -> Job:
    """Return what a session asks for that draws by a seed of its own."""
    session, key = bytes([number]), bytes([number] * 16)
    return Job(session, text, None, np.empty(0), Sampling(TEMPERATURE), hints, key)


def rows_of(cloud: Cloud, jobs: Sequence[Job]) -> Rows:
    """Return the rows by which the first of some jobs is judged."""
    kept: list[Rows] = []

    def judge(done: Sequence[Job], logits: Rows) -> list[sqs.Verdict | None]:
        parts = np.split(logits, np.cumsum([job.wanted for job in done]))
        pairs = zip(done, parts, strict=False)
        kept.extend(part.copy() for job, part in pairs if job is jobs[0])
        return verify_jobs(done, logits)

    with mock.patch("sqs_codec.system.llama_cpp._cloud.verify_jobs", judge):
        cloud.verify(jobs)
    return kept[0]


def read(cloud: Cloud, texts: Texts, part: int, *groups: Sequence[int]) -> None:
    """Forget all, then read prompts in parts, those of a group side by side."""
    for i in range(SESSIONS):
        cloud.forget(bytes([i]))
    for group, end in itertools.product(groups, [*range(part, PROMPT, part), PROMPT]):
        cloud.verify([replace(draw(i, texts[i][:end]), key=None) for i in group])


def shaped(
    cloud: Cloud, texts: Texts, at_once: int, sessions: int, part: int, place: int
) -> Rows:
    """Return the last rows of the first text, computed in a shape."""
    order = [*range(1, place + 1), 0, *range(place + 1, sessions)]
    idle = [i for i in order if i >= sessions]
    read(cloud, texts, part, idle, [i for i in order if i < sessions])
    rows = []
    for at in range(PROMPT, PROMPT + ROWS, at_once):
        end = min(at + at_once, PROMPT + ROWS) - 1
        jobs = [draw(i, texts[i][:at], texts[i][at:end]) for i in range(sessions)]
        rows.append(rows_of(cloud, jobs))
    return np.concatenate(rows)


def compare(cloud: Cloud, texts: Texts, names: Sequence[str]) -> list[float]:
    """Return how far rows are apart by what differs, and how much leads change."""
    base, apart, changes = shaped(cloud, texts, 1, 1, PROMPT, 0), [], []
    for name in names:
        found = np.stack([shaped(cloud, texts, *shape) for shape in SHAPES[name]])
        probs = softmax(found, TEMPERATURE) - softmax(base, TEMPERATURE)
        apart.append(float(np.abs(probs).sum(-1).max() / 2))
        changes.append(float(np.ptp(found - base, axis=-1).max() / TEMPERATURE))
    return [*apart, max(changes)]


def differ(cloud: Cloud, texts: Texts, length: int) -> tuple[list[list[float]], float]:
    """Return the margins of each text's tokens that are others with hints.

    And what a token alone takes of the processor's time.
    """
    took = []
    read(cloud, texts, PROMPT)  # nothing: each is read at once by its first job
    written = [[*text] for text in texts]
    drawn: dict[tuple[int, int], dict[int, float]] = {}
    for (i, text), _ in itertools.product(enumerate(written), range(length)):
        began = time.process_time()
        [row] = rows_of(cloud, [draw(i, text)])
        took.append(time.process_time() - began)
        given = row, bytes([i] * 16), len(text), 8
        found = sqs.gumbel_guess(*given, temperature=TEMPERATURE)
        drawn[i, len(text)] = dict(
            zip(found.tokens, np.log(found.chances), strict=True)
        )
        text.append(found.tokens[0])
    read(cloud, texts, PROMPT // 2, range(SESSIONS))
    rng, at, last = np.random.default_rng(0), PROMPT + ROWS, len(written[0]) - 1
    margins: list[list[float]] = [[] for _ in texts]
    while at <= last:
        end = min(at + int(rng.integers(ROWS)), last)
        jobs = [draw(i, text[:at], text[at:end]) for i, text in enumerate(written)]
        for i, verdict in enumerate(cloud.verify(jobs)):
            assert verdict
            place = at + verdict.accepted
            if verdict.token != written[i][place]:
                leads = drawn[i, place]
                margins[i].append(max(leads.values()) - leads[verdict.token])
        at = end + 1
    return margins, float(np.median(took))
