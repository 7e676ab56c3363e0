"""`check_lossless` on loops by hands that didn't write its toys.

python -m tests.testing.test_grid                all, as a table: some minutes
python -m tests.testing.test_grid torch greedy   those whose names have one of the words

The suite takes those of one drafted token.
"""

import re
import sys
import time
from collections import Counter

import numpy as np
import pytest
import torch

from sqs_codec.testing import LossyError, check_lossless
from sqs_codec.testing._mistakes import MISTAKES
from sqs_codec.testing._toy import DRAFT, PROMPT, TARGET, VOCAB
from tests.testing import user_loops
from tests.testing.loops import RIGHT, WRONG, Loop

ALL = WRONG | RIGHT
QUICK = [n for n in ALL if getattr(ALL[n], "__self__", Loop(2)).drafts == 1]
MISNAMED = {"another q: 8 bits"}  # and, of the others, "one seed: torch"


def tried(name):
    """What it's found by, the total variation, and what it's said to be."""
    try:
        report = check_lossless(ALL[name])
    except LossyError as error:
        said = str(error)
    else:
        return report.method, report.distance, "passes"
    by = "sum" if "summed" in said else "texts"
    distance = float(re.search(r"total variation (\d\.\d+)", said)[1])
    return by, distance, next((x for x in MISTAKES if MISTAKES[x] in said), "none")


@pytest.mark.parametrize("name", QUICK)
def test_a_loop_of_others(name):
    said, mistake = tried(name)[2], name.split(":")[0]
    assert (said == "passes") == (name in RIGHT)
    assert name in RIGHT or mistake in {said, "none"} or name in MISNAMED


@pytest.mark.parametrize("make", [*user_loops.WRONG, *user_loops.RIGHT])
def test_a_loop_of_a_user_writes_tokens(make):
    decode = make()
    for seed in range(20):
        written = decode(PROMPT, DRAFT, TARGET, np.random.default_rng(seed))
        assert 0 < len(written) <= 5
        assert all(0 <= token < VOCAB for token in written)


if __name__ == "__main__":
    torch.set_num_threads(1)
    tally = Counter()
    print("| loop | found by | total variation | name | seconds |", "\n|" + "---|" * 5)
    for name in ALL:
        if any(word in name for word in sys.argv[1:] or [""]):
            start = time.process_time()
            by, distance, said = tried(name)
            took = time.process_time() - start
            print(
                f"| {name} | {by} | {distance:.4f} | {said} | {took:.1f} |", flush=True
            )
            found = "passes" if said == "passes" else "found"
            tally[f"{'right' if name in RIGHT else 'wrong'}, {found}"] += 1
            tally["named"] += name.split(":")[0] == said
    print(*(f"\n{count} {what}" for what, count in tally.items()))
