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
    ("demo", "demo", "see what hints and rounds do for a slow target"),
    ("serve", "serve", "run a server: a target model for many edges"),
    ("generate", "generate", "write a text with a server"),
    ("proxy", "proxy", "let chat clients write with a server"),
    ("inspect", "inspect", "show what a packet holds"),
    ("bits", "bits", "measure what your own logits cost"),
    ("prior", "prior", "make a prior for your tokenizer"),
    ("distill", "distill", "keep a teacher's distributions in a file"),
    ("kld", "kld", "measure how far a quantised model is from the original"),
)
"""Name, module and a word of help. The module is imported when it is asked for, and has
a `DESCRIPTION`, `EXAMPLES` if it has some, `fill`, which adds its options, and `run`,
unless `fill` adds commands of its own. `run` returns the exit status, or raises an
OSError or ValueError that says what is wrong."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, 1 after an error, or 130 when interrupted."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # it was closed before Python began
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # to the end
    # Models and packets may say what the terminal's encoding cannot.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    called = "sqs"
    try:
        try:
            asked = sys.argv[1:] if argv is None else argv
            args, unknown = _parser(asked).parse_known_args(asked)
            called = args.called
            if unknown:  # in the command's words; argparse would show all commands'
                args.usage_error(f"unrecognized arguments: {shown(' '.join(unknown))}")
            command: Callable[[argparse.Namespace], int] = args.command
            return command(args)
        finally:
            _flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 1  # the reader has left, `sqs ... | head`
    except (ImportError, OSError, ValueError, MemoryError) as error:
        is_memory = isinstance(error, MemoryError)  # which says less, or nothing
        reason = "not enough memory" if is_memory else str(error)
        if isinstance(error, OSError) and error.filename:
            reason = f"{error.filename}: {error.strerror}"
        print(f"{called}: {shown(reason, None, lines=True)}", file=sys.stderr)
    return 1


def _flush() -> None:
    """Write what was printed, while an error can still be told."""
    try:
        sys.stdout.flush()
    except OSError:
        # Or it would be tried, and fail, once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


class _Version(argparse.Action):
    """Says what runs here and ends; the version is looked up only for this."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        isa = sqs.isa()
        print(
            f"sqs-codec {sqs.__version__}, format version {sqs.__format_version__}, "
            f"backend {sqs.backend()}" + (f" ({isa})" if isa else "")
        )
        parser.exit()


class _Parser(argparse.ArgumentParser):
    """Shows its help, as an error, if no argument came, as in `sqs $UNSET > file`."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._is_bare = not args
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        if self._is_bare:
            self.print_help(sys.stderr)
            self.exit(2, f"\n{self.prog}: error: {message}\n")
        super().error(message)


def _parser(asked: Sequence[str]) -> argparse.ArgumentParser:
    """Return a parser of all commands, with the options of those that are named."""
    what = "The codec for token distributions in speculative decoding."
    parser = _Parser(prog="sqs", description=what)
    parser.add_argument("--version", action=_Version, nargs=0, help="what this is")
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
