"""The reference: it makes the vectors, and holds to the model."""

import re
from pathlib import Path

import numpy as np
import pytest

from tests.reference import entropy, make_vectors, prior
from tests.reference import sqs_reference as reference


@pytest.mark.parametrize("name", make_vectors.FILES)
def test_it_still_makes_the_vectors(name):
    assert (make_vectors.VECTORS / name).read_text() == make_vectors.render(name)


def test_vectors_meet_all_ways_of_priors(monkeypatch):
    """Each class, after each other's chances too, and all that a ratio may be."""
    met, ratios = set(), set()
    code_ids, ratio = entropy.code_ids, prior.Prior.ratio

    def ids_noted(coder, vocab_size, k, memory, ids, uniform, given):
        last, learns = memory.last, k <= entropy.MEMORY_SUPPORT
        found = code_ids(coder, vocab_size, k, memory, ids, uniform, given)
        if isinstance(coder, entropy.Writer) and given.classes > 1:
            met.add((given.classes, learns, last, None if uniform else memory.last))
            assert memory.last == last or not uniform
        return found

    def ratio_noted(given, c, kind):
        value = ratio(given, c, kind)
        ratios.add((given.classes, value))
        return value

    monkeypatch.setattr(entropy, "code_ids", ids_noted)
    monkeypatch.setattr(prior.Prior, "ratio", ratio_noted)
    make_vectors.render("priors.json")
    chosen = {(classes, chosen) for classes, _, _, chosen in met if chosen}
    before = {(classes, last) for classes, _, last, _ in met}
    assert {(c, 1 + i) for c in (2, 5) for i in range(c)} < chosen
    assert {(c, i) for c in (2, 5) for i in range(c + 1)} < before
    assert sum(classes == 32 for classes, _ in chosen) > 25
    assert sum(classes == 32 for classes, _ in before) > 25
    assert any(last > 0 and chosen is None for _, _, last, chosen in met)
    assert any(
        chosen not in (None, last) for _, learns, last, chosen in met if not learns
    )
    for classes in (5, 32):
        values = {value for c, value in ratios if c == classes}
        assert {4, 64} < values
        assert len(values) > 4


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
    spy("code_uniform_set", lambda _, label, k, size, ids: ("half", 2 * k == size > 0))
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
    make_vectors.render("shapes.json")
    make_vectors.render("sequences.json")
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


def test_an_unknown_rule_is_refused():
    row = np.zeros(4, np.float32)
    for quantize in (
        lambda: reference.quantize_logits(row, 1.0, "top", 2, 100),
        lambda: reference.quantize_logits(row, 0.0, "top", 2, 100),
        lambda: reference.quantize_probs(row + 0.25, "top", 2, 100),
    ):
        with pytest.raises(ValueError, match="unknown rule 'top'"):
            quantize()


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
    page = (Path(__file__).parents[2] / "docs" / "format.md").read_text()
    number = r" +([0-9a-f]+)"
    shown = re.findall(rf"^    .* ([01]){number * 3}$", page, re.MULTILINE)
    assert [tuple(int(n, 16) for n in line) for line in shown] == states
