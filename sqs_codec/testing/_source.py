"""A generator that enumerates all outcomes of its random numbers."""

import traceback
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

NUMPY = np.random.default_rng(0)

DEEPEST = 1000
"""Decisions per path, at most; a loop with more may never end."""

ROUNDING = 1e-12
"""Difference of equal probabilities through float64 rounding; no sum reports it."""


class CannotSum(Exception):  # noqa: N818  # not an error of the loop
    """The loop uses a random number in a way that can't be enumerated."""


class Unrepeatable(CannotSum):
    """The loop acted differently with the same random numbers."""

    def __init__(self, before: object, now: object, where: str = "") -> None:
        super().__init__(
            "the loop keeps state between calls, or draws random numbers that aren't "
            f"rng's: with the same numbers there was first {before}, then {now}{where}"
        )


class Source(np.random.Generator):
    """A generator for one path through a loop; `taken` has its first decisions."""

    def __init__(self, taken: list[tuple[int, list[float]]]) -> None:
        super().__init__(NUMPY.bit_generator)
        self.taken, self.at = taken, 0
        self.weight = 1.0

    def decide(self, weights: list[float]) -> int:
        if self.at == DEEPEST:
            raise CannotSum(f"its numbers decide more than {DEEPEST} times")
        total = sum(weights)
        weights = [weight / total for weight in weights]
        if self.at == len(self.taken):
            first = next(i for i, weight in enumerate(weights) if weight)
            self.taken.append((first, weights))
        outcome, before = self.taken[self.at]
        if weights != before:
            _compare(before, weights)
        self.at += 1
        self.weight *= before[outcome]
        return outcome

    def random(self, size: Any = None) -> Any:  # type: ignore[override]
        numbers = [Number(self) for _ in range(int(np.prod(size or 1)))]
        return numbers[0] if size is None else np.array(numbers, object).reshape(size)

    def integers(self, low: int, high: int | None = None) -> int:  # type: ignore[override]
        low, high = (0, low) if high is None else (low, high)
        if high - low > DEEPEST:
            raise CannotSum("it draws a seed")
        return low + self.decide([1.0] * (high - low))

    def choice(self, a: Any, *, p: Any = None) -> Any:  # type: ignore[override]
        things = range(a) if isinstance(a, (int, np.integer)) else a
        chances = [1.0] * len(things) if p is None else p
        NUMPY.choice(len(things), p=p)  # raises an error if p is invalid
        return things[self.decide([float(x) for x in chances])]


def _compare(before: list[float], now: list[float]) -> None:
    """Require that a decision has the probabilities of an earlier call."""
    apart = [abs(x - y) for x, y in zip(before, now, strict=False)]
    if max(apart) > ROUNDING:
        frames = reversed(traceback.extract_stack())
        at = next(frame for frame in frames if frame.filename != __file__)
        i = apart.index(max(apart))
        odds = [f"probability {x[i]:.4f} of {i} in {len(x)}" for x in (before, now)]
        raise Unrepeatable(odds[0], odds[1], f" ({at.filename}:{at.lineno})")


def _refuse(name: str, _: Source) -> Any:
    raise CannotSum(f"it uses rng.{name}")


for _name in {*dir(np.random.Generator)} - Source.__dict__.keys():
    if _name[0] != "_":
        setattr(Source, _name, property(partial(_refuse, _name)))


class Number:
    """A number in [0, 1) whose interval each comparison narrows."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._low, self._high = 0.0, 1.0

    def __float__(self) -> float:
        raise CannotSum("it uses a random number in more than comparisons")

    def __lt__(self, other: Any) -> Any:
        if getattr(other, "ndim", 0):
            return NotImplemented  # NumPy then compares each element
        if other is self:  # searchsorted does this
            return False
        other = float(other)
        if self._low + ROUNDING < other < self._high - ROUNDING:
            above = self._source.decide([other - self._low, self._high - other])
            self._low, self._high = (other, self._high) if above else (self._low, other)
        return (self._low + self._high) / 2 < other

    def __gt__(self, other: Any) -> Any:
        below = other is self or self.__lt__(other)
        return below if below is NotImplemented else other == other and not below

    __le__, __ge__ = __lt__, __gt__  # equality has probability 0


def walks(
    run: Callable[[Any], Any], most: int, kind: type[Source] = Source
) -> Iterator[tuple[Source, Any]]:
    """Yield each path through a loop, and its result."""
    source = kind([])
    for _ in range(most):
        given, came = len(source.taken), run(source)
        if source.at < given:
            raise Unrepeatable(f"{given} random decisions", source.at)
        yield source, came
        taken = source.taken[:]
        while taken:
            outcome, weights = taken.pop()
            others = (i for i in range(outcome + 1, len(weights)) if weights[i])
            if (other := next(others, None)) is not None:
                taken.append((other, weights))
                break
        else:
            return
        source = kind(taken)
    raise CannotSum(f"its random numbers have more than {most} outcomes")
