"""What an endpoint counts, for Prometheus."""

import functools

import prometheus_client as prometheus
from prometheus_client import CONTENT_TYPE_LATEST

from sqs_codec.system.edge._metrics import EdgeMetrics

__all__ = ["CONTENT_TYPE_LATEST", "ProxyMetrics"]

SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0)

SUMS = {
    "tokens": "Tokens of texts, prompts not counted.",
    "drafted": "Tokens sent in rounds, or that the cloud had hints of in time.",
    "accepted": "Of these, tokens that took no forward pass of their own.",
    "resampled": "Drafted tokens rejected, at most one per answer.",
    "bytes_up": "Bytes on the wire to the cloud, with headers and connecting.",
    "bytes_down": "Bytes on the wire from the cloud, likewise.",
}


class ProxyMetrics:
    """Counters in a registry of their own; each says what it counts."""

    def __init__(self) -> None:
        self._registry = prometheus.CollectorRegistry()
        counter = functools.partial(prometheus.Counter, registry=self._registry)
        self.requests = counter(
            "sqs_proxy_requests", "Requests by the status of the answer.", ["status"]
        )
        self.texts = prometheus.Gauge(
            "sqs_proxy_texts", "Texts being written.", registry=self._registry
        )
        self.first_token = prometheus.Histogram(
            "sqs_proxy_first_token_seconds",
            "Seconds from a request to its first token.",
            buckets=SECONDS,
            registry=self._registry,
        )
        self._sums = {
            name: counter(f"sqs_proxy_{name}", what) for name, what in SUMS.items()
        }

    def count(self, figures: EdgeMetrics) -> None:
        """Add what a text took."""
        for name, counter in self._sums.items():
            counter.inc(getattr(figures, name))

    def page(self) -> bytes:
        """Return them as Prometheus reads them."""
        return prometheus.generate_latest(self._registry)
