"""The command ``sqs prior``: make a prior, and say what it saves."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import sqs_codec as sqs
from sqs_codec._base.format import MAX_PRIOR_CLASSES, MAX_VOCAB, MIN_VOCAB
from sqs_codec._base.words import shown
from sqs_codec.cli.bits import open_logits, quantize_row
from sqs_codec.cli.options import (
    add_resolution,
    add_temperature,
    check_folder,
    has_packages,
    number,
    read_text,
)
from sqs_codec.system._base.hub import ask_hub

DESCRIPTION = """\
Makes a prior: what both ends agree on about how frequent the ids of a tokenizer
are. It is fitted to text, to logits of the draft model, or to both. Logits gain
more, as they show which tokens are likely together. Each file's last fifth is
held out first, to say what the prior saves; the prior that is written is fitted
to all.
"""

EXAMPLES = """\
examples:
  sqs prior --drafts logits.npy -o my.sqsprior
  sqs prior --tokenizer tokenizer.json book.txt mails.txt -o my.sqsprior
then, at both ends:
  codec = sqs.Codec(vocab_size, prior=sqs.Prior.load("my.sqsprior"))
"""

HELD_OUT = 5
"""The last of so many parts of each file is held out."""

TOKENIZER = "tokenizer.json"

LINES = 10_000
"""Lines that are tokenized at once: a tokenizer takes 50 bytes for each of text."""


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add = parser.add_argument
    add("texts", type=Path, nargs="*", metavar="TEXT", help="files of UTF-8 to count")
    add(
        "--tokenizer",
        metavar="FILE_OR_NAME",
        help="a tokenizer.json, a folder that has one or a name on the Hugging Face "
        "hub; needed for texts",
    )
    add(
        "--drafts",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="the draft model's logits, .npy files of floats of shape [N, V], each in "
        "the order of its text",
    )
    add("-o", "--output", type=Path, required=True, metavar="FILE", help="the prior")
    add(
        "--vocab-size",
        type=number(int, MIN_VOCAB, MAX_VOCAB),
        metavar="V",
        help="of the logits (default: that of the drafts, or else the tokenizer's)",
    )
    add(
        "--classes",
        type=number(int, 1, MAX_PRIOR_CLASSES),
        metavar="C",
        help=f"classes of contexts to tell apart by drafts, 1 to {MAX_PRIOR_CLASSES} "
        "(default: chosen on held-out rows)",
    )
    add_temperature(add, "of the drafts' distributions", least=1e-3)
    add(
        "--top-k",
        type=number(int, 1),
        default=64,
        metavar="K",
        help="tokens kept of each distribution (default: %(default)s)",
    )
    add_resolution(add)
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Run the command, and return its exit status."""
    if args.tokenizer and not has_packages(
        "prior --tokenizer", ["tokenizers"], extra="prior"
    ):
        return 1
    for line in make(args):
        print(line, flush=True)
    return 0


def make(args: argparse.Namespace) -> Iterator[str]:
    """Make the prior and write it; yield what there is to say.

    Raises
    ------
    OSError
        A file can't be read or written.
    ValueError
        A file holds something else, or the options don't go together.
    """
    if not args.texts and not args.drafts:
        raise ValueError("nothing to count: give texts, --drafts or both")
    if args.texts and not args.tokenizer:
        raise ValueError("texts need a --tokenizer")
    if args.classes and not args.drafts:
        raise ValueError("--classes needs --drafts: a text alone has one class")
    check_folder(args.output)
    logits = [open_logits(path) for path in args.drafts]
    vocab_size = args.vocab_size
    for path, rows in zip(args.drafts, logits, strict=True):
        vocab_size = vocab_size or rows.shape[1]
        if rows.shape[1] != vocab_size:
            raise ValueError(
                f"{path} has logits of {rows.shape[1]} tokens, not {vocab_size}"
            )
        if args.top_k > vocab_size:
            raise ValueError(
                f"--top-k must be up to {vocab_size}, as logits have, not {args.top_k}"
            )
    texts: list[NDArray[np.uint32]] = []
    if args.texts:
        tokenizer = load_tokenizer(str(args.tokenizer))
        vocab_size = vocab_size or tokenizer.get_vocab_size()
        texts = [read_tokens(tokenizer, path, vocab_size) for path in args.texts]
        yield f"{sum(map(len, texts))} tokens of text"
    assert vocab_size is not None
    codec = sqs.Codec(vocab_size, args.resolution)
    drafts = [
        quantize(codec, path, rows, args)
        for path, rows in zip(args.drafts, logits, strict=True)
    ]
    if drafts:
        yield f"{sum(map(len, drafts))} rows of drafts"
    yield from report(codec, texts, drafts, args)
    prior = fit(vocab_size, texts, drafts, args.classes)
    prior.save(args.output)
    yield (
        f"{shown(str(args.output))}: V = {vocab_size}, classes: {prior.classes}, "
        f"{len(prior.to_bytes())} bytes, digest {prior.digest.hex()}; fitted to all "
        "rows and texts"
    )


def load_tokenizer(name: str) -> Any:
    """Return the ``tokenizers.Tokenizer`` of a file, a folder or the hub."""
    from tokenizers import Tokenizer

    path = Path(name)
    if path.is_dir():
        path = path / TOKENIZER
    try:
        if path.exists() or path.suffix == ".json":
            return Tokenizer.from_file(str(path))
        ask_hub(name, TOKENIZER)
        return Tokenizer.from_pretrained(name)
    except Exception as error:  # the library raises nothing more precise
        reason = " ".join(str(error).split())
        raise ValueError(f"cannot load the tokenizer {name}: {reason}") from error


def read_tokens(tokenizer: Any, path: Path, vocab_size: int) -> NDArray[np.uint32]:
    """Return the tokens of a text."""
    text = read_text(path)
    # Line by line, as some tokenizers take time quadratic in the length of a text.
    lines = text.splitlines(keepends=True)
    found = [np.empty(0, np.uint32)]
    for start in range(0, len(lines), LINES):
        part = lines[start : start + LINES]
        try:
            encoded = tokenizer.encode_batch(part, add_special_tokens=False)
        except Exception as error:  # the library raises nothing more precise
            raise ValueError(f"{path}: the tokenizer fails: {error}") from error
        found += [np.array(line.ids, np.uint32) for line in encoded]
    tokens = np.concatenate(found)
    if not tokens.size:
        raise ValueError(f"{path} has no tokens")
    if tokens.max() >= vocab_size:
        raise ValueError(
            f"{path}: the tokenizer gives id {tokens.max()}, which a vocabulary of "
            f"{vocab_size} hasn't"
        )
    return tokens


def quantize(
    codec: sqs.Codec, path: Path, logits: NDArray[np.floating], args: argparse.Namespace
) -> list[sqs.SparseDistribution]:
    """Return the distributions of rows of logits; errors say of which file."""
    keep = sqs.TopK(args.top_k)
    return [
        quantize_row(codec, path, i, row, keep, args.temperature)
        for i, row in enumerate(logits)
    ]


def fit(
    vocab_size: int,
    texts: Iterable[NDArray[np.uint32]],
    drafts: Iterable[Sequence[sqs.SparseDistribution]],
    classes: int | None,
) -> sqs.Prior:
    """Return the prior of texts, drafts or both."""
    parts = list(texts)
    counts = None
    if parts:
        counts = np.bincount(np.concatenate(parts), minlength=vocab_size)
    rows = [q for part in drafts for q in part]
    if rows:
        return sqs.Prior.fit(rows, counts, classes=classes)
    assert counts is not None
    return sqs.Prior.from_counts(counts)


def report(
    codec: sqs.Codec,
    texts: Sequence[NDArray[np.uint32]],
    drafts: Sequence[Sequence[sqs.SparseDistribution]],
    args: argparse.Namespace,
) -> Iterator[str]:
    """Say what a prior saves on the last part of each file, fitted to the others."""
    held = [part[-(len(part) // HELD_OUT) or len(part) :] for part in drafts]
    tokens = [part[-(len(part) // HELD_OUT) or len(part) :] for part in texts]
    fitted = fit(
        codec.vocab_size,
        [part[: len(part) - len(out)] for part, out in zip(texts, tokens, strict=True)],
        [part[: len(part) - len(out)] for part, out in zip(drafts, held, strict=True)],
        args.classes,
    )
    if any(held):
        rows = [q for part in held for q in part]
        yield (
            f"bits of a distribution, mean of {len(rows)} held-out rows "
            f"(TopK({args.top_k}), resolution {args.resolution}, temperature "
            f"{args.temperature}):"
        )
        with_prior = sqs.Codec(codec.vocab_size, codec.resolution, prior=fitted)
        yield compare(*(mean_bits(c, rows) for c in (codec, with_prior)))
    elif any(map(len, tokens)):
        yield (
            f"bits of a token by itself, mean of {sum(map(len, tokens))} held-out "
            "tokens:"
        )
        # Of resolution 1, so that counts take nothing.
        codecs = (sqs.Codec(codec.vocab_size, 1, prior=p) for p in (None, fitted))
        yield compare(*(mean_id_bits(c, tokens) for c in codecs))
    else:
        yield f"too little to hold any out: fewer than {HELD_OUT} rows or tokens a file"


def compare(without: float, with_prior: float) -> str:
    """Return the line that compares two means."""
    ratio = with_prior / without
    return f"  without a prior {without:.1f}, with it {with_prior:.1f}: {ratio:.3f}"


def mean_bits(codec: sqs.Codec, rows: Sequence[sqs.SparseDistribution]) -> float:
    """Return the mean bits of a distribution."""
    return sum(codec.bits(q) for q in rows) / len(rows)


def mean_id_bits(codec: sqs.Codec, texts: Iterable[NDArray[np.uint32]]) -> float:
    """Return the mean bits of a token, as the one token of a distribution."""
    tokens, numbers = np.unique(np.concatenate([*texts]), return_counts=True)
    vocab_size = codec.vocab_size
    bits = [
        codec.bits(sqs.SparseDistribution([token], [codec.resolution], vocab_size))
        for token in tokens.tolist()
    ]
    return float(np.average(bits, weights=numbers))
