"""An edge that knows no framework: its draft is a few lines of numpy."""

from contextlib import ExitStack
from functools import partial

import numpy as np
import pytest

from sqs_codec import vocabulary_fingerprint
from sqs_codec.system._base.tokens import common_length
from sqs_codec.system.edge import Edge, FixedPlan, Hints, RefusalError
from sqs_codec.system.edge._edge import MOST_PLANNERS
from sqs_codec.system.edge._reading import FIRST
from sqs_codec.system.session import Limits, LocalLink, Sampling, Setting
from tests.backend.test_backend import output
from tests.system.serve.kit import (
    CODEC,
    GREEDY,
    KEEP,
    VOCAB,
    Draft,
    Toy,
    converse,
    edge_session,
    greedy,
    serving,
    wait_until,
)

TOKENIZER = vocabulary_fingerprint({f"word{i}": i for i in range(VOCAB)})


class ToyDraft(Draft):
    """A draft that writes all rows to the same place."""

    vocab_size = VOCAB
    stop = frozenset({VOCAB - 1})
    fingerprint = TOKENIZER

    def __init__(self):
        self._row = np.empty((1, VOCAB), np.float32)

    def logits(self, tokens):
        """Logits after a text."""
        self._row[:] = super().logits(tokens)
        return self._row


def test_text_is_the_targets_own():
    draft = ToyDraft()
    edge = Edge(draft, planner=FixedPlan(4))
    link = LocalLink(Toy(), tokenizer=TOKENIZER)
    steps = edge.generate([1, 2], link, max_tokens=30, sampling=GREEDY, stop=[])
    assert [1, 2, *(t for step in steps for t in step.tokens)] == greedy([1, 2], 30)
    assert 0 < edge.metrics.accepted < edge.metrics.drafted
    assert edge.metrics.resampled > 0


def test_stop_tokens_are_the_drafts():
    text = greedy([1, 2], 30)
    draft = ToyDraft()
    draft.stop = frozenset(text[9:10])
    edge = Edge(draft, planner=FixedPlan(4))
    link = LocalLink(Toy(), tokenizer=TOKENIZER)
    steps = edge.generate([1, 2], link, max_tokens=30, sampling=GREEDY)
    found = [1, 2, *(token for step in steps for token in step.tokens)]
    assert found == text[: text.index(text[9], 2) + 1]


def test_a_text_that_goes_on_keeps_what_the_draft_has_cached():
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
        edge = edge.planned(FixedPlan(hints=Hints(positions=4)))
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
        self.draft.fingerprint, self.draft.stop = b"tokenize", frozenset()
        self.draft.vocab_size = VOCAB
        plan = {"planner": plan or ALONE, "settings": [Setting(CODEC, KEEP)]}
        self.edge = Edge(self.draft, **plan)
        self.link = self.server.link

    def _count(self, jobs):
        for job in jobs:
            known = common_length(self._known.get(job.session, []), job.text)
            if known < len(job.text):  # or it is a part of what is cached
                self.read += len(job.text) - known
                self._known[job.session] = job.text

    @property
    def ids(self):
        """The ids of the cloud's sessions."""
        return {*self.server.service._sessions}

    def turn(self, prompt, count=20, **options):
        """A prompt and its completion."""
        given = {"max_tokens": count, "sampling": GREEDY} | options
        steps = self.edge.generate(prompt, self.link, **given)
        text = [*prompt, *(token for step in steps for token in step.tokens)]
        wait_until(lambda: not self.server.service._connections)
        return text


@pytest.fixture
def chat():
    with ExitStack() as stack:
        yield partial(Chat, stack)


@pytest.mark.parametrize("plan", PLANS)
def test_a_chat_goes_on_with_one_session(chat, plan):
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


def test_only_such_texts_go_on_with_a_session(chat):
    chat = chat()
    chat.turn([1, 2])
    first = chat.ids
    chat.turn([3], sampling=GREEDY, stop=[])
    chat.edge.planned(PLANS[1]).close()  # it has the same session
    assert not chat.ids
    chat.turn([1, 2])
    (kept,) = chat.ids - first
    chat.turn([1, 2], seed=7)
    list(chat.edge.generate([1], chat.server.link(), max_tokens=2))
    assert chat.ids == {kept}  # those that can't go on were ended
    for other in ({"sampling": Sampling()}, {"stop": [5]}):
        before = chat.ids
        chat.turn([1, 2], **other)
        assert len(chat.ids - before) == 1
    before, link = chat.ids, chat.link
    chat.link = lambda: link()
    chat.turn([1, 2])
    assert len(chat.ids - before) == 1
    once = Edge(chat.draft, planner=ALONE, keep=False)
    before, chat.edge = chat.ids, once
    chat.turn([1, 2])
    assert (chat.ids, once.kept) == (before, [])


@pytest.mark.parametrize("plan", PLANS)
def test_what_was_drawn_by_is_used_once(chat, plan):
    """Of a session that goes on with the same prompt, no text is that of another."""
    used, texts = set(), set()

    def note(jobs):
        for job in jobs:
            if job.key is not None:
                place = range(len(job.text), len(job.text) + job.wanted)
                fresh = {(job.key, at) for at in place}
                turn.update(fresh)
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
def test_a_text_that_is_left_early_goes_on(chat, plan):
    """Nothing more is computed of it, and its place is free at once."""
    chat = chat(plan, max_sessions=1)
    steps = chat.edge.generate([1, 2], chat.link, max_tokens=3000, sampling=GREEDY)
    text = [1, 2, *next(steps).tokens]
    steps.close()
    wait_until(lambda: not chat.server.service._connections)
    assert chat.edge.kept[: len(text)] == text
    (session,) = chat.server.service._sessions.values()
    wait_until(lambda: session.work is None)
    assert session.cloud.text_length < 500
    assert chat.turn([*text, 3]) == greedy([*text, 3], 20)
    assert chat.server.service._sessions == {session.id: session}
    late, link = edge_session([3, 1]), chat.link()
    assert converse(late, link, 20) == greedy([3, 1], 18)


def test_a_cloud_that_has_forgotten_a_session_gets_it_again(chat):
    chat = chat()
    text = chat.turn([1, 2])
    for session in [*chat.server.service._sessions.values()]:
        chat.server._loop.call_soon_threadsafe(chat.server.service._drop, session)
    wait_until(lambda: not chat.ids)
    assert chat.turn([*text, 3]) == greedy([*text, 3], 20)


def test_a_session_that_is_refused_is_replaced(chat):
    """Here by a cloud that takes shorter texts than the one before."""
    chat, port = chat(), None
    chat.link = lambda: chat.server.link(port=port)
    text = chat.turn([1, 2])
    with serving(limits=Limits(max_text=1000)) as other:
        port = other.grpc.port
        assert chat.turn([*text, 3]) == greedy([*text, 3], 20)
        assert chat.edge.kept == greedy([*text, 3], 20)
        with pytest.raises(RefusalError, match="the cloud reads at most"):
            chat.turn([1] * 1000)


def test_a_prompt_that_cannot_be_is_refused_as_ever(chat):
    chat = chat()
    text = chat.turn([1, 2])
    with pytest.raises(ValueError, match=r"text\[0\]"):
        chat.turn([VOCAB])
    with pytest.raises(RefusalError, match="the cloud reads at most"):
        chat.turn([1] * 5000)
    assert chat.edge.kept == text


def test_closing_waits_for_no_cloud_that_is_gone(chat):
    chat = chat()
    chat.turn([1, 2])
    chat.server.stop()
    chat.edge.close()
    assert chat.edge.kept == []
    chat.edge.close()


def test_what_was_learned_for_other_samplings_is_forgotten():
    """Or whoever asks for many temperatures would fill the memory."""
    edge, link = Edge(ToyDraft()), LocalLink(Toy(), tokenizer=TOKENIZER)
    for i in range(MOST_PLANNERS + 3):
        list(edge.generate([1], link, max_tokens=1, sampling=Sampling(0.1 * i)))
        link = LocalLink(Toy(), tokenizer=TOKENIZER)
    assert len(edge._planners) == MOST_PLANNERS


def test_fingerprint_depends_on_ids_alone():
    one = {"a": 0, "b": 1}
    assert vocabulary_fingerprint(one) == vocabulary_fingerprint({"b": 1, "a": 0})
    assert vocabulary_fingerprint(one) != vocabulary_fingerprint({"a": 1, "b": 0})


@pytest.mark.parametrize(
    ("one", "other", "length"), [([], [1], 0), ([1, 2], [1, 3], 1), ([1], [1, 2], 1)]
)
def test_common_length(one, other, length):
    assert common_length(one, other) == length
    assert common_length(other, one) == length


def test_an_edge_and_its_links_import_no_framework():
    code = """
import sys, sqs_codec.system.edge, sqs_codec.system.serve._connect
import sqs_codec.system.serve._grpc.link
import sqs_codec.system.serve._datagram.link, sqs_codec.cli.generate
print({"torch", "transformers", "numba", "prometheus_client"} & {*sys.modules})
"""
    assert output(code).strip() == "set()"
