"""Sessions: handshake, rounds, what is lost, late or doubled, limits, misuse."""

import json
import subprocess
import sys

import numpy as np
import pytest

import sqs_codec as sqs
from sqs_codec.session import (
    EdgeSession,
    Emitted,
    Limits,
    LinkError,
    LocalLink,
    Refused,
    Sampling,
    Setting,
    Welcomed,
    session_of,
    unknown_session,
)
from sqs_codec.session import _wire as wire
from tests.kit import make_prior
from tests.session_kit import (
    SESSION,
    Target,
    V,
    draft_logits,
    exchange,
    greedy,
    make_cloud,
    make_edge,
    weights,
    work,
)

LAZY = {"sends": lambda q: False}


def start(**options):
    """Return both ends after the handshake, and a target."""
    edge, cloud, target = make_edge(**options), make_cloud(), Target()
    exchange(edge, cloud, target)
    return edge, cloud, target


def draft(edge, n=4):
    for _ in range(n):
        edge.push(draft_logits(edge))


def send(edge, cloud):
    """Carry what is due to the cloud, and nothing back."""
    for message in edge.data_to_send():
        cloud.receive(message)


def read(edge, cloud):
    return [event for m in cloud.data_to_send() for event in edge.receive(m)]


def kinds(messages):
    """Name messages by their first bytes; "round" and "answer" are the same."""
    names = {1: "hello", 2: "context", 3: "distribution", 4: "generate", 5: "end"}
    return ["round" if m[0] & 0x80 else names[m[0]] for m in messages]


# The handshake


def test_a_welcome_says_what_the_cloud_takes():
    cloud = make_cloud(
        limits=Limits(max_draft=9), max_text=50, steps={1: 0.02, 6: 0.025}
    )
    edge = make_edge()
    assert edge.waiting
    assert (edge.limits, edge.target_steps) == (None, None)
    events = exchange(edge, cloud, Target())
    assert events == [Welcomed(Limits(max_text=50, max_draft=9))]
    assert edge.limits == events[0].limits
    assert edge.target_steps == pytest.approx({1: 0.02, 6: 0.025})
    assert not edge.waiting


@pytest.mark.parametrize(
    ("vocab_size", "most"), [(2, 256), (49152, 256), (262_144, 63), (1 << 20, 15)]
)
def test_an_answer_of_three_bytes_counts_the_longest_draft(vocab_size, most):
    limits = Limits(max_draft=256)
    cloud = make_cloud(vocab_size=vocab_size, limits=limits)
    setting = Setting(sqs.Codec(vocab_size), sqs.TopK(2))
    edge = make_edge([0, 1], [setting])
    exchange(edge, cloud, Target())
    assert edge.limits.max_draft == most
    answer = wire.Answer(127, most, vocab_size - 1)
    assert len(answer.to_bytes(vocab_size)) == 4
    assert wire.parse_down(answer.to_bytes(vocab_size), vocab_size) == answer


def test_a_cloud_knows_the_priors_that_it_is_given():
    own, other = make_prior(V, 2), make_prior(V, 2, style=2)
    setting = Setting(sqs.Codec(V, 16, prior=own), sqs.TopK(4))
    for given, known in (([other, own], True), ([other], False), ([], False)):
        edge = make_edge(settings=[setting])
        exchange(edge, make_cloud(priors=given), Target())
        assert (edge.limits is not None) == known
        if not known:
            assert own.digest.hex() in edge.refused
    with pytest.raises(TypeError, match=r"priors\[0\] must be a Prior, got str"):
        make_cloud(priors=["smollm2"])


def changed(**content):
    """Return a hello with other content."""
    message = make_edge().data_to_send()[0]
    return bytes([1]) + json.dumps(json.loads(message[1:]) | content).encode()


CONFIG = sqs.Codec(V, 16).config() | {"fingerprint": sqs.Codec(V, 16).fingerprint.hex()}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"protocol": 2}, "the edge speaks version 2 .* the cloud version 1"),
        ({"session": "00" * 16}, f"of session {'00' * 16}, this is {SESSION.hex()}"),
        ({"session": "00"}, "session must be 16 bytes in hex, got '00'"),
        ({"seed": "00" * 15}, f"seed must be 16 bytes in hex, got '{'00' * 15}'"),
        ({"seed": 5}, "seed: expected a str, got 5"),
        (
            {"codecs": [CONFIG | {"vocab_size": 9}]},
            "the edge's vocabulary has 9 tokens, the cloud's has 8",
        ),
        ({"codecs": []}, "a hello has 1 to 4 codecs, got 0"),
        ({"codecs": [CONFIG] * 5}, "a hello has 1 to 4 codecs, got 5"),
        (
            {"codecs": [CONFIG | {"format_version": 7}]},
            "the config is for format version 7, and this release .* version",
        ),
        (
            {"codecs": [CONFIG | {"prior": "0123456789abcdef"}]},
            "the config needs the prior 0123456789abcdef, which is none of those",
        ),
        ({"codecs": [CONFIG | {"resolution": [1]}]}, "resolution must be an integer"),
        (
            {"codecs": [CONFIG | {"fingerprint": "00"}]},
            "fingerprint '00', the cloud ma",
        ),
        (
            {"tokenizer": "0123456789abcdef"},
            "the edge's tokenizer is 0123456789abcdef, the cloud's is unknown",
        ),
        ({"sampling": {"temperature": 1}}, "can't sample as .* must have the keys"),
        (
            {"sampling": Sampling().config() | {"typical_p": 1}},
            "can't sample as the edge asks: sampling must have the keys",
        ),
        (
            {"sampling": Sampling().config() | {"temperature": "hot"}},
            "temperature must be a number, got 'hot'",
        ),
        ({"stop": [8]}, "stop token 8 lies outside the vocabulary of 8"),
        ({"stop": [-1]}, "stop: expected an integer, at least 0, got -1"),
        ({"stop": [1] * 65}, "a hello has at most 64 stop tokens, got 65"),
        ({"max_message": 100}, "max_message: expected an integer, at least 512"),
        ({"more": 1}, "hello must have the keys"),
    ],
)
def test_a_mismatch_is_refused_in_words_that_name_both_sides(content, reason):
    edge, cloud = make_edge(), make_cloud()
    edge.data_to_send()
    cloud.receive(changed(**content))
    (message,) = cloud.data_to_send()
    (event,) = edge.receive(message)
    assert event == Refused(cloud.refused) == Refused(edge.refused)
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(cloud.refused)
    assert not edge.waiting
    with pytest.raises(RuntimeError, match="push: the session was refused: "):
        edge.push(np.zeros(V))
    assert edge.text == [1, 2]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b'"protocol": 1', b'"protocol": true', "speaks version True of the protocol"),
        (b'"protocol": 1', b'"protocol": 1.0', "speaks version 1.0 of the protocol"),
        (b'{"protocol"', b'{"protocol": 2, "protocol"', "the key 'protocol' twice"),
        (b'"seed"', b'"salt"', "hello must have the keys ['codecs', 'max_message', "),
        (b"16", b"1" * 5000, "a hello must be JSON"),
        (b"1.0", b"NaN", "NaN is no JSON"),
        (b"1.0", b"1e999", "temperature must be finite"),
        (b'"stop": []', b'"stop": "\xff"', "a hello must be JSON"),
        (b"16", b"[" * 20 + b"]" * 20, "a hello has at most 16 arrays and objects"),
    ],
)
def test_odd_json_is_refused(old, new, reason):
    cloud, hello = make_cloud(), changed()
    assert old in hello
    cloud.receive(hello.replace(old, new, 1))
    assert reason in cloud.refused


def test_json_that_is_nearly_too_deep_for_python_is_refused():
    for depth in range(900, 1000):
        deep = b'"resolution": ' + b"[" * depth + b"]" * depth
        cloud = make_cloud()
        cloud.receive(changed().replace(b'"resolution": 16', deep))
        assert cloud.refused


def welcome(**content):
    """Return a welcome with other content."""
    edge, cloud = make_edge(), make_cloud()
    send(edge, cloud)
    (message,) = cloud.data_to_send()
    return bytes([1]) + json.dumps(json.loads(message[1:]) | content).encode()


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ({"0": 1}, "steps must have numbers of tokens, got '0'"),
        ({"-1": 1}, "steps must have numbers of tokens, got '-1'"),
        ({"1": -1}, "steps must have milliseconds, got -1"),
        ({"1": True}, "steps must have milliseconds, got True"),
        ({"1": 10**400}, "steps must have milliseconds, got 1000"),
        ({"1": []}, "steps must have milliseconds, got []"),
        ([1], "steps: expected a dict"),
    ],
)
def test_steps_that_make_no_sense_are_refused(steps, reason):
    edge = make_edge()
    edge.receive(welcome(steps=steps))
    assert reason in edge.refused


def test_a_refused_session_stays_refused():
    edge, cloud, _target = start()
    cloud.receive(b"\x77")
    cloud.data_to_send()
    for message in [*make_edge().data_to_send(), b"\x05", b"", unknown_session()]:
        cloud.receive(message)
        (refusal,) = cloud.data_to_send()
        assert refusal == wire.Refusal(cloud.refused).to_bytes()
        assert cloud.next_job() is None
    assert edge.receive(refusal) == [Refused("no message begins with byte 0x77")]
    assert edge.receive(refusal) == []
    assert edge.data_to_send() == []


def test_another_hello_of_the_same_session_is_refused():
    _, cloud, _ = start()
    cloud.receive(make_edge(stop=[3]).data_to_send()[0])
    assert "opened by another hello" in cloud.refused


def test_a_reason_is_cut_to_500_bytes():
    refusal = wire.Refusal("ä" * 400).to_bytes()
    assert len(refusal) <= 501
    assert wire.parse_down(refusal, V).reason == "ä" * 250


def test_whose_hello_it_is():
    hello = make_edge().data_to_send()[0]
    assert session_of(hello) == SESSION
    for other in (b"", b"\x01", hello[:-1], b"\x81" + hello[1:], b"\x05", b"\x01[]"):
        assert session_of(other) is None
    deep = b"\x01" + b"[" * 60_000
    assert session_of(deep) is None


# Rounds


def test_headers_have_four_bytes():
    edge, cloud, target = start()
    draft(edge)
    edge.flush(last=True)
    (message,) = edge.data_to_send()
    codec = edge._settings[0].codec
    assert codec.decode_round(message[4:]).tokens == edge.drafted
    cloud.receive(message)
    work(cloud, target)
    assert [len(m) for m in cloud.data_to_send() if m[0] & 0x80] == [4]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_text_is_the_same_however_it_crosses(temperature):
    """The same draws give the same text; at temperature 0 it is the target's own."""

    def generate(segment, options):
        edge, cloud, target = start(sampling=Sampling(temperature))
        for n in range(30):
            edge._drafters[0].rng = np.random.default_rng(n)
            events = []
            while len(edge.drafted) < 5 and not events:
                draft(edge, min(segment, 5 - len(edge.drafted)))
                edge.flush(last=len(edge.drafted) >= 5, **options)
                events = exchange(edge, cloud, target)
            assert isinstance(events[-1], Emitted)
        assert edge.text == cloud._text
        return edge.text

    text = generate(5, {})
    for segment in (1, 3, 5):
        assert generate(segment, {}) == text
        assert generate(segment, LAZY) == text
    if temperature == 0:
        assert text == greedy([1, 2], len(text) - 2)


def test_a_lost_answer_comes_again_without_another_verdict():
    edge, cloud, target = start()
    draft(edge)
    edge.flush(last=True)
    send(edge, cloud)
    work(cloud, target)
    (answer,) = [m for m in cloud.data_to_send() if m[0] & 0x80]  # and it is lost
    jobs = target.jobs
    for _ in range(3):
        edge.resend()
        send(edge, cloud)
        assert cloud.next_job() is None
    assert [m for m in cloud.data_to_send() if m[0] & 0x80] == [answer]
    assert target.jobs == jobs
    (event,) = edge.receive(answer)
    assert edge.receive(answer) == []
    assert edge.text == cloud._text == [1, 2, *event.tokens]


def test_the_same_number_with_other_bytes_is_refused():
    edge, cloud, target = start()
    draft(edge)
    edge.flush(last=True)
    messages = edge.data_to_send()
    for message in messages:
        cloud.receive(message)
    other = messages[-1][:4] + sqs.Codec(V, 16).encode_round(
        [sqs.SparseDistribution([0], [16], V)], [0]
    )
    for before in (True, False):
        if not before:
            work(cloud, target)
        cloud.receive(messages[-1])
        assert cloud.refused is None
    cloud.receive(other)
    assert "segment 0 of round 2 came before with other bytes" in cloud.refused


def test_segments_come_in_any_order_and_twice():
    edge, cloud, target = start()
    for i in range(4):
        draft(edge, 1)
        edge.flush(last=i == 3)
    segments = edge.data_to_send()
    for i in (2, 3, 3, 1, 2, 0, 0):
        cloud.receive(segments[i])
    work(cloud, target)
    assert read(edge, cloud)[-1].drafted == 4
    assert edge.text == cloud._text


def test_a_rejection_voids_what_follows():
    """The answer comes before the round is whole, and late segments change nothing."""
    edge, cloud, target = start(sampling=Sampling(0.0))
    wrong = np.full(V, -np.inf)
    wrong[(greedy([1, 2], 1)[-1] + 1) % V] = 0
    edge.push(wrong)
    edge.flush(last=False)
    send(edge, cloud)
    edge.push(wrong)
    edge.flush(last=False)
    late = edge.data_to_send()
    edge.push(wrong)  # and the edge drafts on
    work(cloud, target)
    (event,) = read(edge, cloud)
    assert event == Emitted((greedy([1, 2], 1)[-1],), 0, 3)
    for message in late:
        cloud.receive(message)
    assert (cloud.next_job(), cloud.data_to_send()) == (None, [])
    assert edge.drafted == ()


def test_an_end_without_tokens_is_a_segment():
    """If the draft ends after all is flushed, 4 bytes say so; no job is needed."""
    edge, cloud, target = start(sampling=Sampling(0.0))
    right = np.full(V, -np.inf)
    right[greedy([1, 2], 1)[-1]] = 0
    edge.push(right)
    edge.flush(last=False)
    exchange(edge, cloud, target)
    jobs = target.jobs
    edge.flush(last=True)
    (message,) = edge.data_to_send()
    assert len(message) == 4
    cloud.receive(message)
    work(cloud, target)
    assert read(edge, cloud) == [Emitted(tuple(greedy([1, 2], 2)[2:]), 1, 1)]
    assert target.jobs == jobs


def wanted():
    """Return both ends where the cloud wants a distribution."""
    edge, cloud, target = start(sampling=Sampling(1.0))
    target.probs = lambda text: np.eye(V)[weights(text, 0).argmax()]
    wrong = np.log((np.arange(V) != greedy([1, 2], 1)[-1]) + 1e-9)
    edge.push(wrong)
    edge.push(wrong)
    edge.flush(last=True, **LAZY)
    send(edge, cloud)
    work(cloud, target)
    return edge, cloud, target


def test_a_distribution_that_is_wanted():
    edge, cloud, target = wanted()
    assert read(edge, cloud) == []
    assert edge.waiting
    (message,) = edge.data_to_send()
    assert kinds([message]) == ["distribution"]
    (emitted,) = exchange_one(message, edge, cloud, target)
    assert (emitted.accepted, emitted.wanted) == (0, True)
    assert edge.text == greedy([1, 2], 1)


def exchange_one(message, edge, cloud, target):
    cloud.receive(message)
    work(cloud, target)
    return read(edge, cloud)


def test_a_lost_want_and_a_lost_distribution_come_again():
    edge, cloud, target = wanted()
    cloud.data_to_send()  # the want is lost
    edge.resend()
    messages = edge.data_to_send()
    assert kinds(messages) == ["round"]
    exchange_one(messages[0], edge, cloud, target)
    assert kinds(edge.data_to_send()) == ["distribution"]  # and it is lost
    edge.resend()
    messages = edge.data_to_send()
    assert kinds(messages) == ["distribution"]
    exchange_one(messages[0], edge, cloud, target)
    assert edge.text == greedy([1, 2], 1)


def test_a_lost_answer_to_a_distribution_comes_again():
    edge, cloud, target = wanted()
    read(edge, cloud)
    send(edge, cloud)
    work(cloud, target)
    assert cloud.data_to_send()
    edge.resend()
    messages = edge.data_to_send()
    assert kinds(messages) == ["distribution"]
    assert len(exchange_one(messages[0], edge, cloud, target)) == 1


def test_a_distribution_with_another_count_is_refused():
    _, cloud, _ = wanted()
    q = sqs.SparseDistribution([*range(V)], [2] * V, V)
    packet = sqs.Codec(V, 16).encode(q)
    cloud.receive(wire.Distribution(2, 0, packet).to_bytes())
    assert "counts the drafted token" in cloud.refused


def test_a_want_crosses_an_abort():
    edge, cloud, target = wanted()
    want = cloud.data_to_send()
    edge.abort([3, 4])
    for message in want:
        assert edge.receive(message) == []
    exchange(edge, cloud, target)
    assert cloud._text == [3, 4]
    assert cloud._draft is None


# Numbers


def test_an_answer_crosses_an_abort():
    edge, cloud, target = start()
    draft(edge)
    edge.flush(last=True)
    send(edge, cloud)
    work(cloud, target)
    edge.abort()
    assert read(edge, cloud) == []
    assert edge.text == [1, 2]
    draft(edge)
    edge.flush(last=True)
    exchange(edge, cloud, target)
    assert edge.text == cloud._text
    assert edge.text[:2] == [1, 2]


@pytest.mark.parametrize("aborts", [1, 31, 32, 64, 128])
def test_an_answer_isnt_taken_for_that_to_a_round_128_numbers_later(aborts):
    edge, cloud, target = start(sampling=Sampling(0.0))
    draft(edge)
    edge.flush(last=True)
    send(edge, cloud)
    work(cloud, target)
    late = cloud.data_to_send()
    for i in range(aborts):
        edge.abort([5, i % V])
        draft(edge, 2)
        edge.flush(last=True)
        messages = edge.data_to_send()
    for message in late:
        assert edge.receive(message) == []
    assert kinds(messages) == ["context", "round"][: 1 + (aborts < 32)]
    for message in messages:
        cloud.receive(message)
    work(cloud, target)
    read(edge, cloud)
    exchange(edge, cloud, target)
    assert edge.text[2:] == greedy(edge.text[:2], len(edge.text) - 2)[2:]
    assert edge.text == cloud._text
    assert len(edge.text) > 2


def test_a_round_on_another_text_is_not_verified():
    """By its base alone: an edge of another make may count its rounds otherwise."""
    edge, cloud, _ = start()
    draft(edge)
    edge.flush(last=True)
    (message,) = edge.data_to_send()[-1:]
    cloud.receive(message[:1] + bytes([0, message[2] + 1]) + message[3:])
    (answer,) = cloud.data_to_send()
    assert isinstance(wire.parse_down(answer, V), wire.Need)
    assert cloud.next_job() is None


def test_many_rounds_and_bases_wrap():
    """Numbers beyond 128 and texts beyond 65 536 tokens."""
    limits = Limits(max_text=100_000)
    edge, target = make_edge([1, 2] * 32_700), Target()
    cloud = make_cloud(limits=limits, max_text=100_000)
    exchange(edge, cloud, target)
    for _ in range(140):
        draft(edge, 3)
        edge.flush(last=True)
        exchange(edge, cloud, target)
    assert len(edge.text) > 1 << 16
    assert edge.text == cloud._text
    assert edge._number > 128


def test_a_text_that_was_overtaken():
    edge, cloud, target = start()
    edge.abort([3])
    old = edge.data_to_send()
    edge.abort([4, 5])
    new = edge.data_to_send()
    for message in new + old:
        cloud.receive(message)
    read(edge, cloud)
    assert cloud._text == [4, 5]
    draft(edge)
    edge.flush(last=True)
    exchange(edge, cloud, target)
    assert edge.text == cloud._text


def test_another_text_for_the_same_round_is_refused():
    _, cloud, _ = start()
    message = wire.Context(cloud._instance, 2, 2, 0, 0, 2, [7, 7])
    cloud.receive(message.to_bytes(V))
    assert cloud.refused == "another text was given for round 2 before"
    _, cloud, _ = start()
    message = wire.Context(cloud._instance, 2, 1, 2, 2, 2, [])
    cloud.receive(message.to_bytes(V))
    assert cloud.refused == "round 2 was to be drawn by 2 before, not by 1"


# Clouds that forget


def forgotten(edge, instance_of=None):
    """Return a cloud that knows nothing, told of by the one answer that it has."""
    for message in edge.data_to_send():
        assert session_of(message) is None
    edge.receive(unknown_session())
    return make_cloud()


def test_a_restarted_cloud_gets_the_text_again():
    edge, cloud, target = start()
    for _ in range(3):
        draft(edge)
        edge.flush(last=True)
        exchange(edge, cloud, target)
    text = edge.text
    draft(edge)
    drafted = edge.drafted
    edge.flush(last=True)
    cloud = forgotten(edge)
    assert edge.waiting
    for _ in range(5):
        assert edge.receive(unknown_session()) == []  # one hello is enough
    welcome, event = exchange(edge, cloud, target)
    assert isinstance(welcome, Welcomed)
    assert event.drafted == len(drafted)
    assert edge.text == cloud._text
    assert edge.text[: len(text) + event.accepted] == [
        *text,
        *drafted[: event.accepted],
    ]


def told(messages):
    """Return number and number to draw by of the one text among messages."""
    parts = [wire.parse_up(m, V) for m in messages]
    (part,) = [part for part in parts if isinstance(part, wire.Context)]
    return part.number, part.drawn


def lazy_round(edge, cloud, target):
    """Draft and send a round whose first token will be rejected; None comes back."""
    while True:
        draft(edge)
        edge.flush(last=True, **LAZY)
        send(edge, cloud)
        work(cloud, target)
        if cloud._draft is not None:
            assert cloud._draft.wanted
            return cloud._draft.number
        read(edge, cloud)


def test_a_draft_has_the_same_numbers_on_every_cloud():
    edge, cloud, target = start()
    first = lazy_round(edge, cloud, target)
    found = cloud._draft.accepted
    for restarts in (1, 2, 3):
        cloud = forgotten(edge)
        send(edge, cloud)
        read(edge, cloud)
        messages = edge.data_to_send()
        assert told(messages) == (first + 2 * restarts, first)
        for message in messages:
            cloud.receive(message)
        work(cloud, target)
        assert cloud._draft.wanted
        assert cloud._draft.accepted == found
    exchange(edge, cloud, target)
    read(edge, cloud)
    exchange(edge, cloud, target)
    assert edge.text == cloud._text
    assert cloud._drawn == cloud._number == edge._number == first + 7
    draft(edge)
    cloud = forgotten(edge)
    send(edge, cloud)
    read(edge, cloud)
    assert told(edge.data_to_send()) == (first + 9, first + 7)


def test_a_cloud_that_comes_back_draws_by_the_same_numbers():
    edge, old, target = start()
    first = lazy_round(edge, old, target)
    found = old._draft.accepted
    edge.reconnect()
    exchange_hello(edge, make_cloud())
    edge.reconnect()
    exchange_hello(edge, old)
    messages = edge.data_to_send()
    assert told(messages) == (first + 4, first)
    for message in messages:
        old.receive(message)
    work(old, target)
    assert old._draft.wanted
    assert old._draft.accepted == found
    edge.receive(wire.Need(old._instance).to_bytes())  # a late one
    exchange(edge, old, target)
    assert edge.text == old._text


def exchange_hello(edge, cloud):
    send(edge, cloud)
    read(edge, cloud)


def test_what_is_drafted_anew_has_numbers_of_its_own():
    """After a draft that another cloud was to have, whether dropped or aborted."""
    for options in ({}, {"limits": Limits(max_draft=9)}):
        edge, cloud, target = start()
        first = lazy_round(edge, cloud, target)
        exchange_hello(edge, forgotten(edge))
        edge.reconnect()
        cloud = make_cloud(**options)
        exchange_hello(edge, cloud)
        if not options:
            edge.abort()
        number = edge._number
        assert number == first + (4 if options else 6)
        assert told(edge.data_to_send()) == (number, number)
        edge.resend()
        draft(edge)
        edge.flush(last=True)
        messages = edge.data_to_send()
        assert told(messages) == (number, number)
        for message in messages:
            cloud.receive(message)
        assert cloud._draft.draws.number == number
        exchange(edge, cloud, target)


def test_a_generation_has_other_numbers_on_every_cloud():
    """Those of the first decided about tokens that are in the text."""
    edge, cloud, target = start()
    edge.generate(3)
    send(edge, cloud)
    work(cloud, target)
    cloud = forgotten(edge)
    exchange_hello(edge, cloud)
    send(edge, cloud)
    assert cloud._generation.draws.number == cloud._number == 4


def test_a_reconnect_to_a_cloud_that_knows_sends_no_text_again():
    edge, cloud, target = start()
    draft(edge)
    edge.flush(last=True)
    send(edge, cloud)
    work(cloud, target)
    cloud.data_to_send()  # lost with the link
    edge.reconnect()
    assert kinds(edge.data_to_send()) == ["hello"]
    assert edge.data_to_send() == []
    cloud.receive(edge._hello)
    read(edge, cloud)
    messages = edge.data_to_send()
    assert kinds(messages) == ["round"]
    assert len(exchange_one(messages[0], edge, cloud, target)) == 1
    assert edge.text == cloud._text


def test_two_clouds_that_answer_one_round_differently():
    """The edge takes the late answer of the one, and the other isn't at its text.

    The second cloud gets copies of all that the edge sent to the first.
    """
    edge, first, target = make_edge(), make_cloud(), Target()
    send(edge, first)
    read(edge, first)
    draft(edge)
    edge.flush(last=True)
    copies = [edge._hello, *edge.data_to_send()]
    assert kinds(copies) == ["hello", "context", "round"]
    for message in copies:
        first.receive(message)
    work(first, target)
    late = first.data_to_send()
    second = make_cloud()
    for message in copies:
        second.receive(message)
    work(second, target)
    assert second.text_length == 0  # the text was addressed to the first
    events = [event for message in late for event in edge.receive(message)]
    assert isinstance(events[-1], Emitted)
    draft(edge)
    edge.flush(last=True)
    exchange(edge, second, target)
    assert edge.text == second._text
    assert len(edge.text) > 2 + len(events[-1].tokens)


def test_back_to_a_cloud_that_has_an_older_text():
    """What the edge knows of one cloud's text says nothing of another's."""
    edge, first, target = start()
    edge.reconnect()
    second = make_cloud()
    exchange(edge, second, target)
    edge.abort([3, 4, 5])
    exchange(edge, second, target)
    assert (first._text, second._text) == ([1, 2], [3, 4, 5])
    edge.reconnect()
    draft(edge)
    edge.flush(last=True)
    exchange(edge, first, target)
    assert edge.text[:3] == [3, 4, 5]
    assert edge.text == first._text
    assert len(edge.text) > 3


def test_a_late_welcome_while_the_answer_is_lost():
    """The edge sends a long text again that the cloud has answered a round to."""
    edge, cloud, target = (
        make_edge([1, 2, 3] * 300, max_message=512),
        make_cloud(),
        Target(),
    )
    send(edge, cloud)
    (welcome,) = cloud.data_to_send()
    edge.receive(welcome)
    exchange(edge, cloud, target)
    draft(edge)
    edge.flush(last=True)
    send(edge, cloud)
    work(cloud, target)
    cloud.data_to_send()
    edge.reconnect()
    send(edge, cloud)
    cloud.data_to_send()
    edge.receive(welcome)  # which says that the cloud has nothing
    assert exchange(edge, cloud, target)
    assert edge.text == cloud._text


def test_a_round_in_segments_asks_for_its_text_once():
    edge, cloud, _ = start()
    edge.abort([3])
    for i in range(3):
        draft(edge, 1)
        edge.flush(last=i == 2)
    context, *segments = edge.data_to_send()
    needs = []
    for message in segments:
        cloud.receive(message)
        needs += cloud.data_to_send()
    assert needs == [wire.Need(cloud._instance).to_bytes()]
    edge.receive(needs[0])
    assert edge.data_to_send() == [context, *segments]


def test_a_lost_part_of_a_text_is_sent_again_once():
    edge, cloud = make_edge([1, 2, 3] * 700, max_message=512), make_cloud()
    send(edge, cloud)
    read(edge, cloud)
    parts = edge.data_to_send()
    assert len(parts) == 8  # and there are more to come
    answers = []
    for i, part in enumerate(parts):
        if i != 1:
            cloud.receive(part)
            answers += cloud.data_to_send()
    again = []
    for answer in answers:
        edge.receive(answer)
        again += edge.data_to_send()
    assert 7 <= len(again) <= 10
    for part in again:
        cloud.receive(part)
        read(edge, cloud)
    send(edge, cloud)
    assert cloud.text_length == 2100


def test_an_id_that_another_edge_used():
    """The cloud's number is far ahead, and its text is another."""
    edge, cloud, target = start()
    for _ in range(5):
        draft(edge)
        edge.flush(last=True)
        exchange(edge, cloud, target)
    other = make_edge([7, 7, 7])
    exchange(other, cloud, target)
    draft(other)
    other.flush(last=True)
    exchange(other, cloud, target)
    assert other.text[:3] == [7, 7, 7]
    assert other.text == cloud._text


def test_a_long_text_crosses_in_parts_whatever_is_lost():
    edge, cloud, target = (
        make_edge([1, 2, 3] * 1000, max_message=512),
        make_cloud(),
        Target(),
    )
    exchange_some(edge, cloud, target, np.random.default_rng(0))
    draft(edge)
    edge.flush(last=True)
    exchange_some(edge, cloud, target, np.random.default_rng(1))
    assert edge.text == cloud._text
    assert len(edge.text) > 3000


def exchange_some(edge, cloud, target, rng):
    """Lose a fifth of all messages, and double and reorder the rest."""
    for _ in range(300):
        up = [m for m in edge.data_to_send() for _ in range(rng.integers(3))]
        for i in rng.permutation(len(up)):
            cloud.receive(up[i])
        work(cloud, target)
        down = [m for m in cloud.data_to_send() for _ in range(rng.integers(3))]
        for i in rng.permutation(len(down)):
            edge.receive(down[i])
        if not up:
            edge.resend()
        if not edge.waiting and edge._context is None:
            return
    raise AssertionError("never done")


def test_a_text_is_read_before_a_round_comes():
    edge, cloud, _ = start()
    edge.abort([3, 4, 5])
    send(edge, cloud)
    job = cloud.next_job()
    assert (job.text, job.round_, job.session) == ([3, 4, 5], None, SESSION)
    assert job.draws.size == 0
    cloud.complete(job, None)
    assert cloud.next_job() is None


# Decoding alone


def test_generate_and_raise():
    edge, cloud, target = start(sampling=Sampling(0.0))
    edge.generate(3)
    send(edge, cloud)
    edge.generate(5)
    with pytest.raises(ValueError, match=r"n must be in \[5, 4094\], got 4"):
        edge.generate(4)
    tokens = [
        t
        for event in exchange(edge, cloud, target)
        for t in getattr(event, "tokens", ())
    ]
    assert [1, 2, *tokens] == edge.text == greedy([1, 2], 5) == cloud._text
    assert not edge.waiting
    edge.generate(2)  # anew
    exchange(edge, cloud, target)
    assert edge.text == greedy([1, 2], 7)
    draft(edge)
    edge.flush(last=True)
    exchange(edge, cloud, target)
    assert edge.text == cloud._text


def test_a_generation_that_is_raised_when_it_was_complete():
    """Its text comes again, late, and is the one before the generation."""
    edge, cloud, target = start(sampling=Sampling(0.0))
    edge.abort([3, 4])
    context = edge.data_to_send()[0]
    cloud.receive(context)
    for n in (1, 3):
        edge.generate(n)
        send(edge, cloud)
        cloud.receive(context)
        work(cloud, target)
        cloud.receive(context)
    assert cloud.refused is None
    exchange(edge, cloud, target)
    read(edge, cloud)
    assert edge.text == cloud._text == greedy([3, 4], 3)


def test_a_generation_goes_on_with_another_cloud():
    edge, cloud, target = start(sampling=Sampling(0.0))
    edge.generate(4)
    send(edge, cloud)
    for _ in range(2):
        job = cloud.next_job()
        cloud.complete(job, target.judge(job))
    read(edge, cloud)
    assert edge.text == greedy([1, 2], 2)
    edge.reconnect()
    exchange(edge, make_cloud(), target)
    assert edge.text == greedy([1, 2], 4)


def test_a_generation_ends_where_another_cloud_reads_no_more():
    edge, cloud, target = start(sampling=Sampling(0.0))
    edge.generate(10)
    for message in edge.data_to_send():
        cloud.receive(message)
    cloud.complete(job := cloud.next_job(), target.judge(job))
    read(edge, cloud)
    assert len(edge.text) == 3
    edge.reconnect()
    exchange(edge, make_cloud(max_text=8), target)
    assert edge.text == greedy([1, 2], 6)
    assert edge.finished
    assert not edge.waiting


def test_raising_a_generation_counts_from_where_it_began():
    edge, cloud, target = start(sampling=Sampling(0.0))
    edge.generate(4)
    send(edge, cloud)
    for _ in range(2):
        job = cloud.next_job()
        cloud.complete(job, target.judge(job))
    read(edge, cloud)
    edge.reconnect()
    cloud = make_cloud()
    send(edge, cloud)
    read(edge, cloud)
    with pytest.raises(ValueError, match=r"n must be in \[4, 4094\], got 3"):
        edge.generate(3)
    edge.generate(6)
    exchange(edge, cloud, target)
    assert edge.text == greedy([1, 2], 6)


def test_a_late_need_while_tokens_come():
    edge, cloud, target = start(sampling=Sampling(0.0))
    edge.generate(3)
    send(edge, cloud)
    job = cloud.next_job()
    cloud.complete(job, target.judge(job))
    read(edge, cloud)
    edge.receive(wire.Need(cloud._instance).to_bytes())
    exchange(edge, cloud, target)
    assert cloud.refused is None
    assert edge.text == greedy([1, 2], 3)


def test_generated_tokens_that_are_lost_come_again():
    edge, cloud, target = start(sampling=Sampling(0.0))
    edge.generate(4)
    send(edge, cloud)
    parts = []
    for _ in range(4):
        job = cloud.next_job()
        while not job.draws.size:
            cloud.complete(job, None)
            job = cloud.next_job()
        cloud.complete(job, target.judge(job))
        parts += [m for m in cloud.data_to_send() if m[0] == 4]
    assert len(parts) == 4
    edge.receive(parts[0])
    assert edge.receive(parts[2]) == []  # a gap, so it is asked for again
    assert kinds(edge.data_to_send()) == ["context", "generate"][-1:]
    edge.resend()
    exchange(edge, cloud, target)
    assert edge.text == greedy([1, 2], 4)


@pytest.mark.parametrize("how", ["draft", "generate"])
def test_a_stop_token_ends_the_text_at_both_ends(how):
    text = greedy([1, 2], 30)
    stop = text[6]
    edge, cloud, target = start(sampling=Sampling(0.0), stop=[stop])
    end = 2 + text[2:].index(stop) + 1
    while not edge.finished:
        if how == "generate":
            edge.generate(20)
        else:
            for token in greedy(edge.text, 20)[len(edge.text) :]:
                right = np.full(V, -np.inf)
                right[token] = 0
                if edge.push(right) is None:
                    break
            edge.flush(last=True)
        exchange(edge, cloud, target)
    assert edge.text == cloud._text == text[:end]
    with pytest.raises(RuntimeError, match="push: the text is whole"):
        edge.push(np.zeros(V))
    edge.abort([*edge.text, 1])
    assert not edge.finished
    draft(edge)
    edge.flush(last=True)
    exchange(edge, cloud, target)
    assert edge.text == cloud._text


def test_a_stop_token_in_the_prompt_ends_nothing():
    edge, cloud, target = start(stop=[2])
    assert not edge.finished
    draft(edge, 1)
    edge.flush(last=True)
    exchange(edge, cloud, target)
    assert len(edge.text) > 2


# What the edge learns


@pytest.mark.parametrize("answer", ["round", "abort", "segments"])
def test_the_threshold_rolls_back_as_a_drafters(answer):
    keep, twin = (sqs.Conformal(alpha=0.05, eta=0.3) for _ in range(2))
    codec = sqs.Codec(V, 16)
    edge, cloud, target = start(
        settings=[Setting(codec, keep)], rng=np.random.default_rng(3)
    )
    drafter = sqs.Drafter(codec, twin, rng=np.random.default_rng(3), max_tokens=32)
    for _ in range(20):
        events = []
        for i in range(5):
            if events:
                break
            logits = draft_logits(edge)
            assert edge.push(logits) == drafter.push(logits)
            if answer == "segments":
                edge.flush(last=i == 4)
                events = exchange(edge, cloud, target)
        assert keep.threshold == twin.threshold or events
        if answer == "abort":
            edge.abort()
            drafter.abort()
        else:
            if answer == "round":
                edge.flush(last=True)
                events = exchange(edge, cloud, target)
            drafter.finish()
            drafter.feedback(events[-1].accepted)
        assert keep.threshold == twin.threshold


# Limits


def refusal(message, cloud=None):
    cloud = cloud or start()[1]
    cloud.receive(message)
    return cloud.refused


def segment(last=True, setting=0, mixed=False, index=0, packet=None, length=20):
    number = base = 2
    if packet is None:
        q = sqs.SparseDistribution([0, 1], [8, 8], V)
        packet = sqs.Codec(V, 16).encode_round([q] * length, [0] * length)
    return wire.Segment(number, base, last, setting, mixed, index, packet).to_bytes()


def test_the_cloud_keeps_its_limits():
    def limited(**limits):
        given = {"max_text": 30, "max_message": 600} | limits
        cloud = make_cloud(limits=Limits(**given))
        exchange(make_edge(), cloud, Target())
        return cloud

    assert "601 bytes, the cloud takes at most 600" in refusal(bytes(601), limited())
    assert "20 drafted tokens, the cloud takes at most 15" in refusal(
        segment(), limited(max_draft=15)
    )
    cloud = limited(max_draft=39, max_text=100)
    cloud.receive(segment(last=False, index=3))
    assert "40 drafted tokens" in refusal(segment(index=5), cloud)
    cloud = limited(max_draft=100)
    cloud.receive(segment(last=False, index=3))
    assert "2 tokens and a draft of 40 leave no room" in refusal(
        segment(index=5), cloud
    )
    assert "more survivors than max_survivors = 30" in refusal(
        segment(), limited(max_survivors=30)
    )
    cloud = limited(max_survivors=50, max_draft=100, max_text=100)
    cloud.receive(segment(last=False))
    assert "have 80 tokens, the cloud takes at most 50" in refusal(
        segment(index=1), cloud
    )
    for total in (30, 1 << 40):
        cloud = limited()
        context = wire.Context(cloud._instance, 9, 9, 0, 0, total, [1])
        assert f"text has {total} tokens, the cloud takes 1 to 29" in refusal(
            context.to_bytes(V), cloud
        )
    assert "2 tokens and 29 more are more than the cloud's 30" in refusal(
        wire.Generate(2, 2, 29, 0).to_bytes(), limited()
    )


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([segment(setting=3)], "setting 3 is unknown; the hello has 1"),
        (
            [segment(length=1), segment(index=1, length=1)],
            "segment 1 follows the last, 0",
        ),
        (
            [segment(index=2, last=False, length=1), segment(index=1, length=1)],
            "segment 2 follows the last, 1",
        ),
        ([segment(packet=b"")], "a segment without tokens must be a last one"),
        ([segment(packet=b"", index=1, last=False)], "must be a last one"),
        ([segment(packet=b"\xff" * 9)], "segment 0: packet of 9 bytes"),
        ([segment(mixed=True, packet=b"\xff" * 9)], "segment 0: "),
        ([wire.Generate(2, 2, 1, 2).to_bytes()], "a generation of 1 can't have 2"),
        ([segment(), wire.Generate(2, 2, 1, 0).to_bytes()], "was a draft before"),
        ([b""], "a message of 0 bytes ends inside a field"),
        ([b"\x05\x00"], "bytes follow the end of a message"),
        ([b"\x03\x80\x00"], "a round's number is below 128, got 128"),
        ([b"\x04" + b"\xff" * 10], "an integer has more bytes than it may"),
        ([b"\x04\x80\x00"], "an integer has more bytes than it may"),
        ([b"\x02abcd\x05\x06\x02\x02\x02"], "round 5 can't be drawn by a later"),
        ([b"\x02abcd\x05\x05\x02\x01\x02\x00\x01"], "doesn't lie between"),
        ([b"\x02abcd\x05\x05\x00\x00\x02"], "must have tokens, got none"),
        (
            [b"\x02abcd\x05\x05\x00\x00\x02\x00"],
            "tokens take 2 bytes each, got 1 bytes",
        ),
        (
            [b"\x02abcd\x05\x05\x00\x00\x02\x00\x08"],
            "token 8 lies outside the vocabulary",
        ),
    ],
)
def test_what_breaks_the_protocol_is_refused_with_its_reason(messages, reason):
    _, cloud, _ = start()
    for message in messages:
        cloud.receive(message)
    assert reason in (cloud.refused or "")


def test_the_edge_keeps_the_clouds_limits():
    limits = Limits(max_text=12, max_draft=3, max_message=512, max_survivors=9)
    edge = make_edge(settings=[Setting(sqs.Codec(V, 16), sqs.TopK(4))])
    cloud, target = make_cloud(limits=limits), Target(lambda text: np.eye(V)[0])
    exchange(edge, cloud, target)
    flat = np.zeros(V)  # four survivors each
    assert [edge.push(flat) is None for _ in range(3)] == [False, False, True]
    edge.abort()
    sharp = np.where(np.arange(V) == 0, 0, -np.inf)
    while not edge.finished:
        while edge.push(sharp) is not None:
            pass
        assert len(edge.drafted) <= 3
        if edge.drafted:
            edge.flush(last=True)
        else:
            edge.generate(1)
        exchange(edge, cloud, target)
        assert cloud.refused is None
    assert len(edge.text) == 12 == cloud.text_length
    with pytest.raises(RuntimeError, match="generate: the text is whole"):
        edge.generate(1)


def test_a_distribution_that_exceeds_a_limit_by_itself_changes_nothing():
    keep = sqs.Conformal(beta=-1)
    codec = sqs.Codec(2000, 1 << 16)
    edge = make_edge(settings=[Setting(codec, keep)])
    cloud = make_cloud(vocab_size=2000, limits=Limits(max_survivors=100))
    exchange(edge, cloud, Target(vocab_size=2000))
    with pytest.raises(ValueError, match=r"100 tokens in all, got 2000; keep fewer"):
        edge.push(np.zeros(2000))
    assert (keep.threshold, edge.drafted) == (-1, ())
    edge = make_edge(settings=[Setting(codec, keep)], max_message=512)
    exchange(edge, make_cloud(vocab_size=2000), Target(vocab_size=2000))
    with pytest.raises(ValueError, match="may have 512 bytes, and one of this distr"):
        edge.push(np.random.default_rng(0).normal(0, 1, 2000))
    assert (keep.threshold, edge.drafted) == (-1, ())


def test_rounds_are_split_to_fit_messages():
    """Large distributions, with or without which tokens cross in 16 segments."""
    codec = sqs.Codec(2000, 1 << 16)
    for k in (150, 25):
        edge = make_edge(settings=[Setting(codec, sqs.TopK(k))], max_message=512)
        cloud = make_cloud(vocab_size=2000, limits=Limits(max_survivors=10**6))
        target = Target(lambda text: np.full(2000, 1 / 2000), 2000)
        exchange(edge, cloud, target)
        rng = np.random.default_rng(0)
        while edge.push(rng.normal(0, 1, 2000)) is not None:
            edge.flush(last=False)
        assert len(edge.drafted) == 32
        edge.flush(last=True)
        parts = edge._draft.segments
        assert len(parts) <= 16
        assert all(len(part.packet) <= 508 for part in parts)
        assert isinstance(exchange(edge, cloud, target)[-1], Emitted)
        assert edge.text == cloud._text


def test_a_text_that_the_cloud_cannot_read_is_refused_in_words():
    edge = make_edge([1] * 20)
    (event,) = exchange(edge, make_cloud(max_text=20), Target())
    assert event.reason == (
        "the edge's text has 20 tokens, the cloud reads at most 19 and draws one more"
    )


SMALLER = {
    "max_text": 4095,
    "max_draft": 31,
    "max_message": 65535,
    "max_survivors": 4095,
}


@pytest.mark.parametrize("name", SMALLER)
@pytest.mark.parametrize("n", [1, 5])
def test_a_cloud_that_takes_less_ends_a_round_whatever_was_drafted(name, n):
    """What was drafted has no part in it, or the text would be biased."""
    edge, cloud, target = start()
    draft(edge, n)
    edge.flush(last=True)
    edge.data_to_send()
    edge.reconnect()
    cloud = make_cloud(limits=Limits(**{name: SMALLER[name]}))
    (welcome,) = exchange(edge, cloud, target)
    assert isinstance(welcome, Welcomed)
    assert (edge.drafted, edge.waiting, edge.refused) == ((), False, None)
    draft(edge, n)
    edge.flush(last=True)
    drafted = edge.drafted
    edge.reconnect()
    cloud = make_cloud()  # it takes more
    *_, event = exchange(edge, cloud, target)
    assert event.drafted == len(drafted) == n
    assert edge.text == cloud._text


def test_another_cloud_takes_shorter_rounds():
    edge, cloud, target = start()
    edge.reconnect()
    cloud = make_cloud(limits=Limits(max_draft=4))
    exchange(edge, cloud, target)
    draft(edge, 5)
    assert len(edge.drafted) == 4
    edge.flush(last=True)
    exchange(edge, cloud, target)
    assert edge.text == cloud._text


# Verifiers


def test_a_verifier_that_fails_is_asked_again_then_the_session_is_refused():
    edge, cloud, _ = start()
    draft(edge)
    edge.flush(last=True)
    send(edge, cloud)
    job = cloud.next_job()
    assert cloud.next_job() is None  # one at a time
    for _ in range(2):
        cloud.fail(job)
        again = cloud.next_job()
        assert again is not job
        assert again.text == job.text
        assert np.array_equal(again.draws, job.draws)
        job = again
    cloud.fail(job)
    assert cloud.refused == "the cloud's target model failed 3 times in a row"


def test_a_verdict_that_was_overtaken_is_ignored():
    edge, cloud, target = start()
    draft(edge)
    edge.flush(last=True)
    send(edge, cloud)
    job = cloud.next_job()
    edge.abort([5])
    send(edge, cloud)
    assert cloud.next_job() is None
    cloud.complete(job, target.judge(job))
    cloud.complete(job, target.judge(job))
    assert cloud._text == [5]
    assert cloud.next_job().text == [5]


@pytest.mark.parametrize(
    ("verdict", "message"),
    [
        (None, "can't be None"),
        (sqs.Verdict(5, 0), r"verdict.accepted must be in \[0, 4\], got 5"),
        (sqs.Verdict(0, V), r"verdict.token must be in \[0, 7\], got 8"),
        (sqs.Wanted(0), "wants the distribution of 0, which it has"),
        (sqs.Wanted(4), r"verdict.position must be in \[0, 3\], got 4"),
    ],
)
def test_a_verifier_is_checked(verdict, message):
    edge, cloud, _ = start()
    draft(edge)
    edge.flush(last=True)
    send(edge, cloud)
    job = cloud.next_job()
    with pytest.raises((ValueError, TypeError), match=message):
        cloud.complete(job, verdict)
    cloud.fail(job)  # nothing else has changed
    assert cloud.next_job() is not None


# The API


def test_end():
    edge, cloud, _ = start()
    draft(edge)
    edge.end()
    edge.end()
    assert edge.finished
    messages = edge.data_to_send()
    assert kinds(messages) == ["end"]
    assert edge.data_to_send() == []
    cloud.receive(messages[0])
    assert cloud.ended
    assert (cloud.next_job(), cloud.text_length) == (None, 0)
    assert cloud.data_to_send() == [unknown_session()]
    cloud.receive(messages[0])
    assert cloud.data_to_send() == [unknown_session()]
    assert edge.receive(unknown_session()) == []
    edge.resend()
    edge.reconnect()
    assert edge.data_to_send() == []
    with pytest.raises(RuntimeError, match="push: the session was ended"):
        edge.push(np.zeros(V))
    with pytest.raises(RuntimeError, match="abort: the session is over"):
        edge.abort()
    unheard = make_edge()
    unheard.end()
    assert unheard.data_to_send() == []


def test_calls_out_of_order():
    edge = make_edge()
    for call, name in [
        (lambda: edge.push(np.zeros(V)), "push"),
        (lambda: edge.flush(last=True), "flush"),
        (lambda: edge.generate(1), "generate"),
    ]:
        with pytest.raises(RuntimeError, match=f"{name}: the cloud's welcome comes fi"):
            call()
    edge, _, _ = start(settings=[Setting(sqs.Codec(V, 16), sqs.TopK(4))] * 2)
    with pytest.raises(RuntimeError, match="flush: nothing was drafted"):
        edge.flush(last=True)
    edge.push(np.zeros(V))
    with pytest.raises(ValueError, match=r"setting must be 0, .* got 1"):
        edge.push(np.zeros(V), setting=1)
    with pytest.raises(ValueError, match=r"setting must be in \[0, 1\], got 2"):
        edge.push(np.zeros(V), setting=2)
    with pytest.raises(RuntimeError, match="generate: a round is being drafted"):
        edge.generate(1)
    edge.flush(last=True)
    with pytest.raises(RuntimeError, match="push: an answer is due"):
        edge.push(np.zeros(V))
    with pytest.raises(RuntimeError, match="flush: the round is whole"):
        edge.flush(last=True)
    edge.abort()
    edge.generate(1)
    with pytest.raises(RuntimeError, match="push: an answer is due"):
        edge.push(np.zeros(V))
    edge.abort()
    for wrong in (0, 5000):
        with pytest.raises(ValueError, match=r"n must be in \[1, 4094\]"):
            edge.generate(wrong)
    with pytest.raises(ValueError, match=r"text must leave room .* 4096 .* got 4096"):
        edge.abort([1] * 4096)
    with pytest.raises(ValueError, match="nan"):
        edge.push(np.full(V, np.nan))
    assert edge.drafted == ()
    assert edge.push(np.zeros(V)) is not None


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"text": []}, ValueError, "text must have at least one token, got none"),
        ({"text": [V]}, ValueError, r"text\[0\] must be in \[0, 7\], got 8"),
        ({"text": [0.5]}, TypeError, r"text\[0\] must be an integer, got 0.5"),
        ({"text": "hello"}, TypeError, "text must be a sequence of integers"),
        ({"stop": [V]}, ValueError, r"stop\[0\] must be in \[0, 7\], got 8"),
        ({"stop": range(V)}, None, None),
        (
            {"stop": range(65), "settings": [Setting(sqs.Codec(99), sqs.TopK(1))]},
            ValueError,
            "stop must have at most 64 tokens, got 65",
        ),
        ({"sampling": {}}, TypeError, "sampling must be a Sampling, got dict"),
        ({"tokenizer": b"1"}, ValueError, "tokenizer must have 8 bytes or none, got 1"),
        ({"tokenizer": "12345678"}, TypeError, "tokenizer must be bytes, got str"),
        ({"session_id": b"1"}, ValueError, "session_id must have 16 bytes, got 1"),
        ({"seed": b""}, ValueError, "seed must have 16 bytes, got 0"),
        ({"seed": "0"}, TypeError, "seed must be bytes, got str"),
        ({"max_message": 511}, ValueError, "max_message must be at least 512, got 511"),
        ({"rng": 5}, TypeError, r"numpy\.random\.Generator, got int"),
        ({"settings": [5]}, TypeError, r"settings\[0\] must be a Setting, got int"),
        (
            {"settings": [Setting(sqs.Codec(n), sqs.TopK(1)) for n in (V, V + 1)]},
            ValueError,
            r"share one vocabulary, got those of \[8, 9\] tokens",
        ),
        (
            {"settings": [Setting(sqs.Codec(V), sqs.TopK(1))] * 5},
            ValueError,
            "settings must be 1 to 4 of them, got 5",
        ),
        (
            {
                "settings": [Setting(sqs.Codec(V), sqs.TopK(1))] * 4,
                "max_message": 512,
                "stop": range(V),
            },
            ValueError,
            r"max_message must be at least \d+, which the hello .* takes, got 512",
        ),
    ],
)
def test_bad_edges(options, error, message):
    options = {"settings": [Setting(sqs.Codec(V), sqs.TopK(1))], "text": [1]} | options
    options = {"rng": np.random.default_rng(0)} | options
    settings, text = options.pop("settings"), options.pop("text")
    if error is None:
        EdgeSession(settings, text, **options)
        return
    with pytest.raises(error, match=message):
        EdgeSession(settings, text, **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"limits": 5}, TypeError, "limits must be Limits, got int"),
        ({"vocab_size": 1}, ValueError, "vocab_size must be in"),
        ({"max_text": 1}, ValueError, "max_text must be at least 2, got 1"),
        ({"tokenizer": b"1"}, ValueError, "tokenizer must have 8 bytes or none, got 1"),
    ],
)
def test_bad_clouds(options, error, message):
    with pytest.raises(error, match=message):
        make_cloud(**options)


def test_bad_limits_and_settings():
    for name, wrong in [
        ("max_text", 1),
        ("max_draft", 0),
        ("max_draft", 257),
        ("max_message", 511),
        ("max_survivors", 0),
    ]:
        with pytest.raises(ValueError, match=f"{name} must be "):
            Limits(**{name: wrong})
    with pytest.raises(TypeError, match="codec must be a Codec, got int"):
        Setting(5, sqs.TopK(1))
    with pytest.raises(TypeError, match="keep must be a rule"):
        Setting(sqs.Codec(V), 5)


def test_a_link_in_this_process():
    link = LocalLink(Target(), limits=Limits(max_message=1000))
    assert (link.reliable, link.max_message, link.overhead) == (True, 1000, 0)
    assert link.receive(0) is None
    with pytest.raises(LinkError, match="no message is due"):
        link.receive(None)
    link.send(b"\x05")
    assert link.receive(None) == unknown_session()
    edge = make_edge()
    for _ in range(2):  # a session, and another on the same link
        while edge.waiting:
            for message in edge.data_to_send():
                link.send(message)
            while (message := link.receive(0.1)) is not None:
                edge.receive(message)
        edge = make_edge(session_id=None)
    assert link.sent > 100 < link.received
    link.close()
    link.close()
    for use in (lambda: link.send(b""), lambda: link.receive(0)):
        with pytest.raises(LinkError, match="the link is closed"):
            use()


def test_a_verifier_that_fails_in_this_process():
    class Failing(Target):
        def judge(self, job):
            raise MemoryError("out of memory")

    link, edge = LocalLink(Failing()), make_edge()
    link.send(edge.data_to_send()[0])
    edge.receive(link.receive(0))
    (context,) = edge.data_to_send()
    with pytest.raises(MemoryError, match="out of memory"):
        link.send(context)


def test_the_package_does_not_import_sessions():
    code = "import sys, sqs_codec; print([m for m in sys.modules if 'session' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n"
