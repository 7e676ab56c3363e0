"""A taste of `python -m tests.system.session.campaign`."""

import numpy as np
import pytest

from tests.system.session.campaign import (
    MOST_BYTES,
    attack_cloud,
    attack_edge,
    attack_server,
    heaviest,
)


@pytest.mark.parametrize("seed", range(3))
def test_hostile_messages_to_the_cloud(seed):
    found = attack_cloud(np.random.default_rng(seed), 1500)
    assert len(found) > 10


@pytest.mark.parametrize("seed", range(3))
def test_hostile_messages_to_the_edge(seed):
    found = attack_edge(np.random.default_rng(seed), 1500)
    assert len(found) > 10


@pytest.mark.parametrize("transport", ["grpc", "datagram"])
def test_hostile_messages_to_a_server(transport):
    found = attack_server(np.random.default_rng(0), 500, transport)
    assert len(found) > 5


def test_memory_is_bounded_whatever_is_announced():
    for name, size in heaviest().items():
        assert size < MOST_BYTES, name
