"""Sessions: handshake, rounds, lost, late or doubled messages, limits, misuse."""

import json
import sys
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest

import sqs_codec as sqs
from sqs_codec import Sampling
from sqs_codec._codec.truncation import truncate
from sqs_codec.system._base.protocol import PART
from sqs_codec.system.session import (
    EdgeSession,
    Emitted,
    Limits,
    LinkError,
    LocalLink,
    Setting,
)
from sqs_codec.system.session import _wire as wire
from sqs_codec.system.session._cloud import MAX_FAILURES
from sqs_codec.system.session.transport import session_of, unknown_session
from sqs_codec.theory import conformal_bound
from tests.kit import make_prior
from tests.refusals import refuses
from tests.system.session.kit import (
    SESSION,
    Target,
    V,
    draft_logits,
    exchange,
    greedy,
    make_cloud,
    make_edge,
    take,
    work,
)


def start(**options):
    """Return both ends after the handshake, and a target."""
    edge, cloud, target = make_edge(**options), make_cloud(), Target()
    exchange(edge, cloud, target)
    return edge, cloud, target


def push(edge, n=4):
    for _ in range(n):
        edge.push(draft_logits(edge))


def draft(edge, n=4):
    """Draft a round, which is to be sent then."""
    push(edge, n)
    edge.flush()


def receive(cloud, messages):
    for message in messages:
        cloud.receive(message)


def send(edge, cloud):
    """Carry what is due to the cloud, and nothing back."""
    receive(cloud, edge.data_to_send())


def verify(edge, cloud, target):
    """Draft a round and have it verified; the answer is still at the cloud."""
    draft(edge)
    send(edge, cloud)
    work(cloud, target)


def read(edge, cloud):
    return take(edge, cloud.data_to_send())


def kinds(messages):
    """Name messages by their first bytes; "round" and "answer" are the same."""
    names = {1: "hello", 2: "context", 3: "generate", 4: "end"}
    return ["round" if m[0] & 0x80 else names[m[0]] for m in messages]


# The handshake


def test_a_welcome_states_the_clouds_limits():
    limits = Limits(max_text=90, max_message=5000)
    cloud = make_cloud(limits=limits, max_text=50, steps={1: 0.02, 6: 0.025})
    edge = make_edge()
    assert edge.waiting
    assert (edge.limits, edge.target_steps) == (None, None)
    assert exchange(edge, cloud, Target()) == []
    assert edge.welcomes == 1
    assert edge.limits == Limits(max_text=50, max_message=5000)
    assert edge.target_steps == pytest.approx({1: 0.02, 6: 0.025})
    assert not edge.waiting


@pytest.mark.parametrize(
    ("vocab_size", "most"), [(2, 32), (49152, 32), (600_000, 26), (1 << 20, 15)]
)
def test_an_answer_of_three_bytes_counts_the_longest_draft(vocab_size, most):
    edge = make_edge([0, 1], [Setting(sqs.Codec(vocab_size), sqs.TopK(2))])
    exchange(edge, make_cloud(vocab_size=vocab_size), Target())
    row = np.full(vocab_size, -np.inf)
    row[:2] = 0
    drafted = [edge.push(row) is not None for _ in range(most + 1)]
    assert drafted == [True] * most + [False]
    answer = wire.Answer(127, most, vocab_size - 1)
    assert len(answer.to_bytes(vocab_size)) == 4
    assert wire.parse_down(answer.to_bytes(vocab_size), vocab_size) == answer
    text = wire.Context(bytes(4), 2, 2, 0, 0, 0, 2, [1, vocab_size - 1])
    parsed = wire.parse_up(text.to_bytes(vocab_size), vocab_size)
    assert [*parsed.tokens] == text.tokens


def test_a_cloud_knows_its_given_priors():
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
        ({"protocol": 2}, "the edge has protocol version 2, the cloud 1"),
        ({"session": "00" * 16}, f"names session {'00' * 16}, this is {SESSION.hex()}"),
        ({"session": "00"}, "session must be 16 bytes in hex, got '00'"),
        ({"seed": "00" * 15}, f"seed must be 16 bytes in hex, got '{'00' * 15}'"),
        ({"seed": 5}, "seed: expected a str, got 5"),
        ({"codecs": [CONFIG | {"vocab_size": 9}]}, "vocabulary has 9 tokens, the"),
        (
            {"codecs": [CONFIG | {"vocab_size": 9}], "tokenizer": "0123456789abcdef"},
            "vocabulary has 9 tokens, the cloud's has 8",
        ),
        ({"codecs": []}, "a hello must have 1 to 4 codecs, got 0"),
        ({"codecs": [CONFIG] * 5}, "a hello must have 1 to 4 codecs, got 5"),
        ({"codecs": [CONFIG | {"format_version": 7}]}, "has format version 7, but"),
        ({"codecs": [CONFIG | {"prior": "0123456789abcdef"}]}, "needs the prior '012"),
        ({"codecs": [CONFIG | {"resolution": [1]}]}, "resolution must be an integer"),
        ({"codecs": [CONFIG | {"fingerprint": "00"}]}, "fingerprint '00', the cloud"),
        ({"tokenizer": "0123456789abcdef"}, "the cloud's unknown; both have 8 tok"),
        ({"sampling": {"temperature": 1}}, "sampling is invalid: .* have the keys"),
        (
            {"sampling": Sampling().config() | {"typical_p": 1}},
            "the edge's sampling is invalid: sampling must have the keys",
        ),
        (
            {"sampling": Sampling().config() | {"temperature": "hot"}},
            "number, got 'hot",
        ),
        ({"stop": [8]}, "stop token 8 is outside the vocabulary of 8"),
        ({"stop": [-1]}, "stop: expected an integer from 0 to "),
        ({"stop": [1] * 65}, "a hello may have 64 stop tokens, got 65"),
        ({"max_message": 100}, "max_message: expected an integer from 512"),
        ({"more": 1}, "hello must have the keys"),
    ],
)
def test_a_mismatch_message_names_both_sides(content, reason):
    edge, cloud = make_edge(), make_cloud()
    edge.data_to_send()
    cloud.receive(changed(**content))
    (message,) = cloud.data_to_send()
    assert edge.receive(message) is None
    assert edge.refused == cloud.refused
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(cloud.refused)
    assert not edge.waiting
    with pytest.raises(RuntimeError, match="push: the session was refused: "):
        edge.push(np.zeros(V))
    assert edge.text == [1, 2]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b'"protocol": 1', b'"protocol": true', "has protocol version True"),
        (b'"protocol": 1', b'"protocol": 1.0', "has protocol version 1.0"),
        (b'{"protocol"', b'{"protocol": 2, "protocol"', "the key 'protocol' twice"),
        (b'"seed"', b'"salt"', "hello must have the keys ['codecs', 'max_message', "),
        (b"16", b"1" * 5000, "a hello must be JSON"),
        (b"1.0", b"NaN", "NaN is not valid JSON"),
        (b"1.0", b"1e999", "temperature must be finite"),
        (b'"stop": []', b'"stop": "\xff"', "a hello must be JSON"),
        (b"16", b"[" * 20 + b"]" * 20, "a hello may have 16 arrays and objects"),
    ],
)
def test_odd_json_is_refused(old, new, reason):
    cloud, hello = make_cloud(), changed()
    assert old in hello
    cloud.receive(hello.replace(old, new, 1))
    assert reason in cloud.refused


def welcome(**content):
    edge, cloud = make_edge(), make_cloud()
    send(edge, cloud)
    (message,) = cloud.data_to_send()
    return bytes([1]) + json.dumps(json.loads(message[1:]) | content).encode()


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ({"0": 1}, "keys of steps must count tokens, got '0'"),
        ({"-1": 1}, "keys of steps must count tokens, got '-1'"),
        ({"1": -1}, "values of steps must be times, got -1"),
        ({"1": True}, "values of steps must be times, got True"),
        ({"1": 10**400}, "values of steps must be times, got 1000"),
        ({"1": []}, "values of steps must be times, got []"),
        ([1], "steps: expected a dict"),
    ],
)
def test_invalid_steps_are_refused(steps, reason):
    edge = make_edge()
    edge.receive(welcome(steps=steps))
    assert reason in edge.refused


def test_counters_stay_within_their_message_fields():
    """A hostile cloud's would make the edge send what an honest one must refuse."""
    for number, refused in ((1 << 62, False), ((1 << 62) + 1, True)):
        edge, cloud = make_edge(), make_cloud()
        edge.receive(welcome(number=number))
        assert (edge.refused is not None) == refused
        if not refused:
            edge.reconnect()
            send(edge, cloud)
            edge.receive(cloud.data_to_send()[0])
            send(edge, cloud)
            assert cloud.refused is None


def test_a_reason_is_cut_to_500_bytes():
    refusal = wire.Refusal("ä" * 400).to_bytes()
    assert len(refusal) <= 501
    assert wire.parse_down(refusal, V).reason == "ä" * 250


def test_a_hello_names_its_session():
    hello = make_edge().data_to_send()[0]
    assert session_of(hello) == SESSION
    for other in (b"", b"\x01", hello[:-1], b"\x81" + hello[1:], b"\x04", b"\x01[]"):
        assert session_of(other) is None
    deep = b"\x01" + b"[" * 60_000
    assert session_of(deep) is None


# Rounds


def test_a_lost_answer_is_repeated_with_its_verdict():
    edge, cloud, target = start()
    verify(edge, cloud, target)
    (answer,) = [m for m in cloud.data_to_send() if m[0] & 0x80]  # and it is lost
    jobs = target.jobs
    for _ in range(3):
        edge.resend()
        send(edge, cloud)
        assert cloud.next_job() is None
    assert [m for m in cloud.data_to_send() if m[0] & 0x80] == [answer]
    assert target.jobs == jobs
    (event,) = take(edge, [answer])
    assert edge.receive(answer) is None
    assert edge.text == cloud._text == [1, 2, *event.tokens]


def test_the_same_number_with_other_bytes_is_refused():
    edge, cloud, target = start()
    draft(edge)
    messages = edge.data_to_send()
    receive(cloud, messages)
    other = messages[-1][:4] + sqs.Codec(V, 16).encode_round(
        [sqs.SparseDistribution([0], [16], V)], [0]
    )
    for before in (True, False):
        if not before:
            work(cloud, target)
        cloud.receive(messages[-1])
        assert cloud.refused is None
    cloud.receive(other)
    assert cloud.refused == "round 2 came before with other bytes"


# Numbers


@pytest.mark.parametrize("aborts", [1, 31, 32, 64, 128])
def test_an_answer_is_not_mistaken_for_one_128_rounds_later(aborts):
    edge, cloud, target = start(sampling=Sampling(0.0))
    verify(edge, cloud, target)
    late = cloud.data_to_send()
    for i in range(aborts):
        edge.abort([5, i % V])
        draft(edge, 2)
        messages = edge.data_to_send()
    for message in late:
        assert edge.receive(message) is None
    assert kinds(messages) == ["context", "round"][: 1 + (aborts < 32)]
    receive(cloud, messages)
    work(cloud, target)
    read(edge, cloud)
    exchange(edge, cloud, target)
    assert edge.text[2:] == greedy(edge.text[:2], len(edge.text) - 2)[2:]
    assert edge.text == cloud._text
    assert len(edge.text) > 2


def test_a_round_on_a_different_text_is_not_verified():
    """Only by its base: another implementation may count rounds differently."""
    edge, cloud, _ = start()
    draft(edge)
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
        exchange(edge, cloud, target)
    assert len(edge.text) > 1 << 16
    assert edge.text == cloud._text
    assert edge._sync.number > 128


def test_a_different_text_for_the_same_round_is_refused():
    _, cloud, _ = start()
    message = wire.Context(cloud._instance, 2, 2, 0, 0, 0, 2, [7, 7])
    cloud.receive(message.to_bytes(V))
    assert cloud.refused == "round 2 had another text before"
    for drawn, epoch in ((1, 0), (2, 1)):
        _, cloud, _ = start()
        message = wire.Context(cloud._instance, 2, drawn, epoch, 2, 2, 2, [])
        cloud.receive(message.to_bytes(V))
        assert cloud.refused == (
            f"round 2 had random numbers 2 of epoch 0 before, got {drawn} of {epoch}"
        )


def test_a_session_holds_its_place_during_a_completion():
    edge, cloud, target = start(max_message=512)
    assert not cloud.holds_place
    for begin in (lambda: draft(edge, 3), lambda: edge.generate(2)):
        begin()
        send(edge, cloud)
        assert cloud.holds_place
        work(cloud, target)
        read(edge, cloud)
        assert not cloud.holds_place

    def places(text):
        """Let half of a long text arrive, or all of a short one."""
        edge.abort(text)
        send(edge, cloud)
        return cloud.holds_place, cloud.freed_place

    assert places([1] * 4000) == (True, False)
    edge.hold_place()
    assert places([1] * 5) == (True, False)
    read(edge, cloud)
    assert edge.free_place()
    [message] = edge.data_to_send()
    assert len(message) < 16
    cloud.receive(message)
    assert (cloud.holds_place, cloud.freed_place) == (False, True)
    assert edge.text == cloud._text == [1] * 5
    edge.hold_place()
    assert places([1] * 4000) == (True, False)


def test_a_full_or_ended_session_does_not_free_its_place():
    edge, _, _ = start()
    assert edge.free_place()
    edge._text = [1] * edge.limits.max_text
    assert not edge.free_place()
    assert not make_edge().free_place()
    edge.end()
    assert not edge.free_place()


# Clouds that forget


def test_a_reconnect_does_not_resend_a_known_text():
    edge, cloud, target = start()
    verify(edge, cloud, target)
    cloud.data_to_send()  # lost with the link
    edge.reconnect()
    assert kinds(edge.data_to_send()) == ["hello"]
    assert edge.data_to_send() == []
    cloud.receive(edge._hello)
    read(edge, cloud)
    messages = edge.data_to_send()
    assert kinds(messages) == ["round"]
    cloud.receive(messages[0])
    assert len(read(edge, cloud)) == 1
    assert edge.text == cloud._text


def test_reconnecting_to_a_cloud_with_an_older_text():
    """The edge's knowledge of one cloud's text doesn't apply to another's."""
    edge, first, target = start()
    edge.reconnect()
    second = make_cloud()
    exchange(edge, second, target)
    edge.abort([3, 4, 5])
    exchange(edge, second, target)
    assert (first._text, second._text) == ([1, 2], [3, 4, 5])
    edge.reconnect()
    draft(edge)
    exchange(edge, first, target)
    assert edge.text[:3] == [3, 4, 5]
    assert edge.text == first._text
    assert len(edge.text) > 3


@pytest.mark.parametrize("lost", [{1}, {1, 4}, {1, 5}, {0, 1, 2}, {3, 9}, {6, 7}])
def test_lost_parts_of_a_text_are_sent_again_once(lost):
    """And no others, without a timer, where parts come after them. Repetitions, too."""
    edge, cloud = make_edge([1, 2, 3] * 700, max_message=512), make_cloud()
    send(edge, cloud)
    read(edge, cloud)
    sent = []
    while parts := edge.data_to_send():
        answers = []
        for part in parts:
            if len(sent) not in lost:
                cloud.receive(part)
                answers += cloud.data_to_send()
            sent.append(part)
        for answer in answers:
            edge.receive(answer)
    assert cloud.text_length == 2100
    assert len(sent) == 10 + len(lost)


def test_early_parts_take_little_memory():
    """For any hostile edge: at most 8, and no more tokens than 3 texts."""
    _, cloud, _ = start()
    rng = np.random.default_rng(0)
    for _ in range(300):
        at, end = sorted(rng.choice(np.arange(1, 2000), 2, replace=False).tolist())
        text = [1] * (end - at)
        part = wire.Context(cloud._instance, 9, 9, 0, 0, at, 2000, text)
        cloud.receive(part.to_bytes(V))
        assert len(cloud._early) <= 8
        assert sum(len(one.tokens) for one in cloud._early.values()) < 3 * 2000
    other = wire.Context(cloud._instance, 11, 11, 0, 0, 0, 1, [1])
    cloud.receive(other.to_bytes(V))
    assert (cloud._text, cloud._early) == ([1], {})
    cloud.receive(wire.Context(cloud._instance, 13, 13, 0, 0, 5, 9, [1]).to_bytes(V))
    assert len(cloud._early) == 1
    cloud.receive(b"?")
    assert not cloud._early


def test_progress_is_capped_at_the_text_length():
    edge, cloud, target = start(text=[1] * 300)
    edge.generate(1)
    send(edge, cloud)
    read(edge, cloud)
    job = cloud.next_job()
    rises = [edge.progress]
    for count in (10, 64, 65, 64, 20, 128, 191, 300, 301, 10**6):
        cloud.tell_progress(count)
        read(edge, cloud)
        assert edge.data_to_send() == []
        rises.append(edge.progress)
    ends = [300, 300, 364, 364, 364, 364, 428, 428, 600, 600, 600]
    assert rises == ends
    cloud.complete(job, target.decide(job))
    assert read(edge, cloud) == [Emitted((greedy([1] * 300, 1)[300],), 0, 0)]
    assert edge.progress == 0


def follow(edge, then):
    """Begin what follows a text: a round or a generation."""
    if then == "round":
        draft(edge)
    elif then == "generation":
        edge.generate(2)


@pytest.mark.parametrize("then", [None, "round", "generation"])
@pytest.mark.parametrize("length", [3, PART, PART + 1])
def test_a_short_prompt_is_read_with_the_next_job(then, length):
    edge, cloud, target = start()
    text = [3, 4, 5] * length
    text = text[:length]
    edge.abort(text)
    follow(edge, then)
    send(edge, cloud)
    job = cloud.next_job()
    assert (job.text, job.session) == (text, SESSION)
    only_reads = then is None or length > PART
    assert (job.wanted == 0) == only_reads
    cloud.complete(job, target.decide(job))
    job = cloud.next_job()
    assert (job is None) == (then is None or (then == "round" and not only_reads))
    assert job is None or job.wanted


@pytest.mark.parametrize("then", ["round", "generation"])
@pytest.mark.parametrize("length", [PART, PART + 1])
@pytest.mark.parametrize("cancels", [True, False])
def test_messages_during_prefill(then, length, cancels):
    """A short one may be cancelled, and read with it; that is no failure."""
    edge, cloud, target = start(sampling=Sampling(0.0))
    edge.abort([3] * length)
    send(edge, cloud)
    for _ in range(MAX_FAILURES):
        job = cloud.next_job()
        assert (job.wanted, cloud.overtaken) == (0, False)
        follow(edge, then)
        send(edge, cloud)
        assert cloud.overtaken == (length == PART)
        if cancels and cloud.overtaken:
            cloud.fail(job)
        else:
            cloud.complete(job, None)
        job = cloud.next_job()
        assert (job.wanted > 0, cloud.overtaken) == (True, False)
        edge.abort([3] * length)
        send(edge, cloud)
        assert cloud.overtaken
        cloud.fail(job)
    assert cloud.refused is None
    follow(edge, then)
    exchange(edge, cloud, target)
    assert edge.text == cloud._text == greedy([3] * length, len(edge.text) - length)


def test_an_aborted_prompt_is_not_read_on():
    """Neither while the next one arrives in several messages, nor after."""
    edge, cloud, _ = start(max_message=512)
    edge.abort([3, 4, 5] * 1000)
    read(edge, cloud)
    while edge._sync._outgoing is not None:
        send(edge, cloud)
        read(edge, cloud)
    job = cloud.next_job()
    assert (len(job.text), cloud.overtaken) == (3000, False)
    edge.abort([6, 7] * 1000)
    part, *others = edge.data_to_send()
    cloud.receive(part)
    assert cloud.overtaken
    cloud.fail(job)
    assert cloud.next_job() is None
    receive(cloud, others)
    while edge._sync._outgoing is not None:
        read(edge, cloud)
        assert cloud.text_length == 2000 or cloud.next_job() is None
        send(edge, cloud)
    assert cloud.next_job().text == [6, 7] * 1000


# Decoding alone


def test_a_cloud_that_decodes_may_be_asked_for_more_tokens():
    edge, cloud, target = start(sampling=Sampling(0.0))
    edge.generate(3)
    send(edge, cloud)
    edge.generate(5)
    refuses(r"n must be in \[5, 4094\], got 4", edge.generate, 4)
    events = exchange(edge, cloud, target)
    tokens = [t for event in events for t in event.tokens]
    assert [1, 2, *tokens] == edge.text == greedy([1, 2], 5) == cloud._text
    assert not edge.waiting
    edge.generate(2)  # again
    exchange(edge, cloud, target)
    assert edge.text == greedy([1, 2], 7)
    draft(edge)
    exchange(edge, cloud, target)
    assert edge.text == cloud._text


def test_the_edge_sets_how_many_tokens_come_together():
    edge, cloud, target = start(sampling=Sampling(0.0))
    edge.generate(10, together=4)
    send(edge, cloud)
    sizes = []
    while (job := cloud.next_job()) is not None:
        if len(cloud._text) == 9:  # 3 tokens wait for another one
            edge.resend()
            send(edge, cloud)
            assert edge.receive(*cloud.data_to_send()) is None
        cloud.complete(job, target.decide(job))
        parts = cloud.data_to_send()
        if cloud._running():  # the last message is lost
            sizes += [len(edge.receive(part).tokens) for part in parts]
    assert sizes == [4, 4]
    edge.resend()
    exchange(edge, cloud, target)
    assert edge.text == greedy([1, 2], 10)
    refuses(r"together must be in \[1, 64\], got 65", edge.generate, 1, together=65)


@pytest.mark.parametrize("lost", [False, True])
def test_lost_tokens_are_asked_for_once(lost):
    """And again before the cloud has no more to send, if the request is lost, too."""
    edge, cloud, target = start(sampling=Sampling(0.0))
    edge.generate(24)
    send(edge, cloud)
    parts = []
    while (job := cloud.next_job()) is not None:
        cloud.complete(job, target.decide(job))
        parts += [m for m in cloud.data_to_send() if m[0] == 3]
    edge.receive(parts[0])
    asked = []
    for i, part in enumerate(parts[2:], 2):
        edge.receive(part)
        asked += [(i, message) for message in edge.data_to_send()]
        if i == 6 and not lost:  # 4 tokens later
            cloud.receive(asked[0][1])
            read(edge, cloud)
    assert len(parts) == 24
    assert [i for i, _ in asked] == ([2, 7, 12, 17, 22, 23] if lost else [2])
    assert {message for _, message in asked} == {asked[0][1]}
    assert edge.waiting == lost
    cloud.receive(asked[-1][1])
    read(edge, cloud)
    assert edge.text == greedy([1, 2], 24)


def hinted(edge, cloud, position, path, tokens, chance=0.9, number=None):
    edge.hint(position, [(path, tokens, [chance] * len(tokens))])
    (message,) = edge.data_to_send()
    if number is not None:
        message = bytes([message[0], number]) + message[2:]
    cloud.receive(message)


def test_only_likely_hints_are_verified():
    whole = greedy([1, 2], 12)[2:]
    right = whole[:6]

    def chain(*hints, threshold=0.1):
        edge, cloud, target = start(sampling=Sampling(0.0))
        edge.generate(9)
        send(edge, cloud)
        for hint in hints:
            hinted(edge, cloud, *hint[:3], **(hint[3] if hint[3:] else {}))
        job = cloud.next_job(threshold)
        cloud.complete(job, target.decide(job))
        assert cloud._text[2:] == whole[: len(cloud._text) - 2]
        return list(job.drafted)

    assert chain() == []
    assert chain((2, [], right)) == right
    assert chain((2, [], right, {"chance": 0.5})) == right[:3]
    assert chain((2, [], right, {"chance": 0.5}), threshold=0.4) == right[:1]
    assert chain((2, [], right[:3]), (5, right[:3], right[3:])) == right
    assert chain((5, right[:3], right[3:]), (2, [], right[:3])) == right  # late
    assert chain((5, [0, 0, 0], right[3:]), (2, [], right[:3])) == right[:3]
    assert chain((5, right[:3], right[3:])) == []  # what comes before was lost
    assert chain((2, [], right[:1] * 2, {"chance": 0.5}), (2, [], right)) == right
    assert chain((2, [], right, {"number": 1})) == []  # of another generation
    assert chain((99, [], right)) == []
    assert chain((2, [], whole)) == whole[:8]  # the ninth is the target's own


def test_invalid_guesses_and_hints():
    edge, _, _ = start()
    row = np.zeros(V)
    refuses(r"logits must have shape \(8,\), got \(9,\)", edge.guess, np.zeros(9), 2)
    fails = Mock(side_effect=RuntimeError("it's learning"))
    tensor = SimpleNamespace(shape=(V,), __array__=fails)
    said = "an array: it's learning; convert a tensor"
    refuses(said, edge.guess, tensor, 2, error=TypeError)
    refuses("position must be at least 2, got 1", edge.guess, row, 1)
    assert not edge.hint(2, [([], [1], [0.5])])  # nothing is decoded
    edge.generate(9)
    assert edge.hint(2, [([], [1], [0.5])])
    for branches, said in (
        ([], "1 to 16 of one length, got 0"),
        ([([], [1], [0.5])] * 17, "got 17 of"),
        ([([], [1], [0.5]), ([], [1, 2], [0.5, 0.5])], r"got 2 of \[1, 2\] tokens"),
        ([([], [1] * 17, [0.5] * 17)], "1 to 16 tokens and as many"),
        ([([], [], [])], "1 to 16 tokens and as many"),
        ([([], [8], [0.5])], r"tokens\[0\] must be in \[0, 7\], got 8"),
        ([([], [1], [np.nan])], r"chances\[0\] must be finite"),
    ):
        refuses(said, edge.hint, 2, branches)
    edge.abort([1, 2])
    edge.push(row)
    refuses("guess: a round is in the works", edge.guess, row, 2, error=RuntimeError)


@pytest.mark.parametrize(("chance", "right"), [(1.0, False), (1.0, True), (0.5, True)])
def test_the_cloud_learns_how_often_hints_are_right(chance, right):
    """Overstated probabilities are trusted less, and modest ones more.

    A chain ends without a matching hint.
    """
    edge, cloud, target = start(sampling=Sampling(0.0))
    lengths = []
    for _ in range(40):
        edge.generate(9)
        send(edge, cloud)
        tokens = greedy(edge.text, 3)[len(edge.text) :]
        hints = tokens if right else [(tokens[0] + 1) % V] * 8
        hinted(edge, cloud, len(edge.text), [], hints, chance)
        job = cloud.next_job(0.02 if right else 0.3)
        assert list(job.drafted) == hints[: len(job.drafted)]
        lengths.append(len(job.drafted))
        cloud.complete(job, target.decide(job))
        work(cloud, target)
        read(edge, cloud)
    if right:
        assert lengths[-1] == 3  # it learned that all of them are read
    else:
        assert lengths[0] == 8
        assert lengths[-1] <= 2


@pytest.mark.parametrize("how", ["draft", "generate"])
def test_a_stop_token_ends_the_completion_at_both_ends(how):
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
            edge.flush()
        exchange(edge, cloud, target)
    assert edge.text == cloud._text == text[:end]
    refuses("push: the text is whole", edge.push, np.zeros(V), error=RuntimeError)
    edge.abort(edge.text)  # which is no end as a prompt
    assert not edge.finished
    draft(edge)
    exchange(edge, cloud, target)
    assert edge.text == cloud._text
    assert len(edge.text) > end


# Sampling


ALL = [Setting(sqs.Codec(V, 16), sqs.TopK(V))]
SAMPLINGS = [
    Sampling(0.7, top_k=3),
    Sampling(0.7, top_p=0.8),
    Sampling(1.0, min_p=0.3),
    Sampling(1.3, top_k=6, top_p=0.8, min_p=0.02),
    Sampling(0.0, top_k=3, top_p=0.5, min_p=0.5),
]


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_draft_and_target_are_truncated_alike(sampling):
    """Before it is quantized, and the cloud gets what the token was drawn from."""
    torch = pytest.importorskip("torch")
    import sqs_codec.torch  # noqa: F401 : it makes tensors known

    codec, keep, rng = ALL[0].codec, sqs.TopK(V), np.random.default_rng(0)
    differ = 0
    for i in range(20):
        row = rng.integers(-8, 9, V).astype(np.float32) / 4
        row[i % 3] = -np.inf
        given = {"temperature": sampling.temperature}
        wanted = codec.quantize(truncate(row[None], sampling)[0], keep, **given)
        differ += wanted != codec.quantize(row, keep, **given)
        kinds = torch.float16, torch.bfloat16, torch.float32, torch.float64
        rows = [row, row.astype(np.float64), np.float16(row), [*map(float, row)]]
        rows += [torch.tensor(row, dtype=kind) for kind in kinds]
        edge, cloud, _ = start(settings=ALL, sampling=sampling)
        for logits in rows:
            assert edge.push(logits) in wanted.token_ids
        edge.flush()
        send(edge, cloud)
        assert [*cloud._draft.round.distributions] == [wanted] * len(rows)
    assert (differ > 0) == (sampling.temperature > 0)


def test_a_ready_distribution_is_sampled_unchanged():
    edge, cloud, _ = start(sampling=Sampling(1.0, top_k=1, top_p=0.1, min_p=1.0))
    q = sqs.SparseDistribution(range(V), [2] * V, V)
    for _ in range(4):
        edge.push(q)
    edge.flush()
    send(edge, cloud)
    assert [*cloud._draft.round.distributions] == [q] * 4


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_truncation_does_not_hide_bad_logits(wrong):
    edge, _, _ = start(sampling=Sampling(1.0, top_k=1))
    row = np.zeros(V)
    row[3 if wrong != -np.inf else slice(None)] = wrong
    refuses("masked" if wrong == -np.inf else str(wrong), edge.push, row)
    assert edge.drafted == ()


# Limits


def message(q=None, *, number=2, base=2, setting=0, length=1):
    """Return a round, which follows after `start` by default."""
    q = q or sqs.SparseDistribution([0, 1], [8, 8], V)
    codec = sqs.Codec(q.vocab_size, q.resolution)
    packet = codec.encode_round([q] * length, [0] * length)
    return wire.RoundMessage(number, base, setting, packet).to_bytes()


def text(total, tokens):
    return wire.Context(b"abcd", 4, 4, 0, 0, 0, total, tokens).to_bytes(V)


def test_a_round_stays_within_the_protocol_limits():
    """No cloud can lower them."""
    for length in (4, 5):
        setting = Setting(sqs.Codec(2000, 1000), sqs.TopK(4))
        cloud = make_cloud(vocab_size=2000)
        exchange(make_edge(settings=[setting]), cloud, Target(vocab_size=2000))
        q = sqs.SparseDistribution(range(1000), [1] * 1000, 2000)
        cloud.receive(message(q, length=length))
        assert (cloud.refused is None) == (length == 4)
    assert "more survivors than max_survivors = 4096" in cloud.refused


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([message(setting=3)], "setting 3 is unknown; the hello has 1"),
        ([message(setting=4)], "a setting must be below 4, got 4"),
        ([b"\x82\x00\x02\x00"], "a round's message must have 5 to 4096 bytes, got 4"),
        ([message() + bytes(4097 - len(message()))], "5 to 4096 bytes, got 4097"),
        ([message(length=33)], "a round has 33 drafted tokens, the limit is 32"),
        ([message(length=32)], ""),
        ([text(68, [1] * 68), message(number=4, base=68, length=32)], ""),
        ([text(69, [1] * 69), message(number=4, base=69, length=32)], "a draft of 32"),
        ([text(101, [1])], "text has 101 tokens, the cloud takes 1 to 100"),
        ([text(1 << 40, [1])], f"text has {1 << 40} tokens, the cloud takes 1 to 100"),
        ([wire.Generate(2, 2, 100, 0).to_bytes()], "and 100 more exceed the cloud's"),
        ([bytes(5001)], "5001 bytes, the cloud takes at most 5000"),
        ([b"\x82\x00\x02\x00" + b"\xff" * 9], "a round's packet of 9 bytes"),
        ([wire.Generate(2, 2, 1, 2).to_bytes()], "the edge has 2 tokens of 1"),
        ([wire.Generate(2, 2, 65, 0).to_bytes()], "65 ahead of the edge, the"),
        ([wire.Generate(2, 2, 99, 98).to_bytes()], "99 ahead of the edge, the"),
        ([message(), wire.Generate(2, 2, 1, 0).to_bytes()], "was a draft before"),
        ([b"\x06\x02\x01\x02\x00"], "must have 1 to 16 tokens, got 0"),
        ([b"\x06\x02\x01\x02\x11" + bytes(36)], "have 1 to 16 tokens, got 17"),
        ([b"\x06\x02\x01\x02\x01"], "1 to 16 branches of 4 bytes, got 0 bytes"),
        ([b"\x06\x02\x01\x02\x01" + bytes(5)], "branches of 4 bytes, got 5 bytes"),
        ([b"\x06\x02\x01\x02\x01" + bytes(68)], "branches of 4 bytes, got 68 bytes"),
        ([b"\x06\x02\x01\x02\x01\x00\x00\x00\x08"], "token 8 is outside the voc"),
        ([make_edge(stop=[3]).data_to_send()[0]], "differs from the session's first"),
        ([b"\x77"], "no message begins with byte 0x77"),
        ([b""], "a message of 0 bytes ends inside a field"),
        ([b"\x04\x00"], "a message ends after 1 bytes"),
        ([b"\x03" + b"\xff" * 10], "a varint has too many bytes"),
        ([b"\x03\x80\x00"], "a varint has too many bytes"),
        ([b"\x02abcd\x05\x06\x00\x02\x02\x02"], "round 5 can't use the later"),
        ([b"\x02abcd\x05\x05\x00\x02\x01\x02\x00\x01"], "must lie between"),
        ([b"\x02abcd\x05\x05\x00\x00\x00\x02"], "must have tokens, got none"),
        ([b"\x02abcd\x05\x05\x00\x00\x00\x02\x00"], "take 2 bytes each, got 1"),
        ([b"\x02abcd\x05\x05\x00\x00\x00\x02\x00\x08"], "token 8 is outside"),
    ],
)
def test_protocol_errors_are_refused_with_a_reason(messages, reason):
    """By a cloud that takes texts of 101 tokens and messages of 5000 bytes."""
    cloud = make_cloud(limits=Limits(max_text=101, max_message=5000))
    cloud._instance = b"abcd"
    exchange(make_edge(), cloud, Target())
    receive(cloud, messages)
    assert (cloud.refused is None) == (not reason)
    assert reason in (cloud.refused or "")


def test_the_edge_respects_the_clouds_limits():
    edge, cloud = make_edge(), make_cloud(limits=Limits(max_text=12))
    target = Target(lambda text: np.eye(V)[0])
    exchange(edge, cloud, target)
    sharp = np.where(np.arange(V) == 0, 0, -np.inf)
    while not edge.finished:
        while edge.push(sharp) is not None:
            pass
        if edge.drafted:
            edge.flush()
        else:
            edge.generate(1)
        exchange(edge, cloud, target)
        assert cloud.refused is None
    assert len(edge.text) == 12 == cloud.text_length
    refuses("generate: the text is whole", edge.generate, 1, error=RuntimeError)


@pytest.mark.parametrize("max_message", [512, 1200, 65536])
@pytest.mark.parametrize("coding", ["entropy", "enumerative", "bitpack"])
@pytest.mark.parametrize("k", [4, 120, 160])
def test_a_round_is_drafted_as_long_as_it_fits(max_message, coding, k):
    """For any sampled token: its message, its support, and the cloud's limits."""
    codec = sqs.Codec(2000, 1000, coding)
    edge = make_edge(settings=[Setting(codec, sqs.TopK(k))], max_message=max_message)
    cloud, target = make_cloud(vocab_size=2000), Target(vocab_size=2000)
    exchange(edge, cloud, target)
    most = min(max_message, 4096)
    rng = np.random.default_rng(0)
    for _ in range(4):
        while edge.push(rng.normal(0, 1, 2000)) is not None:
            pass
        drafted = edge.drafted
        edge.flush()
        (sent,) = [m for m in edge.data_to_send() if m[0] & 0x80]
        each = len(sent) / len(drafted)
        full = len(drafted) == 32 or len(drafted) * k > 4096 - k
        assert len(sent) <= most
        assert full or len(sent) + 1.5 * each > most
        edge.resend()
        assert exchange(edge, cloud, target)[-1].drafted == len(drafted)
        assert edge.text == cloud._text


def test_a_distribution_that_fits_no_round_changes_nothing():
    keep = sqs.Conformal(beta=-1)
    for n, noise, max_message in ((5000, 0, 65536), (2000, 1, 512)):
        logits = noise * np.random.default_rng(0).normal(0, 1, n)
        setting = Setting(sqs.Codec(n, 1 << 16), keep)
        edge = make_edge(settings=[setting], max_message=max_message)
        exchange(edge, make_cloud(vocab_size=n), Target(vocab_size=n))
        most = min(4096, max_message) - 4
        refuses(f"4096 tokens or {most} bytes;", edge.push, logits)
        assert (edge._drafters[0].state, edge.drafted) == (-1, ())


@pytest.mark.parametrize("how", ["draft", "generate", "idle"])
def test_a_cloud_with_a_lower_limit_is_refused(how):
    """Only because of its limit, not because of the draft. The text stays."""
    edge, cloud, target = start()
    if how == "draft":
        verify(edge, cloud, target)
    elif how == "generate":
        edge.generate(5)
        send(edge, cloud)
    edge.reconnect()
    reason = "the last cloud allowed texts of 4096 tokens, this one allows 4095"
    assert exchange(edge, make_cloud(max_text=4095), target) == []
    assert (edge.text, edge.drafted, edge.refused) == ([1, 2], (), reason)
    assert not edge.waiting
    other = make_edge(edge.text)
    exchange(other, make_cloud(max_text=4095), target)
    assert other.refused is None


# Verifiers


def test_a_failing_verifier_is_retried_then_the_session_refused():
    edge, cloud, _ = start()
    draft(edge)
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


@pytest.mark.parametrize(
    ("verdict", "message"),
    [
        (None, "can't have the verdict None"),
        (sqs.Verdict(5, 0), r"verdict.accepted must be in \[0, 4\], got 5"),
        (sqs.Verdict(0, V), r"verdict.token must be in \[0, 7\], got 8"),
        ((1, 2), r"the verdict \(1, 2\)"),
    ],
)
def test_a_verifier_is_checked(verdict, message):
    edge, cloud, _ = start()
    draft(edge)
    send(edge, cloud)
    job = cloud.next_job()
    refuses(message, cloud.complete, job, verdict, error=(ValueError, TypeError))
    cloud.fail(job)  # nothing else has changed
    assert cloud.next_job() is not None


# The API


def test_an_ended_session_sends_and_takes_nothing():
    edge, cloud, _ = start()
    push(edge)
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
    assert edge.receive(unknown_session()) is None
    edge.resend()
    edge.reconnect()
    assert edge.data_to_send() == []
    refuses("push: the session was ended", edge.push, np.zeros(V), error=RuntimeError)
    refuses("abort: the session is over", edge.abort, error=RuntimeError)
    unheard = make_edge()
    unheard.end()
    assert unheard.data_to_send() == []


def test_calls_out_of_order():
    edge = make_edge()
    for call, name in [
        (lambda: edge.push(np.zeros(V)), "push"),
        (lambda: edge.flush(), "flush"),
        (lambda: edge.generate(1), "generate"),
    ]:
        refuses(f"{name}: the cloud's welcome comes fi", call, error=RuntimeError)
    edge, _, _ = start(settings=[Setting(sqs.Codec(V, 16), sqs.TopK(4))] * 2)
    refuses("flush: nothing was drafted", edge.flush, error=RuntimeError)
    refuses(r"setting must be in \[0, 1\], got 2", edge.push, np.zeros(V), setting=2)
    edge.push(np.zeros(V))
    refuses(r"setting must be 0, .* got 1", edge.push, np.zeros(V), setting=1)
    refuses("generate: a round is being drafted", edge.generate, 1, error=RuntimeError)
    edge.flush()
    refuses("push: an answer is due", edge.push, np.zeros(V), error=RuntimeError)
    refuses("flush: the round is whole", edge.flush, error=RuntimeError)
    edge.abort()
    edge.generate(1)
    refuses("push: an answer is due", edge.push, np.zeros(V), error=RuntimeError)
    edge.abort()
    for wrong in (0, 5000):
        refuses(r"n must be in \[1, 4094\]", edge.generate, wrong)
    refuses(r"text must leave room .* 4096 .* got 4096", edge.abort, [1] * 4096)
    with pytest.raises(RuntimeError, match="push: up to token 3 the text goes on by"):
        edge.push(np.zeros(V))
    edge.abort([1, 2])
    refuses("nan", edge.push, np.full(V, np.nan))
    assert edge.drafted == ()
    assert edge.push(np.zeros(V)) is not None


def of(vocab_size):
    return Setting(sqs.Codec(vocab_size), sqs.TopK(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": []}, "text must have at least one token, got none"),
        ({"text": [V]}, r"text\[0\] must be in \[0, 7\], got 8"),
        ({"text": [0.5]}, r"text\[0\] must be an integer, got 0.5"),
        ({"text": "hello"}, "text must be a sequence of integers"),
        ({"stop": [V]}, r"stop\[0\] must be in \[0, 7\], got 8"),
        ({"stop": range(65), "settings": [of(99)]}, "at most 64 tokens, got"),
        ({"sampling": {}}, "sampling must be a Sampling, got dict"),
        ({"tokenizer": b"1"}, "tokenizer must have 8 bytes or none, got 1"),
        ({"tokenizer": "12345678"}, "tokenizer must be bytes, got str"),
        ({"session_id": b"1"}, "session_id must have 16 bytes, got 1"),
        ({"seed": b""}, "seed must have 16 bytes, got 0"),
        ({"seed": "0"}, "seed must be bytes, got str"),
        ({"max_message": 511}, "max_message must be at least 512, got 511"),
        ({"rng": 5}, r"numpy\.random\.Generator, got int"),
        ({"settings": [5]}, r"settings\[0\] must be a Setting, got int"),
        ({"settings": [of(8), of(9)]}, r"one vocabulary size, got \[8, 9"),
        ({"settings": [of(V)] * 5}, "there must be 1 to 4 settings, got 5"),
        (
            {"settings": [of(V)] * 4, "max_message": 512, "stop": range(V)},
            r"max_message must be at least \d+, the size of the hello .*, got 512",
        ),
    ],
)
def test_bad_edge_arguments_are_refused(options, message):
    options = {"settings": [of(V)], "text": [1]} | options
    given = {"rng": np.random.default_rng(0)} | options
    refuses(message, EdgeSession, error=(ValueError, TypeError), **given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limits": 5}, "limits must be Limits, got int"),
        ({"vocab_size": 1}, "vocab_size must be in"),
        ({"max_text": 1}, "max_text must be at least 2, got 1"),
        ({"tokenizer": b"1"}, "tokenizer must have 8 bytes or none, got 1"),
    ],
)
def test_bad_cloud_arguments_are_refused(options, message):
    refuses(message, make_cloud, error=(ValueError, TypeError), **options)
    for name, wrong in [("max_text", 1), ("max_message", 4095)]:
        refuses(f"{name} must be ", Limits, **{name: wrong})


def test_a_local_link():
    link = LocalLink(Target(), limits=Limits(max_message=5000))
    assert (link.reliable, link.max_message, link.overhead) == (True, 5000, 0)
    assert link.receive(0) is None
    refuses("no message is due", link.receive, None, error=LinkError)
    link.send(b"\x04")
    assert link.receive(None) == unknown_session()
    for edge in make_edge(), make_edge(session_id=None):
        link.send(edge.data_to_send()[0])
        assert edge.receive(link.receive(0)) is None
        assert not edge.waiting
    assert link.sent > 100 < link.received
    link.close()
    link.close()
    for use in (lambda: link.send(b""), lambda: link.receive(0)):
        refuses("the link is closed", use, error=LinkError)


def test_a_failing_verifier_of_a_local_link():
    class Failing(Target):
        def decide(self, job):
            raise MemoryError("out of memory")

    link, edge = LocalLink(Failing()), make_edge()
    link.send(edge.data_to_send()[0])
    edge.receive(link.receive(0))
    (context,) = edge.data_to_send()
    refuses("out of memory", link.send, context, error=MemoryError)


def calls(step, *given):
    """Return how many Python functions a step calls."""
    events = []
    sys.setprofile(lambda _, event, __: events.append(event))
    try:
        step(*given)
    finally:
        sys.setprofile(None)
    return events.count("call")


@pytest.mark.skipif(sqs.backend() != "native", reason="counts the native backend's")
def test_steps_of_a_round_make_few_calls():
    """Each distribution is checked where it enters and encoded once."""
    edge, cloud, target = start()
    row = np.linspace(-1, 1, V)
    for _ in range(2):  # the first one also fills caches
        assert np.median([calls(edge.push, row) for _ in range(5)]) <= 25
        assert calls(edge.flush) <= 25
        *others, message = edge.data_to_send()
        receive(cloud, others)
        work(cloud, target)
        assert calls(cloud.receive, message) + calls(cloud.next_job) <= 65
        cloud.complete(cloud._job, target.decide(cloud._job))
        read(edge, cloud)
    edge.generate(1)
    position = len(edge.text)
    assert calls(edge.guess, row, position, 3) <= 40
    branches = [([], [token] * 3, [0.5] * 3) for token in range(3)]
    assert calls(edge.hint, position, branches) <= 60


def test_the_bound_holds_if_rounds_of_a_setting_are_aborted():
    alpha, eta, dropped = 0.01, 0.5, []
    keep = sqs.Conformal(alpha, eta, 1.0)
    both = [Setting(sqs.Codec(V, resolution), keep) for resolution in (16, 32)]
    edge, cloud, target = start(settings=both)
    for _ in range(100):
        edge.push(np.zeros(V))
        dropped.append(edge._round.drafter.distributions[0].dropped_mass)
        edge.flush()
        exchange(edge, cloud, target)
        edge.push(np.zeros(V), setting=1)
        edge.abort()
        exchange(edge, cloud, target)
        assert np.mean(dropped) <= conformal_bound(alpha, eta, 1.0, len(dropped))


def test_a_stop_token_in_the_prompt_ends_nothing():
    edge, cloud, target = start(stop=[2])
    assert not edge.finished
    draft(edge, 1)
    exchange(edge, cloud, target)
    assert len(edge.text) > 2
