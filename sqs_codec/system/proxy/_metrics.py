"""Metrics of an endpoint, for Prometheus."""

import functools

import prometheus_client as prometheus

from sqs_codec.system.edge._metrics import EdgeMetrics

SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0)

SUMS = {
    "tokens": "Tokens of completions, without prompts.",
    "drafted": "Tokens drafted in rounds, or hinted in time.",
    "accepted": "Drafted or hinted tokens that were accepted.",
    "resampled": "Drafted tokens that were rejected, at most one per round.",
    "bytes_up": "Bytes to the cloud, with headers and connecting.",
    "bytes_down": "Bytes from the cloud, with headers and connecting.",
}


class ProxyMetrics:
    """Metrics of an endpoint, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = prometheus.CollectorRegistry()
        counter = functools.partial(prometheus.Counter, registry=self._registry)
        self.requests = counter(
            "sqs_proxy_requests", "Requests, by HTTP status of the answer.", ["status"]
        )
        self.texts = prometheus.Gauge(
            "sqs_proxy_texts", "Running completions.", registry=self._registry
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
        for name, counter in self._sums.items():
            counter.inc(getattr(figures, name))

    def page(self) -> bytes:
        return prometheus.generate_latest(self._registry)
