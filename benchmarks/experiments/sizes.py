"""Small drafts, from 0.1 % of their target's size: what size buys, and where it pays.

Small drafts are the files MODEL-SIZE.npz of a folder, such as smollm2-2.5M.npz, from
`benchmarks.sizes train`. They are compared with the target without some layers. All
read completions of the target at the temperature that generated them. A small draft's
step is measured; times of other models and links are stated. Rounds are computed as in
`counted`, hints simulated.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

import sqs_codec as sqs
from benchmarks.charts import Panel, Point, estimated
from benchmarks.experiments.counted import UPLINKS, Count, Uplink, counts, fastest
from benchmarks.experiments.estimate import draws, near, of_draws, ratio, shown
from benchmarks.experiments.experiment import NAMES, Options, Records, Task, grouped
from benchmarks.experiments.models import GEMMA3, Models, load
from benchmarks.experiments.temperature import C_SQS, DEFAULTS, K_SQS
from benchmarks.experiments.traces import Trace, traces
from benchmarks.harness import cells
from benchmarks.harness.recorded import STEPS
from benchmarks.schemes import Row, Rule, codec, paper_bits
from benchmarks.tables import dim, table
from sqs_codec.system.edge import FixedPlan, Hints
from sqs_codec.system.hf import ModelError
from sqs_codec.system.hf._models import HFModel
from sqs_codec.system.session import Setting
from sqs_codec.system.small import Draft
from sqs_codec.system.small._file import SHAPES
from tests.relay import Link
from tests.world import Steps

TITLE = "Drafts of a thousandth of their target and more"
ALONE = True

TEMPERATURES, QUICK_TEMPERATURES = (0.3, 0.7, 1.0), (0.7,)
PROMPTS = {GEMMA3: 20}
"""Prompts, two of each kind; other models use all."""

TIMED = 10
"""Completions that are timed: two of each of SmolLM2's kinds."""

PAYS = 1.05
"""The speed relative to the cloud alone from which a draft pays."""

SLOWEST = 0.1
"""Tokens per second of a target slower than any real one."""

PLACES = [(cloud, uplink) for cloud in STEPS for uplink in UPLINKS]
PARTS = ("mismatch", "sparsification", "quantization")
WAYS = {"speed": "rounds", "hints": "hints"}
SUMS = ("accepted", "formula", "ours", *PARTS)

Floats = NDArray[np.float64]


class Sized(NamedTuple):
    """A draft and its number of parameters."""

    name: str
    parameters: int
    embeddings: int
    """The parameters in embeddings."""
    model: Draft | None
    """None for the pair's own draft: the trace has its logits."""

    def read(self, text: list[int], trace: Trace) -> tuple[NDArray[np.float32], float]:
        """Return its logits for a completion [n, V], and the seconds per step."""
        if self.model is None:
            return trace.draft, STEPS["slow"].draft
        small, rows, steps = self.model.twin(), [], []
        small.logits(text[: 1 - len(trace) or None])
        for end in range(len(text) - len(trace) + 1, len(text) + 1):
            began = time.perf_counter()
            rows.append(small.logits(text[:end])[0])
            steps.append(time.perf_counter() - began)
        return np.array(rows), float(np.median(steps))


def places(options: Options) -> list[tuple[str, float]]:
    """Return the models and temperatures of the completions."""
    return options.places(TEMPERATURES, QUICK_TEMPERATURES)


def tasks(options: Options) -> list[Task]:
    """Return a task for each place; its key depends on the files' contents."""
    found = []
    for name, temperature in places(options):
        files = sha256(b"".join(p.read_bytes() for p in _files(options, name)))
        key = f"{name} {temperature:g} {files.hexdigest()[:8]}"
        found.append(Task(key, measure, (name, temperature)))
    return found


def _files(options: Options, name: str) -> list[Path]:
    return sorted((options.drafts or options.folder / "drafts").glob(f"{name}-*.npz"))


def measure(options: Options, name: str, temperature: float) -> Records:
    """Measure all drafts on a target's completions, some of them over links."""
    models = load(options, name)
    own = models.pair.draft
    drafts = [
        *small_drafts(options, models),
        Sized(
            f"{models.dropped} layers less" if models.dropped else "given",
            weights(own),
            own.get_input_embeddings().weight.numel(),
            None,
        ),
    ]
    rules = {name: setting.keep() for name, setting in DEFAULTS.items()}
    states = {
        (d.name, name): keep.start() for d in drafts for name, keep in rules.items()
    }
    about: dict[str, Any] = {"model": name, "temperature": temperature}
    records: Records = []
    for trace in traces(options, name, temperature, prompts=PROMPTS.get(name)):
        text = [*models.prompts[trace.prompt].tokens, *trace.tokens[:-1]]
        for draft in drafts:
            logits, step = draft.read(text, trace)
            pairs = zip(logits, trace.target, strict=True)
            rows = [Row(*pair, temperature) for pair in pairs]
            record = about | {"draft": draft.name, "step": step}
            record |= {"parameters": draft.parameters, "embeddings": draft.embeddings}
            record |= {"prompt": trace.prompt, "kind": trace.kind, "timed": []}
            record |= {"rows": len(trace)}
            record["counts"] = counts(models, rows, trace.tokens)
            for rule, keep in rules.items():
                at = draft.name, rule
                record[rule], states[at] = losses(
                    models, rows, keep, states[at], rule == C_SQS
                )
            if trace.prompt < TIMED:
                record["timed"] = _simulated(models, (logits, trace.target), record)
            records.append(record)
    return records


def weights(model: HFModel) -> int:
    """Return a model's number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def small_drafts(options: Options, models: Models) -> list[Sized]:
    """Return the drafts of files; ModelError if one isn't for this target."""
    vocabulary = models.pair.tokenizer.get_vocab()
    known = sqs.vocabulary_fingerprint(vocabulary, models.vocab_size)
    found = []
    for path in _files(options, models.name):
        try:
            small = Draft(path)
        except ValueError as error:
            raise ModelError(str(error)) from error
        if small.tokenizer.fingerprint != known:
            raise ModelError(f"{path} is a draft for another tokenizer")
        name = path.stem.removeprefix(f"{models.name}-")
        with np.load(path) as arrays:
            parameters = sum(arrays[part].size for part in SHAPES)
            found.append(Sized(name, parameters, arrays["embedding"].size, small))
    return found


def losses(
    models: Models, rows: Sequence[Row], keep: Rule, state: float, conformal: bool
) -> tuple[dict[str, float], float]:
    """Return the sums of `SUMS` for a rule's distributions, and its last state."""
    resolution = DEFAULTS[K_SQS].resolution
    one = codec(models.vocab_size, resolution, "entropy", models.prior)
    found = []
    for row in rows:
        sent = row.send(keep, resolution, state)
        dropped = row.dropped_mass(sent.kept)
        state = keep.next(state, dropped)
        kept = row.q[sent.q.token_ids] / (1 - dropped)
        rounded = np.maximum(0.0, sent.q.probs - kept).sum()
        formula = paper_bits(models.vocab_size, sent.kept, resolution, conformal)
        bits = formula, one.bits(sent.q)
        parts = row.mismatch, dropped, rounded
        found.append((sent.loss.acceptance, *bits, *parts))
    return dict(zip(SUMS, np.sum(found, 0).tolist(), strict=True)), state


def _simulated(
    models: Models, rows: Sequence[NDArray[np.float32]], record: dict[str, Any]
) -> list[list[float]]:
    """Return a completion's seconds with hints and alone, at each of `PLACES`."""
    settings, found = tuple(Setting.defaults(models.vocab_size, models.prior)), []
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder, "draft.npy"), Path(folder, "target.npy")
        for file, logits in zip(files, rows, strict=True):
            np.save(file, logits)
        # The prompt takes no time: the counts of rounds exclude it, too.
        text = cells.Text((0,), *files)
        for cloud, uplink in PLACES:
            steps = STEPS[cloud]._replace(draft=record["step"])
            known = record["rows"], settings, None, steps, record["temperature"]
            cell = cells.Cell("", Link(*uplink), (text,), *known, seed=record["prompt"])
            plans = FixedPlan(hints=Hints()), FixedPlan(0)
            both = [cells.simulate(replace(cell, plan=plan)) for plan in plans]
            found.append([played.seconds for (played,) in both])
    return found


# Summary


def summary(records: Records, options: Options) -> dict[str, Any]:
    """Summarize each draft, by model and temperature."""
    found = []
    for (name, temperature), of_place in grouped(records, "model", "temperature"):
        drafts = [group for _, group in grouped(of_place, "draft")]
        drafts.sort(key=lambda group: group[0]["parameters"])
        cell = {"model": name, "temperature": temperature, "texts": len(drafts[0])}
        found.append(cell | {"drafts": [_draft(group) for group in drafts]})
    return {"cells": found}


def _draft(records: Records) -> dict[str, Any]:
    step = float(np.median(_column(records, "step")))
    records = [record | {"step": step} for record in records]
    names = ("draft", "parameters", "embeddings", "step")
    timed = [record for record in records if record["timed"]]
    return {
        **{name: records[0][name] for name in names},
        **{rule: _sums(records, rule) for rule in DEFAULTS},
        "kinds": {
            kind: _sums(group, K_SQS)["accepted"]
            for (kind,), group in grouped(records, "kind")
        },
        "links": [_link(timed, i) for i in range(len(PLACES))],
        "pays": [pays(records, uplink) for uplink in UPLINKS],
    }


def _column(records: Records, name: str) -> Floats:
    return np.array([record[name] for record in records], float)


def _mean(records: Records, name: str) -> dict[str, float]:
    return ratio(_column(records, name), _column(records, "rows")).as_json()


def _sums(records: Records, rule: str) -> dict[str, Any]:
    sent = [record | record[rule] for record in records]
    return {name: _mean(sent, name) for name in SUMS}


def _link(records: Records, place: int) -> dict[str, Any]:
    """Return tokens per second at a place: computed, and simulated."""
    (cloud, uplink), rows = PLACES[place], _column(records, "rows")
    hints, alone = np.array([record["timed"][place] for record in records]).T
    return {
        **{"cloud": cloud, "uplink": str(uplink)},
        **fastest(records, rows, uplink, STEPS[cloud]),
        "hints": ratio(rows, hints).as_json(),
        "simulated": float(rows.sum() / alone.sum()),
    }


def pays(records: Records, uplink: Uplink) -> dict[str, float]:
    """Return tokens per second of the fastest target that rounds speed up; 0 if none.

    Alone and with rounds, a completion's seconds are linear in the target's.
    """
    more = STEPS["slow"].more / STEPS["slow"].target
    steps = Steps(records[0]["step"], 0, 0)
    weights, rows = draws(len(records)), _column(records, "rows")
    found = [np.zeros(len(weights))]
    for taken in zip(*(record["counts"] for record in records), strict=True):
        texts = [Count(*each) for each in taken]
        read = np.array([each.rounds + more * each.drafted for each in texts])
        other = np.array([each.seconds(uplink, steps) for each in texts])
        spared = weights @ (rows - PAYS * read)
        found.append(spared / (weights @ (PAYS * other - uplink.asked)))
    return of_draws(np.max(found, axis=0)).as_json()


# Tables


def tables(summary: dict[str, Any]) -> Iterator[Table | Text]:
    """Yield the tables of drafts, distributions and speeds."""
    for cell in summary["cells"]:
        heads = "parameters", "embeddings", "ms", "TV(p, q)"
        yield _table(cell, f": {cell['texts']} texts", heads, _about)
        for rule in DEFAULTS:
            parts = ("accepted", "formula", "ours", "q", "q_S", "q^", "bound")
            yield _table(cell, f", {rule}", parts, partial(_sent, rule=rule))
        yield _table(cell, ", accepted", [*cell["drafts"][0]["kinds"]], _kinds)
        for cloud in STEPS:
            speeds = partial(_speeds, cloud=cloud)
            title = f", {cloud} cloud: length, tokens per second of rounds and hints"
            made = _table(cell, title, UPLINKS, speeds)
            links = [x for x in cell["drafts"][0]["links"] if x["cloud"] == cloud]
            made.add_row(
                "the cloud alone",
                *(f"{x['alone']:.1f}  {x['simulated']:.1f}" for x in links),
            )
            yield made
        yield _table(cell, ": target's ms from which rounds pay", UPLINKS, _pace)
    yield dim(
        "Intervals of 95 % over completions. K-SQS with K = 64, C-SQS with alpha = "
        "0.05 and eta = 0.001, l = 100. formula, ours: bits per distribution, with the "
        "paper's formula and our entropy coding. bound: the sum of TV(p, q) of the "
        "models, TV(q, q_S) of sparsification and TV(q_S, q^) of rounding; q, q_S, q^: "
        "their shares in %. Steps of small drafts are measured (median), others "
        "stated. Rounds of the best length (0: alone) are computed, hints simulated, "
        f"and alone in both ways, over {TIMED} completions. The target takes 30 ms "
        "(fast) or 120 ms (slow) per token, and 5 % of that for each further one. "
        f"Rounds pay if they are {PAYS:g} times as fast as alone."
    )


def _table(
    cell: dict[str, Any],
    title: str,
    heads: Sequence[object],
    columns: Callable[[dict[str, Any]], Iterable[str]],
) -> Table:
    place = f"{cell['model']}, T = {cell['temperature']:g}"
    made = table(place + title, "", *map(str, heads))
    for draft in cell["drafts"]:
        made.add_row(draft["draft"], *columns(draft))
    return made


def _about(draft: dict[str, Any]) -> Iterator[str]:
    yield f"{draft['parameters']:,}"
    yield f"{draft['embeddings'] / draft['parameters']:.0%}"
    yield f"{1000 * draft['step']:.2f}"
    yield shown(draft[K_SQS]["mismatch"], ".3f")


def _sent(draft: dict[str, Any], rule: str) -> Iterator[str]:
    found = draft[rule]
    yield near(found["accepted"], 3)
    yield f"{found['formula']['value']:.0f}"
    yield near(found["ours"], 0)
    bound = sum(found[part]["value"] for part in PARTS)
    yield from (f"{100 * found[part]['value'] / bound:.0f}" for part in PARTS)
    yield f"{bound:.2f}"


def _kinds(draft: dict[str, Any]) -> Iterator[str]:
    kinds = draft["kinds"].values()
    many = len(kinds) > 5
    yield from (f"{k['value']:.2f}" if many else near(k, 2) for k in kinds)


def _speeds(draft: dict[str, Any], cloud: str) -> Iterator[str]:
    for link in draft["links"]:
        if link["cloud"] == cloud:
            rounds, hints = (near(link[way], 1) for way in WAYS)
            yield f"{link['length']} {rounds} {hints}"


def _pace(draft: dict[str, Any]) -> Iterator[str]:
    for found in draft["pays"]:
        rates = (found[name] for name in ("value", "high", "low"))
        value, low, high = (f"{1e3 / r:.0f}" if r > SLOWEST else "never" for r in rates)
        yield value if value == "never" else f"{value} ({low} to {high})"


def chart(summary: dict[str, Any]) -> list[Panel]:
    """Return acceptance and, for the first model at 0.7, speed by parameters."""
    accepted: dict[str, list[Point]] = {}
    speeds: dict[str, list[Point]] = {}
    first = summary["cells"][0]["model"]
    for cell in summary["cells"]:
        series = f"{NAMES[cell['model']]}, T = {cell['temperature']:g}"
        for draft in cell["drafts"]:
            size = draft["parameters"] / 1e6
            point = estimated(size, draft[K_SQS]["accepted"])
            accepted.setdefault(series, []).append(point)
            if (cell["model"], cell["temperature"]) != (first, *QUICK_TEMPERATURES):
                continue
            slow = [link for link in draft["links"] if link["cloud"] == "slow"]
            for link, (way, name) in itertools.product(slow, WAYS.items()):
                points = speeds.setdefault(f"{name}, {link['uplink']}", [])
                points.append(estimated(size, link[way]))
    title, millions = f"Tokens per second, {NAMES[first]}", "millions of parameters"
    return [
        Panel("Accepted", accepted, millions, log="x"),
        Panel(title, speeds, millions, log="x"),
    ]
