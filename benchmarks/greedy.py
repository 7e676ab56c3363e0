"""Compare text at temperature 0, written token by token and by speculative decoding.

    python -m benchmarks.greedy                     # some minutes

Every way takes the target's most probable token, so in exact arithmetic all texts are
the same. How many tokens are read at once changes the rounding of their logits, and in
bfloat16 the most probable token with it, now and then. SmolLM2 writes alone, with
transformers' assisted generation, and with this package's rounds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console

import sqs_codec as sqs
from benchmarks.tables import about, about_line, dim, table
from sqs_codec.cli.demo.run import own_prompts
from sqs_codec.hf._models import CachedModel, Pair, smollm2_pair
from sqs_codec.torch import verify

LENGTH = 5
"""Drafted tokens of a round."""

Way = Callable[[Pair, list[int], int], list[int]]


def alone(pair: Pair, prompt: list[int], tokens: int) -> list[int]:
    """Write by the target, one token at a time."""
    return _generate(pair, prompt, tokens)


def assisted(pair: Pair, prompt: list[int], tokens: int) -> list[int]:
    """Write by transformers' assisted generation."""
    return _generate(pair, prompt, tokens, assistant_model=pair.draft)


def rounds(pair: Pair, prompt: list[int], tokens: int) -> list[int]:
    """Write by rounds of `LENGTH`, as `verify` judges them."""
    draft, target = (
        CachedModel(model, pair.vocab_size) for model in (pair.draft, pair.target)
    )
    codec = sqs.Codec(pair.vocab_size, resolution=1)
    edge = sqs.Drafter(
        codec, sqs.TopK(1), rng=np.random.default_rng(0), max_tokens=LENGTH
    )
    text = list(prompt)
    while len(text) < len(prompt) + tokens and pair.stop.isdisjoint(
        text[len(prompt) :]
    ):
        for _ in range(LENGTH):
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
    given = torch.tensor([prompt])
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


def main(argv: list[str] | None = None) -> None:
    """Print how many texts are those of the target alone."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--prompts", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=64, help="(default: %(default)s)")
    args = parser.parse_args(argv)
    began = time.monotonic()
    pair = smollm2_pair(2)
    prompts = [pair.encode(text) for text in own_prompts()[: args.prompts]]
    made = table("Texts equal to the target's alone, temperature 0", "", *WAYS)
    for dtype in (torch.float32, torch.bfloat16):
        pair.target.to(dtype)  # and the draft, which shares its weights
        texts = [alone(pair, prompt, args.tokens) for prompt in prompts]
        same = [
            sum(
                way(pair, prompt, args.tokens) == text
                for prompt, text in zip(prompts, texts, strict=True)
            )
            for way in WAYS.values()
        ]
        name = str(dtype).removeprefix("torch.")
        made.add_row(name, *(f"{count} of {len(prompts)}" for count in same))
    measured = {**about("torch", "transformers"), "seconds": time.monotonic() - began}
    Console().print(made, dim(f"{args.tokens} tokens at most; {about_line(measured)}"))


if __name__ == "__main__":
    main()
