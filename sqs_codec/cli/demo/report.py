"""What the terminal shows: the text as it comes, a live line, bars.

In a terminal the unfinished line of text and the live line under it are redrawn
in place. Piped to a file the same text comes out plain, without them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sqs_codec import Codec, theory
from sqs_codec._base.words import shown
from sqs_codec.system.session import ROUND_HEAD

if TYPE_CHECKING:
    from sqs_codec.cli.demo.race import Figures, Race
    from sqs_codec.system.edge import Step, TextStream


FROM_CLOUD = "bold cyan"
"""How the tokens look that the draft didn't have; its own are plain."""

TITLES = {
    "alone": "the cloud alone",
    "rounds": "rounds: drafted here, judged by the cloud, another draw of its law",
    "hints": "hints at what the cloud decodes",
}
"""What is said of the ways."""

COLUMNS = ("tokens/s", "up", "down", "bytes", "passes", "rows")
WIDTH = 56  # of a table's columns but for the bars
LONGEST = 30  # of the bars

GAIN = 1.1
"""What hints give at least, where it needs no explanation."""

NOTE = (
    "Up and down are bytes of all; bytes both ways, passes of the target and rows of "
    "the draft those for a token of text."
)


class Stream:
    """One text on its way to the terminal, a context manager."""

    def __init__(self, console: Console, text: TextStream) -> None:
        self._console = console
        self._text = text
        self._line = Text()
        self._live = Live(console=console, transient=True, auto_refresh=False)

    def __enter__(self) -> Stream:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
        self._line.append(shown(self._text.rest(), None, lines=True))
        self._console.print(self._line)

    def show(self, step: Step, status: Text) -> None:
        """Append a step's tokens and redraw the live line."""
        tokens, n = step.tokens, step.accepted
        for said, style in ((tokens[:n], ""), (tokens[n:], FROM_CLOUD)):
            self._line.append(shown(self._text.add(said), None, lines=True), style)
        *full, self._line = self._line.wrap(self._console, self._console.width) or [
            Text()
        ]
        for line in full:
            line.rstrip()
            self._console.print(line)
        self._live.update(Group(self._line, Text(), status), refresh=True)


def live_line(way: str, figures: Figures) -> Text:
    """Say in one line how it goes so far."""
    said = f"{figures.tokens} tokens, {figures.tokens_per_second:.1f} a second"
    line = f"{way}: {said}, {figures.bytes_up:,} bytes up"
    return Text(line, style="reverse", no_wrap=True, overflow="ellipsis")


def bars(race: Race, width: int) -> Table:
    """Draw how fast each way was, with what it took of link and models."""
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    table.caption, table.caption_justify = NOTE, "left"
    room = min(max(4, width - WIDTH), LONGEST)
    for name in ("", "", *COLUMNS):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    most = max(f.tokens_per_second for f in race.figures.values()) or 1.0
    for way, f in race.figures.items():
        n = max(1, f.tokens)
        table.add_row(
            way,
            Text("█" * round(room * f.tokens_per_second / most), style="cyan"),
            f"{f.tokens_per_second:.1f}",
            f"{f.bytes_up:,}",
            f"{f.bytes_down:,}",
            f"{(f.bytes_up + f.bytes_down) / n:.0f}",
            *(f"{each / n:.2f}" for each in (f.answers, f.rows)),
        )
    return table


def bits(codec: Codec, kept: int, figures: Figures) -> Table:
    """Say what a drafted token's distribution takes, sent in other ways and in ours."""
    kept = min(kept, codec.vocab_size)
    ids = (codec.vocab_size - 1).bit_length()
    paper = theory.paper_bits(codec.vocab_size, kept, codec.resolution)
    drafted = sum(len(codec.decode_round(packet)) for packet in figures.packets)
    sent = sum(8 * (ROUND_HEAD + len(packet)) for packet in figures.packets)
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    table.add_column("a drafted token's distribution, in rounds")
    table.add_column("bits", justify="right")
    for name, found in (
        ("dense fp16", 16 * codec.vocab_size),
        (f"raw top-{kept}: fp16 and ids of {ids} bits", (16 + ids) * kept),
        ("the paper's formula", paper),
        ("sqs-codec: whole messages", sent / max(1, drafted)),
    ):
        table.add_row(name, f"{found:,.0f}")
    return table


def conclusion(race: Race) -> str:
    """Say in a line for a person what came of it."""
    alone, rounds, hints = (f.tokens_per_second for f in race.figures.values())
    if not alone:
        return "No text came."
    said = (
        f"With hints the text came {hints / alone:.2f} times as fast as from the cloud "
        f"alone, by rounds {rounds / alone:.2f} times; "
    )
    if hints < GAIN * alone:
        said += (
            "a draft pays where it is much faster than the target, on a core of its "
            "own; "
        )
    if race.same:
        return f"{said}with hints it is the same text as alone, token for token."
    return (
        f"{said}with hints it is another text than alone, as the target's rounding "
        f"depends on how many tokens it reads at once."
    )
