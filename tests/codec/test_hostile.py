"""Decoding any bytes gives a distribution or raises PacketError."""

import contextlib
from functools import partial

import numpy as np
import pytest

import sqs_codec as sqs
from tests import kit
from tests.refusals import refuses

pytestmark = pytest.mark.usefixtures("backend")

PACKETS = 50_000


def ends(codec):
    """Return a maker, an encoder and a decoder for each kind of packet."""
    make = partial(kit.any_round, codec=codec, most=16)
    yield (
        partial(kit.any_distribution, codec=codec, most=16),
        codec.encode,
        codec.decode,
    )
    yield partial(make, length=2), codec.encode_round, codec.decode_round
    if codec.coding == "entropy":
        yield (
            lambda rng: sqs.SparseRows.stack(make(rng, length=3).distributions),
            codec.encode_sequence,
            codec.decode_sequence,
        )


@pytest.mark.parametrize("coding", kit.CODINGS)
def test_mutated_packets(coding, backend, pytestconfig):
    """50 000 packets of several codecs; each that decodes is encoded to the same bytes.

    Except with entropy coding, where two packets may mean the same. Numba,
    which takes longer, tries a tenth.
    """
    rng = np.random.default_rng(0)
    shapes = [(2, 1), (8, 10), (1000, 100), (49152, 100), (1 << 20, 1 << 16)]
    codecs = [sqs.Codec(*shape, coding) for shape in shapes]
    if coding == "entropy":
        codecs += [
            sqs.Codec(*shape, prior=kit.any_prior(rng, shape[0])) for shape in shapes
        ]
    sources = [source for codec in codecs for source in ends(codec)]
    few = backend == "numba" or pytestconfig.getoption("quick")
    packets = PACKETS // 10 if few else PACKETS
    decoded = same = 0
    for i in range(packets // 100):
        make, encode, decode = sources[i % len(sources)]
        good = encode(make(rng))
        for _ in range(100):
            packet = kit.mutate(rng, good)
            try:
                found = decode(packet)
            except sqs.PacketError:
                continue
            again = encode(found)
            decoded += 1
            same += again == packet
            assert again == packet or (coding == "entropy" and decode(again) == found)
    print(f"{decoded} of {packets} are legal, {same} of them encoded the same")
    assert decoded > packets // 100  # mutation leaves some packets legal


@pytest.mark.parametrize("name", kit.CODECS)
def test_megabytes_of_random_bytes(name):
    codec = kit.make_codec(name, 1 << 20, 1 << 16)
    rng = np.random.default_rng(0)
    decoders = [(codec.decode, 1 << 20), (codec.decode_round, 1 << 16)]
    if codec.coding == "entropy":
        decoders.append((codec.decode_sequence, 1 << 16))
    for decode, size in decoders:
        for data in (bytes(size), b"\xff" * size, rng.bytes(size)):
            refuses(f"packet of {size} b", decode, data, error=sqs.PacketError)


def check_speed(codec, drafted, seconds):
    """Check the time to decode a round; return its tokens."""
    rng = np.random.default_rng(0)
    round_ = sqs.Round(drafted, [q.sample(rng) for q in drafted])
    data = codec.encode_round(round_)
    found, took = kit.timed(codec.decode_round, data)
    assert found == round_
    assert took < seconds
    return [*round_.tokens]


def test_slowest_packet_is_bounded():
    """Eight of the largest supports, at the largest vocabulary and resolution."""
    codec = sqs.Codec(1 << 20, 1 << 16, "enumerative")
    rng = np.random.default_rng(0)
    slow = [kit.random_distribution(rng, 1 << 20, 1 << 16, 1024) for _ in range(8)]
    tokens = check_speed(codec, slow, 10)
    small = kit.random_distribution(rng, 1 << 20, 1 << 16, 1)
    more = [*slow, small], [*tokens, small.token_ids[0]]
    refuses("draft fewer tokens", codec.encode_round, *more)


@pytest.mark.parametrize("spare", [1, 2, 50])
def test_nearly_dense_supports_decode_as_fast(spare):
    """Supports and cuts that leave few places out, at the largest size."""
    size = 1024 + spare
    q = kit.random_distribution(np.random.default_rng(0), size, size, 1024)
    check_speed(sqs.Codec(size, size, "enumerative"), [q], 2)


def staircase(rng, vocab_size, different):
    """Return a distribution with counts of 1, 2, ... and equally many more of 1."""
    steps = np.arange(1, different + 1)
    left = (1 << 16) - steps.sum()
    counts = rng.permutation(np.concatenate([steps, np.ones(left, int)]))
    ids = np.sort(rng.permutation(vocab_size)[: counts.size])
    return sqs.SparseDistribution(ids, counts, vocab_size)


@pytest.mark.parametrize("vocab_size", [1 << 16, 1 << 20])
@pytest.mark.parametrize("different", [0, 2, 250, 360])
@pytest.mark.parametrize("name", ["entropy", "prior"])
def test_slowest_entropy_packet_is_bounded(name, different, vocab_size):
    """The most tokens of a round, in every way that could be slow."""
    codec = kit.make_codec(name, vocab_size, 1 << 16)
    q = staircase(np.random.default_rng(0), vocab_size, different)
    length = min(256, (1 << 20) // q.token_ids.size)
    tokens = check_speed(codec, [q] * length, 5)
    if length < 256:
        more = [q] * (length + 1), [*tokens, tokens[0]]
        refuses("draft fewer tokens", codec.encode_round, *more)


@pytest.mark.parametrize("name", ["entropy", "prior"])
def test_slowest_memory_is_bounded(name):
    """The largest supports that are remembered, and the memory full."""
    codec = kit.make_codec(name, 1 << 20, 1 << 16)
    rng = np.random.default_rng(0)
    drafted = [kit.random_distribution(rng, 1 << 20, 1 << 16, 256) for _ in range(256)]
    check_speed(codec, drafted, 5)


# The receiver's limit


def sizes_of(round_):
    return [q.token_ids.size for q in round_.distributions]


@pytest.mark.parametrize("coding", kit.CODINGS)
def test_the_receivers_limit_does_not_excuse_broken_packets(coding, pytestconfig):
    """With a limit every packet is as broken as without, or too large."""
    rng = np.random.default_rng(3)
    codec = sqs.Codec(1000, 100, coding)
    differed, packets = 0, 600 if pytestconfig.getoption("quick") else 3000
    for _ in range(packets):
        packet = kit.mutate(rng, codec.encode_round(kit.any_round(rng, codec)))
        answers = []
        for most in (None, 50):
            try:
                answers.append(codec.decode_round(packet, max_survivors=most))
            except sqs.PacketError as error:
                answers.append(str(error))
        if answers[0] != answers[1]:
            differed += 1
            assert "max_survivors = 50" in answers[1]
            if isinstance(answers[0], sqs.Round):
                assert sum(sizes_of(answers[0])) > 50
        elif isinstance(answers[0], sqs.Round):
            assert sum(sizes_of(answers[0])) <= 50
    assert differed > packets / 30


def test_a_packet_over_the_limit_is_refused_before_the_work_is_done():
    """A few bytes may hold a support of a million tokens, and are slow then."""
    codec = sqs.Codec(1 << 16, 1 << 16)
    q = sqs.SparseDistribution(np.arange(1 << 16), np.ones(1 << 16, int), 1 << 16)
    data = codec.encode_round([q] * 16, [0] * 16)
    assert len(data) < 200

    def best_time(**limit):
        def decode():
            with contextlib.suppress(sqs.PacketError):
                codec.decode_round(data, **limit)

        return min(kit.timed(decode)[1] for _ in range(5))

    limit, words = {"max_survivors": 4096}, "max_survivors = 4096"
    refuses(words, codec.decode_round, data, **limit, error=sqs.PacketError)
    assert best_time(**limit) < 0.1 * best_time()


@pytest.mark.parametrize("coding", ["bitpack", "enumerative"])
def test_the_receivers_limit_in_packets_that_end_early(coding):
    """It comes before the rank, as to find a rank's width is most of the work."""
    codec = sqs.Codec(1 << 20, 1 << 16, coding)
    q = kit.random_distribution(np.random.default_rng(4), 1 << 20, 1 << 16, 1024)
    packet, round_ = codec.encode(q), codec.encode_round([q], q.token_ids[:1])
    reason = "ends inside a field" if coding == "bitpack" else "max_survivors = 1023"
    for decode, data in (codec.decode, packet), (codec.decode_round, round_):
        for most, match in (1023, reason), (1024, "ends inside a field"):
            options = {"max_survivors": most, "error": sqs.PacketError}
            refuses(match, decode, data[:9], **options)
