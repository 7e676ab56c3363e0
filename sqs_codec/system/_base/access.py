"""Checks of hosts, certificates and access tokens."""

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
"""Plain text over gRPC and HTTP, an unverifiable server over datagrams. Only for use
within this machine."""


@dataclass(frozen=True)
class Certificate:
    """PEM files of certificates.

    Attributes
    ----------
    cert : path
        For a server, its certificate or chain. For a client, the certificates that it
        trusts: the server's or its issuer's.
    key : path or None
        The private key; only a server needs it.
    """

    cert: File
    key: File | None = None


class Pair(NamedTuple):
    """Contents of the PEM files of a certificate or chain, and its key."""

    cert: bytes
    key: bytes


def require_loopback(host: str) -> None:
    """Raise a ValueError unless all addresses of a host are loopback."""
    try:
        found = socket.getaddrinfo(host, None)
    except (OSError, UnicodeError):
        found = []
    # An address may end in the name of its interface, as in fe80::1%eth0.
    hosts = {str(entry[4][0]).partition("%")[0] for entry in found}
    if not hosts or not all(ipaddress.ip_address(each).is_loopback for each in hosts):
        raise ValueError(
            f"{host} isn't this machine; without encryption, use a loopback address "
            f"such as 127.0.0.1; elsewhere use a certificate"
        )


def check_token(token: str) -> None:
    """Raise a ValueError for an access token that doesn't fit a header."""
    if not re.fullmatch(r"[!-~]{1,512}", token):
        raise ValueError(
            "an access token must have 1 to 512 visible ASCII characters, no spaces"
        )


def bearer(header: str) -> str | None:
    scheme, _, token = header.partition(" ")
    return token.strip(" ") if scheme.lower() == "bearer" else None


def read_pair(certificate: Certificate) -> Pair:
    """Read a certificate and its key; ValueError if a server can't use them."""
    cert, key = certificate.cert, certificate.key
    if key is None:
        raise ValueError(f"a server needs the key of {cert}: Certificate(cert, key)")
    try:
        require_file(cert)
        require_file(key)
        pair = Pair(Path(cert).read_bytes(), Path(key).read_bytes())
        # Without a password argument, OpenSSL would ask for one at the terminal.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key, password="")
        # A renewal writes one file after the other, perhaps just now.
        if pair != (Path(cert).read_bytes(), Path(key).read_bytes()):
            raise ValueError(f"{cert} or {key} changed while reading; try again")
    except OSError as error:
        raise ValueError(
            f"can't load the certificate {cert} with the key {key}, which must be a "
            f"pair of PEM files without a password: {error.strerror or error}"
        ) from error
    return pair


def check_security(host: str, security: Certificate | Insecure) -> Pair | None:
    """Return a server's certificate; None for `INSECURE`, which needs loopback."""
    if security is INSECURE:
        require_loopback(host)
        return None
    checks.instance("security", security, Certificate, "a Certificate or INSECURE")
    return read_pair(security)


def check_roots(cert: File) -> None:
    """Raise a ValueError for a file without trusted certificates."""
    try:
        require_file(cert)
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cert)
    except OSError as error:
        # OpenSSL's own message for other files doesn't help.
        broken = isinstance(error, ssl.SSLError)
        reason = "it has no certificate in PEM" if broken else error.strerror
        raise ValueError(f"can't load the certificate {cert}: {reason}") from error


def check_free(host: str, port: int, kind: int = socket.SOCK_STREAM) -> None:
    """Raise an OSError if a server can't listen on an address."""
    try:
        family, _, protocol, _, address = socket.getaddrinfo(
            host, port, type=kind, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            if kind == socket.SOCK_STREAM:
                # As servers do: a port with only closing connections is free.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        where = join_address(host, port)
        raise OSError(error.errno, error.strerror, where) from None
