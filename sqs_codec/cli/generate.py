"""The command ``sqs generate``: a completion with a draft here and a target server."""

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
Generates text with sqs serve. A small draft model runs here. The server's target
model verifies its tokens, so the text has the target's output distribution.
There are three modes. In mode alone the server decodes, and nothing is drafted.
With hints the server decodes without waiting, and this end sends predictions
that save it forward passes: often the fastest mode. In rounds this end drafts
tokens and sends them with their distributions: often the fewest bytes. A planner
measures both models and chooses a mode; --mode overrides it.

Text goes to stdout (on a terminal, control characters are escaped), statistics
to stderr. Without --draft, the draft is a small model that comes with the
package, for the default target of sqs serve. It needs neither torch nor
transformers; nor does a draft in a GGUF file, which llama.cpp runs.
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
"""Seconds that every server waits for a session on a new connection."""


def fill(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", help="prompt; - reads standard input")
    drafting.add_server(parser.add_argument_group("server").add_argument)
    add = parser.add_argument_group("text").add_argument
    options.add_sampling(add, "temperature of both models")
    most = options.number(int, 1)
    add("--max-tokens", **most, default=200, help="maximum number of tokens")
    add(
        "--seed",
        **options.number(int, 0, 2**64 - 1),
        help="reproduces a text for the same prompt, alone or with hints; excludes "
        "rounds (default: a fresh one)",
    )
    add = parser.add_argument_group("what is sent").add_argument
    drafting.add_mode(add)
    add(
        "--draft-length",
        **options.number(int, 1, MAX_DRAFT, "L"),
        help=f"draft rounds of L tokens, up to {MAX_DRAFT} (default: the planner "
        "chooses)",
    )
    said = "keep the K most probable tokens (default: the planner chooses)"
    add("--top-k", dest="kept", **options.number(int, 1, metavar="K"), help=said)
    said = "average probability mass to drop, instead of --top-k"
    add("--alpha", **options.number(float, 0, 1, None), help=said)
    options.add_prior(add)
    drafting.add_model(parser.add_argument_group("model").add_argument)
    parser.set_defaults(top_k=None)


def run(args: argparse.Namespace) -> int:
    if args.kept is not None and args.alpha is not None:
        args.usage_error("--top-k and --alpha exclude each other")
    if args.draft_length is not None and args.mode not in ("auto", "rounds"):
        args.usage_error(f"--draft-length needs rounds, got --mode {args.mode}")
    if args.seed is not None and (args.draft_length or args.mode == "rounds"):
        args.usage_error("--seed excludes rounds, whose text isn't reproducible")
    return drafting.carry_out(args, _write)


def _write(args: argparse.Namespace) -> None:
    from sqs_codec.system.edge import Edge, FixedPlan

    prompt = sys.stdin.read() if args.prompt == "-" else args.prompt
    checks.utf8("the prompt", prompt)
    first = drafting.connect(args)  # fails before the model is loaded
    connected = time.monotonic()
    try:
        # A prompt has at most as many tokens as bytes, and templates are short.
        longest = len(prompt.encode()) + drafting.TEMPLATE + args.max_tokens
        draft, tokenizer = drafting.load(args, longest)
        ids = tokenizer.encode_prompt(prompt)
        text = tokenizer.stream(ids)
    except BaseException:
        first.close()
        raise
    links = [first]
    if time.monotonic() - connected > PATIENCE:  # the server may have closed it
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
    # Files get the text unchanged.
    if sys.stdout.isatty():
        said = shown(said, None, lines=True)
    print(said, end="", flush=True)


def _summary(m: EdgeMetrics) -> str:
    verified, size = m.accepted + m.resampled, (m.bytes_up + m.bytes_down) / m.tokens
    drafted, compared = "nothing was drafted", ""
    if verified:
        drafted = f"{m.acceptance_rate:.0%} of {verified} drafted tokens accepted"
    if verified and m.alone_per_second:
        compared = f"; {m.alone_per_second:.1f} in mode alone"
    return (
        f"{m.tokens} tokens, {m.tokens_per_second:.1f} tokens/s{compared}\n{drafted}\n"
        f"{size:.0f} bytes per token: {m.bytes_up} bytes up and {m.bytes_down} down, "
        "including headers and handshake\n"
        f"Last mode: {m.reason}."
    )
