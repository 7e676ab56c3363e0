"""What the paper's C-SQS takes with its online threshold.

    python -m benchmarks.rate.conformal

``python -m benchmarks.rate`` gives C-SQS the best fixed threshold, which no user
knows beforehand. Here the threshold is the paper's: it moves by eta after every
token so that the mean dropped mass comes to alpha. Swept are alpha, eta and the
resolution, over the same rows, one after the other.
"""

import itertools

import numpy as np
from tqdm import tqdm

import sqs_codec as sqs
from benchmarks.rate.measure import OPERATING_POINTS, bits_at
from benchmarks.rate.schemes import Row, paper_bits
from benchmarks.sources import shipped
from benchmarks.tables import command
from sqs_codec.bits import pareto
from sqs_codec.cli.options import number

ALPHAS = (0.005, 0.01, 0.014, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.14, 0.18, 0.22)
ETAS = (1e-3, 1e-2)
RESOLUTIONS = (20, 28, 40, 56, 80, 112, 160, 224, 320)
BETA = 1e-3
"""The threshold to begin with."""


def main() -> None:
    """Print a line for each operating point."""
    parser = command("rate.conformal", __doc__, rows=3)
    parser.add_argument("--rows", **number(int, 1), help="the first N")
    source = shipped()
    rows = [*itertools.islice(source.pairs(), parser.parse_args().rows)]
    print(f"{len(rows)} rows; alpha {ALPHAS}, eta {ETAS}, resolution {RESOLUTIONS}")
    for temperature in sorted({t for t, _ in OPERATING_POINTS}):
        settings = [
            (sqs.Conformal(alpha, eta, BETA), resolution)
            for alpha, eta, resolution in itertools.product(ALPHAS, ETAS, RESOLUTIONS)
        ]
        sums = np.zeros((len(settings), 2))
        for draft, target in tqdm(
            rows, f"T = {temperature:g}", disable=None, leave=False
        ):
            row = Row(draft, target, temperature)
            for total, (keep, resolution) in zip(sums, settings, strict=True):
                sent = row.send(keep, resolution)
                keep.update(row.dropped_mass(sent.kept))
                bits = paper_bits(source.vocab_size, sent.kept, resolution, True)
                total += bits, sent.loss.tv
        bits, loss = sums.T / len(rows)
        front = pareto(bits, loss)
        for point, tv in OPERATING_POINTS:
            if point == temperature:
                found = bits_at(bits[front], loss[front], tv)
                text = "out of reach" if found is None else f"{found:.0f} bits"
                print(f"T = {temperature:g}, TV {tv}: {text}")


if __name__ == "__main__":
    main()
