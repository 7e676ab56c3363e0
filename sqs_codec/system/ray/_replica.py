"""An engine in a replica of Ray Serve."""

# Functions import Ray after they have set the environment variables that it reads.

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sqs_codec import Verdict
from sqs_codec.system.engine import Engine, EngineConfig, EngineInfo, make_engine
from sqs_codec.system.session import Job

if TYPE_CHECKING:
    from ray.serve import Application


NAME = "Replica"  # the deployment's name in Ray's status and configuration files

ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"


class EngineDownError(Exception):
    """The engine of a replica is down; another replica can do the job."""


class Replica:
    """An engine in a process of Ray Serve. It ends with the process."""

    async def __init__(  # type: ignore[misc]  # Ray awaits it
        self, make: Callable[[], Engine]
    ) -> None:
        self._engine = make()
        self._info = await self._engine.open()

    async def info(self) -> EngineInfo:
        return self._info

    async def verify(self, job: Job, info: EngineInfo) -> Verdict | None:
        """Do as `Engine.verify`; raise if this replica is down or has another model."""
        if info != self._info:
            raise ValueError(
                f"the replicas run {self._info} now, not {info}: restart the gateway"
            )
        try:
            return await self._engine.verify(job)
        except Exception as error:
            if (reason := self._engine.health()) is not None:
                raise EngineDownError(reason) from error
            raise

    async def drop(self, session: bytes) -> None:
        self._engine.drop(session)

    def check_health(self) -> None:
        """Raise if the engine is down. Ray calls this and replaces such replicas."""
        if (reason := self._engine.health()) is not None:
            raise EngineDownError(reason)


def app(args: Mapping[str, Any]) -> Application:
    """Return the application for a file's arguments, the fields of `EngineConfig`."""
    return application(functools.partial(make_engine, EngineConfig(**args)))


def application(make: Callable[[], Engine], **options: Any) -> Application:
    """Return an application with a replica of the engine that `make` returns.

    Options are Ray Serve's options of a deployment, such as ``num_replicas``.
    """
    from ray import serve
    from ray.serve.config import RequestRouterConfig

    deploy = serve.deployment(
        name=NAME,
        # Concurrent jobs of a replica. The engine batches jobs that it has together.
        max_ongoing_requests=1024,
        # A job goes to the replica with its session's KV cache. If that replica doesn't
        # respond or is full, the job goes to the next one.
        request_router_config=RequestRouterConfig(
            request_router_class=ROUTER,
            request_router_kwargs={"num_fallback_replicas": 1},
        ),
        # By default Ray tries 20 times, but a model that can't be loaded never will be.
        max_constructor_retry_count=2,
        # The next check notices a dead replica. Three failed checks are needed for one
        # that raises or doesn't respond.
        health_check_period_s=1.0,
        health_check_timeout_s=10.0,
        # A stopped replica may finish running jobs; another replica does the rest.
        graceful_shutdown_timeout_s=5.0,
        **options,
    )
    return deploy(Replica).bind(make)
