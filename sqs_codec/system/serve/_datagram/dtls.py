"""DTLS 1.2 without a socket: datagrams in and messages out, and the other way.

Each message is one record, and each record has 13 bytes of header and 16 of tag: what
ChaCha20-Poly1305 needs, where AES-GCM puts 8 bytes more into every record. The keys are
agreed by ECDHE, so a stolen certificate's key doesn't open what was sent before.
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
"""The longest datagram sent: with 48 bytes of IPv6 and UDP within the 1280 that every
IPv6 link carries, and a little to spare for tunnels."""

MOST_CHAIN = 2 * DATAGRAM - 512
"""Bytes of certificates that a flight of two datagrams has room for. Its other messages
take 300 bytes, and with an RSA key of 2048 bits 510, as a handshake in memory shows."""

TAG = 16
RECORD = 13 + TAG  # bytes around a message: the record's header and tag

MAX_MESSAGE = DATAGRAM - RECORD

# After the handshake the client sends TOKEN and its token until the server answers
# TOKEN, or REFUSED and why. Then a lone TOKEN asks whether the server is still there,
# which answers alike. It sends TOKEN and a reason when it ends the association.
TOKEN = b"\x07"
REFUSED = b"\x06"

UNKNOWN = b"\x00"
"""Begins the datagram by which a server says that it doesn't know an association. It
isn't the first byte of any record. The tag of the client's record follows."""

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
    """Return the context of a server that shows a certificate.

    Without a pair it shows one that is made on the spot, which nobody can verify.
    `cookie` makes an address's cookie, `cookie_matches` says whether one is its own.
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
                f"the certificates take {size} bytes, more than {MOST_CHAIN}: links "
                "below 20 kbit/s repeat them; use one certificate with an EC key"
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
    """Return the context of a client; with None it trusts what the system trusts."""
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
    """Return what both ends have in common."""
    context = SSL.Context(method)
    context.set_min_proto_version(_DTLS_1_2)
    context.set_max_proto_version(_DTLS_1_2)
    context.set_cipher_list(_CIPHERS)
    # A session that is resumed would have to be remembered by the server.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(
        SSL.OP_NO_QUERY_MTU | SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION
    )
    return context


def _unverifiable() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Return a certificate that nobody has reason to trust, and its key."""
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

    Only the subject's alternative names count, as in browsers and in gRPC. A wildcard
    stands for one whole label, the first.
    """
    try:
        names = certificate.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        ).value
    except (x509.ExtensionNotFound, ValueError):
        raise ValueError("names nobody (it has no subjectAltName)") from None
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
        raise ValueError(f"is for {known or 'nobody'}, not for {host}")


class Endpoint:
    """One end of an association.

    Each method may leave something to be sent in `datagrams`. A method raises
    `SSL.Error` if the association has failed, after which it can't be used.
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
        """Answer a client's hello; False, and nothing to remember, if that is all."""
        self._tls.set_app_data(address)
        self._tls.bio_write(hello)
        try:
            self._tls.DTLSv1_listen()
            self.handshake()
        except SSL.Error:  # no cookie, a wrong one, or a hello that won't do
            # What it left in its queue, OpenSSL before 4.0 would take for an error of
            # the association that is served next. This fails, and empties it.
            with contextlib.suppress(SSL.Error):
                self._tls.shutdown()
            return False
        return True

    def handshake(self) -> None:
        """Go on with the handshake as far as possible without the other end."""
        try:
            self._tls.do_handshake()
        except SSL.WantReadError:
            return
        self.open = True

    def receive(self, datagram: bytes) -> list[bytes]:
        """Return the messages in a datagram.

        What is broken, forged or a repetition has none and changes nothing.
        """
        messages: list[bytes] = []
        if self.open:
            # OpenSSL before 4.0.3 fails on an encrypted record that has no whole tag.
            datagram = b"".join(r for r in _records(datagram) if _may_be_genuine(r))
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
        """Encrypt a message."""
        self._tls.send(message)

    def close(self) -> None:
        """Tell the other end that the association is over."""
        if self.open and not self.closed:
            self._tls.shutdown()

    def timeout(self) -> float | None:
        """Return the seconds until `repeat` is due; None if nothing is."""
        return self._tls.DTLSv1_get_timeout()

    def repeat(self) -> None:
        """Send the last flight of the handshake again, if it is time to."""
        self._tls.DTLSv1_handle_timeout()

    def certificate(self) -> x509.Certificate | None:
        """Return what the other end has shown."""
        return self._tls.get_peer_certificate(as_cryptography=True)

    def datagrams(self) -> list[bytes]:
        """Return what is to be sent, in datagrams of at most `DATAGRAM` bytes.

        The buffer that OpenSSL writes to runs its datagrams together. They are taken
        apart between records: a record must not cross from one into the next.
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
    """Return what OpenSSL says about an error."""
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


def _may_be_genuine(record: bytes) -> bool:
    """Say whether a record isn't encrypted, by its epoch, or has a tag."""
    return record[3:5] == bytes(2) or len(record) >= RECORD
