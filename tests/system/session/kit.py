"""A toy target and a lossy channel, for the tests of sessions."""

import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

import sqs_codec as sqs
from sqs_codec import Sampling
from sqs_codec.system.session import (
    CloudSession,
    EdgeSession,
    Emitted,
    Job,
    Limits,
    Setting,
    VerifyHints,
    VerifyRound,
    verify_jobs,
)
from sqs_codec.system.session._edge_rounds import EdgeRound
from sqs_codec.system.session.transport import session_of, unknown_session

V = 8
SESSION = bytes(range(16))
SEED = bytes(range(0xE0, 0xF0))


def weights(text: Sequence[int], salt: int, vocab_size: int = V) -> np.ndarray:
    """Return a toy model's logits after a text, a function of its last two tokens."""
    seed = zlib.crc32(bytes([salt, *(x % 251 for x in text[-2:])]))
    return np.random.default_rng(seed).dirichlet(np.full(vocab_size, 0.5))


class Target:
    """A verifier by a function from texts to probabilities."""

    max_text = 10_000

    def __init__(
        self,
        probs: Callable[[Sequence[int]], np.ndarray] | None = None,
        vocab_size: int = V,
    ) -> None:
        self.vocab_size = vocab_size
        self.probs = probs or (lambda text: weights(text, 0, vocab_size))
        self.jobs = 0

    def verify(self, jobs: Sequence[Job]) -> list[Any]:
        return [self.decide(job) for job in jobs]

    def decide(self, job: Job) -> sqs.Verdict | None:
        self.jobs += 1
        assert job.text
        text = [*job.text, *job.drafted]
        ends = range(len(job.text), len(job.text) + job.wanted)
        with np.errstate(divide="ignore"):
            rows = np.log([self.probs(text[:end]) for end in ends])
        return verify_jobs([job], rows)[0]

    def forget(self, session: bytes) -> None: ...


def greedy(text: Sequence[int], n: int) -> list[int]:
    """Return a text and n tokens more, each the toy target's most probable one."""
    text = [*text]
    for _ in range(n):
        text.append(int(weights(text, 0).argmax()))
    return text


def make_edge(
    text: Sequence[int] = (1, 2),
    settings: Sequence[Setting] | None = None,
    **options: Any,
) -> EdgeSession:
    settings = settings or [Setting(sqs.Codec(V, 16), sqs.TopK(4))]
    given = {"rng": np.random.default_rng(0), "session_id": SESSION, "seed": SEED}
    options = given | options
    return EdgeSession(settings, text, **options)


def make_cloud(**options: Any) -> CloudSession:
    given = {"limits": Limits(), "tokenizer": b"", "vocab_size": V, **options}
    given.setdefault("max_text", 10_000)
    return CloudSession(SESSION, **given)


def work(cloud: CloudSession, target: Target) -> None:
    while (job := cloud.next_job()) is not None:
        cloud.complete(job, target.decide(job))


def take(edge: EdgeSession, messages: Iterable[bytes]) -> list[Emitted]:
    """Hand messages to the edge; return what they add to the text."""
    return [found for m in messages if (found := edge.receive(m)) is not None]


def exchange(edge: EdgeSession, cloud: CloudSession, target: Target) -> list[Emitted]:
    """Carry messages to and fro until there are none; return what they add."""
    emitted: list[Emitted] = []
    while messages := edge.data_to_send():
        for message in messages:
            cloud.receive(message)
            work(cloud, target)
            emitted += take(edge, cloud.data_to_send())
    return emitted


def draft_logits(edge: EdgeSession, salt: int = 1) -> np.ndarray:
    """Return a toy draft model's logits after all that is drafted."""
    probs = weights([*edge.text, *edge.drafted], salt)
    probs = 0.5 * probs + 0.5 * weights([*edge.text, *edge.drafted], 0)
    return np.log(probs)


class World:
    """An edge, a cloud, and messages between them that get lost, doubled and late.

    `check` holds after any events in any order. Messages are as old as the
    protocol allows at most: 63 numbers of rounds.
    """

    def __init__(self, temperature: float = 0.0, **options: Any) -> None:
        self.target = Target()
        self.sampling = Sampling(temperature)
        codecs = sqs.Codec(V, 16), sqs.Codec(V, 5, "bitpack")
        keeps = sqs.Conformal(alpha=0.05, eta=0.1), sqs.TopK(2)
        settings = [*map(Setting, codecs, keeps)]
        self.edge = make_edge(settings=settings, sampling=self.sampling, **options)
        self.up: list[tuple[int, bytes]] = []
        self.down: list[tuple[int, bytes]] = []
        self.cloud: CloudSession | None = None
        self.job: Job | None = None
        self.before: dict[float, list[int]] = {}
        self.decoded: dict[tuple[bytes, int], list[int]] = {}
        self.verified: dict[float, int] = {}
        self.outcomes: set[tuple[int, ...]] = set()
        self.prompts = [tuple(self.edge.text)]

    # What the edge does

    def push(self, n: int, setting: int) -> None:
        if not self.can_draft():
            return
        for _ in range(n):
            if isinstance(self.edge._round, EdgeRound):
                setting = self.edge._round.setting
            if self.edge.push(draft_logits(self.edge), setting=setting) is None:
                break

    def can_draft(self) -> bool:
        edge = self.edge
        busy = edge._round is not None and edge._round.state != "drafting"
        known = edge._round is None and len(edge.text) < edge.rounds_from
        return not (edge.limits is None or edge.finished or busy or known)

    def flush(self) -> None:
        if self.can_draft() and self.edge.drafted:
            self.edge.flush()

    def generate(self, n: int, together: int = 1) -> None:
        """Have the cloud decode, or raise how many tokens it is to decode."""
        edge, generation = self.edge, self.edge._round
        if edge.limits is None or edge.finished or isinstance(generation, EdgeRound):
            return
        room = edge.limits.max_text - len(edge.text)
        if generation is not None:
            room -= generation.n - generation.have
            n += generation.n + generation.earlier
        if 0 < n <= room:
            edge.generate(n, together=together)

    def hint(self, ahead: int, right: bool, length: int, branches: int) -> None:
        """Guess a position, and hint tokens that are right, as a rule, or random."""
        edge = self.edge
        if edge.limits is None or edge.finished or isinstance(edge._round, EdgeRound):
            return
        found: list[Any] = []
        for i in range(branches):
            path = [*edge.text, *[i] * ahead]
            tokens: list[int] = []
            for _ in range(length):
                probs = weights([*path, *tokens], 0 if right else 2)
                position = len(path) + len(tokens)
                tokens += edge.guess(np.log(probs), position).tokens
            found.append((path[len(edge.text) :], tokens, [0.9] * length))
        edge.hint(len(edge.text) + ahead, found)

    def abort(self, text: Sequence[int] | None) -> None:
        """Give up; a text goes on from the present one's beginning."""
        self.edge.abort(text)
        if text is not None:
            self.prompts = [tuple(text)]

    # What the link does

    def send(self) -> None:
        self.up += [(self.edge._sync.number, m) for m in self.edge.data_to_send()]

    def deliver_up(self, i: int, again: bool) -> None:
        """Hand one message to the cloud, and perhaps keep a copy on its way."""
        if not self.up:
            return
        i %= len(self.up)
        sent, message = self.up[i] if again else self.up.pop(i)
        if self.edge._sync.number - sent >= 64:
            return
        if self.cloud is None and session_of(message) is not None:
            self.cloud = make_cloud()
        if self.cloud is None:
            self.down.append((self.edge._sync.number, unknown_session()))
        else:
            self.cloud.receive(message)
            self.answer()

    def answer(self) -> None:
        """Let the cloud's messages set out, and note what text it has come to."""
        self.down += [(self.edge._sync.number, m) for m in self.cloud.data_to_send()]
        self.outcomes.add(tuple(self.cloud._text))

    def deliver_down(self, i: int, again: bool) -> None:
        """Hand one message to the edge, and perhaps keep a copy on its way."""
        if not self.down:
            return
        i %= len(self.down)
        sent, message = self.down[i] if again else self.down.pop(i)
        if self.edge._sync.number - sent >= 64:
            return
        before = self.edge.text
        if (emitted := self.edge.receive(message)) is not None:
            assert self.edge.text == [*before, *emitted.tokens]
            decoded = emitted.drafted == 0
            assert any(
                list(text[: len(self.edge.text)] if decoded else text) == self.edge.text
                for text in self.outcomes
            ), "no cloud has come to this text"

    def lose(self, i: int) -> None:
        for way in (self.up, self.down):
            if way:
                way.pop(i % len(way))

    # What the cloud does

    def start_job(self) -> None:
        if self.cloud is not None and self.job is None:
            self.job = self.cloud.next_job()
            if self.job is not None:
                self.check_numbers(self.job)

    def finish_job(self, fails: bool) -> None:
        job, self.job = self.job, None
        if job is None or self.cloud is None:
            return
        if fails and self.cloud._failures < 2:
            self.cloud.fail(job)
        else:
            self.cloud.complete(job, self.target.decide(job))
        self.answer()

    def restart(self) -> None:
        self.cloud = self.job = None

    def idle(self) -> bool:
        """Return whether neither end has anything left to do."""
        due = self.up or self.down or self.job or self.edge.waiting
        return (
            not due and self.edge._round is None and self.edge._sync._outgoing is None
        )

    # What holds

    def check_numbers(self, job: Job) -> None:
        """Check that a number decides after one text, and about one drafted token.

        So no two drafts are verified by the same numbers, on whichever clouds.
        """
        tokens = job.drafted
        text = [*job.text, *tokens]
        if isinstance(job, VerifyHints):
            place = job.key, len(job.text)
            assert self.decoded.setdefault(place, [*job.text]) == job.text
        if isinstance(job, VerifyRound):
            for i, u in enumerate(map(float, job.draws)):
                before = text[: len(job.text) + i]
                assert self.before.setdefault(u, before) == before
                if i < len(tokens):
                    assert self.verified.setdefault(u, tokens[i]) == tokens[i]

    def check(self) -> None:
        edge, cloud = self.edge, self.cloud
        assert edge.refused is None
        if self.sampling.temperature == 0:
            n = len(self.prompts[0])
            assert edge.text == greedy(edge.text[:n], len(edge.text) - n)
            assert tuple(edge.text[:n]) == self.prompts[0]
        if cloud is None:
            return
        assert cloud.refused is None
        assert len(cloud._out) <= 5
        welcome = edge._welcome
        known = welcome is not None and welcome.instance == cloud._instance
        if known and edge._sync.number == cloud._number:
            have = len(edge.text)
            assert cloud._text[:have] == edge.text
            assert cloud._running() or len(cloud._text) == have

    def settle(self, reliable: bool = False) -> None:
        """Deliver everything from now on: answers come, and a round goes through."""
        if not reliable:
            self.up.clear()
            self.down.clear()
            self.edge.resend()
        for _ in range(2):
            self.calm()
            assert not self.edge.waiting
            self.check()
            if not self.edge.finished:
                self.generate(max(0, self.edge.rounds_from - len(self.edge.text)))
                self.calm()
                length = len(self.edge.text)
                self.push(3, 0)
                self.flush()
                self.calm()
                assert self.edge.finished or len(self.edge.text) > length

    def calm(self) -> None:
        """Deliver until nothing is on its way."""
        for _ in range(100):
            self.send()
            while self.up:
                self.deliver_up(0, False)
            self.start_job()
            if not (self.job or self.down):
                return
            while self.job is not None:
                self.finish_job(False)
                self.start_job()
            while self.down:
                self.deliver_down(0, False)
        raise AssertionError("the two ends never come to rest")
