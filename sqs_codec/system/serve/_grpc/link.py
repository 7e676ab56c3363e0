"""The edge's end of sessions over gRPC.

The access token crosses the link once, in the metadata that opens the stream. Both ends
switch ``bdp_probe`` off: its pings would take 76 bytes per round.
"""

import contextlib
import queue
import threading
from pathlib import Path
from typing import Any

import grpc

from sqs_codec._base.words import shown
from sqs_codec.system._base.access import INSECURE, Certificate, Insecure
from sqs_codec.system.serve._grpc.wire import ACK, MESSAGE, Wire
from sqs_codec.system.session import LinkError
from sqs_codec.system.session.transport import MAX_MESSAGE

SERVICE, METHOD = "sqs.Sessions", "Open"

READY = ("sqs", "open")  # metadata with which a server accepts a stream
MOST_WAITING = 256  # maximum number of queued messages

SHARED_OPTIONS = [
    ("grpc.http2.bdp_probe", 0),
    # A vanished peer is noticed after five minutes: two until the ping, three for its
    # answer. Over a slow link, a ping may wait behind a long prompt.
    ("grpc.keepalive_time_ms", 120_000),
]

Options = list[tuple[str, int]]


class GrpcLink:
    """A `Link` over gRPC; `sqs_codec.system.serve.connect` describes the parameters."""

    reliable = True
    max_message = MAX_MESSAGE
    overhead = MESSAGE[False] + ACK
    """With TLS: 20 IP, 32 TCP, 22 TLS, 14 gRPC, 26 of window updates, 52 of an ACK."""

    def __init__(
        self,
        address: str,
        *,
        security: Certificate | Insecure | None,
        token: str | None,
        timeout: float,
    ) -> None:
        self._insecure = security is INSECURE
        self._wire = Wire(self._insecure)
        self._address = address
        self._had_token = token is not None
        self._error: str | None = None
        self._closed = False
        self._woken = False  # whether `_incoming` holds a None from `wake`
        self._outgoing: queue.Queue[bytes | None] = queue.Queue(MOST_WAITING)
        self._incoming: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._opened = threading.Event()
        self._over = threading.Event()
        self._channel = _channel(address, security, timeout, self._wire.mark)
        method = self._channel.stream_stream(f"/{SERVICE}/{METHOD}")
        metadata = [("authorization", f"Bearer {token}")] if token else []
        self._call = method(iter(self._outgoing.get, None), metadata=metadata)
        threading.Thread(target=self._read, name="sqs-link", daemon=True).start()
        try:
            if not self._opened.wait(timeout):
                raise LinkError(
                    f"the server at {address} didn't answer within {timeout:g} "
                    f"seconds; check the address, and that the server runs"
                )
            self._check()
            self._wire.find()
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<GrpcLink to {self._address}>"

    @property
    def sent(self) -> int:
        return self._wire.total()[0]

    @property
    def received(self) -> int:
        return self._wire.total()[1]

    def send(self, message: bytes) -> None:
        """Send a message; waits while the queue is full."""
        if len(message) > self.max_message:
            raise ValueError(
                f"message must have up to {self.max_message} bytes, got {len(message)}"
            )
        while True:
            self._check()
            try:
                self._outgoing.put(message, timeout=0.1)
            except queue.Full:
                continue
            self._wire.reckon(message, up=True)
            return

    def receive(self, timeout: float | None) -> bytes | None:
        try:
            message = self._incoming.get(timeout != 0, timeout)
        except queue.Empty:
            return None
        if message is not None:
            self._wire.reckon(message, up=False)
            return message
        self._woken = False
        if self._over.is_set() and self._incoming.empty():
            self._incoming.put(None)  # for the next call
            self._check()
            raise LinkError("the link is closed")
        return None

    def wake(self) -> None:
        if not self._woken:
            self._woken = True
            self._incoming.put(None)

    def close(self) -> None:
        """Send queued messages, for a second at most, and close the link."""
        if self._closed:
            return
        self._closed = True
        if self._opened.is_set() and self._error is None:
            self._finish_sending()
            self._over.wait(1.0)
        self._error = self._error or "the link is closed"
        self._call.cancel()
        self._channel.close()
        self._finish_sending()
        self._wire.close()

    def _finish_sending(self) -> None:
        """End the messages, which also frees the thread that waits for them."""
        with contextlib.suppress(queue.Full):  # then no thread waits
            self._outgoing.put_nowait(None)

    def _check(self) -> None:
        if self._error is not None:
            raise LinkError(self._error)

    def _read(self) -> None:
        """Receive messages, in a thread of its own."""
        try:
            if READY in self._call.initial_metadata():
                self._opened.set()
            for message in self._call:
                if self._incoming.qsize() >= MOST_WAITING:
                    self._error = (
                        f"the server at {self._address} sent more than {MOST_WAITING} "
                        f"messages that weren't read"
                    )
                    self._call.cancel()
                    break
                self._incoming.put(message)
            self._error = self._error or self._gone("it closed the connection")
        except grpc.RpcError as error:
            self._error = self._error or shown(self._explain(error))
        self._over.set()
        self._incoming.put(None)
        self._opened.set()

    def _gone(self, reason: str) -> str:
        return f"lost the server at {self._address}: {reason}"

    def _explain(self, error: Any) -> str:
        code, details = error.code(), " ".join(str(error.details()).split())
        server = f"the server at {self._address}"
        if code is grpc.StatusCode.UNAUTHENTICATED:
            if self._had_token:
                advice = "pass a valid one (--token, SQS_TOKEN)"
                return f"{server} refused the access token; {advice}"
            return f"{server} needs an access token; pass one (--token, SQS_TOKEN)"
        if code is grpc.StatusCode.ABORTED:
            return f"{server} closed the connection: {details}"
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return f"{server} refused the message as too large: {details}"
        if code is grpc.StatusCode.UNIMPLEMENTED:
            return f"{server} is a different gRPC server, not sqs serve"
        for sign, meaning in SIGNS.items():
            _, found, rest = details.partition(sign)
            if found:
                meaning = meaning.format(reason=rest.strip(": ").partition(":")[0])
                return f"no connection to {self._address}: {meaning}"
        if not self._opened.is_set():
            details = details.rpartition("last error: ")[2]
            advice = "check that this is the port of sqs serve, that it isn't full"
            if self._insecure:
                advice += ", and that it runs with --insecure, too"
            return f"no connection to {self._address}: {details}; {advice}"
        return self._gone(details)


SIGNS = {
    "CERTIFICATE_VERIFY_FAILED": "the server's certificate isn't trusted ({reason}); "
    "pass the server's certificate, or its issuer's (--cert)",
    "Hostname Verification": "the server's certificate is for another name; connect "
    "to a name in the certificate, or make a certificate for this name",
    "Peer name": "the server's certificate is for another name; connect to a name in "
    "the certificate, or make a certificate for this name",
    "WRONG_VERSION_NUMBER": "the server uses plain text; on this machine, --insecure "
    "does too",
    "Connection refused": "nothing listens on this port; check the port, and that the "
    "server runs",
    "errors resolving": "no host has this name",
    "DNS resolution failed": "no host has this name",
}
"""Explanations of gRPC's errors; ``{reason}`` is the rest of the error."""


def _channel(
    address: str, security: Certificate | Insecure | None, timeout: float, mark: int
) -> Any:
    options: Options = [
        *SHARED_OPTIONS,
        ("grpc.keepalive_timeout_ms", mark),
        ("grpc.max_receive_message_length", MAX_MESSAGE),
        ("grpc.enable_retries", 0),  # the session repeats messages
        # The time limit of the handshake; a little longer, so that ours reports it.
        ("grpc.min_reconnect_backoff_ms", round(1000 * timeout) + 1000),
    ]
    if security is INSECURE:
        # A proxy from the environment would be another machine.
        options.append(("grpc.enable_http_proxy", 0))
        return grpc.insecure_channel(address, options)
    roots = None if security is None else Path(security.cert).read_bytes()
    credentials = grpc.ssl_channel_credentials(roots)
    return grpc.secure_channel(address, credentials, options)
