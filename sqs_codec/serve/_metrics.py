"""What a server counts, for Prometheus."""

from __future__ import annotations

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
    """A server's counters, in a registry of their own.

    Attributes
    ----------
    registry : prometheus_client.CollectorRegistry
    sessions : prometheus_client.Gauge
        Sessions that are known, connected or not.
    rounds, drafted, accepted, tokens : prometheus_client.Counter
        Rounds that added to a text, tokens drafted in them and accepted of these, and
        tokens of text, those that the target drew itself included.
    failures : prometheus_client.Counter
        Jobs on which the engine failed.
    received, sent : prometheus_client.Counter
        Bytes of messages, up and down, without what the transport adds.
    refused : prometheus_client.Counter
        Connections that were refused or closed, by reason.
    jobs : prometheus_client.Gauge
        Jobs that the engine is at, those that wait for others included.
    job_seconds : prometheus_client.Histogram
        How long they take.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.sessions = Gauge("sqs_sessions", "Sessions known.", registry=registry)
        self.rounds, self.drafted, self.accepted, self.tokens, self.failures = (
            Counter(f"sqs_{name}", text, registry=registry)
            for name, text in (
                ("rounds", "Rounds verified."),
                ("drafted_tokens", "Tokens drafted in the rounds verified."),
                ("accepted_tokens", "Drafted tokens accepted."),
                ("text_tokens", "Tokens added to texts."),
                ("failed_jobs", "Jobs on which the engine failed."),
            )
        )
        self.received, self.sent = (
            Counter(f"sqs_{name}_bytes", text, registry=registry)
            for name, text in (
                ("received", "Bytes of messages received."),
                ("sent", "Bytes of messages sent."),
            )
        )
        self.refused = Counter(
            "sqs_refusals",
            "Connections refused or closed, by reason.",
            ["reason"],
            registry=registry,
        )
        self.jobs = Gauge("sqs_jobs", "Jobs that the engine is at.", registry=registry)
        self.job_seconds = Histogram(
            "sqs_job_seconds",
            "Seconds that the engine takes for a job.",
            buckets=SECONDS,
            registry=registry,
        )

    def serve(self, port: int, host: str = "127.0.0.1") -> WSGIServer:
        """Serve them by HTTP under ``/metrics``, in a thread of their own.

        Returns
        -------
        wsgiref.simple_server.WSGIServer
            ``server_port`` is its port; ``shutdown()`` and ``server_close()`` end it.

        Raises
        ------
        OSError
            The port can't be had.
        """
        server, _ = start_http_server(port, host, self.registry)
        return server
