"""Text that goes through sessions has the target's law: all outcomes are summed."""

from dataclasses import replace

import numpy as np
import pytest

import sqs_codec as sqs
from sqs_codec.session import Emitted, Limits, Setting, _cloud
from sqs_codec.session import _wire as wire
from sqs_codec.testing import LossyError, check_lossless
from tests.session_kit import Target, exchange, make_cloud, make_edge, work

CODEC = sqs.Codec(4, resolution=4)
LIMITS = [Limits(max_text=n, max_message=m) for n, m in ((90, 9000), (99, 4096))]


@pytest.fixture
def ends_of_session(monkeypatch):
    """Return what opens a session whose numbers are those of a generator."""

    def opened(prompt, target, rng, key=lambda number: number):
        drawn = {}

        class Draws:
            def __init__(self, seed, number):
                self.number, self.drawn = number, drawn.setdefault(key(number), [])

            def take(self, start, end):
                self.drawn += [float(rng.random()) for _ in range(len(self.drawn), end)]
                return np.array(self.drawn[start:end])

        monkeypatch.setattr(_cloud, "Draws", Draws)
        ends = [
            make_edge(prompt, [Setting(CODEC, sqs.TopK(4))], rng=rng),
            make_cloud(vocab_size=4),
            Target(target, 4),
        ]
        exchange(*ends)
        return ends

    return opened


def draft_two(edge, draft):
    """Draft two tokens, and send them."""
    for _ in range(2):
        assert edge.push(draft.logits([*edge.text, *edge.drafted])) is not None
    edge.flush()


def outcome(edge, cloud, events):
    """Return the tokens that came of a round."""
    (event,) = [event for event in events if isinstance(event, Emitted)]
    assert edge.text == cloud._text == [0, *event.tokens]
    return event.tokens


def test_a_round_gives_the_targets_law(ends_of_session):
    def decode(prompt, draft, target, rng):
        edge, cloud, target = ends_of_session(prompt, target, rng)
        draft_two(edge, draft)
        return outcome(edge, cloud, exchange(edge, cloud, target))

    assert check_lossless(decode, exact=True).distance == 0


@pytest.mark.parametrize("same_numbers", [True, False])
def test_clouds_that_are_lost_because_of_what_they_found(ends_of_session, same_numbers):
    """The next comes to the same by the same numbers, so the law stays.

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
            found = wire.parse_down(answers[-1], 4)
            if limits is None or (found.accepted == 2 and found.token % 2 == 0):
                break
            lost += 1
            cloud = make_cloud(vocab_size=4, limits=limits)
            edge.reconnect()
        return outcome(edge, cloud, [e for a in answers for e in edge.receive(a)])

    if same_numbers:
        assert check_lossless(decode, exact=True).distance == 0
        assert lost > 8192
    else:
        with pytest.raises(LossyError):
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


def test_what_the_cloud_decodes_alone_has_the_targets_law(ends_of_session):
    def decode(prompt, draft, target, rng):
        edge, cloud, target = ends_of_session(prompt, target, rng)
        edge.generate(2)
        exchange(edge, cloud, target)
        return edge.text[1:]

    assert check_lossless(decode, exact=True).distance == 0


def test_a_round_and_the_next_use_different_numbers():
    a, b = (_cloud.Draws(b"s", n).take(0, 5) for n in (1, 2))
    assert not set(a) & set(b)
    draws = _cloud.Draws(b"s", 1)
    assert [*draws.take(0, 2), *draws.take(2, 5)] == [*a]
    assert [*draws.take(1, 3)] == [*a[1:3]]
