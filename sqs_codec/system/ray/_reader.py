"""A reader of texts with replicas of a model."""

# Functions import Ray after they have set the environment variables that it reads.

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from sqs_codec.system.hf._reader import TextReader
from sqs_codec.system.ray._engine import last_line, start

if TYPE_CHECKING:
    from sqs_codec.distill._tasks import Answer, Task


class RayReader(TextReader, AbstractContextManager["RayReader"]):
    """A `distill.Reader` with replicas of a reader; if one dies, a call is retried."""

    def __init__(self, make: Callable[[], TextReader], replicas: int) -> None:
        share = start(replicas)
        import ray
        from ray.exceptions import RayActorError

        actor: Any = ray.remote(_Replica)
        options = {**share, "max_restarts": -1, "max_task_retries": 1}
        self._actors = [actor.options(**options).remote(make) for _ in range(replicas)]
        try:
            about, *_ = ray.get([one.about.remote() for one in self._actors])
        except BaseException as error:
            ray.shutdown()
            if isinstance(error, RayActorError):
                raise ValueError(last_line(str(error))) from None
            raise
        super().__init__(*about)

    def __exit__(self, *error: object) -> None:
        import ray

        ray.shutdown()

    def read(self, texts: Iterable[Task]) -> Iterator[tuple[Task, Answer]]:
        """Yield texts with the replicas' answers, in order."""
        from ray.exceptions import RayActorError, RayTaskError
        from ray.util import ActorPool

        asked: deque[list[Task]] = deque()
        pool = ActorPool(self._actors)

        def told() -> Iterator[tuple[Task, Answer]]:
            tasks = asked.popleft()
            try:
                return zip(tasks, pool.get_next(), strict=True)
            except RayTaskError as error:
                raise error.cause from None
            except RayActorError as error:
                texts = f"texts {tasks[0].index} to {tasks[-1].index}"
                reason = last_line(str(error))
                raise RuntimeError(f"a replica died at {texts}: {reason}") from None

        for _, together in groupby(texts, attrgetter("batch")):
            asked.append([*together])
            pool.submit(lambda actor, tasks: actor.read.remote(tasks), asked[-1])
            if len(asked) > 2 * len(self._actors):  # keep all replicas busy
                yield from told()
        while asked:
            yield from told()


class _Replica:
    """A reader in a process of its own."""

    def __init__(self, make: Callable[[], TextReader]) -> None:
        self._reader: Any = make()

    def about(self) -> tuple[Any, ...]:  # the arguments of a TextReader
        own = self._reader
        return own.name, own.tokenizer, own.max_tokens, own.at_once

    def read(self, tasks: Sequence[Task]) -> list[Answer]:
        for task, part in self._reader.read(tasks):
            task.tell(part)
        return [task.answer for task in tasks]
