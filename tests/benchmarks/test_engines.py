"""What ``python -m benchmarks.engines`` and its kin measure, quickly: that they run."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

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


from benchmarks import rounding
from benchmarks.engines import equal, overhead, speed
from benchmarks.engines.__main__ import main
from benchmarks.engines.equal import MODES, do, half_of
from benchmarks.engines.margin import margin
from benchmarks.harness import make
from benchmarks.harness.make import maker
from benchmarks.harness.sessions import Played, Session
from sqs_codec.cli.demo.pair import Pair
from sqs_codec.system.hf._models import without_layers

P = np.array([0.5, 0.25, 0.25])
Q = SparseDistribution([0, 2], [3, 1], vocab_size=3)
"""With a draft of it, token 0 is accepted with probability 2/3, and the residual has
only token 1, as 2 is as probable in both."""


class Fixed:
    """A model of `P`, whatever it reads."""

    def logits(self, tokens: Sequence[int], last: int = 1) -> Any:
        """Give a row of it for each token."""
        return np.float32(np.tile(np.log(P), (last, 1)))


def job_of(draws: Sequence[float], temperature: float = 1.0, drafted: int = 0) -> Job:
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
def test_margin_is_the_distance_to_the_other_verdict(
    job: Job, one: Verdict, other: Verdict, expected: float
) -> None:
    model: Any = Fixed()
    assert margin(model, job, one, other) == pytest.approx(expected, abs=1e-6)
    assert margin(model, job, other, one) == pytest.approx(expected, abs=1e-6)


def test_margin_of_a_race_is_what_the_winner_could_lose() -> None:
    model: Any = Fixed()
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

    def __init__(self, wrong: bool) -> None:
        self.wrong = wrong
        self.running = self.most = 0
        self.done: list[Job] = []
        self.dropped: list[bytes] = []

    async def verify(self, job: Job) -> Verdict | None:
        """Accept everything, or not."""
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        self.done.append(job)
        if self.wrong and len(job.text) == 4:
            return Verdict(0, 1)
        return await super().verify(job)

    def drop(self, session: bytes) -> None:
        """Note it."""
        self.dropped.append(session)


def sessions_of(n: int) -> list[Session]:
    """Give sessions of a text to read and four rounds."""
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


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_every_mode_does_all_jobs(mode: equal.Mode) -> None:
    engine, sessions = Watched(wrong=False), sessions_of(20)
    found = asyncio.run(do(engine, sessions, mode))
    assert found.rounds == 80
    assert not found.others
    assert found.share == 1
    jobs = [turn.job for session in sessions for turn in session.played]
    assert len(engine.done) == mode.times * len(jobs)
    assert {*map(id, engine.done)} == {*map(id, jobs)}
    assert sorted(engine.dropped) == [bytes([i]) for i in range(20)]
    assert engine.most == mode.at_once


def test_other_verdicts_are_found() -> None:
    found = asyncio.run(do(Watched(wrong=True), sessions_of(20), MODES[0]))
    assert found.share == 0.75
    assert {other.got for other in found.others} == {Verdict(0, 1)}
    assert {len(other.turn.job.text) for other in found.others} == {4}


def test_half_the_memory_holds_the_longest_text() -> None:
    sessions = sessions_of(20)
    assert half_of(sessions, 1 << 20) == 5 + equal.MARGIN
    assert half_of(sessions * 2, 1 << 10) == 1


def test_an_engine_of_ones_own_is_found_by_name() -> None:
    assert maker("benchmarks.engines.overhead:make_toy") is overhead.make_toy
    for wrong in ("benchmarks.engines.overhead:none", "no_such_module:f", "vlm"):
        with pytest.raises(ValueError, match=f"'{wrong}' is no engine"):
            maker(wrong)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, smollm2: Pair) -> None:
    """Play few sessions, short ones, with what a tenth of SmolLM2's layers say."""
    thin = without_layers(smollm2.target, range(3, 30))
    pair = replace(smollm2, model=thin, draft=without_layers(thin, (1,)))
    for module in equal, speed, rounding:
        monkeypatch.setattr(module, "smollm2_pair", lambda drop_layers: pair)
    monkeypatch.setattr(make, "_load", lambda *_: pair)
    monkeypatch.setattr(equal, "AT_ONCE", 2)
    monkeypatch.setattr(equal, "LONG", (40,))
    monkeypatch.setattr(rounding, "LENGTHS", (3, 20))


@pytest.mark.usefixtures("small")
def test_engine_equals_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["equal", "--engine", "transformers", "--rounds", "5"]) == 0
    printed = capsys.readouterr().out
    assert "at least 99.9 % in every mode: passes" in printed
    assert printed.count("100.00 %") == len(MODES)


@pytest.mark.usefixtures("small")
def test_speed_runs(capsys: pytest.CaptureFixture[str]) -> None:
    command = "speed --engines transformers --sessions 1 3 --seconds 0 --turns 2"
    assert main([*command.split(), "--rounds", "1", "--half"]) == 0
    printed = capsys.readouterr().out
    assert len(re.findall(r"^ ragged batch", printed, re.M)) == 3
    assert len(re.findall(r"^ ragged batch, half", printed, re.M)) == 1


def test_overhead_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["overhead", "--rounds", "50", "--replicas", "0"]) == 0
    printed = capsys.readouterr().out
    assert "50 rounds of each" in printed
    assert "gateway, DTLS" in printed
    assert "Ray" not in printed.replace("Ray isn't installed", "")


def test_overhead_counts_rounds_that_are_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lengths = []

    def noted(job: Job) -> Verdict | None:
        if len(job.draws):
            lengths.append(len(job.draws) - 1)
        return accept(job)

    accept = overhead.accept
    monkeypatch.setattr(overhead, "accept", noted)
    times = overhead.write(overhead.LocalLink(overhead.ToyVerifier()), 1)
    assert len(times) == overhead.TURN
    assert lengths == [5] * (overhead.TURN + 1)


@pytest.mark.usefixtures("small")
def test_rounding_of_float32_is_small(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert rounding.main(["--dtype", "float32"]) == 0
    printed = capsys.readouterr().out
    errors = re.findall(r"float32, \d+ +(\S+) +(\S+) +(\S+)", printed)
    assert len(errors) == 2
    assert all(float(error) < 1e-4 for row in errors for error in row)
