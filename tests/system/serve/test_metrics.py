"""A server's counters equal the edge's."""

import threading
import time

import pytest

from sqs_codec import Sampling
from sqs_codec.system.edge import FixedPlan, Hints, generate
from tests.system.serve.kit import (
    PATIENCE,
    Draft,
    Toy,
    draft_round,
    edge_session,
    exchange,
    send,
    serving,
    wait_until,
)


def counts(server):
    """Return drafts, tokens drafted, accepted and rejected, and tokens of text."""
    labels = {"model_name": "a toy", "engine": "0"}
    names = "drafts", "draft_tokens", "accepted_tokens"
    return [
        *(server.metric(f"vllm:spec_decode_num_{x}_total", **labels) for x in names),
        *(
            server.metric(f"{x}_total")
            for x in ("sqs_rejected_tokens", "sqs_text_tokens")
        ),
    ]


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("plan", [FixedPlan(4), FixedPlan(hints=Hints()), FixedPlan(0)])
def test_edge_and_server_count_alike(plan, ends):
    options = {"sampling": Sampling(), "seed": bytes(16), "stop": [60] * ends}
    session = edge_session([1, 2], **options)
    with serving(
        Toy(lambda _: time.sleep(0.01))
    ) as server:  # so that hints are in time
        steps = generate(session, Draft(), server.link(), plan, max_tokens=100)
        assert len([*steps]) == steps.metrics.answers
        drafts, drafted, *verified, tokens = counts(server)
    metrics = steps.metrics
    assert (len(session.text) < 102) == ends
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


def test_a_late_verdict_counts_nothing():
    """Of a round that the edge gave up while the target verified it."""
    begun, go_on = threading.Event(), threading.Event()
    toy = Toy()
    with serving(toy) as server:
        session, link = edge_session([1, 2]), server.link()
        while not session.text[2:]:
            if not session.waiting:
                draft_round(session)
            exchange(session, link)
        before = counts(server)
        toy.on_call = lambda _: begun.set() or go_on.wait(PATIENCE)
        draft_round(session)
        send(session, link)
        assert begun.wait(PATIENCE)
        received = server.metric("sqs_received_bytes_total")
        session.abort()
        send(session, link)
        wait_until(lambda: server.metric("sqs_received_bytes_total") > received)
        toy.on_call = len
        go_on.set()
        session.generate(1)
        exchange(session, link)
        assert counts(server)[:-1] == before[:-1]
        assert before[0] == 1
