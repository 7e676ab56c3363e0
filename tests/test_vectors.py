"""Golden vectors: the format as files that no code here can quietly change."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from sqs_codec._core import ffi, lib

import sqs_codec as sqs
from sqs_codec._errors import BROKEN_RULES, Status
from tests.kit import as_lists
from tests.reference import make_vectors
from tests.reference import sqs_reference as reference

pytestmark = pytest.mark.usefixtures("backend")

KEEP = {
    "top_k": sqs.TopK,
    "threshold": sqs.Threshold,
    "top_p": sqs.TopP,
    "min_p": sqs.MinP,
}


def load(name):
    return json.loads((make_vectors.VECTORS / name).read_text())


@pytest.mark.parametrize("name", make_vectors.FILES)
def test_reference_still_makes_them(name):
    assert load(name) == make_vectors.FILES[name]()


@pytest.mark.parametrize("case", load("distributions.json")["cases"])
def test_distributions(case):
    keep = KEEP[case["keep"][0]](case["keep"][1])
    logits = make_vectors.formula_logits(case["vocab_size"], case["seed"])
    for coding, packet in case["packets"].items():
        codec = sqs.Codec(case["vocab_size"], case["resolution"], coding)
        q = codec.quantize(logits, keep, case["temperature"])
        assert as_lists(q) == (
            case["token_ids"],
            case["counts"],
            float.fromhex(case["dropped_mass"]),
        )
        assert codec.encode(q).hex() == packet
        assert codec.decode(bytes.fromhex(packet)) == q


@pytest.mark.parametrize("case", load("rounds.json")["cases"])
def test_rounds(case):
    codec = sqs.Codec(case["vocab_size"], case["resolution"], case["coding"])
    drafted = [
        codec.quantize(
            make_vectors.formula_logits(case["vocab_size"], seed), sqs.TopK(32)
        )
        for seed in range(case["length"])
    ]
    round_ = sqs.Round(drafted, case["tokens"])
    assert codec.encode_round(drafted, case["tokens"]).hex() == case["packet"]
    assert codec.decode_round(bytes.fromhex(case["packet"])) == round_


@pytest.mark.parametrize("case", load("malformed.json")["cases"])
def test_each_rule_has_its_error(case):
    codec = sqs.Codec(case["vocab_size"], case["resolution"], case["coding"])
    packet = bytes.fromhex(case["packet"])
    decode = codec.decode if case["kind"] == "distribution" else codec.decode_round
    with pytest.raises(sqs.PacketError) as caught:
        decode(packet)
    message = BROKEN_RULES[Status[case["rule"]]]
    assert str(caught.value) == f"packet of {len(packet)} bytes: {message}"


def test_every_rule_is_covered():
    rules = {case["rule"] for case in load("malformed.json")["cases"]}
    assert rules == {status.name for status in BROKEN_RULES}


def test_statuses_are_those_of_the_c_core():
    header = (Path(__file__).parents[1] / "csrc" / "sqs.h").read_text()
    enum = header[header.index("enum sqs_status") : header.index("} sqs_status;")]
    names = re.findall(r"^ {4}SQS_(\w+)", enum, re.MULTILINE)
    assert names == [status.name for status in Status]
    for status, text in BROKEN_RULES.items():
        assert ffi.string(lib.sqs_status_text(status)).decode() == text


def test_worked_example_of_the_format():
    """The example that docs/format.md takes apart."""
    q = sqs.SparseDistribution([1, 4], [8, 2], 8)
    assert sqs.Codec(8, 10).encode(q).hex() == "28c0"
    assert sqs.Codec(8, 10, "bitpack").encode(q).hex() == "2638"
    assert reference.encode([1, 4], [8, 2], 8, 10, "enumerative").hex() == "28c0"
    assert np.array_equal(sqs.Codec(8, 10).decode(b"\x28\xc0").counts, [8, 2])
