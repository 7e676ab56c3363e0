"""The command ``sqs kld``: the KL divergence of quantized models."""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqs_codec as sqs
from sqs_codec._base.words import shown
from sqs_codec.cli import options, reading

if TYPE_CHECKING:
    from sqs_codec.distill import KLD, Estimate
    from sqs_codec.distill._make import Piece

CTX = 512  # default tokens per context, as in llama-perplexity

LEAST = 8  # smallest resolution whose errors can be estimated

FEW = 10
"""Fewer contexts than this get a warning: the text's error is then itself uncertain by
a quarter, 1 / sqrt(2 * 9), or more."""

DESCRIPTION = """\
Measures the Kullback-Leibler divergence (KLD) of quantized models from the original,
and the perplexity of both. The original reads a text once, and a file stores 30 to 40
bytes per distribution: the reference. Other models are measured against it.
"""

EXAMPLES = """\
examples:
  sqs kld make --model F16.gguf --texts wiki.test.raw -o ref.parquet
  sqs kld make --from base.kld --model F16.gguf -o ref.parquet
  sqs kld measure ref.parquet --model Q8_0.gguf Q4_K_M.gguf
"""

MAKE = """\
Makes a reference: runs the original over texts, cut into contexts as llama-perplexity
does, or converts a file from its --kl-divergence-base. To resume an interrupted run,
give the same command again.
"""

MEASURE = """\
Runs models over the texts of a reference, and prints llama-perplexity's table for
each. There are two errors: "text" is the error from the choice of text, "reference"
the error because the reference stores only a few bytes per distribution.
"""


shown_contexts = partial(reading.progress, unit=" contexts")
"""Wraps contexts in a progress bar."""


def fill(parser: argparse.ArgumentParser) -> None:
    options.add_commands(
        parser,
        ("make", "make a reference from the original", fill_make, make, MAKE),
        ("measure", "measure models against it", fill_measure, measure, MEASURE),
    )


def fill_make(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group(required=True).add_argument
    source("--texts", **options.FILE, nargs="+", help="text files, one text each")
    said = "file from llama-perplexity --kl-divergence-base, instead of texts"
    source("--from", **options.FILE, dest="base", help=said)
    add("-o", "--output", **options.FILE, required=True, help="reference to write")
    said = (
        f"the original: {reading.READ} (default: SmolLM2). With --from it is required, "
        "and only gives name and tokenizer"
    )
    add("--model", metavar="MODEL", help=said)
    reading.add_reading(add)
    said = f"tokens per context (default: {CTX}; with --from as in the file)"
    add("--ctx", **options.number(int, 4), help=said)
    said = "maximum number of contexts, as in llama-perplexity (default: all)"
    add("--chunks", **options.number(int, 1), help=said)
    options.add_resolution(add, default=32)
    options.add_prior(add)
    said = "seed of the rounding to counts"
    add("--seed", **options.number(int, 0, 2**32 - 1), default=0, help=said)


def make(args: argparse.Namespace) -> int:
    for name in options.given(args, "ctx", "chunks") if args.base else ():
        args.usage_error(f"--{name} needs --texts: a base file has its own contexts")
    if args.resolution < LEAST:
        args.usage_error(f"--resolution must be {LEAST} or more, to estimate errors")
    if args.base and not args.model:
        args.usage_error("--from needs --model: a base file doesn't name its tokenizer")
    if not reading.can_read(args, [args.model]):
        return 1
    options.check_folder(args.output)
    options.find_prior(args.prior)
    source = reading.digest(args.texts or [args.base])
    if args.chunks:
        source += f"; up to {args.chunks} contexts"
    from sqs_codec import distill
    from sqs_codec.distill._base_file import BaseFile
    from sqs_codec.distill._header import EXTRAS

    with reading.open_reader(args, args.model) as model, options.interrupts_raise():
        reader = model
        if args.base:
            reader = BaseFile(args.base, model.tokenizer)
        pieces = reader.contexts() if args.base else contexts(args, model)
        prior = options.find_prior(args.prior, model.tokenizer.fingerprint)
        distill.make(
            args.output,
            sqs.Codec(model.tokenizer.vocab_size, args.resolution, prior=prior),
            reader,
            shown_contexts(pieces),
            model=model.name,
            max_length=len(pieces[0].tokens),
            seed=args.seed,
            source=source,
            identity="" if args.base else reading.identity(args, args.model),
            extras=(*EXTRAS,),
        )
    reading.say(distill.load(args.output, prior=prior))
    return 0


def contexts(args: argparse.Namespace, reader: Any) -> list[Piece]:
    from sqs_codec.distill import _make

    size = args.ctx or CTX
    if size > reader.max_tokens:
        most = f"{reader.name} can read {reader.max_tokens} tokens"
        raise ValueError(f"{most}, a context has {size}: use a smaller --ctx")
    pieces: list[Piece] = []
    for path in args.texts:
        try:
            # llama-perplexity also drops the final newline.
            text = path.read_bytes().decode().removesuffix("\n")
            pieces += _make.contexts(reader, text, size)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8: {error}") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return pieces[: args.chunks]


def fill_measure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("reference", metavar="REF", type=Path, help="file from sqs kld make")
    said = f"models to measure: {reading.READ}"
    add("--model", metavar="MODEL", nargs="+", required=True, help=said)
    reading.add_reading(add)
    add("--json", action="store_true", help="print one JSON object per model and line")
    add("--prior", metavar="FILE", help="prior of the file's codec, unless built-in")


def measure(args: argparse.Namespace) -> int:
    if not reading.can_read(args, args.model):
        return 1
    from sqs_codec import distill
    from sqs_codec.distill._kld import require_reference

    data = distill.load(args.reference, prior=options.find_prior(args.prior))
    require_reference(data)
    for model in args.model:
        with reading.open_reader(args, model) as reader, options.interrupts_raise():
            try:
                found = distill.measure(data, reader, progress=shown_contexts)
            except ValueError as error:
                raise ValueError(f"{reader.name}: {error}") from error
        if args.json:
            names = {"model": model, "original": data.header.model}
            print(json.dumps(names | plain(vars(found)), allow_nan=False))
        else:
            name = f"{model} against {data.header.model}, from {args.reference}"
            print(f"{shown(name)}\n{table(found)}")
        sys.stdout.flush()
        if found.contexts < FEW:
            said = (
                f"the text's error is uncertain with {found.contexts} contexts: make a "
            )
            said += f"reference with {FEW} or more (a longer text or a smaller --ctx)"
            print(f"{args.called}: {said}", file=sys.stderr)
        if not found.is_trusted:
            said = f"{args.called}: {model}: {trust(found)}"
            print(shown(said, None), file=sys.stderr)
    return 0


def plain(value: Any) -> Any:
    """Return a value for JSON: null if unknown, "inf" for infinite numbers."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {str(name): plain(own) for name, own in value.items()}
    return [*map(plain, value)] if isinstance(value, tuple) else value


def table(k: KLD) -> str:
    """Return the results for a model, in the order and terms of llama-perplexity."""
    q, p, ratio = k.perplexity, k.reference_perplexity, k.log_ratio
    # Covariance of two means over the same contexts, from the error of their ratio.
    own, other, times = q.text / q.value, p.text / p.value, q.value / p.value
    both = (own * own + other * other - ratio.text * ratio.text) / 2
    together = both / (own * other) if own * other else math.nan
    apart = q.text * q.text + p.text * p.text - 2 * q.value * p.value * both
    mean = f"{_pair(*k.finite_mean)} text ± {k.finite_mean.reference:10.6f} reference"
    if k.infinite_rows:
        rows = f"{k.infinite_rows} rows, {k.nan_rows} of them with NaN"
        mean = f"       inf: of {rows}\n Others KLD: {mean}"
    divergences = "\n".join(
        f"{_percent(at)}KLD: {value:10.6f} ({noise:+.6f})"
        for at, (value, noise) in reversed(k.percentiles.items())
        if at not in (75, 25)  # llama-perplexity prints these only for Δp
    )
    differences = "\n".join(
        f"{_percent(at)}Δp: {100 * value:6.3f}%"
        for at, value in reversed(k.difference_percentiles.items())
    )
    said = f"""\
{k.rows} rows of {k.contexts} contexts

====== Perplexity statistics ======
Mean PPL(Q)                   : {_pair(*q)}
Mean PPL(base)                : {_pair(*p)}
Cor(ln(PPL(Q)), ln(PPL(base))): {100 * together:6.2f}%
Mean ln(PPL(Q)/PPL(base))     : {_pair(*ratio)}
Mean PPL(Q)/PPL(base)         : {_pair(times, times * ratio.text)}
Mean PPL(Q)-PPL(base)         : {_pair(q.value - p.value, max(apart, 0) ** 0.5)}

====== KL divergence statistics ======
Mean    KLD: {mean}
Control    : {_pair(k.control.value, k.control.reference)} reference: \
{trust(k)}
In parentheses: the part that is noise. Rows are estimates, so there is no maximum and \
no minimum.
{divergences}

====== Token probability statistics ======
Mean    Δp: {_share(k.mean_difference)}
{differences}
RMS Δp    : {_share(k.rms_difference)}
Same top p: {_share(k.same_likeliest)}
"""
    return re.sub(r" {0,3}\bnan\b", "unknown", said)


def trust(k: KLD) -> str:
    """Return whether the control allows to trust the KLD, and what to do if not."""
    from sqs_codec.distill._divergence import MOST_ERRORS

    value, error = abs(k.control.value), k.control.reference
    if k.is_trusted:
        near = f"within {MOST_ERRORS} standard errors of 0"
        return f"The KLD can be trusted: the control is {near}."
    why = "the model gives the reference's tokens too little probability"
    if value > MOST_ERRORS * error:
        off = f"{value / error:.1f}" if error else f"more than {MOST_ERRORS}"
        why = f"the control is {off} errors from 0"
    return f"{why}: don't trust the KLD; make a reference with a higher --resolution"


def _pair(value: float, error: float, *_: float) -> str:
    return f"{value:10.6f} ± {error:10.6f}"


def _share(of: Estimate) -> str:
    return f"{100 * of.value:6.3f} ± {100 * of.text:6.3f} %"


def _percent(at: float) -> str:
    return "Median  " if at == 50 else f"{at:4.1f}%   "
