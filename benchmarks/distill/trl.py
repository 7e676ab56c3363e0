"""Train SmolLM2 by TRL from the server of a stored teacher, and by a loop of one's own.

    make .venv-trl/packages
    .venv-trl/bin/python -m benchmarks.distill.trl    # 5 minutes on a core

The student is the teacher with each fifth of its layers alone. Both ways take the same
texts of 64 tokens in the same order, AdamW and float32. TRL's loss lacks the entropy of
the stored rows, which is computed and added.
"""

import os
import sys
import tempfile
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from benchmarks.distill.serving import serving
from benchmarks.tables import about, about_line, command, dim, table
from sqs_codec import Codec, Prior, distill
from sqs_codec.system.hf import LanguageModel, ModelReader, load_model
from sqs_codec.system.hf._models import without_layers
from sqs_codec.torch import distillation_loss

LENGTH, RESOLUTION, RATE = 64, 50, 1e-4
DOCS = Path(__file__).parents[2] / "docs"


def main(argv: list[str] | None = None) -> int:
    """Print the losses of both."""
    parser = command("distill.trl", __doc__, steps=2)
    parser.add_argument("--steps", type=int, default=100)
    args = parser.parse_args(argv)
    teacher = load_model(None)
    dropped = [i for i in range(len(teacher.model.model.layers)) if i % 5]
    student = without_layers(teacher.model, dropped)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "teacher.parquet")
        make(path, teacher, args.steps)
        data = distill.open(path)
        ours, entropies = own_loop(data, deepcopy(student))
        with serving(path) as url:
            theirs = by_trl(data, deepcopy(student), teacher.tokenizer, url, folder)
    apart = np.abs(np.add(theirs, entropies) - ours)
    shown = table("Losses", "step", "TRL", "+ entropy", "ours", "apart")
    for i in sorted({*range(0, len(ours), 10), len(ours) - 1}):
        losses = theirs[i], theirs[i] + entropies[i], ours[i]
        shown.add_row(f"{i + 1}", *(f"{x:.5f}" for x in losses), f"{apart[i]:.1e}")
    worst = f"At most {apart.max():.1e} apart in {len(apart)} steps."
    words = about_line(about("torch", "transformers", "trl"))
    Console().print(shown, worst, dim(words), sep="\n")
    return 0


def make(path: Path, teacher: LanguageModel, count: int) -> None:
    """Let SmolLM2 read pieces of the documentation, each of so many tokens."""
    text = "\n".join(p.read_text("utf-8") for p in sorted(DOCS.rglob("*.md")))
    tokens = teacher.tokenizer(text, verbose=False)["input_ids"][: count * LENGTH]
    codec = Codec(teacher.vocab_size, RESOLUTION, prior=Prior.builtin("smollm2"))
    pieces = (
        distill.Piece(tokens[i : i + LENGTH], range(LENGTH - 1))
        for i in range(0, len(tokens), LENGTH)
    )
    distill.make(path, codec, ModelReader(teacher), pieces)


def own_loop(data: distill.Dataset, student: Any) -> tuple[list[float], list[float]]:
    """Return our losses, and the entropies of the rows, of each step."""
    optimizer = torch.optim.AdamW(student.parameters(), lr=RATE, weight_decay=0.0)
    losses, entropies = [], []
    for text in data:
        batch = distill.collate([text])
        logits = student(batch.tokens, attention_mask=batch.attention_mask).logits
        loss = distillation_loss(logits, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        p = batch.counts.double() / batch.resolution
        entropies.append(float(-(p * p.log()).sum() / len(batch.places)))
    return losses, entropies


def by_trl(
    data: distill.Dataset, student: Any, tokenizer: Any, url: str, folder: str
) -> list[float]:
    """Return the losses that TRL logs."""
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    from trl.experimental.server_distillation import ServerDistillationConfig
    from trl.generation import vllm_client

    from sqs_codec.trainers.trl import StoredDistillationTrainer, as_completions

    # The client refuses to be without vLLM, of which it uses nothing here.
    vllm_client.is_vllm_available = lambda *_, **__: True
    options: dict[str, Any] = {
        "num_train_epochs": 1,
        "beta": 0.0,
        "loss_top_k": RESOLUTION,
        "per_device_train_batch_size": 1,
        "shuffle_dataset": False,
        "optim": "adamw_torch",
        "learning_rate": RATE,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "bf16": False,
        "activation_checkpointing": False,
        "use_cpu": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    config = ServerDistillationConfig(folder, teacher_model_server_url=url, **options)
    student.is_quantized = False  # its file was, its weights in memory aren't
    trainer = StoredDistillationTrainer(
        student, config, train_dataset=as_completions(data), processing_class=tokenizer
    )
    trainer.train()
    return [step["loss"] for step in trainer.state.log_history if "loss" in step]


if __name__ == "__main__":
    sys.exit(main())
