"""How many texts one verifier writes in a second, and what a round costs where.

A server as `sqs serve` runs it, with the real target model, serves edges of another
process that draft for free (`benchmarks.harness.edges`), so all that is waited for is
the verifier. It reads all rounds that wait at once, or one at a time. Then the parts of
a round are timed by themselves: the codec, the wire and the model. What varies here is
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
from benchmarks.experiments.experiment import Options, Records, Task
from benchmarks.experiments.models import Models, load
from benchmarks.harness import RESOLUTION, TEMPERATURE, K, measure, sessions
from benchmarks.harness import ROUND as DRAFTED
from benchmarks.harness import edges as crowds
from benchmarks.harness.serving import HOST, STARTS
from benchmarks.sources import shipped
from benchmarks.tables import dim, table
from benchmarks.wire.certificates import issue
from benchmarks.wire.echo import TOKEN, EchoService, running
from sqs_codec.engine import BatchEngine
from sqs_codec.hf import Cloud
from sqs_codec.serve import connect

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from sqs_codec._codec.verify import Verdict
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


def _edges(options: Options) -> tuple[int, ...]:
    return (1, 4) if options.quick else (1, 4, 16, 64)


def _turns(options: Options) -> int:
    return 1 if options.quick else 2


def _window(options: Options) -> float:
    """Return its seconds."""
    return 0.4 if options.quick else 3.5


def places(options: Options) -> list[tuple[str, float]]:
    """Return none: edges write their own texts."""
    return []


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

    async def verify(self, job: Job) -> Verdict | None:
        """Return the verdict on a job, once those before it have theirs."""
        async with self._turn:
            return await super().verify(job)


def serve(options: Options, name: str, edges: int) -> Records:
    """Serve so many edges; return the tokens and texts of each window."""
    models = _models(options)
    cloud = _cloud(models)
    crowd = crowds.Crowd(
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
    seen = asyncio.run(crowds.run(crowd, engine, WINDOWS * window))
    if seen.errors:
        raise RuntimeError(f"edges failed: {seen.errors[0]}")
    counts = [seen.between(i * window, (i + 1) * window) for i in range(WINDOWS)]
    return [
        {"name": name, "edges": edges, "tokens": n, "texts": texts, "seconds": window}
        for n, texts in counts
    ]


def _models(options: Options) -> Models:
    return load(options, options.model)


def _cloud(models: Models) -> Any:
    pair = models.pair
    return Cloud(
        pair.target,
        vocab_size=pair.vocab_size,
        tokenizer=pair.tokenizer,
        max_memory=PLENTY,
    )


def _timed(name: str, function: Callable[[], object], times: int) -> Records:
    """Call a function so many times in each window; one more call isn't timed."""
    function()
    found = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        for _ in range(times):
            function()
        spent = time.perf_counter() - began
        found.append({"name": name, "seconds": spent, "rounds": times})
    return found


def time_codec(options: Options) -> Records:
    """Time what quantizes five rows of SmolLM2 and codes the round both ways."""
    source = shipped()
    session = source.sessions[0]
    rows = [np.asarray(session.draft[i], np.float32) for i in range(DRAFTED)]
    prior = sqs.Prior.builtin("smollm2")
    codec = sqs.Codec(source.vocab_size, RESOLUTION, prior=prior)

    def quantize() -> list[sqs.SparseDistribution]:
        keep = sqs.TopK(K)
        return [codec.quantize(row, keep, temperature=TEMPERATURE) for row in rows]

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
    service: Any = EchoService(lambda message: bytes(ANSWER))
    with tempfile.TemporaryDirectory() as folder:
        issued = issue(Path(folder), HOST)
        files = {"cert": issued.cert, "key": issued.key}
        begin = partial(STARTS[transport], service, HOST, 0, **files)
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
    models = _models(options)
    prompts, rounds = (1, 3) if options.quick else (4, 6)
    texts = [[*prompt.tokens] for prompt in models.prompts[:prompts]]
    seed = [options.seed]
    played = sessions.play(_cloud(models), models.pair, texts, rounds, seed)
    found = []
    for edges in _edges(options):
        times = 1 if options.quick else max(1, 16 // edges)
        engine = BatchEngine(_cloud(models), tokenizer=b"")
        case = measure.Case("model", engine, played, edges)
        asyncio.run(measure.run([case], REPEATS * times, 0))
        for i in range(0, REPEATS * times, times):
            done, _, seconds = np.sum(case.turns[i : i + times], axis=0).tolist()
            cell = {"name": "model", "edges": edges}
            found.append({**cell, "rounds": int(done), "seconds": seconds})
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
        f"Texts of {crowds.MAX_TOKENS} tokens, in rounds of {crowds.ROUND} that are "
        "seldom right. "
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
