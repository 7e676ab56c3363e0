"""The reference: it makes the vectors, and holds to the model."""

import re
from pathlib import Path

import pytest

from tests.reference import entropy, make_vectors


@pytest.mark.all
@pytest.mark.parametrize("name", make_vectors.FILES)
def test_the_reference_still_makes_the_vectors(name):
    assert (make_vectors.VECTORS / name).read_text() == make_vectors.render(name)


def test_the_reference_has_the_scalars_of_the_model():
    own = {name: getattr(entropy, name.upper()) for name in entropy.MODEL["scalars"]}
    assert own == entropy.MODEL["scalars"]


def test_the_format_page_shows_the_real_coder():
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
