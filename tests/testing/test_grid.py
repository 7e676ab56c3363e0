"""`check_lossless` on loops by people who hadn't seen its toys.

python -m tests.testing.test_grid                all, as a table: some minutes
python -m tests.testing.test_grid torch greedy   those whose names have one of the words
"""

import re
import sys
import time
from collections import Counter

import pytest
import torch

from sqs_codec.testing import LossyError, check_lossless
from sqs_codec.testing._mistakes import MISTAKES
from tests.testing.loops import RIGHT, RIGHT_STATE, STATE, UNNOTICED, WRONG

ALL = WRONG | RIGHT
UNNAMED = {"another q: 8 bits", "q/p: typical 0.8, T 0.8"}
"""Wrong loops that are found, but not named."""


def tried(decode):
    """The method, the total variation, and the name of the mistake."""
    try:
        report = check_lossless(decode)
    except LossyError as error:
        said = str(error)
    else:
        return report.method, report.distance, "passes"
    by = "sum" if "summed" in said else "texts"
    distance = float(re.search(r"total variation (\d\.\d+)", said)[1])
    names = [x for x in MISTAKES if MISTAKES[x] in said]
    return by, distance, *(names or ["state" if "keeps state" in said else "none"])


@pytest.mark.parametrize("name", ALL)
def test_a_right_loop_passes_and_a_mistake_is_named(name):
    _, distance, *said = tried(ALL[name])
    mistake = "none" if name in UNNAMED else name.split(":")[0]
    assert said == ["passes" if name in RIGHT else mistake]
    assert distance > 0 or name in RIGHT


def test_each_mistake_is_made():
    assert MISTAKES.keys() <= {name.split(":")[0] for name in WRONG}


@pytest.mark.parametrize("make", STATE)
def test_a_wrong_loop_that_keeps_state_gets_no_wrong_name(make):
    assert tried(make())[2] in {"state", "none"}


@pytest.mark.parametrize("make", RIGHT_STATE)
def test_a_right_loop_that_keeps_state_passes(make):
    assert check_lossless(make(), trials=2000).method == RIGHT_STATE[make]


if __name__ == "__main__":
    torch.set_num_threads(1)
    rows = [(name.split(":")[0], name, WRONG[name]) for name in WRONG]
    rows += [("state", str(make), make()) for make in STATE]
    rows += [("not summed", loop.__name__, loop) for loop in UNNOTICED]
    rows += [("passes", name, RIGHT[name]) for name in RIGHT]
    rows += [("passes", str(make), make()) for make in RIGHT_STATE]
    tally = Counter()
    print("| loop | found by | total variation | name | seconds |", "\n|" + "---|" * 5)
    for true, name, decode in rows:
        if any(word in name for word in sys.argv[1:] or [""]):
            start = time.process_time()
            by, distance, said = tried(decode)
            took = time.process_time() - start
            print(
                f"| {name} | {by} | {distance:.4f} | {said} | {took:.1f} |", flush=True
            )
            tally[true, said] += 1
    print("\n| is | is said to be | loops |\n|---|---|---|")
    for (true, said), number in sorted(tally.items()):
        print(f"| {true} | {said} | {number} |")
