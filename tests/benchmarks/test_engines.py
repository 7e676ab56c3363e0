"""What ``python -m benchmarks.engines`` and its kin measure, quickly: that they run."""

import asyncio

import numpy as np
import pytest

import sqs_codec as sqs
from sqs_codec import Round, SparseDistribution, Verdict
from sqs_codec.system.session import Job, Sampling

pytest.importorskip("torch")
pytest.importorskip("rich")
pytest.importorskip("transformers")
pytest.importorskip("grpc")
pytest.importorskip("OpenSSL")


from benchmarks.engines import overhead
from benchmarks.engines.equal import do, modes
from benchmarks.engines.margin import margin
from benchmarks.harness.sessions import Played, Session

P = np.array([0.5, 0.25, 0.25])
Q = SparseDistribution([0, 2], [3, 1], vocab_size=3)
"""With a draft of it, token 0 is accepted with probability 2/3, and the residual has
only token 1, as 2 is as probable in both."""


class Fixed:
    """A model of `P`, whatever it reads."""

    def logits(self, tokens, last=1):
        """Give a row of it for each token."""
        return np.float32(np.tile(np.log(P), (last, 1)))


def job_of(draws, temperature=1.0, drafted=0):
    round_ = Round([Q], [drafted])
    return Job(b"session", [1], round_, np.array(draws), Sampling(temperature))


@pytest.mark.parametrize(
    ("job", "one", "other", "expected"),
    [
        (job_of([0.66, 0.1]), Verdict(1, 0), Verdict(0, 1), 2 / 3 - 0.66),
        (job_of([0.1, 0.51]), Verdict(1, 0), Verdict(1, 1), 0.01),
        (job_of([0.1, 0.49]), Verdict(1, 0), Verdict(1, 1), 0.01),
        (job_of([0.1, 0.1], temperature=0), Verdict(1, 0), Verdict(1, 1), 0.25),
        (job_of([0.9, 0.9]), Verdict(0, 1), Verdict(0, 2), 0.1),
    ],
)
def test_margin_is_the_distance_to_the_other_verdict(job, one, other, expected):
    model = Fixed()
    assert margin(model, job, one, other) == pytest.approx(expected, abs=1e-6)
    assert margin(model, job, other, one) == pytest.approx(expected, abs=1e-6)


def test_margin_of_a_race_is_what_the_winner_could_lose():
    model = Fixed()
    key, text = bytes(range(16)), [1, 2]
    first, second = sqs.gumbel_guess(np.log(P), key, 3, 2).tokens
    job = Job(b"session", text, None, np.empty(0), Sampling(), [1], key)
    one, other = Verdict(1, first), Verdict(1, second)
    found = margin(model, job, one, other)
    assert found == margin(model, job, other, one) > 0
    for loss, token in (0.999 * found, first), (1.001 * found, second):
        probs = P.copy()
        probs[first] -= loss
        assert sqs.gumbel_draw(np.log(probs), key, 3) == token


class Watched(overhead.Toy):
    """A toy that counts, and answers the last round of a session wrongly, if asked."""

    def __init__(self, wrong):
        self.wrong = wrong
        self.running = self.most = 0
        self.done = []
        self.dropped = []

    async def verify(self, job):
        """Accept everything, or not."""
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        self.done.append(job)
        if self.wrong and len(job.text) == 4:
            return Verdict(0, 1)
        return await super().verify(job)

    def drop(self, session):
        """Note it."""
        self.dropped.append(session)


def sessions_of(n):
    made = []
    for i in range(n):
        session = Session()
        for length in range(5):
            draws = np.array([0.5, 0.5]) if length else np.empty(0)
            round_ = Round([Q], [0]) if length else None
            job = Job(bytes([i]), [0] * max(length, 1), round_, draws, Sampling())
            session.played.append(Played(job, overhead.accept(job)))
        made.append(session)
    return made


def test_other_verdicts_are_found():
    found = asyncio.run(do(Watched(wrong=True), sessions_of(20), modes(2)[0]))
    assert found.share == 0.75
    assert {other.got for other in found.others} == {Verdict(0, 1)}
    assert {len(other.turn.job.text) for other in found.others} == {4}
