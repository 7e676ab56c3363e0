"""Loops of speculative decoding as they are written elsewhere, right and wrong.

Most are a `Loop`: drafted tokens, a truncation, a temperature and a way to draw. A
mistake replaces a step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from transformers.generation import logits_process

import sqs_codec as sqs
from tests.kit import softmax


def residual(p, q):
    rest = np.maximum(p - q, 0)
    return rest / rest.sum() if rest.any() else p


def choose(p, rng):
    return int(rng.choice(len(p), p=p))


def invert(p, rng, u=None):
    u = rng.random() if u is None else u
    return min(int(np.searchsorted(np.cumsum(p), u, side="right")), len(p) - 1)


def gumbel(p, rng):
    return int(np.argmax(np.log(p + 1e-30) + rng.gumbel(size=len(p))))


def until(mass, q, order):
    """Keep tokens in this order until their sum reaches the mass."""
    return q * np.isin(np.arange(len(q)), order[np.cumsum(q[order]) - q[order] < mass])


def surprise(q):
    """By how much a token's surprise is above the mean."""
    return q @ np.log(q + 1e-30) - np.log(q + 1e-30)


def lattice(q, resolution):
    """Round to counts: the largest remainders go up."""
    counts = np.floor(resolution * q)
    counts[np.argsort(counts - resolution * q)[: resolution - int(counts.sum())]] += 1
    return counts


def significant(q, bits):
    part, exponent = np.frexp(q)
    return np.ldexp(np.rint(part * 2.0**bits), exponent - bits)


@cache
def warped(name, at, q):
    warper = getattr(logits_process, name + "LogitsWarper")(at)
    return warper(None, torch.tensor([q]).log())[0].exp().numpy()


CUTS = {
    "": lambda q, _: q,
    "top-k": lambda q, k: q * (np.argsort(np.argsort(-q, kind="stable")) < k),
    "top-p": lambda q, mass: until(mass, q, np.argsort(-q, kind="stable")),
    "min-p": lambda q, share: q * (q >= share * q.max()),
    "typical": lambda q, mass: until(mass, q, np.argsort(np.abs(surprise(q)))),
    "counts": lattice,
    "bits": significant,
    "hf top-k": lambda q, at: warped("TopK", at, tuple(q)),
    "hf top-p": lambda q, at: warped("TopP", at, tuple(q)),
    "hf min-p": lambda q, at: warped("MinP", at, tuple(q)),
}


@dataclass(frozen=True)
class Loop:
    """Draft; accept with chance p/q or draw from the residual; add a bonus token."""

    drafts: int = 1
    cut: str = ""
    at: float = 0
    temperature: float = 1
    draw: Callable = choose
    ends: Callable = lambda rng: (rng, rng)  # generators of drafts and of verdicts
    sent: Callable = lambda raw, q, cut: (cut, cut)  # to draw from, and to accept by
    chance: Callable = lambda px, qx, p: px / qx
    rest: Callable = residual  # of p and q: replaces a rejected token
    replace: Callable | None = None  # of p, q, the rejecting number, and a generator
    bonus: Callable | None = None
    shift: int = 0  # of the row that verifies a token
    last: int = 0  # of the row of the bonus token

    def _propose(self, text, draft, rng):
        text, qs = list(text), []
        for _ in range(self.drafts):
            q = softmax(draft.logits(text), self.temperature)
            cut = CUTS[self.cut](q, self.at)
            drawn, judged = self.sent(draft(text), q, cut / cut.sum())
            text.append(self.draw(drawn, rng))
            qs.append(judged)
        return text, qs

    def _replaced(self, p, q, u, rng):
        if self.replace:
            return self.replace(p, q, u, rng)
        return self.draw(self.rest(p, q), rng)

    def each(self, prompt, draft, target, rng):
        """Verify token by token."""
        edge, cloud = self.ends(rng)
        text, qs = self._propose(prompt, draft, edge)
        for i, q in enumerate(qs, len(prompt)):
            p, x, u = target(text[: i + self.shift]), text[i], cloud.random()
            if not u < self.chance(p[x], q[x], p):
                return [*text[len(prompt) : i], self._replaced(p, q, u, cloud)]
        row = target(text[: len(text) - self.last])
        return [*text[len(prompt) :], (self.bonus or self.draw)(row, cloud)]

    def batch(self, prompt, draft, target, rng):
        """Verify all tokens at once."""
        (edge, cloud), n = self.ends(rng), len(prompt)
        text, qs = self._propose(prompt, draft, edge)
        ps = np.array([target(text[:i]) for i in range(n, len(text) + 1)])
        i, x, rows = np.arange(len(qs)), text[n:], ps[self.shift :]
        u = cloud.random(len(qs))
        taken = u < self.chance(rows[i, x], np.array(qs)[i, x], rows[: len(qs)])
        k = int(np.cumprod(taken).sum())
        if k < len(qs):
            return [*text[n : n + k], self._replaced(rows[k], qs[k], u[k], cloud)]
        return [*text[n:], (self.bonus or self.draw)(ps[k - self.last], cloud)]


def own(rng):
    return tuple(np.random.default_rng(rng.integers(2**32)) for _ in range(2))


def same(rng):
    return tuple(map(np.random.default_rng, [rng.integers(2**32)] * 2))


def whole(decode, prompt, draft, target, rng):
    text = list(prompt)
    while len(text) < len(prompt) + 4:
        text += map(int, decode(text, draft, target, rng))
    return text[len(prompt) :]


def equal(prompt, draft, target, rng):
    """Accept what the target draws as well, by numbers of its own."""
    text = list(prompt)
    for _ in range(2):
        drafted = choose(draft(text), rng)
        text.append(choose(target(text), rng))
        if text[-1] != drafted:
            break
    return text[len(prompt) :]


def one_noise(judges, prompt, draft, target, rng):
    """The draft's noise also verifies it, or draws its replacement."""
    q, p = draft(prompt), target(prompt)
    noise = rng.standard_exponential(draft.vocab_size)
    x = int(np.argmax(q / noise))
    if (np.exp(-noise[x]) if judges else rng.random()) < p[x] / q[x]:
        return [x]
    again = rng.standard_exponential(len(q)) if judges else noise
    return [int(np.argmax(residual(p, q) / again))]


def cooled(prompt, draft, target, rng):
    """Draft and verify at 0.8, while the target is meant to decode at 1."""
    cool = Loop(2, temperature=0.8).each
    return cool(prompt, draft, lambda text: softmax(target.logits(text), 0.8), rng)


def dense_sample_of_a_packet(prompt, draft, target, rng):
    """Send a packet, and sample from the softmax until a token is in it."""
    codec, dense = sqs.Codec(64, 100), draft(prompt)
    sent = codec.quantize_probs(dense, sqs.TopK(16))
    x = choose(dense, rng)
    while sent.prob(x) == 0:
        x = choose(dense, rng)
    round_ = codec.decode_round(codec.encode_round([sent], [x]))
    verdict = sqs.verify(round_, np.array([target(prompt), target([*prompt, x])]), rng)
    return [*round_.tokens[: verdict.accepted], verdict.token]


def integers_up_to(prompt, draft, target, rng):
    """Accept a byte up to and including 256 p/q."""
    p, q = target(prompt), draft(prompt)
    x = choose(q, rng)
    if rng.integers(256) <= int(256 * p[x] / q[x]):
        return [x]
    return [choose(residual(p, q), rng)]


# Loops that keep state between calls, so each has to be made again.


def cached(by):
    """Keep the target's distributions of earlier calls."""
    cache = {}

    def decode(prompt, draft, target, rng):
        def kept(text):
            return cache.setdefault(by(text), target(text))

        return Loop().each(prompt, draft, kept, rng)

    return decode


def lenience_that_grows():
    """Accept more after each rejection, in this call and all later ones."""
    factor = 1.0

    def replace(p, q, u, rng):
        nonlocal factor
        factor = min(factor * 1.5, 100)
        return choose(residual(p, q), rng)

    return Loop(chance=lambda px, qx, p: factor * px / qx, replace=replace).each


def drafts_as_accepted():
    """Draft one more token after an accepted round, and one less after a rejection."""
    length = 2

    def decode(prompt, draft, target, rng):
        nonlocal length
        out = Loop(length).each(prompt, draft, target, rng)
        length = min(length + 1, 3) if len(out) > length else max(length - 1, 1)
        return out

    return decode


def cooling_draft():
    """Cool the draft from call to call, and verify with the sampled distribution."""
    calls = 0

    def decode(prompt, draft, target, rng):
        nonlocal calls
        calls += 1
        loop = Loop(temperature=0.5 + 0.5 / calls)
        return loop.each(prompt, draft, target, rng)

    return decode


RAW = {"sent": lambda raw, q, cut: (cut, raw)}
ROUNDED = {"sent": lambda raw, q, cut: (cut, q)}
OFF = {"sent": lambda raw, q, cut: (raw, cut)}
OFF |= {"chance": lambda px, qx, p: px / np.maximum(qx, 1e-9)}
Q_OVER_P = {"chance": lambda px, qx, p: qx / np.maximum(px, 1e-9)}
LOGS = {"rest": lambda p, q: residual(*np.log([p + 1e-9, q + 1e-9]))}
AGAIN = {"replace": lambda p, q, u, rng: invert(residual(p, q), rng, u)}
FROM_P = {"rest": lambda p, q: p}
ARGMAX = {"bonus": lambda p, rng: int(np.argmax(p))}
GREEDY = {
    "chance": lambda px, qx, p: px == p.max(-1),
    "replace": lambda p, *_: int(np.argmax(p)),
}
RIGHT = {
    "one token": Loop().each,
    "hf top-p 0.9": Loop(1, "hf top-p", 0.9).each,
    "typical 0.8, Gumbel": Loop(1, "typical", 0.8, draw=gumbel).each,
    "8 bits at both ends": Loop(1, "bits", 8, 1.1, draw=invert).each,
}

WRONG = {
    "another q: hf top-p 0.9": Loop(1, "hf top-p", 0.9, **RAW).each,
    "another q: hf top-k 50": Loop(1, "hf top-k", 50, **RAW).each,
    "another q: hf min-p 0.05": Loop(1, "hf min-p", 0.05, **RAW).batch,
    "another q: T 0.5": Loop(1, temperature=0.5, draw=invert, **RAW).each,
    "another q: 8 bits": Loop(1, "bits", 8, 1.1, **ROUNDED).each,
    "q/p: typical 0.8, T 0.8": Loop(1, "typical", 0.8, 0.8, **Q_OVER_P).each,
    "q/p": Loop(1, draw=invert, **Q_OVER_P).batch,
    "draft's own": lambda prompt, draft, _, rng: [choose(draft(prompt), rng)],
    "residual of logits: difference": Loop(**LOGS).each,
    "one seed": Loop(ends=same).each,
    "dense q: counts of 8": Loop(1, "counts", 8, **OFF).batch,
    "shifted row": Loop(2, shift=1).each,
    "bonus token": Loop(1, last=1).each,
    "one number twice": Loop(**AGAIN).each,
    "replaced from p": Loop(**FROM_P).each,
    "too lenient: 1.5 p/q": Loop(chance=lambda px, qx, p: 1.5 * px / qx).each,
    "too lenient: 0.3 at least": Loop(
        chance=lambda px, qx, p: np.maximum(px / qx, 0.3)
    ).batch,
    "prompt returned": lambda *given: [*given[0], *Loop().each(*given)],
    "greedy": Loop(2, **GREEDY, **ARGMAX).batch,
    "greedy: bonus": Loop(1, "min-p", 0.05, **ARGMAX).each,
    "one noise: judges": partial(one_noise, True),
    "target temperature": cooled,
    "dense q: float16": Loop(
        sent=lambda raw, q, cut: (cut, cut.astype(np.float16).astype(float))
    ).each,
    "none: residual not normalized": Loop(
        replace=lambda p, q, u, rng: invert(np.maximum(p - q, 0), rng)
    ).each,
}
"""The name of the mistake, and its variant. The checker doesn't know a "none"."""

UNNOTICED = {dense_sample_of_a_packet: 0.0058, integers_up_to: 0.002}
"""Wrong loops that aren't summed, by a total variation that 20,000 texts don't show."""

STATE = [partial(cached, len), lenience_that_grows]
"""Makers of wrong loops that keep state between calls."""

RIGHT_STATE = {partial(cached, tuple): "sum"}
RIGHT_STATE |= {drafts_as_accepted: "chi2", cooling_draft: "chi2"}
"""Makers of right loops, and the method that can confirm them."""
