"""An edge that knows no framework: its draft is a few lines of numpy."""

from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from sqs_codec import Sampling, vocabulary_fingerprint
from sqs_codec.system._base.tokens import common_length
from sqs_codec.system.edge import (
    Edge,
    FixedPlan,
    Hints,
    RefusalError,
    Step,
)
from sqs_codec.system.edge._edge import MOST_PLANNERS
from sqs_codec.system.edge._metrics import EdgeMetrics
from sqs_codec.system.edge._reading import FIRST
from sqs_codec.system.serve import Certificate, connect
from sqs_codec.system.session import (
    Limits,
    LinkError,
    LocalLink,
    Setting,
    VerifyHints,
    VerifyRound,
)
from tests.backend.test_backend import output
from tests.relay import Relay
from tests.system.serve.kit import (
    CODEC,
    GREEDY,
    KEEP,
    VOCAB,
    Draft,
    Toy,
    both_transports,
    certificate,
    converse,
    edge_session,
    greedy,
    serving,
    wait_until,
)

TOKENIZER = vocabulary_fingerprint({f"word{i}": i for i in range(VOCAB)})


Words = partial(SimpleNamespace, stop=frozenset())


class ToyDraft(Draft):
    """A draft that writes all rows to the same place."""

    tokenizer = Words(fingerprint=TOKENIZER, stop=frozenset({VOCAB - 1}))

    def __init__(self):
        self._row = np.empty((1, VOCAB), np.float32)

    def logits(self, tokens):
        self._row[:] = super().logits(tokens)
        return self._row


@pytest.mark.parametrize("draft", [ToyDraft(), Draft(), Draft().twin()])
def test_completion_is_the_targets(draft):
    """Also if the draft has nothing but logits."""
    edge = Edge(draft, planner=FixedPlan(4))
    link = LocalLink(Toy(), tokenizer=TOKENIZER if draft.tokenizer else b"")
    steps = edge.generate([1, 2], link, max_tokens=30, sampling=GREEDY, stop=[])
    assert [1, 2, *(t for step in steps for t in step.tokens)] == greedy([1, 2], 30)
    assert 0 < edge.metrics.accepted < edge.metrics.drafted
    assert edge.metrics.resampled > 0


def test_default_stop_tokens_come_from_the_draft():
    text = greedy([1, 2], 30)
    draft = ToyDraft()
    draft.tokenizer = Words(fingerprint=TOKENIZER, stop=frozenset(text[9:10]))
    edge = Edge(draft, planner=FixedPlan(4))
    link = LocalLink(Toy(), tokenizer=TOKENIZER)
    steps = edge.generate([1, 2], link, max_tokens=30, sampling=GREEDY)
    found = [1, 2, *(token for step in steps for token in step.tokens)]
    assert found == text[: text.index(text[9], 2) + 1]


def test_a_continued_text_keeps_the_drafts_kv_cache():
    """A part of a long prompt never ends before what the last text was read to."""
    lengths = []

    class Cached(ToyDraft):
        def logits(self, tokens):
            lengths.append(len(tokens))
            return super().logits(tokens)

    edge = Edge(Cached(), planner=FixedPlan(hints=Hints()))
    texts = []
    for prompt in ([1, 2] * 100, [1, 2] * 300):
        lengths.clear()
        link = LocalLink(Toy(), tokenizer=TOKENIZER)
        list(edge.generate(prompt, link, max_tokens=3, sampling=GREEDY, stop=[]))
        texts.append([*lengths])
    assert min(texts[0]) == FIRST
    assert max(texts[0]) < min(texts[1]) < 600


ALONE = FixedPlan(0)
PLANS = [ALONE, FixedPlan(4), FixedPlan(hints=Hints())]


class Chat:
    """An edge, and a cloud that counts the tokens of texts that it reads."""

    def __init__(self, stack, plan=None, **options):
        self.read, self._known = 0, {}
        self.server = stack.enter_context(serving(Toy(self._count), **options))
        self.draft = Draft()
        self.draft.tokenizer = Words(fingerprint=b"tokenize")
        plan = {"planner": plan or ALONE, "settings": [Setting(CODEC, KEEP)]}
        self.edge = Edge(self.draft, **plan)
        self.link = self.server.link

    def _count(self, jobs):
        for job in jobs:
            known = common_length(self._known.get(job.session, []), job.text)
            if known < len(job.text):  # or it is a part of the cached text
                self.read += len(job.text) - known
                self._known[job.session] = job.text

    @property
    def ids(self):
        return {*self.server.service._sessions}

    def turn(self, prompt, count=20, **options):
        given = {"max_tokens": count, "sampling": GREEDY} | options
        steps = self.edge.generate(prompt, self.link, **given)
        text = [*prompt, *(token for step in steps for token in step.tokens)]
        wait_until(lambda: not self.server.metric("sqs_sessions"))
        return text


def kept(edge):
    """The text of the session that an edge keeps."""
    return next((line.session.text for line in edge._kept.lines), [])


@pytest.fixture
def chat():
    with ExitStack() as stack:
        yield partial(Chat, stack)


@pytest.mark.parametrize("plan", PLANS)
def test_a_chat_uses_one_session(chat, plan):
    """Of its sixth turn, with 250 new tokens, no others are sent and read again."""
    chat, text = chat(plan), [1]
    for _ in range(6):
        text += [2] * 50
        read, sent = chat.read, chat.server.metric("sqs_received_bytes_total")
        text = chat.turn(text, 200)
        assert text == greedy(text[:-200], 200)
    assert chat.read - read <= 300
    sent = chat.server.metric("sqs_received_bytes_total") - sent
    assert plan is not ALONE or sent <= 800
    assert len(chat.ids) == 1
    assert chat.server.metric("sqs_sessions") == 0
    chat.edge.close()
    wait_until(lambda: not chat.ids)


def test_only_continuations_reuse_a_session(chat):
    """All go on over the same link, and what no longer goes on is ended."""
    chat = chat()
    chat.turn([1, 2])
    (own,) = first = chat.ids
    chat.turn([3], sampling=GREEDY, stop=[])
    list(chat.edge.generate([1], chat.server.link(), max_tokens=2))
    wait_until(lambda: chat.ids == {own})
    chat.edge.close()
    wait_until(lambda: not chat.server.service._connections)
    assert not chat.ids
    links = len(chat.server._links)
    for other in ({}, {"sampling": Sampling()}, {"stop": [5]}, *[{"seed": 7}] * 2):
        before = chat.ids | first
        chat.turn([1, 2], **other)
        assert len(chat.ids) == len(chat.ids - before) == 1
    assert len(chat.server._links) == links + 1
    before, link = chat.ids, chat.link
    chat.link = lambda: link()
    chat.turn([1, 2])
    wait_until(lambda: len(chat.ids) == len(chat.ids - before) == 1)
    once = Edge(chat.draft, planner=ALONE, keep_session=False)
    before, keeper, chat.edge = chat.ids, chat.edge, once
    chat.turn([1, 2])
    wait_until(lambda: chat.ids == before)
    keeper.close()
    assert kept(once) == []


@pytest.mark.parametrize("plan", PLANS)
def test_random_numbers_are_used_once(chat, plan):
    """Of a session that goes on with the same prompt, no text is that of another."""
    used, texts = set(), set()

    def note(jobs):
        for job in jobs:
            if isinstance(job, VerifyHints):
                place = range(len(job.text), len(job.text) + job.wanted)
                fresh = {(job.key, at) for at in place}
                turn.update(fresh)
            elif isinstance(job, VerifyRound):
                turn.update(job.draws.tolist())

    chat = chat(plan)
    chat.server.engine.verifier.on_call = note
    for _ in range(5):
        turn = set()
        texts.add(tuple(chat.turn([1, 2], sampling=Sampling(1.0))))
        assert turn
        assert not turn & used
        used |= turn
    assert (len(texts), len(chat.ids)) == (5, 1)


@pytest.mark.parametrize("plan", PLANS)
def test_a_completion_stopped_early_can_be_continued(chat, plan):
    """Nothing more is computed of it, and its place is free at once."""
    chat = chat(plan, max_sessions=1)
    steps = chat.edge.generate([1, 2], chat.link, max_tokens=3000, sampling=GREEDY)
    text = [1, 2, *next(steps).tokens]
    steps.close()
    wait_until(lambda: not chat.server.metric("sqs_sessions"))
    assert kept(chat.edge)[: len(text)] == text
    (session,) = chat.server.service._sessions.values()
    wait_until(lambda: session.work is None)
    assert session.cloud.text_length < 500
    assert chat.turn([*text, 3]) == greedy([*text, 3], 20)
    assert chat.server.service._sessions == {session.id: session}
    late, link = edge_session([3, 1]), chat.link()
    assert converse(late, link, 20) == greedy([3, 1], 18)


@pytest.mark.parametrize("keep", [True, False])
def test_a_completion_has_its_own_figures(chat, keep):
    """Their sum is the edge's, including the end of the kept session."""
    chat = chat()
    chat.edge, found = Edge(chat.draft, planner=ALONE, keep_session=keep), EdgeMetrics()
    for count in (5, 10):
        steps = chat.edge.generate([1, 2], chat.link, max_tokens=count, sampling=GREEDY)
        assert steps.metrics.tokens == 0
        assert len([*steps]) == steps.metrics.answers
        assert steps.metrics.tokens == count
        found += steps.metrics
    one, all_ = asdict(found), asdict(chat.edge.metrics)
    assert one == pytest.approx(all_)
    chat.edge.close()
    assert (asdict(chat.edge.metrics) == all_) == (not keep)


def test_a_completion_may_have_its_own_planner(chat):
    chat, how = chat(), {"max_tokens": 20, "sampling": GREEDY}
    steps = chat.edge.generate([1, 2], chat.link, planner=PLANS[1], **how)
    assert {step.mode for step in steps} == {"rounds"}
    steps = chat.edge.generate([1, 2], chat.link, **how)
    assert {step.mode for step in steps} == {"alone"}


def test_a_second_completion_over_grpc_takes_few_bytes(chat, tmp_path):
    cert, key = certificate(tmp_path)
    chat = chat(security=Certificate(cert, key))
    how, links = {"security": Certificate(cert)}, []
    chat.link = lambda: links.append(connect(chat.server.address, **how)) or links[-1]
    chat.turn([1, 2, 3])
    first = chat.edge.metrics.bytes_up + chat.edge.metrics.bytes_down
    chat.turn([1, 2, 4])
    assert chat.edge.metrics.bytes_up + chat.edge.metrics.bytes_down - first <= 4500
    chat.edge.close()
    wait_until(lambda: not chat.server.service._connections)
    (link,), metrics = links, chat.edge.metrics
    assert (metrics.bytes_up, metrics.bytes_down) == (link.sent, link.received)


def test_a_second_completion_over_datagrams_has_no_handshake(chat):
    chat = chat()
    with both_transports(chat.server) as ports, Relay(ports["datagram"]) as relay:
        where = {"port": relay.port, "transport": "datagram"}
        chat.link = lambda: chat.server.link(**where)
        chat.turn([1, 2, 3])
        first, seen = sum(relay.bytes), len(relay.seen)
        chat.turn([1, 2, 4])
        assert sum(relay.bytes) - first <= 2500
        assert {data[0] for _, data in relay.seen[seen:]} == {23}  # no handshake
        assert len(relay.seen[seen:]) <= 40  # 20 tokens, and a few requests
        relay.renumber()  # what a NAT forgets is no loss
        assert chat.turn([1, 2, 5]) == greedy([1, 2, 5], 20)
        chat.edge.close()


@pytest.mark.parametrize("known", [True, False])
def test_a_dead_link_is_replaced_silently(chat, caplog, known):
    """Whether the edge has heard of it or finds out by its first message."""
    chat = chat()
    text = chat.turn([1, 2])
    (link,) = chat.server._links
    if known:
        link.close()
    else:
        link.receive = lambda timeout: None if timeout == 0 else link._check()
        link._error = "the server is gone"
    assert chat.turn([*text, 3]) == greedy([*text, 3], 20)
    assert len(chat.server._links) == 2
    assert len(chat.ids) == 1
    chat.server.stop()
    with pytest.raises(LinkError):
        chat.turn([*text, 3])
    assert [r for r in caplog.records if r.name == "sqs_codec.system.edge._line"] == []


def test_idle_links_do_not_block_others(chat):
    """A full server has room for others, and for the edge again, in turn."""
    chat = chat(max_sessions=1)
    for i in range(3):
        assert chat.turn([1, i]) == greedy([1, i], 20)
        late, link = edge_session([3, i]), chat.server.link()
        assert converse(late, link, 20) == greedy([3, i], 18)
        link.close()


def test_at_most_one_link_remains_after_threads_and_close(chat):
    """Each thread that writes at the same time as another has a link of its own."""
    chat = chat()
    how = {"max_tokens": 20, "sampling": GREEDY}
    texts = [chat.edge.generate([1, i], chat.link, **how) for i in range(3)]
    found = [[1, i, *next(steps).tokens] for i, steps in enumerate(texts)]
    assert len(chat.server._links) == 3
    for i, steps in enumerate(texts):
        found[i] += [token for step in steps for token in step.tokens]
    assert found == [greedy([1, i], 20) for i in range(3)]
    wait_until(lambda: len(chat.server.service._connections) == 1)
    steps = chat.edge.generate([1], chat.link, **how)
    next(steps)
    chat.edge.close()
    list(steps)
    wait_until(lambda: not chat.server.service._connections)
    assert kept(chat.edge) == []


def test_a_deleted_edge_closes_its_link(chat):
    chat = chat()
    chat.turn([1, 2])
    assert chat.server.service._connections
    chat.edge = None
    wait_until(lambda: not chat.server.service._connections)


def test_a_refused_session_is_replaced(chat):
    """Here by a cloud that takes shorter texts than the one before."""
    chat, port = chat(), None
    chat.link = lambda: chat.server.link(port=port)
    text = chat.turn([1, 2])
    chat.server.close_links()
    with serving(limits=Limits(max_text=1000)) as other:
        port = other.grpc.port
        assert chat.turn([*text, 3]) == greedy([*text, 3], 20)
        assert kept(chat.edge) == greedy([*text, 3], 20)
        with pytest.raises(RefusalError, match="the cloud reads at most"):
            chat.turn([1] * 1000)


def test_a_bad_prompt_in_a_chat_is_refused(chat):
    chat = chat()
    chat.turn([1, 2])
    with pytest.raises(ValueError, match=r"text\[0\]"):
        chat.turn([VOCAB])
    with pytest.raises(RefusalError, match="the cloud reads at most"):
        chat.turn([1] * 5000)
    steps = chat.edge.generate([1, 2], chat.link, max_tokens=20, sampling=GREEDY)
    assert [1, 2, *(t for step in steps for t in step.tokens)] == greedy([1, 2], 20)


def test_logits_of_a_draft_have_two_dimensions():
    class Flat(Draft):
        def logits(self, tokens):
            return super().logits(tokens)[-1]

    steps = Edge(Flat()).generate([1], LocalLink(Toy()), max_tokens=9)
    with pytest.raises(ValueError, match=rf"\[1, V\], got \[{VOCAB}\]"):
        list(steps)


def test_closing_does_not_wait_for_a_lost_cloud(chat):
    chat = chat()
    chat.turn([1, 2])
    chat.server.stop()
    chat.edge.close()
    assert kept(chat.edge) == []
    chat.edge.close()


def test_planners_of_old_samplings_are_dropped():
    """Or whoever asks for many temperatures would fill the memory."""
    edge, link = Edge(ToyDraft()), LocalLink(Toy(), tokenizer=TOKENIZER)
    for i in range(MOST_PLANNERS + 3):
        list(edge.generate([1], link, max_tokens=1, sampling=Sampling(0.1 * i)))
        link = LocalLink(Toy(), tokenizer=TOKENIZER)
    assert len(edge._planners) == MOST_PLANNERS


def test_an_edge_and_its_links_import_no_framework():
    code = """
import sys, sqs_codec.system.edge, sqs_codec.system.serve._connect
import sqs_codec.system.serve._grpc.link
import sqs_codec.system.serve._datagram.link, sqs_codec.cli.generate
print({"torch", "transformers", "numba", "prometheus_client"} & {*sys.modules})
"""
    assert output(code).strip() == "set()"


def test_the_figure_of_alone_needs_a_measurement():
    metrics = EdgeMetrics()
    for mode, seconds in (("hints", 0.5), ("alone", None)):
        metrics.add(Step((1,), 0, 0, 0, 0, 0, "", mode, seconds), 1.0)
        assert metrics.alone_per_second == 0
    for seconds in [0.2] * 300 + [0.1] * 300:  # the last ones count
        metrics.add(Step((1,), 0, 0, 0, 0, 0, "", "alone", seconds), seconds)
    assert metrics.alone_per_second == pytest.approx(10, 0.02)
