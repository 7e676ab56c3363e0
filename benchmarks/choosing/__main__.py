"""Fit a setting to each kind of uplink, and see what it loses elsewhere.

    python -m benchmarks.choosing             # four minutes
    python -m benchmarks.choosing --quick     # the same in miniature

Settings are fitted to one half of SmolLM2's shipped rows. What the presets lose is
reported on the other half and on Gemma 3 in nine languages and code, against the
setting and length that turn out best on each link, for each model and temperature.
"""

import argparse
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import sqs_codec as sqs
from benchmarks.choosing.measure import (
    C_SQS,
    OURS,
    PRESETS,
    SETTINGS,
    TOP_KS,
    Rounds,
    Setting,
    of_rows,
)
from benchmarks.data.drafts import (
    Rows,
    held_out,
    load_drafts,
    load_languages,
    load_targets,
)
from benchmarks.harness.recorded import STEPS
from benchmarks.planner.__main__ import NOISE
from benchmarks.rate.schemes import Row
from benchmarks.tables import about, about_line, dim, table
from sqs_codec.system.edge._costs import LENGTHS
from sqs_codec.system.serve._datagram.link import DatagramLink

RATES = (2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 2e6, 5e6, 1e7)
TRIPS = (0.005, 0.02, 0.05, 0.1, 0.2, 0.3)
BANDS = {"thin": (0, 2e4), "balanced": (2e4, 2e5), "fat": (2e5, np.inf)}
"""Uplinks of each preset: above the one rate and up to the other."""

TEMPERATURES = (0.3, 0.7, 1.0)
OVERHEAD = DatagramLink.overhead
DEFAULT = Setting("TopK", 64, 100), 8
"""Of `Codec` and `Drafter`, with K as in most examples."""

FIT, TEST, GEMMA, ITSELF = "fit", "SmolLM2", "Gemma noise", "Gemma itself"
ENGLISH, OTHER = 160, 80
"""Rows of a language."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """Rounds of a pair of models, in a language and at a temperature."""

    name: str
    language: str
    temperature: float
    rounds: Rounds

    def seconds(self) -> Floats:
        """Return seconds a token, [RATES, TRIPS, STEPS, SETTINGS, LENGTHS]."""
        grid = itertools.product(RATES, TRIPS, STEPS.values())
        found = [self.rounds.seconds(*link, OVERHEAD) for link in grid]
        shape = len(RATES), len(TRIPS), len(STEPS), *found[0].shape
        return np.reshape(found, shape)


def cases(temperatures: Sequence[float], most: int | None = None) -> Iterator[Case]:
    """Yield all cases, with so many rows of each at most."""
    drafts, targets = load_drafts(), load_targets()
    prior = sqs.Prior.builtin("smollm2")
    unseen = held_out(drafts)
    for t, (name, kept) in itertools.product(
        temperatures, ((FIT, ~unseen), (TEST, unseen))
    ):
        places = np.flatnonzero(kept)[:most]
        pairs = (Row(drafts.row(i), targets.row(i), t) for i in places)
        yield Case(name, "en", t, of_rows(pairs, prior))
    texts, prior = load_languages(), sqs.Prior.builtin("gemma3")
    for language in sorted(set(texts.language.tolist())):
        count = ENGLISH if language == "en" else OTHER
        places = np.flatnonzero(texts.language == language)[:count][:most]
        for t in temperatures:
            noisy = _noisy(texts, places, t)
            yield Case(GEMMA, language, t, of_rows(noisy, prior))
            if language == "en":
                own = (Row(x, x, t) for x in map(texts.row, places))
                yield Case(ITSELF, language, t, of_rows(own, prior))


def _noisy(texts: Rows, places: NDArray[np.intp], t: float) -> Iterator[Row]:
    """Yield rows whose target is the draft with noise: Gemma's have none."""
    rng = np.random.default_rng(0)
    for i in places:
        draft = texts.row(i)
        noise = NOISE * rng.standard_normal(draft.size)
        yield Row(draft, draft + noise, t)


def loss(seconds: Floats) -> Floats:
    """Return how much longer a token takes than by the best of our settings."""
    ours = seconds[..., : len(OURS), :]
    return np.asarray(seconds / ours.min((-1, -2), keepdims=True) - 1)


def band(name: str) -> NDArray[np.bool_]:
    """Say which of `RATES` a preset is for."""
    low, high = BANDS[name]
    return (np.array(RATES) > low) & (np.array(RATES) <= high)


def place(setting: Setting, length: int) -> tuple[int, int]:
    """Return where a setting and a length are in what `Case.seconds` returns."""
    return SETTINGS.index(setting), LENGTHS.index(length)


def of_preset(preset: sqs.Preset) -> tuple[int, int]:
    """Return where a preset is."""
    return place(Setting.of(preset), preset.max_tokens)


# Tables


def fitted(found: Sequence[Case]) -> Table:
    """Say which setting loses least on the links of each preset, and what that does."""
    logs = np.mean(
        [np.log1p(loss(c.seconds())) for c in found if c.name == FIT], axis=0
    )
    made = table(
        "Fitted: the mean loss over links, clouds and temperatures, in %",
        *("uplinks", "least", "", "preset", ""),
    )
    for preset in PRESETS:
        mean = np.expm1(logs[band(preset.name)].mean((0, 1, 2)))
        top = mean[: len(TOP_KS)]
        row = [preset.name]
        for at in (np.unravel_index(top.argmin(), top.shape), of_preset(preset)):
            words = f"{SETTINGS[at[0]]}, {LENGTHS[at[1]]} tokens"
            row += [words, f"{100 * mean[at]:.1f}"]
        made.add_row(*row)
    return made


def sizes(found: Sequence[Case]) -> Table:
    """Show what a drafted token takes by each preset, and how often it is accepted."""
    made = table(
        "Bits of a drafted token, its distribution included, and how many are accepted",
        *("models, T", *(preset.name for preset in PRESETS)),
    )
    for case in found:
        if case.name == FIT or case.language != "en":
            continue
        cells = []
        for preset in PRESETS:
            s, n = of_preset(preset)
            drafted = case.rounds.per_token[s, n] * preset.max_tokens
            bits = case.rounds.bits[s, n] / drafted
            cells.append(f"{bits:.0f}, {case.rounds.acceptance[s]:.1%}")
        made.add_row(f"{case.name} {case.temperature:g}", *cells)
    return made


def lost(found: Sequence[Case], name: str) -> Table:
    """Show what each preset and the defaults lose on each uplink, median and worst."""
    losses = np.array([loss(c.seconds()) for c in found if c.name == name])
    made = table(
        f"{name}: seconds a token above those of the best setting in hindsight, "
        "median and worst in %",
        *("bit/s", *(preset.name for preset in PRESETS), "defaults"),
        *("its best\nlength", "no\nprior", "C-SQS\nat its best"),
    )
    best_c = [s.rule == C_SQS for s in OURS]
    for i, rate in enumerate(RATES):
        here = losses[:, i]
        preset = next(p for p in PRESETS if band(p.name)[i])
        which = SETTINGS.index(Setting.of(preset))
        plain = SETTINGS.index(Setting.of(preset)._replace(prior=False))
        at = [of_preset(p) for p in PRESETS]
        cells = [
            *(here[..., s, n] for s, n in (*at, place(*DEFAULT))),
            here[..., which, :].min(-1),
            here[..., plain, LENGTHS.index(preset.max_tokens)],
            here[..., : len(OURS), :][..., best_c, :].min((-1, -2)),
        ]
        words = [f"{100 * np.median(c):.0f}, {100 * c.max():.0f}" for c in cells]
        mark = 1 + PRESETS.index(preset)
        row = [f"{rate:,.0f}", *words]
        row[mark] = f"[bold]{row[mark]}[/bold]"
        made.add_row(*row)
    return made


def best_settings(found: Sequence[Case]) -> Table:
    """Show the K and resolution of least mean loss, each at its best length."""
    rates = (2e3, 1e4, 5e4, 1e5, 1e6)
    made = table(
        "The best K and l by uplink, mean of round trips, clouds and languages",
        *("models, T", *(f"{rate:,.0f}" for rate in rates)),
    )
    for name, t in itertools.product((TEST, GEMMA), TEMPERATURES):
        seconds = [
            c.seconds()[..., : len(TOP_KS), :].min(-1)
            for c in found
            if (c.name, c.temperature) == (name, t)
        ]
        mean = np.log(seconds).mean((0, 2, 3))
        least = [TOP_KS[mean[RATES.index(rate)].argmin()] for rate in rates]
        made.add_row(f"{name} {t:g}", *map(str, least))
    return made


def lengths(found: Sequence[Case]) -> Table:
    """Show the best draft length by acceptance and round trip."""
    made = table(
        "The best draft length, balanced preset, 100 kbit/s, slow and fast cloud",
        *("models, T", "accepted", *(f"{1000 * t:g} ms" for t in TRIPS)),
    )
    for case, best in best_lengths(found):
        made.add_row(
            f"{case.name} {case.language} {case.temperature:g}",
            f"{case.rounds.acceptance[SETTINGS.index(Setting.of(PRESETS[1]))]:.0%}",
            *(f"{slow}, {fast}" for fast, slow in best),
        )
    return made


def best_lengths(found: Sequence[Case]) -> list[tuple[Case, NDArray[np.int64]]]:
    """Return cases by acceptance, and the best length [TRIPS, STEPS] of each."""
    which = SETTINGS.index(Setting.of(PRESETS[1]))
    models = (TEST, "en", 0.7), (GEMMA, "code", 0.7), (ITSELF, "en", 1.0)
    wanted = {*models, (ITSELF, "en", 0.7)}
    shown = [c for c in found if (c.name, c.language, c.temperature) in wanted]
    shown.sort(key=lambda c: c.rounds.acceptance[which])
    at, lengths = RATES.index(1e5), np.array(LENGTHS)
    return [(c, lengths[c.seconds()[at][..., which, :].argmin(-1)]) for c in shown]


def main(argv: list[str] | None = None) -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    add = parser.add_argument
    add("--rows", type=int, help="of each model and language at most")
    add("--quick", action="store_true", help="in miniature")
    args = parser.parse_args(argv)
    found = list(cases(TEMPERATURES, 1 if args.quick else args.rows))
    console = Console(width=max(110, Console().width))
    console.print(fitted(found))
    console.print(sizes(found))
    for name in (TEST, GEMMA, ITSELF):
        console.print(lost(found, name))
    console.print(best_settings(found))
    console.print(lengths(found))
    console.print(dim(about_line(about())))


if __name__ == "__main__":
    main()
