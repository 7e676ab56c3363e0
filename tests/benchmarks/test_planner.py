"""What a planner and hints are worth, on a virtual clock."""

import dataclasses
from functools import lru_cache

import pytest

from benchmarks.planner import __main__ as benchmark

CASE = dataclasses.replace(benchmark.CASES[0], texts=1)
LINKS = (2e3, 0.1), (3e4, 0.02), (1e6, 0.1)
GRID = benchmark.Grid((), LINKS, 100)


@lru_cache
def written():
    return [benchmark.compare(CASE, cloud, GRID) for cloud in CASE.clouds]


def test_hints_are_ahead_of_rounds_and_the_cloud_alone():
    fast, slow = ((one.speed["hints"] / one.without)[0] for one in written())
    assert fast.min() >= 0.96  # at 2 kbit/s, where hints fill the link
    assert slow.min() >= 1.0
    assert slow.mean() >= 1.1


@pytest.mark.parametrize("cloud", [0, 1])
def test_planners_come_near_the_best(cloud):
    one = written()[cloud]
    assert (one.speed["planner"] / one.best)[0].min() >= 0.9
    assert (one.speed["planner"] / one.speed["alone"])[0].min() >= 0.95
    assert one.size["for bytes"][0].max() <= 20  # the others take at least 50
