"""Streams: what is learned, and what happens when packets don't all arrive."""

import copy
import multiprocessing
import pickle
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sqs_codec as sqs
from tests.kit import (
    SEEDS,
    any_round,
    likely_distribution,
    make_codec,
    random_distribution,
)

pytestmark = pytest.mark.usefixtures("backend")

V = 1000


@pytest.fixture(scope="module", params=["entropy", "prior"])
def codec(backend, request):
    return make_codec(request.param, V, 64)


@pytest.fixture
def ends(codec):
    return sqs.StreamEncoder(codec), sqs.StreamDecoder(codec)


def rounds(seed, n, codec):
    """Return n rounds of one to three distributions that share tokens."""
    rng = np.random.default_rng(seed)
    return [any_round(rng, codec, makers=[likely_distribution]) for _ in range(n)]


def send_all(edge, made):
    return [edge.encode_round(round_) for round_ in made]


def test_first_packets_stand_alone(ends, codec):
    edge, cloud = ends
    for round_ in rounds(0, 3, codec):
        edge.restart()
        data = edge.encode_round(round_)
        assert data == b"\0" + codec.encode_round(round_)
        assert cloud.decode_round(data) == round_
    assert edge.encode_round(round_)[0] != 0


def test_a_missing_packet_is_noticed(ends, codec):
    edge, cloud = ends
    made = rounds(1, 6, codec)
    packets = send_all(edge, made)
    assert cloud.decode_round(packets[0]) == made[0]
    for late in (2, 3, 5):
        with pytest.raises(sqs.StreamError, match=r"another memory .* restart"):
            cloud.decode_round(packets[late])
    # What was missing may still come, and then all goes on.
    for round_, data in zip(made[1:], packets[1:], strict=True):
        assert cloud.decode_round(data) == round_


def test_after_a_loss_a_restart_mends_it(ends, codec):
    edge, cloud = ends
    made = rounds(2, 5, codec)
    packets = send_all(edge, made[:3])
    cloud.decode_round(packets[0])
    with pytest.raises(sqs.StreamError, match="call the encoder's restart"):
        cloud.decode_round(packets[2])
    edge.restart()
    assert cloud.decode_round(edge.encode_round(made[3])) == made[3]
    for late in packets[1:]:  # of before the restart
        with pytest.raises(sqs.StreamError, match="came before"):
            cloud.decode_round(late)
    assert cloud.decode_round(edge.encode_round(made[4])) == made[4]


def test_a_forged_packet_does_no_lasting_harm(ends, codec):
    """It was one number that made a decoder refuse every restart for good."""
    edge, cloud = ends
    forger = sqs.StreamEncoder(codec)
    for forged, round_ in zip(rounds(3, 20, codec), rounds(4, 20, codec), strict=True):
        for packet in (b"\xff\xff\xff\xff", b"\0" * 4, forger.encode_round(forged)):
            try:
                cloud.decode_round(packet)
            except sqs.PacketError:
                continue
        edge.restart()
        assert cloud.decode_round(edge.encode_round(round_)) == round_


def test_streams_have_no_end(ends, codec):
    """Nothing counts packets: the stream goes on however many there were."""
    edge, cloud = ends
    for round_ in rounds(5, 1000, codec):
        assert cloud.decode_round(edge.encode_round(round_)) == round_


def test_a_packet_again_after_any_number_of_others(ends, codec):
    """By their numbers, packets 128 apart could not be told from each other."""
    edge, cloud = ends
    made = rounds(6, 280, codec)
    packets = send_all(edge, made)
    noticed = 0
    for i, (round_, data) in enumerate(zip(made, packets, strict=True)):
        assert cloud.decode_round(data) == round_
        if i >= 128:
            try:
                copy.copy(cloud).decode_round(packets[i - 127])
            except sqs.StreamError:
                noticed += 1
    assert noticed >= 150  # of 152; each passes by chance once in 255


def test_a_reordered_stream_is_put_in_order(ends, codec):
    """By trying what waits: a packet too early changes nothing."""
    edge, cloud = ends
    made = rounds(7, 40, codec)
    packets = send_all(edge, made)
    rng = np.random.default_rng(4)
    waiting, arrived = [], []
    for i in sorted(range(40), key=lambda i: i + 5 * rng.random()):
        waiting.append(i)
        for j in sorted(waiting):
            try:
                arrived.append((j, cloud.decode_round(packets[j])))
            except sqs.StreamError:
                continue
            waiting.remove(j)
    assert arrived == list(enumerate(made))


def test_a_decoder_joins_late(ends, codec):
    edge, cloud = ends
    packets = send_all(edge, rounds(8, 5, codec))
    for data in packets[1:3]:
        with pytest.raises(sqs.StreamError, match=r"begins with a packet .* restart"):
            cloud.decode_round(data)
    edge.restart()
    for round_ in rounds(9, 3, codec):
        assert cloud.decode_round(edge.encode_round(round_)) == round_


def deliver(codec, seed, order):
    """Send packets of which some are restarts, and deliver them in this order.

    Return how many were coded with another memory than the decoder had then, and
    how many of these weren't noticed. All others are decoded right.
    """
    edge, cloud = sqs.StreamEncoder(codec), sqs.StreamDecoder(codec)
    rng = np.random.default_rng(seed)
    sent = []
    for round_ in rounds(seed, max(order) + 1, codec):
        if rng.random() < 0.1:
            edge.restart()
        before = edge._memory
        sent.append((before, edge.encode_round(round_), round_))
    wrong = passed = 0
    for i in order:
        before, data, round_ = sent[i]
        if before is None or np.array_equal(before, cloud._memory):
            assert cloud.decode_round(data) == round_
            continue
        wrong += 1
        state = pickle.dumps(cloud)
        twin = copy.copy(cloud)
        try:
            twin.decode_round(data)
        except sqs.StreamError:
            assert pickle.dumps(twin) == state
        except sqs.PacketError:
            passed += 1
        else:
            passed += 1
    return wrong, passed


@settings(deadline=None, max_examples=50)
@given(SEEDS, st.lists(st.integers(0, 30), min_size=1, max_size=60))
def test_any_loss_repetition_and_order(codec, seed, order):
    """What is decoded is right; how much passes that can't be is asked below."""
    deliver(codec, seed, order)


def test_the_chance_of_the_check(codec):
    """A wrong memory passes once in 255 times: about 60 of 15 000."""
    rng = np.random.default_rng(10)
    counts = [deliver(codec, seed, rng.integers(0, 60, 800)) for seed in range(20)]
    wrong, passed = map(sum, zip(*counts, strict=True))
    print(f"{passed} of {wrong} passed")
    expected = wrong / 255
    assert abs(passed - expected) < 4 * expected**0.5
    assert wrong > 10_000


def damaged(data, rng):
    """Yield packets that are like this one but broken."""
    yield from (data[:0], data[:1], data[:-1], data + b"\0")
    for _ in range(50):
        wrong = bytearray(data)
        wrong[rng.integers(1, len(data))] ^= 1 << int(rng.integers(8))
        yield bytes(wrong)


@pytest.mark.parametrize("self_contained", [False, True])
def test_a_damaged_packet_changes_nothing(ends, codec, self_contained):
    rng = np.random.default_rng(11)
    edge, cloud = ends
    made = rounds(11, 8, codec)
    refused = 0
    for round_ in made:
        if self_contained:
            edge.restart()
        data = edge.encode_round(round_)
        for wrong in damaged(data, rng):
            before = pickle.dumps(cloud)
            try:
                cloud.decode_round(wrong)
            except sqs.PacketError:
                refused += 1
                assert pickle.dumps(cloud) == before
            else:  # it is some other round: no checksum is among the rules
                cloud = pickle.loads(before)
        assert cloud.decode_round(data) == round_
    assert refused > 8 * 30


def test_an_encoder_that_raises_goes_on_as_before(ends, codec):
    edge, cloud = ends
    good = rounds(12, 4, codec)
    dense = sqs.SparseDistribution([0], [1], 7)
    for round_ in good:
        before = pickle.dumps(edge)
        q = round_.distributions[0]
        outside = next(i for i in range(V) if i not in q.token_ids)
        for wrong in (
            ([q, dense], [round_.tokens[0], 0]),
            ([q], [outside]),
            ([q], []),
            ([], []),
        ):
            with pytest.raises(ValueError, match=r"round|vocabulary|support"):
                edge.encode_round(*wrong)
            with pytest.raises(TypeError):
                edge.encode_round([q, "q"], [round_.tokens[0], 0])
            assert pickle.dumps(edge) == before
        assert cloud.decode_round(edge.encode_round(round_)) == round_


def test_too_large_a_round_changes_nothing():
    codec = sqs.Codec(1 << 16, 1 << 16)
    q = sqs.SparseDistribution(np.arange(1 << 16), np.ones(1 << 16, int), 1 << 16)
    edge = sqs.StreamEncoder(codec)
    before = pickle.dumps(edge)
    with pytest.raises(ValueError, match="draft fewer tokens"):
        edge.encode_round([q] * 17, [0] * 17)
    assert pickle.dumps(edge) == before


def through_pickle(end):
    return pickle.loads(pickle.dumps(end))


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, through_pickle])
def test_copies_go_their_own_ways(ends, codec, clone):
    edge, cloud = ends
    for round_ in rounds(13, 5, codec):
        cloud.decode_round(edge.encode_round(round_))
    other_edge, other_cloud = clone(edge), clone(cloud)
    mine, others = rounds(14, 9, codec), rounds(15, 9, codec)
    for round_, other in zip(mine, others, strict=True):
        assert cloud.decode_round(edge.encode_round(round_)) == round_
        assert other_cloud.decode_round(other_edge.encode_round(other)) == other


def decode_elsewhere(cloud, packets):
    return [cloud.decode_round(data) for data in packets], cloud


def test_another_process_takes_over(ends, codec):
    edge, cloud = ends
    made = rounds(16, 9, codec)
    packets = send_all(edge, made)
    assert [cloud.decode_round(data) for data in packets[:3]] == made[:3]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found, cloud = pool.apply(decode_elsewhere, (cloud, packets[3:6]))
    assert found == made[3:6]
    assert [cloud.decode_round(data) for data in packets[6:]] == made[6:]


def test_streams_share_a_codec_between_threads(codec):
    results = {}

    def talk(seed):
        edge, cloud = sqs.StreamEncoder(codec), sqs.StreamDecoder(codec)
        made = rounds(seed, 60, codec)
        packets = send_all(edge, made)
        assert [cloud.decode_round(data) for data in packets] == made
        results[seed] = packets

    alone = {}
    for seed in range(4):
        talk(seed)
    alone, results = results, {}
    threads = [threading.Thread(target=talk, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == alone


def test_bytes_of_any_kind(ends, codec):
    edge, cloud = ends
    made = rounds(17, 3, codec)
    for round_, wrap in zip(made, (bytearray, memoryview, bytes), strict=True):
        assert cloud.decode_round(wrap(edge.encode_round(round_))) == round_
    with pytest.raises(TypeError):
        cloud.decode_round("text")
    with pytest.raises(sqs.PacketError, match=r"packet of 0 bytes: .* inside"):
        cloud.decode_round(b"")


def test_other_codecs_are_refused():
    for make in (sqs.StreamEncoder, sqs.StreamDecoder):
        for coding in ("bitpack", "enumerative"):
            codec = sqs.Codec(V, coding=coding)
            with pytest.raises(ValueError, match=f"'entropy', got '{coding}'"):
                make(codec)
        with pytest.raises(TypeError, match="codec must be a Codec, got int"):
            make(V)


def test_stream_errors_are_packet_errors():
    """So that one handler sees to all that comes over a link."""
    assert issubclass(sqs.StreamError, sqs.PacketError)


@pytest.mark.parametrize("name", ["entropy", "prior"])
def test_ids_without_order_cost_hardly_more(name):
    """What is remembered is no use here, and a uniform mode is still there."""
    rng = np.random.default_rng(18)
    codec = make_codec(name, V)
    edge = sqs.StreamEncoder(codec)
    streamed = alone = 0
    for _ in range(50):
        q = random_distribution(rng, V, 100, 20)
        token = [q.sample(rng)]
        streamed += len(edge.encode_round([q], token))
        alone += len(codec.encode_round([q], token))
    assert streamed <= 1.02 * alone + 50


def test_the_head_tells_the_last_class():
    """Two memories that differ in nothing else."""
    codec = make_codec("prior", V)
    stream = sqs.StreamEncoder(codec)
    (round_,) = rounds(19, 1, codec)
    stream.encode_round(round_)
    heads = set()
    for last in range(6):
        stream._memory = stream._memory.copy()
        stream._memory[2] = last
        heads.add(copy.copy(stream).encode_round(round_)[0])
    assert len(heads) >= 5
