"""Metrics of a server, for Prometheus."""

import asyncio
import functools
from collections.abc import Callable

import prometheus_client as prometheus

from sqs_codec._base.words import shown
from sqs_codec.system._base.crowd import first_of_crowd

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

SPECULATION = "vllm:spec_decode_num_"
"""Prefix of vLLM's metrics. With its labels too, dashboards for vLLM work here."""

MOST_READERS = 128
"""Maximum number of connections, as for unauthenticated ones in `sqs proxy`. Above it,
the oldest connection of the host with the most connections is closed."""

READING_SECONDS = 5.0  # for a request and its answer

BROKEN = asyncio.IncompleteReadError, asyncio.LimitOverrunError
GONE = OSError, asyncio.TimeoutError, *BROKEN  # errors of slow or broken requests


class ServiceMetrics:
    """Metrics of a server, in a registry of their own."""

    def __init__(self, model: str, health: Callable[[], str | None]) -> None:
        self.registry = prometheus.CollectorRegistry()
        self._health = health
        self._readers: dict[asyncio.StreamWriter, None] = {}  # oldest first
        counter = functools.partial(prometheus.Counter, registry=self.registry)
        gauge = functools.partial(prometheus.Gauge, registry=self.registry)
        self.sessions = gauge("sqs_sessions", "Sessions, without idle ones.")
        self._labels = {"model_name": model, "engine": "0"}
        self._drafts, self._drafted, self._accepted = (
            counter(SPECULATION + name, what, self._labels).labels(**self._labels)
            for name, what in (
                ("drafts", "Rounds verified, and forward passes with hints."),
                ("draft_tokens", "Drafted tokens and hints verified."),
                ("accepted_tokens", "Drafted tokens and hints accepted."),
            )
        )
        self._accepted_at = counter(
            SPECULATION + "accepted_tokens_per_pos",
            "Drafted tokens accepted, by position in the draft.",
            [*self._labels, "position"],
        )
        self._rejected = counter(
            "sqs_rejected_tokens",
            "Drafted tokens and hints rejected, at most one per draft.",
        )
        self.tokens = counter(
            "sqs_text_tokens", "Tokens added to completions: accepted or the target's."
        )
        self.failures = counter("sqs_failed_jobs", "Jobs on which the engine failed.")
        self.received = counter(
            "sqs_received_bytes", "Bytes of received messages, without headers."
        )
        self.sent = counter(
            "sqs_sent_bytes", "Bytes of sent messages, without headers."
        )
        self.refused = counter(
            "sqs_refusals", "Connections refused or closed, by reason.", ["reason"]
        )
        self.expiry = gauge(
            "sqs_certificate_expiry_timestamp_seconds",
            "Expiry of the certificate as a Unix time; 0 without one.",
        )
        self.jobs = gauge("sqs_jobs", "Jobs in the engine, running or waiting.")
        said, where = "Seconds per job in the engine.", self.registry
        self.job_seconds = prometheus.Histogram(
            "sqs_job_seconds", said, buckets=SECONDS, registry=where
        )

    def count_draft(self, drafted: int, accepted: int, rejected: bool) -> None:
        """Count a round, or the hints of a forward pass, after its verdict."""
        self._drafts.inc()
        self._drafted.inc(drafted)
        self._accepted.inc(accepted)
        self._rejected.inc(rejected)
        for position in range(accepted):
            self._accepted_at.labels(**self._labels, position=position).inc()

    async def serve(self, host: str, port: int) -> asyncio.Server:
        """Serve ``/metrics`` and ``/health`` over HTTP, in the running event loop."""
        # asyncio accepts up to `backlog` connections at once. With half of the maximum,
        # it reads a request before connections of one host can displace it.
        return await asyncio.start_server(
            self._serve, host, port, limit=8192, backlog=MOST_READERS // 2
        )

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer one request, unless it is too slow or gets displaced."""
        self._readers[writer] = None
        if len(self._readers) > MOST_READERS:
            gone = first_of_crowd(
                [*self._readers], lambda w: (w.get_extra_info("peername") or "")[:1]
            )
            del self._readers[gone]
            gone.transport.abort()
        try:
            await asyncio.wait_for(self._answer(reader, writer), READING_SECONDS)
        except GONE:
            pass
        finally:
            self._readers.pop(writer, None)
            writer.transport.abort()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        method, path = (*request.split(), b"", b"")[:2]
        asked = path.partition(b"?")[0] if method == b"GET" else b""
        status, page = "404 Not Found", b"not found; use /metrics or /health\n"
        if asked == b"/metrics":
            status, page = "200 OK", prometheus.generate_latest(self.registry)
        elif asked == b"/health":
            reason = self._health()
            status = "200 OK" if reason is None else "503 Service Unavailable"
            page = f"{shown(reason or 'ok')}\n".encode(errors="replace")
        head = (
            f"HTTP/1.1 {status}\r\n"
            f"Content-Type: {prometheus.CONTENT_TYPE_LATEST}\r\n"
            f"Content-Length: {len(page)}\r\nConnection: close\r\n\r\n"
        )
        writer.transport.set_write_buffer_limits(0)  # `drain` waits until all is sent
        writer.write(head.encode() + page)
        await writer.drain()
