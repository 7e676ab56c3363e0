"""Show how rows depend on what a text is read beside.

    python -m benchmarks.distill.shapes --dtype float32           # minutes; or another
    python -m benchmarks.distill.shapes --engine vllm             # by .venv-vllm

SmolLM2 reads paragraphs of this project's documentation: each alone, then beside
others, in short chunks, by transformers, and behind another one, as packed texts are.
The same random numbers round them, so it is the logits' last bits that tell rows apart.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console

import sqs_codec as sqs
from benchmarks.kld.reading import documentation
from benchmarks.tables import about, about_line, command, dim, table
from sqs_codec import distill
from sqs_codec.cli import reading
from sqs_codec.system.hf import ModelReader, load_model

Texts = Sequence[Sequence[int]]


def sample(tokenizer: Any, count: int) -> Texts:
    """Return the tokens of so many paragraphs of the documentation."""
    found = [text for text in documentation().split("\n\n") if len(text) > 40]
    return [tokenizer.encode(t) for t in found[:: len(found) // count][:count]]


def rows_of(
    reader: Any, texts: Texts, beside: int = 1, chunk: int = 512, end: int = -1
) -> list[sqs.SparseDistribution]:
    """Return rows of texts, so many read at once; maybe behind others and their end."""
    header, tasks = distill.Header(sqs.Codec(reader.vocab_size, 50)), []
    for i, text in enumerate(texts):
        first = [*texts[i - 1], end] if end >= 0 else []
        places = np.arange(len(text)) + len(first)
        own = [*first, *text], places, header, np.random.default_rng(i)
        tasks.append(distill.Counting(i, *own))
    reader._chunk = chunk if beside == 1 else 1 << 20
    for i in range(0, len(tasks), beside):
        reader.read(tasks[i : i + beside])
    return [row for task in tasks for row in task.rows()[0]]


def main() -> None:
    """Measure, and print."""
    parser = command("distill.shapes", __doc__, texts=2)
    parser.add_argument("--texts", type=int, default=40)
    reading.add_reading(parser.add_argument)
    args = parser.parse_args()
    with reading.open_reader(args, None) as own:
        reader: Any = own
        texts = sample(reader.tokenizer, args.texts)
        alone = rows_of(reader, texts)
        dtype = args.dtype or "float32"
        other = reader
        if args.engine == "vllm":
            other = ModelReader(load_model(None, device="cpu", dtype=dtype))
        ways = {
            "4 side by side": rows_of(reader, texts, 4),
            "16 side by side": rows_of(reader, texts, 16),
            "chunks of 16": rows_of(reader, texts, chunk=16),  # by transformers alone
            "transformers": rows_of(other, texts),
            "behind another": rows_of(reader, texts, end=reader.tokenizer.eos_token_id),
        }
    made = table(f"{len(alone)} rows, {dtype}", "", "other %", "their TV", "most")
    for name, rows in ways.items():
        both = [(x, y) for x, y in zip(alone, rows, strict=True) if x != y]
        tv = [abs(x.to_dense() - y.to_dense()).sum() / 2 for x, y in both] or [0]
        share = 100 * len(both) / len(alone)
        made.add_row(name, f"{share:.2f}", f"{np.mean(tv):.3f}", f"{max(tv):.2f}")
    console, sizes = Console(), [*map(len, texts)]
    console.print(made)
    for said, order in ("as they come", sizes), ("by length", sorted(sizes)):
        parts = [order[i : i + 16] for i in range(0, len(order), 16)]
        share = 100 - 100 * sum(sizes) / sum(len(part) * max(part) for part in parts)
        console.print(f"{share:.0f} % of batches of 16 texts {said} are padding")
    console.print(dim(about_line(about("torch", "transformers"))))


if __name__ == "__main__":
    main()
