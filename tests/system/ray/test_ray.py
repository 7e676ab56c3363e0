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
from functools import partial

import grpc
import numpy as np
import psutil
import pytest

from sqs_codec import Sampling
from sqs_codec.system.edge import FixedPlan, Hints, generate
from sqs_codec.system.engine import EngineConfig
from sqs_codec.system.ray import RayEngine, _engine
from sqs_codec.system.session import LocalLink, Read, VerifyHints, VerifyRound
from tests.system.ray.processes import descendants, nothing_left, replicas, wait_until
from tests.system.ray.tricks import answers, job, make
from tests.system.serve import kit

# Ray's own imports warn.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SESSIONS = 16


@pytest.fixture(scope="module")
def server():
    """A gateway on gRPC sockets over two replicas of a toy."""
    with nothing_left(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(kit, "PATIENCE", 300.0)
        patch.setattr(_engine, "make_engine", make)
        with kit.serving(RayEngine(EngineConfig())) as started:
            yield started


@pytest.fixture
def two(server):
    """The gateway, with two replicas."""
    wait_until(lambda: len(replicas()) == 2 and server.engine._count == 2)
    return server


def jobs():
    """Jobs of all kinds."""
    found = []
    for number, plan in enumerate([FixedPlan(4), FixedPlan(hints=Hints())] * 4):
        link = LocalLink(kit.Toy(found.extend), tokenizer=b"tokenize")
        edge = session(number, temperature=number % 3 / 2)
        [*generate(edge, kit.Draft(), link, plan, max_tokens=40)]
    return found


def session(number, temperature=1.0):
    """A session with a seed of its own."""
    how = {"seed": bytes([number] * 16), "rng": np.random.default_rng(number)}
    return kit.edge_session([number, 9], sampling=Sampling(temperature), **how)


@pytest.mark.smoke
def test_verdicts_match_the_engine(two):
    async def verify():
        return await asyncio.gather(*map(two.engine.verify, given))

    given = jobs()
    assert {*map(type, given)} == {Read, VerifyRound, VerifyHints}
    assert two.run(verify()) == kit.Toy().verify(given)


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
    everywhere = [
        (pid, port.laddr.port)
        for pid in (os.getpid(), *descendants())
        for port in psutil.Process(pid).net_connections("tcp")
        if port.status == psutil.CONN_LISTEN
        if not port.laddr.ip.endswith("127.0.0.1")
    ]
    # One server of each replica listens everywhere; it is Ray's, and wants a token.
    assert {pid for pid, _ in everywhere} == replicas()
    for _, port in everywhere:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary("/ray.serve.ASGIService/HandleRequest")
            with pytest.raises(grpc.RpcError) as error:
                call(b"", timeout=5)
        assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED


def write(server, length, number):
    with closing(server.link()) as link:
        text = kit.converse(session(number), link, length)
    assert len(text) == length
    return text


def write_all(server, length):
    """The texts of many sessions at once."""
    with ThreadPoolExecutor(SESSIONS) as pool:
        return [*pool.map(partial(write, server, length), range(SESSIONS))]


@pytest.mark.parametrize("again", ["the new one", "the other one"])
def test_killed_replicas_do_not_change_completions(two, again):
    undisturbed = write_all(two, 300)
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
        wait_until(lambda: len(replicas() - killed) == 2 == two.engine._count)

    with ThreadPoolExecutor() as pool:
        recovery = pool.submit(kill)
        while not recovery.done():
            assert write_all(two, 300) == undisturbed
        recovery.result()
    assert two.metric("sqs_failed_jobs_total") == failed


def test_a_killed_controller_does_not_change_completions(two):
    undisturbed = write_all(two, 100)
    found, name = descendants().items(), "ray::ServeController"
    (controller,) = (pid for pid, command in found if command.startswith(name))
    os.kill(controller, signal.SIGKILL)
    before = replicas()
    assert write_all(two, 100) == undisturbed
    os.kill(before.pop(), signal.SIGKILL)
    assert write_all(two, 100) == undisturbed
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
