"""What the bits of an entropy packet say, as the reference's meter prices them.

    python -m tests.where_bits_go [--rows N] [--prior NAME_OR_FILE]

Bits of a distribution by kind of symbol, in rounds of five that decode on their own,
over the shipped drafts that nothing was fitted to, at K = 64 and l = 100; then the bits
of the packets, which the coder's rounding and the padding to bytes add to. The names
are those of ``docs/format.md``.
"""

import argparse
from collections import Counter

import numpy as np

import sqs_codec as sqs
from sqs_codec.cli.options import find_prior
from tests.drafts import VOCAB_SIZE, held_out, load_drafts
from tests.kit import as_lists
from tests.reference.entropy import bits_by_label
from tests.reference.prior import parse

TEMPERATURES = (0.3, 0.7, 1.0)
ROUND = 5
SYMBOLS = {
    "modes": ("modes",),
    "counts": ("parts", "size", "composition"),
    "arrangement": ("arrangement",),
    "class": ("class",),
    "ids": ("ids", "uniform ids"),
    **{name: (name,) for name in ("token", "more")},
}
"""Columns, and the labels of the reference that each adds up."""


def measure(
    temperature: float, rows: int, prior: sqs.Prior | None
) -> tuple[Counter[str], int, int]:
    """Return bits by label, bits of packets, and how many distributions they hold."""
    codec, rng = sqs.Codec(VOCAB_SIZE, prior=prior), np.random.default_rng(0)
    sizes = VOCAB_SIZE, codec.resolution
    known = None if prior is None else parse(prior.to_bytes())
    drafts = load_drafts()
    kept = held_out(drafts)
    bits: Counter[str] = Counter()
    sent = distributions = 0
    for prompt in np.unique(drafts.prompt[kept]):
        places = np.flatnonzero(drafts.prompt == prompt)[: rows - distributions]
        distributions += len(places)
        for start in range(0, len(places), ROUND):
            qs = [
                codec.quantize(drafts.row(i), sqs.TopK(64), temperature=temperature)
                for i in places[start : start + ROUND].tolist()
            ]
            tokens = [q.sample(rng) for q in qs]
            pairs = [as_lists(q)[:2] for q in qs]
            bits.update(bits_by_label(pairs, tokens, *sizes, prior=known))
            sent += 8 * len(codec.encode_round(qs, tokens))
    return bits, sent, distributions


def main(argv: list[str] | None = None) -> None:
    """Print a line for each temperature."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rows", type=int, default=1 << 20, help="at most")
    parser.add_argument(
        "--prior", type=find_prior, default="smollm2", metavar="NAME_OR_FILE"
    )
    options = parser.parse_args(argv)
    print("   T", *(f"{name:>11}" for name in (*SYMBOLS, "sum", "sent")))
    for temperature in TEMPERATURES:
        bits, sent, distributions = measure(temperature, options.rows, options.prior)
        assert set(bits) <= {label for labels in SYMBOLS.values() for label in labels}
        parts = [sum(bits[label] for label in labels) for labels in SYMBOLS.values()]
        means = [x / distributions for x in (*parts, sum(parts), sent)]
        print(f"{temperature:4}", *(f"{mean:11.1f}" for mean in means))


if __name__ == "__main__":
    main()
