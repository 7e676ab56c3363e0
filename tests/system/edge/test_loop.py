"""The loop of an edge: for any plan and link, the completion is right."""

import itertools
import math
import statistics
from functools import partial

import numpy as np
import pytest

from sqs_codec import Sampling
from sqs_codec.system._base.tokens import common_length
from sqs_codec.system.edge import (
    FixedPlan,
    Hints,
    Plan,
    Planner,
    generate,
)
from sqs_codec.system.edge._line import Timeout
from sqs_codec.system.edge._reading import FIRST
from sqs_codec.system.session import (
    EdgeSession,
    Limits,
    LinkError,
    LocalLink,
    Setting,
)
from sqs_codec.system.session import _wire as wire
from tests.relay import Link as Like
from tests.system.serve import kit
from tests.world import MAX_MESSAGE, Cloud, Steps, World, WorldLink, ways

PROMPT = [3, 1, 4]

PLANS = {
    "drafts": FixedPlan(4),
    "alone": FixedPlan(0),
    "hints": FixedPlan(0, hints=Hints()),
}


def greedy(n):
    return kit.greedy(PROMPT, n)[len(PROMPT) :]


def edge(*, temperature=0.0, prompt=PROMPT):
    return EdgeSession(
        [Setting(kit.CODEC, kit.KEEP)],
        prompt,
        rng=np.random.default_rng(5),
        sampling=Sampling(temperature),
        session_id=bytes(16),
        seed=bytes(16),
        max_message=MAX_MESSAGE,
    )


def local():
    return LocalLink(kit.Toy())


def linked(
    world, seed=0, *, cloud=None, steps=None, reliable=None, on_send=len, **like
):
    """A link of 100 ms to a new cloud; a lossy link also repeats messages.

    `on_send` gets all messages, and may fail or lose them: it returns "lost" then.
    """
    if like.get("loss"):
        like |= {"duplicate": 0.5, "reorder": 0.5}
    way = ways(Like(**{"trip": 0.1, **like}), seed)
    reliable = not like.get("loss") if reliable is None else reliable
    cloud = cloud or Cloud(world, kit.Toy(), steps)
    link = WorldLink(world, cloud, *way, reliable=reliable)
    send = link.send
    link.send = lambda message: on_send(message) == "lost" or send(message)
    return link


class Links(list):
    """All links that were made by calling it."""

    def __init__(self, world, seed=0, **given):
        self._make = lambda: linked(world, [seed, len(self)], **given)

    def __call__(self):
        self.append(self._make())
        return self[-1]


def write(world, connect, plan, session=None, **given):
    """Write 60 tokens by default, on the world's clock."""
    session = edge() if session is None else session
    given = {"max_tokens": 60, "clock": world, "sleep": world.sleep, **given}
    return generate(session, kit.Draft(), connect, plan, **given)


def tokens(steps):
    return [token for step in steps for token in step.tokens]


@pytest.mark.parametrize("name", PLANS)
def test_completion_is_the_targets_and_has_the_requested_length(name):
    for length in (1, 2, 7, 60):
        session = edge()
        made = iter([local()])
        given = session, kit.Draft(), partial(next, made), PLANS[name]
        steps = list(generate(*given, max_tokens=length))
        text = tokens(steps)
        assert text == greedy(length)
        assert session.text == [*PROMPT, *text]
        if name == "drafts" and length == 60:
            assert 0 < sum(step.accepted for step in steps) < length
        assert all(step.tokens and step.reason for step in steps)


@pytest.mark.parametrize("name", PLANS)
def test_completion_survives_loss_repetition_and_breaks(name):
    """Links break after a while; each has another cloud."""
    made = 0
    for seed in range(3):
        world, rng = World(), np.random.default_rng(seed)
        links = Links(world, seed, loss=0.2)

        def connect(world=world, rng=rng, links=links):
            world.at(world.now + rng.exponential(2.0), links().close)
            return links[-1]

        assert tokens(write(world, connect, PLANS[name])) == greedy(60)
        assert all(link.closed for link in links)
        made += len(links)
    assert made > 3


def test_a_slow_link_is_given_time():
    def sent(trip, *, reliable):
        world = World()
        link = linked(world, trip=trip, reliable=reliable)
        assert tokens(write(world, link, FixedPlan(4))) == greedy(60)
        return link.sent

    once = sent(0.002, reliable=True)
    assert sent(0.9, reliable=False) == once
    # Slower than the first guess: that costs a few repetitions, then it is known.
    assert once < sent(3.0, reliable=False) < 2 * once


class Script:
    """A planner with a script of plans, which records the steps."""

    def __init__(self, lengths, ahead=16):
        plans = [Plan(n, 0, f"draft {n}", ahead=ahead) for n in lengths]
        self._plans = itertools.cycle(plans)
        self.greeted = self.heard = None

    def begin(self, handshake):
        self.greeted, self.heard = handshake, []

    def plan(self):
        return next(self._plans)

    def learn(self, step):
        self.heard.append(step)


def test_the_planner_may_switch_and_learns_of_every_token():
    planner = Script([3, 0, 0, 5])
    steps = list(generate(edge(), kit.Draft(), local, planner, max_tokens=200))
    assert [token for step in steps for token in step.tokens] == greedy(200)
    assert planner.heard == steps
    for mode in ("alone", "rounds"):
        assert sum(len(step.tokens) for step in steps if step.mode == mode) > 20
    assert {step.reason for step in steps} >= {"draft 3", "draft 0", "draft 5"}


@pytest.mark.parametrize("more", [0.004, -0.004])  # two measurements may differ so
def test_the_planner_learns_rtt_and_target_times(more):
    world, planner = World(), Script([3])
    steps = Steps(0.0, 0.1, more)
    list(write(world, linked(world, steps=steps, trip=0.02), planner))
    assert planner.greeted.trip_seconds == pytest.approx(0.02, rel=0.3)
    assert planner.greeted.target_seconds == pytest.approx(0.1)
    assert planner.greeted.more_seconds == pytest.approx(max(more, 0.0))


@pytest.mark.parametrize(("name", "first"), [("alone", 2), ("hints", 2), ("drafts", 1)])
def test_steps_have_seconds_once_the_mode_has_started(name, first):
    world, planner = World(), Script([0])
    planner.plan = PLANS[name].plan
    link = linked(world, steps=Steps(0.0, 0.1, 0.0), trip=0.02)
    list(write(world, link, planner))
    known = [step.seconds is not None for step in planner.heard]
    assert known == sorted(known)  # none at first, then all
    assert known.count(False) >= first
    if name != "hints":  # which count from the first that the cloud heard of in time
        assert known.count(False) == first
        took = [step.seconds for step in planner.heard[first:]]
        assert took == pytest.approx([0.1 + 0.02 * (name == "drafts")] * len(took), 0.2)


def test_steps_delayed_by_the_caller_have_no_seconds():
    world, planner = World(), Script([0])
    link = linked(world, steps=Steps(0.0, 0.1, 0.0), trip=0.02)
    for _ in write(world, link, planner, max_tokens=12):
        world.sleep(0.3 if len(planner.heard) == 6 else 0.0)
    none = [i for i, step in enumerate(planner.heard) if step.seconds is None]
    assert none[:3] == [0, 1, 6]
    assert planner.heard[-1].seconds == pytest.approx(0.1, 0.2)


def test_closing_the_generator_ends_session_and_link():
    world = World()
    link = linked(world)
    steps = write(world, link, FixedPlan(4))
    next(steps)
    assert not link.closed
    before = link.sent
    steps.close()
    assert link.closed
    assert link.sent == before + 1 + link.overhead  # END


@pytest.mark.parametrize("name", PLANS)
def test_completion_ends_at_the_clouds_maximum_length(name):
    for max_text in range(len(PROMPT) + 1, len(PROMPT) + 9):
        session = edge()
        link = LocalLink(kit.Toy(), limits=Limits(max_text=max_text))
        found = tokens(generate(session, kit.Draft(), link, PLANS[name], max_tokens=60))
        assert found == greedy(max_text - len(PROMPT))
        assert session.finished


@pytest.mark.parametrize("name", ["alone", "drafts"])
@pytest.mark.parametrize("reliable", [True, False])
def test_a_slow_caller_does_not_exhaust_the_patience(name, *, reliable):
    """The cloud isn't silent: its messages have arrived meanwhile."""

    def sent(pause):
        world = World()
        link = linked(world, steps=Steps(0.0, 0.01, 0.0), reliable=reliable)
        found = []
        for step in write(world, link, PLANS[name], max_tokens=40, patience=60):
            found += step.tokens
            world.sleep(pause)
        assert found == greedy(40)
        return link.sent

    assert sent(70) <= sent(0)


@pytest.mark.parametrize("breaks", [8, 1000])
def test_a_cloud_that_fails_every_round_is_given_up(breaks, caplog):
    """Attempts become rarer, and a welcome isn't progress.

    The log reports once that it is gone, and once that it is back.
    """
    world = World()
    pauses = []

    def fail(message):
        if message[0] >= 0x80 and len(pauses) < breaks:
            raise LinkError("the link broke")

    def sleep(seconds):
        pauses.append(seconds)
        world.sleep(seconds)

    how = {"max_tokens": 8, "patience": 30, "sleep": sleep}
    steps = write(world, Links(world, on_send=fail), FixedPlan(4), **how)
    if breaks == 8:
        assert tokens(steps) == greedy(8)
        assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
        assert caplog.messages == [
            "the link broke; retrying for 30 s",
            "the cloud answers again; the completion continues",
        ]
        return
    with pytest.raises(LinkError, match=r"no answer from the cloud for 3. s: the link"):
        list(steps)
    assert 30 <= world.now < 40


def test_an_occasional_slow_forward_pass_is_no_loss():
    timeout, late = Timeout(), 0
    for i in range(66):
        took = 0.2 if i % 10 == 9 else 0.15
        late += took > timeout.seconds(0)
        timeout.learn(took)
    assert late == 0


def test_longer_waits_are_bounded():
    timeout = Timeout()
    for _ in range(2000):
        timeout.double()
    assert timeout.seconds(100) == timeout.MOST


@pytest.mark.parametrize("where", ["plan", "begin", "learn", "logits", "end"])
def test_any_exception_closes_the_link(where):
    def fail(*_):
        raise ZeroDivisionError

    def ends(message):
        if where == "end" and message == b"\x04":
            fail()

    link, planner, draft = linked(World(), on_send=ends), Script([4]), kit.Draft()
    if where != "end":
        setattr(draft if where == "logits" else planner, where, fail)
    with pytest.raises(ZeroDivisionError):
        list(generate(edge(), draft, link, planner, max_tokens=9))
    assert link.closed


def test_a_failed_first_link_is_reported_at_once():
    def connect():
        raise LinkError("connection refused")

    world = World()
    with pytest.raises(LinkError, match=r"^connection refused$"):
        next(write(world, connect, FixedPlan(4)))
    assert world.now == 0


@pytest.mark.parametrize("loss", [0.0, 0.3])
def test_a_cloud_that_stays_away_is_given_up(loss):
    world = World()
    links = Links(world, loss=loss)

    def connect():
        if links:
            raise LinkError("connection refused")
        return links()

    steps = write(world, connect, FixedPlan(4), max_tokens=400, patience=20)
    next(steps)
    links[0].close()
    began = world.now
    with pytest.raises(LinkError, match=r"no answer from the cloud .* refused"):
        list(steps)
    assert 20 <= world.now - began < 40


@pytest.mark.parametrize("reliable", [True, False])
def test_waiting_for_a_silent_cloud_ends(reliable):
    world = World()
    links = Links(world, loss=1.0, reliable=reliable)
    with pytest.raises(LinkError, match="answer"):
        next(write(world, links, FixedPlan(4), patience=120))
    assert 120 <= world.now < 300
    assert len(links) > 1


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("patience", [30, 60])
def test_a_silently_dead_path_is_replaced(name, patience):
    """As when a phone changes networks; a drawn text is the one of a good link."""
    texts = []
    for dies in (False, True):
        world, text, came = World(), [], []
        links = Links(world, steps=Steps(0.0, 0.05, 0.0))
        for step in write(world, links, PLANS[name], edge(temperature=1)):
            text += step.tokens
            came.append(world.now)
            if dies and len(text) > 20 and len(links) == 1:
                links[0]._up, links[0]._down = ways(Like(loss=1.0))
        assert len(links) == 1 + dies
        assert max(np.diff(came)) < 8
        texts.append(text)
    assert texts[0] == texts[1] or name == "drafts"  # the next cloud draws by others


@pytest.mark.parametrize("name", PLANS)
def test_a_busy_cloud_keeps_its_connection(name):
    """Each forward pass of its target takes 20 s; it sends signs of life."""
    world = World()
    links = Links(world, steps=Steps(0.0, 20.0, 0.0))
    assert tokens(write(world, links, PLANS[name], max_tokens=6)) == greedy(6)
    assert len(links) == 1


@pytest.mark.parametrize("length", [3, 1000, 3000])
def test_a_low_bandwidth_link_is_kept(length):
    """Of 2 kbit/s, where answers wait behind a long prompt."""
    world, session = World(), edge(prompt=[3, 1, 4] * (length // 3))
    links = Links(world, rate=2e3, down=2e3, trip=0.6)
    assert len(tokens(write(world, links, FixedPlan(4), session, patience=60))) == 60
    assert len(links) == 1


def test_max_tokens_is_checked():
    with pytest.raises(ValueError, match="max_tokens"):
        next(generate(edge(), kit.Draft(), local, FixedPlan(4), max_tokens=0))


def test_a_new_link_with_smaller_messages_is_refused():
    world = World()
    links = [linked(world) for _ in range(3)]
    links[1].max_message = MAX_MESSAGE - 1
    made = iter(links)
    steps = write(world, lambda: next(made), FixedPlan(2), max_tokens=40)
    text = tokens(itertools.islice(steps, 3))
    links[0].close()
    text += tokens(steps)
    assert text == greedy(40)
    assert links[1].closed
    assert links[1].sent == 0
    few = linked(world)
    few.max_message = 600
    with pytest.raises(LinkError, match="takes messages of 600 bytes"):
        next(write(world, few, FixedPlan(2)))


@pytest.mark.parametrize(
    ("queue", "sent", "dropped", "seconds"), [(math.inf, 81, 0, 7.7), (0.3, 85, 8, 7.6)]
)
def test_a_long_prompt_does_not_fill_the_queue(queue, sent, dropped, seconds):
    """It takes 76 datagrams of 98 ms. The queue holds three and the one that leaves."""
    parts, world = [], World()

    class Long(kit.Toy):
        max_text = 50_000

    session = edge(prompt=[i % kit.VOCAB for i in range(40_000)])
    like = {"rate": 1e5, "queue": queue, "reliable": False, "on_send": parts.append}
    cloud = Cloud(world, Long(), limits=Limits(max_text=50_000))
    link = linked(world, cloud=cloud, **like)
    next(write(world, link, PLANS["alone"], session, max_tokens=1))
    assert len(parts) <= sent
    assert link._up.dropped <= dropped
    assert 7.2 < world.now <= seconds


class ReadingCloud(Cloud):
    """A cloud of one session, with a slow prefill.

    It reports its progress every five seconds; `lies` changes the report.
    """

    seconds = 0.0
    lies = None
    _known = 0
    _began = None

    def _call(self):
        if self._busy or not self._waiting:
            return
        if self._began is None:
            self._began = self._world.now
            self._tell(*self._waiting[0])
        text = len(self._waiting[0][2].text)
        fresh, self._known = max(text - self._known, 0), text
        self._busy = True
        self._world.at(self._world.now + fresh * self.seconds, self._read)

    def _read(self):
        self._busy = False
        super()._call()

    def _tell(self, link, session, job):
        read = int((self._world.now - self._began) / self.seconds)
        if read < len(job.text):
            if self.lies is None:
                session.tell_progress(read)
            else:
                session._queue(self.lies(session, read, len(job.text)))
            for message in session.data_to_send():
                link.answer(message)
            self._world.at(self._world.now + 5, partial(self._tell, link, session, job))


class ReadingDraft(kit.Draft):
    """A draft that takes so long for a step and to read a token; it caches a text."""

    def __init__(self, world, step, seconds):
        self.text, self.parts = [], []
        self._world, self._costs = world, (step, seconds)

    def logits(self, tokens):
        return self.branches([tokens])

    def branches(self, texts):
        step, seconds = self._costs
        known = min(common_length(self.text, text) for text in texts)
        fresh = max(1, *(len(text) - known for text in texts))
        self._world.sleep(step + seconds * fresh)
        self.text = [*texts[0]]
        self.parts.append(fresh)
        return np.array([kit.toy_logits(text) for text in texts])


def read(plan, prompt, *, step, draft, target, cloud, count=40, on_send=len):
    """Write a text after a long prompt; return times of tokens, draft, and text."""
    world = World()
    made = ReadingCloud(world, kit.Toy(), Steps(0.0, target, 0.0))
    made.seconds = cloud
    link = linked(world, cloud=made, trip=0.05, reliable=False, on_send=on_send)
    model = ReadingDraft(world, step, draft)
    session = edge(prompt=[i % kit.VOCAB for i in range(prompt)])
    times, text = [], []
    steps = generate(
        session, model, link, plan, max_tokens=count, clock=world, sleep=world.sleep
    )
    for one in steps:
        times += [world.now] * len(one.tokens)
        text += one.tokens
    return times, model, text


def test_both_models_prefill_a_long_prompt_in_parallel():
    """A round's first token takes two round trips, a prefill and a round."""
    times, model, _ = read(
        PLANS["drafts"], 1500, step=0.005, draft=1e-3, target=0.02, cloud=1e-3, count=8
    )
    parts = len(model.parts)
    round_ = 4 * 0.006 + 0.02 + 4 * 1e-3
    assert times[0] < 2 * 0.05 + 1.5 + parts * 0.005 + round_


def test_a_lost_round_after_a_long_prompt_is_soon_sent_again():
    """The time that the draft takes to read isn't taken for the link's."""
    lost = []

    def lose(message):
        if message[0] >= 0x80 and not lost:
            lost.append(message)
            return "lost"
        return None

    costs = {"step": 0.005, "draft": 1e-3, "target": 0.02, "cloud": 1e-4}
    times, _, _ = read(PLANS["drafts"], 1500, **costs, count=8, on_send=lose)
    assert lost
    assert times[0] < 1.5 + 2 * 0.05 + 0.1 + 0.5


@pytest.mark.parametrize("name", ["hints", "planner"])
def test_tokens_arrive_while_the_draft_prefills(name):
    costs = {"step": 0.005, "draft": 2e-3, "target": 0.02, "cloud": 1e-4}
    settings = [Setting(kit.CODEC, kit.KEEP)]
    plans = {"hints": PLANS["hints"]}
    plan = plans.get(name) or Planner(settings)
    alone, _, text = read(PLANS["alone"], 1000, **costs, count=400)
    times, model, same = read(plan, 1000, **costs, count=400)
    assert same == text
    assert times[0] < 1.15 * alone[0]
    assert times[39] < 1.05 * alone[39]
    assert times[-1] < 0.8 * alone[-1]
    assert max(model.parts) == FIRST  # where a part took too long, it was halved
    assert statistics.median(model.parts[:40]) < FIRST / 2


def test_hints_are_measured_after_the_draft_has_prefilled():
    learned = []

    class Plan(FixedPlan):
        def learn(self, step):
            learned.append(step.seconds)

    costs = {"step": 0.005, "draft": 2e-3, "target": 0.02, "cloud": 1e-4}
    times, *_ = read(Plan(hints=Hints()), 1000, **costs, count=200)
    assert times[learned.count(None) - 1] > 1000 * 2e-3
    assert learned[-1] is not None


def counting(count):
    return lambda s, *of: wire.Have(s._instance, s._number, count(*of))


LIES = {
    "falls": counting(lambda read, length: 2 * length - read),
    "repeats": counting(lambda read, length: length),
    "exceeds": counting(lambda read, length: 2 * length + read + 1),
    "crawls": counting(lambda read, length: length + read // 200),
    "lacks the text": lambda session, *_: wire.Need(session._instance),
    "lacks the session": lambda *_: wire.Need(None),
}
"""False reports of a cloud on its prefill."""


def reads_for_long(lies, name, *, reliable, loss=0.0):
    """Write after a prompt that the cloud reads for 120 s; return links and clock."""
    world = World()
    cloud = ReadingCloud(world, kit.Toy(), Steps(0.0, 0.02, 0.0))
    cloud.seconds, cloud.lies = 0.06, LIES.get(lies)
    links = Links(world, cloud=cloud, trip=0.05, loss=loss, reliable=reliable)
    session = edge(prompt=[i % kit.VOCAB for i in range(2000)])
    steps = write(world, links, PLANS[name], session, max_tokens=8)
    return links, world, steps


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize(("reliable", "loss"), [(True, 0), (False, 0), (False, 0.3)])
def test_the_edge_waits_while_prefill_makes_progress(name, reliable, loss):
    links, world, steps = reads_for_long(None, name, reliable=reliable, loss=loss)
    assert len(tokens(steps)) == 8
    assert len(links) == 1
    assert 120 < world.now < 160


@pytest.mark.parametrize("reliable", [True, False])
@pytest.mark.parametrize("lies", LIES)
def test_the_edge_leaves_a_cloud_without_progress(lies, *, reliable):
    links, world, steps = reads_for_long(lies, "alone", reliable=reliable)
    with pytest.raises(LinkError, match="didn't answer within 60 s"):
        list(steps)
    assert 60 <= world.now < 62
    assert len(links) == 1


@pytest.mark.parametrize(("ahead", "most"), [(8, 70), (64, 7)])
def test_the_plan_sets_the_number_of_requested_tokens(ahead, most):
    """Rounds have to wait for all tokens that were asked for."""
    world, sent = World(), []
    steps = Steps(0.0, 0.1, 0.0)
    link = linked(world, steps=steps, on_send=sent.append)
    steps = write(world, link, Script([0], ahead), max_tokens=200)
    assert tokens(steps) == greedy(200)
    assert most / 2 < sum(message[0] == 3 for message in sent) <= most  # GENERATE
