"""What of small drafts would be accepted, on answers of the target."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.experiments.estimate import ratio, shown
from benchmarks.rate.schemes import softmax
from benchmarks.sources import TEXT_TEMPERATURE, answer, read, read_prompts
from benchmarks.tables import dim, table
from sqs_codec.system import hf
from sqs_codec.system.small import Draft

TEMPERATURES = (0.3, 0.7, 1.0)
GUESSES = 4


def show(
    paths: Sequence[Path], target: str | None, prompts: Path, positions: int, most: int
) -> None:
    """Print what of drafts would be accepted, with intervals over answers."""
    model = hf.load_model(target)
    cached = partial(hf.CachedModel, model.model, model.vocab_size)
    rng = np.random.default_rng(0)
    asked = [
        hf.encode_prompt(model.tokenizer, text) for text in read_prompts(prompts)[:most]
    ]
    drafts = {path.name: Draft(path) for path in paths}
    sums: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    for prompt in asked:
        tokens = answer(cached, model, prompt, positions, rng)
        (rows,) = read(cached, [prompt], [tokens])
        for name, draft in drafts.items():
            sums[name].append(_judge(draft.twin(), prompt, tokens, rows))
    heads = [*(f"accepted, T = {t:g}" for t in TEMPERATURES), f"{GUESSES} guesses"]
    made = table("Small drafts", "", *sums)
    cells = defaultdict(list)
    for found in sums.values():
        *columns, n, seconds = np.array(found).T
        for head, column in zip(heads, columns, strict=True):
            cells[head].append(shown(ratio(column, n).as_json(), ".3f"))
        cells["ms a token"].append(f"{1e3 * seconds.sum() / n.sum():.2f}")
    for head, of_drafts in cells.items():
        made.add_row(head, *of_drafts)
    console = Console()
    console.print(made)
    console.print(
        dim(
            f"{len(asked)} answers of up to {positions} tokens, written at temperature "
            f"{TEXT_TEMPERATURE}, and intervals of 95 % over these. Guesses: the "
            "target's mass, at that temperature, of the draft's likeliest tokens."
        )
    )


def _judge(
    draft: Draft, prompt: list[int], tokens: list[int], rows: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return sums over an answer: accepted, guessed, tokens, seconds."""
    sums = np.zeros(len(TEMPERATURES) + 3)
    draft.logits(prompt)
    for i, row in enumerate(rows):
        began = time.perf_counter()
        own = draft.logits([*prompt, *tokens[:i]])[0]
        sums[-1] += time.perf_counter() - began
        for n, temperature in enumerate(TEMPERATURES):
            p, q = softmax(row, temperature), softmax(own, temperature)
            sums[n] += np.minimum(p, q).sum()
            if temperature == TEXT_TEMPERATURE:
                sums[-3] += p[np.argpartition(-own, GUESSES)[:GUESSES]].sum()
    sums[-2] = len(rows)
    return sums
