"""`check_lossless` on loops by people who hadn't seen its toys.

`python -m tests.testing.test_grid` prints a table.
"""

import re

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
    for exact, method in (None, RIGHT_STATE[make]), (False, "chi2"):
        report = check_lossless(make(), exact=exact, trials=2000)
        assert report.method == method
        said = "since the loop keeps state between calls" in report.note
        assert said == (RIGHT_STATE[make] == "chi2")


if __name__ == "__main__":
    torch.set_num_threads(1)
    loops = ALL | {loop.__name__: loop for loop in UNNOTICED}
    loops |= {str(make): make() for make in [*STATE, *RIGHT_STATE]}
    print("| loop | found by | total variation | name |", "\n|" + "---|" * 4)
    for name, decode in loops.items():
        by, distance, *said = tried(decode)
        print(f"| {name} | {by} | {distance:.4f} | {', '.join(said)} |", flush=True)
