"""Make ``sqs_codec/system/edge/drafts.npz``, the rows a planner starts from.

    python -m benchmarks.planner.make_drafts

They are `ROWS` of the shipped rows of SmolLM2's two models, of the categories of
prompts that tables may be fitted to (the simulation runs on the others): sorted by how
often the draft is accepted at temperature 0.7, and evenly spaced, so that few rows
have the mean of all. Of each row there are the `TOP` tokens that matter:

======= ================ ===================================================
ids     64 x 96 uint16   the target's 32 most probable tokens, then the draft's
draft   64 x 96 int16    the draft's logits, the largest 0, in units of `UNIT`
target  64 x 96 int16    the target's, likewise
tails   64 x 2 float32   log of the sum of exp(logit) over all other tokens
======= ================ ===================================================
"""

from pathlib import Path

import numpy as np

import sqs_codec.system.edge
from benchmarks.data.drafts import held_out, load_drafts, load_targets
from benchmarks.rate.schemes import softmax
from sqs_codec.system.edge._costs import UNIT

ROWS, TOP, OF_TARGET = 64, 96, 32
TEMPERATURE = 0.7
OUT = Path(sqs_codec.system.edge.__file__).with_name("drafts.npz")


def main() -> None:
    """Write the file and say how large it is."""
    drafts, targets = load_drafts(), load_targets()
    rows = np.flatnonzero(~held_out(drafts))
    accepted = [
        np.minimum(*(softmax(x.row(i), TEMPERATURE) for x in (drafts, targets))).sum()
        for i in rows
    ]
    places = ((np.arange(ROWS) + 0.5) * rows.size / ROWS).astype(int)
    chosen = rows[np.argsort(accepted)[places]]
    ids = np.empty((ROWS, TOP), np.uint16)
    logits = np.empty((2, ROWS, TOP), np.int16)
    tails = np.empty((ROWS, 2), np.float32)
    for n, i in enumerate(chosen):
        likely = [*targets.ids[i][:OF_TARGET], *drafts.ids[i]]
        ids[n] = list(dict.fromkeys(likely))[:TOP]
        for side, model in enumerate((drafts, targets)):
            row = model.row(int(i))
            logits[side, n] = np.rint(row[ids[n]] / UNIT)
            others = np.delete(row, ids[n]).astype(np.float64)
            tails[n, side] = np.log(np.exp(others).sum())
    np.savez_compressed(OUT, ids=ids, draft=logits[0], target=logits[1], tails=tails)
    print(f"{OUT.name}: {ROWS} of {rows.size} rows, {OUT.stat().st_size} bytes")
    print(f"mean acceptance {np.mean(accepted):.3f} of all")


if __name__ == "__main__":
    main()
