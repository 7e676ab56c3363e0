"""The engine of a model on a CPU: how many threads its passes take."""

import numpy as np
import pytest
import torch

from sqs_codec.system.hf import _engine
from sqs_codec.system.session import Job, Sampling
from tests.system.hf.test_cloud import tiny


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("times", "few"),
    [
        ({4: 9.0, 2: 5.0, 1: 6.0}, 2),
        ({4: 9.0, 2: 5.0, 1: 4.0}, 1),
        ({4: 3.0, 2: 5.0}, 4),  # one alone isn't waited for with a large model
    ],
)
@pytest.mark.usefixtures("four_threads")
def test_short_passes_take_the_threads_by_which_they_are_the_fastest(
    times, few, monkeypatch
):
    tried = []

    def threads(cloud, tokens):
        cloud.verify([Job(b"one", [0] * tokens, None, np.zeros(1), Sampling())])
        return torch.get_num_threads()

    def pass_seconds(cloud):
        tried.append(threads(cloud, 1))
        return times[tried[-1]]

    monkeypatch.setattr(_engine, "pass_seconds", pass_seconds)
    cloud = _engine.ThreadedCloud(tiny())
    assert tried == [*times]
    assert [threads(cloud, tokens) for tokens in (1, 41, 42)] == [few, 4, few]
