"""The ``sqs`` command."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NoReturn

import sqs_codec as sqs
from sqs_codec._base.words import shown
from sqs_codec.cli.options import add_command

COMMANDS = (
    ("demo", "demo", "compare the three modes over a simulated link"),
    ("serve", "serve", "run a server: a target model for many edges"),
    ("generate", "generate", "generate text with a server"),
    ("proxy", "proxy", "connect chat clients to a server"),
    ("inspect", "inspect", "show the contents of a packet"),
    ("bits", "bits", "measure the bits and errors for your own logits"),
    ("prior", "prior", "make a prior for your tokenizer"),
    ("distill", "distill", "store teacher logits in a file"),
    ("kld", "kld", "measure the KL divergence of quantized models"),
)
"""Name, module and help of each command. A module is imported when its command is
used. It has a `DESCRIPTION`, perhaps `EXAMPLES`, a function `fill` that adds the
options, and a function `run`, unless `fill` adds subcommands. `run` returns the exit
status, or raises an OSError or ValueError with a message for the user."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, 1 after an error, or 130 when interrupted."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed before Python started
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # to the end
    # Models and packets may contain characters that the terminal can't show.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    called = "sqs"
    try:
        try:
            asked = sys.argv[1:] if argv is None else argv
            args, unknown = _parser(asked).parse_known_args(asked)
            called = args.called
            if unknown:  # with the command's usage; argparse would show that of sqs
                args.usage_error(f"unrecognized arguments: {shown(' '.join(unknown))}")
            command: Callable[[argparse.Namespace], int] = args.command
            return command(args)
        finally:
            _flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 1  # the reader has closed the pipe, as in `sqs ... | head`
    except (ImportError, OSError, ValueError, MemoryError) as error:
        is_memory = isinstance(error, MemoryError)  # often without a message
        reason = "not enough memory" if is_memory else str(error)
        if isinstance(error, OSError) and error.filename:
            reason = f"{error.filename}: {error.strerror}"
        print(f"{called}: {shown(reason, None, lines=True)}", file=sys.stderr)
    return 1


def _flush() -> None:
    """Flush standard output now, while an error can still be reported."""
    try:
        sys.stdout.flush()
    except OSError:
        # Otherwise Python tries, and fails, once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


class _Version(argparse.Action):
    """Prints version, backend and instruction set, and exits."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        isa = sqs.isa()
        print(
            f"sqs-codec {sqs.__version__}, format version {sqs.__format_version__}, "
            f"backend {sqs.backend()}" + (f" ({isa})" if isa else "")
        )
        parser.exit()


class _Parser(argparse.ArgumentParser):
    """Prints help to stderr if there are no arguments, as in `sqs $UNSET > file`."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._is_bare = not args
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        if self._is_bare:
            self.print_help(sys.stderr)
            self.exit(2, f"\n{self.prog}: error: {message}\n")
        super().error(message)


def _parser(asked: Sequence[str]) -> argparse.ArgumentParser:
    """Return a parser with all commands, and the options of those in `asked`."""
    what = "A codec for next-token distributions, and speculative decoding with it."
    parser = _Parser(prog="sqs", description=what)
    version = "print version, backend and instruction set"
    parser.add_argument("--version", action=_Version, nargs=0, help=version)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, where, help_ in COMMANDS:
        if name in asked:
            module = import_module(f"sqs_codec.cli.{where}")
            said = {"help": help_, "description": module.DESCRIPTION}
            said["epilog"] = getattr(module, "EXAMPLES", None)
            run = getattr(module, "run", None)
            add_command(commands, name, module.fill, run, **said)
        else:
            commands.add_parser(name, help=help_)
    return parser
