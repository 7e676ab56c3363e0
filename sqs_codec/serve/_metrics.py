"""What a server counts, for Prometheus."""

from __future__ import annotations

import functools
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    start_http_server,
)

__all__ = ["Metrics"]

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Metrics:
    """A server's counters, in a registry of their own; each says what it counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter = functools.partial(Counter, registry=self.registry)
        gauge = functools.partial(Gauge, registry=self.registry)
        self.sessions = gauge("sqs_sessions", "Sessions known, connected or not.")
        self.rounds = counter("sqs_rounds", "Rounds that added to a text.")
        self.drafted = counter("sqs_drafted_tokens", "Tokens drafted in rounds.")
        self.accepted = counter("sqs_accepted_tokens", "Drafted tokens accepted.")
        self.tokens = counter(
            "sqs_text_tokens", "Tokens added to texts, the target's own included."
        )
        self.failures = counter("sqs_failed_jobs", "Jobs on which the engine failed.")
        self.received = counter(
            "sqs_received_bytes", "Bytes of messages received, without the transport's."
        )
        self.sent = counter(
            "sqs_sent_bytes", "Bytes of messages sent, without the transport's."
        )
        self.refused = counter(
            "sqs_refusals", "Connections refused or closed, by reason.", ["reason"]
        )
        self.jobs = gauge(
            "sqs_jobs", "Jobs that the engine is at, those that wait included."
        )
        self.job_seconds = Histogram(
            "sqs_job_seconds",
            "Seconds that the engine takes for a job.",
            buckets=SECONDS,
            registry=self.registry,
        )

    def serve(self, port: int) -> WSGIServer:
        """Serve them by HTTP under ``/metrics``, in a thread of their own."""
        server, _ = start_http_server(port, "127.0.0.1", self.registry)
        return server
