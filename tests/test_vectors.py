"""Golden vectors: the format as files that no code here can quietly change."""

import json
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from sqs_codec._core import ffi, lib

import sqs_codec as sqs
from benchmarks import fit_model
from sqs_codec._errors import BROKEN_RULES, Status
from tests.kit import CODINGS, as_lists
from tests.reference import BrokenRuleError, entropy, make_vectors
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


def codec_of(case, coding="entropy"):
    """A resolution of 0 is a rule's; which is irrelevant unless it quantizes."""
    rule = case["resolution"] or sqs.Resolution(case.get("error", 0.02))
    return sqs.Codec(case["vocab_size"], rule, coding)


def check_packets(case, q):
    assert set(case["packets"]) == set(CODINGS if case["resolution"] else ["entropy"])
    for coding, packet in case["packets"].items():
        codec = codec_of(case, coding)
        assert codec.encode(q).hex() == packet
        assert codec.decode(bytes.fromhex(packet)) == q


@cache
def made(name):
    """Make a file's content once for both backends, which have no part in it."""
    return make_vectors.FILES[name]()


@pytest.mark.parametrize("name", make_vectors.FILES)
def test_reference_still_makes_them(name):
    assert load(name) == made(name)


@pytest.mark.parametrize("case", load("distributions.json")["cases"])
def test_distributions(case):
    keep = KEEP[case["keep"][0]](case["keep"][1])
    logits = make_vectors.formula_logits(
        case["vocab_size"], case["seed"], case["slope"]
    )
    price = case["bits_per_tv"] or None
    q = codec_of(case).quantize(logits, keep, case["temperature"], price)
    dropped = float.fromhex(case["dropped_mass"])
    assert as_lists(q) == (case["token_ids"], case["counts"], dropped)
    check_packets(case, q)


@pytest.mark.parametrize("case", load("shapes.json")["cases"])
def test_shapes(case):
    seed, vocab_size, k = case["seed"], case["vocab_size"], case["k"]
    cuts = np.array(make_vectors.formula_set(k - 1, case["resolution"] - 1, seed), int)
    ids = make_vectors.formula_set(k, vocab_size, seed)
    if case["last_ids"]:
        ids = np.arange(vocab_size)[-k:]
    counts = np.diff(np.concatenate([[0], cuts + 1, [case["resolution"]]]))
    check_packets(case, sqs.SparseDistribution(ids, counts, vocab_size))


@pytest.mark.parametrize("case", load("rounds.json")["cases"])
def test_rounds(case):
    codec = codec_of(case, case["coding"])
    drafted = [
        codec.quantize(
            make_vectors.formula_logits(case["vocab_size"], seed), sqs.TopK(32)
        )
        for seed in range(case["length"])
    ]
    round_ = sqs.Round(drafted, case["tokens"])
    assert codec.encode_round(drafted, case["tokens"]).hex() == case["packet"]
    assert codec.decode_round(bytes.fromhex(case["packet"])) == round_


@pytest.mark.parametrize("case", load("streams.json")["cases"])
def test_streams(case):
    codec = codec_of(case)
    edge, cloud = sqs.StreamEncoder(codec), sqs.StreamDecoder(codec)
    for packet in case["packets"]:
        drafted = [
            codec.quantize(
                make_vectors.formula_logits(case["vocab_size"], seed, case["slope"]),
                sqs.TopK(case["k"]),
            )
            for seed in packet["seeds"]
        ]
        data = bytes.fromhex(packet["packet"])
        if data[0] & 0x80:
            edge.restart()
        assert edge.encode_round(drafted, packet["tokens"]) == data
        assert cloud.decode_round(data) == sqs.Round(drafted, packet["tokens"])


@pytest.mark.parametrize("case", load("tokens.json")["cases"])
def test_tokens(case):
    codec = codec_of(case, case["coding"])
    drafted = case["tokens"], case["counts"], case["resolutions"]
    data = bytes.fromhex(case["packet"])
    assert codec.encode_tokens(*drafted) == data
    assert codec.decode_tokens(data) == sqs.DraftedTokens(*map(tuple, drafted))


@pytest.mark.parametrize("case", load("malformed.json")["cases"])
def test_each_rule_has_its_error(case):
    codec = codec_of(case, case["coding"])
    packet = bytes.fromhex(case["packet"])
    suffix = "" if case["kind"] == "distribution" else "_" + case["kind"]
    with pytest.raises(sqs.PacketError) as caught:
        getattr(codec, "decode" + suffix)(packet)
    message = BROKEN_RULES[Status[case["rule"]]]
    assert str(caught.value) == f"packet of {len(packet)} bytes: {message}"
    if case["rule"] != "ROUND_SUPPORT":  # where the reference takes minutes
        decode = getattr(reference, "decode" + suffix)
        with pytest.raises(BrokenRuleError, match=f"^{case['rule']}$"):
            decode(packet, case["vocab_size"], case["resolution"], case["coding"])


def test_all_ways_of_the_entropy_coding_are_met(monkeypatch):
    """Both modes of counts and of ids, complements, and each kind of forgetting."""
    met = set()

    def spy(name, note):
        function = getattr(entropy, name)

        def wrapped(*arguments):
            met.add(note(*arguments))
            return function(*arguments)

        monkeypatch.setattr(entropy, name, wrapped)

    spy("code_counts", lambda *arguments: ("counts", arguments[-1]))
    spy("code_ids", lambda *arguments: ("ids", arguments[-1]))
    spy("code_uniform_set", lambda _, n, size, ids: ("complement", 2 * n > size > n))
    learn = entropy.Memory.learn

    def forget(memory, ids):
        before = memory.weights
        learn(memory, ids)
        if len(ids) > entropy.MEMORY_SUPPORT:
            assert memory.weights == before
            met.add("large support")
        gone = [before[x] for x in before.keys() - memory.weights.keys()]
        met.update("faded" if w <= 32 else "made room" for w in gone)

    monkeypatch.setattr(entropy.Memory, "learn", forget)
    make_vectors.shapes()
    make_vectors.streams()
    assert met == {
        *((part, uniform) for part in ("counts", "ids") for uniform in (False, True)),
        ("complement", True),
        ("complement", False),
        *("large support", "faded", "made room"),
    }


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


def test_tables_are_everywhere_the_same():
    assert fit_model.stale() == []


def test_worked_example_of_the_format():
    """The example that docs/format.md takes apart."""
    q = sqs.SparseDistribution([1, 4], [8, 2], 8)
    packets = {"bitpack": "2638", "enumerative": "28c0", "entropy": "b86b"}
    for coding, packet in packets.items():
        assert sqs.Codec(8, 10, coding).encode(q).hex() == packet
        assert reference.encode([1, 4], [8, 2], 8, 10, coding).hex() == packet
        assert sqs.Codec(8, 10, coding).decode(bytes.fromhex(packet)) == q
    round_ = {"enumerative": "0028d0", "entropy": "b884"}
    for coding, packet in round_.items():
        assert sqs.Codec(8, 10, coding).encode_round([q], [4]).hex() == packet
