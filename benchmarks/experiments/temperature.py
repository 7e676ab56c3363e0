"""The paper's figure: K-SQS and C-SQS over temperatures, at a fixed budget of bits.

A round drafts until its bits reach the budget, by the paper's formula or in our
packets. After a rejection the cloud resamples. The resampling rate is the mean of
TV(p, q^) over the verified positions, which varies less than a count of rejections.
Latency is computed from the rounds, with stated times of the link and models.

The parameters of the paper's own experiment could not be confirmed. All of them are
ours: the defaults, their variations, the budget and the link.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

import sqs_codec as sqs
from benchmarks.charts import Panel, Point, estimated
from benchmarks.experiments import speculate
from benchmarks.experiments.estimate import difference, ratio
from benchmarks.experiments.experiment import NAMES, Options, Records, grouped
from benchmarks.experiments.models import GEMMA3, Models, load
from benchmarks.experiments.traces import traces
from benchmarks.harness.recorded import STEPS
from benchmarks.schemes import codec
from benchmarks.tables import dim, table

TITLE = "Resampling rate and latency against temperature"
ALONE = False

TEMPERATURES, QUICK_TEMPERATURES = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2), (0.4, 1.0)
PROMPTS, GEMMA3_PROMPTS = 34, 16
"""Gemma's rows take five times as long to sort."""

BUDGET = 5000
"""Bits per round, enough for five default K-SQS distributions."""

LENGTH = 8
"""The most drafted tokens per round, the usual limit with our packets."""

CLOUD, TRIP = STEPS["fast"], 0.05
RATES = (1e4, 1e5, 1e6)
"""Bits per second of the uplink."""

FORMULA, PACKET = "paper", "ours"
CODINGS = (FORMULA, PACKET)
"""Counts of bits: with the paper's formula, and in our packets."""

K_SQS, C_SQS = "K-SQS", "C-SQS"


@dataclass(frozen=True)
class Setting:
    """Parameters of K-SQS or C-SQS."""

    resolution: int = 100
    k: int | None = None
    """None stands for C-SQS with `alpha` and `eta`."""
    alpha: float = 0.05
    eta: float = 1e-3

    def __str__(self) -> str:
        rule = f"K={self.k}" if self.k else f"alpha={self.alpha:g} eta={self.eta:g}"
        return f"{rule} l={self.resolution}"

    def keep(self) -> sqs.TopK | sqs.Conformal:
        """Return the rule."""
        return sqs.TopK(self.k) if self.k else sqs.Conformal(self.alpha, self.eta)


DEFAULTS = {K_SQS: Setting(k=64), C_SQS: Setting()}
"""The package's defaults, with the resolution of docs/theory.md."""

KS, QUICK_KS = (8, 16, 64, 256), (16, 64)
ALPHAS, QUICK_ALPHAS = (0.005, 0.02, 0.05, 0.1), (0.02, 0.05)
ETAS, QUICK_ETAS = (1e-3, 1e-2, 1e-1), (1e-3, 1e-2)
RESOLUTIONS, QUICK_RESOLUTIONS = (50, 100, 400), (100,)

COUNTS = ("tokens", "judged", "resampled", "drafted", "rounds", "bits", "kept")


def grid(options: Options) -> dict[str, list[Setting]]:
    """Return the settings of K-SQS and of C-SQS; eta is varied at one resolution."""
    quick = options.quick
    alphas, etas = (QUICK_ALPHAS, QUICK_ETAS) if quick else (ALPHAS, ETAS)
    resolutions = QUICK_RESOLUTIONS if quick else RESOLUTIONS
    ks = QUICK_KS if quick else KS
    default = DEFAULTS[C_SQS]
    return {
        K_SQS: [Setting(r, k) for r, k in itertools.product(resolutions, ks)],
        C_SQS: [
            Setting(r, None, alpha, eta)
            for r, alpha, eta in itertools.product(resolutions, alphas, etas)
            if r == default.resolution or eta == default.eta
        ],
    }


def places(options: Options) -> list[tuple[str, float]]:
    """Return the models and temperatures of the completions."""
    return options.places(TEMPERATURES, QUICK_TEMPERATURES)


def measure(options: Options, model: str, temperature: float) -> Records:
    """Replay a model's completions with all settings and both budgets."""
    prompts = GEMMA3_PROMPTS if model == GEMMA3 else PROMPTS
    edges = _edges(options, load(options, model))
    records = []
    for trace in traces(options, model, temperature, prompts=prompts):
        rows = speculate.read_rows(trace, temperature)
        # All settings use the same random numbers.
        draws = speculate.draw(options.seed, trace)
        for (rule, setting, coding), edge in edges.items():
            found = {"model": model, "temperature": temperature, "prompt": trace.prompt}
            found |= {"rule": rule, "setting": str(setting), "coding": coding}
            rounds = list(speculate.replay(edge, rows, trace.tokens, draws))
            records.append(found | _counts(rounds, edge.budget))
    return records


def _edges(
    options: Options, models: Models
) -> dict[tuple[str, Setting, str], speculate.Edge]:
    found = {}
    for rule, settings in grid(options).items():
        for setting, coding in itertools.product(settings, CODINGS):
            budget: speculate.Budget = speculate.FormulaBudget(BUDGET, rule == C_SQS)
            if coding == PACKET:
                ours = codec(
                    models.vocab_size, setting.resolution, "entropy", models.prior
                )
                budget = speculate.PacketBudget(BUDGET, ours)
            edge = speculate.Edge(setting.keep(), setting.resolution, LENGTH, budget)
            found[rule, setting, coding] = edge
    return found


def _counts(
    rounds: Sequence[speculate.Round], budget: speculate.Budget | None
) -> dict[str, float]:
    """Add up a completion's rounds."""
    judged = [draft for made in rounds for draft in made.judged]
    if isinstance(budget, speculate.PacketBudget):
        bits = sum(8 * len(made.packet(budget.codec)) for made in rounds)
    else:
        assert isinstance(budget, speculate.FormulaBudget)
        bits = sum(made.formula_bits(budget.conformal) for made in rounds)
    return {
        "tokens": sum(made.tokens for made in rounds),
        "judged": len(judged),
        "resampled": sum(draft.rejection for draft in judged),
        "drafted": sum(len(made.drafts) for made in rounds),
        "rounds": len(rounds),
        "bits": bits,
        "kept": sum(draft.sent.kept for draft in judged),
    }


Sums = dict[str, NDArray[np.float64]]
"""The counts of a setting by prompt, [prompts]."""


def best(settings: dict[str, Sums], rate: float, seed: int) -> tuple[str, Sums]:
    """Return the setting of the least latency, and what it does elsewhere.

    The first is the best on all prompts. The sums are for each half of the prompts
    those of the best setting on the other half: nothing is measured where it was
    chosen.
    """
    count = len(next(iter(settings.values()))["tokens"])
    # By lot: every other one would be of other languages than the rest.
    half = np.random.default_rng(seed).permutation(count) % 2 == 1

    def least(where: NDArray[np.bool_]) -> str:
        return min(
            settings,
            key=lambda name: float(
                seconds(settings[name], rate)[where].sum()
                / settings[name]["tokens"][where].sum()
            ),
        )

    chosen = least(~half), least(half)
    sums = {x: np.where(half, *(settings[n][x] for n in chosen)) for x in COUNTS}
    return least(np.ones_like(half)), sums


def seconds(sums: Sums, rate: float) -> NDArray[np.float64]:
    """Return what the rounds of each prompt take on a link.

    The edge drafts, sends, waits for the trip, and the cloud reads the drafts and the
    token before them; one after the other.
    """
    drafting = sums["drafted"] * CLOUD.draft
    verifying = sums["rounds"] * CLOUD.target + sums["drafted"] * CLOUD.more
    return drafting + verifying + sums["rounds"] * TRIP + sums["bits"] / rate


def summary(records: Records, options: Options) -> dict[str, Any]:
    """Compare the rules with default and best settings."""
    found: dict[str, Records] = {"defaults": [], "best": []}
    names, seed = ("model", "temperature", "coding"), options.seed
    for key, of_place in grouped(records, *names):
        place = dict(zip(names, key, strict=True))
        sums: dict[str, dict[str, Sums]] = {K_SQS: {}, C_SQS: {}}
        for (rule, name), of in grouped(of_place, "rule", "setting"):
            sums[rule][name] = {c: np.array([r[c] for r in of], float) for c in COUNTS}
        k, c = (sums[rule][str(setting)] for rule, setting in DEFAULTS.items())
        rates = {f"{rate:g}": _latencies(k, c, rate, seed) for rate in RATES}
        found["defaults"].append(
            place
            | {"latency": rates, "kept": _pair(k, c, "kept", "judged", seed)}
            | {"judged": _pair(k, c, "resampled", "judged", seed)}
            | {"text": _pair(k, c, "resampled", "tokens", seed)}
            | {"length": _pair(k, c, "drafted", "rounds", seed)}
        )
        for rate in RATES if len(k["tokens"]) > 1 else ():
            (k_name, k), (c_name, c) = (best(sums[rule], rate, seed) for rule in sums)
            latency = _latencies(k, c, rate, seed)
            own = {"rate": rate, "settings": [k_name, c_name], "latency": latency}
            found["best"].append(place | own)
    return found


def _pair(k: Sums, c: Sums, above: str, below: str, seed: int) -> dict[str, Any]:
    return _compare((k[above], k[below]), (c[above], c[below]), seed)


def _latencies(k: Sums, c: Sums, rate: float, seed: int) -> dict[str, Any]:
    """Compare seconds per token of text."""
    first, second = ((seconds(sums, rate), sums["tokens"]) for sums in (k, c))
    return _compare(first, second, seed)


Ratio = tuple[NDArray[np.float64], NDArray[np.float64]]


def _compare(k: Ratio, c: Ratio, seed: int) -> dict[str, Any]:
    return {
        K_SQS: ratio(*k, seed).as_json(),
        C_SQS: ratio(*c, seed).as_json(),
        "difference": difference(*c, *k, seed).as_json(),
    }


def _mark(difference: dict[str, float]) -> str:
    """Mark a difference if its interval has a width and excludes 0."""
    low, high = difference["low"], difference["high"]
    return "*" if low < high and not low <= 0 <= high else " "


def tables(summary: dict[str, Any]) -> Iterator[Table | Text]:
    """Yield the defaults and the best settings, for each model."""
    best = dict(grouped(summary["best"], "model"))
    for (model,), defaults in grouped(summary["defaults"], "model"):
        yield _rate_table(model, defaults)
        yield _latency_table(model, defaults)
        if (model,) in best:  # one prompt can't select a setting
            yield _best_table(model, best[model,])
    yield dim(
        f"At most {BUDGET} bits and {LENGTH} tokens per round. C - K: C-SQS minus "
        "K-SQS, with a 95 % interval over prompts, * if it excludes 0. L: drafted "
        "tokens per round. K: kept tokens. Best: the setting with the lowest latency, "
        "chosen on the other half of the prompts. "
        f"A drafted token takes {CLOUD.draft * 1e3:.0f} ms, the target "
        f"{CLOUD.target * 1e3:.0f} ms for one token and {CLOUD.more * 1e3:.1f} ms "
        f"for each further one, the round trip {TRIP * 1e3:.0f} ms."
    )


def _rate_table(model: str, defaults: Records) -> Table:
    made = table(
        f"{model}: resampled per 100, {DEFAULTS[K_SQS]} and {DEFAULTS[C_SQS]}",
        *("T", "bits", "verified", "C - K", "C - K, tokens", "L"),
    )
    for place in _by_coding(defaults):
        made.add_row(
            f"{place['temperature']:g}",
            place["coding"],
            _two(place["judged"], ".1f", 100),
            _signed(place["judged"]["difference"], 100),
            _signed(place["text"]["difference"], 100),
            _two(place["length"], ".1f"),
        )
    return made


def _latency_table(model: str, defaults: Records) -> Table:
    made = table(
        f"{model}: ms per token, the same settings, K-SQS, C-SQS and C - K",
        "T",
        "bits",
        *(f"{rate / 1e3:.0f} kbit/s" for rate in RATES),
        "K of C-SQS",
    )
    for place in _by_coding(defaults):
        shown = (
            f"{_two(pair, '.0f', 1e3)} {pair['difference']['value'] * 1e3:+.0f}"
            f"{_mark(pair['difference'])}"
            for pair in place["latency"].values()
        )
        kept = f"{place['kept'][C_SQS]['value']:.0f}"
        made.add_row(f"{place['temperature']:g}", place["coding"], *shown, kept)
    return made


def _by_coding(found: Records) -> Records:
    return [f for coding in CODINGS for f in found if f["coding"] == coding]


def _best_table(model: str, best: Records) -> Table:
    made = table(
        f"{model}: ms per token, each with its best setting",
        *("T", "bits", "kbit/s", "K, C", "C - K", "K, l", "alpha, eta, l"),
    )
    for place in _by_coding(best):
        names = (re.sub("[A-Za-z]+=", "", name) for name in place["settings"])
        made.add_row(
            f"{place['temperature']:g}",
            place["coding"],
            f"{place['rate'] / 1e3:.0f}",
            _two(place["latency"], ".0f", 1e3),
            _signed(place["latency"]["difference"], 1e3, 0),
            *names,
        )
    return made


def _two(pair: dict[str, Any], form: str, scale: float = 1) -> str:
    values = (pair[rule]["value"] * scale for rule in (K_SQS, C_SQS))
    return " ".join(format(value, form) for value in values)


def _signed(found: dict[str, float], scale: float, digits: int = 1) -> str:
    value, low, high = (f"{found[n] * scale:+.{digits}f}" for n in found)
    return f"{value} ({low} {high}){_mark(found)}"


def chart(summary: dict[str, Any]) -> list[Panel]:
    """Return the paper's claim, and the times on a low-bandwidth link."""
    claimed: dict[str, list[Point]] = {}
    times: dict[str, list[Point]] = {}
    model = summary["defaults"][0]["model"]
    for found in summary["defaults"]:
        t = found["temperature"]
        if found["coding"] == FORMULA:
            points = claimed.setdefault(NAMES[found["model"]], [])
            points.append(estimated(t, found["text"]["difference"], 100))
        if found["model"] == model:
            for rule in DEFAULTS:
                name = f"{rule}, {found['coding']}"
                seconds = found["latency"][f"{min(RATES):g}"][rule]["value"]
                times.setdefault(name, []).append((t, 1e3 * seconds))
    title = f"ms per token at {min(RATES) / 1e3:.0f} kbit/s, {NAMES[model]}"
    return [
        Panel("Resampled per 100, C-SQS minus K-SQS", claimed, "temperature", 0),
        Panel(title, times, "temperature", log="y"),
    ]
