"""The throughput of one verifier.

A server as in `sqs serve`, with the real target model, serves edges of another process
that draft at no cost (`benchmarks.harness.edges`). It verifies all waiting rounds in a
batch, or one at a time. Then recorded models serve edges that draft in stated seconds:
in the modes alone, rounds and hints. Intervals come from windows of time.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

import sqs_codec as sqs
from benchmarks.charts import Panel, estimated
from benchmarks.experiments import measured
from benchmarks.experiments.estimate import ratio, shown
from benchmarks.experiments.experiment import Options, Records, Task, grouped
from benchmarks.experiments.measured import ALONE as CLOUD_ALONE
from benchmarks.experiments.measured import CLOUD, HINTS, ROUNDS, TEMPERATURE
from benchmarks.experiments.models import load
from benchmarks.harness.edges import Came, Crowd, Lookup, run
from benchmarks.harness.recorded import RecordedDraft, TimedVerifier
from benchmarks.tables import dim, table
from sqs_codec.system.edge import FixedPlan, Hints
from sqs_codec.system.engine import BatchEngine
from sqs_codec.system.hf._engine import ThreadedCloud
from sqs_codec.system.session import Setting

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from sqs_codec._codec.verify import Verdict
    from sqs_codec.system.session import Job, Verifier

TITLE = "The throughput of one verifier"
ALONE = True

WINDOWS, TURNS = 3, 2
"""Windows per turn, and turns, in which batched and serial serving alternate."""

TOKENS, ROUND = 24, 4
"""Tokens per completion and round of the real model: few, so that completions begin and
end in each window."""

BATCHED, SERIAL = "batched", "one by one"

MORE = 0.006, 0.001
"""Seconds of the recorded target for each further token of a forward pass."""

WAYS = {
    CLOUD_ALONE: (FixedPlan(0),),
    ROUNDS: (FixedPlan(2), FixedPlan(4)),
    HINTS: (FixedPlan(hints=Hints()),),
}
"""The plans of each mode; the fastest one counts."""


def _window(options: Options) -> float:
    """Return the seconds of a window."""
    return 0.4 if options.quick else 3.5


def places(options: Options) -> list[tuple[str, float]]:
    """Return the model and temperature of the recorded completions."""
    return [(options.model, TEMPERATURE)]


def tasks(options: Options) -> list[Task]:
    """Return a task for each turn, number of edges and way to serve."""
    many, turns = ((2,), 1) if options.quick else ((1, 4, 16, 64), TURNS)
    return [
        Task(f"{name} {edges} {turn}", serve, (name, edges))
        for turn in range(turns)
        for edges in many
        for name in (BATCHED, SERIAL)
    ] + [Task("shared", share)]


class OneByOne(BatchEngine):
    """An engine that gets one job at a time."""

    def __init__(self, verifier: Verifier, *, tokenizer: bytes) -> None:
        super().__init__(verifier, tokenizer=tokenizer)
        self._turn = asyncio.Lock()

    async def verify(self, job: Job) -> Verdict | None:
        """Return the verdict on a job, after those before it."""
        async with self._turn:
            return await super().verify(job)


def serve(options: Options, name: str, edges: int) -> Records:
    """Serve some edges; return the tokens and completions of each window."""
    models = load(options, options.model)
    cloud = ThreadedCloud(
        models.pair.target,
        vocab_size=models.vocab_size,
        tokenizer=models.pair.tokenizer,
        max_memory=1 << 40,  # no limit
    )
    crowd = Crowd(
        edges=edges,
        transport="grpc",
        tokenizer=cloud.fingerprint,
        codec=sqs.Codec(models.vocab_size, prior=models.prior),
        prompts=[[*prompt.tokens] for prompt in models.prompts],
        draft=partial(Lookup, models.vocab_size),
        plan=FixedPlan(ROUND),
        tokens=TOKENS,
    )
    make = BatchEngine if name == BATCHED else OneByOne
    engine, window = make(cloud, tokenizer=cloud.fingerprint), _window(options)
    came = asyncio.run(run(crowd, engine, WINDOWS * window))
    about = {"part": "served", "name": name, "edges": edges, "more": 0, "plan": ""}
    return _windows(came, window, about)


def share(options: Options) -> Records:
    """Serve edges with a recorded target in each mode."""
    models = load(options, options.model)
    (text,) = measured.recorded(options, models, 1)
    window, v, start = _window(options), models.vocab_size, len(text.prompt)
    draft = partial(RecordedDraft.of, v, CLOUD.draft, start, text.draft)
    many, tried = ((2,), 1) if options.quick else ((16, 64), None)
    found = []
    for edges, more, name in itertools.product(many, MORE[:tried], WAYS):
        for plan in WAYS[name][:tried]:
            steps = CLOUD._replace(more=more)
            verifier = TimedVerifier(v, steps)
            verifier.begin(start, np.load(text.target), None)
            crowd = Crowd(
                edges=edges,
                transport="datagram",
                tokenizer=b"",
                codec=Setting.defaults(v, models.prior)[0].codec,
                prompts=[[*text.prompt]],
                draft=draft,
                plan=plan,
                tokens=measured.rows_of(text),
            )
            serving = run(crowd, BatchEngine(verifier), WINDOWS * window, steps.told)
            about = {"part": "shared", "name": name, "edges": edges, "more": more}
            about["plan"] = plan.plan().reason
            found += _windows(asyncio.run(serving), window, about)
    return found


def _windows(came: Came, window: float, about: dict[str, Any]) -> Records:
    """Return the tokens and completions of each window."""
    found = []
    for i in range(WINDOWS):
        here = [(n, done) for at, n, done in came if i <= at / window < i + 1]
        tokens, texts = sum(n for n, _ in here), sum(done for _, done in here)
        found.append({**about, "tokens": tokens, "texts": texts, "seconds": window})
    return found


def summary(records: Records, options: Options) -> dict[str, Any]:
    """Return rates by number of edges."""
    found: dict[str, Any] = {"model_name": options.model, "window": _window(options)}
    for (part, edges, more), of_row in grouped(records, "part", "edges", "more"):
        row = {"edges": edges, "more": more}
        for (name,), of_way in grouped(of_row, "name"):
            rates = [_rates(group) for _, group in grouped(of_way, "plan")]
            row[name] = max(rates, key=lambda rate: rate["value"])
        found.setdefault(part, []).append(row)
    return found


def _rates(records: Records) -> dict[str, float]:
    """Return tokens and completions per second."""
    tokens, texts, seconds = (
        [record[name] for record in records] for name in ("tokens", "texts", "seconds")
    )
    return ratio(tokens, seconds).as_json() | {"texts": sum(texts) / sum(seconds)}


def tables(summary: dict[str, Any]) -> Iterator[Table | Text]:
    """Yield the throughputs."""
    title = f"Tokens per second of one verifier, {summary['model_name']}, gRPC"
    ways = BATCHED, SERIAL
    made = table(title, "edges", *ways, "ratio", "texts/s\nbatched", "one by\none")
    for row in summary["served"]:
        batched, serial = (row[way] for way in ways)
        gain = batched["value"] / serial["value"] if serial["value"] else np.nan
        rates = (shown(row[way], ".1f") for way in ways)
        texts = (f"{row[way]['texts']:.2f}" for way in ways)
        made.add_row(f"{row['edges']}", *rates, f"{gain:.2f}", *texts)
    yield made
    yield dim(
        f"Completions of {TOKENS} tokens in rounds of {ROUND}, which are rarely "
        f"accepted. Intervals of 95 % over windows of {summary['window']:g} s."
    )
    made = table("Tokens per second, recorded target", "edges, per row", *WAYS)
    for row in summary["shared"]:
        rates = (shown(row[name], ".0f") for name in WAYS)
        made.add_row(f"{row['edges']}, {1000 * row['more']:g} ms", *rates)
    yield made
    yield dim(
        "The target takes 120 ms plus the time per further row, a drafted token 15 ms; "
        "rounds of 2 or 4, whichever are faster. Over datagrams, without a link."
    )


def chart(summary: dict[str, Any]) -> list[Panel]:
    """Return the throughputs over the number of edges."""
    served = {
        way: [estimated(row["edges"], row[way]) for row in summary["served"]]
        for way in (BATCHED, SERIAL)
    }
    shared = {
        way: [
            estimated(f"{row['edges']}, {1000 * row['more']:g} ms per row", row[way])
            for row in summary["shared"]
        ]
        for way in WAYS
    }
    return [
        Panel("Tokens per second, real model", served, "edges", log="x"),
        Panel("Tokens per second by edges, recorded models", shared),
    ]
