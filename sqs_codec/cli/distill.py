"""The command ``sqs distill``: files of a teacher's distributions."""

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

    Places = tuple[Sequence[int], Sequence[int]]  # tokens, and where they teach
    Encode = Callable[[Any], Places]  # of the messages of a chat

DESCRIPTION = """\
Keeps the distributions of a teacher in a file, for the distillation of students.
Each becomes whole counts that are right on average, of some 24 bytes a token. The
file is Parquet; in Python sqs_codec.distill reads and writes it.
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
Lets a model read texts, and keeps its distribution of each token,
given those before it in the text, and of the one after the last. What was
interrupted goes on where it was if the same command is given again.
"""

IMPORT = """\
Makes a file of lists of the likeliest tokens that servers returned: of JSON, or JSON
lines, of responses of vLLM, or of what else speaks OpenAI's API, to completions and
chat completions with logprobs; or of vLLM's RequestOutput, as
json.dumps(output, default=vars) writes it.
A list becomes counts of its tokens and of the tail, which stands for all others. At the
end it says what else to know of the texts. What was interrupted goes on where it was if
the same command is given again.
"""

INFO = "Says what a file is, and how large."
CHECK = "Reads all of a file, and ends with 1 at the first thing that is wrong."

SERVE = """\
Answers trainers as a teacher that vLLM serves: /v1/completions with prompt_logprobs
has the distributions of a text that the file has, or of the beginning of one. The
text is found by its tokens; another one is an error 404, which says from which token
on no text of the file is like it. A trainer has to take as many tokens of a list as
the file's resolution, and its loss has to be forward KL over the whole vocabulary.

Beyond this machine it needs a key, in SQS_API_KEY or by --api-key, and a certificate.
"""


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the commands."""
    options.add_commands(
        parser,
        ("make", "let a model read texts", fill_make, make, MAKE),
        ("import", "take lists that are there", fill_import, import_, IMPORT),
        ("info", "say what a file has", fill_info, info, INFO),
        ("check", "read all of a file", fill_check, check, CHECK),
        ("serve", "teach those that ask vLLM", fill_serve, serve, SERVE),
    )


def fill_make(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``sqs distill make``."""
    add = parser.add_argument
    said = (
        'a text a line, or, if it ends in .jsonl, an object with a "text" a line, or '
        'with the "messages" of a chat, whose answers alone teach'
    )
    add("--texts", **options.FILE, nargs="+", required=True, help=said)
    add("-o", "--output", **options.FILE, required=True, help="the file")
    said = f"the teacher: {reading.READ} (default: SmolLM2)"
    add("--model", metavar="MODEL", help=said)
    reading.add_reading(add)
    said = "the template of chats, in Jinja (default: the model's own)"
    add("--chat-template", **options.FILE, help=said)
    options.add_temperature(add, "of the distributions", default=1.0)
    options.add_resolution(add, default=50)
    options.add_prior(add)
    add(
        "--max-length",
        **options.number(int, 1),
        help="cut texts into pieces of so many tokens, each with the text's BOS; of "
        "chats the first piece is kept (default: what the model can read, up to 2048)",
    )
    said = "of the rounding to counts"
    add("--seed", **options.number(int, 0, 2**32 - 1), default=0, help=said)


def make(args: argparse.Namespace) -> int:
    """Let a teacher read texts, and write the file."""
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
        deque(texts(args.texts, encode), 0)  # what is bad is said before it is read
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
    """Yield the texts and chats of files, these encoded; show how far it is."""
    size = sum(path.stat().st_size for path in paths)
    with reading.progress(total=size, unit="B", unit_scale=True) as bar:
        for path in paths:
            with path.open("rb") as file:
                for i, line in enumerate(file, 1):
                    yield text_of(line, path, i, encode)
                    bar.update(len(line))


NO_TEXT = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


def text_of(line: bytes, path: Path, i: int, encode: Encode) -> str | Places:
    """Return the text or the chat of a line, which an error names."""
    where = f"{path}, line {i},"
    try:
        text = line.decode("utf-8-sig" if i == 1 else "utf-8").rstrip("\r\n")
        if path.suffix.lower() != ".jsonl" or not text.strip():
            return text
        found = json.loads(text)
        if found.get("messages") is None:
            text = found["text"]
            text.encode()  # which takes no number and no half of a surrogate pair
            return str(text)
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not UTF-8: {error}") from error
    except NO_TEXT as error:
        said = 'is no object with a "text" of valid Unicode, or "messages"'
        raise ValueError(f"{where} {said}") from error
    try:
        if found.get("tools"):
            raise ValueError('chats with "tools" can\'t be read')
        return encode(found["messages"])
    except ValueError as error:
        raise ValueError(f"{where} is no chat that teaches: {error}") from error


def _own_tokenizer(args: argparse.Namespace, reader: Any) -> Any:
    """Return what has the template of a reader's chats."""
    if kind_of(args.model) is LLAMA_CPP:
        raise ValueError(f"{reader.name} is a GGUF file, for which chats can't be read")
    return reader.tokenizer.own


def fill_import(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``sqs distill import``."""
    add = parser.add_argument
    add("lists", **options.FILE, nargs="+", help="JSON or JSON lines")
    add("-o", "--output", **options.FILE, required=True, help="the file")
    spelled = "the one of the tokens, which finds those that responses only spell: {}"
    options.add_tokenizer(add, spelled)
    said = "ids that there are but for the tail's (default: the tokenizer's)"
    add("--vocab-size", **options.number(int, MIN_VOCAB, MAX_VOCAB - 1, "V"), help=said)
    add("--model", metavar="NAME", default="", help="the teacher, to say in the file")
    options.add_resolution(add, default=4096)
    options.add_prior(add)


def import_(args: argparse.Namespace) -> int:
    """Write a file of lists that are there."""
    if not options.has_packages("distill import", "distill", "prior"):
        return 1
    options.check_folder(args.output)
    tokenizer = load_tokenizer(args.tokenizer) if args.tokenizer else None
    from sqs_codec.distill import Header, Writer
    from sqs_codec.distill._imports.responses import import_lists

    ids = tokenizer.get_vocab() if tokenizer else {}
    known = sqs.vocabulary_fingerprint(ids) if ids else b""
    header = Header(
        tail_codec(args, known, max(ids.values(), default=-1) + 1),
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
            raise ValueError(f"nothing to keep is in {writer.header.source}")
    return info(args)


def tail_codec(args: argparse.Namespace, fingerprint: bytes, size: int) -> sqs.Codec:
    """Return the codec of a tokenizer, of so many ids, and the tail."""
    vocab_size = args.vocab_size or size
    if not vocab_size:
        args.usage_error("how many ids are there? give --tokenizer or --vocab-size")
    prior = options.find_prior(args.prior, fingerprint)
    tailed = prior.with_tail() if prior else None
    return sqs.Codec(vocab_size + 1, args.resolution, prior=tailed)


def places(paths: Sequence[Path], tokenizer: object) -> Iterator[Place]:
    """Yield what files have; show how much it is."""
    from sqs_codec.distill._imports.names import Names
    from sqs_codec.distill._imports.responses import read_responses

    names = Names(tokenizer)
    with reading.progress(unit=" texts") as bar:
        for path in paths:
            for place in read_responses(path, names):
                yield place
                bar.update()


def fill_info(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a file, and the prior that it may need."""
    add = parser.add_argument
    add("output", **options.FILE, help="a file of sqs distill make")
    add("--prior", metavar="FILE", help="that of its codec, if it isn't a built-in one")


def info(args: argparse.Namespace) -> int:
    """Say what a file is, and how much it has."""
    dataset = open_file(args)
    if dataset is None:
        return 1
    reading.say(dataset)
    return 0


def open_file(args: argparse.Namespace, *extras: str) -> Dataset | None:
    """Open the file, or explain what would have to be installed for the command."""
    command = args.called.removeprefix("sqs ")
    if not options.has_packages(command, "distill", *extras):
        return None
    from sqs_codec import distill

    tokenizer = load_tokenizer(args.tokenizer) if "prior" in extras else None
    return distill.load(
        args.output, prior=options.find_prior(args.prior), tokenizer=tokenizer
    )


def fill_check(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``sqs distill check``."""
    fill_info(parser)
    options.add_tokenizer(parser.add_argument, "the one that the tokens must be of: {}")


def check(args: argparse.Namespace) -> int:
    """Read all of a file; what is wrong is an error."""
    dataset = open_file(args, *["prior"] * bool(args.tokenizer))
    if dataset is None:
        return 1
    read = sum(len(sequence.rows) for sequence in dataset)
    print(f"{len(dataset)} sequences of {read} distributions: all can be read")
    return 0


def fill_serve(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``sqs distill serve``."""
    fill_info(parser)
    add = parser.add_argument
    listening.add_clients(add, "127.0.0.1:8000", "the teacher's, as the file has it")
    said = (
        "fill each list up to the length that is asked for, by tokens without a count, "
        "and give one to every token but the first: some trainers need that"
    )
    add("--fill", action="store_true", help=said)


def serve(args: argparse.Namespace) -> int:
    """Answer trainers until interrupted."""
    listening.check(args)
    dataset = open_file(args, "proxy")
    if dataset is None:
        return 1
    from sqs_codec.system.teacher import make_app
    from sqs_codec.system.teacher._app import CALLS

    header = dataset.header
    if header.rounding != "unbiased" and not header.tail:
        print(
            f"The rounding of {args.output} is {shown(header.rounding)}, and not right "
            "on average: a student learns its bias, too.",
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
        f"Teaching {len(dataset)} texts at {{url}}: at temperature "
        f"{header.temperature:g}, in lists of {header.codec.resolution} tokens at most."
    )
    listening.run(app, args, said, clients=CALLS)
    return 0
