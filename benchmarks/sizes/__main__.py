"""Make small drafts for a target, and measure them.

    python -m benchmarks.sizes texts build/sizes --tokens 1000000      # some two hours
    python -m benchmarks.sizes train build/sizes/128.parquet --size 2.5M -o draft.npz
    python -m benchmarks.sizes measure draft.npz --prompts prompts.txt

texts: a chat model writes prompts and answers, and files have its distributions of the
answers, as `sqs distill make` would make them of these texts; Ctrl-C ends it, and the
same command goes on. train: a draft learns of files. measure: what of a draft would be
accepted. Without --target it is SmolLM2-135M-Instruct.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read by libraries as they load
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

from benchmarks.sizes import measure, texts, train
from benchmarks.sizes.student import SIZES, save
from sqs_codec.cli.options import MODEL, number


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    args = _parser().parse_args(argv)
    if args.part == "quick":
        return _quick()
    torch.set_num_threads(args.threads)
    if args.part == "texts":
        of = args.tokens, args.places, args.longest, args.seed
        texts.write(args.folder, args.target, *of)
    elif args.part == "train":
        student, model = train.train(
            args.files, args.target, args.size, args.minutes, args.epochs
        )
        save(student, model, args.output)
    else:
        measure.show(
            args.drafts, args.target, args.prompts, args.positions, args.answers
        )
    return 0


def _quick() -> int:
    """Run all parts in miniature, in a folder that is removed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draft, prompts = folder / "draft.npz", folder / "prompts.txt"
        prompts.write_text("Why is the sea salty?\n", "utf-8")
        main(["texts", name, "--tokens=1", "--places=2", "--longest=60"])
        made = [str(folder / "128.parquet"), "--size", "0.13M", "-o", str(draft)]
        main(["train", *made, "--epochs", "1"])
        return main(["measure", str(draft), "--prompts", str(prompts), "--positions=8"])


def _parser() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(
        prog="python -m benchmarks.sizes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts = whole.add_subparsers(dest="part", required=True)
    parts.add_parser("quick", help="all in miniature: does it run?")
    parser = parts.add_parser("texts")
    parser.add_argument("folder", type=Path)
    said = "of answers (default: %(default)s)"
    parser.add_argument("--tokens", **number(int, 1), default=1_000_000, help=said)
    said = "texts side by side (default: %(default)s)"
    parser.add_argument("--places", **number(int, 1), default=128, help=said)
    said = "of a text, in tokens (default: %(default)s)"
    parser.add_argument(
        "--longest", **number(int, 48), default=texts.LONGEST, help=said
    )
    parser.add_argument("--seed", **number(int, 0), default=0)
    _add_model(parser)
    parser = parts.add_parser("train")
    parser.add_argument("files", type=Path, nargs="+", help="of distributions")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--size", choices=SIZES, default="2.5M")
    said = "after which it ends (default: %(default)g)"
    parser.add_argument("--minutes", **number(float, 0), default=20.0, help=said)
    parser.add_argument("--epochs", **number(float, 0), default=8.0, help=said)
    _add_model(parser)
    parser = parts.add_parser("measure")
    parser.add_argument("drafts", type=Path, nargs="+", help="files of train")
    said = "prompts that the target answers, as of benchmarks.rate"
    parser.add_argument("--prompts", type=Path, required=True, help=said)
    said = "the longest answer (default: %(default)s)"
    said_answers = "how many (default: %(default)s)"
    parser.add_argument("--answers", **number(int, 1), default=40, help=said_answers)
    parser.add_argument("--positions", **number(int, 1), default=64, help=said)
    _add_model(parser)
    return whole


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", metavar="MODEL", help=MODEL)
    said = "of the models (default: all cores)"
    cores = os.cpu_count() or 1
    parser.add_argument("--threads", **number(int, 1), default=cores, help=said)


if __name__ == "__main__":
    sys.exit(main())
