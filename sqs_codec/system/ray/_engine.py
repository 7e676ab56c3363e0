"""An engine whose jobs are done by replicas of another one, on one machine or many."""

# Ray is imported where it is used: how its processes listen is settled by then.

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

APP = "sqs"  # the name of the application, also where a cluster has been given one
DEATHS = 3  # replicas that may die over one job until it is taken for the cause
PATIENCE = 30.0  # seconds that jobs wait for a replica, while there is none
POLL_SECONDS = 1.0  # between two looks at how many replicas there are
TELL_SECONDS = 30.0  # between two words on why it takes so long to start

PAUSE_SECONDS = 0.5
"""Between two attempts at a job, unless a replica died, which isn't asked again."""

STORE_BYTES = 100 << 20
"""Of Ray's store of large objects, which hardly anything needs. Ray takes no less."""

log = logging.getLogger(__name__)


class RayEngine:
    """An `Engine` over replicas of an engine, which Ray Serve runs.

    A session's jobs go to one replica as long as the replicas are the same, so that
    its keys and values are found there. When a replica dies, its jobs are done by
    another one; while there is none they wait.

    Ray has one cluster a process, and so there is one open `RayEngine` a process.

    Parameters
    ----------
    config : EngineConfig
        The engine of the replicas. Not used with an `address`: the file by which the
        application was deployed says it.
    replicas : int
        How many to start. Not used with an `address` either.
    address : str or None
        Of a cluster on which an application named ``sqs`` has been deployed, as
        HOST:PORT, or "auto" for the one that this machine belongs to. If None, replicas
        are started on this machine, for this process alone.
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
        """Start replicas, or find those of a cluster; wait until they can verify."""
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
        """Have a job done by the replica of its session, or by another one.

        A RuntimeError says that the engine failed on the job, that `DEATHS` replicas
        died over it, or that there has been no replica for long.
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
                    raise RuntimeError(f"{deaths} replicas died over a job") from None
                continue
            except RayTaskError as error:
                raise RuntimeError(f"a replica raised {error.cause!r}") from None
            except (RayError, RayServeException) as error:
                reason = repr(error)
            failing = failing or self._loop.time()
            if self._loop.time() - failing > PATIENCE:
                raise RuntimeError(f"no replica takes a job: {reason}")
            log.info("asking again: %s", reason)
            await asyncio.sleep(PAUSE_SECONDS)
        raise RuntimeError(self.health())

    async def _result(self, response: Any) -> Any:
        """Return what a replica responds, unless there has been none for too long."""
        from ray.exceptions import TaskCancelledError

        self._asking.add(response)
        task = asyncio.ensure_future(response)
        # Once a job is cancelled, nobody else asks what Ray raised on it.
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            while not (await asyncio.wait([task], timeout=POLL_SECONDS))[0]:
                if self._closed or self._alone() > PATIENCE:
                    raise RuntimeError(self.health())
            if task.cancelled():  # by Ray: who cancels us doesn't come to this line
                raise TaskCancelledError
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                response.cancel()
            self._asking.discard(response)

    def drop(self, session: bytes) -> None:
        """Tell the replica of a session to free its cache, if there is one."""
        if self.health() is None:
            ask = self._handle.options(method_name="drop", session_id=session.hex())
            ask.remote(session)

    def progress(self) -> Mapping[bytes, int]:
        """Return nothing, as replicas aren't asked."""
        return {}

    def health(self) -> str | None:
        """Say why nothing can be verified now; None if there is a replica."""
        if self._closed:
            return "the engine is closed"
        if self._alone_since is None:
            return None
        return f"there has been no replica of the model for {self._alone():.0f} s"

    def _alone(self) -> float:
        """Return the seconds for which there has been no replica."""
        since = self._alone_since
        return 0.0 if since is None else self._loop.time() - since

    async def close(self) -> None:
        """End the replicas that `open` has started; leave a cluster as it is."""
        self._closed = True
        starting, self._starting = self._starting, None
        if starting is None:
            return
        if self._watch is not None:
            self._watch.cancel()
        await asyncio.wait([starting])
        while self._asking:  # to cancel a job without Ray would start another one
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
        if address != "auto":  # where nobody is, Ray would wait for ever
            try:
                socket.create_connection(split_address(address), timeout=5).close()
            except OSError as error:
                raise OSError(f"no Ray at {address}: {error}") from error
        _keep_quiet()
        from ray import serve

        _init(address=address)
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
                log.warning(
                    "%d of %d replicas are running: %s", self._count, enough, message
                )
            await asyncio.sleep(POLL_SECONDS / 4)

    async def _count_forever(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                count, _ = await asyncio.to_thread(_status)
            except ValueError:
                count = 0
            except Exception as error:  # the controller is being replaced, perhaps
                log.info("can't count the replicas: %r", error)
                continue
            if count != self._count:
                log.warning("%d replicas are running, not %d", count, self._count)
                self._count = count
                self._alone_since = None if count else self._loop.time()


def _serve() -> Any:
    """Return Ray Serve; RuntimeError if Ray isn't there, as Serve would start it."""
    import ray
    from ray import serve

    if not ray.is_initialized():
        raise RuntimeError("Ray is shut down")
    return serve


def _status() -> tuple[int, str]:
    """Return how many replicas work and what Ray says of the others."""
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
    """Start Ray for this process alone; return what a replica takes of the machine."""
    _keep_to_this_machine()
    _keep_quiet()
    import ray

    _init(
        address="local",
        num_cpus=max(replicas, os.cpu_count() or 1),
        object_store_memory=STORE_BYTES,
        include_dashboard=False,
    )
    return _share(ray.cluster_resources(), replicas)


def _keep_to_this_machine() -> None:
    """Have Ray listen on loopback only; servers of replicas want a token."""
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # nor on Linux
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & {*os.environ}:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _keep_quiet() -> None:
    """Have Ray print no stack trace on the SIGTERM that a server ends by."""
    os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")


def _init(**options: Any) -> None:
    import ray.serve  # first, as importing it sets the level of its log

    ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    logging.getLogger("ray.serve").setLevel(logging.ERROR)


def _share(resources: Mapping[str, float], replicas: int) -> dict[str, float]:
    """Return what each of some replicas takes of a machine.

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
    """Return what is at the end of a stack trace: why something couldn't be done."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return re.sub(r"^[\w.]+(Error|Exception): ", "", lines[-1]) if lines else ""
