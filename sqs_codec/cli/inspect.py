"""The command ``sqs inspect``: a packet as a table of fields."""

import argparse
import sys
import textwrap
from pathlib import Path
from typing import get_args

import sqs_codec as sqs
from sqs_codec._base.format import MAX_VOCAB, MIN_VOCAB, ROUND_LENGTH_BITS, CodingName
from sqs_codec._base.words import shown
from sqs_codec.cli.options import add_prior, add_resolution, find_prior, number

DESCRIPTION = """\
Shows the contents of a packet. With fields (enumerative, bitpack), it also shows
their positions and bits. A packet has no header, because both ends know the codec:
give its parameters here, including --prior. Without --kind it tries both kinds.
"""

KINDS = {"distribution": "a distribution", "round": "a round"}

MOST_BYTES = 1 << 27
"""More bytes than any packet has. The longest is a round of 256 distributions with
65,536 ids and counts, 36 bits each."""

LINE_WIDTH = 80
LONGEST_RANK = 34
"""Maximum characters of a rank; longer ones are abbreviated."""


def fill(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("file", help="file of the packet; - reads standard input")
    add(
        "--kind",
        choices=list(KINDS),
        help="one distribution, or a round with drafted tokens (default: try both)",
    )
    said = "vocabulary size of the models"
    size = number(int, MIN_VOCAB, MAX_VOCAB, "V")
    add("--vocab-size", **size, required=True, help=said)
    add_resolution(add)
    said = "coding of distributions"
    codings = get_args(CodingName)
    add("--coding", choices=codings, default=sqs.Codec.coding, help=said)
    add_prior(add, default="none")


def run(args: argparse.Namespace) -> int:
    prior = find_prior(args.prior)
    codec = sqs.Codec(args.vocab_size, args.resolution, args.coding, prior)
    with sys.stdin.buffer if args.file == "-" else Path(args.file).open("rb") as file:
        packet = file.read(MOST_BYTES + 1)
    if len(packet) > MOST_BYTES:
        raise ValueError(f"{args.file} is longer than any packet")
    kinds = [args.kind] if args.kind else list(KINDS)
    found, refused = inspect(codec, packet, kinds)
    # If no kind fits, the reasons go to standard error.
    out = sys.stdout if found else sys.stderr
    agreed = f"vocabulary {codec.vocab_size}, resolution {codec.resolution}"
    if codec.prior is not None:
        agreed += f", prior {shown(args.prior)}"
    name = "" if found else f"sqs inspect: {shown(args.file)}: "
    read = f"{len(packet)} bytes, read with {agreed}, {codec.coding}"
    print(f"{name}{read}.", file=out)
    if len(found) > 1:
        print("Both kinds fit, as packets don't name their kind: choose with --kind.")
    print("\n".join([*refused, *found]), file=out)
    if not found:
        said = "Check that --resolution, --coding and --prior are those of the sender."
        print(said, file=out)
    return 0 if found else 1


def inspect(
    codec: sqs.Codec, packet: bytes, kinds: list[str]
) -> tuple[list[str], list[str]]:
    """Return a table for each kind that fits, and a line for each other kind."""
    found, refused = [], []
    for kind in kinds:
        table = _Table(codec, packet)
        try:
            if kind == "distribution":
                table.add_distribution(codec.decode(packet))
            else:
                table.add_round(codec.decode_round(packet))
            found.append("\n".join([f"As {KINDS[kind]}:\n", *table.lines]))
        except sqs.PacketError as error:
            refused.append(f"Not {KINDS[kind]}: {error}.")
    return found, refused


class _Table:
    """The rows of a packet's table, and the position in the packet.

    The symbols of an ``"entropy"`` packet share bits, so their rows have no position
    and no cost.
    """

    def __init__(self, codec: sqs.Codec, packet: bytes) -> None:
        self._codec = codec
        self._has_fields = codec.coding != "entropy"
        self._number = int.from_bytes(packet, "big")
        self._left = 8 * len(packet)
        self._offset = 0
        self.lines: list[str] = []
        if self._has_fields:
            self.lines.append(_row("bits", "cost", "field", "value"))

    def add_distribution(self, q: sqs.SparseDistribution) -> None:
        self._distribution(q)
        self._padding()

    def add_round(self, round_: sqs.Round) -> None:
        length = len(round_)
        self._field("drafted tokens", ROUND_LENGTH_BITS, str(length))
        pairs = zip(round_.distributions, round_.tokens, strict=True)
        for i, (q, token) in enumerate(pairs, 1):
            self.lines += ["", f"distribution {i} of {length}"]
            self._distribution(q)
            width = _width(len(q.token_ids))
            place = f"position {self._peek(width)} in the support: "
            text = f"{place if self._has_fields else ''}{token}"
            self._field("drafted token", width, text)
        if self._has_fields:
            self.lines += ["", "end"]
        self._padding()

    def _distribution(self, q: sqs.SparseDistribution) -> None:
        codec, size = self._codec, len(q.token_ids)
        ids, counts = q.token_ids.tolist(), q.counts.tolist()
        size_width = _width(codec.max_survivors)
        self._field("tokens", size_width, str(size))
        if codec.coding == "bitpack":
            id_width = size * _width(codec.vocab_size)
            self._field("token ids", id_width, ", ".join(map(str, ids)))
            sent = ", ".join(map(str, counts[:-1])) or "none"
            width = codec.bits(q) - size_width - id_width
            self._field("counts", width, sent)
            rest = f"{counts[-1]}, the rest of {codec.resolution}"
            self._say("last count", rest)
            return
        if codec.coding == "enumerative":
            width = codec.bits(q) - size_width
            self._field("rank", width, _hex(self._peek(width)))
        pairs = zip(ids, counts, strict=True)
        self._say("token:count", ", ".join(f"{i}:{count}" for i, count in pairs))

    def _field(self, name: str, width: int, value: str) -> None:
        """Add a row for the next `width` bits."""
        if not self._has_fields:
            self._say(name, value)
            return
        first, last = self._offset, self._offset + width - 1
        self._offset += width
        self._left -= width
        place = {0: "none", 1: f"{first}"}.get(width, f"{first}-{last}")
        self.lines.append(_row(place, str(width), name, value))

    def _say(self, name: str, value: str) -> None:
        """Add a row that takes no bits."""
        self.lines.append(_row("", "", name, value))

    def _peek(self, width: int) -> int:
        """Return the next `width` bits as a number."""
        return self._number >> max(0, self._left - width) & (1 << width) - 1

    def _padding(self) -> None:
        if self._has_fields and self._left:
            self._field("padding", self._left, "0")


def _width(values: int) -> int:
    """Return the bits of a field with this number of values."""
    return (values - 1).bit_length()


def _row(place: str, cost: str, name: str, value: str) -> str:
    head = f"{place:>11} {cost:>6}  {name:<15}  "
    lines = textwrap.wrap(value, LINE_WIDTH - len(head)) or [""]
    return f"\n{'':{len(head)}}".join([head + lines[0], *lines[1:]]).rstrip()


def _hex(number: int) -> str:
    digits = f"{number:#x}"
    if len(digits) <= LONGEST_RANK:
        return digits
    return f"{digits[:18]}...{digits[-8:]}"
