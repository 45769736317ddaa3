"""A log of facts: one order for all, types and tags to select by, appends on condition.

Columns and spellings are those of Gleam's ``factos`` 1.0 (``factos_events``), so that services of both
languages decide over one log. A fact has a type, tags and bytes; what the bytes are is the application's
business.

Every log promises:

1. Positions grow in the order of the commits: who has read up to a position has missed nothing before it.
2. ``append`` with a condition writes nothing if a fact matches that lies behind ``after``; no other append
   commits between the check and its own.

Layer: eventsourcing, stores.
"""

from __future__ import annotations

import abc
import asyncio
import uuid
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self

import attrs

from pyglyn.errors import AppendConditionFailed, EventEncodeError
from pyglyn.eventsourcing.domain.envelope import Metadata, metadata_pairs
from pyglyn.eventsourcing.stores.rows import storable_text

STREAM = "pyglyn"
"""The stream that facts are written under when the caller does not say: factos wants one."""


def _strings(values: Iterable[Any]) -> tuple[Any, ...]:
    if isinstance(values, str):
        raise TypeError(f"expected several, got the string {values!r}: write [{values!r}]")
    return tuple(values)


@attrs.frozen
class Criterion:
    """Facts of one of these types (of any type if there are none) that have all of these tags."""

    types: tuple[Any, ...] = attrs.field(default=(), converter=_strings)
    tags: tuple[str, ...] = attrs.field(default=(), converter=_strings)

    def matches(self, type_: str, tags: Iterable[str]) -> bool:
        """Tell whether a fact meets it."""
        return (not self.types or type_ in self.types) and set(self.tags) <= set(tags)


@attrs.frozen(init=False)
class Query:
    """Which facts: those that meet one of the criteria. ``Query()`` is all of them; ``a | b`` is both."""

    criteria: tuple[Criterion, ...]

    def __init__(self, types: Iterable[Any] = (), tags: Iterable[str] = ()) -> None:
        """Select by one criterion.

        Args:
            types: names, or classes where the store knows how they are called.
            tags: all of which a fact has to have.
        """
        one = Criterion(types, tags)
        self.__attrs_init__((one,) if one.types or one.tags else ())

    @classmethod
    def of(cls, criteria: Iterable[Criterion]) -> Query:
        """Select by several criteria; by none all facts."""
        made = cls()
        object.__setattr__(made, "criteria", tuple(criteria))
        return made

    def __or__(self, other: Query) -> Query:
        return Query.of((*self.criteria, *other.criteria)) if self.criteria and other.criteria else Query()

    def matches(self, type_: str, tags: Iterable[str]) -> bool:
        """Tell whether a fact is one of them."""
        return not self.criteria or any(each.matches(type_, tags) for each in self.criteria)


@attrs.frozen(kw_only=True)
class NewFact:
    """A fact to be written. Tags and metadata are without line feeds, metadata keys without ``=``."""

    type: str
    data: bytes
    tags: tuple[str, ...] = attrs.field(default=(), converter=_strings)
    metadata: Metadata = attrs.field(factory=list, converter=metadata_pairs)
    id: str = attrs.field(factory=lambda: str(uuid.uuid4()))
    version: int = 1


@attrs.frozen(kw_only=True)
class RawFact:
    """A fact as it is stored."""

    position: int
    stream: str
    revision: int
    id: str
    type: str
    version: int
    tags: tuple[str, ...]
    metadata: Metadata
    data: bytes


class FactLog(abc.ABC):
    """Facts in one order.

    Attributes:
        in_memory: whether they are in this OS process, and no other one sees them.
    """

    in_memory = False

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self.close()

    def reopened(self) -> FactLog:
        """Return the same log with connections of its own; itself where it has none."""
        return self

    @abc.abstractmethod
    async def start(self) -> None:
        """Connect and create what is missing."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Close the connections."""

    @abc.abstractmethod
    async def read(
        self, query: Query | None = None, *, after: int = 0, limit: int | None = None
    ) -> list[RawFact]:
        """Return facts that match, in order."""

    @abc.abstractmethod
    async def append(
        self,
        facts: Sequence[NewFact],
        *,
        condition: Query | None = None,
        after: int = 0,
        stream: str = STREAM,
    ) -> list[RawFact]:
        """Write facts, all or none.

        Args:
            facts: in order.
            condition: nothing that matches may have come; None for no condition.
            after: since this position.
            stream: factos' name for a series of facts with revisions of its own.

        Raises:
            AppendConditionFailed: something has come.
            EventEncodeError: a fact cannot be stored.
        """

    @abc.abstractmethod
    async def last_position(self) -> int:
        """Return the position of the last fact, 0 when there is none."""

    @abc.abstractmethod
    async def wait(self, after: int, *, timeout: float | None = None) -> bool:
        """Wait until there are facts behind a position; False after ``timeout`` seconds."""


def checked(facts: Sequence[NewFact]) -> Sequence[NewFact]:
    """Check that facts can be written by all who share the log.

    Raises:
        EventEncodeError: one cannot.
    """
    for fact in facts:
        for text, what in ((fact.type, "type"), (fact.id, "id")):
            storable_text(text, f"fact {what}")
        for tag in fact.tags:
            if "\n" in storable_text(tag, "tag") or not tag:
                raise EventEncodeError(f"a tag is text in one line, got {tag!r}", value=tag)
        for key, value in fact.metadata:
            if "\n" in storable_text(key + value, "metadata") or "=" in key + value:
                raise EventEncodeError(f"metadata of a fact are lines without =, got {key!r}", value=key)
        if type(fact.data) is not bytes:
            raise EventEncodeError(f"the data of a fact are bytes, got {fact.data!r}", value=fact.data)
    return facts


def tags_text(tags: Iterable[str]) -> str:
    """Write tags as factos does, each once."""
    return "\n".join(dict.fromkeys(tags))


def read_tags(text: str) -> tuple[str, ...]:
    """Read tags."""
    return tuple(text.split("\n")) if text else ()


def metadata_text(pairs: Metadata) -> str:
    """Write metadata as factos does."""
    return "\n".join(f"{key}={value}" for key, value in pairs)


def read_metadata(text: str) -> Metadata:
    """Read metadata; lines that are no pair are left out, as factos does."""
    pairs = [line.partition("=") for line in text.split("\n")] if text else []
    return [(key, value) for key, sign, value in pairs if sign]


class MemoryFactLog(FactLog):
    """Facts in memory; for tests and state that may be lost."""

    in_memory = True

    def __init__(self) -> None:
        self._facts: list[RawFact] = []
        self._revisions: dict[str, int] = {}
        self._grown = asyncio.Event()

    async def start(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing: the facts stay."""

    async def read(
        self, query: Query | None = None, *, after: int = 0, limit: int | None = None
    ) -> list[RawFact]:
        query = query or Query()
        behind = self._facts[max(after, 0) :]
        found = [fact for fact in behind if query.matches(fact.type, fact.tags)]
        return found if limit is None else found[: max(limit, 0)]

    async def append(
        self,
        facts: Sequence[NewFact],
        *,
        condition: Query | None = None,
        after: int = 0,
        stream: str = STREAM,
    ) -> list[RawFact]:
        checked(facts)
        storable_text(stream, "stream")
        await asyncio.sleep(0)
        if condition is not None and await self.read(condition, after=after, limit=1):
            raise AppendConditionFailed(condition, after)
        made: list[RawFact] = []
        for fact in facts:
            self._revisions[stream] = self._revisions.get(stream, -1) + 1
            made.append(
                RawFact(
                    position=len(self._facts) + len(made) + 1,
                    stream=stream,
                    revision=self._revisions[stream],
                    id=fact.id,
                    type=fact.type,
                    version=fact.version,
                    tags=tuple(dict.fromkeys(fact.tags)),
                    metadata=list(fact.metadata),
                    data=fact.data,
                )
            )
        self._facts += made
        self._grown.set()
        self._grown = asyncio.Event()
        return made

    async def last_position(self) -> int:
        return len(self._facts)

    async def wait(self, after: int, *, timeout: float | None = None) -> bool:
        try:
            async with asyncio.timeout(timeout):
                while len(self._facts) <= after:
                    await self._grown.wait()
        except TimeoutError:
            return False
        return True
