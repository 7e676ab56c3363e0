"""How many texts one verifier writes in a second, and what a round costs where.

A server as `sqs serve` runs it, with the real target model, serves edges of another
process that draft for free (`benchmarks.serve.edges`), so all that is waited for is the
verifier. It reads all rounds that wait at once, or one at a time. Then the parts of a
round are timed by themselves: the codec, the wire and the model. What varies here is
the machine's time and not prompts, so intervals come from windows of time.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import sqs_codec as sqs
from benchmarks.experiments.estimate import ratio
from benchmarks.experiments.experiment import Check, Options, Records, Task
from benchmarks.serve.edges import MAX_TOKENS, ROUND, Crowd
from benchmarks.tables import dim, table
from sqs_codec.engine import BatchEngine
from sqs_codec.serve import connect

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table
    from rich.text import Text

    from benchmarks.experiments.models import Models
    from sqs_codec._codec.verify import Verdict, Wanted
    from sqs_codec.session import Job, Verifier

TITLE = "Texts that one verifier writes in a second, and what a round costs"
ALONE = True

WINDOWS = 3
"""Of a turn; each number of edges has `_turns` turns, in which both ways alternate."""

REPEATS = 5
"""Windows in which a part is timed by itself."""

TRANSPORT = "grpc"
"""As `sqs_codec.serve.connect` chooses unless told otherwise."""

BATCHED, SERIAL = "batched", "one by one"
WIRES = ("grpc", "datagram")

PLENTY = 1 << 40
"""Bytes for keys and values: memory isn't the point here."""

PACKET, ANSWER = 100, 4
"""Bytes of a round and of its answer, as `benchmarks.wire` has them."""

HOST = "127.0.0.1"


def _edges(options: Options) -> tuple[int, ...]:
    return (1, 4) if options.quick else (1, 4, 16, 64)


def _turns(options: Options) -> int:
    return 1 if options.quick else 2


def _window(options: Options) -> float:
    """Return its seconds."""
    return 0.4 if options.quick else 3.5


def needs(options: Options) -> set[tuple[str, float]]:
    """Return no texts: edges write their own."""
    return set()


def tasks(options: Options) -> list[Task]:
    """Return a task for each part, and for each turn of a number of edges and a way."""
    parts = [Task(f.__name__, f) for f in (time_codec, time_wire, time_model)]
    served = [
        Task(f"{name} {edges} {turn}", serve, (name, edges))
        for turn in range(_turns(options))
        for edges in _edges(options)
        for name in (BATCHED, SERIAL)
    ]
    return [*parts, *served]


class OneByOne(BatchEngine):
    """The same engine, which is given a job when it is done with the one before."""

    def __init__(self, verifier: Verifier, *, tokenizer: bytes) -> None:
        super().__init__(verifier, tokenizer=tokenizer)
        self._turn = asyncio.Lock()

    async def verify(self, job: Job) -> Verdict | Wanted | None:
        """Return the verdict on a job, once those before it have theirs."""
        async with self._turn:
            return await super().verify(job)


def serve(options: Options, name: str, edges: int) -> Records:
    """Serve so many edges; return the tokens and texts of each window."""
    from benchmarks.serve.sockets import run

    models = _models(options)
    cloud = _cloud(models)
    crowd = Crowd(
        port=0,
        transport=TRANSPORT,
        tokenizer=cloud.fingerprint,
        codec=sqs.Codec(models.vocab_size, prior=models.prior),
        prompts=[[*prompt.tokens] for prompt in models.prompts],
        edges=edges,
    )
    make = BatchEngine if name == BATCHED else OneByOne
    engine = make(cloud, tokenizer=cloud.fingerprint)
    window = _window(options)
    seen = asyncio.run(run(crowd, engine, WINDOWS * window, []))
    if seen.errors:
        raise RuntimeError(f"edges failed: {seen.errors[0]}")
    counts = [seen.between(i * window, (i + 1) * window) for i in range(WINDOWS)]
    return [
        {"name": name, "edges": edges, "tokens": n, "texts": texts, "seconds": window}
        for n, texts in counts
    ]


def _models(options: Options) -> Models:
    from benchmarks.experiments.models import load

    return load(options, options.model)


def _cloud(models: Models) -> Any:
    from sqs_codec.hf import Cloud

    pair = models.pair
    return Cloud(
        pair.target,
        vocab_size=pair.vocab_size,
        tokenizer=pair.tokenizer,
        max_memory=PLENTY,
    )


def _played(options: Options) -> list[list[Any]]:
    """Play a few rounds of a few sessions with the real draft model."""
    from benchmarks.serve.replay import play

    models = _models(options)
    prompts, rounds = (1, 3) if options.quick else (4, 6)
    texts = [[*prompt.tokens] for prompt in models.prompts[:prompts]]
    return play(models.pair, _cloud(models), texts, rounds, options.seed)


def _timed(
    name: str, function: Callable[[], object], times: int, rounds: int = 1
) -> Records:
    """Call a function so many times in each window; one more call isn't timed."""
    function()
    found = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        for _ in range(times):
            function()
        spent = time.perf_counter() - began
        found.append({"name": name, "seconds": spent, "rounds": times * rounds})
    return found


def time_codec(options: Options) -> Records:
    """Time what quantizes five rows of SmolLM2 and codes the round both ways."""
    from benchmarks.serve import replay
    from benchmarks.sources import shipped

    source = shipped()
    session = source.sessions[0]
    rows = [np.asarray(session.draft[i], np.float32) for i in range(replay.ROUND)]
    prior = sqs.Prior.builtin("smollm2")
    codec = sqs.Codec(source.vocab_size, replay.RESOLUTION, prior=prior)
    keep, temperature = sqs.TopK(replay.K), replay.TEMPERATURE

    def quantize() -> list[sqs.SparseDistribution]:
        return [codec.quantize(row, keep, temperature=temperature) for row in rows]

    drafts, rng = quantize(), np.random.default_rng(options.seed)
    tokens = [q.sample(rng) for q in drafts]
    data = codec.encode_round(drafts, tokens)
    times = 50 if options.quick else 1000
    return [
        *_timed("quantize", quantize, times),
        *_timed("encode", lambda: codec.encode_round(drafts, tokens), times),
        *_timed("decode", lambda: codec.decode_round(data), times),
    ]


def time_wire(options: Options) -> Records:
    """Time the round trip of a message that is answered at once."""
    return [record for transport in WIRES for record in _time_wire(options, transport)]


def _time_wire(options: Options, transport: str) -> Records:
    from benchmarks.wire.certificates import issue
    from benchmarks.wire.echo import TOKEN, EchoService, running
    from sqs_codec.serve import start_datagrams, start_grpc

    service: Any = EchoService(lambda message: bytes(ANSWER))
    start = start_grpc if transport == "grpc" else start_datagrams
    with tempfile.TemporaryDirectory() as folder:
        issued = issue(Path(folder), HOST)
        begin = partial(start, service, HOST, 0, cert=issued.cert, key=issued.key)
        with running(begin) as server:
            link = connect(
                f"{HOST}:{server.port}",
                transport=transport,
                cert=issued.cert,
                token=TOKEN,
            )

            def echo() -> None:
                link.send(bytes(PACKET))
                assert link.receive(10) is not None

            found = _timed(transport, echo, 20 if options.quick else 400)
            link.close()
    return found


def time_model(options: Options) -> Records:
    """Time the target on rounds of so many sessions at once."""
    from benchmarks.serve.replay import Replay

    models, played = _models(options), _played(options)
    found = []
    for edges in _edges(options):
        cloud, replay = _cloud(models), Replay(played, edges)
        replay.fill(cloud)
        times = 1 if options.quick else max(1, 16 // edges)
        turn = partial(replay.turn, cloud)
        for record in _timed("model", turn, times, edges):
            found.append({**record, "edges": edges})
    return found


def summary(records: Records, options: Options) -> dict[str, Any]:
    """Return rates by number of edges, and seconds of a round by part."""
    served = [_served(records, edges) for edges in _edges(options)]
    parts = {
        name: _seconds_of(records, name=name)
        for name in ("quantize", "encode", "decode", *WIRES)
    }
    model = [
        {"edges": n, **_seconds_of(records, name="model", edges=n)}
        for n in _edges(options)
    ]
    return {
        "model_name": options.model,
        "windows": WINDOWS * _turns(options),
        "window_seconds": _window(options),
        "served": served,
        "parts": parts,
        "model": model,
    }


def _served(records: Records, edges: int) -> dict[str, Any]:
    """Return what so many edges were served both ways, and the ratio."""
    found: dict[str, Any] = {"edges": edges}
    tokens = {}
    for name in (BATCHED, SERIAL):
        mine = _of(records, name=name, edges=edges)
        seconds = [r["seconds"] for r in mine]
        tokens[name] = [r["tokens"] for r in mine]
        found[name] = {
            "tokens": ratio(tokens[name], seconds).as_json(),
            "texts": ratio([r["texts"] for r in mine], seconds).as_json(),
        }
    if min(tokens[SERIAL]) > 0:
        found["gain"] = ratio(tokens[BATCHED], tokens[SERIAL]).as_json()
    return found


def _seconds_of(records: Records, **which: object) -> dict[str, float]:
    """Return the seconds of a round."""
    mine = _of(records, **which)
    return ratio([r["seconds"] for r in mine], [r["rounds"] for r in mine]).as_json()


def _of(records: Records, **which: object) -> Records:
    return [r for r in records if which.items() <= r.items()]


def checks(summary: dict[str, Any]) -> list[Check]:
    """Return nothing: no theorem says how fast a machine is."""
    return []


def tables(summary: dict[str, Any]) -> list[Table | Text]:
    """Return what is served, and what a round costs."""
    served = table(
        f"Tokens a second by one verifier of {summary['model_name']}, over gRPC",
        *("edges", "batched", "95 %", "one by\none", "95 %", "times"),
        *("texts/s\nbatched", "one by\none"),
    )
    for row in summary["served"]:
        batched, serial = row[BATCHED], row[SERIAL]
        gain = f"{row['gain']['value']:.2f}" if "gain" in row else ""
        served.add_row(
            str(row["edges"]),
            *_figures(batched["tokens"]),
            *_figures(serial["tokens"]),
            gain,
            *(f"{way['texts']['value']:.2f}" for way in (batched, serial)),
        )
    windows, seconds = summary["windows"], summary["window_seconds"]
    note = dim(
        f"Texts of {MAX_TOKENS} tokens, in rounds of {ROUND} that are seldom right. "
        f"Intervals are over {windows} windows of {seconds:g} s: prompts aren't what "
        "varies here."
    )
    return [served, note, *_costs(summary)]


def _figures(estimate: dict[str, float], scale: float = 1.0) -> tuple[str, str]:
    """Return an estimate, and its interval."""
    value, low, high = (
        _short(estimate[k] * scale, 3) for k in ("value", "low", "high")
    )
    return value, f"{low} to {high}"


def _short(value: float, digits: int) -> str:
    """Return a number of so many digits, without an exponent if it is a large one."""
    return f"{float(f'{value:.{digits}g}'):g}"


NAMES = {
    "quantize": "codec: quantize five rows",
    "encode": "codec: encode",
    "decode": "codec: decode",
    "grpc": "wire: gRPC, to and fro",
    "datagram": "wire: datagrams, to and fro",
}


def _costs(summary: dict[str, Any]) -> list[Table | Text]:
    made = table("What a round costs", "", "ms", "95 %", "% of one\nedge's round")
    alone = summary["model"][0]["value"]
    coded = sum(summary["parts"][name]["value"] for name in NAMES if name != "datagram")
    parts = [(NAMES[name], each) for name, each in summary["parts"].items()]
    parts += [
        (f"model: of {each['edges']} at once, each", each) for each in summary["model"]
    ]
    for name, each in parts:
        share = _short(100 * each["value"] / (alone + coded), 2)
        made.add_row(name, *_figures(each, 1000), share)
    note = "A round of five drafted tokens (K = 64, l = 100); this machine's loopback."
    return [made, dim(note)]


def plot(summary: dict[str, Any], figure: Figure) -> None:
    """Draw tokens per second by edges, and what a round costs."""
    figure.set_size_inches(10, 4)
    left, right = figure.subplots(1, 2)
    for name, mark in ((BATCHED, "o-"), (SERIAL, "s--")):
        rows = [row[name]["tokens"] for row in summary["served"]]
        edges = [row["edges"] for row in summary["served"]]
        left.errorbar(edges, *_bars(rows), fmt=mark, capsize=3, label=name)
    left.set_xscale("log", base=2)
    left.set_xticks(edges, [f"{n}" for n in edges])
    left.set(xlabel="edges", ylabel="tokens per second", ylim=(0, None))
    left.legend()
    costs = {NAMES[name]: each for name, each in summary["parts"].items()}
    costs |= {f"model: {each['edges']} at once": each for each in summary["model"]}
    values = [1000 * each["value"] for each in costs.values()]
    right.barh(range(len(costs)), values)
    right.set_yticks(range(len(costs)), costs)
    right.invert_yaxis()
    right.set(xscale="log", xlabel="ms of a round")


def _bars(rows: list[dict[str, float]]) -> tuple[list[float], list[list[float]]]:
    """Return values, and how far the intervals reach below and above."""
    values = [row["value"] for row in rows]
    below = [row["value"] - row["low"] for row in rows]
    above = [row["high"] - row["value"] for row in rows]
    return values, [below, above]
