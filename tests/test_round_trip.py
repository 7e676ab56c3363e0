"""What is encoded comes back, for every backend and coding."""

import math
import pickle
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sqs_codec as sqs
from tests.kit import CODINGS, check_round_trip, random_distribution

pytestmark = pytest.mark.usefixtures("backend")

VOCABS = st.sampled_from([2, 3, 256, 257, 49152, 1 << 18]) | st.integers(2, 1 << 18)
RESOLUTIONS = st.sampled_from([1, 2, 100, 1 << 16]) | st.integers(1, 1 << 16)


@st.composite
def codecs_and_distributions(draw, coding):
    codec = sqs.Codec(draw(VOCABS), draw(RESOLUTIONS), coding)
    k = draw(
        st.just(codec.max_support)
        | st.integers(1, codec.max_support)
        | st.integers(1, min(64, codec.max_support))
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return codec, random_distribution(rng, codec.vocab_size, codec.resolution, k)


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


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(CODINGS), st.integers(1, 12))
def test_round(data, coding, length):
    codec = sqs.Codec(data.draw(VOCABS), data.draw(RESOLUTIONS), coding)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    sizes = rng.integers(1, min(40, codec.max_support) + 1, length)
    distributions = [
        random_distribution(rng, codec.vocab_size, codec.resolution, int(k))
        for k in sizes
    ]
    tokens = [q.sample(rng) for q in distributions]
    packet = codec.encode_round(distributions, tokens)
    assert codec.decode_round(packet) == sqs.Round(distributions, tokens)
    bits = 8 + sum(codec.bits(q) + codec.token_bits(q) for q in distributions)
    assert len(packet) == -(-bits // 8)


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


def test_every_small_distribution_has_its_own_packet():
    """Ranks are a bijection: all 175 distributions of V = 5, l = 4, any k."""
    codec = sqs.Codec(5, 4)
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
    codec = sqs.Codec(5000, 5000)
    rng = np.random.default_rng(0)
    check_round_trip(codec, random_distribution(rng, 5000, 5000, 1024))
    with pytest.raises(ValueError, match="at most 1024 tokens, got 1025"):
        codec.encode(random_distribution(rng, 5000, 5000, 1025))


def test_dense_distributions_fit_bitpack():
    rng = np.random.default_rng(0)
    codec = sqs.Codec(65536, 65536, "bitpack")
    check_round_trip(codec, random_distribution(rng, 65536, 65536, 65536))


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


def test_pickles_reach_another_process_whole():
    codec = sqs.Codec(1000, 50, "bitpack")
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
