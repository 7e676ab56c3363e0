"""Presets: each goes through a round, and a wrong name says which there are."""

import numpy as np
import pytest

import sqs_codec as sqs
from tests.kit import normal_rows

pytestmark = pytest.mark.usefixtures("backend")

V = 49_152
NAMES = "thin", "balanced", "fat"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prior", [None, "smollm2"])
def test_a_preset_goes_from_drafter_to_verdict(name, prior):
    preset = sqs.preset(name)
    codec = preset.codec(V, prior and sqs.Prior.builtin(prior))
    edge = sqs.Drafter(
        codec, preset.keep(), rng=np.random.default_rng(0), max_tokens=preset.max_tokens
    )
    for row in normal_rows(1, preset.max_tokens, V):
        assert edge.push(row, temperature=0.7) is not None
    assert edge.push(row) is None
    distributions = edge.distributions
    round_ = codec.decode_round(edge.finish())
    assert round_.distributions == distributions
    target = [*(q.to_dense(np.float64) for q in distributions), np.full(V, 1 / V)]
    verdict = sqs.verify(round_, np.array(target), np.random.default_rng(1))
    assert verdict.accepted == preset.max_tokens  # as p = q^
    edge.feedback(verdict)


def test_a_wrong_name_lists_the_presets():
    expected = r"preset must be one of \['thin', 'balanced', 'fat'\], got 'thick'"
    with pytest.raises(ValueError, match=expected):
        sqs.preset("thick")
