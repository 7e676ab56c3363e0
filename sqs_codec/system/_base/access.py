"""Hosts, certificates and tokens: a ValueError says why one can't be."""

import enum
import ipaddress
import re
import socket
import ssl
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Final, NamedTuple

from sqs_codec._base import checks
from sqs_codec._base.files import require_file
from sqs_codec.system._base.address import join_address

File = str | PathLike[str]


class Insecure(enum.Enum):
    """The type of `INSECURE`."""

    INSECURE = "INSECURE"


INSECURE: Final = Insecure.INSECURE
"""Plain text by gRPC and HTTP, by datagrams a server that nobody can verify: within
this machine only."""


@dataclass(frozen=True)
class Certificate:
    """PEM files of certificates.

    Attributes
    ----------
    cert : path
        A server's own, or a chain of them. A client trusts what is in it: the server's
        own or its issuer's.
    key : path or None
        The private key, which a server needs and a client doesn't.
    """

    cert: File
    key: File | None = None


class Pair(NamedTuple):
    """What is in the PEM files of a certificate, or chain of them, and its key."""

    cert: bytes
    key: bytes


def require_loopback(host: str) -> None:
    """Refuse plain text to or from anywhere but this machine."""
    try:
        found = socket.getaddrinfo(host, None)
    except (OSError, UnicodeError):
        found = []
    # An address may end in the name of its interface, as fe80::1%eth0.
    hosts = {str(entry[4][0]).partition("%")[0] for entry in found}
    if not hosts or not all(ipaddress.ip_address(each).is_loopback for each in hosts):
        raise ValueError(
            f"{host} isn't this machine: without encryption only loopback addresses "
            f"will do, such as 127.0.0.1; elsewhere use a certificate"
        )


def check_token(token: str) -> None:
    """Refuse what can't be a bearer token: it has to fit a header."""
    if not re.fullmatch(r"[!-~]{1,512}", token):
        raise ValueError(
            "a token must have 1 to 512 visible ASCII characters and no space"
        )


def bearer(header: str) -> str | None:
    """Return the token that a header shows, None if it shows none."""
    scheme, _, token = header.partition(" ")
    return token.strip(" ") if scheme.lower() == "bearer" else None


def read_pair(certificate: Certificate) -> Pair:
    """Read the files of a certificate and its key; refuse what a server can't use."""
    cert, key = certificate.cert, certificate.key
    if key is None:
        raise ValueError(f"a server needs the key of {cert}: Certificate(cert, key)")
    try:
        require_file(cert)
        require_file(key)
        pair = Pair(Path(cert).read_bytes(), Path(key).read_bytes())
        # Without a password given, OpenSSL would ask for one at the terminal.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key, password="")
        # Who renews them writes one after the other, perhaps just now.
        if pair != (Path(cert).read_bytes(), Path(key).read_bytes()):
            raise ValueError(f"{cert} or {key} was written while they were read")
    except OSError as error:
        raise ValueError(
            f"can't load the certificate {cert} with the key {key}, which must be a "
            f"pair of PEM files without a password: {error.strerror or error}"
        ) from error
    return pair


def check_security(host: str, security: Certificate | Insecure) -> Pair | None:
    """Return what a server presents, None for `INSECURE`, which loopback alone has."""
    if security is INSECURE:
        require_loopback(host)
        return None
    checks.instance("security", security, Certificate, "a Certificate or INSECURE")
    return read_pair(security)


def check_roots(cert: File) -> None:
    """Refuse to make a link by a file that has no certificates to trust."""
    try:
        require_file(cert)
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cert)
    except OSError as error:
        # What OpenSSL says of other files has no word that helps.
        broken = isinstance(error, ssl.SSLError)
        reason = "it has no certificate in PEM" if broken else error.strerror
        raise ValueError(f"can't load the certificate {cert}: {reason}") from error


def check_free(host: str, port: int, kind: int = socket.SOCK_STREAM) -> None:
    """Raise the OSError of an address, by default of TCP, that can't be listened at."""
    try:
        family, _, protocol, _, address = socket.getaddrinfo(
            host, port, type=kind, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            if kind == socket.SOCK_STREAM:
                # As servers do: a port whose connections are all closing is free.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        where = join_address(host, port)
        raise OSError(error.errno, error.strerror, where) from None
