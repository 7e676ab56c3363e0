"""Hostile messages to both ends of a session, and to a server by each transport.

Messages are random, or taken from honest sessions and mutated, truncated, replayed or
left as they are, in any order. Nothing may raise; a session that is refused stays
refused; and what a session holds stays within its limits. A session of the same server
has its text exact.
"""

import os
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NoReturn

import numpy as np
import pytest

import sqs_codec as sqs
from sqs_codec.system import session
from sqs_codec.system._base import protocol as limits
from sqs_codec.system.engine import BatchEngine
from sqs_codec.system.serve import INSECURE, connect
from sqs_codec.system.serve._connect import Transport
from sqs_codec.system.session import _wire as wire
from tests.kit import mutate
from tests.system.serve.kit import PATIENCE, both_transports, serving, try_exchange
from tests.system.session import kit

LIMITS = session.Limits(max_text=200, max_message=4096)
MESSAGES = int(os.environ.get("MESSAGES", 1500))
MOST_BYTES = 1 << 20
"""The most bytes that a session of the default limits may hold."""


def edge_of(rng: np.random.Generator) -> session.EdgeSession:
    settings = [
        session.Setting(sqs.Codec(kit.V, 16), sqs.TopK(4)),
        session.Setting(sqs.Codec(kit.V, 5, "bitpack"), sqs.TopK(2)),
    ]
    return kit.make_edge([1, 2], settings, rng=rng, stop=[7])


def honest(rng: np.random.Generator, rounds: int = 40) -> tuple[list[bytes], ...]:
    """Return the messages of a session, up and down, in order."""
    edge, cloud, target = edge_of(rng), kit.make_cloud(limits=LIMITS), kit.Target()
    up: list[bytes] = []
    down: list[bytes] = []
    for _ in range(rounds):
        act(edge, rng)
        while messages := edge.data_to_send():
            for message in messages:
                up.append(message)
                cloud.receive(message)
                kit.work(cloud, target)
                for answer in cloud.data_to_send():
                    down.append(answer)
                    edge.receive(answer)
    assert edge.refused is None
    assert cloud.refused is None
    return up, down


def act(edge: session.EdgeSession, rng: np.random.Generator) -> None:
    """Do something with an edge that may be done."""
    if edge.limits is None or edge.refused is not None:
        return
    if edge.finished or rng.random() < 0.1:
        edge.abort([*edge.text[:5], 1])
    elif edge._round is None and (
        len(edge.text) < edge.rounds_from or rng.random() < 0.2
    ):
        edge.generate(int(rng.integers(1, 9)))
        for n in rng.integers(1, 4, size=rng.integers(4)):
            tokens = [
                *edge.guess(np.log(kit.weights(edge.text, 0)), len(edge.text)).tokens
            ]
            edge.hint(len(edge.text), [([], tokens * n, [0.9] * n)] * n)
    elif edge._round is None or edge._round.state == "drafting":
        setting = edge._round.setting if edge.drafted else int(rng.integers(2))
        for _ in range(rng.integers(1, 5)):
            edge.push(kit.draft_logits(edge), setting=setting)
        if edge.drafted and rng.random() < 0.6:
            edge.flush()


def hostile(rng: np.random.Generator, messages: list[bytes], at: int) -> bytes:
    """Return a message that follows number `at` of honest ones, or doesn't."""
    kind = rng.integers(10)
    message = messages[at % len(messages)]
    if kind < 4:
        return message
    if kind == 4:
        return messages[rng.integers(len(messages))]
    if kind == 5:
        return message[: rng.integers(len(message) + 1)]
    if kind == 6:
        return bytes(rng.bytes(int(rng.integers(40))))
    if kind == 7:
        return bytes([rng.integers(1, 8)]) + rng.bytes(int(rng.integers(20)))
    if kind == 8 and message[0] & 0x80:
        return message[:1] + rng.bytes(3) + message[4:]
    return mutate(rng, message)


def attack_cloud(rng: np.random.Generator, count: int) -> Counter[str]:
    """Send messages to clouds, a new one whenever one has refused; count reasons."""
    found: Counter[str] = Counter()
    target = kit.Target()
    messages, _ = honest(rng)
    cloud, at = kit.make_cloud(limits=LIMITS), 0
    for n in range(count):
        if n % 1000 == 0:
            messages, _ = honest(rng)
        message = hostile(rng, messages, at)
        if message[:1] == b"\x02" and rng.random() < 0.8:  # a context for this cloud
            message = message[:1] + cloud._instance + message[5:]
        at += 1
        cloud.receive(message)
        kit.work(cloud, target) if rng.random() < 0.8 else cloud.next_job()
        if rng.random() < 0.5:
            cloud.data_to_send()
        check_cloud(cloud)
        if cloud.refused is not None or cloud.ended:
            found[(cloud.refused or "ended")[:24]] += 1
            check_refused(cloud, messages)
            cloud, at = kit.make_cloud(limits=LIMITS), 0
    return found


def check_cloud(cloud: session.CloudSession) -> None:
    """Check that a cloud holds no more than its limits allow."""
    pending, round_ = cloud._pending, cloud._draft
    assert len(cloud._text) <= LIMITS.max_text
    assert pending is None or pending.end < LIMITS.max_text
    assert len(cloud._out) <= 5
    assert len(cloud._hints._branches) <= limits.MAX_KEPT
    if round_ is not None:
        sizes = [q.token_ids.size for q in round_.round.distributions]
        assert len(sizes) <= limits.max_draft(kit.V)
        assert sum(sizes) <= limits.MAX_SURVIVORS
        assert len(round_.asked.packet) < limits.ROUND_BYTES


def check_refused(cloud: session.CloudSession, messages: list[bytes]) -> None:
    """Check that a refused session does nothing any more."""
    cloud.data_to_send()
    for message in messages[:3]:
        cloud.receive(message)
        if not cloud.ended:
            (refusal,) = cloud.data_to_send()
            assert wire.parse_down(refusal, kit.V) == wire.Refusal(cloud.refused or "")
        assert cloud.next_job() is None
        assert cloud.text_length == 0


def attack_edge(rng: np.random.Generator, count: int) -> Counter[str]:
    """Send messages to edges, which draft on; count reasons."""
    found: Counter[str] = Counter()
    _, messages = honest(rng)
    edge, at = edge_of(rng), 0
    for n in range(count):
        if n % 1000 == 0:
            _, messages = honest(rng)
        edge.receive(hostile(rng, messages, at))
        at += 1
        if rng.random() < 0.5:
            act(edge, rng)
        if rng.random() < 0.5:
            edge.data_to_send()
        if rng.random() < 0.1:
            edge.resend()
        assert len(edge._text) <= LIMITS.max_text or edge.limits != LIMITS
        if edge.refused is not None:
            found[edge.refused[:50]] += 1
            assert edge.receive(messages[0]) is None
            assert (edge.data_to_send(), edge.waiting) == ([], False)
            edge, at = edge_of(rng), 0
        elif at > 300:
            edge, at = edge_of(rng), 0
    return found


def attack_server(
    rng: np.random.Generator, count: int, transport: Transport
) -> Counter[str]:
    """Send messages to a server that has another session; count reasons.

    The server refuses the last message of a link, after any other messages.
    """
    found: Counter[str] = Counter()
    with (
        serving(BatchEngine(kit.Target()), limits=LIMITS) as server,
        both_transports(server) as ports,
    ):
        address = f"127.0.0.1:{ports[transport]}"
        good = connect(address, transport=transport, security=INSECURE)
        victim = kit.make_edge(sampling=sqs.Sampling(0.0), session_id=bytes(16))
        while count > 0:
            messages, _ = honest(rng)
            go_on(victim, good)
            assert victim.text == kit.greedy([1, 2], len(victim.text) - 2)
            if len(victim.text) > 150:
                victim.abort([1, 2])
            for length in rng.integers(1, 40, 5):
                sent = [hostile(rng, messages, at)[:1171] for at in range(length)]
                mine = rng.random(length) < 0.8  # which contexts are for this cloud
                link = connect(address, transport=transport, security=INSECURE)
                try:
                    talk(link, [message or bytes(1) for message in sent], mine)
                except session.LinkError as error:
                    found[str(error).partition("connection: ")[2][:24]] += 1
                link.close()
                count -= int(length)
        good.close()
    return found


def talk(link: session.Link, messages: list[bytes], mine: Sequence[bool]) -> NoReturn:
    """Send messages, and read all answers until the server ends the link."""
    instance = bytes(4)
    for i, message in enumerate(messages):
        if message[:1] == b"\x02" and mine[i]:
            message = message[:1] + instance + message[5:]
        link.send(message)
        if i == 0:  # which is always answered, a hello with the cloud's name
            down = wire.parse_down(answer_of(link), kit.V)
            instance = getattr(down, "instance", None) or instance
    link.send(bytes([wire.HELLO]))  # without the fields of a hello
    while True:
        wire.parse_down(answer_of(link), kit.V)


def answer_of(link: session.Link) -> bytes:
    answer = link.receive(PATIENCE)
    assert answer is not None, "the server is silent"
    return answer


def go_on(edge: session.EdgeSession, link: session.Link) -> None:
    """Advance an edge by a round, even if messages are lost."""
    length = len(edge.text)
    while len(edge.text) == length:
        if not edge.waiting:
            for _ in range(3):
                edge.push(kit.draft_logits(edge))
            edge.flush()
        try_exchange(edge, link, 1.0)


def context(cloud: session.CloudSession, start: int, total: int, n: int) -> bytes:
    """Return a part of a text that the cloud hasn't."""
    part = wire.Context(cloud._instance, 9, 9, 0, 0, start, total, [4999] * n)
    return part.to_bytes(5000)


def heavy(_: session.CloudSession, codec: sqs.Codec) -> Iterator[bytes]:
    """Yield a round with nearly the largest supports allowed."""
    sure = sqs.SparseDistribution(range(250), [1] * 249 + [751], 5000)
    packet = codec.encode_round([sure] * 16, [0] * 16)
    yield wire.RoundMessage(2, 2, 0, packet).to_bytes()


def largest_hint(n: int) -> wire.Hint:
    branch = wire.Branch(n, 0, 0, (4999,) * limits.MAX_HINTED)
    return wire.Hint(2, n % 128, n, (branch,) * limits.MAX_BRANCHES)


ATTACKS: dict[str, Callable[[session.CloudSession, sqs.Codec], Iterable[bytes]]] = {
    "a hello of nested lists": lambda *_: [b"\x01" + b"[" * 65_000],
    "a hello of long strings": lambda *_: [
        b'\x01{"protocol":1,"a":"' + b"x" * 65_000 + b'"}'
    ],
    "a hello of 20 000 stop tokens": lambda *_: [
        kit.make_edge()
        .data_to_send()[0]
        .replace(b'"stop":[]', b'"stop":[' + b"7," * 20_000 + b"7]")
    ],
    "a text of a gigabyte": lambda cloud, _: [context(cloud, 0, 1 << 29, 30_000)],
    "a text that is never finished": lambda cloud, _: [context(cloud, 0, 4095, 4094)],
    "a round of 4000 survivors": heavy,
    "hints of all there is": lambda *_: [
        wire.Generate(2, 2, 64, 0).to_bytes(),
        *(hint.to_bytes(5000) for hint in map(largest_hint, range(99))),
    ],
    "a generation of all there is": lambda *_: [
        wire.Generate(2, 2, 1 << 60, 0).to_bytes()
    ],
    "a message that is too long": lambda *_: [b"\x80" * (1 << 24)],
}


@pytest.mark.parametrize("attack", [attack_cloud, attack_edge])
@pytest.mark.parametrize("seed", range(3))
def test_hostile_messages_to_either_end(
    attack: Callable[[np.random.Generator, int], Counter[str]], seed: int
) -> None:
    assert len(attack(np.random.default_rng(seed), MESSAGES)) > 10


@pytest.mark.parametrize("transport", ["grpc", "datagram"])
def test_hostile_messages_to_a_server(transport: Transport) -> None:
    rng = np.random.default_rng(0)
    assert len(attack_server(rng, MESSAGES // 3, transport)) > 5


@pytest.mark.parametrize("name", ATTACKS)
def test_announced_sizes_do_not_raise_memory(name: str) -> None:
    codec = sqs.Codec(5000, 1000)
    edge = kit.make_edge([1, 2], [session.Setting(codec, sqs.TopK(250))])
    cloud = kit.make_cloud(vocab_size=5000)
    if "hello" not in name:
        kit.exchange(edge, cloud, kit.Target(vocab_size=5000))
    messages = [*ATTACKS[name](cloud, codec)]
    tracemalloc.start()
    while messages:
        cloud.receive(messages.pop(0))
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < MOST_BYTES
