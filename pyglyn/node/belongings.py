"""What other parts of the package keep with a runtime for as long as it lives. Layer: node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Belongings:
    """One thing of each class: what belongs to a node or worker, found by the class alone."""

    __slots__ = ("_things",)

    def __init__(self) -> None:
        self._things: dict[type[Any], Any] = {}

    def put(self, thing: object) -> None:
        """Keep a thing; it takes the place of another one of its class."""
        self._things[type(thing)] = thing

    def find(self, kind: type[T]) -> T | None:
        """The thing of a class, None if there is none."""
        found: T | None = self._things.get(kind)
        return found

    def get(self, kind: type[T], make: Callable[[], T] | None = None) -> T:
        """The thing of a class, made now if there is none, with ``kind()`` or ``make()``."""
        if kind not in self._things:
            self._things[kind] = (make or kind)()
        thing: T = self._things[kind]
        return thing
