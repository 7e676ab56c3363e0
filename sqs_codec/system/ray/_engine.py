"""An engine that sends its jobs to replicas of another one, on one machine or many."""

# Functions import Ray after they have set the environment variables that it reads.

import asyncio
import dataclasses
import functools
import logging
import math
import os
import re
import secrets
import socket
from collections.abc import Mapping
from typing import Any

from sqs_codec import Verdict
from sqs_codec._base import checks
from sqs_codec.system._base.address import split_address
from sqs_codec.system.engine import EngineConfig, EngineInfo, make_engine
from sqs_codec.system.ray._replica import NAME, EngineDownError, application
from sqs_codec.system.session import Job

APP = "sqs"  # the application's name, also on an existing cluster
DEATHS = 3  # a job fails after this many replicas have died during it
PATIENCE = 30.0  # seconds that jobs wait while there is no replica
POLL_SECONDS = 1.0  # between two counts of replicas
TELL_SECONDS = 30.0  # between two log messages while replicas start

PAUSE_SECONDS = 0.5  # between two attempts at a job, except after a replica's death
STORE_BYTES = 100 << 20  # Ray's minimum for its object store, which is hardly used

log = logging.getLogger(__name__)


class RayEngine:
    """An `Engine` over replicas of an engine, which Ray Serve runs.

    All jobs of a session go to the replica with its KV cache, as long as the set of
    replicas doesn't change. If a replica dies, another one takes over its jobs. If
    there is no replica, jobs wait.

    Ray allows one cluster per process, so a process can open only one `RayEngine`.

    Parameters
    ----------
    config : EngineConfig
        The engine of the replicas. Ignored if there is an `address`: the cluster's
        configuration file defines the engine.
    replicas : int
        Number of replicas to start. Ignored if there is an `address`.
    address : str or None
        HOST:PORT of a cluster with a deployed application named ``sqs``, or "auto" for
        this machine's cluster. If None, replicas start on this machine, for this
        process only.
    """

    def __init__(
        self, config: EngineConfig, *, replicas: int = 2, address: str | None = None
    ) -> None:
        self._config = config
        self._replicas = checks.in_range("replicas", replicas, 1, 1000)
        self._address = address
        self._count = 0
        self._alone_since: float | None = None
        self._watch: asyncio.Task[None] | None = None
        self._starting: asyncio.Future[None] | None = None
        self._asking: set[Any] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"<RayEngine of {self._replicas} replicas>"

    async def open(self) -> EngineInfo:
        """Start replicas or connect to a cluster; wait until they can verify."""
        self._loop = asyncio.get_running_loop()
        start = self._start if self._address is None else self._join
        self._starting = asyncio.ensure_future(asyncio.to_thread(start))
        # Threads can't be cancelled: `close` waits for this one.
        await asyncio.shield(self._starting)
        await self._wait_until_ready()
        self._handle = await asyncio.to_thread(
            lambda: _serve().get_deployment_handle(NAME, APP)
        )
        info: EngineInfo = await self._handle.info.remote()
        self._info, info = info, dataclasses.replace(info, places=0)  # one replica's
        self._watch = asyncio.create_task(self._count_forever())
        return info

    async def verify(self, job: Job) -> Verdict | None:
        """Send a job to the replica of its session, or else to another one.

        Raises a RuntimeError if the engine failed on the job, `DEATHS` replicas died
        during it, or there has been no replica for `PATIENCE` seconds.
        """
        from ray.exceptions import ActorDiedError, RayError, RayTaskError
        from ray.serve.exceptions import RayServeException

        ask = self._handle.options(method_name="verify", session_id=job.session.hex())
        deaths, failing = 0, None
        while not self._closed:
            try:
                response = ask.remote(job, self._info)
                verdict: Verdict | None = await self._result(response)
                return verdict
            except EngineDownError as error:
                reason = repr(error)
            except ActorDiedError:
                deaths += 1
                if deaths == DEATHS:
                    raise RuntimeError(f"{deaths} replicas died during a job") from None
                continue
            except RayTaskError as error:
                raise RuntimeError(f"a replica raised {error.cause!r}") from None
            except (RayError, RayServeException) as error:
                reason = repr(error)
            failing = failing or self._loop.time()
            if self._loop.time() - failing > PATIENCE:
                raise RuntimeError(f"no replica takes a job: {reason}")
            log.info("retrying a job: %s", reason)
            await asyncio.sleep(PAUSE_SECONDS)
        raise RuntimeError(self.health())

    async def _result(self, response: Any) -> Any:
        """Return a replica's response; raise if there is no replica for too long."""
        from ray.exceptions import TaskCancelledError

        self._asking.add(response)
        task = asyncio.ensure_future(response)
        # Retrieve Ray's exception of a cancelled job, or asyncio would log it.
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            while not (await asyncio.wait([task], timeout=POLL_SECONDS))[0]:
                if self._closed or self._alone() > PATIENCE:
                    raise RuntimeError(self.health())
            if task.cancelled():  # by Ray, as our own cancellation doesn't get here
                raise TaskCancelledError
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                response.cancel()
            self._asking.discard(response)

    def drop(self, session: bytes) -> None:
        """Tell the replica of a session to free its cache."""
        if self.health() is None:
            ask = self._handle.options(method_name="drop", session_id=session.hex())
            ask.remote(session)

    def progress(self) -> Mapping[bytes, int]:
        """Return nothing: replicas don't report progress."""
        return {}

    def health(self) -> str | None:
        """Return why the engine can't verify now; None if there is a replica."""
        if self._closed:
            return "the engine is closed"
        if self._alone_since is None:
            return None
        return f"there has been no replica of the model for {self._alone():.0f} s"

    def _alone(self) -> float:
        """Return the seconds since the last replica was lost, 0 if there is one."""
        since = self._alone_since
        return 0.0 if since is None else self._loop.time() - since

    async def close(self) -> None:
        """End the replicas that `open` has started. An existing cluster goes on."""
        self._closed = True
        starting, self._starting = self._starting, None
        if starting is None:
            return
        if self._watch is not None:
            self._watch.cancel()
        await asyncio.wait([starting])
        while self._asking:  # if Ray ended first, canceling a job would start it again
            await asyncio.sleep(POLL_SECONDS / 20)
        import ray

        await asyncio.to_thread(ray.shutdown)

    def _start(self) -> None:
        if self._closed:
            return
        share = start(self._replicas)
        from ray import serve

        if self._closed:
            return
        serve.start(proxy_location="Disabled")
        target = application(
            functools.partial(make_engine, self._config),
            num_replicas=self._replicas,
            ray_actor_options=share,
        )
        serve.run_many(
            [serve.RunTarget(target, name=APP, route_prefix=None)],
            wait_for_applications_running=False,
        )

    def _join(self) -> None:
        """Connect to a cluster, which may still be starting its replicas."""
        address = self._address
        assert address is not None
        if address != "auto":  # if nothing listens there, Ray would wait forever
            try:
                socket.create_connection(split_address(address), timeout=5).close()
            except OSError as error:
                raise OSError(f"no Ray at {address}: {error}") from error
        _init(address=address)
        from ray import serve

        if APP not in serve.status().applications:
            raise ValueError(
                f"the Ray cluster has no application named {APP}; deploy one first "
                f"(docs/serving/ray.md)"
            )

    async def _wait_until_ready(self) -> None:
        enough = self._replicas if self._address is None else 1
        told = self._loop.time()
        while True:
            self._count, message = await asyncio.to_thread(_status)
            if self._count >= enough:
                return
            if self._loop.time() > told + TELL_SECONDS:
                told = self._loop.time()
                why = f": {message}" if message else ""
                log.warning("%d of %d replicas are running%s", self._count, enough, why)
            await asyncio.sleep(POLL_SECONDS / 4)

    async def _count_forever(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                count, _ = await asyncio.to_thread(_status)
            except ValueError:
                count = 0
            except Exception as error:  # Ray may be replacing the controller
                log.info("can't count the replicas: %r", error)
                continue
            if count != self._count:
                log.warning("%d replicas are running, not %d", count, self._count)
                self._count = count
                self._alone_since = None if count else self._loop.time()


def _serve() -> Any:
    """Return Ray Serve; RuntimeError if Ray is shut down, as Serve would restart it."""
    import ray
    from ray import serve

    if not ray.is_initialized():
        raise RuntimeError("Ray is shut down")
    return serve


def _status() -> tuple[int, str]:
    """Return the number of running replicas, and Ray's message on the others."""
    app = _serve().status().applications.get(APP)
    if app is None:
        return 0, "there is no application"
    deployment = app.deployments.get(NAME)
    count = deployment.replica_states.get("RUNNING", 0) if deployment else 0
    message = last_line((deployment and deployment.message) or app.message)
    if app.status == "DEPLOY_FAILED" and not count:
        raise ValueError(message)
    return count, message


def start(replicas: int) -> dict[str, float]:
    """Start Ray for this process only; return the resources of each replica."""
    # Listen on loopback only, and require an access token.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # also on Linux
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & {*os.environ}:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    _init(
        address="local",
        num_cpus=max(replicas, os.cpu_count() or 1),
        object_store_memory=STORE_BYTES,
        include_dashboard=False,
    )
    import ray

    return _share(ray.cluster_resources(), replicas)


def _init(**options: Any) -> None:
    # Otherwise Ray prints a stack trace when SIGTERM ends a server.
    os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")
    import ray.serve  # before `setLevel` below, as the import sets the level, too

    ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    logging.getLogger("ray.serve").setLevel(logging.ERROR)


def _share(resources: Mapping[str, float], replicas: int) -> dict[str, float]:
    """Return the resources of each replica on a machine with these resources.

    >>> _share({"CPU": 8.0}, 3)
    {'num_cpus': 2}
    >>> _share({"CPU": 16.0, "GPU": 2.0}, 4)
    {'num_cpus': 4, 'num_gpus': 0.5}
    >>> _share({"CPU": 16.0, "GPU": 4.0}, 2)
    {'num_cpus': 8, 'num_gpus': 2}
    """
    share: dict[str, float] = {"num_cpus": max(1, int(resources["CPU"]) // replicas)}
    if gpus := int(resources.get("GPU", 0)):
        share["num_gpus"] = gpus // replicas or 1 / math.ceil(replicas / gpus)
    return share


def last_line(message: str) -> str:
    """Return the last line of a stack trace, without the exception's name."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return re.sub(r"^[\w.]+(Error|Exception): ", "", lines[-1]) if lines else ""
