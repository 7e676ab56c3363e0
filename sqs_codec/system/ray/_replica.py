"""An engine in a replica of Ray Serve."""

# Ray is imported where it is used: how its processes listen is settled by then.

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sqs_codec import Verdict
from sqs_codec.system.engine import Engine, EngineConfig, EngineInfo, make_engine
from sqs_codec.system.session import Job

if TYPE_CHECKING:
    from ray.serve import Application


NAME = "Replica"  # of the deployment, in status and configuration files

ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"


class EngineDownError(Exception):
    """The engine of a replica is down: the job is as good as another's."""


class Replica:
    """An engine in a process of Ray Serve, which ends with its process."""

    async def __init__(  # type: ignore[misc]  # Ray awaits it
        self, make: Callable[[], Engine]
    ) -> None:
        self._engine = make()
        self._info = await self._engine.open()

    async def info(self) -> EngineInfo:
        """Return what the engine said when it was opened."""
        return self._info

    async def verify(self, job: Job, info: EngineInfo) -> Verdict | None:
        """As `Engine.verify`, unless this replica is down or has another model."""
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
        """Do as `Engine.drop`."""
        self._engine.drop(session)

    def check_health(self) -> None:
        """Raise if the engine is down. Ray asks, and replaces a replica that raises."""
        if (reason := self._engine.health()) is not None:
            raise EngineDownError(reason)


def app(args: Mapping[str, Any]) -> Application:
    """Return the application of arguments in a file, the fields of `EngineConfig`."""
    return application(functools.partial(make_engine, EngineConfig(**args)))


def application(make: Callable[[], Engine], **options: Any) -> Application:
    """Return an application of replicas, whose engines `make` returns.

    Options are those of the deployment that depend on the place.
    """
    from ray import serve
    from ray.serve.config import RequestRouterConfig

    deploy = serve.deployment(
        name=NAME,
        # Jobs under way at a replica, which its engine sees all at once to batch them.
        max_ongoing_requests=1024,
        # A job goes where its session's keys and values are. Only if that replica is
        # silent or full, it goes to the next one.
        request_router_config=RequestRouterConfig(
            request_router_class=ROUTER,
            request_router_kwargs={"num_fallback_replicas": 1},
        ),
        # A model that can't be loaded now won't be at the twentieth time.
        max_constructor_retry_count=2,
        # A dead replica is noticed by the next check, one that raises or is silent
        # after three.
        health_check_period_s=1.0,
        health_check_timeout_s=10.0,
        # For jobs under way at a replica that is stopped; another one does the rest.
        graceful_shutdown_timeout_s=5.0,
        **options,
    )
    return deploy(Replica).bind(make)
