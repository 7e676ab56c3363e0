"""The real system over a link in user space, and what a verifier serves."""

from dataclasses import replace

import numpy as np
import pytest

import sqs_codec as sqs

pytest.importorskip("grpc")
pytest.importorskip("OpenSSL")
pytest.importorskip("rich")
pytest.importorskip("transformers")
pytest.importorskip("cryptography")

from benchmarks.experiments.system import play
from benchmarks.harness.cells import Cell, Text, simulate
from benchmarks.harness.recorded import RecordedDraft, RecordedVerifier, Steps
from benchmarks.relay import Link
from benchmarks.world import MAX_MESSAGE, WorldLink
from sqs_codec.system.edge import Edge, FixedPlan
from sqs_codec.system.serve._datagram.link import DatagramLink
from sqs_codec.system.session import LocalLink, Sampling, Setting

V, TOKENS = 300, 16
SETTINGS = (Setting(sqs.Codec(V), sqs.TopK(16)),)
PROMPT = (3, 1, 4)
FAST = Link(1e8, 0.005)
STEPS = Steps(0.001, 0.002, 0.0)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A draft and a target that agree somewhat."""
    rng = np.random.default_rng(0)
    target = 3 * rng.standard_normal((TOKENS, V))
    rows = {"target": target, "draft": target + rng.standard_normal((TOKENS, V))}
    folder = tmp_path_factory.mktemp("rows")
    for name, values in rows.items():
        np.save(folder / f"{name}.npy", values.astype(np.float32))
    return Text(PROMPT, folder / "draft.npy", folder / "target.npy")


def cell(text, plan, temperature=0.0):
    return Cell("", FAST, (text, text), TOKENS, SETTINGS, plan, STEPS, temperature, 7)


@pytest.mark.parametrize(
    "plan", [FixedPlan(4), FixedPlan(0), None], ids=["rounds", "alone", "planner"]
)
def test_the_greedy_text_is_the_targets(text, plan):
    """Whatever the plan; the virtual clock shows what the real one does, but late."""
    given = cell(text, plan)
    greedy = np.load(text.target).argmax(axis=1).tolist()
    for real, virtual in zip(play(given), simulate(given), strict=True):
        assert real.text == virtual.text == greedy
        assert virtual.seconds <= real.seconds + 1e-3
        if given.in_rounds:
            assert (real.passes, real.drafted) == (virtual.passes, virtual.drafted)


class Counted(FixedPlan):
    """A plan that notes what a link has carried when it is first asked."""

    carried: tuple[int, int] | None = None

    def __init__(self, link, length):
        super().__init__(length)
        self._link = link

    def plan(self):
        """Note it, and plan."""
        if self.carried is None:
            self.carried = self._link.sent, self._link.received
        return super().plan()


def test_the_bytes_are_those_of_the_packets(text):
    """The prompt and each round are a datagram up and an answer; all are known."""
    given = cell(text, FixedPlan(4), 0.7)
    draft, verifier = RecordedDraft(V, 0), RecordedVerifier(V)
    draft.begin(len(PROMPT), np.load(text.draft), [given.seed, 0, 0])
    verifier.begin(len(PROMPT), np.load(text.target), [given.seed, 0, 1])
    link = LocalLink(verifier)
    plan = Counted(link, 4)
    edge = Edge(draft, settings=SETTINGS, planner=plan, rng=draft.rng)
    sampling = Sampling(0.7)
    steps = [*edge.generate(PROMPT, link, max_tokens=TOKENS, sampling=sampling)]
    up, down = (
        sum(getattr(step, name) for step in steps) - before + 57 * (len(steps) + 1)
        for name, before in zip(("bytes_up", "bytes_down"), plan.carried, strict=True)
    )
    assert WorldLink.overhead == DatagramLink.overhead == 57
    assert DatagramLink.max_message == MAX_MESSAGE
    for _ in range(3):  # a machine that stands still for 0.1 s sends something twice
        played = play(given)[0]
        assert played.text == [token for step in steps for token in step.tokens]
        assert played.accepted == sum(step.accepted for step in steps)
        if (played.bytes_up, played.bytes_down) == (up, down):
            return
    pytest.fail(f"{played} isn't {up} and {down} bytes")


def test_the_clock_shows_what_is_stated(text):
    """A round takes its drafts, the target, the trip and the bits; no more than so."""
    link, steps = Link(1e5, 0.03), Steps(0.004, 0.01, 0.001)
    slow = Cell("slow", link, (text,), TOKENS, SETTINGS, FixedPlan(3), steps, 0.7)
    (played,) = simulate(slow)
    last = (TOKENS - played.accepted - played.passes) * (0.01 + 0.03)
    least = 0.005 * played.drafted + 0.04 * played.passes + 8 * played.bytes_up / 1e5
    assert 0.98 * least <= played.seconds + last
    assert played.seconds <= least + last + 0.01
    assert 0 < played.first < played.seconds


def test_all_plans_have_the_same_luck(text):
    """What is drawn and judged at a position doesn't depend on the round it is in."""
    texts = [simulate(cell(text, FixedPlan(n), 0.7))[0].text for n in (3, 3, 5)]
    assert texts[0] == texts[1]
    same = np.array(texts[0]) == np.array(texts[2])
    assert same.mean() > 0.5  # but for tokens that end a round of one of them


def test_hints_write_the_text_of_the_cloud_alone(text):
    alone, hints = (
        simulate(replace(cell(text, plan, 0.7), modes=("hints",)))[0]
        for plan in (FixedPlan(0), None)
    )
    assert hints.text == alone.text
    assert hints.passes < alone.passes == TOKENS
    assert hints.rows > alone.rows == 0


def laws(length, texts):
    """Yield texts of 4 tokens of a vocabulary of 3, by rounds of a length."""
    rng = np.random.default_rng(1)
    target, draft = rng.standard_normal((2, 4, 3)).astype(np.float32)
    model, verifier = RecordedDraft(3, 0), RecordedVerifier(3)
    settings = (Setting(sqs.Codec(3, 8), sqs.TopK(2)),)
    for seed in range(texts):
        model.begin(1, draft, [seed, 0, 0])
        verifier.begin(1, target, [seed, 0, 1])
        edge = Edge(model, settings=settings, planner=FixedPlan(length), rng=model.rng)
        steps = edge.generate([0], LocalLink(verifier), max_tokens=4)
        yield [token for step in steps for token in step.tokens]


def test_numbers_by_position_keep_the_law():
    """Each token is distributed as the target says, by 500 texts."""
    n = 500
    rng = np.random.default_rng(1)
    weights = np.exp(rng.standard_normal((2, 4, 3)).astype(np.float32)[0])
    expected = weights / weights.sum(axis=1, keepdims=True)
    found = np.eye(3)[[*laws(2, n)]].mean(axis=0)
    deviation = np.sqrt(expected * (1 - expected) / n)
    assert np.abs(found - expected).max() < 4 * deviation.max()
