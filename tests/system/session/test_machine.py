"""Both ends of a session under loss, doubling, reordering, restarts and aborts."""

import random
import re
from pathlib import Path

import pytest

from sqs_codec.system.session import CloudSession, EdgeSession
from tests.system.session.kit import V, World, make_cloud

ACTIONS = {
    "push": (12, lambda r: (r.randrange(1, 6), r.randrange(2))),
    "flush": (8, lambda r: ()),
    "generate": (3, lambda r: (r.randrange(1, 6), r.choice((1, 1, 3)))),
    "hint": (4, lambda r: (r.randrange(3), r.random() < 0.7, r.randrange(1, 5), 2)),
    "send": (10, lambda r: ()),
    "deliver_up": (20, lambda r: (pick(r), r.random() < 0.1)),
    "deliver_down": (20, lambda r: (pick(r), r.random() < 0.1)),
    "start_job": (8, lambda r: ()),
    "finish_job": (8, lambda r: (r.random() < 0.1,)),
    "lose": (5, lambda r: (pick(r),)),
    "resend": (1, lambda r: ()),
    "restart": (0.5, lambda r: ()),
    "reconnect": (0.5, lambda r: ()),
    "abort": (0.5, lambda r: (None,)),
    "new_text": (1, lambda r: (r.randrange(30), r.choice([1, 3, 300]))),
}


def pick(r):
    return 0 if r.random() < 0.7 else r.randrange(50)


def act(world, r, name, *arguments):
    if name == "new_text":
        same, n = arguments
        world.abort(world.edge.text[:same] + [r.randrange(V) for _ in range(n)])
    elif name in ("resend", "reconnect"):
        getattr(world.edge, name)()
    else:
        getattr(world, name)(*arguments)


def play(seed, steps=300, *, reliable=False):
    """Let a likely mixture of things happen, as links do them.

    A reliable one loses, doubles and reorders nothing, and nothing is sent again.
    """
    r = random.Random(seed)
    world = World(r.choice([0.0, 1.0]), max_message=512, stop=r.choice([(), (0,)]))
    names = [name for name in ACTIONS if not reliable or name not in ("lose", "resend")]
    weights = [ACTIONS[name][0] for name in names]
    for name in r.choices(names, weights, k=steps):
        arguments = ACTIONS[name][1](r)
        if reliable and name.startswith("deliver"):
            arguments = (0, False)
        if reliable and name == "restart" and not world.idle():
            continue  # a server forgets no session that it is at work on
        if reliable and name == "reconnect":  # what was on its way is gone
            world.up.clear()
            world.down.clear()
            if r.random() < 0.5:
                world.restart()
        act(world, r, name, *arguments)
        world.check()
    return world


@pytest.mark.parametrize("reliable", [False, True])
@pytest.mark.parametrize("seed", range(0, 100, 10))
def test_sessions_recover_from_likely_faults(seed, reliable):
    """A reliable link needs no timer."""
    for n in range(seed, seed + 10):
        play(n, reliable=reliable).settle(reliable=reliable)


KINDS = {1: "HELLO WELCOME", 2: "CONTEXT", 3: "GENERATE TOKENS", 4: "END NEED"}
"""Messages up and down that may change a state, by their first bytes."""


def test_sessions_take_exactly_the_documented_transitions(monkeypatch):
    seen = {EdgeSession: set(), CloudSession: set()}

    def watch(kind, name):
        method = getattr(kind, name)

        def watched(session, *given, **options):
            before = session.state
            found = method(session, *given, **options)
            if (after := session.state) != before:
                by = name
                if after == "refused":
                    by = "refusal"
                elif name == "receive":
                    names = KINDS.get(given[0][0], "ROUND ANSWER").split()
                    by = names[-1 if kind is EdgeSession else 0]
                seen[kind].add((before, by, after))
            return found

        monkeypatch.setattr(kind, name, watched)

    for name in ("receive", "push", "flush", "generate", "abort", "reconnect", "end"):
        watch(EdgeSession, name)
    for name in ("receive", "complete"):
        watch(CloudSession, name)
    for seed in range(200):
        world = play(seed, steps=seed)
        for cloud in filter(None, (world.cloud, make_cloud())):
            cloud.receive(b"\x04" if seed % 2 else b"?")
        if seed % 2:
            world.edge.end()
        else:
            world.edge.receive(b"?")
    page = Path(__file__).parents[3] / "docs" / "protocol.md"
    ways = re.findall(r"(?:^[a-z ]+ ── \w+ ─+▶ .+\n)+", page.read_text(), re.M)
    for kind, picture in zip((EdgeSession, CloudSession), ways, strict=True):
        assert seen[kind] == {
            (before, by, after)
            for some, by, others in re.findall(r"(.+) ── (\w+) ─+▶ (.+)", picture)
            for before in some.split()
            for after in others.split()
        }
