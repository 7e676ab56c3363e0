"""The interface of experiments, and their inputs."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.table import Table
from rich.text import Text

NAMES = {"smollm2": "SmolLM2", "gemma3": "Gemma 3", "given": "the models given"}
"""Of models, for people."""

Records = list[dict[str, Any]]


@dataclass(frozen=True)
class Options:
    """What a run depends on."""

    folder: Path
    """Of its results."""
    quick: bool = False
    """In miniature."""
    seed: int = 0
    """Of everything that is drawn."""
    prompts: Path | None = None
    """Instead of our own."""
    draft: str | None = None
    target: str | None = None
    """Hugging Face models instead of SmolLM2 and Gemma 3."""
    drafts: Path | None = None
    """The folder of small drafts, MODEL-SIZE.npz."""

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the models that claims about models are shown on."""
        return ("given",) if self.target else ("smollm2", "gemma3")

    @property
    def model(self) -> str:
        """The name of the models that one pair is enough for."""
        return self.models[0]

    def places(
        self, temperatures: Sequence[float], quick: Sequence[float]
    ) -> list[tuple[str, float]]:
        """Return all models at all temperatures; one at the quick ones if quick."""
        if self.quick:
            return [(self.model, temperature) for temperature in quick]
        return [*itertools.product(self.models, temperatures)]


@dataclass(frozen=True)
class Task:
    """A part of an experiment."""

    key: str
    """Its name, unlike that of any other part."""
    function: Callable[..., Records]
    """Of a module; called with the options and `arguments`, it returns records."""
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Check:
    """Something that has to hold, such as a theorem, and whether it does."""

    claim: str
    holds: bool
    detail: str


class Experiment(Protocol):
    """A module that measures something.

    It may have `tasks`, which takes the options and returns a list of `Task`, in place
    of `measure`. It may have `checks` and `chart`, which take the summary and return a
    list of `Check`, and of `Panel`, which show the finding.
    """

    TITLE: str
    ALONE: bool
    """Whether it times something, so that nothing may run beside it."""

    def places(self, options: Options) -> list[tuple[str, float]]:
        """Return the models and temperatures whose texts it reads."""

    def summary(self, records: Records, options: Options) -> dict[str, Any]:
        """Return what the records come to, in JSON's types."""

    def tables(self, summary: dict[str, Any]) -> list[Table | Text]:
        """Return the summary for people."""


def tasks_of(experiment: Experiment, options: Options) -> list[Task]:
    """Return an experiment's own tasks, or one for each of its places."""
    own = getattr(experiment, "tasks", None)
    if own:
        return list(own(options))
    measure = experiment.measure  # type: ignore[attr-defined]  # it has one of the two
    places = experiment.places(options)
    return [Task(f"{m} {t:g}", measure, (m, t)) for m, t in places]


def checks_of(experiment: Experiment, summary: dict[str, Any]) -> list[Check]:
    """Return what has to hold, if anything has."""
    own = getattr(experiment, "checks", None)
    return list(own(summary)) if own else []


def grouped(records: Records, *names: str) -> list[tuple[tuple[Any, ...], Records]]:
    """Group records by what they have under some names, in their order."""
    groups: dict[tuple[Any, ...], Records] = {}
    for record in records:
        groups.setdefault(tuple(record[name] for name in names), []).append(record)
    return list(groups.items())
