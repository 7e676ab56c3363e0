"""What is measured of Ray, quickly: that it runs."""

import re

import pytest

from benchmarks.engines.__main__ import main

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_overhead_runs(capsys):
    assert main(["overhead", "--rounds", "50", "--replicas", "1"]) == 0
    printed = capsys.readouterr().out
    assert "50 rounds of each" in printed
    assert re.search(r"^ gateway, gRPC, Ray +\d", printed, re.M)
