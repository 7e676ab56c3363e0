"""Serve edges with datagrams: one message in each, encrypted with DTLS.

The server stores nothing about an address that hasn't returned its cookie. After a
restart, or if the client's address changed on the way, it doesn't know the association
of a record. Then it answers with a zero and the record's tag. To send that answer, one
must have seen the record, so the client trusts it and connects again.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hmac
import secrets
import socket
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import cast

from OpenSSL import SSL

from sqs_codec.system._base.access import Certificate, Insecure, Pair, check_security
from sqs_codec.system._base.crowd import first_of_crowd
from sqs_codec.system.serve._connection import Connection
from sqs_codec.system.serve._datagram import dtls
from sqs_codec.system.serve._service import SILENT_SECONDS, Service

_HANDSHAKE, _MESSAGE = 22, 23  # the first byte of a record
_CLIENT_HELLO = 1
_RANDOM = slice(27, 59)  # position in a hello of the bytes that identify it
_MAX_CLIENTS = 1024  # above it, a new client replaces a silent one or is refused
_MAX_HANDSHAKES = 256  # above it, a new one replaces one of the host with most
_IDLE_SECONDS = 300.0  # without a message, until the association ends
_COOKIE_SECONDS = 30
_SHAKE_SECONDS = 30.0  # time limit of a handshake: a slow link takes seconds per flight
_TICK = 0.25
_BUFFER = 1 << 20  # bytes of the socket's receive buffer

_WRONG = b"the server refused the access token; pass a valid one (--token, SQS_TOKEN)"
_NONE = b"the server needs an access token; pass one (--token, SQS_TOKEN)"


async def start_datagrams(
    service: Service,
    host: str,
    port: int,
    *,
    security: Certificate | Insecure,
) -> DatagramServer:
    """Serve a service over datagrams, in the running event loop.

    Parameters
    ----------
    service : Service
        A started service.
    host, port : str, int
        Address to listen on; port 0 is any free one. A machine with several addresses
        needs a specific one here: answers leave from the address the system prefers.
    security : Certificate or INSECURE
        `INSECURE` needs a loopback address. It still encrypts messages, but clients
        can't authenticate the server.
    """
    pair = check_security(host, security)
    server = DatagramServer(service, pair)
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(lambda: server, local_addr=(host, port))
    return server


class _Association:
    """One client of the server."""

    def __init__(
        self, address: dtls.Address, endpoint: dtls.Endpoint, random: bytes
    ) -> None:
        self.address = address
        self.endpoint = endpoint
        self.random = random  # identifies its hello among those of the address
        self.connection: Connection | None = None
        self.refused = b""
        self.since = time.monotonic()  # time of its start, then of its last message

    @property
    def late(self) -> bool:
        """Whether its messages took more than their share of time."""
        return self.connection is not None and self.connection.wait_seconds > 0


class DatagramServer(asyncio.DatagramProtocol):
    """A UDP socket and the associations of its clients.

    `_young` has the associations that haven't sent an access token yet, oldest first.
    `_open` has the others, longest silent first. An address can be in both: its new
    hello may be a replayed old one, so the open association ends only when the new
    handshake is complete.
    """

    def __init__(self, service: Service, pair: Pair | None) -> None:
        self._service = service
        self._context = dtls.server_context(pair, self._cookie, self._is_cookie)
        self._young: OrderedDict[dtls.Address, _Association] = OrderedDict()
        self._open: OrderedDict[dtls.Address, _Association] = OrderedDict()
        self._secret = secrets.token_bytes(32)
        self._busy = False
        self._stopping = False

    @property
    def port(self) -> int:
        port: int = self._transport.get_extra_info("sockname")[1]
        return port

    def renew(self, pair: Pair) -> Callable[[], None]:
        context = dtls.server_context(pair, self._cookie, self._is_cookie)
        return lambda: setattr(self, "_context", context)

    async def stop(self, grace: float = 0.0) -> None:
        """Accept no more clients; close when all have left or after `grace` seconds."""
        self._stopping = True
        end = time.monotonic() + grace
        while self._open and time.monotonic() < end:
            await asyncio.sleep(_TICK)
        for association in [*self._young.values(), *self._open.values()]:
            self._drop(association)
        self._timer.cancel()
        self._transport.close()

    # Called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        # Without a large buffer, datagrams would be lost while it serves others.
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._tick()

    def datagram_received(self, data: bytes, address: dtls.Address) -> None:
        if _is_hello(data):
            self._on_hello(data, address)
            return
        association = self._find(data, address)
        if association is not None:
            self._feed(association, data)
        elif data[:1] == bytes([_MESSAGE]) and len(data) > dtls.RECORD:
            self._transmit([dtls.UNKNOWN + data[-dtls.TAG :]], address)

    def pause_writing(self) -> None:
        """Drop datagrams while the socket is full."""
        self._busy = True

    def resume_writing(self) -> None:
        self._busy = False

    # Handshakes

    def _cookie(self, address: dtls.Address, ago: int = 0) -> bytes:
        """Return the cookie that proves that a client receives at its address."""
        period = int(time.monotonic() / _COOKIE_SECONDS) - ago
        return hmac.digest(self._secret, repr((address, period)).encode(), "sha256")

    def _is_cookie(self, address: dtls.Address, data: bytes) -> bool:
        cookies = (self._cookie(address, ago) for ago in (0, 1))
        return any(hmac.compare_digest(data, cookie) for cookie in cookies)

    def _on_hello(self, data: bytes, address: dtls.Address) -> None:
        """Answer a hello: repeated, without a cookie, or of a new client."""
        random = data[_RANDOM]
        for known in (self._young.get(address), self._open.get(address)):
            if known is not None and known.random == random:
                self._feed(known, data)
                return
        if self._stopping:
            return
        endpoint = dtls.Endpoint(self._context, server=True)
        proven = endpoint.listen(data, address)
        self._transmit(endpoint.datagrams(), address)
        if not proven:
            return
        if len(self._young) >= _MAX_HANDSHAKES and address not in self._young:
            self._drop(first_of_crowd([*self._young.values()], lambda a: a.address[0]))
        self._young[address] = _Association(address, endpoint, random)

    def _find(self, data: bytes, address: dtls.Address) -> _Association | None:
        """Return the association of a datagram; an address may have two.

        The old one ends with the new handshake, so messages belong to the old one and
        everything else to the new one.
        """
        young, old = self._young.get(address), self._open.get(address)
        return old or young if data[:1] == bytes([_MESSAGE]) else young or old

    # Associations

    def _feed(self, association: _Association, data: bytes) -> None:
        if association.late and data[:1] == bytes([_MESSAGE]):
            return
        endpoint = association.endpoint
        try:
            messages = endpoint.receive(data)
        except SSL.Error:
            self._drop(association)
            return
        self._transmit(endpoint.datagrams(), association.address)
        old = self._open.get(association.address)
        if endpoint.open and old is not None and old is not association:
            self._drop(old)
        for message in messages:
            self._on_message(association, message)
        if endpoint.closed:
            self._drop(association)

    def _on_message(self, association: _Association, message: bytes) -> None:
        """Process a message; those beyond the association's share are lost."""
        if association.late:
            return
        if association.connection is not None:
            association.since = time.monotonic()
            self._open.move_to_end(association.address)
        if message[:1] == dtls.TOKEN:
            self._send(association, self._on_token(association, message[1:]))
        elif association.connection is not None:
            association.connection.receive(message)

    def _on_token(self, association: _Association, token: bytes) -> bytes:
        """Return the answer to an access token; an association has one attempt."""
        if association.connection is None and not association.refused:
            owner = self._service.authorize(token.decode("utf-8", "replace"))
            if owner is None:
                association.refused = _WRONG if token else _NONE
            elif self._stopping or not self._make_room():
                association.refused = b"the server is full; try again later"
            else:
                self._welcome(association, owner)
        return dtls.REFUSED + association.refused if association.refused else dtls.TOKEN

    def _make_room(self) -> bool:
        """If the server is full, drop the longest silent client; False if none is."""
        if len(self._open) < _MAX_CLIENTS:
            return True
        oldest = next(iter(self._open.values()))
        silent = time.monotonic() - oldest.since > SILENT_SECONDS
        if silent:
            self._drop(oldest)
        return silent

    def _welcome(self, association: _Association, owner: str) -> None:
        self._young.pop(association.address, None)
        self._open[association.address] = association
        association.since = time.monotonic()
        association.connection = self._service.connect(
            owner,
            functools.partial(self._send, association),
            functools.partial(self._end, association),
        )

    def _send(self, association: _Association, message: bytes) -> None:
        """Send a message, unless the association has ended."""
        if self._is_known(association):
            with contextlib.suppress(SSL.Error):  # the association has failed
                association.endpoint.send(message)
            self._transmit(association.endpoint.datagrams(), association.address)

    def _end(self, association: _Association, reason: str) -> None:
        """Drop an association, with the service's reason."""
        self._send(association, dtls.TOKEN + reason.encode())
        self._drop(association)

    def _is_known(self, association: _Association) -> bool:
        address = association.address
        return association in (self._young.get(address), self._open.get(address))

    def _drop(self, association: _Association) -> None:
        """Forget an association, and tell its client."""
        if not self._is_known(association):
            return
        for known in (self._young, self._open):
            if known.get(association.address) is association:
                del known[association.address]
        with contextlib.suppress(SSL.Error):  # the association has failed
            association.endpoint.close()
        self._transmit(association.endpoint.datagrams(), association.address)
        if association.connection is not None:
            association.connection.close()

    def _transmit(self, datagrams: list[bytes], address: dtls.Address) -> None:
        for datagram in datagrams:
            if not self._busy:
                self._transport.sendto(datagram, address)

    def _tick(self) -> None:
        """Repeat flights of handshakes, and drop slow and idle associations."""
        self._timer = asyncio.get_running_loop().call_later(_TICK, self._tick)
        now = time.monotonic()
        for association in [*self._young.values()]:
            try:
                association.endpoint.repeat()
            except SSL.Error:
                self._drop(association)
            self._transmit(association.endpoint.datagrams(), association.address)
            if now - association.since > _SHAKE_SECONDS:
                self._drop(association)
        for association in [*self._open.values()]:
            if now - association.since <= _IDLE_SECONDS:
                break
            self._drop(association)


def _is_hello(data: bytes) -> bool:
    """Tell whether a datagram is an unencrypted ClientHello."""
    if len(data) < 60:
        return False
    kind, epoch, message = data[0], data[3:5], data[13]
    return kind == _HANDSHAKE and epoch == b"\0\0" and message == _CLIENT_HELLO
