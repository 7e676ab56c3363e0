"""How many texts one verifier writes in a second.

A server as `sqs serve` runs it, with the real target model, serves edges of another
process that draft for free (`benchmarks.harness.edges`), so all that is waited for is
the verifier. It reads all rounds that wait at once, or one at a time. What varies here
is the machine's time and not prompts, so intervals come from windows of time.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import sqs_codec as sqs
from benchmarks.experiments.estimate import ratio, shown
from benchmarks.experiments.experiment import Options, Records, Task
from benchmarks.experiments.models import load
from benchmarks.harness import edges as crowds
from benchmarks.tables import dim, table
from sqs_codec.engine import BatchEngine
from sqs_codec.hf import Cloud

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from sqs_codec._codec.verify import Verdict
    from sqs_codec.session import Job, Verifier

TITLE = "Texts that one verifier writes in a second"
ALONE = True

WINDOWS = 3
"""Of a turn; each number of edges has `_turns` turns, in which both ways alternate."""

TRANSPORT = "grpc"
"""As `sqs_codec.serve.connect` chooses unless told otherwise."""

BATCHED, SERIAL = "batched", "one by one"

PLENTY = 1 << 40
"""Bytes for keys and values: memory isn't the point here."""


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
    """Return a task for each turn of a number of edges and a way."""
    return [
        Task(f"{name} {edges} {turn}", serve, (name, edges))
        for turn in range(_turns(options))
        for edges in _edges(options)
        for name in (BATCHED, SERIAL)
    ]


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
    cloud = Cloud(
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
    if seen.errors:
        raise RuntimeError(f"edges failed: {seen.errors[0]}")
    counts = [seen.between(i * window, (i + 1) * window) for i in range(WINDOWS)]
    return [
        {"name": name, "edges": edges, "tokens": n, "texts": texts, "seconds": window}
        for n, texts in counts
    ]


def summary(records: Records, options: Options) -> dict[str, Any]:
    """Return rates by number of edges."""
    return {
        "model_name": options.model,
        "windows": WINDOWS * _turns(options),
        "window_seconds": _window(options),
        "served": [_served(records, edges) for edges in _edges(options)],
    }


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
    return [served, dim(note)]
