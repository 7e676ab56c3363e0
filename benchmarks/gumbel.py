"""Draw by shared numbers, very often: by the softmax, and as guesses say.

    python -m benchmarks.gumbel                       # ten minutes
    python -m benchmarks.gumbel --draws 100000        # a taste of it

First the draws from each of some laws are counted, and chi-squared says whether they
are of the softmax: p is even over [0, 1] if they are. Tokens of which few are expected
are counted together with their neighbours. Then the shipped draft guesses what the
shipped target draws at the same places: how many draws m guesses cover, beside what
rejection sampling would accept of the draft (1 - TV), and how often the first guess is
right among those that are as sure.
"""

import math
import sys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import sqs_codec as sqs
from benchmarks.data.drafts import load_drafts, load_targets
from benchmarks.tables import about, about_line, command, dim, table
from sqs_codec._codec.gumbel import race

Floats = NDArray[np.float64]

BATCH = 4096
"""Draws that one call makes, all of the same row."""

LEAST_EXPECTED = 10.0
GUESSES = 1, 2, 4, 8
SURE = 0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0
TEMPERATURES = 0.7, 1.0


def zipf(size: int, power: float) -> Floats:
    """Return logits of a power law, whose ids are shuffled."""
    ranks = np.random.default_rng(0).permutation(size) + 1
    return np.asarray(-power * np.log(ranks))


def rare() -> Floats:
    """Return logits of 2^18 tokens: one has half of all, the others are even."""
    logits = np.zeros(1 << 18)
    logits[1000] = math.log(logits.size - 1)
    return logits


LAWS: dict[str, Callable[[], Floats]] = {
    "even": lambda: np.zeros(7),
    "odd sizes": lambda: zipf(65, 0.5),
    "skewed": lambda: zipf(100, 2.0),
    "steep": lambda: zipf(40, 12.0),
    "large": lambda: zipf(49_152, 1.2),
    "rare": rare,
}


def chi_squared(law: str, draws: int, seed: int) -> float:
    """Return how likely counts are that are as far from a law, or farther."""
    logits = LAWS[law]()
    weights = np.exp(logits - logits.max())
    expected = weights / weights.sum() * draws
    counts = np.bincount(draw(logits, draws, seed), minlength=logits.size)
    # Neighbours share a bin until so many are expected in it.
    bins = (expected.cumsum() // LEAST_EXPECTED).astype(int)
    merged = np.bincount(bins, expected)
    merged, found = merged[merged > 0], np.bincount(bins, counts)[merged > 0]
    square = float(((found - merged) ** 2 / merged).sum())
    degrees = merged.size - 1
    # Wilson and Hilferty: the cube root is nearly normal.
    spread = 2 / (9 * degrees)
    z = ((square / degrees) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)
    return math.erfc(z / math.sqrt(2)) / 2


def draw(logits: Floats, draws: int, seed: int) -> NDArray[np.int64]:
    """Return tokens of consecutive positions, all from the same logits."""
    key = np.random.default_rng(seed).integers(2**32, size=4, dtype=np.uint32)
    row = logits.astype(np.float32)
    found = np.empty(draws, np.int64)
    for at in range(0, draws, BATCH):
        rows = np.broadcast_to(row, (min(BATCH, draws - at), row.size))
        best = race(rows, 1.0, key, at, 1, str)
        found[at : at + BATCH] = [tokens[0] for tokens, _ in best]
    return found


def laws(draws: int, seed: int) -> Table:
    """Return a table of all laws."""
    shown = table(f"{draws} draws from a law", "law", "V", "least p", "chi-squared's p")
    for law, make in LAWS.items():
        logits = make()
        least = (
            math.exp(logits.min() - logits.max()) / np.exp(logits - logits.max()).sum()
        )
        p = chi_squared(law, draws, seed)
        shown.add_row(law, str(logits.size), f"{least:.0e}", f"{p:.3f}")
    return shown


def guesses(
    temperature: float, keys: int, rows: int | None
) -> tuple[Floats, NDArray[np.bool_], Floats]:
    """Return the chances of guesses, which one is right, and 1 - TV, by rows."""
    drafts, targets = load_drafts(), load_targets()
    chances, right, overlap = [], [], []
    options = {"temperature": temperature}
    for i in range(len(drafts))[:rows]:
        draft, target = drafts.row(i), targets.row(i)
        q, p = (np.exp(row / temperature, dtype=np.float64) for row in (draft, target))
        overlap.append(np.minimum(q / q.sum(), p / p.sum()).sum())
        for k in range(keys):
            key = np.random.default_rng(k).bytes(16)
            token = sqs.gumbel_draw(target, key, i, **options)
            found = sqs.gumbel_guess(draft, key, i, max(GUESSES), **options)
            chances.append(found.chances)
            right.append([guess == token for guess in found.tokens])
    return np.array(chances), np.array(right), np.array(overlap)


def coverage(keys: int, rows: int | None) -> tuple[Table, Table]:
    """Return tables of how many draws guesses cover, and of how sure they are."""
    covered = table("Draws that m guesses cover", "temperature", *map(str, GUESSES))
    covered.add_column("1 - TV", justify="right")
    sure = table("First guesses that are right", "sure", *map(str, TEMPERATURES))
    shares = []
    for temperature in TEMPERATURES:
        chances, right, overlap = guesses(temperature, keys, rows)
        among = right.cumsum(1)[:, np.array(GUESSES) - 1].mean(0)
        numbers = *among, overlap.mean()
        covered.add_row(str(temperature), *(f"{x:.3f}" for x in numbers))
        bins = np.digitize(chances[:, 0], SURE) - 1
        means = [
            (chances[own, 0].mean(), right[own, 0].mean()) if own.any() else None
            for own in (bins == b for b in range(len(SURE) - 1))
        ]
        shares.append([f"{m[0]:.2f}: {m[1]:.2f}" if m else "-" for m in means])
    for b, row in enumerate(zip(*shares, strict=True)):
        sure.add_row(f"{SURE[b]} to {SURE[b + 1]}", *row)
    return covered, sure


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = command("gumbel", __doc__, draws=3000, keys=1, rows=20)
    parser.add_argument("--draws", type=int, default=10_000_000)
    parser.add_argument("--keys", type=int, default=4, help="for each pair of rows")
    parser.add_argument("--rows", type=int, help="the first; all by default")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    console = Console()
    console.print(laws(args.draws, args.seed), *coverage(args.keys, args.rows))
    console.print(dim(about_line(about())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
