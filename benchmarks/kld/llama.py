"""Compare with llama-perplexity: its base file, its tables and ours, and dense sums.

    python -m benchmarks.kld.llama --tools BIN f16.gguf q8_0.gguf q4_k_m.gguf ...

The first model is the original. ``llama-perplexity``, in the folder BIN, makes a base
file of it and compares the others with that; so do we, by a reference that is made of
the same base file and measured by llama-cpp-python, whose sdist has the sources of
both (docs/distill/kld.md says how to build it). Both read a context of 512 tokens at a
time. Dense sums are of all logits in float64, as llama-cpp-python gives them. Errors
are one standard deviation: of the text, over rows in llama-perplexity and over contexts
here, and of the reference.
"""

import re
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

import sqs_codec as sqs
from benchmarks.kld.rounded import divergences, manual
from benchmarks.tables import about, about_line, command, dim, table
from sqs_codec import distill
from sqs_codec.distill._base_file import BaseFile
from sqs_codec.distill._header import EXTRAS
from sqs_codec.distill._make import Piece

FIGURE = re.compile(r"^(.+?)\s*: +(-?[0-9.]+) ± +([0-9.]+)", re.MULTILINE)


def logits_of(reader: distill.Reader, piece: Piece) -> NDArray[np.float32]:
    """Return the logits at a context's places."""
    places = np.array(piece.places)
    text: Any = SimpleNamespace(tokens=piece.tokens, places=places, batch=0)
    return np.concatenate([logits.copy() for _, logits in reader.read([text])])


def perplexity(args: Any, model: Path, *more: object) -> dict[str, tuple[float, float]]:
    """Run llama-perplexity, and return the figures of its table with their errors."""
    sizes = "-c", args.size, "-b", args.size, "-ub", args.size, "-t", args.threads
    tool = args.tools / "llama-perplexity"
    given = map(str, (tool, "-m", model, *sizes, *more))
    ran = subprocess.run([*given], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise RuntimeError(f"{tool} failed: {ran.stderr[-1000:]}")
    found = FIGURE.findall(ran.stdout + ran.stderr)
    return {" ".join(name.split()): (float(x), float(e)) for name, x, e in found}


def main() -> None:
    """Compare, and print."""
    parser = command("kld.llama", __doc__, contexts=2, size=64)
    add = parser.add_argument
    add("--tools", type=Path, required=True, help="folder of llama-perplexity")
    add("--text", type=Path, help="default: the language reference of Python's help")
    add("--contexts", type=int, default=11)
    add("--size", type=int, default=512, help="tokens per context")
    add("--resolution", type=int, default=32)
    add("--threads", type=int, default=2)
    add("models", type=Path, nargs="+")
    args = parser.parse_args()
    console = Console()
    with TemporaryDirectory() as name:
        folder = Path(name)
        text = args.text or folder / "text"
        if args.text is None:
            text.write_text(manual(), "utf-8")
        compare(args, text, folder, console)
    console.print(dim(about_line(about("llama_cpp_python"))))


def compare(args: Any, text: Path, folder: Path, console: Console) -> None:
    """Print tables of all models."""
    from sqs_codec.system.llama_cpp import ModelReader

    base, path = folder / "base.kld", folder / "ref.parquet"
    original, *others = args.models
    chunks = "-f", text, "--chunks", args.contexts
    perplexity(args, original, *chunks, "--kl-divergence-base", base)
    theirs = {
        model: perplexity(args, model, "--kl-divergence-base", base, "--kl-divergence")
        for model in others
    }
    first = ModelReader(original, threads=args.threads)
    file, size = BaseFile(base, first.tokenizer), first.tokenizer.vocab_size
    prior = sqs.Prior.builtin("gemma3" if size > 1 << 17 else "smollm2")
    codec = sqs.Codec(size, args.resolution, prior=prior)
    pieces = file.contexts()
    distill.make(path, codec, file, pieces, extras=(*EXTRAS,))
    data = distill.load(path)
    sizes = data.sizes()
    console.print(
        f"{original.name}: {sizes.distributions} rows, base file "
        f"{base.stat().st_size} bytes, reference {sizes.file_bytes} bytes, "
        f"{sizes.file_bytes / sizes.distributions:.1f} a row"
    )
    rows = table("mean KLD", *MEANS)
    more = table("ours over llama-perplexity's", *OTHERS)
    originals = [logits_of(first, piece) for piece in pieces]
    for model in others:
        reader = ModelReader(model, threads=args.threads)
        pairs = zip(originals, pieces, strict=True)
        truths = [divergences(p, logits_of(reader, piece)) for p, piece in pairs]
        found, kind = distill.measure(data, reader), model.stem.partition("-")[2]
        told, told_error = theirs[model]["Mean KLD"]
        ours = found.mean
        rows.add_row(
            kind,
            *(f"{x:.5f}" for x in (told, told_error, *ours, np.mean(truths))),
            f"{(ours.value - told) / ours.reference:+.1f}",
            f"{ours.reference / ours.text:.2f}",
        )
        figures = (
            (found.perplexity, "Mean PPL(Q)", 1),
            (found.reference_perplexity, "Mean PPL(base)", 1),
            (found.rms_difference, "RMS Δp", 100),
            (found.same_likeliest, "Same top p", 100),
        )
        ratios = (scale * own.value / theirs[model][x][0] for own, x, scale in figures)
        more.add_row(kind, *(f"{x:.4f}" for x in ratios))
    console.print(rows)
    console.print(more)


MEANS = "model", "theirs", "text", "ours", "text", "ref", "dense", "off", "ref/text"
OTHERS = "model", "PPL", "PPL(base)", "RMS Δp", "same top"

if __name__ == "__main__":
    main()
