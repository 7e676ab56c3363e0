"""What a server counts, for Prometheus."""

import asyncio
import functools
from collections.abc import Callable

import prometheus_client as prometheus

from sqs_codec._base.words import shown
from sqs_codec.system._base.crowd import first_of_crowd

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

SPECULATION = "vllm:spec_decode_num_"
"""vLLM's names, with its labels, so that dashboards made for vLLM show this server."""

MOST_READERS = 128
"""Connections at a time, as many as `sqs proxy` has of strangers. Above it, the oldest
connection of the host with the most connections is closed."""

READING_SECONDS = 5.0  # for a request and its answer

BROKEN = asyncio.IncompleteReadError, asyncio.LimitOverrunError
GONE = OSError, asyncio.TimeoutError, *BROKEN
"""What ends a reader that doesn't ask as it should."""


class ServiceMetrics:
    """A server's counters, in a registry of their own; each says what it counts."""

    def __init__(self, model: str, health: Callable[[], str | None]) -> None:
        self.registry = prometheus.CollectorRegistry()
        self._health = health
        self._readers: dict[asyncio.StreamWriter, None] = {}  # the oldest first
        counter = functools.partial(prometheus.Counter, registry=self.registry)
        gauge = functools.partial(prometheus.Gauge, registry=self.registry)
        self.sessions = gauge("sqs_sessions", "Sessions, without those that rest.")
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
            "Drafted tokens accepted, by their position in the draft.",
            [*self._labels, "position"],
        )
        self._rejected = counter(
            "sqs_rejected_tokens",
            "Drafted tokens and hints rejected, at most one per draft.",
        )
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
        self.expiry = gauge(
            "sqs_certificate_expiry_timestamp_seconds",
            "When the certificate ends, in seconds of Unix; 0 without one.",
        )
        self.jobs = gauge(
            "sqs_jobs", "Jobs that the engine is at, those that wait included."
        )
        said, where = "Seconds that the engine takes for a job.", self.registry
        self.job_seconds = prometheus.Histogram(
            "sqs_job_seconds", said, buckets=SECONDS, registry=where
        )

    def count_draft(self, drafted: int, accepted: int, rejected: bool) -> None:
        """Count a round or the hints of a pass, once the text has what came of it."""
        self._drafts.inc()
        self._drafted.inc(drafted)
        self._accepted.inc(accepted)
        self._rejected.inc(rejected)
        for position in range(accepted):
            self._accepted_at.labels(**self._labels, position=position).inc()

    async def serve(self, host: str, port: int) -> asyncio.Server:
        """Serve ``/metrics`` and ``/health`` by HTTP, in the running event loop."""
        # A backlog is also what asyncio accepts at once: with half as many, a request
        # is read before its connection has to make room for those of one host.
        return await asyncio.start_server(
            self._serve, host, port, limit=8192, backlog=MOST_READERS // 2
        )

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer one request, unless it takes long or has to make room."""
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
        status, page = "404 Not Found", b"see /metrics and /health\n"
        if asked == b"/metrics":
            status, page = "200 OK", prometheus.generate_latest(self.registry)
        elif asked == b"/health":
            reason = self._health()
            status = "200 OK" if reason is None else "503 Service Unavailable"
            page = f"{shown(reason or 'it can verify')}\n".encode(errors="replace")
        head = (
            f"HTTP/1.1 {status}\r\n"
            f"Content-Type: {prometheus.CONTENT_TYPE_LATEST}\r\n"
            f"Content-Length: {len(page)}\r\nConnection: close\r\n\r\n"
        )
        writer.transport.set_write_buffer_limits(0)  # so that all is sent once drained
        writer.write(head.encode() + page)
        await writer.drain()
