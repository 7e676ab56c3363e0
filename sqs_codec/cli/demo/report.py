"""What the terminal shows: text as it is verified, a live line, a table.

In a terminal the unfinished line of text and the live line under it are redrawn
in place. Piped to a file the same text comes out plain, without them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sqs_codec._base.words import shown
from sqs_codec.system.hf._text import TextStream

if TYPE_CHECKING:
    from sqs_codec.cli.demo.count import Stats
    from sqs_codec.system.edge import Step
    from sqs_codec.system.hf._models import HFTokenizer

UPLINKS = {"10 kbit/s": 1e4, "100 kbit/s": 1e5, "1 Mbit/s": 1e6}
"""Bits per second of the table's uplinks, by name."""

LIVE_UPLINK = "100 kbit/s"

FROM_CLOUD = "bold cyan"
"""How the tokens look that the cloud put in; the draft's own are plain."""


class Stream:
    """One text on its way to the terminal, a context manager."""

    def __init__(self, console: Console, tokenizer: HFTokenizer) -> None:
        self._console = console
        self._text = TextStream(tokenizer)
        self._line = Text()
        self._live: Live | None = None
        if console.is_terminal and not console.is_dumb_terminal:
            self._live = Live(console=console, transient=True, auto_refresh=False)

    def __enter__(self) -> Stream:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()
        self._console.print(self._line)

    def show(self, step: Step, status: Text) -> None:
        """Append one round's tokens and redraw the live line."""
        tokens, n = step.tokens, step.accepted
        for said, style in ((tokens[:n], ""), (tokens[n:], FROM_CLOUD)):
            self._line.append(shown(self._text.add(said), None, lines=True), style)
        *full, self._line = self._line.wrap(self._console, self._console.width) or [
            Text()
        ]
        for line in full:
            line.rstrip()
            self._console.print(line)
        if self._live:
            self._live.update(Group(self._line, Text(), status), refresh=True)


def live_line(name: str, stats: Stats) -> Text:
    """Say in one line of less than 80 characters how it goes so far."""
    seconds = stats.wire_bits / UPLINKS[LIVE_UPLINK]
    return Text(
        f"{name}  acceptance {stats.acceptance_rate:.0%}, "
        f"{stats.bits_per_drafted:.0f} bits per drafted token, "
        f"uplink {duration(seconds)} at {LIVE_UPLINK}",
        style="reverse",
        no_wrap=True,
        overflow="ellipsis",
    )


def duration(seconds: float) -> str:
    """Return a time with two or three digits and a unit that fits.

    Examples
    --------
    >>> [duration(s) for s in (0.0123, 0.456, 7.89, 123.4, 8000.0)]
    ['12 ms', '0.46 s', '7.9 s', '123 s', '2.2 h']
    """
    for limit, scale, unit, digits in (
        (0.1, 1e3, "ms", 0),
        (1.0, 1.0, "s", 2),
        (100.0, 1.0, "s", 1),
        (1000.0, 1.0, "s", 0),
        (7200.0, 1 / 60, "min", 0),
    ):
        if seconds < limit:
            return f"{seconds * scale:.{digits}f} {unit}"
    return f"{seconds / 3600:.1f} h"


def summary(runs: Mapping[str, Stats]) -> Group:
    """Tables of what happened by each rule, and of what each way to send it costs."""
    return Group(_events(runs), _costs(runs), Text(NOTE, style="dim"))


NOTE = """\
Acceptance: accepted per token judged. Resampling: rejected per token of text.
Real bytes: the session's messages, each with 4 bytes of header; the prompt
isn't counted. The others count the distributions alone. Paper's formula:
ceil(log2) of the binomials, for the K tokens kept. Raw top-K: fp16 + int32 for
each of these. The last columns are the uplink time of 100 tokens of text."""


EVENTS: dict[str, Callable[[Stats], str]] = {
    "tokens of text": lambda s: f"{s.tokens}",
    "tokens drafted": lambda s: f"{s.drafted}",
    "rounds": lambda s: f"{s.rounds}",
    "acceptance rate": lambda s: f"{s.acceptance_rate:.1%}",
    "resampling rate": lambda s: f"{s.resampling_rate:.1%}",
    "mean support: tokens kept, K": lambda s: f"{s.kept / max(1, s.drafted):.1f}",
    "mean support: tokens sent, k": lambda s: f"{s.survivors / max(1, s.drafted):.1f}",
}


def _events(runs: Mapping[str, Stats]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for name in runs:
        table.add_column(name, justify="right")
    for label, cell in EVENTS.items():
        table.add_row(label, *map(cell, runs.values()))
    return table


def _costs(runs: Mapping[str, Stats]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("sent as\n")
    table.add_column("bits per\ndrafted", justify="right")
    table.add_column("times\nreal", justify="right")
    for uplink in UPLINKS:
        table.add_column(f"100 tokens\n{uplink}", justify="right")
    for name, stats in runs.items():
        table.add_row(Text(name, style="bold"))
        for scheme, bits in {
            "real bytes": stats.wire_bits,
            "paper's formula": stats.paper_bits,
            "raw top-K": stats.raw_bits,
            "dense fp16": stats.dense_bits,
        }.items():
            ratio = bits / max(1, stats.wire_bits)
            text_bits = 100 * bits / max(1, stats.tokens)
            table.add_row(
                f"  {scheme}",
                f"{bits / max(1, stats.drafted):,.0f}",
                f"{ratio:.1f}" if ratio < 100 else f"{ratio:,.0f}",
                *(duration(text_bits / rate) for rate in UPLINKS.values()),
            )
        table.add_section()
    return table
