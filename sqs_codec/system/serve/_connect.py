"""Links to a server."""

from typing import Literal

from sqs_codec._base import checks
from sqs_codec.system._base import access
from sqs_codec.system._base.access import INSECURE, Certificate, Insecure
from sqs_codec.system._base.address import split_address
from sqs_codec.system.session import Link, LinkError

Transport = Literal["grpc", "datagram"]


def connect(
    address: str,
    *,
    transport: Transport = "grpc",
    security: Certificate | Insecure | None = None,
    token: str | None = None,
    timeout: float = 30.0,
) -> Link:
    """Connect to a server.

    Parameters
    ----------
    address : str
        HOST:PORT of the server.
    transport : Transport, optional
        Datagrams take fewer bytes, but some networks drop them.
    security : Certificate or INSECURE, optional
        The certificates to trust, by default those of the system's authorities.
        `INSECURE` is for servers at loopback addresses: gRPC is then in plain text,
        and datagrams don't verify the certificate.
    token : str, optional
        The access token.
    timeout : float, optional
        Seconds to wait for the server. Over a slow link, handshakes take seconds.

    Raises
    ------
    LinkError
        The connection failed. The message says why and what to do.
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
    # Each transport takes time to import, and needs a package of its own.
    if transport == "grpc":
        from sqs_codec.system.serve._grpc.link import GrpcLink

        return GrpcLink(address, security=security, token=token, timeout=timeout)
    from sqs_codec.system.serve._datagram.link import connect_datagram

    return connect_datagram(host, port, security=security, token=token, timeout=timeout)
