"""The reference: it makes the vectors, holds to the model, and prices what it codes."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.data import fit_model
from tests.reference import BrokenRuleError, entropy, make_vectors
from tests.reference import sqs_reference as reference


@pytest.mark.parametrize("name", make_vectors.FILES)
def test_it_still_makes_the_vectors(name):
    content = make_vectors.render(make_vectors.FILES[name]())
    assert (make_vectors.VECTORS / name).read_text() == content


@pytest.mark.parametrize(
    "case", json.loads((make_vectors.VECTORS / "malformed.json").read_text())["cases"]
)
def test_it_names_the_rule_that_a_packet_breaks(case):
    decode = {
        "distribution": reference.decode,
        "round": reference.decode_round,
        "tokens": reference.decode_tokens,
        "stream": decode_first_of_stream,
    }[case["kind"]]
    codec = case["vocab_size"], case["resolution"], case["coding"]
    with pytest.raises(BrokenRuleError, match=f"^{case['rule']}$"):
        decode(bytes.fromhex(case["packet"]), *codec)


def decode_first_of_stream(packet, *codec):
    """What a decoder does that has decoded nothing yet."""
    if packet and packet[0] > 0:
        raise BrokenRuleError("HEAD")
    return reference.decode_round(packet[1:], *codec)


@pytest.mark.parametrize(
    "case", json.loads((make_vectors.VECTORS / "limits.json").read_text())["cases"]
)
def test_it_decodes_rounds_at_the_limits(case):
    codec = case["vocab_size"], case["resolution"], case["coding"]
    drafted, tokens = reference.decode_round(bytes.fromhex(case["packet"]), *codec)
    made = make_vectors.formula_round(case["supports"], case["resolution"])
    assert ([*map(tuple, drafted)], tokens) == made


def test_vectors_meet_all_ways_of_the_entropy_coding(monkeypatch):
    """Both modes of counts and of ids, complements, and each kind of forgetting."""
    met = set()

    def spy(name, note):
        function = getattr(entropy, name)

        def wrapped(*arguments):
            met.add(note(*arguments))
            return function(*arguments)

        monkeypatch.setattr(entropy, name, wrapped)

    spy("code_counts", lambda *arguments: ("counts", arguments[-1]))
    spy("code_ids", lambda *arguments: ("ids", arguments[5]))
    spy(
        "code_uniform_set",
        lambda _, label, k, size, ids: ("complement", 2 * k > size > k),
    )
    spy(
        "code_uniform_set",
        lambda _, label, k, size, ids: ("half", 2 * k == size > 0),
    )
    learn = entropy.Memory.learn

    def forget(memory, ids):
        before, seen = memory.weights, memory.seen
        learn(memory, ids)
        if len(ids) > entropy.MEMORY_SUPPORT:
            assert memory.weights == before
            met.add("large support")
        gone = [before[x] for x in before.keys() - memory.weights.keys()]
        met.update("faded" if w <= 32 else "made room" for w in gone)
        if len(memory.weights) == entropy.MEMORY_TOKENS:
            met.add("full")
        if seen == memory.seen == entropy.MEMORY_MOST_SEEN:
            met.add("saturated")

    monkeypatch.setattr(entropy.Memory, "learn", forget)
    make_vectors.shapes()
    make_vectors.streams()
    assert met == {
        *((part, uniform) for part in ("counts", "ids") for uniform in (False, True)),
        ("complement", True),
        ("complement", False),
        ("half", True),
        ("half", False),
        *("large support", "faded", "made room", "full", "saturated"),
    }


def test_it_witnesses_the_scalars_of_the_model():
    own = {name: getattr(entropy, name.upper()) for name in entropy.MODEL["scalars"]}
    assert own == entropy.MODEL["scalars"]


def test_the_generated_files_hold_the_model():
    assert fit_model.stale() == []


def test_an_unknown_rule_is_refused():
    row = np.zeros(4, np.float32)
    for quantize in (
        lambda: reference.quantize_logits(row, 1.0, "top", 2, 100),
        lambda: reference.quantize_logits(row, 0.0, "top", 2, 100),
        lambda: reference.quantize_probs(row + 0.25, "top", 2, 100),
    ):
        with pytest.raises(ValueError, match="unknown rule 'top'"):
            quantize()


def test_bits_by_label_add_up_to_the_packet():
    cases = json.loads((make_vectors.VECTORS / "rounds.json").read_text())["cases"]
    met = set()
    for case in cases:
        pairs = [(q["token_ids"], q["counts"]) for q in case["distributions"]]
        codec = case["vocab_size"], case["resolution"]
        bits = entropy.bits_by_label(pairs, case["tokens"], *codec)
        met.update(bits)
        spent = math.fsum(bits.values())
        size = 4 * len(case["packets"]["entropy"])
        assert spent - 1 <= size <= spent + 9
        chances = [
            counts[ids.index(x)] / sum(counts)
            for (ids, counts), x in zip(pairs, case["tokens"], strict=True)
        ]
        assert bits["token"] == pytest.approx(-sum(map(math.log2, chances)), abs=1e-4)
    counts = {"modes", "size", "composition", "parts", "arrangement"}
    assert met <= counts | {"ids", "uniform ids", "token", "more"}


def test_the_format_page_shows_the_coder_as_it_is():
    """The example's low, range and code are those after each symbol."""
    codec, memory = (8, 10), entropy.Memory()
    states = []

    class Tracing(entropy.Reader):
        low = 0

        def pick(self, label, total, a, e, c, value=None):
            unit, shifts = self.range // total, self.shifts
            value = super().pick(label, total, a, e, c)
            self.low += unit * c(value)
            self.low <<= 8 * (self.shifts - shifts)
            states.append((self.shifts, self.low, self.range, self.code))
            return value

    reader = Tracing(bytes.fromhex("b86b"))
    states.append((reader.shifts, reader.low, reader.range, reader.code))
    entropy.code_distribution(reader, *codec, memory)
    page = (Path(__file__).parents[1] / "docs" / "format.md").read_text()
    number = r" +([0-9a-f]+)"
    shown = re.findall(rf"^    .* ([01]){number * 3}$", page, re.MULTILINE)
    assert [tuple(int(n, 16) for n in line) for line in shown] == states
