"""What a release promises changes only where `public.txt` does."""

from tests.project.public import SNAPSHOT, snapshot


def test_promises_change_only_with_their_snapshot():
    advice = "is the change meant? Then: python -m tests.project.public --write"
    assert snapshot().splitlines() == SNAPSHOT.read_text("utf-8").splitlines(), advice
