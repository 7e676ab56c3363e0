"""An engine: scheduling of jobs, and failures."""

import asyncio
import contextlib
import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sqs_codec import Round, Sampling, SparseDistribution
from sqs_codec._codec.verify import Verdict
from sqs_codec.cli import serve as command
from sqs_codec.system._caching import CachingVerifier
from sqs_codec.system.engine import BatchEngine, EngineConfig, _batch, measure_steps
from sqs_codec.system.engine._batch import PART
from sqs_codec.system.session import LinkError, Read, VerifyRound
from tests.refusals import refuses
from tests.system.serve.kit import (
    PATIENCE,
    VOCAB,
    Toy,
    batch,
    converse,
    edge_session,
    greedy,
    serving,
    wait_until,
)

PROMPT = [5, 6, 7]


def job(session, text=PROMPT):
    return VerifyRound(session, list(text), None, np.array([0.5]), Sampling(0.0))


def reading(session, length):
    return Read(session, [1] * length)


async def read_beside_rounds(engine, length):
    """Have a text read while another session has one round after the other."""
    await engine.verify(job(b"decodes"))
    text = asyncio.ensure_future(engine.verify(reading(b"text", length)))
    while not text.done():
        await engine.verify(job(b"decodes"))


def with_engine(toy, run):
    """Run with an engine of a toy; return the engine's facts."""

    async def whole():
        engine = batch(toy)
        info = await engine.open()
        await run(engine)
        await engine.close()
        return info

    return asyncio.run(whole())


@pytest.fixture
def clock(monkeypatch):
    """The engine's clock, which goes on only if a test or toy says so."""
    made = SimpleNamespace(now=0.0, monotonic=lambda: made.now)
    monkeypatch.setattr(_batch, "time", made)
    return made


def test_sessions_that_decode_steadily_share_batches(monkeypatch):
    """Though the second comes while the first one's job is under way."""
    monkeypatch.setattr(_batch, "PATIENCE", 1e6)  # however late the loop has its turns
    sizes, begun = [], threading.Event()

    def work(jobs):
        begun.set()
        if not sizes:
            wait_until(lambda: server.engine._waiting)
        sizes.append(len(jobs))
        time.sleep(0.02)  # or jobs that come one by one could be taken together

    def write(late):
        assert not late or begun.wait(PATIENCE)
        converse(edge_session(PROMPT), server.link(), 33, "generate")

    with serving(Toy(work)) as server, ThreadPoolExecutor() as pool:
        [*pool.map(write, (False, True))]
    assert sum(sizes) / len(sizes) > 1.5


class Moody(BatchEngine):
    """An engine with a switch that makes it unwell."""

    reason: str | None = None

    async def verify(self, job):
        if self.reason is not None:
            raise RuntimeError(self.reason)
        return await super().verify(job)

    def health(self):
        return self.reason


@pytest.mark.parametrize(
    "kind", [MemoryError, StopIteration, SystemExit, asyncio.CancelledError]
)
def test_a_failed_job_does_not_affect_others(kind):
    """A future takes no StopIteration, and Rust's panics are no exceptions of ours."""

    def fail(jobs):
        if any(job.session == b"bad" for job in jobs):
            raise kind("too much")

    async def run(engine):
        jobs = [job(b"good"), job(b"bad"), job(b"fine")]
        verdicts = asyncio.gather(*map(engine.verify, jobs), return_exceptions=True)
        good, bad, fine = await asyncio.wait_for(verdicts, PATIENCE)
        assert isinstance(good, Verdict)
        assert isinstance(bad, RuntimeError)
        assert f"{kind.__name__}('too much')" in str(bad)
        assert isinstance(fine, Verdict)
        assert engine.health() is None

    with_engine(Toy(fail), run)


@pytest.mark.parametrize(
    ("failing", "most"),
    [
        ([{0}], 13),
        ([{63}], 13),
        ([{0}, {32}, {63}], 35),
        ([{i} for i in range(64)], 127),
        ([{3, 40}], 3),
    ],
)
def test_a_failing_batch_is_halved(failing, most):
    """Also if some jobs fail only together: then all succeed."""
    calls = []

    def fail(jobs):
        calls.append(len(jobs))
        if any(some <= {int(job.session) for job in jobs} for some in failing):
            raise MemoryError("too much")

    async def run(engine):
        jobs = [job(b"%d" % i) for i in range(64)]
        found = await asyncio.gather(*map(engine.verify, jobs), return_exceptions=True)
        for i, outcome in enumerate(found):
            assert isinstance(outcome, RuntimeError if {i} in failing else Verdict)
        assert calls[0] == 64
        assert len(calls) <= most

    with_engine(Toy(fail), run)


def test_cancelled_jobs_are_not_verified():
    begun, go_on = threading.Event(), threading.Event()
    sessions = []

    def hold(jobs):
        sessions.extend(job.session for job in jobs)
        begun.set()
        assert go_on.wait(PATIENCE)

    async def run(engine):
        first = asyncio.create_task(engine.verify(job(b"first")))
        await asyncio.to_thread(begun.wait, PATIENCE)
        second = asyncio.create_task(engine.verify(job(b"second")))
        third = asyncio.create_task(engine.verify(job(b"third")))
        await asyncio.sleep(0.01)
        first.cancel()
        second.cancel()
        await asyncio.wait([first, second])
        # Nor kept, as the call may last, and others come and go.
        assert [task.job.session for task in engine._waiting] == [b"third"]
        go_on.set()
        assert await third is not None

    with_engine(Toy(hold), run)
    assert sessions == [b"first", b"third"]


def test_a_closing_engine_fails_running_jobs():
    go_on = threading.Event()

    async def run():
        engine = batch(Toy(lambda jobs: go_on.wait(PATIENCE)))
        with pytest.raises(RuntimeError, match="isn't open"):
            await engine.verify(job(b"early"))
        assert engine.health() is not None
        await engine.open()
        waiting = asyncio.create_task(engine.verify(job(b"waits")))
        await asyncio.sleep(0.05)
        await engine.close()
        with pytest.raises(RuntimeError, match="closes"):
            await waiting
        with pytest.raises(RuntimeError, match="isn't open"):
            await engine.verify(job(b"late"))
        go_on.set()
        await engine.close()

    asyncio.run(run())


@pytest.mark.parametrize("target_ms", [0.0, 20.0])
def test_an_engine_measures_its_forward_passes(target_ms):
    """Delays by other processes don't count; `target_ms` does."""
    delays = itertools.cycle([0.06, 0.01, 0.06])
    toy = Toy(lambda jobs: time.sleep(next(delays)))

    async def run():
        engine = BatchEngine(toy, target_ms=target_ms)
        info = await engine.open()
        steps = await measure_steps(engine, info)
        engine._pace = 60.0  # which doesn't hold up the end
        waiting = asyncio.create_task(engine.verify(job(b"waits")))
        await asyncio.sleep(0.01)
        await engine.close()
        assert not engine._thread.is_alive()
        await asyncio.wait([waiting])
        return info, steps

    info, steps = asyncio.run(run())
    assert info.places == 0  # it isn't known
    assert list(steps) == [1, 6]
    least = max(0.01, target_ms / 1e3)
    assert all(least < seconds < 0.06 for seconds in steps.values())
    assert toy.forgotten.count(b"sqs_codec.measure_steps") == 1


def health(server):
    with grpc.insecure_channel(server.address) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        names = "", "sqs.Sessions"
        asked = (health_pb2.HealthCheckRequest(service=name) for name in names)
        [status] = {check(request).status for request in asked}
        return health_pb2.HealthCheckResponse.ServingStatus.Name(status)


def test_sessions_outlive_an_unwell_engine(monkeypatch):
    """An edge is sent away, not refused, and comes back to the text that it had.

    Health checks report it, and the command ends if the engine stays unwell.
    """
    monkeypatch.setattr(command, "UNWELL_SECONDS", 2)
    engine = Moody(Toy(), tokenizer=b"tokenize")
    with serving(engine) as server:
        ends = command._unwell(server.service)
        ending = asyncio.run_coroutine_threadsafe(ends, server._loop)
        edge, link = edge_session(PROMPT), server.link()
        converse(edge, link, 10)
        assert (health(server), ending.done()) == ("SERVING", False)
        engine.reason = "the model has a cold"
        assert health(server) == "NOT_SERVING"
        with pytest.raises(LinkError, match="the server can't verify: the model"):
            converse(edge, link, 40)
        assert edge.refused is None
        assert server.metric("sqs_refusals_total", reason="engine") == 1
        assert ending.result(PATIENCE) == "the model has a cold"
        engine.reason = None
        assert health(server) == "SERVING"
        edge.reconnect()
        assert converse(edge, server.link(), 40) == greedy(PROMPT, 37)


class Losing(BatchEngine):
    """An engine that loses its second job: it cancels it or returns nothing."""

    jobs = 0
    cancels = False

    async def verify(self, job):
        self.jobs += 1
        if self.jobs != 2:
            return await super().verify(job)
        if self.cancels:
            raise asyncio.CancelledError
        return None


@pytest.mark.parametrize("cancels", [False, True])
def test_sessions_do_not_wait_for_lost_verdicts(cancels, caplog):
    """The job is done again; the log reports it, without the text."""
    engine = Losing(Toy(), tokenizer=b"tokenize")
    engine.cancels = cancels
    with serving(engine) as server:
        text = converse(edge_session(PROMPT), server.link(), 20)
        assert text == greedy(PROMPT, 17)
        assert server.metric("sqs_failed_jobs_total") == 1
    [record] = caplog.records
    assert "the engine failed on a job" in record.getMessage()
    assert str(PROMPT)[1:-1] not in record.getMessage()


def test_bad_configurations_are_refused():
    refuses(r"one of .*'vllm'.*, got 'abacus'", EngineConfig, "abacus")
    for name in "device", "dtype":
        refuses(r"must be one of .*, got 'abacus'", EngineConfig, **{name: "abacus"})
    refuses("target_ms can't be used with vllm", EngineConfig, "vllm", target_ms=120.0)
    refuses("target_ms must be finite and in", EngineConfig, target_ms=-1.0)


class Clocked(Toy):
    """A toy that takes time for each call; `parts` has the tokens of text per call."""

    def __init__(self, clock, base=0.0, row=0.0):
        super().__init__(self.work)
        self.clock, self.base, self.row = clock, base, row
        self.read, self.parts, self.calls = {}, [], []

    def work(self, jobs):
        self.calls.append(jobs)
        fresh = 0
        for each in jobs:
            if not each.wanted:
                fresh += len(each.text) - self.read.get(each.session, 0)
                self.read[each.session] = len(each.text)
        if fresh:
            self.parts.append(fresh)
        self.clock.now += self.base + self.row * fresh


def test_a_call_prefills_one_part_of_all_waiting_texts(clock):
    """And no round waits for it."""
    toy = Clocked(clock)

    async def run(engine):
        jobs = [*(reading(b"%d" % i, 1300) for i in range(20)), job(b"a round")]
        *texts, verdict = await asyncio.gather(*map(engine.verify, jobs))
        assert texts == [None] * 20
        assert verdict is not None

    with_engine(toy, run)
    assert max(toy.parts) <= PART
    assert sum(toy.parts) == 20 * 1300
    assert b"a round" in {each.session for each in toy.calls[0]}


def test_an_engine_reports_prefill_progress():
    heard = []

    async def run(engine):
        engine.verifier.on_call = lambda _: heard.append(engine.progress())
        await engine.verify(reading(b"long", 2 * PART + 1))
        await engine.verify(reading(b"short", PART))
        assert engine.progress() == {}

    with_engine(Toy(), run)
    assert heard == [{}, {b"long": PART}, {b"long": 2 * PART}, {}]


def test_the_shortest_remaining_prefill_comes_first():
    calls = []

    async def run(engine):
        texts = [reading(b"%d" % i, 2048) for i in range(12)]
        await asyncio.gather(*map(engine.verify, texts))

    with_engine(Toy(calls.append), run)
    ended = [any(len(each.text) == 2048 for each in jobs) for jobs in calls]
    assert ended == [False, False, False, True] * 12


def test_a_long_prefill_is_not_starved_by_short_ones(monkeypatch):
    monkeypatch.setattr(_batch, "PATIENCE", 1e6)  # so that short ones always wait
    calls = []

    async def run(engine):
        async def write(name):
            i = 0
            while not long.done() and len(calls) < 1000:
                await engine.verify(reading(b"%s %d" % (name, i), 500))
                i += 1

        long = asyncio.ensure_future(engine.verify(reading(b"long", 8000)))
        await asyncio.gather(*(write(b"%d" % i) for i in range(8)))

    with_engine(Toy(calls.append), run)
    had = [any(each.session == b"long" for each in jobs) for jobs in calls]
    last = len(had) - had[::-1].index(True)
    parts = -(-8000 // PART)
    assert 2 * parts < last <= (parts + 8) * _batch.OLDEST_EVERY


def test_a_prefill_part_is_limited_in_time(clock):
    toy = Clocked(clock, 0.021, 0.0013)

    async def run(engine):
        await read_beside_rounds(engine, 3000)
        clock.now += _batch.RECENT_SECONDS  # and nobody waits
        await engine.verify(reading(b"another", 3000))

    with_engine(toy, run)
    ends = np.cumsum(toy.parts).tolist()
    beside = toy.parts[: ends.index(3000)]
    assert max(beside) * 0.0013 + 0.021 <= 1.1 * _batch.PART_SECONDS
    assert np.median(beside) > 130
    assert max(toy.parts[ends.index(3000) + 1 :]) == PART


def test_a_fast_model_prefills_large_parts_half_of_the_time(clock):
    """Next to rounds."""
    toy = Clocked(clock, 0.01, 2e-5)
    with_engine(toy, lambda engine: read_beside_rounds(engine, 8000))
    assert toy.parts[:3] == [_batch.LEAST_PART, PART - 1, PART - 1]
    assert len(toy.parts) == 17
    assert clock.now >= (17 * 0.01 + 8000 * 2e-5) / 0.6


def test_prefill_does_not_wait_for_its_own_session(clock):
    toy = Clocked(clock, 0.06, 1e-4)

    async def run(engine):
        await engine.verify(job(b"one"))
        # The clock only goes on with calls: to wait would be for ever.
        await asyncio.wait_for(engine.verify(reading(b"one", 3072)), PATIENCE)

    with_engine(toy, run)
    assert toy.parts == [PART] * 6


class Cache:
    """The cache of a session in a `Caching` toy."""

    def __init__(self):
        self.tokens = []


class Caching(CachingVerifier, Toy):
    """A toy with caches. `calls` are the tokens that each call reads, by session.

    A call takes 10 ms and 20 µs for a token.
    """

    _pass_tokens = _piece_tokens = 512
    _because = "a toy's"

    def __init__(self, clock, memory=10**9):
        self.clock, self.memory = clock, memory
        self.caches, self.calls = {}, []
        self._caches = self

    def __contains__(self, session):
        return session in self.caches

    @contextlib.contextmanager
    def opened(self, waiting):
        """Open what fits. The caches that were used least recently go."""
        ends = np.cumsum([len(each.tokens) for each in waiting])
        group = waiting[: np.searchsorted(ends, self.memory, "right")]
        pinned = {each.job.session for each in group}
        for each in group:
            session = each.job.session
            each.cache = self.caches[session] = (
                self.caches.pop(session, None) or Cache()
            )
            del each.cache.tokens[each.known :]
            for other in list(self.caches):
                held = sum(len(cache.tokens) for cache in self.caches.values())
                if held + each.left > self.memory and other not in pinned:
                    del self.caches[other]
        yield list(group)

    def forget(self, session):
        self.caches.pop(session, None)

    def verify(self, jobs):
        self.calls.append({})
        verdicts = CachingVerifier.verify(self, jobs)
        self.clock.now += 0.01 + 2e-5 * sum(self.calls[-1].values())
        return verdicts

    def _verify(self, pieces, jobs):
        sessions = {id(cache): session for session, cache in self.caches.items()}
        for piece in pieces:
            session = sessions[id(piece.cache)]
            size = self.calls[-1].get(session, 0) + len(piece.tokens)
            self.calls[-1][session] = size
            piece.cache.tokens += piece.tokens
        return [Toy._verify(self, job) for job in jobs]


def test_cached_tokens_are_not_prefilled_again(clock):
    toy = Caching(clock)

    async def run(engine):
        text = [1] * 4000
        await engine.verify(reading(b"a", 4000))
        for changed, most in (
            ([*text, *[2] * 50], 50),
            ([*text, 2, *[3] * 49], 49),
            (text[:3500], 0),
            ([*text[:3000], *[4] * 1000], 1000),
            ([4, *text[1:]], 4000),
        ):
            toy.calls.clear()
            await engine.verify(Read(b"a", changed))
            assert sum(call.get(b"a", 0) for call in toy.calls) == most
            assert toy.caches[b"a"].tokens == changed
            verdict = await engine.verify(job(b"a", changed))
            assert verdict == Verdict(0, greedy(changed, 1)[-1])

    with_engine(toy, run)


def test_a_prefill_part_and_rounds_share_a_forward_pass(clock):
    toy = Caching(clock)
    toy.places = 5
    info = with_engine(toy, lambda engine: read_beside_rounds(engine, 3000))
    assert info.places == 5
    assert max(sum(call.values()) for call in toy.calls) == PART
    assert toy.passes == len(toy.calls)


@pytest.mark.parametrize("wanted", [0, 1, 6])
def test_an_evicted_text_is_prefilled_in_parts(wanted, clock):
    toy = Caching(clock)
    text = [1] * 4000
    again = Read(b"a", text)
    if wanted:
        some = [SparseDistribution([0], [1], VOCAB)] * (wanted - 1)
        draft = Round(some, [0] * len(some)) if some else None
        again = VerifyRound(b"a", text, draft, np.zeros(wanted), Sampling())

    async def run(engine):
        await engine.verify(job(b"a", text))
        toy.forget(b"a")
        toy.calls.clear()
        await engine.verify(again)
        sizes = [call[b"a"] for call in toy.calls]
        assert max(sizes) <= PART + wanted
        assert sum(sizes) == 4000 + max(wanted - 1, 0)

    with_engine(toy, run)


def test_prefill_ends_even_if_its_kv_cache_is_always_lost(clock):
    toy = Caching(clock)
    text = [1] * 4000

    async def run(engine):
        verify = toy.verify

        def lose(jobs):
            toy.caches.clear()
            return verify(jobs)

        toy.verify = lose
        verdict = await asyncio.wait_for(engine.verify(job(b"a", text)), PATIENCE)
        assert verdict == Verdict(0, greedy(text, 1)[-1])
        assert len(toy.calls) == 8

    with_engine(toy, run)


@pytest.mark.parametrize(
    ("memory", "speed", "gap"), [(16, 1500, 0.02), (12, 740, 0.5), (8, 565, 0.8)]
)
def test_sessions_beyond_the_memory_take_turns(memory, speed, gap, clock, monkeypatch):
    """Each keeps its cache for a while: half of the time no text may be read."""
    monkeypatch.setattr(_batch, "PATIENCE", 1e6)  # however late the loop has its turns
    toy = Caching(clock, 600 * memory)
    times = [[] for _ in range(16)]

    async def run(engine):
        async def write(i):
            text = [i] * 500
            while clock.now < 4:
                verdict = await engine.verify(job(b"%d" % i, text))
                times[i].append(clock.now)
                text = [*text, verdict.token] if len(text) < 580 else text[:500]

        tasks = [asyncio.ensure_future(write(i)) for i in range(16)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:  # a clock that calls drive would stop with the last of them
            task.cancel()
        await asyncio.wait(tasks)

    with_engine(toy, run)
    counts = [sum(at > 1 for at in each) for each in times]
    assert sum(counts) / 3 >= speed
    assert min(counts) >= np.mean(counts) / 2
    assert max(np.diff([at for at in each if at > 1]).max() for each in times) <= gap


@pytest.mark.parametrize(("kind", "passes"), [(Clocked, 0), (Caching, 3)])
def test_a_hanging_model_is_noticed(kind, passes, clock, monkeypatch):
    """A call of many forward passes may be long, unless one of them is."""
    monkeypatch.setattr(_batch, "WATCH_SECONDS", 0.01)
    toy = kind(clock)
    begun, goes_on = threading.Event(), threading.Event()
    verify = toy.verify

    def hang(jobs):
        begun.set()
        assert goes_on.wait(PATIENCE)
        return verify(jobs)

    toy.verify = hang

    async def run(engine):
        first = asyncio.ensure_future(engine.verify(job(b"1")))
        await asyncio.to_thread(begun.wait, PATIENCE)
        second = asyncio.ensure_future(engine.verify(job(b"2")))
        for _ in range(passes):
            clock.now += _batch.STUCK_SECONDS
            toy.passes += 1
            assert engine.health() is None
        clock.now += _batch.STUCK_SECONDS + 1
        for waiting in first, second:
            with pytest.raises(RuntimeError, match="from a call for 121 s"):
                await asyncio.wait_for(waiting, PATIENCE)
        assert "from a call" in str(engine.health())
        goes_on.set()
        verdict = await asyncio.wait_for(engine.verify(job(b"3")), PATIENCE)
        assert verdict == Verdict(0, greedy(PROMPT, 1)[-1])
        assert engine.health() is None

    with_engine(toy, run)
