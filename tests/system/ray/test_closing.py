"""An engine on Ray that is closed while it is at something."""

import asyncio
import time

import pytest

from sqs_codec.system.engine import EngineConfig
from sqs_codec.system.ray import RayEngine, _engine
from tests.system.ray.processes import nothing_left
from tests.system.ray.tricks import job, make

# Ray's own imports warn.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@nothing_left()
def test_running_jobs_fail_at_close(monkeypatch):
    monkeypatch.setattr(_engine, "make_engine", make)

    async def run():
        engine = RayEngine(EngineConfig(), replicas=1)
        await engine.open()
        work = asyncio.ensure_future(engine.verify(job(b"wait")))
        await asyncio.sleep(0.5)
        await engine.close()
        with pytest.raises(RuntimeError, match="closed"):
            await asyncio.wait_for(work, 10)
        with pytest.raises(RuntimeError, match="closed"):
            await engine.verify(job(b"late"))
        engine.drop(b"late")

    asyncio.run(run())


@nothing_left()
def test_ray_does_not_start_after_close(monkeypatch):
    begun = []

    def init(replicas):
        begun.append("init")
        time.sleep(0.5)

    monkeypatch.setattr(_engine, "start", init)
    monkeypatch.setattr("ray.serve.start", lambda **_: begun.append("start"))

    async def run():
        engine = RayEngine(EngineConfig())
        opening = asyncio.ensure_future(engine.open())
        while not begun:
            await asyncio.sleep(0.01)
        opening.cancel()
        await engine.close()
        with pytest.raises(asyncio.CancelledError):
            await opening

    asyncio.run(run())
    assert begun == ["init"]
