"""Show the effect of rounding on logits, in float32 and in 16 bits.

    python -m benchmarks.rounding                     # a minute

Three texts of random tokens are prefilled in one batch, in chunks. One forward pass
then takes six more tokens of each, like a round. The logits are compared with the
logits of single texts, with and without a KV cache. The difference of these two is the
baseline for the effect of rounding.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from rich.console import Console

from benchmarks.pair import smollm2_pair
from benchmarks.tables import about, about_line, command, dim, table
from sqs_codec.cli.options import DROP_LAYERS
from sqs_codec.system._base.kinds import DEVICES, DTYPES
from sqs_codec.system._caching import TextPiece
from sqs_codec.system.hf import CachedModel
from sqs_codec.system.hf._ragged import Cache, RaggedModel

LENGTHS = (3, 60, 700)
ROUND, CHUNK = 6, 256
PAIRS = ("ours, cached", "ours, again", "cached, again")


def compare(model: Any, lengths: Sequence[int]) -> list[tuple[int, list[float]]]:
    """Return each text's length and errors, in the order of `PAIRS`."""
    vocab_size = int(model.get_output_embeddings().weight.shape[0])
    rng = np.random.default_rng(0)
    texts = [rng.integers(vocab_size, size=n + ROUND).tolist() for n in lengths]
    found = []
    for text, ours in zip(texts, side_by_side(model, vocab_size, texts), strict=True):
        alone = CachedModel(model, vocab_size)
        alone.logits(text[:-ROUND])
        own = [
            one.logits(text, ROUND) for one in (alone, CachedModel(model, vocab_size))
        ]
        rows = [x.double().softmax(-1) for x in (ours, *map(torch.from_numpy, own))]
        errors = [
            float((rows[i] - rows[j]).abs().sum(-1).max() / 2)
            for i, j in ((0, 1), (0, 2), (1, 2))
        ]
        found.append((len(text) - ROUND, errors))
    return found


def side_by_side(
    model: Any, vocab_size: int, texts: list[list[int]]
) -> tuple[torch.Tensor, ...]:
    """Return the last rows of texts in one batch."""
    ragged = RaggedModel(model, vocab_size)
    caches = [Cache() for _ in texts]
    for cache, text in zip(caches, texts, strict=True):
        cache.grow(ragged.layout, len(text))
    for start in range(0, max(map(len, texts)) - ROUND, CHUNK):
        parts = [text[:-ROUND][start : start + CHUNK] for text in texts]
        some = [(c, part) for c, part in zip(caches, parts, strict=True) if part]
        ragged.read([TextPiece(c, part, 0) for c, part in some])
    rows = ragged.read(
        [TextPiece(c, t[-ROUND:], ROUND) for c, t in zip(caches, texts, strict=True)]
    )
    return torch.split(rows.cpu(), ROUND)


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = command("rounding", __doc__, lengths=[3, 20])
    add = parser.add_argument
    add("--gguf", type=Path, help="a model instead of SmolLM2")
    add("--device", choices=DEVICES[1:], default="cpu")
    add("--dtype", choices=DTYPES[1:], nargs="+", default=["float32", "bfloat16"])
    add("--lengths", type=int, nargs="+", default=LENGTHS, metavar="TOKENS")
    args = parser.parse_args(argv)
    if args.gguf is None:
        model = smollm2_pair(DROP_LAYERS).target
    else:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            str(args.gguf.parent), gguf_file=args.gguf.name, local_files_only=True
        ).eval()
    rows = table("Worst total variation of rows", "type, tokens", *PAIRS)
    for name in args.dtype:
        model.to(args.device, getattr(torch, name))
        for length, errors in compare(model, args.lengths):
            rows.add_row(f"{name}, {length}", *(f"{error:.1e}" for error in errors))
    Console().print(rows, dim(about_line(about("torch", "transformers"))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
