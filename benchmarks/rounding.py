"""Show what rounding does to rows and texts, in float32 and in bfloat16.

    python -m benchmarks.rounding                     # some minutes

**Rows.** Three texts of random tokens are read side by side, in chunks, and then six
tokens more of each at once, as a round. Their rows are held to those that the model
gives for one text alone: with its cache, and all anew. How far these two are from each
other says what rounding does to begin with.

**Texts at temperature 0.** Every way takes the target's most probable token, so in
exact arithmetic all texts are the same. How many tokens are read at once changes the
rounding of their logits, and in bfloat16 the most probable token with it, now and then.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from rich.console import Console

import sqs_codec as sqs
from benchmarks.tables import about, about_line, dim, table
from sqs_codec.cli.demo.run import own_prompts
from sqs_codec.cli.options import DROP_LAYERS
from sqs_codec.hf._models import CachedModel, Pair, smollm2_pair
from sqs_codec.hf._ragged import Cache, Piece, RaggedModel
from sqs_codec.torch import verify

LENGTHS = (3, 60, 700)
ROUND, CHUNK = 6, 256
DTYPES = (torch.float32, torch.bfloat16)
PAIRS = ("ours, cached", "ours, anew", "cached, anew")

DRAFTED = 5
"""Tokens of a round that writes."""


def compare(model: Any) -> list[tuple[int, list[float]]]:
    """Return a text's length and its errors, in the order of `PAIRS`."""
    vocab_size = int(model.get_output_embeddings().weight.shape[0])
    rng = np.random.default_rng(0)
    texts = [rng.integers(vocab_size, size=n + ROUND).tolist() for n in LENGTHS]
    found = []
    for text, ours in zip(texts, side_by_side(model, vocab_size, texts), strict=True):
        alone = CachedModel(model, vocab_size)
        alone.logits(text[:-ROUND])
        rows = [
            ours.double().softmax(-1),
            *(
                torch.from_numpy(one.logits(text, ROUND)).double().softmax(-1)
                for one in (alone, CachedModel(model, vocab_size))
            ),
        ]
        errors = [
            float((rows[i] - rows[j]).abs().sum(-1).max() / 2)
            for i, j in ((0, 1), (0, 2), (1, 2))
        ]
        found.append((len(text) - ROUND, errors))
    return found


def side_by_side(
    model: Any, vocab_size: int, texts: list[list[int]]
) -> tuple[torch.Tensor, ...]:
    """Return the last rows of texts that are read together."""
    ragged = RaggedModel(model, vocab_size)
    caches = [Cache() for _ in texts]
    for cache, text in zip(caches, texts, strict=True):
        cache.grow(ragged.layout, len(text))
    for start in range(0, max(LENGTHS), CHUNK):
        parts = [text[:-ROUND][start : start + CHUNK] for text in texts]
        ragged.read(
            [Piece(c, part, 0) for c, part in zip(caches, parts, strict=True) if part]
        )
    rows = ragged.read(
        [Piece(c, t[-ROUND:], ROUND) for c, t in zip(caches, texts, strict=True)]
    )
    return torch.split(rows.cpu(), ROUND)


Way = Callable[[Pair, list[int], int], list[int]]


def alone(pair: Pair, prompt: list[int], tokens: int) -> list[int]:
    """Write by the target, one token at a time."""
    return _generate(pair, prompt, tokens)


def assisted(pair: Pair, prompt: list[int], tokens: int) -> list[int]:
    """Write by transformers' assisted generation."""
    return _generate(pair, prompt, tokens, assistant_model=pair.draft)


def rounds(pair: Pair, prompt: list[int], tokens: int) -> list[int]:
    """Write by rounds of `DRAFTED`, as `verify` judges them."""
    draft, target = (
        CachedModel(model, pair.vocab_size) for model in (pair.draft, pair.target)
    )
    codec = sqs.Codec(pair.vocab_size, resolution=1)
    edge = sqs.Drafter(
        codec, sqs.TopK(1), rng=np.random.default_rng(0), max_tokens=DRAFTED
    )
    text = list(prompt)
    while len(text) < len(prompt) + tokens and pair.stop.isdisjoint(
        text[len(prompt) :]
    ):
        for _ in range(DRAFTED):
            edge.push(draft.logits([*text, *edge.tokens])[0], temperature=0)
        round_ = codec.decode_round(edge.finish())
        rows = target.logits([*text, *round_.tokens], len(round_) + 1)
        verdict = verify(round_, torch.from_numpy(rows), temperature=0)
        edge.feedback(verdict)
        text += [*round_.tokens[: verdict.accepted], verdict.token]
    return _ended(pair, text[len(prompt) :][:tokens])


def _generate(
    pair: Pair, prompt: list[int], tokens: int, **options: object
) -> list[int]:
    given = torch.tensor([prompt], device=pair.target.device)
    out = pair.target.generate(
        given,
        attention_mask=torch.ones_like(given),
        do_sample=False,
        max_new_tokens=tokens,
        **options,
    )
    return _ended(pair, out[0, len(prompt) :].tolist())


def _ended(pair: Pair, text: list[int]) -> list[int]:
    """Cut what comes after a stop token."""
    stops = [i for i, token in enumerate(text) if token in pair.stop]
    return text[: stops[0] + 1] if stops else text


WAYS: dict[str, Way] = {"assisted generation": assisted, "rounds": rounds}


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rounding",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--gguf", type=Path, help="the rows of another model than SmolLM2, no texts")
    add("--prompts", type=int, default=5, help="(default: %(default)s)")
    add("--tokens", type=int, default=64, help="of a text (default: %(default)s)")
    add("--device", default="cpu", help="cpu or cuda")
    args = parser.parse_args(argv)
    began = time.monotonic()
    pair = smollm2_pair(DROP_LAYERS)
    model = pair.target
    if args.gguf:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            str(args.gguf.parent), gguf_file=args.gguf.name, local_files_only=True
        ).eval()
    rows = table("Worst total variation of rows", "type, tokens", *PAIRS)
    texts = table("Texts equal to the target's alone, temperature 0", "", *WAYS)
    for dtype in DTYPES:
        model.to(args.device, dtype)  # and SmolLM2's draft, which shares its weights
        name = str(dtype).removeprefix("torch.")
        for length, errors in compare(model):
            rows.add_row(f"{name}, {length}", *(f"{error:.1e}" for error in errors))
        if not args.gguf:
            same = equal_texts(pair, args.prompts, args.tokens)
            texts.add_row(name, *(f"{n} of {args.prompts}" for n in same))
    measured = {**about("torch", "transformers"), "seconds": time.monotonic() - began}
    Console().print(rows, *([] if args.gguf else [texts]), dim(about_line(measured)))
    return 0


def equal_texts(pair: Pair, count: int, tokens: int) -> list[int]:
    """Return how many texts each way writes as the target does alone."""
    prompts = [pair.encode(text) for text in own_prompts()[:count]]
    texts = [alone(pair, prompt, tokens) for prompt in prompts]
    return [
        sum(
            way(pair, prompt, tokens) == text
            for prompt, text in zip(prompts, texts, strict=True)
        )
        for way in WAYS.values()
    ]


if __name__ == "__main__":
    sys.exit(main())
