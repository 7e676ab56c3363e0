"""The files that ``benchmarks/data/fit_model.py`` writes."""

from benchmarks.data import fit_model


def test_generated_files_match_the_model():
    assert fit_model.stale() == []
