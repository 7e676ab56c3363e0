"""The table of settings: each goes through a round, and a planner has all of them."""

import numpy as np
import pytest

import sqs_codec as sqs
from sqs_codec.system.session import Setting
from tests.kit import normal_rows

pytestmark = pytest.mark.usefixtures("backend")

V = 49_152


@pytest.mark.parametrize("name", ["thin", "balanced", "fat"])
@pytest.mark.parametrize("prior", [None, "smollm2"])
def test_a_setting_goes_from_drafter_to_verdict(name, prior):
    k, resolution = sqs.SETTINGS[name]
    codec = sqs.Codec(V, resolution, prior=prior and sqs.Prior.builtin(prior))
    rng = np.random.default_rng(0)
    edge = sqs.Drafter(codec, sqs.TopK(k), rng=rng, max_tokens=4)
    for row in normal_rows(1, 4, V):
        assert edge.push(row, temperature=0.7) is not None
    assert edge.push(row) is None
    distributions = edge.distributions
    round_ = codec.decode_round(edge.finish())
    assert round_.distributions == distributions
    target = [*(q.to_dense(np.float64) for q in distributions), np.full(V, 1 / V)]
    verdict = sqs.verify(round_, np.array(target), np.random.default_rng(1))
    assert verdict.accepted == 4  # as p = q^
    edge.feedback(verdict)


def test_the_table_stays_as_it_is():
    with pytest.raises(TypeError):
        sqs.SETTINGS["thin"] = 1, 1


def test_the_defaults_of_sessions_are_those_of_the_table():
    prior = sqs.Prior.builtin("smollm2")
    settings = Setting.defaults(V, prior)
    assert [(s.keep.k, s.codec.resolution) for s in settings] == [
        *sqs.SETTINGS.values()
    ]
    assert {s.codec.prior for s in settings} == {prior}
    assert Setting.defaults(V)[0].codec == sqs.Codec(V, sqs.SETTINGS["thin"][1])
