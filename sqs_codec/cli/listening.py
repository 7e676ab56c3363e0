"""What the commands have in common that answer clients of HTTP."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from typing import TYPE_CHECKING

from sqs_codec.cli import options
from sqs_codec.system._base import access
from sqs_codec.system._base.address import join_address, split_address

if TYPE_CHECKING:
    from starlette.applications import Starlette


def add_clients(add: options.Add, listen: str, name: str) -> None:
    """Add the options that say where it listens, to whom, and by which names."""
    said = "where clients find it; port 0 is any free port"
    add("--listen", default=listen, metavar="HOST:PORT", help=said)
    said = (
        "what clients call the model; may be given several times, and * is any "
        f"name (default: {name})"
    )
    add("--model-name", action="append", default=[], metavar="NAME", help=said)
    said = (
        "what clients have to give as a bearer token (default: $SQS_API_KEY, "
        "which other users of this machine can't see)"
    )
    add("--api-key", metavar="KEY", default=os.environ.get("SQS_API_KEY"), help=said)
    add("--tls-cert", metavar="FILE", help="this endpoint's certificate, PEM")
    add("--tls-key", metavar="FILE", help="its private key, PEM")
    said = (
        "a name by which clients call it, besides localhost and addresses; may "
        "be given several times"
    )
    add("--allow-host", action="append", default=[], metavar="NAME", help=said)
    said = (
        "a web site whose pages may call it, as https://chat.example.org; may be "
        "given several times (default: none)"
    )
    add("--allow-origin", action="append", default=[], metavar="URL", help=said)


def check(args: argparse.Namespace) -> None:
    """Refuse options that don't go together, and an address that isn't free."""
    try:
        host, port = split_address(args.listen, 0)
        if args.api_key:
            access.check_token(args.api_key)
        if bool(args.tls_cert) != bool(args.tls_key):
            raise ValueError("--tls-cert and --tls-key go together")
        if args.tls_cert:
            access.read_pair(access.Certificate(args.tls_cert, args.tls_key))
        if not (args.tls_cert and args.api_key):
            _require_loopback(host)
    except ValueError as error:
        args.usage_error(str(error))
    access.check_free(host, port)


def _require_loopback(host: str) -> None:
    try:
        access.require_loopback(host)
    except ValueError:
        raise ValueError(
            f"{host} isn't this machine alone: to listen there takes --tls-cert, "
            f"--tls-key and a key for clients, in SQS_API_KEY or by --api-key"
        ) from None


def run(app: Starlette, args: argparse.Namespace, said: str, *, clients: int) -> None:
    """Say what it does, where ``{url}`` is its address; answer until interrupted."""
    from sqs_codec.system._endpoint.server import make_server

    host, port = split_address(args.listen, 0)
    own = access.Certificate(args.tls_cert, args.tls_key) if args.tls_cert else None
    server = make_server(app, clients=clients, certificate=own)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listener:
        where = join_address(host, listener.getsockname()[1])
        url = f"{'https' if args.tls_cert else 'http'}://{where}"
        print(f"{said.replace('{url}', url)} Ctrl-C stops it.", file=sys.stderr)
        with options.interrupts_raise():
            server.run(sockets=[listener])
