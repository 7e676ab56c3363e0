"""What Python adds to the C core: its calls on a vocabulary too small to matter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import sqs_codec as sqs
from sqs_codec._format import MAX_ROUND, Coding
from sqs_codec.bench.timing import Contestant, Timing, interleave

VOCAB_SIZE = 32
ROUND = 5
CALLS = 200
"""Calls of a block."""

Calls = dict[str, Callable[[], object]]


def measure(rounds: int, rng: np.random.Generator) -> dict[str, tuple[Timing, Timing]]:
    """Time calls through Python, and the same calls of C with arguments prepared.

    What it takes to cross from Python to C and back, measured on the same function
    with something that it has no work with, is taken off the latter, and so is counted
    as Python's.

    Returns
    -------
    dict of str to (Timing, Timing)
        By function, through Python and in C.
    """
    python, c, idle = _calls(rng)
    contestants = [
        _repeat(f"{name}, {way}", call)
        for way, calls in (("Python", python), ("C", c), ("idle", idle))
        for name, call in calls.items()
    ]
    times = interleave(contestants, rounds, rng)
    found = {}
    for name in python:
        crossing = times[f"{name}, idle"].median
        alone = np.maximum(times[f"{name}, C"].micros - crossing, 0)
        found[name] = times[f"{name}, Python"], Timing(alone)
    return found


def _repeat(name: str, call: Callable[[], object]) -> Contestant:
    def run() -> None:
        for _ in range(CALLS):
            call()

    return Contestant(name, run, CALLS)


def _calls(rng: np.random.Generator) -> tuple[Calls, Calls, Calls]:
    """Return calls through Python, of C, and of C with nothing to do."""
    codec, keep = sqs.Codec(VOCAB_SIZE), sqs.TopK(1)
    row = rng.normal(size=VOCAB_SIZE).astype(np.float32)
    q = codec.quantize(row, keep)
    packet = codec.encode(q)
    token = int(q.token_ids[0])
    round_ = sqs.Round((q,) * ROUND, (token,) * ROUND)
    round_packet = codec.encode_round(round_.distributions, round_.tokens)
    target = np.zeros((ROUND + 1, VOCAB_SIZE), np.float32)
    target[:, token] = 1
    python: Calls = {
        "encode_logits": lambda: codec.encode_logits(row, keep),
        "quantize": lambda: codec.quantize(row, keep),
        "encode": lambda: codec.encode(q),
        "decode": lambda: codec.decode(packet),
        f"decode_round of {ROUND}": lambda: codec.decode_round(round_packet),
        f"verify a round of {ROUND}": lambda: sqs.verify(round_, target, rng),
    }
    given = row, q, packet, round_, round_packet, target
    return python, _c_calls(*given, idle=False), _c_calls(*given, idle=True)


def _c_calls(
    row: Any,
    q: sqs.SparseDistribution,
    packet: bytes,
    round_: sqs.Round,
    round_packet: bytes,
    target: Any,
    idle: bool,
) -> Calls:
    from sqs_codec._core import ffi, lib
    from sqs_codec._native import ISA

    codec = ffi.new("sqs_codec *", (VOCAB_SIZE, q.resolution, Coding.ENTROPY, ISA))
    if idle:
        packet, round_packet = b"", b""
        target = np.full_like(target, np.nan)
    n = 0 if idle else 1
    rows = ffi.new("sqs_rows *", (ffi.from_buffer(row), lib.SQS_F32, n, VOCAB_SIZE))
    targets = ffi.new(
        "sqs_rows *", (ffi.from_buffer(target), lib.SQS_F32, len(target), VOCAB_SIZE)
    )
    keep, fit = ffi.new("sqs_keep *", (lib.SQS_TOP_K, 1.0)), ffi.new("sqs_fit *")
    words = {
        name: ffi.new("uint32_t[]", max(VOCAB_SIZE * ROUND, MAX_ROUND))
        for name in ("ids", "counts", "survivors", "positions", "length", "done")
    }
    ids, counts, survivors, positions, length, done = words.values()
    mass, size = ffi.new("double *"), ffi.new("size_t *")
    out, capacity = ffi.new("uint8_t[]", 4096), 4096
    scratch = ffi.new(
        "double[]",
        1
        + max(
            lib.sqs_quantize_scratch(codec),
            lib.sqs_encode_logits_scratch(codec),
            lib.sqs_verify_scratch(codec, ROUND),
        )
        // 8,
    )
    q_ids = ffi.new("uint32_t[]", q.token_ids.tolist())
    q_counts = ffi.new("uint32_t[]", q.counts.tolist())
    k = 0 if idle else len(q.token_ids)
    r_ids = ffi.new("uint32_t[]", q.token_ids.tolist() * ROUND)
    r_counts = ffi.new("uint32_t[]", q.counts.tolist() * ROUND)
    r_survivors = ffi.new("uint32_t[]", [len(q.token_ids)] * ROUND)
    r_positions = ffi.new("uint32_t[]", round_._arrays[3].tolist())
    draws = ffi.new("double[]", ROUND + 1)
    p, r = (
        ffi.from_buffer("uint8_t[]", packet),
        ffi.from_buffer("uint8_t[]", round_packet),
    )
    accepted, token = ffi.new("uint32_t *"), ffi.new("uint32_t *")

    return {
        "encode_logits": lambda: lib.sqs_encode_logits(
            *(codec, rows, 1.0, keep, fit, scratch, out, capacity),
            *(size, ffi.NULL, done),
        ),
        "quantize": lambda: lib.sqs_quantize_logits(
            *(codec, rows, 1.0, keep, fit, scratch, ids, counts, survivors),
            *(mass, done),
        ),
        "encode": lambda: lib.sqs_encode(
            codec, q_ids, q_counts, k, out, capacity, size
        ),
        "decode": lambda: lib.sqs_decode(codec, p, len(packet), ids, counts, survivors),
        f"decode_round of {ROUND}": lambda: lib.sqs_decode_round(
            *(codec, ffi.NULL, r, len(round_packet), ids, counts),
            *(VOCAB_SIZE * ROUND, survivors, positions, length),
        ),
        f"verify a round of {ROUND}": lambda: lib.sqs_verify(
            *(codec, ROUND, r_ids, r_counts, r_survivors, r_positions),
            *(targets, draws, scratch, accepted, token, done),
        ),
    }
