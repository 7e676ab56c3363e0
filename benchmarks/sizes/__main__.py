"""Make small drafts for a target.

    python -m benchmarks.sizes texts build/sizes --tokens 1000000      # about two hours
    python -m benchmarks.sizes train build/sizes/128.parquet --size 1.3M -o draft.npz

texts: a chat model generates prompts and answers, and stores its distributions of the
answers, in the format of `sqs distill make`. Ctrl-C completes the file with the texts
so far; after any other end the same command continues. train: a draft learns from these
files, and its acceptance is printed. Without --target the model is
SmolLM2-135M-Instruct. `benchmarks.experiments sizes` measures drafts.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read by libraries as they load
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

from benchmarks.sizes import texts, train
from benchmarks.sizes.student import SIZES
from sqs_codec.cli.options import MODEL, number


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    options = vars(_parser().parse_args(argv))
    part = options.pop("part")
    if part == "quick":
        return _quick()
    torch.set_num_threads(options.pop("threads"))
    if part == "texts":
        texts.write(**options)
    else:
        train.train(**options)
    return 0


def _quick() -> int:
    """Run all parts in miniature, and measure the resulting draft."""
    from benchmarks.experiments import __main__ as experiments

    with tempfile.TemporaryDirectory() as folder:
        main(["texts", folder, "--tokens=1", "--places=2", "--longest=60"])
        draft = ["--size=0.13M", "--epochs=1", "-o", f"{folder}/smollm2-0.13M.npz"]
        main(["train", f"{folder}/128.parquet", *draft])
        results = ["--drafts", folder, "--folder", f"{folder}/results"]
        return experiments.main(["sizes", "--quick", *results])


def _parser() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(
        prog="python -m benchmarks.sizes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts = whole.add_subparsers(dest="part", required=True)
    parts.add_parser("quick", help="everything in miniature, as a test")
    add = parts.add_parser("texts").add_argument
    add("folder", type=Path)
    said = "total tokens of answers (default: %(default)s)"
    add("--tokens", **number(int, 1), default=1_000_000, help=said)
    said = "texts per batch (default: %(default)s)"
    add("--places", **number(int, 1), default=128, help=said)
    said = "maximum tokens per text (default: %(default)s)"
    add("--longest", **number(int, 48), default=512, help=said)
    add("--seed", **number(int, 0), default=0)
    add = parts.add_parser("train").add_argument
    add("files", type=Path, nargs="+", help="files of teacher logits")
    add("-o", "--output", type=Path, required=True)
    add("--size", choices=SIZES, default="1.3M")
    said = "maximum training time (default: %(default)g)"
    add("--minutes", **number(float, 0), default=20.0, help=said)
    said = "maximum passes over the data (default: %(default)g)"
    add("--epochs", **number(float, 0), default=8.0, help=said)
    for name in ("texts", "train"):
        add = parts.choices[name].add_argument
        add("--target", metavar="MODEL", help=MODEL)
        said, cores = "threads of models (default: all cores)", os.cpu_count() or 1
        add("--threads", **number(int, 1), default=cores, help=said)
    return whole


if __name__ == "__main__":
    sys.exit(main())
