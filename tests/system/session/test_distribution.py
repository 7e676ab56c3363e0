"""Sessions keep the target's output distribution: all outcomes are summed."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

import sqs_codec as sqs
from sqs_codec.system.edge._seed import seed_of
from sqs_codec.system.session import Limits, Setting, VerifyHints, _cloud
from sqs_codec.system.session import _wire as wire
from sqs_codec.system.session._random import draws, shared_key
from sqs_codec.testing import LossyError, check_lossless
from tests.system.session.kit import Target, exchange, make_cloud, make_edge, take, work
from tests.testing.eighths import assert_lossless

CODECS = {4: sqs.Codec(4, resolution=4), 64: sqs.Codec(64, resolution=64)}
LIMITS = [Limits(max_text=n, max_message=m) for n, m in ((90, 9000), (99, 4096))]


@pytest.fixture
def ends_of_session(monkeypatch):
    """Return a function that opens a session with a generator's random numbers."""

    def opened(prompt, target, rng, key=lambda number: number):
        drawn = {}

        def draws(seed, number, count):
            found = drawn.setdefault(key(number), [])
            while len(found) < count:
                found.append(float(rng.random()))
            return np.array(found[:count])

        monkeypatch.setattr(_cloud, "draws", draws)
        v = target.vocab_size
        ends = [
            make_edge(prompt, [Setting(CODECS[v], sqs.TopK(v))], rng=rng),
            make_cloud(vocab_size=v),
            Shared(target, rng),
        ]
        exchange(*ends)
        return ends

    return opened


def draft_two(edge, draft):
    for _ in range(2):
        assert edge.push(draft.logits([*edge.text, *edge.drafted])) is not None
    edge.flush()


def outcome(edge, cloud, events):
    (event,) = events
    assert edge.text[-len(event.tokens) :] == [*event.tokens]
    assert edge.text == cloud._text
    return event.tokens


def test_a_round_keeps_the_output_distribution(ends_of_session):
    def decode(prompt, draft, target, rng):
        edge, cloud, target = ends_of_session(prompt, target, rng)
        draft_two(edge, draft)
        return outcome(edge, cloud, exchange(edge, cloud, target))

    assert_lossless(decode)


@pytest.mark.parametrize(
    ("same_numbers", "exact"),
    [(False, False), (True, False), pytest.param(True, True, marks=pytest.mark.all)],
)
def test_a_cloud_lost_with_its_verdict_keeps_the_distribution(
    ends_of_session, same_numbers, exact
):
    """The next has the same random numbers and result, so the distribution stays.

    Each cloud is lost with its answer if that rejects something or ends with an odd
    token, up to twice; and each takes something else, but no shorter texts. A draft
    that were given up, or numbers of their own, would give tokens a second chance.
    """
    lost = 0

    def decode(prompt, draft, target, rng):
        nonlocal lost
        own = iter(range(1000))
        key = (lambda number: number) if same_numbers else (lambda _: next(own))
        edge, cloud, target = ends_of_session(prompt, target, rng, key)
        edge._welcome = replace(edge._welcome, limits=Limits(80))
        draft_two(edge, draft)
        for limits in [*LIMITS, None]:
            answers = answers_of(edge, cloud, target)
            found = wire.parse_down(answers[-1], target.vocab_size)
            if limits is None or (found.accepted == 2 and found.token % 2 == 0):
                break
            lost += 1
            cloud = make_cloud(vocab_size=target.vocab_size, limits=limits)
            edge.reconnect()
        return outcome(edge, cloud, take(edge, answers))

    if exact:
        assert_lossless(decode)
        assert lost > 8192
        return
    with nullcontext() if same_numbers else pytest.raises(LossyError):
        check_lossless(decode, exact=False, trials=2000)


def answers_of(edge, cloud, target):
    """Return a cloud's answers to all that it is sent; the last is that to the round.

    The edge has heard all before.
    """
    while messages := edge.data_to_send():
        answers = []
        for message in messages:
            cloud.receive(message)
            work(cloud, target)
            answers += cloud.data_to_send()
        if answers[-1][0] & 0x80:
            return answers
        for answer in answers:
            edge.receive(answer)
    raise AssertionError("there is no answer to the round")


class Shared(Target):
    """A target that samples with one number for each key and position.

    An edge may know it: `choice` gives its token for any distribution.
    """

    def __init__(self, probs, rng):
        super().__init__(probs, probs.vocab_size)
        self.rng, self.numbers, self.passes = rng, {}, 0

    def choice(self, probs, key, position):
        place = key, position
        if place not in self.numbers:
            self.numbers[place] = self.rng.random()
        number, ends = self.numbers[place], np.cumsum(probs)[:-1]
        return next((x for x, end in enumerate(ends) if number < end), len(ends))

    def decide(self, job):
        if not isinstance(job, VerifyHints):
            return super().decide(job)
        self.passes += 1
        text = [*job.text]
        for hint in [*job.hints, None]:
            token = self.choice(self.probs(text), job.key, len(text))
            if token != hint:
                break
            text.append(token)
        return sqs.Verdict(len(text) - len(job.text), token)


def hints_of(edge, cloud, draft, target, liar):
    """Hint what two tokens will be by the numbers, or only what they won't."""
    key = shared_key(edge._seed, edge._epoch)
    tokens = []
    for _ in range(2):
        text = [*edge.text, *tokens]
        probs = target.probs(text) if liar else draft(text)
        tokens.append(target.choice(probs, key, len(text)))
    edge._known = max(edge._known, len(edge.text) + 2)  # as `guess` notes
    if liar:
        tokens = [(token + 1) % target.vocab_size for token in tokens]
    edge.hint(len(edge.text), [([], tokens, [1.0, 1.0])])
    for message in edge.data_to_send():  # all of these before the cloud begins
        cloud.receive(message)


def finish(edge, cloud, target):
    """Let the cloud decode what it was asked for, and the edge hear of it."""
    work(cloud, target)
    for message in cloud.data_to_send():
        edge.receive(message)


@pytest.mark.parametrize("liar", [False, True])
def test_an_edge_that_knows_all_random_numbers_keeps_the_distribution(
    ends_of_session, liar
):
    passes = 0

    def decode(prompt, draft, target, rng):
        nonlocal passes
        edge, cloud, target = ends_of_session(prompt, target, rng)
        edge.generate(3)
        hints_of(edge, cloud, draft, target, liar)
        finish(edge, cloud, target)
        passes += target.passes
        return edge.text[len(prompt) :]

    ways = assert_lossless(decode)
    assert (passes == 3 * ways) == liar


def test_selectively_lost_tokens_come_again(ends_of_session):
    """From another cloud, in other forward passes, with the same random numbers."""

    def decode(prompt, draft, target, rng):
        edge, cloud, target = ends_of_session(prompt, target, rng)
        edge.generate(3)
        hints_of(edge, cloud, draft, target, liar=False)
        work(cloud, target)
        if cloud._text[-1] == 2:
            cloud = make_cloud(vocab_size=target.vocab_size)
        edge.reconnect()
        exchange(edge, cloud, target)
        return edge.text[len(prompt) :]

    assert_lossless(decode)


@pytest.mark.parametrize("patient", [True, False])
def test_rounds_begin_at_unused_random_numbers(ends_of_session, patient):
    """Drafting where the random numbers are known would change the distribution."""

    def decode(prompt, draft, target, rng):
        edge, cloud, target = ends_of_session(prompt, target, rng)
        edge.generate(1)
        hints_of(edge, cloud, draft, target, liar=False)
        finish(edge, cloud, target)
        key = shared_key(edge._seed, edge._epoch)
        if target.choice(draft(edge.text), key, len(edge.text)) == 2:
            if patient:
                edge.generate(edge.rounds_from - len(edge.text))
                exchange(edge, cloud, target)
            edge._known = 0
            assert edge.push(draft.logits(edge.text)) is not None
            edge.flush()
        else:
            edge.generate(2)
        exchange(edge, cloud, target)
        return edge.text[len(prompt) :]

    if patient:
        assert_lossless(decode)
    else:
        with pytest.raises(LossyError):
            check_lossless(decode, exact=False, trials=2000)


def test_a_replaced_text_has_new_random_numbers():
    edge = make_edge()
    keys = {shared_key(edge._seed, edge._epoch)}
    for text in ([1, 2], [1, 2], [1, 2, 3]):
        edge.abort(text)
        keys.add(shared_key(edge._seed, edge._epoch))
    assert len(keys) == 4
    assert seed_of(7, [1, 2]) == seed_of(7, [1, 2])
    assert len({seed_of(n, text) for n in (7, 8) for text in ([1], [1, 2], [2])}) == 6


def test_consecutive_rounds_use_different_random_numbers():
    a, b = (draws(b"s", n, 5) for n in (1, 2))
    assert not {*a} & {*b}
    assert [*draws(b"s", 1, 3)] == [*a[:3]]
