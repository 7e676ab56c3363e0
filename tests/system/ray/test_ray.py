"""Replicas on one machine: the same verdicts, whichever process dies."""

import asyncio
import dataclasses
import gc
import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import grpc
import numpy as np
import pytest

import sqs_codec as sqs
from sqs_codec import Sampling
from sqs_codec.system.engine import EngineConfig
from sqs_codec.system.ray import RayEngine, _engine
from sqs_codec.system.session import Read, VerifyHints, VerifyRound
from tests.system.ray.processes import (
    descendants,
    listeners,
    nothing_left,
    replicas,
    wait_until,
)
from tests.system.ray.tricks import answers, job, make
from tests.system.serve import kit

# Ray's own imports warn.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SESSIONS = 16


@pytest.fixture(scope="module")
def server():
    """A gateway on gRPC sockets over two replicas of a toy."""
    with nothing_left():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_engine, "make_engine", make)
            started = kit.Server(RayEngine(EngineConfig()))
        yield started
        started.stop()


@pytest.fixture
def two(server):
    """The gateway, with two replicas."""
    wait_until(lambda: len(replicas()) == 2 and server.engine._count == 2)
    return server


def rounds(number):
    """Jobs of all kinds."""
    rng = np.random.default_rng(3)
    for i in range(number):
        text = rng.integers(0, 64, rng.integers(1, 200)).tolist()
        rows = [kit.toy_logits(text, noise=1 + n) for n in range(i % 5)]
        qs = [kit.CODEC.quantize(row, kit.KEEP) for row in rows]
        tokens = [q.sample(rng) for q in qs]
        sampling = Sampling(temperature=float(rng.choice([0, 0.7, 1])))
        begin = b"session %d" % (i % 9), text
        if i % 7 == 0:
            yield Read(*begin)
        elif i % 7 == 1:
            yield VerifyHints(*begin, tokens, rng.bytes(16), sampling)
        else:
            round_ = sqs.Round(qs, tokens) if qs else None
            yield VerifyRound(*begin, round_, rng.random(len(qs) + 1), sampling)


@pytest.mark.smoke
def test_verdicts_match_the_engine(two):
    jobs = [*rounds(300)]

    async def verify():
        return await asyncio.gather(*map(two.engine.verify, jobs))

    verdicts = two.run(verify())
    assert verdicts == kit.Toy().verify(jobs)
    assert {type(verdict) for verdict in verdicts} == {sqs.Verdict, type(None)}


def test_a_session_stays_at_one_replica(two):
    sessions = [b"pid %d" % i for i in range(24)]
    homes = two.run(answers(two.engine, *sessions * 20))
    assert homes == homes[:24] * 20
    assert {*homes} == replicas()


def test_engine_exceptions_are_raised_at_once(two):
    before = replicas()
    began = time.monotonic()
    with pytest.raises(RuntimeError, match=r"KeyError\('a text that nobody likes"):
        two.run(two.engine.verify(job(b"fail")))
    assert time.monotonic() < began + 10
    assert replicas() == before


def test_a_cancelled_job_is_cancelled_at_the_replica(two, caplog):
    async def cancel():
        work = asyncio.ensure_future(two.engine.verify(job(b"wait")))
        await asyncio.sleep(0.5)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        await asyncio.sleep(0.5)

    two.run(cancel())
    # These are of many sessions, so that both replicas are asked.
    asked = [b"cancels %d" % i for i in range(20)]
    assert max(two.run(answers(two.engine, *asked))) == 1
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_a_dropped_session_is_forgotten(two):
    async def drop():
        two.engine.drop(b"gone")
        await asyncio.sleep(0.5)

    two.run(drop())
    asked = [b"forgotten %d gone" % i for i in range(20)]
    assert max(two.run(answers(two.engine, *asked))) == 1


def test_ports_of_ray_require_a_token(two):
    everywhere = []
    for pid, address, port in listeners({os.getpid(), *descendants()}):
        if not address.endswith("127.0.0.1"):
            everywhere.append((pid, port))
    # One server of each replica listens everywhere; it is Ray's, and wants a token.
    assert {pid for pid, _ in everywhere} == replicas()
    for _, port in everywhere:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary("/ray.serve.ASGIService/HandleRequest")
            with pytest.raises(grpc.RpcError) as error:
                call(b"", timeout=5)
        assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED


def write(server, number, length):
    """A text of a session that has its own seed, and the longest wait for an answer."""
    how = {"seed": bytes([number] * 16), "rng": np.random.default_rng(number)}
    edge = kit.edge_session([number, 9], sampling=Sampling(temperature=1.0), **how)
    longest = 0.0
    with closing(server.link()) as link:
        while len(edge.text) < length and edge.refused is None:
            if not edge.waiting:
                kit.draft_round(edge)
            began = time.monotonic()
            assert kit.try_exchange(edge, link, 300.0), "the cloud is silent"
            longest = max(longest, time.monotonic() - began)
    assert edge.refused is None
    return list(edge.text)[:length], longest


def write_all(server, length):
    """The texts of many sessions at once, and the longest wait of all."""
    with ThreadPoolExecutor(SESSIONS) as pool:
        each = pool.map(lambda number: write(server, number, length), range(SESSIONS))
        texts, waits = zip(*each, strict=True)
    return texts, max(waits)


@pytest.mark.parametrize("again", ["the new one", "the other one"])
def test_killed_replicas_do_not_change_completions(two, again):
    undisturbed, wait = write_all(two, 300)
    print(f"\nundisturbed, the longest wait is {wait:.2f} s")
    failed = two.metric("sqs_failed_jobs_total")
    old = replicas()

    def kill():
        time.sleep(0.5)
        killed = {random.Random(again).choice(sorted(old))}
        os.kill(*killed, signal.SIGKILL)
        wait_until(lambda: len(replicas() - old) == 1)
        killed |= replicas() - old if again == "the new one" else old - killed
        for pid in killed & replicas():
            os.kill(pid, signal.SIGKILL)
        return wait_until(lambda: len(replicas() - killed) == 2 == two.engine._count)

    with ThreadPoolExecutor() as pool:
        recovery = pool.submit(kill)
        while not recovery.done():
            texts, wait = write_all(two, 300)
            print(f"with replicas killed, the longest wait is {wait:.2f} s")
            assert texts == undisturbed
    assert two.metric("sqs_failed_jobs_total") == failed
    print(f"two replicas again {recovery.result():.1f} s after the second SIGKILL")


def test_a_killed_controller_does_not_change_completions(two):
    undisturbed, _ = write_all(two, 100)
    found, name = descendants().items(), "ray::ServeController"
    (controller,) = (pid for pid, command in found if command.startswith(name))
    os.kill(controller, signal.SIGKILL)
    before = replicas()
    assert write_all(two, 100)[0] == undisturbed
    os.kill(before.pop(), signal.SIGKILL)
    assert write_all(two, 100)[0] == undisturbed
    wait_until(lambda: len(replicas()) == 2)


def test_an_unwell_engine_is_replaced(two):
    sick, *_ = before = replicas()

    # Some of these sessions are at the one that is to become sick.
    asked = [b"ail %d %d" % (sick, i) for i in range(20)]
    assert sick not in two.run(answers(two.engine, *asked))
    wait_until(lambda: sick not in replicas() and len(replicas() - before) == 1)


def test_a_job_that_kills_replicas_is_given_up(two):
    with pytest.raises(RuntimeError, match="3 replicas died during a job"):
        two.run(two.engine.verify(job(b"die")))
    assert two.run(two.engine.verify(job(b"pid"))).token in replicas()


def test_a_long_time_without_replicas(two, monkeypatch):
    monkeypatch.setattr(_engine, "PATIENCE", 0.5)
    assert two.service.health() is None
    stop = threading.Event()

    def kill():
        while not stop.wait(0.05):
            for pid in replicas():
                os.kill(pid, signal.SIGKILL)

    with ThreadPoolExecutor() as pool:
        pool.submit(kill)
        wait_until(lambda: two.engine.health() is not None)
        with pytest.raises(RuntimeError, match=r"no replica|replicas died"):
            two.run(two.engine.verify(job(b"pid")))
        two.engine.drop(b"a session")
        stop.set()
    wait_until(lambda: two.engine.health() is None)
    assert two.run(two.engine.verify(job(b"pid"))).token in replicas()


def test_replicas_that_can_never_start(two, monkeypatch):
    """Replicas have died, and the model that was deployed since can't be loaded."""

    def status():
        raise ValueError("there is no such directory")

    with monkeypatch.context() as patch:
        patch.setattr(_engine, "_status", status)
        wait_until(lambda: two.engine.health() is not None)
    wait_until(lambda: two.engine.health() is None)


def test_another_model_is_refused(two):
    other = dataclasses.replace(two.engine._info, summary="another toy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(two.engine, "_info", other)
        with pytest.raises(RuntimeError, match="restart the gateway"):
            two.run(two.engine.verify(job(b"a session")))
