"""Servers that are restarted one by one, and what they renew while they serve."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from benchmarks.relay import Relay, StreamRelay
from sqs_codec.system.edge import Edge, FixedPlan, RefusalError, Step
from sqs_codec.system.engine import BatchEngine
from sqs_codec.system.serve import _service, connect
from sqs_codec.system.serve._connect import Transport
from sqs_codec.system.session import Link, LinkError
from tests.system.edge.test_edge import TOKENIZER, ToyDraft
from tests.system.serve.kit import (
    GREEDY,
    PATIENCE,
    Server,
    Toy,
    both_transports,
    greedy,
    serving,
    wait_until,
)


def begin(
    seed: int | None, link: Callable[[], Link], most: int = 80, **options: Any
) -> Iterator[Step]:
    """Begin a text, by rounds if it has no seed."""
    edge = Edge(ToyDraft(), planner=FixedPlan(4) if seed is None else None)
    prompt = [1, seed or 2]
    return edge.generate(prompt, link, max_tokens=most, seed=seed, stop=[], **options)


def engine() -> BatchEngine:
    """A toy's, for edges of its tokenizer."""
    return BatchEngine(Toy(), tokenizer=TOKENIZER)


def test_a_rolling_restart_changes_no_seeded_text() -> None:
    """Eight at once, by a balancer of each transport; two servers, one by one."""
    lengths, rolled = [0] * 8, threading.Event()

    def start() -> tuple[ExitStack, Server, Any]:
        stack = ExitStack()
        server = stack.enter_context(serving(engine()))
        return stack, server, stack.enter_context(both_transports(server))

    def write(seed: int) -> list[int]:
        transport: Transport = "datagram" if seed % 2 else "grpc"
        address = f"127.0.0.1:{balancers[transport].port}"
        text: list[int] = []
        make = partial(connect, address, transport=transport, insecure=True)
        for step in begin(seed, make):
            text += step.tokens
            lengths[seed] = len(text)
            if len(text) >= 60:  # no text ends before both are restarted
                assert rolled.wait(PATIENCE)
        return text

    def balance(ports: dict[str, int]) -> None:
        for transport, balancer in balancers.items():
            balancer.server_port = ports[transport]

    servers = [start(), start()]
    with StreamRelay(0) as tcp, Relay(0) as udp, ThreadPoolExecutor(8) as pool:
        balancers = {"grpc": tcp, "datagram": udp}
        balance(servers[0][2])
        texts = [pool.submit(write, seed) for seed in range(8)]
        for i, (stack, server, _) in enumerate(servers):
            wait_until(lambda i=i: min(lengths) >= 10 * (i + 1))
            balance(servers[1 - i][2])
            server.run(server.service.stop(1.0))
            stack.close()
            servers[i] = start()
        rolled.set()
        written = [text.result(PATIENCE) for text in texts]
        assert [*pool.map(write, range(8))] == written  # with nothing restarted
        assert len({*map(tuple, written)}) == 8
    for stack, *_ in servers:
        stack.close()


def test_a_withdrawn_token_ends_its_sessions_alone() -> None:
    tokens = ["a" * 16, "b" * 16]
    with serving(engine(), tokens=tokens) as server, both_transports(server) as ports:

        async def renew(tokens: list[str]) -> int:
            return server.service.renew(tokens)

        links = [
            partial(
                connect, f"127.0.0.1:{port}", insecure=True, transport=name, token=t
            )
            for name, port in ports.items()
            for t in tokens
        ]
        texts = [begin(None, link, sampling=GREEDY) for link in links]
        heads = [next(text).tokens for text in texts]
        for bad in [], ["a b"]:
            with pytest.raises(ValueError, match="token"):
                server.run(renew(bad))
        assert server.run(renew(tokens[:1])) == 2
        for head, text in [*zip(heads, texts, strict=True)][::2]:
            rest = [token for step in text for token in step.tokens]
            assert [1, 2, *head, *rest] == greedy([1, 2], 80)
        for link, text in [*zip(links, texts, strict=True)][1::2]:
            with pytest.raises(RefusalError, match=_service.WITHDRAWN):
                next(text)
            with pytest.raises(LinkError, match="refused the token"):
                link()
        server.run(renew(tokens))  # it may come back
        links[1]().close()
