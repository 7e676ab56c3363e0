"""DTLS 1.2 without a socket: converts between messages and datagrams.

Each message is one record. A record adds a header of 13 bytes and a tag of 16 bytes
with ChaCha20-Poly1305; AES-GCM would add 8 more. ECDHE agrees on the keys, so a stolen
private key doesn't decrypt earlier traffic.
"""

import contextlib
import datetime
import ipaddress
import logging
from collections.abc import Callable
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto

from sqs_codec.system._base.access import INSECURE, Certificate, Insecure, Pair

DATAGRAM = 1200
"""Maximum bytes of a datagram. With 48 bytes of IPv6 and UDP headers it fits the 1280
bytes of every IPv6 link, with room for tunnels."""

MOST_CHAIN = 2 * DATAGRAM - 512
"""Bytes of certificates that fit a flight of two datagrams. Its other messages take 300
bytes, or 510 with an RSA key of 2048 bits, as measured in a handshake in memory."""

TAG = 16
RECORD = 13 + TAG  # bytes that a record adds to a message: header and tag

MAX_MESSAGE = DATAGRAM - RECORD

# After the handshake the client sends TOKEN with its access token until the server
# answers TOKEN, or REFUSED with a reason. Later, an empty TOKEN is a ping, which the
# server repeats. TOKEN with a reason from the server ends the association.
TOKEN = b"\x07"
REFUSED = b"\x06"

UNKNOWN = b"\x00"
"""First byte of a server's answer to a record of an unknown association; the tag of the
record follows. No record begins with it."""

_CIPHERS = b"ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
_DTLS_1_2 = 0xFEFD
_LONGEST_RECORD = 1 << 14

log = logging.getLogger(__name__)

Address = tuple[str, int] | tuple[str, int, int, int]


def server_context(
    pair: Pair | None,
    cookie: Callable[[Address], bytes],
    cookie_matches: Callable[[Address, bytes], bool],
) -> SSL.Context:
    """Return the TLS context of a server.

    Without a pair it makes a certificate that no client can verify. `cookie` makes the
    cookie of an address, and `cookie_matches` checks one.
    """
    context = _context(SSL.DTLS_SERVER_METHOD)
    if pair is None:
        certificate, private_key = _unverifiable()
        context.use_certificate(certificate)
        context.use_privatekey(private_key)
    else:
        certificate, *others = chain = x509.load_pem_x509_certificates(pair.cert)
        der = serialization.Encoding.DER
        size = sum(len(each.public_bytes(der)) for each in chain)
        if size > MOST_CHAIN:
            log.warning(
                f"the certificate chain has {size} bytes, more than {MOST_CHAIN}, so "
                "handshakes below 20 kbit/s send it repeatedly; use one certificate "
                "with an EC key"
            )
        context.use_certificate(certificate)
        for other in others:
            context.add_extra_chain_cert(other)
        private: Any = serialization.load_pem_private_key(pair.key, None)
        context.use_privatekey(private)
    context.set_cookie_generate_callback(lambda tls: cookie(tls.get_app_data()))
    context.set_cookie_verify_callback(
        lambda tls, data: cookie_matches(tls.get_app_data(), data)
    )
    return context


def client_context(security: Certificate | Insecure | None) -> SSL.Context:
    """Return the TLS context of a client; None trusts the system's authorities."""
    context = _context(SSL.DTLS_CLIENT_METHOD)
    if security is INSECURE:
        return context
    context.set_verify(SSL.VERIFY_PEER)
    store = context.get_cert_store()
    assert store is not None
    if security is None:
        context.set_default_verify_paths()
    else:
        context.load_verify_locations(security.cert)
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    return context


def _context(method: int) -> SSL.Context:
    """Return the settings of both ends."""
    context = SSL.Context(method)
    context.set_min_proto_version(_DTLS_1_2)
    context.set_max_proto_version(_DTLS_1_2)
    context.set_cipher_list(_CIPHERS)
    # To resume TLS sessions, the server would have to store them.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(
        SSL.OP_NO_QUERY_MTU | SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION
    )
    return context


def _unverifiable() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Return a self-signed certificate for `INSECURE`, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "insecure")])
    start = datetime.datetime(2000, 1, 1)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start.replace(year=9999))
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def check_name(certificate: x509.Certificate, host: str) -> None:
    """Check that a certificate is for a host name or address; ValueError if not.

    Only subjectAltName counts, as in browsers and gRPC. A wildcard matches exactly one
    label, the first.
    """
    try:
        names = certificate.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        ).value
    except (x509.ExtensionNotFound, ValueError):
        raise ValueError("names no host (it has no subjectAltName)") from None
    addresses = names.get_values_for_type(x509.IPAddress)
    hosts = names.get_values_for_type(x509.DNSName)
    try:
        matches = ipaddress.ip_address(host) in addresses
    except ValueError:
        wanted = host.rstrip(".").lower()
        wildcard = "*." + wanted.partition(".")[2]
        matches = any(name.lower() in (wanted, wildcard) for name in hosts)
    if not matches:
        known = ", ".join([*hosts, *map(str, addresses)])
        raise ValueError(f"is for {known or 'no host'}, not for {host}")


class Endpoint:
    """One end of an association.

    After each method, send what `datagrams` returns. A method raises `SSL.Error` if
    the association has failed; then don't use it again.
    """

    def __init__(self, context: SSL.Context, *, server: bool) -> None:
        self._tls = SSL.Connection(context)
        self._tls.set_ciphertext_mtu(DATAGRAM)
        if server:
            self._tls.set_accept_state()
        else:
            self._tls.set_connect_state()
        self.open = False  # whether the handshake is done
        self.closed = False  # whether the other end has closed the association

    def listen(self, hello: bytes, address: Address) -> bool:
        """Answer a client's hello; False if it doesn't begin an association yet."""
        self._tls.set_app_data(address)
        self._tls.bio_write(hello)
        try:
            self._tls.DTLSv1_listen()
            self.handshake()
        except SSL.Error:  # no cookie, a wrong cookie, or an invalid hello
            # OpenSSL before 4.0 leaves the error in a queue, and would report it for
            # the next association. This call fails and clears the queue.
            with contextlib.suppress(SSL.Error):
                self._tls.shutdown()
            return False
        return True

    def handshake(self) -> None:
        """Continue the handshake until it needs the other end."""
        try:
            self._tls.do_handshake()
        except SSL.WantReadError:
            return
        self.open = True

    def receive(self, datagram: bytes) -> list[bytes]:
        """Return a datagram's messages: none if it is broken, forged or repeated."""
        messages: list[bytes] = []
        if self.open:
            # OpenSSL before 4.0.3 fails on an encrypted record without a full tag.
            # Records of epoch 0 aren't encrypted.
            datagram = b"".join(
                r for r in _records(datagram) if r[3:5] == bytes(2) or len(r) >= RECORD
            )
        if not datagram:
            return messages
        self._tls.bio_write(datagram)
        if not self.open:
            self.handshake()
        try:
            while self.open:
                messages.append(self._tls.recv(_LONGEST_RECORD))
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self.closed = True
        return messages

    def send(self, message: bytes) -> None:
        self._tls.send(message)

    def close(self) -> None:
        """Tell the other end that the association has ended."""
        if self.open and not self.closed:
            self._tls.shutdown()

    def timeout(self) -> float | None:
        """Return the seconds until `repeat` is due, or None."""
        return self._tls.DTLSv1_get_timeout()

    def repeat(self) -> None:
        """Send the last flight of the handshake again if it is due."""
        self._tls.DTLSv1_handle_timeout()

    def certificate(self) -> x509.Certificate | None:
        return self._tls.get_peer_certificate(as_cryptography=True)

    def datagrams(self) -> list[bytes]:
        """Return what to send, in datagrams of at most `DATAGRAM` bytes.

        OpenSSL's buffer joins its datagrams. This splits them between records: no
        record may span two datagrams.
        """
        data, datagrams = b"", [b""]
        with contextlib.suppress(SSL.WantReadError):
            while True:
                data += self._tls.bio_read(1 << 16)
        for record in _records(data):
            if len(datagrams[-1]) + len(record) > DATAGRAM:
                datagrams.append(b"")
            datagrams[-1] += record
        return [datagram for datagram in datagrams if datagram]


def reason(error: SSL.Error) -> str:
    if not error.args or not isinstance(error.args[0], list):
        return "no reason given"
    return ", ".join(str(part[-1]) for part in error.args[0])


def _records(data: bytes) -> list[bytes]:
    """Split data into records; the last two bytes of each header are its length."""
    records, start = [], 0
    while start < len(data):
        end = start + 13 + int.from_bytes(data[start + 11 : start + 13], "big")
        records.append(data[start:end])
        start = end
    return records
