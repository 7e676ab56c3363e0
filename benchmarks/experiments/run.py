"""Running tasks in worker processes, and storing results in a folder."""

import json
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.experiments.experiment import (
    Experiment,
    Options,
    Records,
    Task,
    tasks_of,
)
from benchmarks.experiments.traces import texts, write_whole

WORKERS = 2
"""Processes that run tasks, each on one core."""


class OptionsError(ValueError):
    """Options that don't fit; the message says why."""


class Results:
    """The results of a run, in a folder from which a later run continues.

    Raises OptionsError if the folder has results of other options or prompts.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        options.folder.mkdir(parents=True, exist_ok=True)
        given = {k: v for k, v in asdict(options).items() if k != "folder"}
        if options.prompts:
            given["sha256"] = sha256(options.prompts.read_bytes()).hexdigest()
        text = json.dumps(given, default=str)
        path = options.folder / "options.json"
        if not path.exists():
            write_whole(path, text)
        elif path.read_text("utf-8") != text:
            raise OptionsError(
                f"{options.folder} has results with other options, "
                f"{path.read_text('utf-8')}: choose another folder, or remove this one"
            )

    def done(self, name: str) -> dict[str, Records]:
        """Return the records of an experiment, by task key."""
        path = self._path(name)
        if not path.exists():
            return {}
        found = {}
        for line in path.read_text("utf-8").splitlines():
            try:
                task = json.loads(line)
            except ValueError:  # the run was stopped while it wrote this line
                continue
            found[task["task"]] = task["records"]
        return found

    def add(self, name: str, key: str, records: Records) -> None:
        """Keep the records of a task."""
        line = json.dumps({"task": key, "records": records}, allow_nan=False)
        # It begins with a newline in case a run was stopped within a line.
        with self._path(name).open("a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")

    def _path(self, name: str) -> Path:
        return self._options.folder / f"{name}.jsonl"


def run(
    experiments: dict[str, Experiment], options: Options, *, progress: bool = True
) -> dict[str, Records]:
    """Run the missing tasks; return the records of each experiment.

    Tasks that measure time run last, one after the other; all others run in parallel.
    """
    results = Results(options)
    tasks = {name: tasks_of(one, options) for name, one in experiments.items()}
    done = {name: results.done(name) for name in experiments}
    todo = [
        (name, task)
        for name in experiments
        for task in tasks[name]
        if task.key not in done[name]
    ]

    def keep(name: str, key: str, records: Records) -> None:
        results.add(name, key, records)
        done[name][key] = records

    alone = [(name, task) for name, task in todo if experiments[name].ALONE]
    shared = [(name, task) for name, task in todo if not experiments[name].ALONE]
    with _pool(WORKERS) as pool:
        writing = _texts({name: experiments[name] for name, _ in todo}, options)
        for _ in _map(pool, writing, options, "texts", progress):
            pass
        for name, key, found in _map(pool, shared, options, "experiments", progress):
            keep(name, key, found)
    for name, task in tqdm(alone, "timed", disable=not progress):
        keep(name, task.key, task.function(options, *task.arguments))
    return {
        name: [record for task in tasks[name] for record in done[name][task.key]]
        for name in experiments
    }


def _texts(
    experiments: dict[str, Experiment], options: Options
) -> list[tuple[str, Task]]:
    """Return the tasks that generate the experiments' completions."""
    needed = {need for one in experiments.values() for need in one.places(options)}
    return [
        ("texts", Task(f"{model} {temperature:g}", _write_texts, (model, temperature)))
        for model, temperature in sorted(needed)
    ]


def _map(
    pool: ProcessPoolExecutor,
    jobs: Sequence[tuple[str, Task]],
    options: Options,
    title: str,
    progress: bool,
) -> Iterator[tuple[str, str, Records]]:
    """Yield the name, the key and the records of tasks as they are done."""
    futures: dict[Future[Records], tuple[str, str]] = {
        pool.submit(task.function, options, *task.arguments): (name, task.key)
        for name, task in jobs
    }
    try:
        for future in tqdm(
            as_completed(futures), title, total=len(futures), disable=not progress
        ):
            name, key = futures[future]
            yield name, key, future.result()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)  # what else is done is lost
        raise


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_one_thread
    )


def _one_thread() -> None:
    """Use one core: a small model's steps are too short to share."""
    torch.set_num_threads(1)


def _write_texts(options: Options, model: str, temperature: float) -> Records:
    texts(options, model, temperature)
    return []
