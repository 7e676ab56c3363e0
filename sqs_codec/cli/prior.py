"""The command ``sqs prior``: make a prior, and measure what it saves."""

import argparse
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import sqs_codec as sqs
from sqs_codec import bits
from sqs_codec._base.format import MAX_PRIOR_CLASSES, MAX_VOCAB, MIN_VOCAB
from sqs_codec._base.words import shown
from sqs_codec.cli import options
from sqs_codec.cli.files import load_tokenizer, open_logits

DESCRIPTION = """\
Makes a prior: frequencies of a tokenizer's ids, which both ends need. It is fitted
to text, to logits of the draft model, or to both. Logits save more bits, because
they show which tokens are likely together. The command first holds out the last
fifth of each file to measure the saving, then fits the prior to everything.
"""

EXAMPLES = """\
examples:
  sqs prior --drafts logits.npy -o my.sqsprior
  sqs prior --tokenizer tokenizer.json book.txt mails.txt -o my.sqsprior
then, at both ends:
  codec = sqs.Codec(vocab_size, prior=sqs.Prior.load("my.sqsprior"))
"""

LINES = 10_000
"""Lines per call of the tokenizer, which needs 50 bytes of memory per byte of text."""


def fill(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    said = "UTF-8 text files to count tokens in"
    add("texts", type=Path, nargs="*", metavar="TEXT", help=said)
    options.add_tokenizer(add, "tokenizer, required for texts: {}")
    said = (
        "the draft model's logits: .npy files of floats with shape [N, V], in the "
        "order of the text"
    )
    add("--drafts", **options.FILE, nargs="+", default=[], help=said)
    add("-o", "--output", **options.FILE, required=True, help="prior to write")
    said = "vocabulary size (default: that of the drafts, else the tokenizer's)"
    add("--vocab-size", **options.number(int, MIN_VOCAB, MAX_VOCAB, "V"), help=said)
    add(
        "--classes",
        **options.number(int, 1, MAX_PRIOR_CLASSES, "C"),
        help=f"number of classes of contexts, 1 to {MAX_PRIOR_CLASSES}; needs --drafts "
        "(default: chosen on held-out rows)",
    )
    said = "temperature of the drafts' distributions"
    options.add_temperature(add, said, least=1e-3)
    said = "tokens kept per distribution"
    add("--top-k", **options.number(int, 1, metavar="K"), default=64, help=said)
    options.add_resolution(add)


def run(args: argparse.Namespace) -> int:
    if args.tokenizer and not options.has_packages("prior --tokenizer", "prior"):
        return 1
    if not args.texts and not args.drafts:
        raise ValueError("there is no input: give texts, --drafts or both")
    if args.texts and not args.tokenizer:
        raise ValueError("texts need --tokenizer")
    if args.classes and not args.drafts:
        raise ValueError("--classes needs --drafts: texts have one class")
    options.check_folder(args.output)
    logits = [open_logits(path) for path in args.drafts]
    vocab_size = args.vocab_size
    for path, array in zip(args.drafts, logits, strict=True):
        size = array.shape[1]
        vocab_size = vocab_size or size
        if size != vocab_size:
            raise ValueError(f"{path} has logits of {size} tokens, not {vocab_size}")
        if args.top_k > vocab_size:
            raise ValueError(
                f"--top-k must be at most {vocab_size}, the vocabulary size, "
                f"got {args.top_k}"
            )
    say = partial(print, flush=True)
    texts: list[NDArray[np.uint32]] = []
    if args.texts:
        tokenizer = load_tokenizer(str(args.tokenizer))
        vocab_size = vocab_size or tokenizer.get_vocab_size()
        texts = [read_tokens(tokenizer, path, vocab_size) for path in args.texts]
        say(f"{sum(map(len, texts))} tokens of text")
    codec = sqs.Codec(vocab_size, args.resolution)
    drafts = [
        quantize(codec, path, array, args)
        for path, array in zip(args.drafts, logits, strict=True)
    ]
    if drafts:
        say(f"{sum(map(len, drafts))} rows of drafts")
    saving = bits.prior_saving(vocab_size, drafts, texts, args.classes)
    say(report(saving, drafts, args))
    counts = np.bincount(np.concatenate(texts), minlength=vocab_size) if texts else None
    rows = [q for part in drafts for q in part]
    prior = sqs.Prior.fit(rows, counts, classes=args.classes)
    prior.save(args.output)
    say(
        f"{shown(str(args.output))}: V = {vocab_size}, classes: {prior.classes}, "
        f"{len(prior.to_bytes())} bytes, digest {prior.digest.hex()}; fitted to all "
        "rows and texts"
    )
    return 0


def read_tokens(tokenizer: Any, path: Path, vocab_size: int) -> NDArray[np.uint32]:
    text = options.read_text(path)
    # Line by line, as some tokenizers take quadratic time.
    lines = text.splitlines(keepends=True)
    found = [np.empty(0, np.uint32)]
    for start in range(0, len(lines), LINES):
        part = lines[start : start + LINES]
        try:
            encoded = tokenizer.encode_batch(part, add_special_tokens=False)
        except Exception as error:  # the library raises no other class
            raise ValueError(f"{path}: the tokenizer failed: {error}") from error
        found += [np.array(line.ids, np.uint32) for line in encoded]
    tokens = np.concatenate(found)
    if not tokens.size:
        raise ValueError(f"{path} has no tokens")
    if tokens.max() >= vocab_size:
        raise ValueError(
            f"{path}: the tokenizer gives id {tokens.max()}, outside the vocabulary of "
            f"{vocab_size}"
        )
    return tokens


def quantize(
    codec: sqs.Codec, path: Path, logits: NDArray[np.floating], args: argparse.Namespace
) -> list[sqs.SparseDistribution]:
    """Return the distributions of rows of logits; errors name the row."""
    keep, rows = sqs.TopK(args.top_k), []
    for i, row in enumerate(logits):
        try:
            rows.append(codec.quantize(row, keep, temperature=args.temperature))
        except ValueError as error:
            raise ValueError(f"{path}: row {i}: {error}") from error
    return rows


def report(
    saving: bits.Saving | None,
    drafts: Iterable[Sequence[object]],
    args: argparse.Namespace,
) -> str:
    """Return what a prior saves on the held-out part of each file."""
    if saving is None:
        few = bits.HELD_OUT
        return f"nothing was held out: files have fewer than {few} rows or tokens"
    what, of = "token", "tokens"
    if any(len(part) >= bits.HELD_OUT for part in drafts):
        what, of = "distribution", f"rows (TopK({args.top_k}), resolution "
        of += f"{args.resolution}, temperature {args.temperature})"
    return (
        f"bits per {what}, mean of {saving.held_out} held-out {of}:\n"
        f"  without a prior {saving.without:.1f}, with it {saving.with_prior:.1f}: "
        f"{saving.with_prior / saving.without:.3f}"
    )
