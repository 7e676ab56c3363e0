"""The mutants of `tests.project.mutants` still apply to the code as it is."""

import pytest

from tests.project.mutants import MUTANTS, ROOT


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_each_mutant_applies_once(mutant):
    assert (ROOT / mutant.path).read_text().count(mutant.old) == 1
    assert mutant.old != mutant.new
    assert all((ROOT / test).exists() for test in mutant.tests)


def test_names_of_mutants_differ():
    assert len({m.name for m in MUTANTS}) == len(MUTANTS) > 0
