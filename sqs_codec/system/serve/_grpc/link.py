"""The edge's end of sessions over gRPC.

The token crosses once, in the metadata that opens the stream. ``bdp_probe`` is off at
both ends: it would send pings with the messages, 76 bytes a round.
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

READY = ("sqs", "open")  # metadata by which a server says that it has let a stream in
MOST_WAITING = 256  # messages that may wait for a peer to read

SHARED_OPTIONS = [
    ("grpc.http2.bdp_probe", 0),
    # Who vanished without a word is noticed after five minutes, as a ping's answer
    # has three. Not sooner, as a ping may wait behind a long prompt on a thin link.
    ("grpc.keepalive_time_ms", 120_000),
]

Options = list[tuple[str, int]]


class GrpcLink:
    """A `Link` by gRPC; `sqs_codec.system.serve.connect` describes the parameters."""

    reliable = True
    max_message = MAX_MESSAGE
    overhead = MESSAGE[False] + ACK
    """With TLS: 20 IP, 32 TCP, 22 TLS, 14 gRPC, 26 for its window updates, and 52."""

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
        self._woken = False  # whether `_incoming` holds a None of `wake`
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
                    f"seconds: is it there, and is the address right?"
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
        """Send a message. It waits while many others wait."""
        if len(message) > self.max_message:
            raise ValueError(
                f"a message has at most {self.max_message} bytes, not {len(message)}"
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
        """Send what waits, for a second at most, and close the link."""
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
        with contextlib.suppress(queue.Full):  # if it is, nobody waits
            self._outgoing.put_nowait(None)

    def _check(self) -> None:
        if self._error is not None:
            raise LinkError(self._error)

    def _read(self) -> None:
        """Take what comes, in a thread of its own."""
        try:
            if READY in self._call.initial_metadata():
                self._opened.set()
            for message in self._call:
                if self._incoming.qsize() >= MOST_WAITING:
                    self._error = (
                        f"the server at {self._address} sends more than it was asked "
                        f"for"
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
        return f"the server at {self._address} is gone: {reason}"

    def _explain(self, error: Any) -> str:
        """Say in words what ended the stream, and what to do."""
        code, details = error.code(), " ".join(str(error.details()).split())
        server = f"the server at {self._address}"
        if code is grpc.StatusCode.UNAUTHENTICATED:
            if self._had_token:
                return f"{server} refused the token: give one that it takes"
            return f"{server} wants a token (--token, SQS_TOKEN), and none was given"
        if code is grpc.StatusCode.ABORTED:
            return f"{server} closed the connection: {details}"
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return f"{server} refuses so much: {details}"
        if code is grpc.StatusCode.UNIMPLEMENTED:
            return f"{server} is some other gRPC server, not that of sqs serve"
        for sign, meaning in SIGNS.items():
            _, found, rest = details.partition(sign)
            if found:
                meaning = meaning.format(reason=rest.strip(": ").partition(":")[0])
                return f"no connection to {self._address}: {meaning}"
        if not self._opened.is_set():
            details = details.rpartition("last error: ")[2]
            advice = "is this the port of sqs serve, with room for one connection more"
            if self._insecure:
                advice += ", and was it started with --insecure, too"
            return f"no connection to {self._address}: {details}; {advice}?"
        return self._gone(details)


SIGNS = {
    "CERTIFICATE_VERIFY_FAILED": "the server's certificate isn't trusted ({reason}); "
    "give the right one, or its issuer's (--cert)",
    "Hostname Verification": "the server's certificate is for another name; use a "
    "name that is in it, or make one with this name",
    "Peer name": "the server's certificate is for another name; use a name that is in "
    "it, or make one with this name",
    "WRONG_VERSION_NUMBER": "the server speaks plain text; --insecure does, too, on "
    "this machine",
    "Connection refused": "nothing listens there; is the server running, and the port "
    "right?",
    "errors resolving": "there is no host of this name",
    "DNS resolution failed": "there is no host of this name",
}
"""What gRPC's words mean, for people; some go on with a reason."""


def _channel(
    address: str, security: Certificate | Insecure | None, timeout: float, mark: int
) -> Any:
    options: Options = [
        *SHARED_OPTIONS,
        ("grpc.keepalive_timeout_ms", mark),
        ("grpc.max_receive_message_length", MAX_MESSAGE),
        ("grpc.enable_retries", 0),  # the session does it
        # As long may the handshake take; a little more, so that we say what it was.
        ("grpc.min_reconnect_backoff_ms", round(1000 * timeout) + 1000),
    ]
    if security is INSECURE:
        # A proxy from the environment is another machine.
        options.append(("grpc.enable_http_proxy", 0))
        return grpc.insecure_channel(address, options)
    roots = None if security is None else Path(security.cert).read_bytes()
    credentials = grpc.ssl_channel_credentials(roots)
    return grpc.secure_channel(address, credentials, options)
