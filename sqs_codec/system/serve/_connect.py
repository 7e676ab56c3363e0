"""Links to a server, by name of the transport."""

from typing import Literal

from sqs_codec._base import checks
from sqs_codec.system._base import access
from sqs_codec.system._base.access import INSECURE, Certificate, Insecure
from sqs_codec.system._base.address import split_address
from sqs_codec.system.session import Link, LinkError

Transport = Literal["grpc", "datagram"]
"""What carries messages between edges and a server."""


def connect(
    address: str,
    *,
    transport: Transport = "grpc",
    security: Certificate | Insecure | None = None,
    token: str | None = None,
    timeout: float = 30.0,
) -> Link:
    """Make a link to a server.

    Parameters
    ----------
    address : str
        HOST:PORT of the server.
    transport : Transport, optional
        Datagrams cost fewer bytes, but not every network lets them through.
    security : Certificate or INSECURE, optional
        The certificates to trust, by default those of well-known authorities.
        `INSECURE` takes a server at a loopback address only: in plain text by gRPC, by
        datagrams without verifying its certificate.
    token : str, optional
        The bearer token.
    timeout : float, optional
        Seconds to wait for the server: a thin link takes some for its handshake.

    Raises
    ------
    LinkError
        There is no connection. It says why, and what to do.
    """
    checks.one_of("transport", transport, Transport)
    checks.finite("timeout", timeout, 0.001, 1e6)
    host, port = split_address(address)
    if token is not None:
        access.check_token(token)
    if security is INSECURE:
        access.require_loopback(host)
    elif security is not None:
        checks.instance("security", security, Certificate, "a Certificate or INSECURE")
        try:
            access.check_roots(security.cert)
        except ValueError as error:
            raise LinkError(str(error)) from error
    # Either takes a moment to import, and needs a package that the other doesn't.
    if transport == "grpc":
        from sqs_codec.system.serve._grpc.link import GrpcLink

        return GrpcLink(address, security=security, token=token, timeout=timeout)
    from sqs_codec.system.serve._datagram.link import connect_datagram

    return connect_datagram(host, port, security=security, token=token, timeout=timeout)
