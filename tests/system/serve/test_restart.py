"""Servers that are restarted one by one, under texts that go on."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial

from sqs_codec.system.edge import Edge
from sqs_codec.system.engine import BatchEngine
from sqs_codec.system.serve import INSECURE, connect
from tests.relay import Relay, StreamRelay
from tests.system.edge.test_edge import TOKENIZER, ToyDraft
from tests.system.serve.kit import PATIENCE, Toy, both_transports, serving, wait_until


def test_a_rolling_restart_keeps_seeded_completions():
    """Eight at once, by a balancer of each transport; two servers, one by one."""
    lengths, rolled = [0] * 8, threading.Event()

    def start():
        stack = ExitStack()
        engine = BatchEngine(Toy(), tokenizer=TOKENIZER)
        server = stack.enter_context(serving(engine))
        return stack, server, stack.enter_context(both_transports(server))

    def write(seed):
        transport = "datagram" if seed % 2 else "grpc"
        address = f"127.0.0.1:{balancers[transport].port}"
        text = []
        make = partial(connect, address, transport=transport, security=INSECURE)
        with closing(Edge(ToyDraft())) as edge:
            for step in edge.generate(
                [1, seed], make, max_tokens=80, seed=seed, stop=[]
            ):
                text += step.tokens
                lengths[seed] = len(text)
                if len(text) >= 60:  # no text ends before both are restarted
                    assert rolled.wait(PATIENCE)
        return text

    def balance(ports):
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
