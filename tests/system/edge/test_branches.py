"""Drafting while the cloud decodes, and the branches sent as hints."""

import numpy as np
import pytest

from sqs_codec import Guesses
from sqs_codec.system.edge import Draft, Hints
from sqs_codec.system.edge._branches import LATE, SLOW, WIDTH, Branches
from sqs_codec.system.edge._reading import Reader
from sqs_codec.system.session import Emitted


class Toy(Draft):
    """A draft and a session, whose guesses at position i are 100 + i, 200 + i, 300 + i.

    They have the same probabilities everywhere. The first hint arrives late.
    """

    finished = False

    def __init__(self, *chances, seconds=0.0, messages=1, stop=()):
        self.stop = frozenset(stop)
        self.now, self.text, self.unheard_hints = 0.0, [0], 0
        self.chances, self.steps, self.hints = chances, [], []
        self.ahead = Branches(
            self, Reader(self, lambda: 0.0), Hints(), 99, lambda: self.now
        )
        self.draft(3)
        self.unheard_hints = 1
        for _ in range(messages):
            self.come(-1)  # which no branch has
        self.now, self.unheard_hints = seconds, 0
        self.steps.clear()
        self.hints.clear()

    def logits(self, tokens, last=1):
        return self.branches([tokens])

    def branches(self, texts):
        self.steps.append(texts)
        return np.zeros((len(texts), 1))

    def guess(self, row, position, count):
        ranks = range(100, 100 * len(self.chances) + 1, 100)
        return Guesses(tuple(rank + position for rank in ranks), self.chances)

    def hint(self, position, branches):
        self.hints.append([[*path, *tokens] for path, tokens, _ in branches])
        return True

    def draft(self, count):
        for _ in range(count):
            self.ahead.step()
            self.ahead.tell(drafting=True)

    def come(self, *tokens):
        self.text += tokens
        return self.ahead.follow(Emitted(tokens, 0, 0))


def test_likely_guesses_open_branches_that_outlive_a_mismatch():
    toy = Toy(0.8, 0.1, 0.03)
    toy.draft(6)
    likely = [102, 103, 104], [102, 203, 104], [102, 303, 104], [102, 103, 204]
    assert all(branch in toy.hints[0] for branch in likely)
    assert [102, 103, 304] not in toy.hints[0]  # 0.8 * 0.8 * 0.03 is below 0.02
    assert [0, -1, 102, 103, 104, 205] in toy.steps[4]  # likelier than [.., 302, ..]
    assert [102, 103, 104, 205, 106, 107] in toy.hints[1]
    assert toy.come(102, 203) == Emitted((102, 203), 1, 2)  # 203 is the cloud's own
    toy.draft(1)
    assert toy.steps[-1][0][:5] == [0, -1, 102, 203, 104]


@pytest.mark.parametrize("late", [{"seconds": SLOW + 0.1}, {"messages": LATE + 1}])
def test_late_hints_have_alternatives_for_one_token_only(late):
    toys = Toy(0.8, 0.1, 0.05, **late), Toy(0.8, 0.1, 0.05, messages=LATE)
    for toy in toys:
        toy.draft(4)
    rows = [[len(texts) for texts in toy.steps] for toy in toys]
    assert rows == [[1, 3, 3, 3], [1, 3, 5, WIDTH]]


def test_the_number_of_branches_is_limited():
    toy = Toy(0.4, 0.3, 0.3)
    toy.draft(8)
    assert max(map(len, toy.steps)) == max(map(len, toy.hints)) == WIDTH


def test_a_branch_ends_with_a_guessed_stop_token():
    """It is sent even if it is short; without the stop token it has three tokens."""
    toys = Toy(0.8, 0.1, 0.05, stop=[103]), Toy(0.8, 0.1, 0.05)
    for toy in toys:
        toy.draft(6)
    ended, others = ([hint for hints in toy.hints for hint in hints] for toy in toys)
    assert [102, 103] in ended
    assert [102, 103, 104] in others
    read = [text for texts in toys[0].steps for text in texts]
    assert not any(103 in branch[:-1] for branch in [*ended, *read])
    assert any(203 in branch[:-1] for branch in ended)


def test_nothing_is_drafted_after_a_certain_stop_token():
    toy = Toy(1.0, stop=[103])
    toy.draft(6)
    assert len(toy.steps) == 2
    assert toy.hints == [[[102, 103]]]
