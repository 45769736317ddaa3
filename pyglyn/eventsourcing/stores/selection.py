"""Which events a reader wants: some types, or one of several parts of the aggregates. No I/O.

Databases look for the tags of the types in the stored text, as text: that needs no JSON from them, and finds
more than is meant rather than less. What they return is decoded, and then looked at again. An event that does
not decode is one of the selected if its text has one of their tags.

Parts are made by the first 28 bits of the MD5 of the aggregate's id in UTF-8, modulo their number: the same
in Python and in SQL. Layer: eventsourcing, stores.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import attrs

from pyglyn.eventsourcing.domain.envelope import RecordedEvent
from pyglyn.eventsourcing.domain.evolution import Several, each

PART_IN_POSTGRES = "('x' || left(md5(convert_to(p.aggregate_id, 'UTF8')), 7))::bit(28)::int %% %s = %s"
PART_IN_SQLITE = "pyglyn_part(p.aggregate_id, ?) = ?"


def part_of(aggregate_id: object, parts: int) -> int:
    """Return which of so many parts an aggregate is in."""
    id = aggregate_id if isinstance(aggregate_id, str) else repr(aggregate_id)
    digest = hashlib.md5(id.encode(errors="surrogatepass"), usedforsecurity=False).hexdigest()
    return int(digest[:7], 16) % parts


@attrs.frozen
class Selection:
    """Events of some types, of one part.

    Attributes:
        types: classes, or tags of events that are read as plain JSON; None for all.
        part: which part of how many; None for all.
        tag_key: where plain JSON has its tag.
    """

    types: tuple[type | str, ...] | None = None
    part: tuple[int, int] | None = None
    tag_key: str = "event-type"

    def kept(
        self, event: RecordedEvent[Any], names: Iterable[str] | None = None
    ) -> RecordedEvent[Any] | None:
        """Return an event as it is selected; None if it is not.

        Args:
            event: as it was read.
            names: the tags by which the types are found in stored text; None where nobody knows.
        """
        if self.part is not None and part_of(event.aggregate_id, self.part[1]) != self.part[0]:
            return None
        if self.types is None:
            return event
        if event.envelope is None:
            raw = event.raw.decode(errors="replace") if isinstance(event.raw, bytes) else event.raw
            may_be = names is None or not raw or any(text in raw for text in quoted(names))
            return event if may_be else None
        payload = event.envelope.payload
        if type(payload) is not Several:
            return event if self._is_selected(payload) else None
        found = tuple(one for one in each(payload) if self._is_selected(one))
        if not found:
            return None
        return attrs.evolve(event, envelope=attrs.evolve(event.envelope, payload=Several(found)))

    def _is_selected(self, payload: Any) -> bool:
        assert self.types is not None
        if type(payload) in self.types:
            return True
        return isinstance(payload, dict) and payload.get(self.tag_key) in self.types


@attrs.frozen
class Scanned:
    """What was selected behind a position, and how far was looked.

    Attributes:
        events: in order.
        end: nothing else is selected up to this position.
        more: there may be more behind it.
    """

    events: list[RecordedEvent[Any]]
    end: int
    more: bool


def quoted(names: Iterable[str]) -> list[str]:
    """Return the texts one of which is in the JSON of an event with one of these tags.

    Whoever escapes letters that need not be escaped has a backslash there, so that is one of them.
    """
    return [*(json.dumps(name, ensure_ascii=False) for name in sorted(names)), "\\u"]


def conditions(
    selection: Selection, names: Iterable[str] | None, *, contains: str, part: str
) -> tuple[str, list[object]]:
    """Return what to add to the WHERE of a statement over ``p`` (positions) and ``e`` (events).

    Args:
        selection: what is wanted.
        names: the tags of its types; None if they are not known.
        contains: SQL for "the payload has the text of the parameter in it".
        part: SQL for "the aggregate is in the part": its parameters are how many, and which one.
    """
    parts: list[str] = []
    parameters: list[object] = []
    if selection.types is not None and names is not None:
        texts = quoted(names)
        parts.append("(" + " OR ".join([contains] * len(texts)) + ")")
        parameters += texts
    if selection.part is not None:
        number, count = selection.part
        parts.append(part)
        parameters += [count, number]
    return "".join(f" AND {each}" for each in parts), parameters
