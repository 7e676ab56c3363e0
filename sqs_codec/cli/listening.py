"""Options and functions of commands that listen for HTTP clients."""

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
    said = "address to listen on; port 0 is any free port"
    add("--listen", default=listen, metavar="HOST:PORT", help=said)
    said = (
        "model name that clients send; can be repeated, and * accepts any name "
        f"(default: {name})"
    )
    add("--model-name", action="append", default=[], metavar="NAME", help=said)
    said = (
        "API key that clients send as a bearer token (default: $SQS_API_KEY, which "
        "hides it from other users of this machine)"
    )
    add("--api-key", metavar="KEY", default=os.environ.get("SQS_API_KEY"), help=said)
    add("--tls-cert", metavar="FILE", help="PEM file of this endpoint's certificate")
    add("--tls-key", metavar="FILE", help="PEM file of its private key")
    said = (
        "host name that clients may use, in addition to localhost and addresses; "
        "can be repeated"
    )
    add("--allow-host", action="append", default=[], metavar="NAME", help=said)
    said = (
        "web site whose pages may call this endpoint, as https://chat.example.org; "
        "can be repeated (default: none)"
    )
    add("--allow-origin", action="append", default=[], metavar="URL", help=said)


def check(args: argparse.Namespace) -> None:
    """Reject conflicting options, and an address in use."""
    try:
        host, port = split_address(args.listen, 0)
        if args.api_key:
            access.check_token(args.api_key)
        if bool(args.tls_cert) != bool(args.tls_key):
            raise ValueError("--tls-cert needs --tls-key, and --tls-key --tls-cert")
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
            f"other machines can reach {host}: to listen there, set --tls-cert, "
            f"--tls-key, and an API key with SQS_API_KEY or --api-key"
        ) from None


def run(app: Starlette, args: argparse.Namespace, said: str, *, clients: int) -> None:
    """Print `said`, with ``{url}`` replaced, and serve until interrupted."""
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
