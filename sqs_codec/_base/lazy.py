"""Attributes that are made when they are first asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")


class lazy(Generic[T]):  # noqa: N801  # named as the decorator that it is
    """A method to be read as an attribute, and called once.

    That is what `functools.cached_property` does. But in Python 3.11 it holds a lock,
    one for all instances, which stays locked in a child forked in the meantime. Here
    threads may call the method at the same time; all get the result of one of them.
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
        """Return the attribute, which then stands in for this object."""
        if instance is None:
            return self
        found: T = instance.__dict__.setdefault(self.name, self.make(instance))
        return found
