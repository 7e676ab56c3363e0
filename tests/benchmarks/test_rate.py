"""What ``python -m benchmarks.rate`` measures, on a few rows."""

import math

import numpy as np
import pytest

import sqs_codec as sqs
from benchmarks.data.drafts import load_drafts, load_targets
from sqs_codec import theory

pytest.importorskip("rich")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")


from benchmarks.rate import schemes
from benchmarks.rate.measure import run
from benchmarks.rate.schemes import (
    C_SQS,
    ENTROPY,
    ENUMERATIVE,
    K_SQS,
    ROUNDS,
    SAME,
    Row,
)
from benchmarks.sources import shipped
from tests import where_bits_go

VOCAB_SIZE = 49_152
TEMPERATURES = (0.7, 1.0)
ROWS = 7


@pytest.fixture(scope="module")
def results():
    return run(shipped().first(ROWS), TEMPERATURES, seed=1, progress=False)


def logits():
    """The draft's rows that `results` are of."""
    (session,) = shipped().first(ROWS).sessions
    return [session.draft[i] for i in range(ROWS)]


def test_paper_bits_are_the_formula(results):
    support = math.log2(math.comb(VOCAB_SIZE, 64))
    counts = math.log2(math.comb(100 + 63, 63))
    for measured in results.temperatures:
        assert measured.mean(K_SQS, SAME)[0] == 855
        assert math.ceil(support) + math.ceil(counts) == 855
        probs = [np.exp(row.astype(float) / measured.temperature) for row in logits()]
        for setting, sums in list(measured.sums[C_SQS].items())[40:400:150]:
            least, total = setting.keep.beta, 0
            for q in probs:
                kept = max(1, np.count_nonzero(q >= least * q.sum()))
                total += theory.paper_bits(
                    VOCAB_SIZE, kept, setting.resolution, conformal=True
                )
            assert sums[0] == total


@pytest.mark.parametrize(
    "keep", [sqs.TopK(1), sqs.TopK(64), sqs.Threshold(0.01), sqs.Threshold(1e-6)]
)
@pytest.mark.parametrize("resolution", [1, 100, 5000])
def test_lattice_is_what_the_codec_quantizes(keep, resolution):
    codec = sqs.Codec(VOCAB_SIZE, resolution, "bitpack")
    for index in (3, 700):
        row = load_drafts().row(index)
        measured = Row(row, row, 0.7)
        sent = measured.send(keep, resolution)
        q = codec.quantize(row, keep, temperature=0.7)
        assert sent.q == q
        dropped = measured.dropped_mass(sent.kept)
        assert dropped == pytest.approx(q.dropped_mass, abs=1e-7)


def test_losses_are_those_of_the_dense_distributions():
    row = Row(load_drafts().row(40), target := load_targets().row(40), 1.0)
    assert row.p == pytest.approx(schemes.softmax(target, 1.0))
    for keep, resolution in list(schemes.our_settings())[::37]:
        sent = row.send(keep, resolution)
        dense = sent.q.to_dense(np.float64)
        assert sent.loss.tv == pytest.approx(theory.total_variation(row.q, dense))
        rate = theory.acceptance_rate(row.p, sent.q)
        assert sent.loss.acceptance == pytest.approx(rate)
    assert row.send_raw(384).tv < row.send_raw(8).tv < row.send_raw(1).tv


def test_entropy_points_are_the_codec_s_bits(results):
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


def test_where_bits_go_adds_up(capsys):
    where_bits_go.main(["--rows", "10"])
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["T", *where_bits_go.SYMBOLS, "sum", "sent"]
    for line in lines:
        *parts, total, sent = map(float, line.split()[1:])
        assert all(part > 0 for part in parts)
        assert sum(parts) == pytest.approx(total, abs=0.5)
        # Of the two rounds' padding and of the coder's rounding.
        assert -0.2 <= sent - total <= 9 / where_bits_go.ROUND
