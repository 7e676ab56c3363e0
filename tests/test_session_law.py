"""Text that goes through sessions has the target's law: all outcomes, as fractions.

The edge's generator and the numbers of the cloud are scripts. A number decides only by
the interval that it lies in, so one of each interval stands for all of them, and its
length is their probability.
"""

import itertools
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

import sqs_codec as sqs
from sqs_codec.session import Emitted, Limits, Setting, _cloud
from sqs_codec.session import _wire as wire
from tests.kit import Draws
from tests.session_kit import Target, exchange, make_cloud, make_edge, work

L = 4  # the resolution
DRAFTS = {
    (): [0.5, 0.25, 0.25],
    (0,): [0.0, 1.0, 0.0],
    (1,): [0.5, 0, 0.5],
    (2,): [0.25, 0.25, 0.5],
}
TARGETS = {  # sixteenths
    (): [4, 6, 6],
    (0,): [4, 8, 4],
    (1,): [6, 8, 2],
    (2,): [4, 0, 12],
    (0, 1): [4, 4, 8],
    (1, 0): [8, 0, 8],
    (1, 2): [4, 12, 0],
    (2, 0): [0, 8, 8],
    (2, 1): [16, 0, 0],
    (2, 2): [4, 4, 8],
}


def fractions(text):
    return [Fraction(n, 16) for n in TARGETS[text]]


def counts(text):
    q = sqs.Codec(3, L).quantize_probs(DRAFTS[text], sqs.TopK(3))
    return [round(L * q.prob(x)) for x in range(3)]


def ends(weights):
    """Return where the intervals of a draw by weights end."""
    total = sum(weights)
    return (
        {sum(weights[: i + 1]) / total for i in range(len(weights))} if total else set()
    )


def intervals(*breaks):
    """Return a number of each interval between breaks, and its length."""
    at = sorted({Fraction(0), Fraction(1), *itertools.chain(*breaks)})
    return [(float((a + b) / 2), b - a) for a, b in itertools.pairwise(at)]


def acceptance(text, token):
    return min(Fraction(1), fractions(text)[token] * L / counts(text)[token])


def residual(text):
    return [
        max(Fraction(0), p - Fraction(b, L))
        for p, b in zip(fractions(text), counts(text), strict=True)
    ]


def numbers(x, y):
    """Yield all that the numbers of a round of two can decide, and probabilities."""
    choices = (
        intervals({acceptance((), x)}),
        intervals({acceptance((x,), y)}, ends(residual(()))),
        intervals(ends(residual((x,))), ends(fractions((x, y)))),
    )
    for chosen in itertools.product(*choices):
        yield [u for u, _ in chosen], math.prod(weight for _, weight in chosen)


class Script:
    """Stands in for the numbers of one round, whichever clouds verify it."""

    numbers = ()
    number = None

    def __init__(self, seed, number):
        assert Script.number in (None, number), "the round is drawn by other numbers"
        Script.number = number

    def take(self, start, end):
        """Return numbers of the script."""
        taken = [*self.numbers[start:end]]
        return np.array(taken + [0.0] * (end - start - len(taken)))


@pytest.fixture
def ends_of_session(monkeypatch):
    monkeypatch.setattr(_cloud, "Draws", Script)
    target = Target(
        lambda text: np.array(TARGETS.get(tuple(text[1:]), [16, 0, 0])) / 16, 3
    )
    edge = make_edge([0], [Setting(sqs.Codec(3, L), sqs.TopK(3))], rng=Draws([]))
    cloud = make_cloud(vocab_size=3)
    exchange(edge, cloud, target)
    return [edge, cloud, target]


def draft(ends_of_session, drawn, us):
    """Draft two tokens, to be verified by these numbers, and send them."""
    edge = ends_of_session[0]
    edge.abort([0])
    edge._drafters[0].rng.numbers[:] = drawn
    Script.numbers, Script.number = us, None
    for _ in range(2):
        with np.errstate(divide="ignore"):
            assert edge.push(np.log(DRAFTS[edge.drafted])) is not None
    edge.flush()


def outcome(ends_of_session, events):
    """Return the tokens that came of a round."""
    edge, cloud, _ = ends_of_session
    (event,) = [event for event in events if isinstance(event, Emitted)]
    assert edge.text == cloud._text == [0, *event.tokens]
    return event.tokens


def drafts():
    """Yield what can be drafted, and what has to be drawn for it."""
    for x, y in itertools.product(range(3), repeat=2):
        weight = Fraction(counts(())[x] * counts((x,))[y], L * L)
        if weight:
            drawn = [sum(counts(())[:x]), sum(counts((x,))[:y])]
            yield x, y, drawn, weight


def assert_law(text):
    """Check that texts of one to three tokens have the target's law."""
    assert sum(text.values()) == 1
    for x, y in itertools.product(range(3), repeat=2):
        found = sum(w for out, w in text.items() if out[:2] == (x, y))
        # Texts that stopped after x have y still to come from the target.
        found += text.get((x,), 0) * fractions((x,))[y]
        assert found == fractions(())[x] * fractions((x,))[y]


def test_a_round_gives_the_targets_law(ends_of_session):
    text = {}
    for x, y, drawn, weight in drafts():
        for us, chance in numbers(x, y):
            draft(ends_of_session, drawn, us)
            out = outcome(ends_of_session, exchange(*ends_of_session))
            text[out] = text.get(out, 0) + weight * chance
    assert_law(text)


LIMITS = [Limits(max_text=n, max_message=m) for n, m in ((90, 9000), (99, 4096))]


def test_clouds_that_are_lost_because_of_what_they_found(ends_of_session):
    """The next comes to the same by the same numbers, so the law stays.

    Each cloud is lost with its answer if that rejects something or ends with an odd
    token, up to twice; and each takes something else, but no shorter texts. A draft
    that were given up, or numbers of their own, would give tokens a second chance.
    """
    text, lost = {}, 0
    for x, y, drawn, weight in drafts():
        for us, chance in numbers(x, y):
            edge, _, target = ends_of_session
            edge._welcome = replace(edge._welcome, limits=Limits(80))
            draft(ends_of_session, drawn, us)
            events = []
            for limits in [*LIMITS, None]:
                edge, cloud, _ = ends_of_session
                answers = answers_of(edge, cloud, target)
                found = wire.parse_down(answers[-1], 3)
                if limits is None or (found.accepted == 2 and found.token % 2 == 0):
                    events = [event for a in answers for event in edge.receive(a)]
                    break
                lost += 1
                ends_of_session[1] = make_cloud(vocab_size=3, limits=limits)
                edge.reconnect()
            out = outcome(ends_of_session, events)
            text[out] = text.get(out, 0) + weight * chance
    assert lost > 40
    assert_law(text)


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
    edge, cloud, target = ends_of_session
    texts = {}
    for u, first in intervals(ends(fractions(()))):
        rows = [fractions((x,)) for x in range(3)]
        for v, second in intervals(*map(ends, rows)):
            edge.abort([0])
            Script.numbers, Script.number = [u, v], None
            edge.generate(2)
            exchange(edge, cloud, target)
            out = tuple(edge.text[1:])
            texts[out] = texts.get(out, 0) + first * second
    assert_law(texts)


def test_a_round_and_the_next_use_different_numbers():
    a, b = (_cloud.Draws(b"s", n).take(0, 5) for n in (1, 2))
    assert not set(a) & set(b)
    draws = _cloud.Draws(b"s", 1)
    assert [*draws.take(0, 2), *draws.take(2, 5)] == [*a]
    assert [*draws.take(1, 3)] == [*a[1:3]]
