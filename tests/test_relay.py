"""Links in user space, their effects on datagrams, and the virtual clock."""

import numpy as np
import pytest

from tests.relay import Link, Way

CROWD = np.arange(2000) * 0.01


def way(**link):
    return Way(Link(**link), True, np.random.default_rng(0))


def passed(way, times, size=100):
    """The datagrams that arrive, for given times of sending."""
    return [each for now in times for each in way.pass_on(bytes(size), now)]


def test_datagrams_queue_on_a_low_bandwidth_link():
    """100 bytes take 0.1 s at 8 kbit/s; a later one finds the link free again."""
    thin = way(rate=8000, trip=0.04)
    arrivals = [due for due, _ in passed(thin, (10, 10, 10.05, 20), 72)]
    assert arrivals == pytest.approx([10.12, 10.22, 10.32, 20.12])
    assert thin.bytes == 400


def test_a_full_queue_drops_datagrams():
    """One of 0.1 s leaves while another waits; the third finds a queue of 0.2 s."""
    thin = way(rate=8000, queue=0.15)
    arrivals = [due for due, _ in passed(thin, (10, 10, 10, 10.05), 72)]
    assert arrivals == pytest.approx([10.1, 10.2, 10.3])
    assert (thin.dropped, thin.bytes) == (1, 300)


def test_jitter_does_not_reorder_datagrams():
    """Delays vary around the configured one, with the configured deviation."""
    sent = np.arange(1000) * 0.2
    arrivals = np.array(passed(way(trip=0.1, jitter=0.3), sent), object)
    delays = (arrivals[:, 0] - sent).astype(float)
    assert np.log(delays / 0.05).std() == pytest.approx(0.3, abs=0.03)
    assert np.median(delays) == pytest.approx(0.05, rel=0.05)
    crowded = [due for due, _ in passed(way(trip=0.1, jitter=0.3), CROWD)]
    assert crowded == sorted(crowded)


def test_loss_repeat_and_cut_rates_are_as_configured():
    assert len(passed(way(loss=0.2), CROWD)) == pytest.approx(1600, rel=0.05)
    assert len(passed(way(duplicate=0.2), CROWD)) == pytest.approx(2400, rel=0.05)
    sizes = np.array([len(data) for _, data in passed(way(truncate=0.2), CROWD)])
    assert np.mean(sizes < 100) == pytest.approx(0.2, abs=0.03)
    assert sizes[sizes < 100].mean() == pytest.approx(50, rel=0.1)
    assert passed(way(truncate=1), [0], 0) == [(0, b"")]
