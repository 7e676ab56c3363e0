"""`check_lossless` on loops by hands that didn't write its toys.

python -m tests.test_testing_grid                all, as a table: some minutes
python -m tests.test_testing_grid torch greedy   those whose names have one of the words

The suite takes those that need a second or two.
"""

import re
import sys
import time
from collections import Counter

import pytest
import torch

from sqs_codec.testing import LossyError, check_lossless
from sqs_codec.testing._mistakes import MISTAKES
from tests.loops import RIGHT, WRONG

SLOW = re.compile(
    "hf top-p 0.95|hf min-p 0.1|torch|transformers|seed|noise|race|Gumbel|drops|at once"
    "|epsilon 0.05|off the support: top-p|bonus token: |stops early|text of|our "
    "|unbiased|from p: top-k|q/p|typical|all that|two candidates"
)
QUICK = [name for name in WRONG | RIGHT if not SLOW.search(name)]
MISNAMED = {"another q: bfloat16", "too lenient: above 0.1", "greedy: bonus"}


def tried(name):
    """What it's found by, the total variation, and the names that the error has."""
    try:
        report = check_lossless((WRONG | RIGHT)[name])
    except LossyError as error:
        said = str(error)
    else:
        return report.method, report.distance, None
    by = "sum" if "summed" in said else "texts"
    distance = float(re.search(r"total variation (\d\.\d+)", said)[1])
    return by, distance, [key for key, words in MISTAKES.items() if words in said]


@pytest.mark.parametrize("name", QUICK)
def test_a_loop_of_others(name):
    names, mistake = tried(name)[2], name.split(":")[0]
    assert (names is None) == (name in RIGHT)
    assert names is None or mistake in {*names, "none"} or name in MISNAMED


if __name__ == "__main__":
    torch.set_num_threads(1)
    tally = Counter()
    print(
        "| loop | found by | total variation | name | seconds |\n|---|---|---|---|---|"
    )
    for name in WRONG | RIGHT:
        if any(word in name for word in sys.argv[1:] or [""]):
            start = time.process_time()
            by, distance, names = tried(name)
            took = time.process_time() - start
            said = "passes" if names is None else ", ".join(names) or "none"
            print(
                f"| {name} | {by} | {distance:.4f} | {said} | {took:.1f} |", flush=True
            )
            kind = "right" if name in RIGHT else "wrong"
            tally[f"{kind}, {'passes' if names is None else 'found'}"] += 1
            tally["named"] += name.split(":")[0] in (names or [])
    print(*(f"\n{count} {what}" for what, count in tally.items()))
