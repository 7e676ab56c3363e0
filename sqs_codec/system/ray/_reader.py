"""Replicas of a model, each of which tells of the texts that it reads."""

# Ray is imported where it is used: how its processes listen is settled by then.

from __future__ import annotations

from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from sqs_codec.system.hf._reader import TextReader
from sqs_codec.system.ray._engine import last_line, start

if TYPE_CHECKING:
    from sqs_codec.distill import Task


class RayReader(TextReader):
    """A `distill.Reader` of replicas of another one; a call is retried if one dies."""

    def __init__(self, make: Callable[[], TextReader], replicas: int) -> None:
        self.replicas, share = replicas, start(replicas)
        import ray
        from ray.exceptions import RayActorError

        actor: Any = ray.remote(_Replica)
        options = {**share, "max_restarts": -1, "max_task_retries": 1}
        self._free: SimpleQueue[Any] = SimpleQueue()
        actors = [actor.options(**options).remote(make) for _ in range(replicas)]
        try:
            about, *_ = ray.get([one.about.remote() for one in actors])
        except BaseException as error:
            self.close()
            if isinstance(error, RayActorError):
                raise ValueError(last_line(str(error))) from None
            raise
        for one in actors:
            self._free.put(one)
        super().__init__(*about)

    def close(self) -> None:
        """End the replicas, and Ray."""
        import ray

        ray.shutdown()

    def read(self, tasks: Sequence[Task]) -> None:
        """Have a replica that is free do tasks."""
        import ray
        from ray.exceptions import RayActorError, RayTaskError

        actor = self._free.get()
        try:
            answers = ray.get(actor.read.remote(tasks))
        except RayTaskError as error:
            raise error.cause from None
        except RayActorError as error:
            texts = f"texts {tasks[0].index} to {tasks[-1].index}"
            reason = last_line(str(error))
            raise RuntimeError(f"a replica died over {texts}: {reason}") from None
        finally:
            self._free.put(actor)
        for task, answer in zip(tasks, answers, strict=True):
            task.take(answer)


class _Replica:
    """A reader in a process of its own."""

    def __init__(self, make: Callable[[], TextReader]) -> None:
        self._reader: Any = make()

    def about(self) -> tuple[Any, ...]:  # what a TextReader is made of
        own = self._reader
        return own.name, own.tokenizer, own.vocab_size, own.max_tokens, own.at_once

    def read(self, tasks: Sequence[Task]) -> list[Any]:
        self._reader.read(tasks)
        return [task.answer for task in tasks]
