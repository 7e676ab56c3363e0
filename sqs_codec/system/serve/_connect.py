"""Links to a server, by name of the transport."""

from typing import Literal

from sqs_codec._base import checks
from sqs_codec.system._base import security
from sqs_codec.system._base.address import split_address
from sqs_codec.system.session import Link, LinkError

Transport = Literal["grpc", "datagram"]
"""What carries messages between edges and a server."""


def connect(
    address: str,
    *,
    transport: Transport = "grpc",
    cert: security.File | None = None,
    token: str | None = None,
    insecure: bool = False,
    timeout: float = 30.0,
) -> Link:
    """Make a link to a server.

    Parameters
    ----------
    address : str
        HOST:PORT of the server.
    transport : Transport, optional
        Datagrams cost fewer bytes, but not every network lets them through.
    cert : path, optional
        PEM file of the certificates to trust, the server's own or its issuer's; by
        default those of well-known authorities.
    token : str, optional
        The bearer token.
    insecure : bool, optional
        To a loopback address only: plain text by gRPC, datagrams of a server whose
        certificate isn't verified.
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
        security.check_token(token)
    if insecure:
        security.require_loopback(host)
    elif cert is not None:
        try:
            security.check_roots(cert)
        except ValueError as error:
            raise LinkError(str(error)) from error
    # Either takes a moment to import, and needs a package that the other doesn't.
    if transport == "grpc":
        from sqs_codec.system.serve._grpc.link import GrpcLink

        return GrpcLink(
            address, cert=cert, token=token, insecure=insecure, timeout=timeout
        )
    from sqs_codec.system.serve._datagram.link import connect_datagram

    return connect_datagram(
        host, port, cert=cert, token=token, insecure=insecure, timeout=timeout
    )
