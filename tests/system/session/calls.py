"""What a session's Python costs: the calls of its steps.

Rounds of five shipped rows (V = 49 152, K = 64, l = 100, T = 0.7) go from an edge to a
cloud in the same process: `EdgeSession.push` of a row, `flush`, the cloud's way from
the message to its job, and `verify_rounds` with six rows of float32. Then the cloud
decodes, and the edge guesses three tokens and hints three branches of three. Calls are
those that Python's profiler sees, of Python functions and of C functions apart.
"""

import sys
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

import sqs_codec as sqs
from sqs_codec.system.session import (
    CloudSession,
    EdgeSession,
    Limits,
    Sampling,
    Setting,
)
from tests.drafts import VOCAB_SIZE, load_drafts, load_targets

LENGTH, TEMPERATURE = 5, 0.7

Step = Callable[[str, Callable[[], Any]], Any]


def play(do: Step, rounds: int) -> None:
    """Write a text; each step that is to be measured is done by `do`."""
    rng, places = np.random.default_rng(0), range(120)
    draft, target = (
        np.array([rows.row(i) for i in places])
        for rows in (load_drafts(), load_targets())
    )
    probs = np.exp(target / TEMPERATURE)
    probs /= probs.sum(-1, keepdims=True)
    codec, session = sqs.Codec(VOCAB_SIZE, 100), bytes(16)
    edge = EdgeSession(
        [Setting(codec, sqs.TopK(64))],
        [1],
        rng=rng,
        sampling=Sampling(TEMPERATURE),
        session_id=session,
        seed=session,
    )
    cloud = CloudSession(
        session,
        limits=Limits(),
        tokenizer=b"",
        vocab_size=VOCAB_SIZE,
        max_text=4096,
    )
    cloud.receive(edge.data_to_send()[0])
    edge.receive(cloud.data_to_send()[0])
    for n in range(rounds):
        rows = [(n * (LENGTH + 1) + i) % len(draft) for i in range(LENGTH + 1)]
        for row in rows[:LENGTH]:
            logits = draft[row]
            do("push", lambda logits=logits: edge.push(logits))
        do("flush", edge.flush)
        *others, message = edge.data_to_send()
        for other in others:  # the text, before the first round
            cloud.complete(_job_of(cloud, other), None)
        job = do("message to job", lambda m=message: _job_of(cloud, m))
        verdicts = do(
            "verify_rounds",
            lambda j=job, r=rows: sqs.verify_rounds([j.round_], probs[r], j.draws),
        )
        cloud.complete(job, verdicts[0])
        for answer in cloud.data_to_send():
            edge.receive(answer)
    edge.generate(1)
    position = len(edge.text)
    for row in draft[:rounds]:
        found = do("guess", lambda row=row: edge.guess(row, position, 3))
        likely = [*zip(found.tokens, found.chances, strict=True)]
        branches: Any = [([], [token] * 3, [chance] * 3) for token, chance in likely]
        do("hint", lambda branches=branches: edge.hint(position, branches))


def _job_of(cloud: CloudSession, message: bytes) -> Any:
    cloud.receive(message)
    return cloud.next_job()


def calls(rounds: int) -> dict[str, list[tuple[int, int]]]:
    """Return the calls of Python and of C functions of each step, each time."""
    found = defaultdict(list)

    def count(name: str, step: Callable[[], Any]) -> Any:
        seen = {"call": 0, "c_call": 0}

        def profile(_: object, event: str, __: object) -> None:
            if event in seen:
                seen[event] += 1

        sys.setprofile(profile)
        try:
            return step()
        finally:
            sys.setprofile(None)
            # Without the lambda, and the setprofile that ends it.
            found[name].append((seen["call"] - 1, seen["c_call"] - 1))

    play(count, rounds)
    return found
