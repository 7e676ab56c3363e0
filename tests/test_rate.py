"""What ``sqs bench rate`` measures, on a few rows."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest

import sqs_codec as sqs
from benchmarks.drafts import load_drafts, load_targets
from sqs_codec import cli, theory

pytest.importorskip("rich")
pytest.importorskip("matplotlib")

from rich.console import Console

from benchmarks.rate import shipped
from sqs_codec.bench import ideal, schemes, sources
from sqs_codec.bench.fronts import bits_at, pareto
from sqs_codec.bench.plot import plot
from sqs_codec.bench.rate import run
from sqs_codec.bench.report import ORDER, report
from sqs_codec.bench.results import C_SQS, CODED, ENUMERATIVE, K_SQS, Results
from sqs_codec.bench.schemes import Row

VOCAB_SIZE = 49_152
TEMPERATURES = (0.7, 1.0)
ROWS = 12


@pytest.fixture(scope="module")
def results() -> Results:
    return run(shipped().first(ROWS), TEMPERATURES, seed=1, progress=False)


def test_shipped_rows_are_held_out_and_paired() -> None:
    source = shipped()
    drafts, targets = load_drafts(), load_targets()
    assert source.has_target
    assert source.rows == 556
    assert np.array_equal(drafts.token, targets.token)
    assert np.array_equal(drafts.prompt, targets.prompt)
    assert source.first(40).rows == 40
    assert [len(s) for s in source.first(40).sessions] == [32, 8]


def test_every_scheme_has_a_monotone_front(results: Results) -> None:
    for measured in results.temperatures:
        assert set(measured.points) == set(ORDER)
        for scheme in ORDER:
            for against in ("tv", "acceptance"):
                bits, loss, settings = measured.front(scheme, against)
                assert len(bits) == len(loss) == len(settings) > 0
                assert np.all(np.diff(bits) < 0)
                assert np.all(np.diff(loss) > 0)
            assert all(point.rows == ROWS for point in measured.points[scheme].values())


def test_pareto_front_is_what_nothing_beats() -> None:
    rng = np.random.default_rng(2)
    bits, loss = rng.integers(1, 20, 60).astype(float), rng.integers(0, 20, 60) / 20
    bits[7] = math.inf
    front = pareto(bits, loss)
    for i in range(60):
        beaten = np.any(
            (bits <= bits[i])
            & (loss <= loss[i])
            & ((bits < bits[i]) | (loss < loss[i]))
        )
        on_front = np.any((bits[front] == bits[i]) & (loss[front] == loss[i]))
        assert on_front == (not beaten and math.isfinite(bits[i]))


def test_bits_between_points_of_a_front() -> None:
    bits, loss = np.array([90.0, 30.0, 10.0]), np.array([0.1, 0.2, 0.4])
    assert bits_at(bits, loss, 0.2) == pytest.approx(30)
    assert bits_at(bits, loss, 0.15) == pytest.approx(math.sqrt(90 * 30))
    assert bits_at(bits, loss, 0.3) == pytest.approx(math.sqrt(30 * 10))
    assert bits_at(bits, loss, 0.9) == pytest.approx(10)
    assert bits_at(bits, loss, 0.09) is None


def test_paper_bits_are_the_formula(results: Results) -> None:
    support = math.log2(math.comb(VOCAB_SIZE, 64))
    counts = math.log2(math.comb(100 + 63, 63))
    for measured in results.temperatures:
        assert measured.same(K_SQS) == math.ceil(support) + math.ceil(counts) == 855
        rows = [load_drafts().row(i + first_row()).astype(float) for i in range(ROWS)]
        probs = [np.exp(row / measured.temperature) for row in rows]
        for setting, point in list(measured.points[C_SQS].items())[40:400:150]:
            least, total = setting.keep.beta, 0
            for q in probs:
                kept = max(1, np.count_nonzero(q >= least * q.sum()))
                total += theory.paper_bits(
                    VOCAB_SIZE, kept, setting.resolution, conformal=True
                )
            assert point.bits == total


def first_row() -> int:
    """Where the shipped source begins in the drafts file."""
    return int(shipped().sessions[0].draft.indices[0])


@pytest.mark.parametrize(
    "keep", [sqs.TopK(1), sqs.TopK(64), sqs.Threshold(0.01), sqs.Threshold(1e-6)]
)
@pytest.mark.parametrize("resolution", [1, 100, 5000])
def test_lattice_is_what_the_codec_quantizes(
    keep: sqs.TopK | sqs.Threshold, resolution: int
) -> None:
    codec = sqs.Codec(VOCAB_SIZE, resolution, "bitpack")
    for index in (3, 700):
        logits = load_drafts().row(index)
        sent = Row(logits, None, 0.7).lattice(keep, resolution)
        assert sent.q == codec.quantize(logits, keep, 0.7)


def test_losses_are_those_of_the_dense_distributions() -> None:
    logits, target = load_drafts().row(40), load_targets().row(40)
    row = Row(logits, target, 1.0)
    for setting in list(schemes.our_settings())[::37]:
        sent = row.send(setting)
        dense = sent.q.to_dense(np.float64)
        assert sent.loss.tv == pytest.approx(theory.total_variation(row.q, dense))
        rate = theory.acceptance_rate(row.p, sent.q)
        assert sent.loss.acceptance == pytest.approx(rate)
    assert row.raw(384).tv < row.raw(8).tv < row.raw(1).tv


def test_entropy_points_are_the_codec_s_bits(results: Results) -> None:
    codec, drafts = sqs.Codec(VOCAB_SIZE, 100), load_drafts()
    plain = sqs.Codec(VOCAB_SIZE, 100, "enumerative")
    for measured in results.temperatures:
        qs = [
            codec.quantize(drafts.row(i + first_row()), sqs.TopK(64), t)
            for i in range(ROWS)
            for t in [measured.temperature]
        ]
        assert measured.same(CODED["fixed"][0]) * ROWS == sum(map(codec.bits, qs))
        assert measured.same(ENUMERATIVE) * ROWS == sum(map(plain.bits, qs))


def test_parts_add_up_to_the_bytes_sent(results: Results) -> None:
    for measured in results.temperatures:
        assert set(measured.breakdowns) == set(schemes.TAKEN_APART)
        for part in measured.breakdowns.values():
            ideal_bits = part.ideal.total
            assert part.distributions == ROWS
            assert part.rounds == 3
            assert part.sent % 8 == 0
            assert 0 < part.overhead <= 0.01 * ideal_bits + 8 * part.rounds
            names = [part.ideal.resolution, part.ideal.size, part.ideal.counts]
            names += [part.ideal.ids, part.ideal.token, part.ideal.framing]
            assert sum(names) + part.overhead == pytest.approx(part.sent)
        fixed, chosen = measured.breakdowns.values()
        assert fixed.ideal.resolution == 0 < chosen.ideal.resolution


@pytest.mark.parametrize("vocab_size", [2, 1000, 49_152, 262_144])
@pytest.mark.parametrize("resolution", [1, 100, sqs.Resolution()])
def test_ideal_cost_is_what_the_coder_comes_close_to(
    vocab_size: int, resolution: int | sqs.Resolution
) -> None:
    rng = np.random.default_rng(vocab_size)
    codec = sqs.Codec(vocab_size, resolution)
    for scale in (0.0, 2.0, 6.0):
        qs = [
            codec.quantize(
                rng.normal(0, scale, vocab_size).astype(np.float32), sqs.TopK(90)
            )
            for _ in range(6)
        ]
        tokens = [q.sample(rng) for q in qs]
        sent = 8 * len(codec.encode_round(qs, tokens))
        parts = ideal.round_parts(
            qs, tokens, sends_resolution=resolution not in (1, 100)
        )
        # Ids that the model thinks next to impossible cost less than ideal.
        assert -0.01 * parts.total <= sent - parts.total <= 0.01 * parts.total + 8


def test_json_holds_every_point_and_table(results: Results, tmp_path: Path) -> None:
    path = tmp_path / "rate.json"
    results.write(path)
    read = json.loads(path.read_text())
    assert {"source", "rows", "seed", "machine", "backend"} <= set(read["measured"])
    assert [p["tv"] for p in read["operating_points"]] == [0.02, 0.05, 0.1, 0.15]
    for measured in read["temperatures"]:
        assert set(measured["schemes"]) == set(ORDER)
        assert len(measured["breakdowns"]) == len(schemes.TAKEN_APART)
        for points in measured["schemes"].values():
            assert {"bits", "tv", "acceptance", "fronts"} <= set(points[0])
            assert any("tv" in point["fronts"] for point in points)
            assert any("acceptance" in point["fronts"] for point in points)
    for point in read["operating_points"]:
        assert point["paper"] == min(point["bits"][K_SQS], point["bits"][C_SQS])
        for scheme, ratio in point["ratio"].items():
            assert ratio == pytest.approx(point["bits"][scheme] / point["paper"])


def test_report_and_plot_show_every_scheme(results: Results, tmp_path: Path) -> None:
    out = io.StringIO()
    Console(width=80, file=out).print(report(results))
    text = out.getvalue()
    assert "…" not in text
    assert all(f"\n {scheme} " in text for scheme in ORDER)
    assert "855.0" in text
    plot(results, tmp_path / "rate.png")
    assert (tmp_path / "rate.png").read_bytes().startswith(b"\x89PNG")


def test_command_measures_arrays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 3, (8, 300)).astype(np.float32)
    np.save(tmp_path / "draft.npy", logits)
    np.save(tmp_path / "target.npy", logits + rng.normal(0, 1, logits.shape))
    command = ["bench", "rate", "--logits", str(tmp_path / "draft.npy"), "--rows", "6"]
    command += ["--temperature", "0.8", "--json", str(tmp_path / "rate.json")]
    assert cli.main(command) == 0
    assert "6 rows of 300 tokens in 1 sessions" in capsys.readouterr().out
    measured = json.loads((tmp_path / "rate.json").read_text())
    assert measured["operating_points"] == []
    assert measured["temperatures"][0]["draft_acceptance"] is None
    command += ["--target-logits", str(tmp_path / "target.npy")]
    assert cli.main(command) == 0
    measured = json.loads((tmp_path / "rate.json").read_text())
    assert 0 < measured["temperatures"][0]["draft_acceptance"] < 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--logits", "a", "--prompts", "b"], "only one of them"),
        (["--target-logits", "a"], "--target-logits needs --logits"),
        (["--draft", "a", "--target", "b"], "--draft needs --prompts"),
        (["--temperature", "0"], "must be at least 0.05, not 0"),
    ],
)
def test_bad_usage_is_explained(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["bench", "rate", *arguments])
    assert end.value.code == 2
    assert said in capsys.readouterr().err


def test_arrays_that_do_not_fit_are_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 9), np.float32))
    np.save(tmp_path / "b.npy", np.zeros((2, 8), np.float32))
    np.save(tmp_path / "c.npy", np.zeros(9, np.float32))
    for names, said in {
        ("a", "b"): "must be of one shape",
        ("c",): "must hold floats of shape",
        ("nothing",): "nothing.npy",
    }.items():
        options = ["--logits", "--target-logits"][: len(names)]
        pairs = zip(options, names, strict=True)
        command = [x for o, n in pairs for x in (o, str(tmp_path / f"{n}.npy"))]
        assert cli.main(["bench", "rate", *command]) == 1
        assert said in capsys.readouterr().err


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


@pytest.mark.parametrize("module", ["matplotlib", "rich"])
def test_missing_packages_are_named(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == module else name
    )
    assert cli.main(["bench", "rate"]) == 1
    err = capsys.readouterr().err
    assert f"needs {module}" in err
    assert "pip install 'sqs-codec[bench]'" in err
