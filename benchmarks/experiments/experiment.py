"""The interface of experiments, and their inputs."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.table import Table
from rich.text import Text

NAMES = {"smollm2": "SmolLM2", "gemma3": "Gemma 3", "given": "the models given"}
"""The displayed names of models."""

Records = list[dict[str, Any]]


@dataclass(frozen=True)
class Options:
    """The options of a run."""

    folder: Path
    """The folder of results."""
    quick: bool = False
    """Whether to run in miniature."""
    seed: int = 0
    """The seed of all random numbers."""
    prompts: Path | None = None
    """A file with other prompts."""
    draft: str | None = None
    target: str | None = None
    """Hugging Face models instead of SmolLM2 and Gemma 3."""
    drafts: Path | None = None
    """The folder of small drafts, MODEL-SIZE.npz."""

    @property
    def models(self) -> tuple[str, ...]:
        """The names of all pairs of models."""
        return ("given",) if self.target else ("smollm2", "gemma3")

    @property
    def model(self) -> str:
        """The name of the first pair, where one is enough."""
        return self.models[0]

    def places(
        self, temperatures: Sequence[float], quick: Sequence[float]
    ) -> list[tuple[str, float]]:
        """Return all models and temperatures; if quick, one model and a few."""
        if self.quick:
            return [(self.model, temperature) for temperature in quick]
        return [*itertools.product(self.models, temperatures)]


@dataclass(frozen=True)
class Task:
    """A part of an experiment."""

    key: str
    """A unique name."""
    function: Callable[..., Records]
    """A module's function, called with the options and `arguments`."""
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Check:
    """A claim that must hold, such as a theorem, and whether it does."""

    claim: str
    holds: bool
    detail: str


class Experiment(Protocol):
    """A module with an experiment.

    Instead of `measure`, it may have `tasks`, which takes the options and returns a
    list of `Task`. It may have `checks` and `chart`, which take the summary and return
    lists of `Check` and `Panel`.
    """

    TITLE: str
    ALONE: bool
    """Whether it measures time, so that nothing else may run."""

    def places(self, options: Options) -> list[tuple[str, float]]:
        """Return the models and temperatures of the completions it needs."""

    def summary(self, records: Records, options: Options) -> dict[str, Any]:
        """Summarize the records, in JSON's types."""

    def tables(self, summary: dict[str, Any]) -> list[Table | Text]:
        """Return the summary as tables."""


def tasks_of(experiment: Experiment, options: Options) -> list[Task]:
    """Return an experiment's own tasks, or one for each of its places."""
    own = getattr(experiment, "tasks", None)
    if own:
        return list(own(options))
    measure = experiment.measure  # type: ignore[attr-defined]  # it has one of the two
    places = experiment.places(options)
    return [Task(f"{m} {t:g}", measure, (m, t)) for m, t in places]


def checks_of(experiment: Experiment, summary: dict[str, Any]) -> list[Check]:
    """Return the experiment's checks."""
    own = getattr(experiment, "checks", None)
    return list(own(summary)) if own else []


def grouped(records: Records, *names: str) -> list[tuple[tuple[Any, ...], Records]]:
    """Group records by their values of some names, in order."""
    groups: dict[tuple[Any, ...], Records] = {}
    for record in records:
        groups.setdefault(tuple(record[name] for name in names), []).append(record)
    return list(groups.items())
