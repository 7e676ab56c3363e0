"""Golden vectors: the format as files that no code here can quietly change."""

import base64
import json
import re
from functools import partial

import numpy as np
import pytest
from sqs_codec._backend._sqs import ffi, lib

import sqs_codec as sqs
from sqs_codec._base.errors import BROKEN_RULES, Status
from sqs_codec._codec import gumbel
from tests.kit import CODINGS, KEEPS, Given, as_lists
from tests.reference import make_vectors
from tests.reference import sqs_reference as reference
from tests.reference.gumbel import philox

pytestmark = pytest.mark.usefixtures("backend")

OTHERS = {"verify.json", "gumbel.json", "unbiased.json", "bad_priors.json"}
"""Files without packets."""

FORMULA = "vocab_size", "seed", "slope"  # of a case's logits


def load(name):
    return json.loads((make_vectors.VECTORS / name).read_text())


def codec_of(case, coding="entropy", prior=None):
    return sqs.Codec(case["vocab_size"], case["resolution"], coding, prior)


def content(case, kind, pairs, tokens=()):
    """Return what a packet of a kind means."""
    drafted = [sqs.SparseDistribution(*q, case["vocab_size"]) for q in pairs]
    if kind == "distribution":
        return drafted[0]
    if kind == "round":
        return sqs.Round(tuple(drafted), tuple(tokens))
    return sqs.SparseRows.stack(drafted)


def coder(codec, kind):
    """Return the functions to a packet of a kind, and back."""
    end = {"distribution": "", "round": "_round", "sequence": "_sequence"}[kind]
    return getattr(codec, f"encode{end}"), getattr(codec, f"decode{end}")


def check_packet(codec, kind, given, packet):
    """A receiver with just room for its tokens takes it, one with less refuses it."""
    encode, decode = coder(codec, kind)
    assert encode(given).hex() == packet
    decode = partial(decode, bytes.fromhex(packet))
    assert decode() == given
    most = sum(q.token_ids.size for q in getattr(given, "distributions", [given]))
    decode(max_survivors=most)
    if most > 1:
        with pytest.raises(sqs.PacketError, match="more survivors than max_survivors"):
            decode(max_survivors=most - 1)


def check_refusal(codec, case):
    decode = coder(codec, case["kind"])[1]
    with pytest.raises(
        sqs.PacketError, match=f": {BROKEN_RULES[Status[case['rule']]]}$"
    ):
        decode(bytes.fromhex(case["packet"]))


def check_packets(case, q):
    assert set(case["packets"]) == set(CODINGS)
    for coding, packet in case["packets"].items():
        codec = codec_of(case, coding)
        check_packet(codec, "distribution", q, packet)
        assert codec.token_bits(q) == case["token_bits"][coding]
        # For entropy coding, `bits` is an estimate, rounded up.
        excess = codec.bits(q) - case["bits"][coding]
        assert abs(excess) <= 1.02 if coding == "entropy" else excess == 0


@pytest.mark.parametrize("case", load("distributions.json")["cases"])
def test_distributions(case):
    keep = KEEPS[case["keep"][0]](case["keep"][1])
    logits = make_vectors.formula_logits(*map(case.get, FORMULA))
    temperature = case["temperature"]
    q = codec_of(case).quantize(
        logits, keep, temperature=temperature, dropped_mass=True
    )
    dropped = float.fromhex(case["dropped_mass"])
    assert as_lists(q) == (case["token_ids"], case["counts"], dropped)
    check_packets(case, q)


@pytest.mark.parametrize("case", load("shapes.json")["cases"])
def test_shapes(case):
    check_packets(case, content(case, "distribution", [make_vectors.shape_of(case)]))


@pytest.mark.parametrize("case", load("rounds.json")["cases"])
def test_rounds(case):
    round_ = content(case, "round", make_vectors.pairs(case), case["tokens"])
    assert set(case["packets"]) == set(CODINGS)
    for coding, packet in case["packets"].items():
        check_packet(codec_of(case, coding), "round", round_, packet)


@pytest.mark.parametrize("case", load("sequences.json")["cases"])
def test_sequences(case):
    known = make_vectors.pairs(case)
    rows = content(case, "sequence", [known[i] for i in case["rows"]])
    check_packet(codec_of(case), "sequence", rows, case["packet"])


@pytest.mark.parametrize("case", load("priors.json")["cases"])
def test_priors(case):
    prior = sqs.Prior.from_bytes(base64.b64decode(case["prior"]))
    assert (prior.vocab_size, prior.classes) == (case["vocab_size"], case["classes"])
    codec, known = codec_of(case, prior=prior), make_vectors.pairs(case)
    for packet in case["packets"]:
        if "rule" in packet:
            check_refusal(codec, packet)
            continue
        pairs = [known[i] for i in packet["distributions"]]
        found = content(case, packet["kind"], pairs, packet.get("tokens", ()))
        check_packet(codec, packet["kind"], found, packet["packet"])
        if packet["kind"] == "distribution":
            assert abs(codec.bits(found) - packet["bits"]) <= 1.02


BAD_PRIORS = {"SIZE": "bytes", "MAGIC": "sqsprior", "WEIGHTS": "weigh", "CHECK": "CRC"}
NAMED = "VERSION", "CLASSES", "VOCABULARY", "CHANCES"
BAD_PRIORS |= {rule: rule.lower() for rule in NAMED}
"""A word of the message for each rule."""


@pytest.mark.parametrize("case", load("bad_priors.json")["cases"])
def test_bad_priors(case):
    with pytest.raises(ValueError, match=BAD_PRIORS[case["rule"]]):
        sqs.Prior.from_bytes(base64.b64decode(case["prior"]))


@pytest.mark.parametrize("case", load("verify.json")["cases"])
def test_verdicts(case):
    round_ = content(case, "round", make_vectors.pairs(case), case["tokens"])
    verdict = sqs.Verdict(case["accepted"], case["token"])
    target = np.array(case["target"])
    assert sqs.verify(round_, target, Given(case["draws"])) == verdict
    narrow = target.astype(np.float32)
    if np.array_equal(narrow, target):
        assert sqs.verify(round_, narrow, Given(case["draws"])) == verdict


@pytest.mark.parametrize("case", load("gumbel.json")["cases"])
def test_races(case):
    logits = make_vectors.formula_logits(*map(case.get, FORMULA))
    key, position = bytes.fromhex(case["key"]), int(case["position"], 16)
    given = case["temperature"], np.frombuffer(key, "<u4"), position
    ((found, scores),) = gumbel.race(logits[None], *given, len(case["tokens"]), str)
    assert found == case["tokens"]
    assert [score.hex() for score in scores] == case["scores"]


@pytest.mark.parametrize("case", load("unbiased.json")["cases"])
def test_unbiased(case):
    logits = make_vectors.formula_logits(*map(case.get, FORMULA))
    rng, temperature = Given([int(case["number"], 16)]), case["temperature"]
    q = codec_of(case).quantize_unbiased(logits, temperature=temperature, rng=rng)
    assert as_lists(q) == (case["token_ids"], case["counts"], 0)


@pytest.mark.parametrize("case", load("gumbel.json")["philox"])
def test_the_generator_is_philox(case):
    """The reference's is; its races are those of the cores."""
    texts = (case[name].split() for name in ("counter", "key", "words"))
    counter, key, words = ([int(word, 16) for word in text] for text in texts)
    assert [int(word) for word in philox(counter, key)] == words


@pytest.mark.parametrize("case", load("limits.json")["cases"])
def test_limits(case):
    given = make_vectors.formula_round(case["supports"], case["resolution"])
    codec = codec_of(case, case["coding"])
    check_packet(codec, "round", content(case, "round", *given), case["packet"])
    if "sequence" in case:
        rows = content(case, "sequence", given[0])
        check_packet(codec, "sequence", rows, case["sequence"])


@pytest.mark.parametrize("case", load("malformed.json")["cases"])
def test_each_rule_has_its_error(case):
    check_refusal(codec_of(case, case["coding"]), case)


def test_every_rule_is_covered():
    rules = {case["rule"] for case in load("malformed.json")["cases"]}
    assert rules == {status.name for status in BROKEN_RULES}
    assert {case["rule"] for case in load("bad_priors.json")["cases"]} == {*BAD_PRIORS}


def test_the_readme_counts_the_packets():
    """So that who writes a decoder sees that none was left out."""
    said = (make_vectors.VECTORS / "README.md").read_text()
    counts = dict(re.findall(r"^\| `(\w+\.json)` \| (\d+) \|", said, re.MULTILINE))
    found = {}
    for name in make_vectors.FILES.keys() - OTHERS:
        cases = load(name)["cases"]
        found[name] = str(
            sum(len(case.get("packets", [0])) + ("sequence" in case) for case in cases)
        )
    assert counts == found


def test_statuses_match_the_c_core():
    for status, text in BROKEN_RULES.items():
        assert ffi.string(lib.sqs_status_text(status)).decode() == text


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
    assert sqs.Codec(8, 10).encode_sequence([q]).hex() == "0000b86b"
