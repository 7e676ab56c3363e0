"""A server's counters equal the edge's."""

import asyncio
import contextlib
from collections import deque

import pytest

from sqs_codec import Sampling
from sqs_codec.system.edge import FixedPlan, Hints, generate
from sqs_codec.system.engine import BatchEngine, EngineInfo
from sqs_codec.system.serve import Service
from tests.system.serve.kit import VOCAB, Draft, Toy, draft_round, edge_session, send

PASS = 8  # steps of the event loop; an edge drafts one token in each


class Slow(BatchEngine):
    """An engine whose forward pass takes some steps of the event loop."""

    async def verify(self, job):
        for _ in range(PASS):
            await asyncio.sleep(0)
        return self.verifier.verify([job])[0] if job.wanted else None


class Stepped:
    """A link to a service in this process, which goes on while the edge receives."""

    reliable, max_message, overhead, sent, received = True, 65536, 0, 0, 0

    def __init__(self, loop):
        self._loop, self._inbox = loop, deque()
        info = EngineInfo("", VOCAB, 4096, b"tokenize")
        self._service = Service(Slow(Toy()), info, tokens=None)
        loop.run_until_complete(self._service.start())
        given = self._inbox.append, lambda _: None
        self._connection = self._service.connect("", *given)

    def send(self, message):
        self._connection.receive(message)

    def receive(self, timeout):
        """Return the next message, if one comes within a step, or several."""
        for _ in range(10 * PASS if timeout else 1):
            self._loop.run_until_complete(asyncio.sleep(0))
            if self._inbox:
                return self._inbox.popleft()
        return None

    def close(self):
        self._loop.run_until_complete(self._service.stop(0))

    def count(self, name):
        labels = {"model_name": "", "engine": "0"} if name.startswith("vllm") else {}
        registry = self._service.metrics.registry
        return registry.get_sample_value(f"{name}_total", labels) or 0

    @property
    def counts(self):
        """Return drafts, tokens drafted, accepted and rejected, and tokens of text."""
        names = "drafts", "draft_tokens", "accepted_tokens"
        names = [f"vllm:spec_decode_num_{name}" for name in names]
        return [*map(self.count, [*names, "sqs_rejected_tokens", "sqs_text_tokens"])]


@pytest.fixture
def link():
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        yield Stepped(loop)


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("plan", [FixedPlan(4), FixedPlan(hints=Hints()), FixedPlan(0)])
def test_edge_and_server_count_the_same(link, plan, ends):
    options = {"sampling": Sampling(), "seed": bytes(16), "stop": [60] * ends}
    session, limits = edge_session([1, 2], **options), {"max_tokens": 100}
    steps = generate(session, Draft(), link, plan, clock=lambda: 0.0, **limits)
    assert len([*steps]) == steps.metrics.answers
    metrics = steps.metrics
    assert (len(session.text) < 102) == ends
    drafts, drafted, *verified, tokens = link.counts
    assert verified == [metrics.accepted, metrics.resampled]
    assert tokens == metrics.tokens == len(session.text) - 2
    assert drafts <= metrics.answers
    accepted, rejected = verified
    if plan.plan().length:
        assert drafted == metrics.drafted
    else:
        assert metrics.drafted == accepted + rejected
        assert metrics.answers + accepted == tokens
    if plan.plan().length == 0 and plan.plan().hints is None:
        assert drafts == accepted == rejected == 0
    elif not ends:
        assert accepted > 0
        assert 0 < rejected < drafts


def test_a_late_verdict_is_not_counted(link):
    session = edge_session([1, 2])

    def swap():
        send(session, link)
        while (message := link.receive(1)) is not None:
            session.receive(message)

    swap()
    draft_round(session)
    swap()
    before = link.counts
    draft_round(session)
    send(session, link)
    session.abort()
    swap()
    assert link.counts == before
    assert before[0] == 1
    link.close()
