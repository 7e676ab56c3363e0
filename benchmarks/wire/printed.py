"""What the commands print of their bytes, beside what crosses."""

import argparse
import contextlib
import io
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from benchmarks.commands import ask, running
from benchmarks.harness.serving import HOST
from benchmarks.wire.capture import Capture, sizes
from benchmarks.wire.certificates import issue
from benchmarks.wire.echo import TOKEN
from sqs_codec.cli import drafting, main
from sqs_codec.system.edge import TextDraft

PROMPT = "Why is the sea salty?"

WAYS = {
    "alone": ["--mode", "alone"],
    "rounds of 4": ["--draft-length", "4"],
    "hints": ["--mode", "hints"],
    "--prefer bytes": ["--prefer", "bytes"],
}

SETTLED = 1.0
"""Seconds after which nothing of a text is on its way any more."""


class Printed(NamedTuple):
    """Bytes of a text, up and down."""

    transport: str
    way: str
    tokens: int
    said: tuple[int, int]
    crossed: tuple[int, int]

    @property
    def off(self) -> float:
        """The larger of the two ways' differences, as a share."""
        pairs = zip(self.said, self.crossed, strict=True)
        return max((a / b - 1 for a, b in pairs), key=abs)


def printed(transports: Sequence[str], most: int) -> Iterator[Printed]:
    """Have the commands write texts of so many tokens at most in each way."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        issued = issue(folder, HOST)
        files = ["--cert", f"{issued.cert}", "--key", f"{issued.key}"]
        secret = ["--token", TOKEN]
        serve = ["serve", "--port", "0", *files, *secret]
        port = stack.enter_context(running(serve, r" at \S+:(\d+) \(gRPC"))
        stack.enter_context(_one_draft())
        for transport in transports:
            server = ["--server", f"{HOST}:{port}", "--transport", transport]
            common = [*server, *files[:2], *secret]
            for way, options in WAYS.items():
                text = ["--max-tokens", f"{most}", *options, PROMPT]
                command = ["generate", *common, *text]
                yield Printed(transport, way, *_crossed(port, partial(_said, command)))
            proxy = ["proxy", *common, "--listen", f"{HOST}:0"]
            at = stack.enter_context(running(proxy, r"(\d+)/v1"))
            counted = _crossed(port, partial(_usage, at, most))
            yield Printed(transport, "sqs proxy", *counted)


@contextmanager
def _one_draft() -> Iterator[None]:
    """Load one for all texts."""
    load, drafts = drafting.load, list[TextDraft]()

    def once(args: argparse.Namespace, longest: int) -> TextDraft:
        if not drafts:
            drafts.append(load(args, longest))
        return drafts[0]

    with mock.patch.object(drafting, "load", once):
        yield


def _crossed(
    port: int, write: Callable[[], tuple[int, int, int]]
) -> tuple[int, tuple[int, int], tuple[int, int]]:
    with Capture(port) as capture:
        tokens, *said = write()
        time.sleep(SETTLED)
        return tokens, (said[0], said[1]), sizes(capture.take())


def _said(command: list[str]) -> tuple[int, int, int]:
    """Return the tokens and bytes of which `sqs generate` speaks."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main.main(command)
    figures = r"^(\d+) tokens.* (\d+) bytes up and (\d+) down"
    found = re.search(figures, err.getvalue(), re.DOTALL | re.MULTILINE)
    if status or not found:
        raise RuntimeError(err.getvalue())
    tokens, up, down = map(int, found.groups())
    return tokens, up, down


def _usage(port: int, most: int) -> tuple[int, int, int]:
    """Return those of the usage that `sqs proxy` answers."""
    used = ask(port, PROMPT, most)["sqs"]
    return used["tokens"], used["bytes_up"], used["bytes_down"]
