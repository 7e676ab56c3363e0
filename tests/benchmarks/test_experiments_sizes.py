"""Where small drafts pay, what of them is lost, and which files are refused."""

import itertools

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from types import SimpleNamespace

from tokenizers import Tokenizer, models

from benchmarks.experiments import mismatch, sizes
from benchmarks.experiments.experiment import Options
from benchmarks.experiments.temperature import C_SQS, DEFAULTS
from benchmarks.harness.recorded import Steps
from benchmarks.rate.schemes import Row
from benchmarks.sizes.student import Size, Student, save

V = 300


def test_a_draft_pays_from_the_pace_that_is_stated():
    rng = np.random.default_rng(0)
    records = []
    for _ in range(6):
        accepted, bits = rng.uniform(0.4, 0.9, 30), rng.uniform(20, 90, 30)
        counts = [mismatch.count(accepted, bits, n) for n in mismatch.LENGTHS]
        records.append({"step": 0.002, "rows": 30, "counts": counts})
    rows = np.full(6, 30.0)
    for uplink in mismatch.UPLINKS:
        rate = sizes.pays(records, uplink)["value"]
        for pace, gain in ((1 / rate, 1), (1.1 / rate, 1.001), (0.9 / rate, 0.999)):
            steps = Steps(0, pace, 0.05 * pace)
            found = mismatch.fastest(records, rows, uplink, steps)
            paid = found["speed"]["value"] / found["alone"] / sizes.PAYS
            assert (paid >= gain) if gain > 1 else (paid <= gain + 1e-9), uplink
    records = [record | {"step": 10.0} for record in records]
    assert sizes.pays(records, uplink)["value"] < 0.1


def test_what_is_lost_is_told_apart():
    """The parts are the total variations on the way from one model to the other."""
    rng = np.random.default_rng(0)
    rows = [Row(*rng.gumbel(size=(2, V)) * 2, 1.0) for _ in range(5)]
    keep = DEFAULTS[C_SQS].keep()
    stub = SimpleNamespace(vocab_size=V, prior=None)
    found = sizes.losses(stub, rows, keep, True)
    keep, parts = DEFAULTS[C_SQS].keep(), np.zeros(3)
    for row in rows:
        sent = row.send(keep, 100)
        left = np.zeros(V)
        order = np.argsort(-row.q, kind="stable")[: sent.kept]
        left[order] = row.q[order] / row.q[order].sum()
        way = row.p, row.q, left, sent.q.to_dense(float)
        parts += [np.abs(a - b).sum() / 2 for a, b in itertools.pairwise(way)]
        keep.update(row.dropped_mass(sent.kept))
    assert [found[part] for part in sizes.PARTS] == pytest.approx(parts)
    assert len(rows) - found["accepted"] <= sum(parts) + 1e-9


def target(words):
    known = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token=words[0]))
    pair = SimpleNamespace(
        summary="a target",
        stop={0},
        tokenizer=SimpleNamespace(
            chat_template=None,
            backend_tokenizer=tokenizer,
            get_vocab=tokenizer.get_vocab,
        ),
    )
    return SimpleNamespace(name="some", pair=pair, vocab_size=V)


def test_files_that_are_no_drafts_for_the_target_are_refused(tmp_path):
    some = target([f"w{i}" for i in range(V)])
    table = torch.zeros(256, 8)
    places = np.arange(V) % 256, np.arange(256)
    student = Student(Size(256, 8, 16, 4), *places, table, np.ones(V))
    save(student, some.pair, tmp_path / "some-tiny.npz")
    (tmp_path / "other-1M.npz").write_bytes(b"of another model: not read")
    options = Options(tmp_path, drafts=tmp_path)
    (tiny,) = sizes.small_drafts(options, some)
    assert (tiny.name, tiny.embeddings) == ("tiny", 256 * 8)
    assert tiny.parameters > 256 * 8 + 3 * 16 * (8 + 16)
    another = target([f"v{i}" for i in range(V)])
    with pytest.raises(sizes.ModelError, match=r"tiny\.npz is a draft of another tok"):
        sizes.small_drafts(options, another)
    (tmp_path / "some-tiny.npz").write_bytes(b"junk")
    with pytest.raises(sizes.ModelError, match=r"tiny\.npz is no small draft: cut or"):
        sizes.small_drafts(options, some)
