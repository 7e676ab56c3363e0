"""Attributes that are computed on first access."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")


class lazy(Generic[T]):  # noqa: N801  # named as the decorator that it is
    """`functools.cached_property` without its lock.

    In Python 3.11 that lock is shared by all instances, and stays locked in a child
    process forked meanwhile. Here, threads may call the method at the same time; all
    of them get the same result.
    """

    def __init__(self, make: Callable[[Any], T]) -> None:
        self.make = make
        self.__doc__ = make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> lazy[T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object, owner: type) -> lazy[T] | T:
        """Return the attribute, and store it in the instance's dictionary."""
        if instance is None:
            return self
        found: T = instance.__dict__.setdefault(self.name, self.make(instance))
        return found
