"""What rounds take without some of their distributions.

    python -m benchmarks.rate.mixed                                 # some seconds

Bits of rounds of five, in whole bytes and with their drafted tokens: with all
distributions, with each of them by a chance of a half, and with none; and how often a
token of the round is rejected. *On demand* is a round with none and then, after a
rejection, the packet of the one distribution that is missing, which comes another
round trip later. K = 64 and l = 100; the rows are the shipped drafts that nothing
was fitted to.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
from rich.console import Console

import sqs_codec as sqs
from benchmarks.rate.measure import ROUND, draw
from benchmarks.rate.schemes import SAME, Row, Sent, codec
from benchmarks.sources import Source, shipped
from benchmarks.tables import table
from sqs_codec.cli.options import find_prior

TEMPERATURES = (0.3, 0.7, 1.0)
COLUMNS = ("whole", "half\nsent", "none\nsent", "rejected", "missing", "on\ndemand")


def first_rejections(rates: np.ndarray) -> np.ndarray:
    """Return the chance of each position to be the first that is rejected.

    Parameters
    ----------
    rates : ndarray of float64 [L]
        The acceptance rate of each position.

    Examples
    --------
    >>> first_rejections(np.array([0.5, 0.75]))
    array([0.5  , 0.125])
    """
    return np.append(1.0, np.cumprod(rates)[:-1]) * (1.0 - rates)


def sizes(
    coder: sqs.Codec, part: list[Sent], rng: np.random.Generator
) -> tuple[float, float, float, float, float]:
    """Return what a round takes.

    Returns
    -------
    whole, half, none : float
        Bits with all distributions, about half of them and none.
    rejected : float
        The chance that one of its tokens is.
    missing : float
        That chance times the bits of the distribution that is needed then.
    """
    qs = [sent.q for sent in part]
    draws = rng.random(ROUND)
    round_ = sqs.Round(qs, [draw(q, x) for q, x in zip(qs, draws, strict=True)])
    half, none = (
        len(coder.encode_mixed(sqs.MixedRound.of(round_, sent)))
        for sent in (rng.random(ROUND) < 0.5, [False] * ROUND)
    )
    rejected = first_rejections(np.array([sent.loss.acceptance for sent in part]))
    missing = rejected @ [len(coder.encode(q)) for q in qs]
    whole = len(coder.encode_round(round_))
    return 8 * whole, 8 * half, 8 * none, float(rejected.sum()), 8 * float(missing)


def measure(source: Source, temperature: float, seed: int) -> np.ndarray:
    """Return the means that `sizes` gives, over all whole rounds of the sessions."""
    assert SAME.resolution is not None
    rng = np.random.default_rng(seed)
    coder = codec(source.vocab_size, SAME.resolution, "entropy", source.prior)
    found = []
    for session in source.sessions:
        for start in range(0, len(session) - ROUND + 1, ROUND):
            places = range(start, start + ROUND)
            rows = [
                Row(session.draft[i], session.target[i], temperature) for i in places
            ]
            part = [row.send(SAME.keep, SAME.resolution) for row in rows]
            found.append(sizes(coder, part, rng))
    return np.mean(found, axis=0)


def main(argv: list[str] | None = None) -> None:
    """Print a line for each temperature."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rows", type=int, default=600, help="positions at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prior", default="smollm2", help="a name, a file or none")
    args = parser.parse_args(argv)
    source = replace(shipped(), prior=find_prior(args.prior)).first(args.rows)
    made = table("Bits of a round of 5 (K = 64, l = 100)", "T", *COLUMNS)
    for temperature in TEMPERATURES:
        whole, half, none, rejected, missing = measure(source, temperature, args.seed)
        made.add_row(
            f"{temperature:g}",
            *(f"{bits:.0f}" for bits in (whole, half, none)),
            f"{rejected:.2f}",
            *(f"{bits:.0f}" for bits in (missing / rejected, none + missing)),
        )
    Console().print(made)


if __name__ == "__main__":
    main()
