"""What is encoded comes back, for every backend and coding."""

import math
import pickle
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sqs_codec as sqs
from tests.kit import (
    CODINGS,
    check_round_trip,
    likely_distribution,
    random_distribution,
)

pytestmark = pytest.mark.usefixtures("backend")

VOCABS = st.sampled_from([2, 3, 256, 257, 49152, 1 << 18]) | st.integers(2, 1 << 18)
RESOLUTIONS = st.sampled_from([1, 2, 100, 1 << 16]) | st.integers(1, 1 << 16)
VARIABLE = st.just(sqs.Resolution())
SEEDS = st.integers(0, 2**32)


@st.composite
def codecs(draw, codings=CODINGS):
    coding = draw(st.sampled_from(codings))
    rules = VARIABLE | RESOLUTIONS if coding == "entropy" else RESOLUTIONS
    return sqs.Codec(draw(VOCABS), draw(rules), coding)


def any_resolution(codec, rng):
    """Return one that the codec can send."""
    if isinstance(codec.resolution, sqs.Resolution):
        return 1 << int(rng.integers(17))
    return codec.resolution


@st.composite
def codecs_and_distributions(draw, coding):
    codec = draw(codecs([coding]))
    rng = np.random.default_rng(draw(SEEDS))
    resolution = any_resolution(codec, rng)
    most = min(codec.max_support, resolution)
    k = draw(st.just(most) | st.integers(1, most) | st.integers(1, min(64, most)))
    make = draw(st.sampled_from([random_distribution, likely_distribution]))
    return codec, make(rng, codec.vocab_size, resolution, k)


def any_round(codec, rng, length):
    """Return some distributions that may share tokens, and a token of each."""
    distributions = []
    for _ in range(length):
        resolution = any_resolution(codec, rng)
        make = [random_distribution, likely_distribution][rng.integers(2)]
        k = int(rng.integers(1, min(40, codec.max_support, resolution) + 1))
        distributions.append(make(rng, codec.vocab_size, resolution, k))
    return distributions, [q.sample(rng) for q in distributions]


@settings(max_examples=150, deadline=None)
@given(codecs_and_distributions("bitpack"))
def test_bitpack(case):
    codec, q = case
    check_round_trip(codec, q)
    k = q.token_ids.size
    assert codec.bits(q) == (
        (codec.max_support - 1).bit_length()
        + k * (codec.vocab_size - 1).bit_length()
        + (k - 1) * (codec.resolution - k).bit_length()
    )


@settings(max_examples=150, deadline=None)
@given(codecs_and_distributions("enumerative"))
def test_enumerative_meets_the_ceiling(case):
    codec, q = case
    data = check_round_trip(codec, q)
    k = q.token_ids.size
    size = math.comb(codec.vocab_size, k) * math.comb(codec.resolution - 1, k - 1)
    payload = (size - 1).bit_length()
    assert codec.bits(q) == (codec.max_support - 1).bit_length() + payload
    assert len(data) <= -(-payload // 8) + 2


@settings(max_examples=150, deadline=None)
@given(codecs_and_distributions("entropy"))
def test_entropy(case):
    check_round_trip(*case)


@settings(max_examples=100, deadline=None)
@given(codecs(), SEEDS, st.integers(1, 12))
def test_round(codec, seed, length):
    distributions, tokens = any_round(codec, np.random.default_rng(seed), length)
    packet = codec.encode_round(distributions, tokens)
    assert codec.decode_round(packet) == sqs.Round(distributions, tokens)
    if codec.coding != "entropy":
        bits = 8 + sum(codec.bits(q) + codec.token_bits(q) for q in distributions)
        assert len(packet) == -(-bits // 8)


@settings(max_examples=40, deadline=None)
@given(codecs(["entropy"]), SEEDS, st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_stream(codec, seed, lengths):
    """Rounds of these lengths, where 0 is for a restart."""
    rng = np.random.default_rng(seed)
    edge, cloud = sqs.StreamEncoder(codec), sqs.StreamDecoder(codec)
    for length in lengths:
        if length == 0:
            edge.restart()
            continue
        round_ = any_round(codec, rng, length)
        assert cloud.decode_round(edge.encode_round(*round_)) == sqs.Round(*round_)


@pytest.mark.parametrize("coding", CODINGS)
def test_longest_round(coding):
    codec = sqs.Codec(1000, 100, coding)
    rng = np.random.default_rng(0)
    distributions = [random_distribution(rng, 1000, 100, 100) for _ in range(256)]
    tokens = [q.sample(rng) for q in distributions]
    round_ = codec.decode_round(codec.encode_round(distributions, tokens))
    assert round_ == sqs.Round(distributions, tokens)
    with pytest.raises(ValueError, match="1 to 256 distributions"):
        codec.encode_round([*distributions, distributions[0]], [*tokens, tokens[0]])
    with pytest.raises(ValueError, match="1 to 256 distributions"):
        codec.encode_round([], [])


@pytest.mark.parametrize("coding", CODINGS)
def test_every_small_distribution_has_its_own_packet(coding):
    """All 70 distributions of V = 5, l = 4."""
    codec = sqs.Codec(5, 4, coding)
    found = {}
    for word in range(5**5):
        counts = [word // 5**i % 5 for i in range(5)]
        if sum(counts) != 4:
            continue
        ids = np.flatnonzero(counts)
        q = sqs.SparseDistribution(ids, np.array(counts)[ids], 5)
        found[check_round_trip(codec, q)] = q
    assert len(found) == math.comb(4 + 5 - 1, 4)


def test_enumerative_refuses_large_supports():
    codec = sqs.Codec(5000, 5000, "enumerative")
    rng = np.random.default_rng(0)
    check_round_trip(codec, random_distribution(rng, 5000, 5000, 1024))
    with pytest.raises(ValueError, match="at most 1024 tokens, got 1025"):
        codec.encode(random_distribution(rng, 5000, 5000, 1025))


@pytest.mark.parametrize("coding", ["bitpack", "entropy"])
@pytest.mark.parametrize("vocab_size", [2, 1000, 49152, 65536])
def test_dense_distributions_fit(coding, vocab_size):
    """Such as teacher distributions, where every token has some count."""
    rng = np.random.default_rng(0)
    codec = sqs.Codec(vocab_size, 65536, coding)
    check_round_trip(codec, random_distribution(rng, vocab_size, 65536, vocab_size))
    weights = rng.permutation(1 / np.arange(10, vocab_size + 10))
    peaked = codec.quantize_probs(weights / weights.sum(), sqs.TopP(1))
    assert peaked.token_ids.size > vocab_size / 10
    check_round_trip(codec, peaked)


def test_resolution_is_sent_along():
    """Each power of two after each other, in one round as in one packet."""
    codec = sqs.Codec(50, sqs.Resolution())
    rng = np.random.default_rng(0)
    powers = [1 << e for e in range(17)]
    order = [powers[0]]
    for a in powers:  # every pair is a step of this walk
        for b in powers:
            order += [a, b]
    distributions = [
        random_distribution(rng, 50, resolution, min(resolution, 3))
        for resolution in order
    ]
    for q in distributions[:60]:
        assert check_round_trip(codec, q)
    for at in range(0, len(order), 250):
        part = distributions[at : at + 251]
        tokens = [q.sample(rng) for q in part]
        found = codec.decode_round(codec.encode_round(part, tokens))
        assert [q.resolution for q in found.distributions] == order[at : at + 251]
        assert found == sqs.Round(part, tokens)
    for wrong in (3, 100, 65535):
        with pytest.raises(ValueError, match=f"power of two up to 65536, .* {wrong}$"):
            codec.encode(random_distribution(rng, 50, wrong, 3))


def test_threads_share_a_codec():
    codec = sqs.Codec(2000, 100)
    rng = np.random.default_rng(0)
    rows = rng.normal(0, 3, (40, 2000)).astype(np.float32)
    alone = [codec.encode(codec.quantize(row, sqs.TopK(64))) for row in rows]
    results: dict[int, list[bytes]] = {}

    def work(name: int) -> None:
        results[name] = [
            codec.encode(codec.quantize(row, sqs.TopK(64))) for row in rows
        ]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [results[i] for i in range(4)] == [alone] * 4


@pytest.mark.parametrize(
    "arguments", [(50, "bitpack"), (sqs.Resolution(0.02), "entropy", True)]
)
def test_pickles_reach_another_process_whole(arguments):
    codec = sqs.Codec(1000, *arguments)
    q = codec.quantize(np.linspace(0, 9, 1000), sqs.TopK(8))
    assert pickle.loads(pickle.dumps(codec)) == codec
    copy = pickle.loads(pickle.dumps(q))
    assert copy == q
    assert copy.dropped_mass == q.dropped_mass
    assert codec.encode(copy) == codec.encode(q)
    assert hash(copy) == hash(q)


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
