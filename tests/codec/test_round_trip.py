"""Decoding returns what was encoded, for every backend and coding."""

import contextlib
import copy
import json
import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sqs_codec as sqs
from tests import kit
from tests.drafts import VOCAB_SIZE, held_out, load_drafts

pytestmark = pytest.mark.usefixtures("backend")


@given(kit.codecs_and_distributions("bitpack"))
def test_bitpack(case):
    codec, q = case
    kit.check_round_trip(codec, q)
    k = q.token_ids.size
    assert codec.bits(q) == (
        (codec.max_survivors - 1).bit_length()
        + k * (codec.vocab_size - 1).bit_length()
        + (k - 1) * (codec.resolution - k).bit_length()
    )


@given(kit.codecs_and_distributions("enumerative"))
def test_enumerative_meets_the_ceiling(case):
    codec, q = case
    data = kit.check_round_trip(codec, q)
    k = q.token_ids.size
    size = math.comb(codec.vocab_size, k) * math.comb(codec.resolution - 1, k - 1)
    payload = (size - 1).bit_length()
    assert codec.bits(q) == (codec.max_survivors - 1).bit_length() + payload
    assert len(data) <= -(-payload // 8) + 2


@given(kit.codecs_and_distributions("entropy"))
def test_entropy(case):
    kit.check_round_trip(*case)


@given(kit.codecs(), kit.SEEDS, st.integers(1, 12))
def test_round(codec, seed, length):
    round_ = kit.any_round(np.random.default_rng(seed), codec, length)
    packet = codec.encode_round(round_.distributions, round_.tokens)
    assert codec.encode_round(round_) == packet
    assert codec.decode_round(packet) == round_
    if codec.coding != "entropy":
        qs = round_.distributions
        bits = 8 + sum(codec.bits(q) + codec.token_bits(q) for q in qs)
        assert len(packet) == -(-bits // 8)


def share_decoded(decode, packets, qs):
    """Return how many packets, in percent, decode without an error, and as `qs`."""
    decoded = 0
    for packet, q in zip(packets, qs, strict=True):
        with contextlib.suppress(sqs.PacketError):
            assert decode(packet) == q
            decoded += 1
    return round(100 * decoded / len(qs))


@pytest.mark.parametrize("coding", kit.CODINGS)
def test_packets_of_the_other_kind(coding):
    """The figures of docs/faq.md: `decode_round` on one distribution, and `decode`."""
    prior = sqs.Prior.builtin("smollm2") if coding == "entropy" else None
    codec, drafts = sqs.Codec(VOCAB_SIZE, coding=coding, prior=prior), load_drafts()
    rows = map(drafts.row, held_out(drafts).nonzero()[0].tolist())
    qs = [codec.quantize(row, sqs.TopK(64), temperature=0.7) for row in rows]
    drawn = [q.sample(kit.Given([61 * i % 100])) for i, q in enumerate(qs)]
    singles = map(codec.encode, qs)
    rounds = [codec.encode_round([q], [x]) for q, x in zip(qs, drawn, strict=True)]

    def only_one(packet):
        (q,) = codec.decode_round(packet).distributions
        return q

    found = (
        share_decoded(only_one, singles, qs),
        share_decoded(codec.decode, rounds, qs),
    )
    assert found == ((0, 0) if prior is None else (38, 28))


@pytest.mark.parametrize("coding", kit.CODECS)
def test_longest_round(coding):
    codec = kit.make_codec(coding, 1000)
    round_ = kit.any_round(np.random.default_rng(0), codec, 256, most=100)
    assert codec.decode_round(codec.encode_round(round_)) == round_


def test_a_round_is_a_value():
    rng = np.random.default_rng(5)
    codec = sqs.Codec(1000)
    qs = [kit.random_distribution(rng, 1000, 100, k) for k in (1, 30, 100)]
    tokens = [q.sample(rng) for q in qs]
    round_ = sqs.Round(qs, np.array(tokens))
    sent = codec.decode_round(codec.encode_round(round_))
    copies = pickle.loads(pickle.dumps(round_)), copy.deepcopy(round_)
    for same in (sqs.Round(tuple(qs), tokens), sent, *copies):
        assert same == round_
        assert hash(same) == hash(round_)
        assert same.distributions == tuple(qs)
        assert same.tokens == tuple(tokens)
        assert same.counts == tuple(
            round(q.prob(x) * 100) for q, x in zip(qs, tokens, strict=True)
        )
        assert (len(same), same.vocab_size, same.resolution) == (3, 1000, 100)
        for array in same.arrays:
            assert array.dtype == np.uint32
            with pytest.raises(ValueError, match="WRITEABLE"):
                array.flags.writeable = True
    twin = sqs.SparseDistribution([4, 7], [30, 70], 1000)
    assert sqs.Round([twin], [4]) != sqs.Round([twin], [7])
    assert sqs.Round([twin], [4]) != sqs.Round([twin] * 2, [4, 4])
    wider = sqs.SparseDistribution([4, 7], [30, 70], 1001)
    assert sqs.Round([twin], [4]) != sqs.Round([wider], [4])


@pytest.mark.parametrize("coding", kit.CODECS)
def test_every_small_distribution_has_its_own_packet(coding):
    """All 70 distributions of V = 5, l = 4."""
    codec = kit.make_codec(coding, 5, 4)
    found = {}
    for word in range(5**5):
        counts = [word // 5**i % 5 for i in range(5)]
        if sum(counts) != 4:
            continue
        ids = np.flatnonzero(counts)
        q = sqs.SparseDistribution(ids, np.array(counts)[ids], 5)
        found[kit.check_round_trip(codec, q)] = q
    assert len(found) == math.comb(4 + 5 - 1, 4)


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, np.frombuffer])
def test_bytes_of_any_kind(wrap):
    codec = sqs.Codec(100, 10)
    q = sqs.SparseDistribution([3, 50], [4, 6], 100)
    data = codec.encode(q)
    given_ = np.frombuffer(data, np.uint8) if wrap is np.frombuffer else wrap(data)
    assert codec.decode(given_) == q
    assert codec.decode(memoryview(data[::-1])[::-1]) == q
    for wrong in ("text", 12, None):
        with pytest.raises(TypeError):
            codec.decode(wrong)


# The identity of a codec

CODEC = sqs.Codec(1000, 50, "bitpack")


@pytest.mark.parametrize("prior", [None, kit.make_prior(1000, 5)])
def test_a_config_survives_json(prior):
    given = sqs.Codec(1000, 50, prior=prior) if prior else CODEC
    config = json.loads(json.dumps(given.config()))
    assert config == {
        "format_version": sqs.__format_version__,
        "vocab_size": 1000,
        "resolution": 50,
        "coding": "entropy" if prior else "bitpack",
        "prior": prior and prior.digest.hex(),
    }
    copies = copy.copy(given), copy.deepcopy(given), pickle.loads(pickle.dumps(given))
    for same in (sqs.Codec.from_config(config, prior), *copies):
        assert same == given
        assert hash(same) == hash(given)
        assert same.fingerprint == given.fingerprint


def test_every_difference_changes_the_fingerprint(monkeypatch):
    found = {CODEC.fingerprint}
    others = (1001, 50, "bitpack"), (1000, 51, "bitpack"), (1000, 50, "entropy")
    found |= {sqs.Codec(*other).fingerprint for other in others}
    priors = kit.make_prior(1000, 2), kit.make_prior(1000, 5)
    found |= {sqs.Codec(1000, 50, prior=prior).fingerprint for prior in priors}
    monkeypatch.setattr("sqs_codec._codec.codec.FORMAT_VERSION", 2)
    found.add(CODEC.fingerprint)
    assert len(found) == 7
    assert {len(fingerprint) for fingerprint in found} == {8}


def test_a_fingerprint_is_the_same_everywhere():
    """On any machine and Python, however the codec was made."""
    assert sqs.Codec(49152).fingerprint.hex() == "d88741473eb87d3b"
    other = sqs.Codec(np.int64(49152), np.uint8(100), np.str_("entropy"))
    assert other.fingerprint.hex() == "d88741473eb87d3b"
    assert {*map(type, other.config().values())} == {int, str, type(None)}
