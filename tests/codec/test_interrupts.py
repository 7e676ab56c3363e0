"""Ctrl-C and signal handlers, at every moment there is.

A signal's handler runs between two instructions of Python code. So these tests run
a call again and again and put the handler before each of its instructions in turn.
"""

import gc
import signal
import sys

import numpy as np
import pytest

import sqs_codec as sqs
from tests.kit import any_round, normal_rows

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="needs setitimer"
)

V = 300
SECONDS = 100
KEEP = sqs.TopK(8)
ROWS = normal_rows(0, 13, V)
CODEC = sqs.Codec(V)
PACKETS = CODEC.encode_rows(CODEC.quantize_rows(ROWS, KEEP))


@pytest.fixture(autouse=True)
def _no_garbage_is_collected():
    """Garbage collection runs callbacks of others, which aren't ours to interrupt."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(autouse=True)
def _no_test_hangs():
    """End a test that waits for a lock for ever."""

    def give_up(*_):
        raise TimeoutError(f"nothing has happened for {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def at_every_instruction(call, handle):
    """Make a call with the handler before its instruction 0, then 1, 2, ...

    Yields after each; the last call has no such instruction any more.
    """
    handled = True
    number = 0
    while handled:
        left, handled = number, False

        def trace(frame, event, _):
            nonlocal left, handled
            frame.f_trace_opcodes = True
            if event == "opcode":
                if left == 0:
                    handled = True
                    handle()
                left -= 1
            return trace

        sys._getframe().f_trace_opcodes = True  # without it 3.12 traces none at first
        sys.settrace(trace)
        try:
            call()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        number += 1
        yield
    assert number > 100


def interrupt():
    raise KeyboardInterrupt


def encode(threads=3):
    rows = CODEC.quantize_rows(ROWS, KEEP, threads=threads)
    return CODEC.encode_rows(rows, threads=threads)


def test_a_batch_is_interrupted():
    for _ in at_every_instruction(encode, interrupt):
        assert encode(2) == PACKETS


def test_a_handler_calls_a_batch_during_a_batch():
    def handle():
        assert encode(4) == PACKETS

    for _ in at_every_instruction(encode, handle):
        pass
    assert encode() == PACKETS


@pytest.mark.parametrize("again", [False, True])
def test_single_calls_are_interrupted(again):
    """Or made again by a handler; the codec's buffers are none the worse for it."""
    rng = np.random.default_rng(1)
    codec = sqs.Codec(V)
    q = codec.quantize(ROWS[0], KEEP)
    round_ = any_round(rng, codec)
    packet, data = codec.encode(q), codec.encode_round(round_)
    target = rng.dirichlet(np.ones(V), len(round_) + 1)
    verdict = sqs.verify(round_, target, np.random.default_rng(2))

    def all_calls():
        assert codec.quantize(ROWS[0], KEEP) == q
        assert codec.encode(q) == packet
        assert codec.decode(packet) == q
        assert codec.encode_round(round_) == data
        assert codec.decode_round(data) == round_
        assert sqs.verify(round_, target, np.random.default_rng(2)) == verdict

    for _ in at_every_instruction(all_calls, all_calls if again else interrupt):
        all_calls()


def test_a_draft_is_interrupted():
    """Then `abort` gives the round up, with all that was learned from it."""
    codec = sqs.Codec(V)
    keep = sqs.Conformal(alpha=0.01, eta=0.1)
    edge = sqs.Drafter(codec, keep, rng=np.random.default_rng(4), budget_bits=9000)

    def draft():
        edge.push(ROWS[0])
        edge.push(ROWS[1], temperature=0.5)
        return edge.finish()

    for _ in at_every_instruction(draft, interrupt):
        edge.abort()
        assert edge.state == keep.beta
        assert len(codec.decode_round(draft())) == 2
        edge.abort()
        assert edge.state == keep.beta
