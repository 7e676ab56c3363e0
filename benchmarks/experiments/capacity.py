"""How many texts one verifier writes in a second.

A server as `sqs serve` runs it, with the real target model, serves edges of another
process that draft for free (`benchmarks.harness.edges`), so all that is waited for is
the verifier. It reads all rounds that wait at once, or one at a time. Then recorded
models serve edges that draft in stated seconds: without drafts, by rounds, by hints.
What varies here is the machine's time and not prompts, so intervals come from windows
of time.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

import sqs_codec as sqs
from benchmarks.charts import Panel, estimated
from benchmarks.experiments import measured
from benchmarks.experiments.estimate import ratio, shown
from benchmarks.experiments.experiment import Check, Options, Records, Task, grouped
from benchmarks.experiments.measured import HINTS, ROUNDS, TEMPERATURE
from benchmarks.experiments.models import load
from benchmarks.harness import edges as crowds
from benchmarks.harness.recorded import RecordedDraft, TimedVerifier
from benchmarks.tables import dim, table
from sqs_codec.system.edge import FixedPlan, Hints, default_settings
from sqs_codec.system.engine import BatchEngine
from sqs_codec.system.hf._engine import ThreadedCloud

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from sqs_codec._codec.verify import Verdict
    from sqs_codec.system.session import Job, Verifier

TITLE = "Texts that one verifier writes in a second"
ALONE = True

WINDOWS = 3
"""Of a turn; each number of edges has `_turns` turns, in which both ways alternate."""

TRANSPORT = "grpc"
"""As `sqs_codec.system.serve.connect` chooses unless told otherwise."""

BATCHED, SERIAL = "batched", "one by one"

SHARED_TRANSPORT = "datagram"

MORE = 0.006, 0.001
"""Seconds of the recorded target for each row but the first."""

WAYS = {
    measured.ALONE: (FixedPlan(0),),
    ROUNDS: (FixedPlan(2), FixedPlan(4)),
    HINTS: (FixedPlan(hints=Hints()),),
}
"""Of several plans the fastest counts."""

PLENTY = 1 << 40
"""Bytes for keys and values: memory isn't the point here."""


def _edges(options: Options) -> tuple[int, ...]:
    return (2,) if options.quick else (1, 4, 16, 64)


def _sharing(options: Options) -> tuple[int, ...]:
    return (2,) if options.quick else (16, 64)


def _turns(options: Options) -> int:
    return 1 if options.quick else 2


def _window(options: Options) -> float:
    """Return its seconds."""
    return 0.4 if options.quick else 3.5


def places(options: Options) -> list[tuple[str, float]]:
    """Return what the texts that are recorded are of; others edges write themselves."""
    return [(options.model, TEMPERATURE)]


def tasks(options: Options) -> list[Task]:
    """Return a task for each turn of a number of edges and a way."""
    return [
        Task(f"{name} {edges} {turn}", serve, (name, edges))
        for turn in range(_turns(options))
        for edges in _edges(options)
        for name in (BATCHED, SERIAL)
    ] + [Task("shared", share)]


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
    models = load(options, options.model)
    cloud = ThreadedCloud(
        models.pair.target,
        vocab_size=models.vocab_size,
        tokenizer=models.pair.tokenizer,
        max_memory=PLENTY,
    )
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
    return _windows(seen, window, {"name": name, "edges": edges})


def share(options: Options) -> Records:
    """Let edges share a recorded target in each way."""
    models = load(options, options.model)
    (text,) = measured.recorded(options, models, 1)
    window, v, start = _window(options), models.vocab_size, len(text.prompt)
    draft = partial(RecordedDraft.of, v, measured.CLOUD.draft, start, text.draft)
    crowd = crowds.Crowd(
        port=0,
        transport=SHARED_TRANSPORT,
        tokenizer=b"",
        codec=default_settings(v, models.prior)[0].codec,
        prompts=[[*text.prompt]],
        edges=0,
        draft=draft,
        tokens=measured.rows_of(text),
    )
    found = []
    tried = 1 if options.quick else None
    for edges, more, name in itertools.product(_sharing(options), MORE[:tried], WAYS):
        steps = measured.CLOUD._replace(more=more)
        for plan in WAYS[name][:tried]:
            verifier = TimedVerifier(v, steps)
            verifier.begin(start, np.load(text.target), None)
            given = replace(crowd, edges=edges, plan=plan)
            engine = BatchEngine(verifier)
            seen = asyncio.run(crowds.run(given, engine, WINDOWS * window, steps.told))
            about = {"name": name, "edges": edges, "more": more, "plan": plan.reason}
            found += _windows(seen, window, about)
    return found


def _windows(seen: crowds.Seen, window: float, about: dict[str, Any]) -> Records:
    """Return tokens and texts by window."""
    if seen.errors:
        raise RuntimeError(f"edges failed: {seen.errors[0]}")
    counts = [seen.between(i * window, (i + 1) * window) for i in range(WINDOWS)]
    return [{**about, "tokens": n, "texts": t, "seconds": window} for n, t in counts]


def summary(records: Records, options: Options) -> dict[str, Any]:
    """Return rates by number of edges."""
    shared = [record for record in records if "more" in record]
    return {
        "model_name": options.model,
        "windows": WINDOWS * _turns(options),
        "window_seconds": _window(options),
        "served": [_served(records, edges) for edges in _edges(options)],
        "shared": [_shared(group) for _, group in grouped(shared, "edges", "more")],
    }


def _shared(records: Records) -> dict[str, Any]:
    """Return what edges that share a target are served in each way."""
    found: dict[str, Any] = {name: records[0][name] for name in ("edges", "more")}
    for (name,), ways in grouped(records, "name"):
        rates = [
            ratio([r["tokens"] for r in group], [r["seconds"] for r in group])
            for _, group in grouped(ways, "plan")
        ]
        found[name] = max(rates, key=lambda rate: rate.value).as_json()
    return found


def _served(records: Records, edges: int) -> dict[str, Any]:
    """Return what so many edges were served both ways, and the ratio."""
    found: dict[str, Any] = {"edges": edges}
    tokens = {}
    for name in (BATCHED, SERIAL):
        mine = [r for r in records if (r["name"], r["edges"]) == (name, edges)]
        seconds = [r["seconds"] for r in mine]
        tokens[name] = [r["tokens"] for r in mine]
        found[name] = {
            "tokens": ratio(tokens[name], seconds).as_json(),
            "texts": ratio([r["texts"] for r in mine], seconds).as_json(),
        }
    if min(tokens[SERIAL]) > 0:
        found["gain"] = ratio(tokens[BATCHED], tokens[SERIAL]).as_json()
    return found


def checks(summary: dict[str, Any]) -> list[Check]:
    """Return the bar: hints serve no less than what there is without them."""
    if summary["window_seconds"] < 1:  # in miniature
        return []
    gains = {
        f"{row['edges']} edges, {1000 * row['more']:g} ms a row": row[HINTS]["value"]
        / max(row[measured.ALONE]["value"], row[ROUNDS]["value"])
        for row in summary["shared"]
    }
    return [
        Check(
            "hints serve at least the tokens of rounds and of the cloud alone",
            min(gains.values()) >= 1,
            "; ".join(f"{where}: {gain:.2f}" for where, gain in gains.items()),
        )
    ]


def tables(summary: dict[str, Any]) -> list[Table | Text]:
    """Return what is served."""
    served = table(
        f"Tokens a second by one verifier of {summary['model_name']}, over gRPC",
        *("edges", "batched", "one by one", "times"),
        *("texts/s\nbatched", "one by\none"),
    )
    for row in summary["served"]:
        ways = row[BATCHED], row[SERIAL]
        served.add_row(
            str(row["edges"]),
            *(shown(way["tokens"], ".1f") for way in ways),
            f"{row['gain']['value']:.2f}" if "gain" in row else "",
            *(f"{way['texts']['value']:.2f}" for way in ways),
        )
    windows, seconds = summary["windows"], summary["window_seconds"]
    note = (
        f"Texts of {crowds.MAX_TOKENS} tokens, in rounds of {crowds.ROUND} that are "
        f"seldom right. Intervals of 95 % are over {windows} windows of {seconds:g} s: "
        "prompts aren't what varies here."
    )
    shared = table("Tokens a second by a recorded target", "edges, a row", *WAYS)
    for row in summary["shared"]:
        rates = (shown(row[name], ".0f") for name in WAYS)
        shared.add_row(f"{row['edges']}, {1000 * row['more']:g} ms", *rates)
    drafting = (
        "The target takes 120 ms and so much for each row more, a drafted token 15 ms; "
        "rounds of 2 or 4, whichever are faster. Over datagrams, without a link."
    )
    return [served, dim(note), shared, dim(drafting)]


def chart(summary: dict[str, Any]) -> list[Panel]:
    """Show what a verifier serves to more and more edges, and in which way most."""
    served = {
        name: [estimated(row["edges"], row[way]["tokens"]) for row in summary["served"]]
        for way, name in ((BATCHED, "batched"), (SERIAL, "one by one"))
    }
    shared = {
        way: [
            estimated(f"{row['edges']}, {1000 * row['more']:g} ms a row", row[way])
            for row in summary["shared"]
        ]
        for way in WAYS
    }
    return [
        Panel("Tokens a second, real model", served, "edges", log="x"),
        Panel("Tokens a second by edges, recorded models", shared),
    ]
