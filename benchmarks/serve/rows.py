"""Compare the verifier's rows with those of transformers, one text at a time.

    python -m benchmarks.serve.rows --dtype bfloat16

Three texts of random tokens are read side by side, in chunks, and then six tokens more
of each at once, as a round. Their rows are held to those that the model gives for one
text alone: with its cache, and all anew. How far these two are from each other says
what rounding does to begin with.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from rich.console import Console

from benchmarks.tables import dim, table
from sqs_codec.cli.options import DROP_LAYERS
from sqs_codec.hf._models import CachedModel, smollm2_pair
from sqs_codec.hf._ragged import Cache, Piece, RaggedModel

LENGTHS = (3, 60, 700)
ROUND, CHUNK = 6, 256


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serve.rows",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--gguf", type=Path, help="another model than SmolLM2")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    args = parser.parse_args(argv)
    model = load(args.gguf).to(getattr(torch, args.dtype))
    made = table(f"Worst total variation, {args.dtype}", "tokens", *PAIRS)
    for length, errors in compare(model):
        made.add_row(str(length), *(f"{error:.1e}" for error in errors))
    Console().print(made, dim(f"{model.config.name_or_path}; seed 0"))
    return 0


PAIRS = ("ours, cached", "ours, anew", "cached, anew")


def load(gguf: Path | None) -> Any:
    """Return the model of a file, or SmolLM2."""
    if gguf is None:
        return smollm2_pair(DROP_LAYERS).target
    return transformers.AutoModelForCausalLM.from_pretrained(
        str(gguf.parent), gguf_file=gguf.name, local_files_only=True
    ).eval()


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
    return torch.split(rows, ROUND)


if __name__ == "__main__":
    sys.exit(main())
