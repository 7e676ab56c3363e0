"""Streams: what is learned, and what happens when packets don't all arrive."""

import copy
import multiprocessing
import pickle
import threading

import numpy as np
import pytest

import sqs_codec as sqs
from tests.kit import likely_distribution, random_distribution, wire_resolution

pytestmark = pytest.mark.usefixtures("backend")

V = 1000


@pytest.fixture(params=["fixed", "variable"])
def codec(request):
    return sqs.Codec(V, 64 if request.param == "fixed" else sqs.Resolution())


@pytest.fixture
def ends(codec):
    return sqs.StreamEncoder(codec), sqs.StreamDecoder(codec)


def rounds(seed, n, codec):
    """Return n rounds of one to three distributions that share tokens."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        drafted = [
            likely_distribution(
                rng, V, wire_resolution(codec) or 1 << int(rng.integers(12)), 30
            )
            for _ in range(rng.integers(1, 4))
        ]
        made.append(sqs.Round(drafted, [q.sample(rng) for q in drafted]))
    return made


def send(edge, round_):
    return edge.encode_round(round_.distributions, round_.tokens)


def send_all(edge, made):
    return [send(edge, round_) for round_ in made]


def test_first_packets_stand_alone(ends, codec):
    edge, cloud = ends
    for round_ in rounds(0, 3, codec):
        edge.restart()
        data = send(edge, round_)
        assert data[0] & 0x80
        plain = codec.encode_round(round_.distributions, round_.tokens)
        assert data[4:] == plain
        assert cloud.decode_round(data) == round_


def test_a_missing_packet_is_noticed(ends, codec):
    edge, cloud = ends
    made = rounds(1, 6, codec)
    packets = send_all(edge, made)
    assert cloud.decode_round(packets[0]) == made[0]
    for late, missing in ((2, 1), (3, 2), (5, 4)):
        with pytest.raises(sqs.StreamError, match=rf"packet {late} .* {missing} miss"):
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
    assert cloud.decode_round(send(edge, made[3])) == made[3]
    assert cloud.decode_round(send(edge, made[4])) == made[4]
    assert cloud.missed == 2
    for late in packets:  # of before the restart
        with pytest.raises(sqs.StreamError, match="it came before"):
            cloud.decode_round(late)


def test_duplicates_are_noticed(ends, codec):
    edge, cloud = ends
    made = rounds(3, 4, codec)
    for i, round_ in enumerate(made):
        if i == 2:
            edge.restart()
        data = send(edge, round_)
        assert cloud.decode_round(data) == round_
        for _ in range(2):
            with pytest.raises(sqs.StreamError, match=f"packet {i} of the stream came"):
                cloud.decode_round(data)


def test_what_came_long_ago_is_noticed(ends, codec):
    """Even if it is self-contained: one of a former encoder's, say."""
    edge, cloud = ends
    made = rounds(19, 9, codec)
    packets = send_all(edge, made)
    for data in packets:
        cloud.decode_round(data)
    with pytest.raises(sqs.StreamError, match=r"packet 0 .* or its encoder is new"):
        cloud.decode_round(packets[0])
    with pytest.raises(sqs.StreamError, match=r"packet 0 .* or its encoder is new"):
        cloud.decode_round(send(sqs.StreamEncoder(codec), made[0]))


def test_a_reordered_stream_is_put_in_order(ends, codec):
    edge, cloud = ends
    made = rounds(4, 40, codec)
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


def test_numbers_start_again_after_128(ends, codec):
    edge, cloud = ends
    made = rounds(5, 300, codec)
    for i, round_ in enumerate(made):
        data = send(edge, round_)
        assert data[0] == (i % 128 if i else 0x80)
        assert cloud.decode_round(data) == round_
    *_, half, too_far = send_all(edge, rounds(6, 65, codec))
    with pytest.raises(sqs.StreamError, match="63 missing"):
        cloud.decode_round(half)
    with pytest.raises(sqs.StreamError, match="came before; or 64 are missing"):
        cloud.decode_round(too_far)


def test_a_decoder_joins_late(ends, codec):
    edge, cloud = ends
    made = rounds(7, 5, codec)
    packets = send_all(edge, made)
    for data in packets[1:3]:
        with pytest.raises(sqs.StreamError, match=r"begins with a packet .* restart"):
            cloud.decode_round(data)
    edge.restart()
    for round_ in rounds(8, 3, codec):
        assert cloud.decode_round(send(edge, round_)) == round_


def test_a_restart_at_another_number(ends, codec):
    """Of several restarts some may be lost."""
    edge, cloud = ends
    cloud.decode_round(send(edge, rounds(9, 1, codec)[0]))
    for lost in (1, 3, 100):
        for round_ in rounds(lost, lost, codec):
            send(edge, round_)
        edge.restart()
        for round_ in rounds(10, 3, codec):
            assert cloud.decode_round(send(edge, round_)) == round_


def damaged(data, rng):
    """Yield packets that are like this one but broken."""
    yield from (data[:0], data[:1], data[:3], data[:-1], data + b"\0")
    for _ in range(50):
        wrong = bytearray(data)
        body = 4 if data[0] & 0x80 else 1
        wrong[rng.integers(body, len(data))] ^= 1 << int(rng.integers(8))
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
        data = send(edge, round_)
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
        assert cloud.decode_round(send(edge, round_)) == round_


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


@pytest.mark.parametrize("clone", [copy.deepcopy, through_pickle])
def test_copies_go_their_own_ways(ends, codec, clone):
    edge, cloud = ends
    for round_ in rounds(13, 5, codec):
        cloud.decode_round(send(edge, round_))
    other_edge, other_cloud = clone(edge), clone(cloud)
    mine, others = rounds(14, 9, codec), rounds(15, 9, codec)
    for round_, other in zip(mine, others, strict=True):
        assert cloud.decode_round(send(edge, round_)) == round_
        assert other_cloud.decode_round(send(other_edge, other)) == other


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
        assert cloud.decode_round(wrap(send(edge, round_))) == round_
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


def test_ids_without_order_cost_hardly_more():
    """What is remembered is no use here, and a uniform mode is still there."""
    rng = np.random.default_rng(18)
    codec = sqs.Codec(V)
    edge = sqs.StreamEncoder(codec)
    streamed = alone = 0
    for _ in range(50):
        q = random_distribution(rng, V, 100, 20)
        token = [q.sample(rng)]
        streamed += len(edge.encode_round([q], token))
        alone += len(codec.encode_round([q], token))
    assert streamed <= 1.02 * alone + 50
