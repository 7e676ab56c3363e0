"""Addresses of servers, and what a host, a certificate and a token may be.

What may not is a ValueError that says why.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
from os import PathLike

from sqs_codec._base.files import require_file

__all__ = [
    "File",
    "bearer",
    "check_certificate",
    "check_free",
    "check_security",
    "check_token",
    "join_address",
    "require_loopback",
    "split_address",
]

File = str | PathLike[str]


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT.

    Raises
    ------
    ValueError
        It is something else.

    Examples
    --------
    >>> split_address("example.org:8743"), split_address("[::1]:8743")
    (('example.org', 8743), ('::1', 8743))
    """
    host, colon, port = address.rpartition(":")
    bare = host.startswith("[") and host.endswith("]")
    if bare:
        host = host[1:-1]
    number = int(port) if port.isascii() and port.isdigit() else 0
    if not (colon and host and 1 <= number < 1 << 16) or (":" in host and not bare):
        raise ValueError(
            f"a server's address must be HOST:PORT, as localhost:8743 or [::1]:8743, "
            f"got {address!r}"
        )
    return host, number


def join_address(host: str, port: int) -> str:
    """Return HOST:PORT.

    Examples
    --------
    >>> join_address("localhost", 8743), join_address("::1", 8743)
    ('localhost:8743', '[::1]:8743')
    """
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


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


def check_certificate(cert: File, key: File) -> None:
    """Refuse files of a certificate and its key that a server can't use."""
    try:
        require_file(cert)
        require_file(key)
        # Without a password given, OpenSSL would ask for one at the terminal.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key, password="")
    except OSError as error:
        raise ValueError(
            f"can't load the certificate {cert} with the key {key}, which must be a "
            f"pair of PEM files without a password: {error.strerror or error}"
        ) from error


def check_security(
    host: str, cert: File | None, key: File | None, *, insecure: bool
) -> None:
    """Refuse to serve without a certificate, but to this machine if that is meant."""
    if insecure:
        require_loopback(host)
    elif cert is None or key is None:
        raise ValueError(
            "a server needs a certificate and its key, or insecure=True at a loopback "
            "address"
        )
    else:
        check_certificate(cert, key)


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
