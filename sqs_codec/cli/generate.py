"""The command ``sqs generate``: a text drafted here and verified by a server."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

import sqs_codec as sqs
from sqs_codec._base import checks
from sqs_codec._base.words import shown
from sqs_codec.cli import options
from sqs_codec.system._base.address import split_address
from sqs_codec.system._base.hub import lacks_folder
from sqs_codec.system._base.security import check_roots, check_token, require_loopback
from sqs_codec.system.edge import MODES
from sqs_codec.system.session import MAX_DRAFT

if TYPE_CHECKING:
    from sqs_codec.system.edge import Draft, Edge, Step
    from sqs_codec.system.proxy._model import Model, Text
    from sqs_codec.system.session import Link, Sampling, Setting

DESCRIPTION = """\
Writes a text with the server of sqs serve: a small draft model runs here, the
server's target model verifies what it proposes, and the text is distributed as
the target's own. It comes in one of three modes: the server writes alone; it is
given hints of what it may write, which it doesn't wait for; or rounds are
drafted, sent and judged, which takes the fewest bytes of what is faster than
alone. A planner measures the link and both models and chooses; --mode rules.

The text goes to standard output, with controls spelled if that is a terminal;
what it took, and the planner's line, to standard error. Without --draft the draft
is SmolLM2-135M-Instruct without a few of its layers, for the target that sqs serve
has by default. A draft in a GGUF file is run by llama.cpp, which needs neither
torch nor transformers.
"""

EXAMPLES = """\
examples:
  sqs generate --server localhost:8743 --insecure "Why is the sea salty?"
  sqs generate --server localhost:8743 --insecure --mode hints --seed 7 \\
      "Why is the sea salty?"
  SQS_TOKEN=... sqs generate --server llm.example.org:8743 --cert server.pem \\
      --draft Qwen/Qwen2.5-0.5B-Instruct "Why is the sea salty?"
  sqs generate --server localhost:8743 --insecure \\
      --draft SmolLM2-135M-Instruct.Q4_1.gguf "Why is the sea salty?"
"""

MODULES = {"grpc": "grpc", "datagram": "OpenSSL"}
"""What a transport needs."""

SMOLLM2 = bytes.fromhex("37b16c713fbb8efc")
"""The fingerprint of SmolLM2's vocabulary, for which there is a prior."""

PATIENCE = 15.0
"""Seconds that a server surely waits for a session on a connection."""

TEMPLATE = 1024
"""Tokens for what a chat template puts around a prompt."""


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("prompt", help="what to ask; - is standard input")
    add_server(parser.add_argument_group("server").add_argument)
    _add_text(parser.add_argument_group("text").add_argument)
    add = parser.add_argument_group("what is sent").add_argument
    add_mode(add)
    add(
        "--draft-length",
        type=options.number(int, 1, MAX_DRAFT),
        metavar="L",
        help=f"draft rounds of so many tokens, up to {MAX_DRAFT} (default: the "
        "planner chooses)",
    )
    add(
        "--top-k",
        dest="kept",
        type=options.number(int, 1),
        metavar="K",
        help="keep the K most probable tokens (default: the planner chooses)",
    )
    add(
        "--alpha",
        type=options.number(float, 0, 1),
        help="drop this probability mass on average, instead of --top-k",
    )
    options.add_prior(add, default="smollm2 with its vocabulary, else none")
    add_model(parser.add_argument_group("model").add_argument)
    parser.set_defaults(command=run, top_k=None)


def add_mode(add: options.Add) -> None:
    """Add the options that say what a planner may choose from, and by what."""
    add(
        "--mode",
        choices=["auto", *MODES],
        default="auto",
        help="how the text comes (default: the planner chooses)",
    )
    add(
        "--prefer",
        choices=["speed", "bytes"],
        default="speed",
        help="what the planner chooses by, in mode auto (default: %(default)s)",
    )


def add_model(add: options.Add) -> None:
    """Add the options of the draft model."""
    add(
        "--draft",
        metavar="MODEL",
        help="a Hugging Face model, by directory or name, or a file that ends in .gguf",
    )
    add(
        "--drop-layers",
        type=options.number(int, 0, 4),
        metavar="N",
        help=f"how many layers SmolLM2 drafts without, 0 to 4 (default: "
        f"{options.DROP_LAYERS})",
    )
    options.add_loading(add)
    add(
        "--threads",
        type=options.number(int, 1),
        metavar="N",
        help="threads of the draft model (default: 1; with a GGUF file, half of the "
        "cores)",
    )


def add_server(add: options.Add) -> None:
    """Add the options that say where the cloud is."""
    add("--server", required=True, metavar="HOST:PORT", help="where sqs serve listens")
    add(
        "--transport",
        choices=list(MODULES),
        default="grpc",
        help="datagrams cost fewer bytes, but not every network lets them through "
        "(default: %(default)s)",
    )
    add(
        "--cert",
        metavar="FILE",
        help="certificates to trust, PEM: the server's own or its issuer's (default: "
        "those of well-known authorities)",
    )
    add(
        "--token",
        default=os.environ.get("SQS_TOKEN"),
        help="what the server knows its clients by (default: $SQS_TOKEN, which other "
        "users of this machine can't see)",
    )
    add("--insecure", action="store_true", help="plain text, within this machine only")


def _add_text(add: options.Add) -> None:
    options.add_sampling(add, "of both models")
    add(
        "--max-tokens",
        type=options.number(int, 1),
        default=200,
        metavar="N",
        help="the longest answer (default: %(default)s)",
    )
    add(
        "--seed",
        type=options.number(int, 0, 2**64 - 1),
        metavar="N",
        help="gives the same text for the same prompt, alone and with hints; it rules "
        "rounds out (default: a fresh one)",
    )


def run(args: argparse.Namespace) -> int:
    """Write the text to standard output; return the exit status."""
    if args.kept is not None and args.alpha is not None:
        args.usage_error("--top-k and --alpha are two ways to do the same; give one")
    if args.draft_length is not None and args.mode not in ("auto", "rounds"):
        args.usage_error(f"--draft-length is for rounds, not for --mode {args.mode}")
    if args.seed is not None and (args.draft_length or args.mode == "rounds"):
        args.usage_error(
            "--seed rules rounds out: their text depends on what was drafted, too"
        )
    return carry_out(args, _write)


def carry_out(
    args: argparse.Namespace,
    work: Callable[[argparse.Namespace], object],
    *,
    modules: Sequence[str] = (),
    extra: str = "",
) -> int:
    """Check what a command needs to draft with a server, do it, return the status."""
    if args.insecure and args.cert:
        args.usage_error("--insecure goes without --cert")
    if args.draft and args.drop_layers is not None:
        args.usage_error("--drop-layers is for SmolLM2, not for --draft")
    if is_gguf(args.draft) and (found := options.given(args, *options.LOADING)):
        args.usage_error(
            f"--{next(iter(found))} is for models of transformers: llama.cpp runs a "
            f"file in its own types, on the device that it was built for"
        )
    if not _has_packages(args, modules, extra):
        return 1

    # gRPC would write on its own what the errors say in better words.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    options.log_warnings(args.called)
    try:
        work(args)
    # A refusal is a RuntimeError, and so is what llama.cpp's package and torch raise.
    except (ImportError, RuntimeError) as error:
        raise ValueError(str(error)) from error
    return 0


def is_gguf(draft: str | None) -> bool:
    """Whether llama.cpp runs a draft model."""
    return draft is not None and draft.endswith(".gguf")


def _has_packages(args: argparse.Namespace, more: Sequence[str], extra: str) -> bool:
    """Say whether all that is needed can be imported; explain it if it can't."""
    needed, own = [MODULES[args.transport], *more], "serve"
    if is_gguf(args.draft):
        own = "llama-cpp"
        needed += ["llama_cpp"]
    else:
        needed += options.HF_MODULES
        if not args.draft:
            needed += options.SMOLLM2_MODULES
    command = args.called.removeprefix("sqs ")
    return options.has_packages(command, needed, extra=",".join([own, *extra.split()]))


def check_files(args: argparse.Namespace) -> None:
    """Refuse what can be known to be wrong before it takes the time to load a model."""
    host, _ = split_address(args.server)
    if args.insecure:
        require_loopback(host)
    if args.token:
        check_token(args.token)
    if args.cert:
        check_roots(args.cert)
    options.find_prior(args.prior)
    if args.draft and not is_gguf(args.draft) and lacks_folder(args.draft):
        raise ValueError(f"cannot load {args.draft}: there is no such directory")


def _write(args: argparse.Namespace) -> None:
    check_files(args)
    from sqs_codec.system.edge import Edge, FixedPlan

    prompt = sys.stdin.read() if args.prompt == "-" else args.prompt
    checks.utf8("the prompt", prompt)
    if is_gguf(args.draft):
        import_module("sqs_codec.system.llama_cpp")  # or it says what it lacks
    first = connect(args)  # before the model takes its time
    connected = time.monotonic()
    try:
        # Hardly a prompt has more tokens than bytes, and no template many.
        longest = len(prompt.encode()) + TEMPLATE + args.max_tokens
        draft = load(args, longest)
        ids = draft.encode_prompt(prompt)
    except BaseException:
        first.close()
        raise
    links = [first]
    if time.monotonic() - connected > PATIENCE:  # the server has closed it by now
        links.pop().close()
    length = args.draft_length
    edge = Edge(
        draft,
        settings=settings(args, draft),
        planner=None if length is None else FixedPlan(length),
        modes=modes(args),
        prefer=args.prefer,
    )
    steps = edge.generate(
        ids,
        lambda: links.pop() if links else connect(args),
        max_tokens=args.max_tokens,
        sampling=sampling(args, draft),
        seed=args.seed,
    )
    with options.interrupts_raise():
        _show(edge, steps, draft.stream())


def modes(args: argparse.Namespace) -> Sequence[str]:
    """Return the modes that a planner may choose from."""
    return MODES if args.mode == "auto" else [args.mode]


def load(args: argparse.Namespace, longest: int) -> Model:
    """Load the draft model, one of llama.cpp with memory for so many tokens."""
    if sys.stderr.isatty():
        print(f"Loading {shown(args.draft or 'SmolLM2')} to draft ...", file=sys.stderr)
    if is_gguf(args.draft):
        from sqs_codec.system import llama_cpp

        return llama_cpp.Draft(args.draft, n_ctx=longest, threads=args.threads)
    from sqs_codec.system.hf import Draft, load_model

    dropped = options.DROP_LAYERS if args.drop_layers is None else args.drop_layers
    loading = {"device": "auto", "dtype": "auto"}
    loading |= options.given(args, *options.LOADING)
    import torch  # after hf, which says how its threads wait

    # A step of a small model is too short to share.
    torch.set_num_threads(args.threads or 1)
    model = load_model(args.draft, drop_layers=dropped, **loading)
    print(f"Drafting with {shown(model.summary)} {model.placement}", file=sys.stderr)
    return Draft(model.model, model.tokenizer)


def _show(edge: Edge, steps: Iterator[Step], text: Text) -> None:
    try:
        for step in steps:
            said = text.add(step.tokens)
            # A file gets the text as it is.
            if sys.stdout.isatty():
                said = shown(said, None, lines=True)
            print(said, end="", flush=True)
    finally:
        if edge.metrics.tokens:
            print(flush=True)
            print(_summary(edge), file=sys.stderr)


def prior_of(name: str | None, fingerprint: bytes) -> sqs.Prior | None:
    """Return the prior that an option names; if none, that of SmolLM2's tokenizer."""
    if name is None and fingerprint == SMOLLM2:
        name = "smollm2"
    return options.find_prior(name)


def settings(args: argparse.Namespace, draft: Draft) -> list[Setting]:
    """Return the one that was asked for, or those that the planner may choose from."""
    from sqs_codec.system.edge import default_settings
    from sqs_codec.system.session import Setting

    prior = prior_of(args.prior, draft.fingerprint)
    codec = sqs.Codec(draft.vocab_size, prior=prior)
    if args.kept is not None:
        return [Setting(codec, sqs.TopK(args.kept))]
    if args.alpha is not None:
        return [Setting(codec, sqs.Conformal(alpha=args.alpha))]
    return default_settings(draft.vocab_size, prior)


def sampling(args: argparse.Namespace, draft: Model) -> Sampling:
    """Return how texts are drawn: by the options, by the draft's files, by default."""
    from sqs_codec.system.session import Sampling

    own = dict(draft.sampling)
    # Files leave out what is 1.
    default = {"temperature": 1.0 if own else options.TEMPERATURE}
    given = options.given(args, "temperature", "top_k", "top_p", "min_p")
    return Sampling(**default | own | given)


def connect(args: argparse.Namespace) -> Link:
    """Make a link to the server."""
    from sqs_codec.system.serve import connect

    return connect(
        args.server,
        transport=args.transport,
        cert=args.cert,
        token=args.token,
        insecure=args.insecure,
    )


def _summary(edge: Edge) -> str:
    """Say in a few lines what a text took."""
    m = edge.metrics
    lines = [f"{m.tokens} tokens, {m.tokens_per_second:.1f} a second"]
    if m.drafted:
        lines.append(
            f"acceptance {m.acceptance_rate:.0%} of {m.accepted + m.resampled} judged, "
            f"{m.drafted} drafted; {m.tokens / m.answers:.1f} tokens an answer"
        )
    lines.append(
        f"uplink {m.bytes_up} bytes, prompt and handshake included "
        f"({8 * m.bytes_up / m.tokens:.0f} bits a token); downlink {m.bytes_down} bytes"
    )
    lines.append(f"last plan: {m.reason}")
    return "\n".join(lines)
