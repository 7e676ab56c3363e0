"""The command ``sqs proxy``: a local endpoint for chat clients."""

from __future__ import annotations

import argparse
import os
import socket
import sys

from sqs_codec.cli import drafting, options
from sqs_codec.system._base.address import join_address, split_address
from sqs_codec.system._base.security import (
    check_free,
    check_token,
    read_pair,
    require_loopback,
)

DESCRIPTION = """\
An endpoint on this machine for any client that speaks the OpenAI protocol: it
writes with the server of sqs serve, as sqs generate does, and drafts here. At /
there is a page that shows which tokens the draft had, and what the text takes.

Without --draft the draft is SmolLM2-135M-Instruct without a few of its layers,
for the target that sqs serve has by default. Beyond this machine it needs a key,
in SQS_API_KEY or by --api-key, and a certificate.
"""

EXAMPLES = """\
examples:
  sqs proxy --server localhost:8743 --insecure
  SQS_TOKEN=... sqs proxy --server llm.example.org:8743 --cert server.pem \\
      --draft Qwen2.5-0.5B-Instruct-Q4_0.gguf
  SQS_API_KEY=$(openssl rand -hex 16) sqs proxy --server llm.example.org:8743 \\
      --listen 0.0.0.0:8080 --tls-cert cert.pem --tls-key key.pem
"""

MODULES = ("starlette", "uvicorn", "prometheus_client")
LISTEN = "127.0.0.1:8080"

CONTEXT = 4096
"""Tokens for which a draft by llama.cpp takes memory, for each client."""


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    _add_clients(parser.add_argument_group("clients").add_argument)
    drafting.add_server(parser.add_argument_group("server").add_argument)
    add = parser.add_argument_group("text, where a client doesn't say").add_argument
    options.add_sampling(add, "of the target")
    kept = options.number(int, 1, metavar="K")
    add("--top-k", **kept, help="draw from the K most probable tokens")
    add = parser.add_argument_group("what is sent").add_argument
    drafting.add_mode(add)
    options.add_prior(add)
    drafting.add_model(parser.add_argument_group("model").add_argument)
    parser.set_defaults(kept=None, alpha=None)


def _add_clients(add: options.Add) -> None:
    add("--listen", default=LISTEN, metavar="HOST:PORT", help="where clients find it")
    said = "how many texts are written at the same time"
    add("--clients", **options.number(int, 1, 1024), default=8, help=said)
    said = (
        "what clients call the model; may be given several times, and * is any "
        "name (default: sqs)"
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


def run(args: argparse.Namespace) -> int:
    """Answer clients until interrupted; return the exit status."""
    try:
        _check(args)
    except ValueError as error:
        args.usage_error(str(error))
    return drafting.carry_out(args, _serve, modules=MODULES, extra="proxy")


def _check(args: argparse.Namespace) -> None:
    host, _ = split_address(args.listen)
    if args.api_key:
        check_token(args.api_key)
    if bool(args.tls_cert) != bool(args.tls_key):
        raise ValueError("--tls-cert and --tls-key go together")
    if args.tls_cert:
        read_pair(args.tls_cert, args.tls_key)
    if not (args.tls_cert and args.api_key):
        try:
            require_loopback(host)
        except ValueError:
            raise ValueError(
                f"{host} isn't this machine alone: to listen there takes --tls-cert, "
                f"--tls-key and a key for clients, in SQS_API_KEY or by --api-key"
            ) from None


def _serve(args: argparse.Namespace) -> None:
    host, port = split_address(args.listen)
    check_free(host, port)
    drafting.connect(args).close()  # before the model takes its time

    from sqs_codec.system.proxy import Completer, make_app, make_server

    model = drafting.load(args, CONTEXT)
    completer = Completer(
        model,
        lambda: drafting.connect(args),
        server=args.server,
        clients=args.clients,
        settings=drafting.settings(args, model),
        modes=drafting.modes(args),
        prefer=args.prefer,
    )
    completer.check()
    app = make_app(
        completer,
        names=args.model_name,
        sampling=drafting.sampling(args, model),
        api_key=args.api_key,
        hosts=args.allow_host,
        origins=args.allow_origin,
    )
    server = make_server(
        app, clients=args.clients, cert=args.tls_cert, key=args.tls_key
    )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    address = f"{'https' if args.tls_cert else 'http'}://{join_address(host, port)}"
    with socket.create_server((host, port), family=family) as listener:
        print(
            f"Writing with {args.server} for clients of {address}/v1; "
            f"{address} shows it in a browser. Ctrl-C stops it.",
            file=sys.stderr,
        )
        with options.interrupts_raise():
            server.run(sockets=[listener])
