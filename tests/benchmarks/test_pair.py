"""Pairs of models that programs of benchmarks/ run on."""

import pytest

from benchmarks.pair import load_pair
from sqs_codec.system.hf import ModelError
from tests.cli.test_demo import WORDS, save_model


def test_pairs_that_cannot_work_are_refused(tmp_path):
    one = save_model(tmp_path / "one", 16, WORDS)
    other = save_model(tmp_path / "other", 16, [*WORDS[:-2], WORDS[-1], WORDS[-2]])
    small = save_model(tmp_path / "small", 8, WORDS)
    with pytest.raises(ModelError, match=r"different tokenizers .*2 with different"):
        load_pair(one, other, 1)
    with pytest.raises(ModelError, match=r"ids up to 12 .* only 8 logits"):
        load_pair(small, one, 1)
    with pytest.raises(ModelError, match="cannot load"):
        load_pair(one, str(tmp_path / "nothing"), 1)
