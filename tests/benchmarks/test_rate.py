"""What ``python -m benchmarks.rate`` measures, on a few rows."""

from __future__ import annotations

import io
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

import sqs_codec as sqs
from benchmarks.data.drafts import load_drafts, load_targets
from sqs_codec import theory

pytest.importorskip("rich")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

from rich.console import Console

from benchmarks import sources
from benchmarks.rate import schemes
from benchmarks.rate.__main__ import main
from benchmarks.rate.measure import OPERATING_POINTS, Results, run
from benchmarks.rate.report import STYLES, plot, report
from benchmarks.rate.schemes import (
    C_SQS,
    ENTROPY,
    ENUMERATIVE,
    K_SQS,
    ROUNDS,
    SAME,
    SCHEMES,
    Row,
)
from benchmarks.sources import shipped
from tests import where_bits_go

VOCAB_SIZE = 49_152
TEMPERATURES = (0.7, 1.0)
ROWS = 7


@pytest.fixture(scope="module")
def results() -> Results:
    return run(shipped().first(ROWS), TEMPERATURES, seed=1, progress=False)


def logits() -> list[np.ndarray]:
    """The draft's rows that `results` are of."""
    (session,) = shipped().first(ROWS).sessions
    return [session.draft[i] for i in range(ROWS)]


def test_shipped_rows_are_held_out_and_paired() -> None:
    source = shipped()
    drafts, targets = load_drafts(), load_targets()
    assert source.rows == 556
    assert np.array_equal(drafts.token, targets.token)
    assert np.array_equal(drafts.prompt, targets.prompt)
    assert source.first(40).rows == 40
    assert [len(s) for s in source.first(40).sessions] == [32, 8]


def test_every_scheme_has_a_monotone_front(results: Results) -> None:
    for measured in results.temperatures:
        assert measured.rows == ROWS
        assert set(measured.sums) == set(SCHEMES)
        for scheme in SCHEMES:
            for against in ("tv", "acceptance"):
                bits, loss = measured.front(scheme, against)
                assert len(bits) == len(loss) > 0
                assert np.all(np.diff(bits) < 0)
                assert np.all(np.diff(loss) > 0)


def test_paper_bits_are_the_formula(results: Results) -> None:
    support = math.log2(math.comb(VOCAB_SIZE, 64))
    counts = math.log2(math.comb(100 + 63, 63))
    for measured in results.temperatures:
        assert measured.mean(K_SQS, SAME)[0] == 855
        assert math.ceil(support) + math.ceil(counts) == 855
        probs = [np.exp(row.astype(float) / measured.temperature) for row in logits()]
        for setting, sums in list(measured.sums[C_SQS].items())[40:400:150]:
            assert isinstance(setting.keep, sqs.Threshold)
            least, total = setting.keep.beta, 0
            for q in probs:
                kept = max(1, np.count_nonzero(q >= least * q.sum()))
                total += theory.paper_bits(
                    VOCAB_SIZE, kept, setting.resolution or 0, conformal=True
                )
            assert sums[0] == total


@pytest.mark.parametrize(
    "keep", [sqs.TopK(1), sqs.TopK(64), sqs.Threshold(0.01), sqs.Threshold(1e-6)]
)
@pytest.mark.parametrize("resolution", [1, 100, 5000])
def test_lattice_is_what_the_codec_quantizes(
    keep: sqs.TopK | sqs.Threshold, resolution: int
) -> None:
    codec = sqs.Codec(VOCAB_SIZE, resolution, "bitpack")
    for index in (3, 700):
        row = load_drafts().row(index)
        measured = Row(row, row, 0.7)
        sent = measured.send(keep, resolution)
        q = codec.quantize(row, keep, temperature=0.7)
        assert sent.q == q
        dropped = measured.dropped_mass(sent.kept)
        assert dropped == pytest.approx(q.dropped_mass, abs=1e-7)


def test_losses_are_those_of_the_dense_distributions() -> None:
    row = Row(load_drafts().row(40), target := load_targets().row(40), 1.0)
    assert row.p == pytest.approx(schemes.softmax(target, 1.0))
    for keep, resolution in list(schemes.our_settings())[::37]:
        sent = row.send(keep, resolution)
        dense = sent.q.to_dense(np.float64)
        assert sent.loss.tv == pytest.approx(theory.total_variation(row.q, dense))
        rate = theory.acceptance_rate(row.p, sent.q)
        assert sent.loss.acceptance == pytest.approx(rate)
    assert row.send_raw(384).tv < row.send_raw(8).tv < row.send_raw(1).tv


def test_entropy_points_are_the_codec_s_bits(results: Results) -> None:
    codec = sqs.Codec(VOCAB_SIZE, 100)
    plain = sqs.Codec(VOCAB_SIZE, 100, "enumerative")
    for measured in results.temperatures:
        at = {"temperature": measured.temperature}
        qs = [codec.quantize(row, sqs.TopK(64), **at) for row in logits()]
        assert measured.sums[ENTROPY][SAME][0] == sum(map(codec.bits, qs))
        assert measured.sums[ENUMERATIVE][SAME][0] == sum(map(plain.bits, qs))
        # A round pays for its end, and less than single packets for what it repeats.
        ratio = measured.mean(ROUNDS, SAME)[0] / measured.mean(ENTROPY, SAME)[0]
        assert 0.8 < ratio < 1.1


def test_ratios_are_to_the_better_of_the_papers(results: Results) -> None:
    points = results.at(OPERATING_POINTS, "tv")
    assert [point["loss"] for point in points] == [0.02, 0.05, 0.1, 0.15]
    for point in points:
        paper = min(point["bits"][K_SQS], point["bits"][C_SQS])
        for scheme, ratio in point["ratio"].items():
            assert ratio == pytest.approx(point["bits"][scheme] / paper)


def test_report_and_plot_show_every_scheme(results: Results, tmp_path: Path) -> None:
    out = io.StringIO()
    Console(width=80, file=out).print(report(results))
    text = out.getvalue()
    assert "…" not in text
    assert all(text.count(f"\n {scheme} ") == 2 for scheme in SCHEMES)
    assert "855.0" in text
    plot(results, tmp_path / "rate.svg")
    drawn = (tmp_path / "rate.svg").read_text("utf-8")
    assert all(scheme in drawn for scheme in STYLES)
    assert "prefers-color-scheme: dark" in drawn
    assert not re.search("#000000|#ffffff", drawn)


def test_command_measures_the_shipped_drafts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--rows", "3", "--temperature", "0.8"]
    command += ["--plot", str(tmp_path / "a.svg")]
    assert main(command) == 0
    assert "3 rows of 49152 tokens in 1 sessions" in capsys.readouterr().out
    assert (tmp_path / "a.svg").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--draft", "a", "--target", "b"], "--draft needs --prompts"),
        (["--temperature", "0"], "must be at least 0.05, not 0"),
    ],
)
def test_bad_usage_is_explained(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert said in capsys.readouterr().err


def test_prompts_that_are_not_there_are_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--prompts", str(tmp_path / "nothing.txt")]) == 1
    assert "nothing.txt" in capsys.readouterr().err


def test_prompts_are_read_in_turns(tmp_path: Path) -> None:
    plain = tmp_path / "prompts.txt"
    plain.write_text("one\n\ntwo\n", "utf-8")
    assert sources.read_prompts(plain) == ["one", "two"]
    lines = tmp_path / "prompts.jsonl"
    records = [("x", "1"), ("x", "2"), ("x", "3"), ("y", "4"), ("y", "5")]
    lines.write_text(
        "\n".join(json.dumps({"category": c, "turns": [t, "more"]}) for c, t in records)
    )
    assert sources.read_prompts(lines) == ["1", "4", "2", "5", "3"]
    lines.write_text('{"category": "x"}')
    with pytest.raises(ValueError, match="line 1"):
        sources.read_prompts(lines)


def test_where_bits_go_adds_up(capsys: pytest.CaptureFixture[str]) -> None:
    where_bits_go.main(["--rows", "10"])
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["T", *where_bits_go.SYMBOLS, "sum", "sent"]
    for line in lines:
        *parts, total, sent = map(float, line.split()[1:])
        assert all(part > 0 for part in parts)
        assert sum(parts) == pytest.approx(total, abs=0.5)
        # Of the two rounds' padding and of the coder's rounding.
        assert -0.2 <= sent - total <= 9 / where_bits_go.ROUND
