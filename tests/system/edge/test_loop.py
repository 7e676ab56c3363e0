"""The loop of an edge: whatever the plan is and the link does, the text is right."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

import sqs_codec as sqs
from sqs_codec import Verdict
from sqs_codec.system.edge import (
    DraftModel,
    FixedPlan,
    Hints,
    Observation,
    Plan,
    RefusalError,
    Step,
    generate,
)
from sqs_codec.system.edge._line import Timeout
from sqs_codec.system.session import (
    EdgeSession,
    Job,
    Limits,
    Link,
    LinkError,
    LocalLink,
    Sampling,
    Setting,
    verify_jobs,
)
from sqs_codec.system.session import _wire as wire

VOCAB_SIZE = 32
PROMPT = [3, 1, 4]
CODEC = sqs.Codec(VOCAB_SIZE, resolution=20)

PLANS = {
    "drafts": FixedPlan(4),
    "alone": FixedPlan(0),
    "hints": FixedPlan(0, hints=Hints()),
}


class Toy(DraftModel):
    """A model whose logits depend on the last two tokens."""

    def __init__(self, noise: float) -> None:
        shape = (VOCAB_SIZE, VOCAB_SIZE, VOCAB_SIZE)
        own = np.random.default_rng(1).normal(0, noise, shape)
        self._table = np.random.default_rng(0).normal(0, 3, shape) + own
        self.calls = 0

    def logits(self, tokens: Sequence[int], last: int = 1) -> NDArray[np.float64]:
        """The rows after the last tokens."""
        self.calls += 1
        before = [PROMPT[0], *tokens]
        return np.array(
            [self._table[before[i], before[i + 1]] for i in range(len(tokens))][-last:]
        )


TARGET = Toy(0.0)


class Cloud:
    """A verifier by a toy."""

    vocab_size = VOCAB_SIZE
    max_text = 4096

    def verify(self, jobs: Sequence[Job]) -> list[Verdict | None]:
        """The verdict on each job."""
        return [self._verify(job) for job in jobs]

    def _verify(self, job: Job) -> Verdict | None:
        rows = TARGET.logits([*job.text, *job.drafted], len(job.drafted) + 1)
        return verify_jobs([job], rows[: job.wanted])[0]

    def forget(self, session: bytes) -> None:
        """There is nothing to forget."""


def greedy(n: int) -> list[int]:
    text = list(PROMPT)
    for _ in range(n):
        text.append(int(TARGET.logits(text)[0].argmax()))
    return text[len(PROMPT) :]


def edge(
    *, temperature: float = 0.0, stop: Sequence[int] = (), tokenizer: bytes = b""
) -> EdgeSession:
    return EdgeSession(
        [Setting(CODEC, sqs.TopK(8))],
        PROMPT,
        rng=np.random.default_rng(5),
        sampling=Sampling(temperature),
        tokenizer=tokenizer,
        stop=stop,
        session_id=bytes(16),
        seed=bytes(16),
        max_message=1200,
    )


def local() -> Link:
    return LocalLink(Cloud())


class Clock:
    """Time that passes when someone waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class Thin:
    """A link with a delay, which may lose, repeat, reorder and break."""

    overhead = 57

    def __init__(
        self,
        clock: Clock,
        inner: Link,
        *,
        delay: float = 0.05,
        loss: float = 0.0,
        breaks: float = 0.0,
        rng: np.random.Generator | None = None,
    ) -> None:
        self._clock = clock
        self._inner = inner
        self._delay, self._loss, self._breaks = delay, loss, breaks
        self._rng = np.random.default_rng(0) if rng is None else rng
        self._queue: list[tuple[float, int, bytes | None]] = []  # None: one goes up
        self._order = itertools.count()
        self._up: dict[int, bytes] = {}
        self.sent = self.received = 0
        self.reliable = loss == 0
        self.max_message = 1200
        self.closed = False

    def send(self, message: bytes) -> None:
        """Let a message go up."""
        assert len(message) <= self.max_message
        self._may_break()
        self.sent += len(message)
        for due in self._arrivals():
            number = next(self._order)
            self._up[number] = message
            heapq.heappush(self._queue, (due, number, None))

    def receive(self, timeout: float | None) -> bytes | None:
        """What comes down first; time passes meanwhile."""
        assert timeout is not None
        self._may_break()
        until = self._clock.now + timeout
        while self._queue and self._queue[0][0] <= until:
            due, number, message = heapq.heappop(self._queue)
            self._clock.now = max(self._clock.now, due)
            if message is not None:
                self.received += len(message)
                return message
            self._inner.send(self._up.pop(number))
            while (answer := self._inner.receive(0)) is not None:
                for due in self._arrivals():
                    heapq.heappush(self._queue, (due, next(self._order), answer))
        self._clock.now = until
        return None

    def close(self) -> None:
        """Close both ends."""
        self.closed = True
        self._inner.close()

    def _arrivals(self) -> list[float]:
        """When each copy of a message arrives, if any does."""
        copies = [self._clock.now + self._delay]
        if self._loss:
            jitter = self._rng.uniform(0, 3 * self._delay, 2)
            copies = [copies[0] + late for late in jitter[: self._rng.integers(1, 3)]]
            copies = [due for due in copies if self._rng.random() >= self._loss]
        return copies

    def _may_break(self) -> None:
        if self.closed or self._rng.random() < self._breaks:
            self.closed = True
            raise LinkError("the link broke")


def tokens(steps: Iterator[Step]) -> list[int]:
    return [token for step in steps for token in step.tokens]


@pytest.mark.parametrize("name", PLANS)
def test_text_is_the_targets_own_and_as_long_as_asked(name: str) -> None:
    for length in (1, 2, 7, 60):
        session, links = edge(), []

        def connect(links: list[Link] = links) -> Link:
            links.append(local())
            return links[0]

        steps = list(
            generate(session, Toy(0.6), connect, PLANS[name], max_tokens=length)
        )
        text = [token for step in steps for token in step.tokens]
        assert text == greedy(length)
        assert session.text == [*PROMPT, *text]
        assert len(links) == 1
        if name != "alone" and length == 60:
            assert 0 < sum(step.accepted for step in steps) < length
        assert all(step.tokens and step.reason for step in steps)


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("seed", range(3))
def test_text_survives_loss_repetition_and_breaks(name: str, seed: int) -> None:
    clock, rng = Clock(), np.random.default_rng(seed)
    links: list[Thin] = []

    def connect() -> Link:
        # Each time the cloud is another one, which knows nothing.
        inner = LocalLink(Cloud())
        links.append(Thin(clock, inner, loss=0.2, breaks=0.01, rng=rng))
        return links[-1]

    session = edge(temperature=0)
    steps = generate(
        session,
        Toy(0.6),
        connect,
        PLANS[name],
        max_tokens=60,
        clock=clock,
        sleep=clock.sleep,
    )
    assert tokens(steps) == greedy(60)
    assert all(link.closed for link in links)


@pytest.mark.parametrize("seed", range(3))
def test_hints_change_no_token(seed: int) -> None:
    """Of a drawn text, on a link that loses and breaks, with clouds in turn."""
    texts = []
    for name, loss in (("alone", 0.0), ("hints", 0.0), ("hints", 0.2)):
        clock, rng, session = Clock(), np.random.default_rng(seed), edge(temperature=1)

        def connect(clock=clock, rng=rng, loss=loss) -> Link:  # type: ignore[no-untyped-def]
            inner = LocalLink(Cloud())
            return Thin(clock, inner, loss=loss, breaks=loss / 10, rng=rng)

        steps = generate(
            session,
            Toy(0.6),
            connect,
            PLANS[name],
            max_tokens=60,
            clock=clock,
            sleep=clock.sleep,
        )
        texts.append(tokens(steps))
    assert texts[0] == texts[1] == texts[2]


def test_a_slow_link_is_given_time() -> None:
    def sent(delay: float, *, reliable: bool) -> int:
        clock = Clock()
        link = Thin(clock, local(), delay=delay)
        link.reliable = reliable
        steps = generate(
            edge(),
            Toy(0.6),
            lambda: link,
            FixedPlan(4),
            max_tokens=60,
            clock=clock,
            sleep=clock.sleep,
        )
        assert tokens(steps) == greedy(60)
        return link.sent

    once = sent(0.001, reliable=True)
    assert sent(0.45, reliable=False) == once
    # Slower than the first guess: that costs a few repetitions, then it is known.
    assert once < sent(1.5, reliable=False) < 2 * once


class Script:
    """A planner that says one thing after the other, and listens."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self._plans = itertools.cycle([Plan(n, 0, f"draft {n}") for n in lengths])
        self.heard: list[Observation] = []

    def plan(self) -> Plan:
        """The next one."""
        return next(self._plans)

    def observe(self, observation: Observation) -> None:
        """Remember."""
        self.heard.append(observation)


def test_planner_may_switch_and_hears_of_every_token() -> None:
    planner = Script([3, 0, 0, 5])
    steps = list(generate(edge(), Toy(0.6), local, planner, max_tokens=200))
    assert [token for step in steps for token in step.tokens] == greedy(200)
    alone = [o.accepted for o in planner.heard if o.drafted == 0]
    rounds = [o.accepted + 1 for o in planner.heard if o.drafted]
    assert sum(alone) + sum(rounds) == 200
    assert sum(alone) > 20
    assert sum(rounds) > 20
    assert {step.reason for step in steps} == {"draft 3", "draft 0", "draft 5"}
    assert all(o.bytes_up > 0 for o in planner.heard if o.drafted)


@pytest.mark.parametrize("name", PLANS)
def test_a_stop_token_ends_the_text(name: str) -> None:
    text = greedy(40)
    stop = text[25]
    expected = text[: text.index(stop) + 1]
    session = edge(stop=[stop])
    found = tokens(generate(session, Toy(0.3), local, PLANS[name], max_tokens=40))
    assert found == expected
    assert session.finished


def test_closing_the_text_ends_the_session_and_the_link() -> None:
    clock = Clock()
    link = Thin(clock, local())
    steps = generate(edge(), Toy(0.6), lambda: link, FixedPlan(4), max_tokens=40)
    next(steps)
    assert not link.closed
    before = link.sent
    steps.close()
    assert link.closed
    assert link.sent == before + 1  # END


@pytest.mark.parametrize("name", PLANS)
def test_text_fills_what_the_cloud_reads(name: str) -> None:
    for max_text in range(len(PROMPT) + 1, len(PROMPT) + 9):
        session = edge()
        link = LocalLink(Cloud(), limits=Limits(max_text=max_text))
        found = tokens(generate(session, Toy(0.6), link, PLANS[name], max_tokens=60))
        assert found == greedy(max_text - len(PROMPT))
        assert session.finished


@pytest.mark.parametrize("name", PLANS)
def test_a_cloud_that_takes_shorter_texts_ends_it_with_that_reason(name: str) -> None:
    clock = Clock()
    links: list[Thin] = []

    def connect() -> Link:
        limits = Limits(max_text=4000 if links else 4096)
        links.append(Thin(clock, LocalLink(Cloud(), limits=limits), delay=0.01))
        return links[-1]

    session = edge()
    steps = generate(
        session,
        Toy(0.6),
        connect,
        PLANS[name],
        max_tokens=200,
        clock=clock,
        sleep=clock.sleep,
    )
    found = [*next(steps).tokens]
    links[0]._breaks = 1.0
    with pytest.raises(RefusalError, match=r"took texts of 4096 tokens, .* takes 4000"):
        list(steps)
    assert session.text == [*PROMPT, *found]


@pytest.mark.parametrize("reliable", [True, False])
def test_a_reader_may_take_longer_than_patience_lasts(*, reliable: bool) -> None:
    """What the cloud has sent meanwhile is there; it isn't silent."""

    class OneByOne(LocalLink):
        def receive(self, timeout: float | None) -> bytes | None:
            message = super().receive(timeout)
            if message is not None and message[0] == 3:
                tokens = wire.parse_down(message, VOCAB_SIZE)
                assert isinstance(tokens, wire.Tokens)
                message, *others = (
                    wire.Tokens(tokens.number, 0, tokens.offset + i, [token]).to_bytes(
                        VOCAB_SIZE
                    )
                    for i, token in enumerate(tokens.tokens)
                )
                self._inbox.extendleft(others[::-1])
            return message

    class Spaced(Thin):
        late = 0.0

        def _arrivals(self) -> list[float]:
            self.late = max(self.late, self._clock.now + self._delay) + 0.01
            return [self.late]

    def sent(pause: float) -> int:
        clock = Clock()
        link = Spaced(clock, OneByOne(Cloud()))
        link.reliable = reliable
        found: list[int] = []
        for step in generate(
            edge(),
            Toy(0.6),
            link,
            FixedPlan(0),
            max_tokens=40,
            patience=60,
            clock=clock,
            sleep=clock.sleep,
        ):
            found += step.tokens
            clock.now += pause
        assert found == greedy(40)
        return link.sent

    assert sent(70) <= sent(0)


@pytest.mark.parametrize("breaks", [8, 1000])
def test_a_cloud_that_breaks_on_every_round_is_given_up(
    breaks: int, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried less and less often, and welcomes alone aren't a text.

    The log says that it is gone, and that it is back, each once.
    """
    clock = Clock()
    pauses: list[float] = []

    class Breaking(Thin):
        def send(self, message: bytes) -> None:
            if message[0] >= 0x80 and len(pauses) < breaks:
                raise LinkError("the link broke")
            super().send(message)

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        clock.sleep(seconds)

    steps = generate(
        edge(),
        Toy(0.6),
        lambda: Breaking(clock, local()),
        FixedPlan(4),
        max_tokens=8,
        patience=30,
        clock=clock,
        sleep=sleep,
    )
    if breaks == 8:
        assert tokens(steps) == greedy(8)
        assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
        assert caplog.messages == [
            "the link broke; trying again for 30 s",
            "the cloud is there again; the text goes on",
        ]
        return
    with pytest.raises(LinkError, match=r"no word from the cloud for 3. s: the link"):
        list(steps)
    assert 30 <= clock.now < 40


def test_the_longer_waits_have_an_end() -> None:
    timeout = Timeout()
    for _ in range(2000):
        timeout.double()
    assert timeout.seconds(100) == timeout.MOST


@pytest.mark.parametrize("where", ["plan", "observe", "logits", "end"])
def test_whatever_raises_the_link_is_closed(where: str) -> None:
    link, planner, draft = Thin(Clock(), local()), Script([4]), Toy(0.6)

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    inner = link.send

    def send(message: bytes) -> None:
        if where == "end" and message == b"\x04":
            fail()
        inner(message)

    link.send = send  # type: ignore[method-assign]
    if where != "end":
        setattr(draft if where == "logits" else planner, where, fail)
    with pytest.raises(ZeroDivisionError):
        list(generate(edge(), draft, link, planner, max_tokens=9))
    assert link.closed


def test_a_refusal_says_why() -> None:
    steps = generate(
        edge(tokenizer=bytes(8)),
        Toy(0.0),
        lambda: LocalLink(Cloud(), tokenizer=bytes([7] * 8)),
        FixedPlan(4),
        max_tokens=4,
    )
    with pytest.raises(RefusalError, match="tokenizer") as error:
        next(steps)
    assert error.value.reason in str(error.value)


def failing(reason: str) -> Callable[[], Link]:
    def connect() -> Link:
        raise LinkError(reason)

    return connect


def test_no_first_link_is_told_at_once() -> None:
    clock = Clock()
    steps = generate(
        edge(),
        Toy(0.0),
        failing("connection refused"),
        FixedPlan(4),
        max_tokens=4,
        clock=clock,
        sleep=clock.sleep,
    )
    with pytest.raises(LinkError, match=r"^connection refused$"):
        next(steps)
    assert clock.now == 0


@pytest.mark.parametrize("loss", [0.0, 0.3])
def test_a_cloud_that_stays_away_is_given_up(loss: float) -> None:
    clock = Clock()
    links: list[Thin] = []

    def connect() -> Link:
        if links:
            raise LinkError("connection refused")
        links.append(Thin(clock, local(), loss=loss))
        return links[0]

    steps = generate(
        edge(),
        Toy(0.6),
        connect,
        FixedPlan(4),
        max_tokens=400,
        patience=20,
        clock=clock,
        sleep=clock.sleep,
    )
    next(steps)
    links[0]._breaks = 1.0
    began = clock.now
    with pytest.raises(LinkError, match=r"no word from the cloud .* refused"):
        list(steps)
    assert 20 <= clock.now - began < 40


@pytest.mark.parametrize("reliable", [True, False])
def test_silence_is_not_waited_for_without_end(reliable: bool) -> None:
    clock = Clock()
    made: list[Thin] = []

    def connect() -> Link:
        made.append(Thin(clock, local(), loss=1.0))
        made[-1].reliable = reliable
        return made[-1]

    steps = generate(
        edge(),
        Toy(0.6),
        connect,
        FixedPlan(4),
        max_tokens=4,
        patience=120,
        clock=clock,
        sleep=clock.sleep,
    )
    with pytest.raises(LinkError, match="answer"):
        next(steps)
    assert 120 <= clock.now < 300
    # Where messages may be lost, another connection is worth a try.
    assert (len(made) > 1) == (not reliable)


def test_max_tokens_is_checked() -> None:
    with pytest.raises(ValueError, match="max_tokens"):
        next(generate(edge(), Toy(0), local, FixedPlan(4), max_tokens=0))


def heard(plan: Plan, delay: float) -> list[Observation]:
    """What a planner hears of the handshake and of the first answer."""
    clock = Clock()
    planner = Script([0])
    planner.plan = lambda: plan  # type: ignore[method-assign]
    session = edge()
    link = Thin(clock, local(), delay=delay)
    link.reliable = False
    inner = session.receive

    def receive(message: bytes) -> object:
        events = inner(message)
        if (welcome := session._welcome) is not None:
            # As a cloud says that knows them.
            session._welcome = replace(welcome, steps={1: 50.0})
        return events

    session.receive = receive  # type: ignore[method-assign, assignment]
    steps = generate(
        session,
        Toy(0.6),
        lambda: link,
        planner,
        max_tokens=4,
        clock=clock,
        sleep=clock.sleep,
    )
    next(steps)
    steps.close()
    return planner.heard[:2]


def test_planner_hears_what_the_handshake_shows() -> None:
    first, _ = heard(Plan(3, 0, ""), 0.2)
    assert first.drafted == first.accepted == 0
    assert first.wait_seconds == pytest.approx(0.4 + 0.05)
    assert first.target_steps == {1: 0.05}
    assert first.bytes_up > 100


def test_planner_hears_of_the_bytes_that_an_answer_waited_for() -> None:
    """What is sent again, and hints that are sent meanwhile, come after them."""
    alone, hints = Plan(0, 0, ""), Plan(0, 0, "", Hints())
    once, *others = (
        [observation.bytes_up for observation in heard(plan, delay)]
        for plan, delay in ((alone, 0.2), (hints, 0.2), (hints, 1.5))
    )
    assert once[1] > len(PROMPT)
    assert others == [once, once]


def test_a_link_that_takes_less_is_refused_whatever_was_drafted() -> None:
    clock = Clock()
    links = [Thin(clock, local()) for _ in range(3)]
    links[1].max_message = 1199
    made = iter(links)
    steps = generate(
        edge(),
        Toy(0.6),
        lambda: next(made),
        FixedPlan(2),
        max_tokens=40,
        clock=clock,
        sleep=clock.sleep,
    )
    text = tokens(itertools.islice(steps, 3))
    links[0].closed = True
    text += tokens(steps)
    assert text == greedy(40)
    assert links[1].closed
    assert links[1].sent == 0
    few = Thin(clock, local())
    few.max_message = 600
    with pytest.raises(LinkError, match="takes messages of 600 bytes"):
        next(generate(edge(), Toy(0.6), few, FixedPlan(2), max_tokens=4))
