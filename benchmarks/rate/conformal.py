"""What the paper's C-SQS takes with its online threshold, at the points of rate.py.

    python -m benchmarks.conformal_rate     1.5 minutes

`rate.py` gives C-SQS the best fixed threshold, which no user knows beforehand. Here
the threshold is the paper's: it moves by eta after every token so that the mean
dropped mass comes to alpha. Swept are alpha, eta and the resolution, over the same
rows, one after the other.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

import sqs_codec as sqs
from benchmarks.drafts import VOCAB_SIZE, load_drafts
from benchmarks.fit_model import held_out
from sqs_codec.bench.fronts import bits_at, pareto
from sqs_codec.bench.results import OPERATING_POINTS
from sqs_codec.theory import paper_bits

ALPHAS = (0.005, 0.01, 0.014, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.14, 0.18, 0.22)
ETAS = (1e-3, 1e-2)
RESOLUTIONS = (20, 28, 40, 56, 80, 112, 160, 224, 320)


def softmax(logits: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    """Return probabilities, float64 [V]."""
    terms = np.exp((logits - logits.max()).astype(np.float64) / temperature)
    probs: NDArray[np.float64] = terms / terms.sum()
    return probs


def run(
    rows: list[NDArray[np.float64]], resolution: int, keep: sqs.Conformal
) -> tuple[float, float]:
    """Return mean bits by the paper's formula and mean TV over rows in turn."""
    codec = sqs.Codec(VOCAB_SIZE, resolution)
    bits = moved = 0.0
    for probs in rows:
        kept = max(1, int(np.count_nonzero(probs >= keep.threshold)))
        q = codec.quantize_probs(probs, keep)
        keep.update(q.dropped_mass or 0.0)
        bits += paper_bits(VOCAB_SIZE, kept, resolution, conformal=True)
        moved += float(np.maximum(q.probs - probs[q.token_ids], 0).sum())
    return bits / len(rows), moved / len(rows)


def main() -> None:
    """Print a line for each operating point."""
    drafts = load_drafts()
    indices = np.flatnonzero(held_out(drafts)).tolist()
    print(f"{len(indices)} rows; alpha {ALPHAS}, eta {ETAS}, resolution {RESOLUTIONS}")
    for temperature in sorted({t for t, _ in OPERATING_POINTS}):
        rows = [softmax(drafts.row(i), temperature) for i in indices]
        bits, loss = np.array(
            [
                run(rows, resolution, sqs.Conformal(alpha, eta))
                for alpha, eta, resolution in itertools.product(
                    ALPHAS, ETAS, RESOLUTIONS
                )
            ]
        ).T
        front = pareto(bits, loss)
        for point, tv in OPERATING_POINTS:
            if point == temperature:
                found = bits_at(bits[front], loss[front], tv)
                text = "out of reach" if found is None else f"{found:.0f} bits"
                print(f"T = {temperature:g}, TV {tv}: {text}")


if __name__ == "__main__":
    main()
