"""The command ``sqs generate``: a text drafted here and verified by a server."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

from sqs_codec._base import checks
from sqs_codec._base.words import shown
from sqs_codec.cli import drafting, options
from sqs_codec.system._base.protocol import MAX_DRAFT

if TYPE_CHECKING:
    from sqs_codec.system._base.chat import TextStream
    from sqs_codec.system.edge._metrics import Completion, EdgeMetrics

DESCRIPTION = """\
Writes a text with the server of sqs serve: a small draft model runs here, the
server's target model verifies what it proposes, and the text is distributed as
the target's own. It comes in one of three modes: the server writes alone; it is
given hints of what it may write, which it doesn't wait for, and which are the
fastest where the draft is; or rounds are drafted, sent and verified, which can take
the fewest bytes. A planner measures both models and chooses; --mode rules.

The text goes to standard output, with controls spelled if that is a terminal;
what it took, and the planner's line, to standard error. Without --draft the draft
is a small one that comes with the package, for the target that sqs serve has by
default. It needs neither torch nor transformers, and nor does a draft in a GGUF
file, which llama.cpp runs.
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

PATIENCE = 15.0
"""Seconds that a server surely waits for a session on a connection."""


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("prompt", help="what to ask; - is standard input")
    drafting.add_server(parser.add_argument_group("server").add_argument)
    add = parser.add_argument_group("text").add_argument
    options.add_sampling(add, "of both models")
    most = options.number(int, 1)
    add("--max-tokens", **most, default=200, help="the longest answer")
    add(
        "--seed",
        **options.number(int, 0, 2**64 - 1),
        help="gives the same text for the same prompt, alone and with hints; it rules "
        "rounds out (default: a fresh one)",
    )
    add = parser.add_argument_group("what is sent").add_argument
    drafting.add_mode(add)
    add(
        "--draft-length",
        **options.number(int, 1, MAX_DRAFT, "L"),
        help=f"draft rounds of so many tokens, up to {MAX_DRAFT} (default: the "
        "planner chooses)",
    )
    said = "keep the K most probable tokens (default: the planner chooses)"
    add("--top-k", dest="kept", **options.number(int, 1, metavar="K"), help=said)
    said = "drop this probability mass on average, instead of --top-k"
    add("--alpha", **options.number(float, 0, 1, None), help=said)
    options.add_prior(add)
    drafting.add_model(parser.add_argument_group("model").add_argument)
    parser.set_defaults(top_k=None)


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
    return drafting.carry_out(args, _write)


def _write(args: argparse.Namespace) -> None:
    from sqs_codec.system.edge import Edge, FixedPlan

    prompt = sys.stdin.read() if args.prompt == "-" else args.prompt
    checks.utf8("the prompt", prompt)
    first = drafting.connect(args)  # before the model takes its time
    connected = time.monotonic()
    try:
        # Hardly a prompt has more tokens than bytes, and no template many.
        longest = len(prompt.encode()) + drafting.TEMPLATE + args.max_tokens
        draft, tokenizer = drafting.load(args, longest)
        ids = tokenizer.encode_prompt(prompt)
        text = tokenizer.stream(ids)
    except BaseException:
        first.close()
        raise
    links = [first]
    if time.monotonic() - connected > PATIENCE:  # the server has closed it by now
        links.pop().close()
    length = args.draft_length
    planner = None if length is None else FixedPlan(length)
    ways: dict[str, Any] = {"modes": drafting.modes(args), "prefer": args.prefer}
    settings = drafting.settings(args, draft.vocab_size, tokenizer)
    edge = Edge(draft, settings=settings, planner=planner, keep_session=False, **ways)
    steps = edge.generate(
        ids,
        lambda: links.pop() if links else drafting.connect(args),
        max_tokens=args.max_tokens,
        sampling=drafting.sampling(args, tokenizer),
        seed=args.seed,
    )
    if not links:
        steps.metrics.bytes_up, steps.metrics.bytes_down = first.sent, first.received
    with options.interrupts_raise():
        _show(steps, text)


def _show(steps: Completion, text: TextStream) -> None:
    try:
        for step in steps:
            _print(text.add(step.tokens))
    finally:
        if steps.metrics.tokens:
            _print(text.rest())
            print(flush=True)
            print(_summary(steps.metrics), file=sys.stderr)


def _print(said: str) -> None:
    # A file gets the text as it is.
    if sys.stdout.isatty():
        said = shown(said, None, lines=True)
    print(said, end="", flush=True)


def _summary(m: EdgeMetrics) -> str:
    verified, size = m.accepted + m.resampled, (m.bytes_up + m.bytes_down) / m.tokens
    drafted, compared = "nothing was drafted", ""
    if verified:
        drafted = f"{m.acceptance_rate:.0%} of {verified} drafted tokens accepted"
    if verified and m.alone_per_second:
        compared = f"; {m.alone_per_second:.1f} where the cloud wrote alone"
    return (
        f"{m.tokens} tokens, {m.tokens_per_second:.1f} tokens/s{compared}\n{drafted}\n"
        f"{size:.0f} bytes per token: {m.bytes_up} bytes up and {m.bytes_down} down, "
        "with headers and connecting\n"
        f"The last mode: {m.reason}."
    )
