"""Stored JSON of an earlier version made JSON of the present one. Pure; see ``domain.evolution``."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from pyglyn.eventsourcing.domain.evolution import Evolution, Several, Upcaster
from pyglyn.eventsourcing.stores.json.scalars import kind_of

STATE_VERSION = "state-version"
"""The key of a snapshot's version, where it is not 1."""

MOST_STEPS = 10_000
"""Upcasters that one event may need; those that make events for ever are a fault."""


@attrs.frozen
class _Type:
    tag: str
    version: int
    upcasters: Mapping[int, Upcaster]


@attrs.frozen
class Upcasting:
    """The upcasters of a codec.

    Attributes:
        tag_key: under which the tag of an event is; None for a state.
        types: by tag, present or former. A version that is None is of an event that has no class.
    """

    tag_key: str | None
    types: Mapping[str, _Type]

    @classmethod
    def of_events(
        cls, tag_key: str, tags: Mapping[str, Evolution], without_class: Mapping[str, Mapping[int, Upcaster]]
    ) -> Upcasting | None:
        """Return the upcasters of events; None where nothing is ever upcast."""
        types: dict[str, _Type] = {}
        for tag, evolution in tags.items():
            for name in (tag, *evolution.aliases):
                types[name] = _Type(tag, evolution.version, evolution.upcasters)
        for tag, upcasters in without_class.items():
            if tag in types:
                raise ValueError(f"{tag!r} has a class: its upcasters are declared there")
            types[tag] = _Type(tag, max(upcasters, default=0) + 1, upcasters)
        upcast = any(each.upcasters for each in types.values())
        return cls(tag_key, types) if upcast else None

    @classmethod
    def of_state(cls, evolution: Evolution) -> Upcasting:
        """Return the upcasters of a state."""
        return cls(None, {"": _Type("", evolution.version, evolution.upcasters)})

    def marking(self, encode: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Write the version of a state with it."""
        version = self.types[""].version
        return lambda value: {STATE_VERSION: version, **encode(value)}

    def read(self, value: Any, version: int, decode: Callable[[Any], Any]) -> Any:
        """Read a JSON value of some version.

        Raises:
            ValueError: an upcaster failed.
        """
        if type(value) is not dict:
            return decode(value)
        if self.tag_key is None:
            value = dict(value)
            version = value.pop(STATE_VERSION, 1)
        found = [decode(each) for each in self._upcast(value, version)]
        if len(found) == 1:
            return found[0]
        if self.tag_key is None:
            raise ValueError("a snapshot of this version is not used any more")
        return Several(tuple(found))

    def _upcast(self, value: dict[str, Any], version: Any) -> list[dict[str, Any]]:
        current: list[dict[str, Any]] = []
        waiting = deque([(value, version)])
        for _ in range(MOST_STEPS):
            if not waiting:
                return current
            value, version = waiting.popleft()
            kind = self._type(value)
            if kind is None or not isinstance(version, int) or version not in kind.upcasters:
                current.append(value)
                continue
            made = _call(kind, version, value)
            for each in reversed(made):
                other = self._type(each)
                same = other is None or other.tag == kind.tag
                waiting.appendleft((each, version + 1 if same or other is None else other.version))
        raise ValueError(f"more than {MOST_STEPS} upcasters for one event")

    def _type(self, value: dict[str, Any]) -> _Type | None:
        tag = "" if self.tag_key is None else value.get(self.tag_key)
        return self.types.get(tag) if isinstance(tag, str) else None


def _call(kind: _Type, version: int, value: dict[str, Any]) -> list[dict[str, Any]]:
    where = f"the upcaster of {kind.tag or 'the state'} from version {version}"
    try:
        made = kind.upcasters[version](dict(value))
    except Exception as error:
        raise ValueError(f"{where} raised {type(error).__name__}: {error}") from error
    found = [] if made is None else made if isinstance(made, list) else [made]
    for each in found:
        if type(each) is not dict:
            raise TypeError(f"{where} returned {kind_of(each)} in place of an object")
    return found
