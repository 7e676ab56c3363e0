"""The command ``sqs distill``: files of teacher logits."""

from __future__ import annotations

import argparse
import json
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import sqs_codec as sqs
from sqs_codec._base.format import MAX_VOCAB, MIN_VOCAB
from sqs_codec._base.words import shown
from sqs_codec.cli import listening, options, reading
from sqs_codec.cli.files import load_tokenizer
from sqs_codec.system._base.kinds import LLAMA_CPP, kind_of

if TYPE_CHECKING:
    from sqs_codec.distill import Dataset
    from sqs_codec.distill._imports.responses import Place

    Places = tuple[Sequence[int], Sequence[int]]  # tokens, positions to learn from
    Encode = Callable[[Any], Places]  # encodes the messages of a chat

DESCRIPTION = """\
Stores a teacher's distributions in a file, to distill students offline. Each
becomes integer counts that equal it on average: about 24 bytes per token. The file
is Parquet; in Python, sqs_codec.distill reads and writes it.
"""

EXAMPLES = """\
examples:
  sqs distill make --texts texts.jsonl -o teacher.parquet
  sqs distill import answers.jsonl --tokenizer tokenizer.json -o teacher.parquet
  sqs distill info teacher.parquet
  sqs distill check teacher.parquet --tokenizer tokenizer.json
  sqs distill serve teacher.parquet --listen 127.0.0.1:8000
"""

MAKE = """\
Runs a model over texts, and stores its distribution at each position and after
the last token. To resume an interrupted run, give the same command again.
"""

IMPORT = """\
Makes a file from top-K logprobs that a server returned. It reads JSON or JSON lines:
completions and chat completions with logprobs from vLLM or another server with
OpenAI's API, or vLLM's RequestOutput as json.dumps(output, default=vars) writes it.
A list becomes counts of its tokens and of the tail, which stands for all other
tokens. At the end it prints notes about the texts. To resume an interrupted run,
give the same command again.
"""

INFO = "Prints the contents and the size of a file."
CHECK = "Reads all of a file. Exits with 1 at the first error."

SERVE = """\
Answers trainers like a teacher served by vLLM: /v1/completions with prompt_logprobs
returns the distributions of a text that the file has, or of its beginning. It finds
the text by its tokens. For any other text it returns error 404, with the first
position that doesn't match. Trainers must request as many tokens per position as
the file's resolution, and use forward KL over the whole vocabulary as the loss.

To serve other machines, it needs a certificate and an API key, with SQS_API_KEY or
--api-key.
"""


def fill(parser: argparse.ArgumentParser) -> None:
    options.add_commands(
        parser,
        ("make", "run a teacher over texts", fill_make, make, MAKE),
        ("import", "convert top-K logprobs of servers", fill_import, import_, IMPORT),
        ("info", "print the contents of a file", fill_info, info, INFO),
        ("check", "read all of a file", fill_check, check, CHECK),
        ("serve", "serve a file to trainers, like vLLM", fill_serve, serve, SERVE),
    )


def fill_make(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    said = (
        "file with one text per line; in a .jsonl file, one object per line with a "
        '"text", or with the "messages" of a chat, of which only answers are stored'
    )
    add("--texts", **options.FILE, nargs="+", required=True, help=said)
    add("-o", "--output", **options.FILE, required=True, help="file to write")
    said = f"teacher: {reading.READ} (default: SmolLM2)"
    add("--model", metavar="MODEL", help=said)
    reading.add_reading(add)
    said = "chat template in Jinja (default: the model's own)"
    add("--chat-template", **options.FILE, help=said)
    said = "temperature of the distributions"
    options.add_temperature(add, said, default=1.0)
    options.add_resolution(add, default=50)
    options.add_prior(add)
    add(
        "--max-length",
        **options.number(int, 1),
        help="cut texts into pieces of N tokens, each with the text's BOS; chats "
        "keep only the first piece (default: the model's context length, at most 2048)",
    )
    said = "seed of the rounding to counts"
    add("--seed", **options.number(int, 0, 2**32 - 1), default=0, help=said)


def make(args: argparse.Namespace) -> int:
    if not reading.can_read(args, [args.model]):
        return 1
    options.check_folder(args.output)
    options.find_prior(args.prior)
    template = args.chat_template
    source = reading.digest([*args.texts, *([template] if template else [])])
    from sqs_codec import distill

    options.log_warnings("sqs distill make")
    with (
        reading.open_reader(args, args.model) as reader,
        options.interrupts_raise(),
        TemporaryFile("w+", dir=args.output.parent) as tokenized,
    ):

        def encode(messages: Any) -> Places:
            tokenizer = _own_tokenizer(args, reader)
            from sqs_codec.system.hf import encode_answers

            found = encode_answers(tokenizer, messages)
            print(json.dumps(found), file=tokenized)
            return found

        if template:
            tokenizer = _own_tokenizer(args, reader)
            tokenizer.chat_template = options.read_text(template)
        prior = options.find_prior(args.prior, reader.tokenizer.fingerprint)
        deque(texts(args.texts, encode), 0)  # reports bad texts before any work
        tokenized.seek(0)
        distill.make(
            args.output,
            sqs.Codec(reader.tokenizer.vocab_size, args.resolution, prior=prior),
            reader,
            texts(args.texts, lambda _: tuple(json.loads(tokenized.readline()))),
            model=reader.name,
            source=source,
            identity=reading.identity(args, args.model),
            **options.given(args, "temperature", "max_length", "seed"),
        )
    return info(args)


def texts(paths: Sequence[Path], encode: Encode) -> Iterator[str | Places]:
    """Yield the texts and the encoded chats of files, with a progress bar."""
    size = sum(path.stat().st_size for path in paths)
    with reading.progress(total=size, unit="B", unit_scale=True) as bar:
        for path in paths:
            with path.open("rb") as file:
                for i, line in enumerate(file, 1):
                    yield text_of(line, path, i, encode)
                    bar.update(len(line))


def text_of(line: bytes, path: Path, i: int, encode: Encode) -> str | Places:
    """Return the text or chat of a line; errors name the line."""
    where = f"{path}, line {i},"
    try:
        text = line.decode("utf-8-sig" if i == 1 else "utf-8").rstrip("\r\n")
        if path.suffix.lower() != ".jsonl" or not text.strip():
            return text
        found = json.loads(text)
        if found.get("messages") is None:
            text = found["text"]
            text.encode()  # raises for numbers and single surrogates
            return str(text)
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not UTF-8: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        said = 'must be an object with a "text" of valid Unicode or with "messages"'
        raise ValueError(f"{where} {said}") from error
    try:
        if found.get("tools"):
            raise ValueError('chats with "tools" are not supported')
        return encode(found["messages"])
    except ValueError as error:
        raise ValueError(f"{where} has no usable chat: {error}") from error


def _own_tokenizer(args: argparse.Namespace, reader: Any) -> Any:
    """Return the tokenizer with the chat template of a reader."""
    if kind_of(args.model) is LLAMA_CPP:
        raise ValueError(f"{reader.name} is a GGUF file, which can't encode chats")
    return reader.tokenizer.own


def fill_import(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("lists", **options.FILE, nargs="+", help="file of JSON or JSON lines")
    add("-o", "--output", **options.FILE, required=True, help="file to write")
    spelled = "tokenizer of the teacher, for responses that have tokens without ids: {}"
    options.add_tokenizer(add, spelled)
    said = "vocabulary size, without the tail (default: the tokenizer's)"
    add("--vocab-size", **options.number(int, MIN_VOCAB, MAX_VOCAB - 1, "V"), help=said)
    said = "name of the teacher, to store in the file"
    add("--model", metavar="NAME", default="", help=said)
    options.add_resolution(add, default=4096)
    options.add_prior(add)


def import_(args: argparse.Namespace) -> int:
    if not options.has_packages("distill import", "distill", "prior"):
        return 1
    options.check_folder(args.output)
    tokenizer = load_tokenizer(args.tokenizer) if args.tokenizer else None
    from sqs_codec.distill import Header, Writer
    from sqs_codec.distill._imports.responses import import_lists

    ids = tokenizer.get_vocab() if tokenizer else {}
    known = sqs.vocabulary_fingerprint(ids) if ids else b""
    vocab_size = args.vocab_size or max(ids.values(), default=-1) + 1
    if not vocab_size:
        args.usage_error("the vocabulary is unknown: give --tokenizer or --vocab-size")
    prior = options.find_prior(args.prior, known)
    tailed = prior.with_tail() if prior else None
    header = Header(
        sqs.Codec(vocab_size + 1, args.resolution, prior=tailed),
        model=args.model,
        rounding="lattice",
        tail=True,
        tokenizer_fingerprint=known,
        source=reading.digest(args.lists),
    )
    with options.interrupts_raise(), Writer(args.output, header) as writer:
        notes = import_lists(places(args.lists, tokenizer), writer)
        for note, times in (+notes).items():
            print(f"{times} {note}", file=sys.stderr)
        if not len(writer):
            raise ValueError(f"{writer.header.source} has no usable list")
    return info(args)


def places(paths: Sequence[Path], tokenizer: object) -> Iterator[Place]:
    """Yield the lists of files, with a progress bar."""
    from sqs_codec.distill._imports.names import Names
    from sqs_codec.distill._imports.responses import read_responses

    names = Names(tokenizer)
    with reading.progress(unit=" texts") as bar:
        for path in paths:
            for place in read_responses(path, names):
                yield place
                bar.update()


def fill_info(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("output", **options.FILE, help="file from sqs distill make")
    add("--prior", metavar="FILE", help="prior of the file's codec, unless built-in")


def info(args: argparse.Namespace) -> int:
    dataset = open_file(args)
    if dataset is None:
        return 1
    reading.say(dataset)
    return 0


def open_file(args: argparse.Namespace, *extras: str) -> Dataset | None:
    """Open the file, or explain which packages are missing."""
    command = args.called.removeprefix("sqs ")
    if not options.has_packages(command, "distill", *extras):
        return None
    from sqs_codec import distill

    tokenizer = load_tokenizer(args.tokenizer) if "prior" in extras else None
    return distill.load(
        args.output, prior=options.find_prior(args.prior), tokenizer=tokenizer
    )


def fill_check(parser: argparse.ArgumentParser) -> None:
    fill_info(parser)
    options.add_tokenizer(parser.add_argument, "tokenizer that the file must have: {}")


def check(args: argparse.Namespace) -> int:
    dataset = open_file(args, *["prior"] * bool(args.tokenizer))
    if dataset is None:
        return 1
    read = sum(len(sequence.rows) for sequence in dataset)
    print(f"{len(dataset)} sequences with {read} distributions are valid")
    return 0


def fill_serve(parser: argparse.ArgumentParser) -> None:
    fill_info(parser)
    add = parser.add_argument
    listening.add_clients(add, "127.0.0.1:8000", "the teacher's name in the file")
    said = (
        "fill each list to the requested length with tokens without a count, and "
        "return one at every position except the first, as some trainers need"
    )
    add("--fill", action="store_true", help=said)


def serve(args: argparse.Namespace) -> int:
    listening.check(args)
    dataset = open_file(args, "proxy")
    if dataset is None:
        return 1
    from sqs_codec.system.teacher import make_app
    from sqs_codec.system.teacher._app import CALLS

    header = dataset.header
    if header.rounding != "unbiased" and not header.tail:
        print(
            f"{args.output} has the biased rounding {shown(header.rounding)}: "
            "a student learns the bias too.",
            file=sys.stderr,
        )
    app = make_app(
        dataset,
        names=args.model_name,
        fill=args.fill,
        api_key=args.api_key,
        hosts=args.allow_host,
        origins=args.allow_origin,
    )
    said = (
        f"Serving {len(dataset)} texts at {{url}}, at temperature "
        f"{header.temperature:g}, with up to {header.codec.resolution} tokens per list."
    )
    listening.run(app, args, said, clients=CALLS)
    return 0
