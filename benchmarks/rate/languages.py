"""Savings of priors, by tokenizer and language.

    python -m benchmarks.rate.languages     # half a minute

Bits per distribution at K = 64 and l = 100, in single packets. Rows are shipped ones to
which nothing was fitted, of SmolLM2 (English and code) and Gemma 3 (ten languages).
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

import sqs_codec as sqs
from benchmarks.schemes import codec, enumerative_bits
from benchmarks.sources import SHIPPED, Source, shipped
from benchmarks.tables import command, table
from sqs_codec.cli.options import number
from tests.drafts import load_languages

TEMPERATURES = (0.3, 0.7, 1.0)
KEEP, RESOLUTION = sqs.TopK(64), 100


def sources() -> Iterator[tuple[str, Source]]:
    """Yield each model and language, with its built-in prior."""
    smollm2, gemma3 = SHIPPED
    yield "SmolLM2 en", replace(shipped(smollm2), prior=sqs.Prior.builtin(smollm2))
    prior = sqs.Prior.builtin(gemma3)
    for language in sorted(set(load_languages().language.tolist())):
        yield f"Gemma 3 {language}", replace(shipped(gemma3, language), prior=prior)


def bits(source: Source, temperature: float) -> NDArray[np.float64]:
    """Return mean bits: enumerative, and without and with the prior."""
    plain = codec(source.vocab_size, RESOLUTION, "entropy")
    with_prior = codec(source.vocab_size, RESOLUTION, "entropy", source.prior)
    sums = np.zeros(3)
    for logits, _ in source.pairs():
        q = plain.quantize(logits, KEEP, temperature=temperature)
        sums += enumerative_bits(q), plain.bits(q), with_prior.bits(q)
    return np.asarray(sums / source.rows)


def main() -> None:
    """Print a table for each temperature."""
    parser = command("rate.languages", __doc__, rows=5, temperatures=TEMPERATURES[1:2])
    parser.add_argument("--rows", **number(int, 1), help="maximum per language")
    parser.set_defaults(temperatures=TEMPERATURES)
    args = parser.parse_args()
    everything = [
        (name, source.first(args.rows or source.rows)) for name, source in sources()
    ]
    saved = []
    for temperature in args.temperatures:
        made = table(
            f"Bits per distribution at T = {temperature:g}",
            *("", "rows", "enumer-\native", "no\nprior", "prior", "ratio"),
        )
        for name, source in everything:
            ranks, plain, prior = bits(source, temperature)
            saved.append(1 - prior / plain)
            made.add_row(
                name,
                str(source.rows),
                *(f"{x:.1f}" for x in (ranks, plain, prior)),
                f"{prior / plain:.3f}",
            )
        Console().print(made)
    print(f"A prior saves {min(saved):.0%} to {max(saved):.0%} of the bits")


if __name__ == "__main__":
    main()
