"""Measure what attackers cost a session or a client beside them.

    python -m tests.system.attackers        every attack by each transport: 4 min
    python -m tests.system.attackers --seconds 3 grpc enumerative    one of them
    python -m tests.system.attackers proxy    without a key, at a proxy: 2 min

The server is a process with a model that takes 10 ms a call and 0.2 ms a token. A
victim drafts beside five honest sessions, then beside five attackers, each a process.
Its speed beside attackers is a share of that beside honest sessions, and its round
trips a multiple of those.

A proxy's victim asks for texts of 20 tokens, each over a connection of its own, alone
and then beside five attackers, each of an address of its own, who hold a hundred
connections each: where one is closed another comes, one in 10 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import math
import multiprocessing
import os
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

import sqs_codec as sqs
from sqs_codec.system.proxy import Completer
from sqs_codec.system.serve import Service, connect, start_datagrams, start_grpc
from sqs_codec.system.session import EdgeSession, Job, Link, LinkError, Setting
from sqs_codec.system.session import _wire as wire
from sqs_codec.system.session._hints import path_hash
from sqs_codec.system.session._limits import MAX_BRANCHES, MAX_HINTED, MAX_MESSAGE
from tests.system.edge.test_edge import ToyDraft
from tests.system.proxy.test_server import Endpoint
from tests.system.serve.kit import Server, Toy, batch, certificate, try_exchange

V = 49_152
KINDS = "enumerative,flood,hello,text,hint"
TOKENS = ["attackers", "victims"]
DEAR = sqs.Codec(V, 65_536, "enumerative")


class Model:
    """A `Verifier` that accepts nothing."""

    vocab_size, max_text = V, 8192

    def verify(self, jobs: Sequence[Job]) -> list[sqs.Verdict | None]:
        """Take as long as a model would."""
        fresh = sum(job.wanted or min(512, len(job.text)) for job in jobs)
        time.sleep(0.01 + 2e-4 * fresh)
        return [sqs.Verdict(0, 1) if job.wanted else None for job in jobs]

    def forget(self, session: bytes) -> None:
        """Keep nothing anyway."""


def serve(ports: Any) -> None:
    async def main() -> None:
        engine = batch(Model())
        service = Service(engine, await engine.open(), tokens=TOKENS)
        await service.start()
        grpc = await start_grpc(service, "127.0.0.1", 0, insecure=True)
        datagrams = await start_datagrams(service, "127.0.0.1", 0, insecure=True)
        ports.put({"grpc": grpc.port, "datagram": datagrams.port})
        await asyncio.Event().wait()

    asyncio.run(main())


def draft(link: Link, times: Any, pause: float) -> None:
    """Draft rounds of five tokens for ever, and note how long each takes."""
    rng = np.random.default_rng(os.getpid())
    rows = np.float32(rng.normal(0, 3, (5, V)))
    edge = EdgeSession(
        [Setting(sqs.Codec(V), sqs.TopK(64))], [1, 2], tokenizer=b"tokenize", rng=rng
    )
    while True:
        began, length = time.perf_counter(), len(edge.text)
        while edge.waiting or len(edge.text) == length:
            if not edge.waiting:
                for row in rows:
                    edge.push(row)
                edge.flush()
            try_exchange(edge, link, 0.5)
        times.append(time.perf_counter() - began)
        time.sleep(pause)
        if len(edge.text) > 3000:
            edge.abort([1, 2])


def dear_packet() -> bytes:
    """Return what takes longest to decode of what a round may have."""
    rng = np.random.default_rng(0)
    supports = [np.sort(rng.choice(V, 1024, replace=False)) for _ in range(2)]
    counts = np.full(1024, 64)
    drafts = [sqs.SparseDistribution(ids, counts, V) for ids in supports]
    return DEAR.encode_round(drafts, [int(ids[0]) for ids in supports])


def messages(kind: str, instance: bytes, hello: bytes) -> Iterator[bytes]:
    """Yield an attack, 30 ms of it at a time."""
    packet, number = dear_packet(), 1
    if kind in ("enumerative", "hint"):
        yield wire.Context(instance, 1, 1, 0, 0, 0, 4, [1, 2, 3, 4]).to_bytes(V)
    while True:
        if kind == "enumerative":
            yield wire.RoundMessage(number, 4, 0, packet).to_bytes()
            number += 2
            yield wire.Context(instance, number, number, 0, 4, 4, 4, []).to_bytes(V)
        elif kind == "flood":
            yield from [wire.Generate(number, 0, 1, 0).to_bytes()] * 20
        elif kind == "hint":
            yield wire.Generate(number, 4, 64, 0).to_bytes()
            text = [1, 2, 3, 4] + [1] * 64  # as the model says
            for i in range(4, 68):
                lie = wire.Branch(path_hash(text, i), 0, 0, (5,) * MAX_HINTED)
                yield wire.Hint(number, i, i, (lie,) * MAX_BRANCHES).to_bytes(V)
                time.sleep(0.01)
            number += 2
            yield wire.Context(instance, number, number, 0, 4, 4, 4, []).to_bytes(V)
        elif kind == "hello":
            yield hello
        else:
            text = [(number + i) % V for i in range(4000)]
            for i in range(0, 4000, 500):
                part = wire.Context(
                    instance, number, number, 0, i, 4000, text[i:][:500]
                )
                yield part.to_bytes(V)
            number += 2
        time.sleep(0.03)


def attack(link: Link, kind: str) -> None:
    """Send what nobody asked for, and read no answer."""
    config = {**DEAR.config(), "fingerprint": DEAR.fingerprint.hex()}
    sampling = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    hello = wire.Hello(
        os.urandom(16), bytes(16), (config,), b"tokenize", sampling, (), MAX_MESSAGE
    ).to_bytes()
    link.send(hello)
    welcome = link.receive(20)
    instance = bytes.fromhex(json.loads(welcome[1:])["instance"])
    for message in messages(kind, instance, hello):
        send(link, message)


def send(link: Any, message: bytes) -> None:
    """Send a message, of any length and however many wait."""
    if hasattr(link, "_endpoint"):
        link._endpoint.send(message[:16_000])
        for datagram in link._endpoint.datagrams():
            link._socket.send(datagram)
    else:
        link.send(message)


def run(what: Callable[..., None], place: Sequence[Any], *arguments: Any) -> None:
    """Do something over a new link, and again if the server ends it."""
    port, transport, token = place
    while True:
        try:
            link = connect(
                f"127.0.0.1:{port}", transport=transport, token=token, insecure=True
            )
            what(link, *arguments)
        except LinkError:
            time.sleep(0.2)


class Draft(ToyDraft):
    """A proxy's draft, and a text of dots."""

    n_ctx, fingerprint, stop = None, b"tokenize", frozenset[int]()

    def twin(self) -> Draft:
        """Return another."""
        return Draft()

    def branches(self, texts: Sequence[Sequence[int]]) -> Any:
        """Logits after each text."""
        return np.concatenate([self.logits(text).copy() for text in texts])

    def stream(self, prompt: Sequence[int] = ()) -> Draft:
        """Return the text of a completion."""
        return self

    def add(self, tokens: Sequence[int]) -> str:
        """Characters of tokens."""
        return "." * len(tokens)

    def rest(self) -> str:
        """Return what is left."""
        return ""


def serve_proxy(ports: Any) -> None:
    """Write for clients, and say where."""
    model = Toy(lambda jobs: time.sleep(0.01))
    cloud, draft = Server(model).address, cast(Any, Draft())
    completer = Completer(draft, lambda: connect(cloud, insecure=True), server=cloud)
    files = certificate(Path(tempfile.mkdtemp()))
    ports.put({"proxy": Endpoint(completer, api_key=TOKENS[1], cert=files).port})
    threading.Event().wait()


def chat(port: int, times: Any) -> None:
    """Ask for texts for ever, and note how long each takes; infinity if it fails."""
    headers = {"authorization": f"bearer {TOKENS[1]}"}
    body = json.dumps({"prompt": [1, 2, 3], "max_tokens": 20, "seed": 1})
    while True:
        began, status = time.perf_counter(), 0
        to = http.client.HTTPSConnection(
            "127.0.0.1", port, context=TRUSTING, timeout=10
        )
        with contextlib.suppress(OSError, http.client.HTTPException):
            to.request("POST", "/v1/completions", body, headers)
            answer = to.getresponse()
            answer.read()
            status = answer.status
        to.close()
        times.append(time.perf_counter() - began if status == 200 else math.inf)


TRUSTING = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
TRUSTING.check_hostname, TRUSTING.verify_mode = False, ssl.CERT_NONE

GET = b"GET /page.js HTTP/1.1\r\nHost: localhost\r\n"

SAID = {
    "idle": b"",
    "shaking": b"\x16\x03\x01\x02\x00\x01",
    "unread": (GET + b"\r\n") * 400,
    "slow": GET + b"A: ",
    "pipeline": (GET + b"\r\n") * 400,
    "headers": GET + b"A: b\r\n" * 2000 + b"\r\n",
    "guesses": b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
}
"""What attackers of a proxy say first."""

AGAIN = {"slow": b"b", "pipeline": SAID["pipeline"]}
"""What they say then, again and again."""


def besiege(port: int, kind: str, host: str) -> None:
    """Hold a hundred connections from an address."""
    os.nice(19)  # as they would have machines of their own
    held: list[socket.socket] = []
    while True:
        held = [each for each in held if goes_on(each, kind)]
        with contextlib.suppress(OSError):
            held += [visit(port, kind, host)] if len(held) < 100 else []
        time.sleep(0.01)


def visit(port: int, kind: str, host: str) -> socket.socket:
    """Make a connection and say the first."""
    made = socket.create_connection(("127.0.0.1", port), 5, (host, 0))
    if kind != "shaking":
        made = TRUSTING.wrap_socket(made)
    made.setblocking(False)
    with contextlib.suppress(BlockingIOError, ssl.SSLWantWriteError):
        made.send(SAID[kind])
    return made


def goes_on(held: socket.socket, kind: str) -> bool:
    """Say more over a connection; say whether it is still there."""
    try:
        if kind in AGAIN:
            held.send(AGAIN[kind])
        if kind == "pipeline":
            return bool(held.recv(1 << 20))
        # Of what is encrypted, as it is.
        return bool(socket.socket.recv(held, 1, socket.MSG_PEEK))
    except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return True
    except OSError:
        held.close()
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("transports", nargs="?", default="grpc,datagram")
    parser.add_argument("kinds", nargs="?", default="")
    parser.add_argument("--seconds", type=float, default=6.0)
    options = parser.parse_args()
    for transport in options.transports.split(","):
        honest: list[float] = []
        kinds = ",".join(SAID) if transport == "proxy" else KINDS
        for kind in ("honest", *(options.kinds or kinds).split(",")):
            times = measure(transport, kind, options.seconds)
            lost = times.count(math.inf)
            found = [len(times) - lost, *(1e3 * np.quantile(times, [0.5, 0.95]))]
            honest = honest or found
            speed, trip, slow = np.divide(found, honest)
            print(
                f"{transport:9} beside 5 x {kind:11}: {found[0]:4} rounds, "
                f"{lost} lost, {found[1]:3.0f} ms each, 95 % in {found[2]:3.0f} ms; "
                f"speed {speed:.2f}, round trip x{trip:.2f}, 95 % x{slow:.2f}",
                flush=True,
            )


def measure(transport: str, kind: str, seconds: float) -> list[float]:
    """Return the round trips of a victim beside a crowd, at a server of their own."""
    spawn = multiprocessing.get_context("spawn")
    ports, times = spawn.Queue(), spawn.Manager().list()
    server = serve_proxy if transport == "proxy" else serve
    processes = [spawn.Process(target=server, args=(ports,), daemon=True)]
    processes[0].start()
    port = ports.get()[transport]
    crowd: tuple[Any, ...] = (attack, (port, transport, TOKENS[0]), kind)
    if kind == "honest":
        crowd = (draft, (port, transport, TOKENS[0]), [], 0.01)
    victim: tuple[Any, ...] = (draft, (port, transport, TOKENS[1]), times, 0.0)
    work = [(run, crowd)] * 5 + [(run, victim)]
    if transport == "proxy":
        hosts = [] if kind == "honest" else [f"127.0.0.{2 + i}" for i in range(5)]
        work = [(besiege, (port, kind, host)) for host in hosts]
        work += [(chat, (port, times))]
    for target, arguments in work:
        processes.append(spawn.Process(target=target, args=arguments, daemon=True))
        processes[-1].start()
    while not times:
        time.sleep(0.1)
    time.sleep(4)  # till all are there
    before = len(times)
    time.sleep(seconds)
    found = list(times)[before:]
    for process in reversed(processes):
        process.kill()
        process.join()
    return found


if __name__ == "__main__":
    main()
