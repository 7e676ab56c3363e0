"""Figures of ``sqs bits``, against an independent computation."""

import io
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import sqs_codec as sqs
from sqs_codec.bits import CODINGS, RESOLUTIONS, RULES, measure
from sqs_codec.cli import main as cli
from sqs_codec.cli.bits import pareto
from tests.kit import independent_counts, softmax
from tests.refusals import fails

VOCAB_SIZE = 700
TEMPERATURE = 0.8
ROWS = 6


@pytest.fixture(scope="module")
def logits():
    rows = np.random.default_rng(7).normal(0, 3, (ROWS, VOCAB_SIZE))
    rows[1, ::3] = -np.inf
    return rows.astype(np.float32)


@pytest.fixture(scope="module")
def costs(logits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bits")
    np.save(folder / "logits.npy", logits)
    command = ["bits", str(folder / "logits.npy"), "--temperature", str(TEMPERATURE)]
    command += ["--json", str(folder / "bits.json"), "--plot", str(folder / "bits.png")]
    assert cli.main(command) == 0
    assert (folder / "bits.png").read_bytes().startswith(b"\x89PNG")
    text = (folder / "bits.json").read_text("utf-8")
    return json.loads(text, parse_constant=pytest.fail)


def save(path, array):
    np.save(path, array)
    return str(path)


def test_json_has_every_setting(costs):
    expected = {"file": "", "model": None, "rows": ROWS, "rows_in_file": ROWS}
    expected |= {"vocab_size": VOCAB_SIZE, "dtype": "float32", "prior": None}
    expected["temperature"] = TEMPERATURE
    assert costs["measured"] | {"file": ""} == expected
    settings = {
        (point["rule"], point.get("k", point.get("beta")), point["resolution"])
        for point in costs["points"]
    }
    rules = [
        (type(rule).__name__, getattr(rule, "k", getattr(rule, "beta", None)))
        for rule in RULES
    ]
    assert settings == {(*rule, r) for rule in rules for r in RESOLUTIONS}
    assert all(set(point["bits"]) == set(CODINGS) for point in costs["points"])


@pytest.mark.parametrize("k", [1, 8, 64])
@pytest.mark.parametrize("resolution", [10, 100, 1000])
def test_points_are_means_computed_with_numpy(costs, logits, k, resolution):
    (point,) = (
        p for p in costs["points"] if p.get("k") == k and p["resolution"] == resolution
    )
    codec = sqs.Codec(VOCAB_SIZE, resolution)
    tokens, dropped, tv, packed, ranked, coded = [], [], [], [], [], []
    for row in logits:
        probs = softmax(row, TEMPERATURE)
        counts, _ = independent_counts(row, k, TEMPERATURE, resolution)
        n = np.count_nonzero(counts)
        tokens.append(n)
        dropped.append(1 - np.sort(probs)[-k:].sum())
        tv.append(np.abs(counts / resolution - probs).sum() / 2)
        size = (min(VOCAB_SIZE, resolution) - 1).bit_length()
        packed.append(size + 10 * n + (n - 1) * int(resolution - n).bit_length())
        ways = math.comb(VOCAB_SIZE, n) * math.comb(resolution - 1, n - 1)
        ranked.append(size + math.ceil(math.log2(ways)))
        (ids,) = np.nonzero(counts)
        q = sqs.SparseDistribution(ids, counts[ids].astype(int), VOCAB_SIZE)
        coded.append(8 * len(codec.encode(q)))
    assert point["tokens"] == pytest.approx(np.mean(tokens))
    assert point["dropped_mass"] == pytest.approx(np.mean(dropped), abs=1e-7)
    assert point["tv"] == pytest.approx(np.mean(tv), abs=1e-7)
    assert point["bits"]["enumerative"] == pytest.approx(np.mean(ranked))
    assert np.mean(coded) - 9 <= point["bits"]["entropy"] <= np.mean(coded) + 1
    assert point["bits"]["bitpack"] == pytest.approx(np.mean(packed))


def test_recommendation_is_the_cheapest_close_enough(costs):
    top_k, threshold, conformal = costs["best"]
    for best in (top_k, threshold):
        assert costs["most_tv"] == 0.05
        others = [p for p in costs["points"] if p["rule"] == best["rule"]]
        allowed = [p["bits"]["entropy"] for p in others if p["tv"] <= 0.05]
        assert best in costs["points"]
        assert best["bits"]["entropy"] == min(allowed)
    assert conformal["rule"] == "Conformal"
    assert conformal["beta"] == threshold["beta"]
    assert conformal["resolution"] == threshold["resolution"]
    assert conformal["alpha"] == pytest.approx(threshold["dropped_mass"], rel=0.05)
    # Six steps of a thousandth hardly move the threshold.
    assert conformal["tv"] == pytest.approx(threshold["tv"], abs=0.01)


def test_report_names_the_best_settings(logits, tmp_path, capsys):
    file = save(tmp_path / "logits.npy", logits)
    assert cli.main(["bits", file, "--tv", "0.2", "--rows", "4"]) == 0
    out = capsys.readouterr().out
    first, *lines = out.splitlines()
    assert first == "Fewest bits with entropy coding, at a mean TV of at most 0.2:"
    assert "4 of 6 rows of 700 logits, float32." in lines
    assert all(len(line) <= 80 for line in lines)
    for name, (k, resolution) in sqs.SETTINGS.items():
        row = rf"^{name}: TopK\({k}\) +{resolution} "
        assert re.search(row, out, re.MULTILINE)
    for rule in "TopK(64) ", "Threshold(0.001) ", "\nConformal(alpha=":
        assert rule in out
    assert cli.main(["bits", file, "--tv", "0.0001", "--temperature", "0.7"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("No setting has a mean TV of at most 0.0001. The smallest:")
    assert "ewest bits" not in out
    assert "\nTemperature 0.7.\n" in out


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_types_and_layouts(logits, dtype, tmp_path, capsys):
    array = np.asfortranarray(logits.astype(np.float16)).astype(dtype)
    file, json_file = save(tmp_path / "a.npy", array), tmp_path / "a.json"
    assert cli.main(["bits", file, "--json", str(json_file)]) == 0
    read = json.loads(json_file.read_text())
    assert read["measured"]["dtype"] == np.dtype(dtype).name
    for point, written in zip(measure(array), read["points"], strict=True):
        assert (point.tv, dict(point.bits)) == (written["tv"], written["bits"])


def test_supports_beyond_the_limit_of_ranks(tmp_path, capsys):
    file, json_file = tmp_path / "flat.npy", tmp_path / "flat.json"
    np.save(file, np.zeros((1, 4000), np.float32))
    assert cli.main(["bits", str(file), "--json", str(json_file)]) == 0
    read = json.loads(json_file.read_text())
    (point,) = (
        p for p in read["points"] if p.get("beta") == 1e-4 and p["resolution"] == 5000
    )
    assert point["tokens"] == 4000
    assert point["bits"]["enumerative"] is None
    assert point["bits"]["bitpack"] > point["bits"]["entropy"] > 0


def bad_row(value):
    rows = np.zeros((9, 30), np.float32)
    rows[5, 7] = value
    return rows


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((2, 3, 4)), "got float64 of shape [2, 3, 4]"),
        (np.zeros((2, 30), np.int32), "got int32 of shape [2, 30]"),
        (np.zeros((2, 30), np.longdouble), "a dtype of float16, float32, float64"),
        (np.zeros((0, 30), np.float32), "got float32 of shape [0, 30]"),
        (np.zeros((2, 1), np.float32), "got float32 of shape [2, 1]"),
        (bad_row(np.nan), "a.npy: row 5: logits[7] is nan; values must be finite"),
        (bad_row(np.inf), "a.npy: row 5: logits[7] is inf; values must be finite"),
        (np.full((3, 30), -np.inf, np.float16), "row 0: logits: every token is masked"),
        (
            np.eye(30, dtype=np.float32)[:3] / 2 + np.float32(1 / 60),
            "a.npy must have logits, but row 0 looks like probabilities",
        ),
    ],
)
def test_bad_arrays_are_explained(array, said, tmp_path, capsys):
    fails(capsys, said, "bits", save(tmp_path / "a.npy", array))


def test_bad_files_are_explained(tmp_path, capsys):
    (tmp_path / "text.npy").write_text("no logits")
    (tmp_path / "empty.npy").write_bytes(b"")
    np.savez(tmp_path / "two.npz", a=np.zeros((2, 9)))
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    for name, shape in ("negative.npy", (-1, 9)), ("true.npy", (True, 9)):
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        with (tmp_path / name).open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            file.write(bytes(36))
    for name, said in {
        "nothing.npy": "No such file",
        "negative.npy": "is not a .npy file of numbers",
        "true.npy": "is not a .npy file of numbers",
        "text.npy": "is not a .npy file of numbers",
        "empty.npy": "is not a .npy file of numbers",
        "two.npz": "has several arrays",
        "objects.npy": "is not a .npy file of numbers",
    }.items():
        assert name in fails(capsys, said, "bits", tmp_path / name)


def test_options_that_do_not_fit_the_file_are_explained(tmp_path, capsys):
    file = save(tmp_path / "a.npy", np.zeros((2, 30), np.float32))
    said = "a.npy: the prior has a vocabulary of 50257"
    fails(capsys, said, "bits", file, "--prior", "gpt2")
    nowhere = tmp_path / "no" / "b.json"
    said = f"no folder {nowhere.parent} to write to"
    fails(capsys, said, "bits", file, "--json", nowhere)


def test_logits_come_from_standard_input(logits, tmp_path, monkeypatch, capsys):
    file = save(tmp_path / "a.npy", logits)
    assert cli.main(["bits", file]) == 0
    out = capsys.readouterr().out
    for data, status in (Path(file).read_bytes(), 0), (b"junk", 1):
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(data)))
        assert cli.main(["bits", "-"]) == status
    said = "sqs bits: standard input is not a .npy file of numbers\n"
    assert capsys.readouterr() == (out, said)


def test_pareto_front_has_only_unbeaten_points():
    rng = np.random.default_rng(2)
    spent, loss = rng.integers(1, 20, 60).astype(float), rng.integers(0, 20, 60) / 20
    spent[7] = math.inf
    front = pareto(spent, loss)
    for i in range(60):
        beaten = np.any(
            (spent <= spent[i])
            & (loss <= loss[i])
            & ((spent < spent[i]) | (loss < loss[i]))
        )
        on_front = np.any((spent[front] == spent[i]) & (loss[front] == loss[i]))
        assert on_front == (not beaten and math.isfinite(spent[i]))
