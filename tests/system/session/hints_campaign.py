"""Write texts with hints through real sockets, against an adversary who reads along.

    python -m tests.system.session.hints_campaign              10^4 texts by each link
    python -m tests.system.session.hints_campaign --texts 100  a taste of it

By what a message says, the adversary loses or doubles it, breaks the link, has the
server forget the session, or sends the edge to the other of two servers. Every text has
to be the one that the target draws alone, by the numbers of its seed.
"""

import argparse
import contextlib
import itertools
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from functools import partial

import numpy as np

import sqs_codec as sqs
from sqs_codec.system.edge import FixedPlan, Hints, generate
from sqs_codec.system.serve import connect
from sqs_codec.system.serve._connect import Transport
from sqs_codec.system.session import Link, LinkError, Sampling
from sqs_codec.system.session._numbers import race_key, seed_of
from tests.system.serve import kit
from tests.system.serve.kit import Draft

LENGTH = 24


class Adversary:
    """A link whose messages, and the link itself, fail by what they say."""

    def __init__(self, link: Link, salt: int, found: Counter[str]) -> None:
        self._link, self._salt, self._found = link, salt, found
        self._again: bytes | None = None
        self._seen: set[bytes] = set()
        self.forget = False  # whether the server is to forget the session

    def __getattr__(self, name: str) -> object:
        return getattr(self._link, name)

    def _fate(self, message: bytes) -> int:
        """Return what is to happen to a message: mostly nothing, and once at most."""
        fate = zlib.crc32(message, self._salt) % 60
        if message in self._seen:
            return 60
        self._seen.add(message)
        return fate

    def send(self, message: bytes) -> None:
        """Send a message, or lose or double it."""
        fate = self._fate(message)
        if fate == 0 and not self._link.reliable:
            self._found["lost up"] += 1
            return
        self._link.send(message)
        if fate == 1 and message[0] == 6:
            self._found["doubled up"] += 1
            self._link.send(message)

    def receive(self, timeout: float | None) -> bytes | None:
        """Return the next message, unless it says what is not to be heard."""
        if self._again is not None:
            message, self._again = self._again, None
            return message
        message = self._link.receive(timeout)
        if message is None:
            return None
        fate = self._fate(message)
        if fate == 0 and not self._link.reliable:
            self._found["lost down"] += 1
            return None
        if fate == 1:
            self._found["doubled down"] += 1
            self._again = message
        if message[0] == 3 and fate in (2, 3):
            self._found["broken"] += 1
            self.forget = fate == 3
            self._link.close()
            raise LinkError("the adversary has heard enough")
        return message


def alone(prompt: list[int], key: bytes, temperature: float) -> list[int]:
    """Return what the target writes by the numbers of a key."""
    text = [*prompt]
    for position in range(len(prompt), len(prompt) + LENGTH):
        row = kit.toy_logits(text)
        text.append(sqs.gumbel_draw(row, key, position, temperature=temperature))
    return text


def campaign(count: int, transport: Transport, seed: int = 0) -> Counter[str]:
    """Write so many texts; return what the adversary did."""
    rng, found = np.random.default_rng(seed), Counter[str]()
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(kit.serving()) for _ in range(2)]
        ports = [
            stack.enter_context(kit.both_transports(s))[transport] for s in servers
        ]
        for number in range(count):
            prompt = rng.integers(kit.VOCAB, size=rng.integers(1, 5)).tolist()
            sampling = Sampling(float(rng.choice([0.7, 1.0])))
            own = {
                "seed": seed_of(number, prompt),
                "rounds": False,
                "max_message": 1100,
            }
            edge = kit.edge_session(prompt, sampling=sampling, **own)
            links = partial(next, _links(servers, ports, transport, number, found))
            plan, at_once = FixedPlan(0, hints=Hints()), {"sleep": lambda _: None}
            steps = generate(edge, Draft(), links, plan, max_tokens=LENGTH, **at_once)
            found["passes"] += sum(1 for _ in steps)
            key = race_key(edge.seed, 0)
            assert edge.text == alone(prompt, key, sampling.temperature), number
            found["hints"] += edge._serial
            found["texts"] += 1
    return found


def _links(
    servers: list[kit.Server],
    ports: list[int],
    transport: Transport,
    salt: int,
    found: Counter[str],
) -> Iterator[Adversary]:
    """Yield links to the two servers in turn."""
    for server in itertools.cycle((0, 1)):
        address = f"127.0.0.1:{ports[server]}"
        plain = connect(address, transport=transport, insecure=True)
        link = Adversary(plain, salt, found)
        yield link
        if link.forget:
            forget(servers[server])


def forget(server: kit.Server) -> None:
    """Have a server forget all of its sessions, as if it were restarted."""

    async def work() -> None:
        for session in [*server.service._sessions.values()]:
            server.service._give_up(session, "restart", "it is restarted")

    server.run(work())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for transport in _transports():
        began = time.monotonic()
        found = campaign(options.texts, transport, options.seed)
        print(f"{transport}, {time.monotonic() - began:.0f} s: {dict(found)}")


def _transports() -> Iterator[Transport]:
    yield "grpc"
    yield "datagram"


if __name__ == "__main__":
    main()
