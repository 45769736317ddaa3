"""Events and states that change over time: names that stay, versions, what makes an old form a new one. Pure.

::

    @es.event("order_created", version=2, aliases=["orderCreated"], upcasters={1: with_currency})
    @attrs.frozen
    class OrderCreated:
        order_id: str
        amount: int
        currency: str

    def with_currency(old: dict) -> dict:
        return {**old, "currency": "EUR"}

A field more that has a default needs none of that: what was stored without it takes the default. A version is
for what cannot be read otherwise. It is stored beside the event (the column ``event_version``), and an
upcaster makes JSON of its version JSON of the next one: an object, several (each an event of its own), or
None for an event that has no meaning any more.

Layer: eventsourcing, domain.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, TypeVar

import attrs

T = TypeVar("T", bound=type)

Json: TypeAlias = dict[str, Any]
Upcaster: TypeAlias = "Callable[[Json], Json | list[Json] | None]"

_ATTRIBUTE = "__pyglyn_evolution__"


@attrs.frozen
class Evolution:
    """What is declared of a class.

    Attributes:
        name: its tag in JSON; None derives it from the name of the class.
        version: of what is written now.
        aliases: tags that it had before.
        upcasters: by version, what makes JSON of that version JSON of the next one.
    """

    name: str | None = None
    version: int = 1
    aliases: tuple[str, ...] = ()
    upcasters: Mapping[int, Upcaster] = attrs.field(factory=dict)


@attrs.frozen
class Several:
    """What was stored as one event and is none or several now; they share its sequence and position."""

    events: tuple[Any, ...]


_PLAIN = Evolution()


def event(
    name: str | None = None,
    *,
    version: int = 1,
    aliases: Iterable[str] = (),
    upcasters: Mapping[int, Upcaster] | None = None,
) -> Callable[[T], T]:
    """Declare an event's tag, version and history; above ``attrs.frozen`` or ``dataclass``.

    Args:
        name: the tag under which it is stored, whatever the class is called.
        version: 1 or more; the version of what is written from now on.
        aliases: tags under which it was stored before.
        upcasters: for each version before ``version``, what makes the stored JSON object (with its tag) one
            of the next version. It may return several objects, or None.

    Raises:
        ValueError: the version is less than 1, or an upcaster is missing or for no earlier version.
    """
    return _declare(Evolution(name, version, tuple(aliases), dict(upcasters or {})))


def state(*, version: int = 1, upcasters: Mapping[int, Upcaster] | None = None) -> Callable[[T], T]:
    """Declare the version of an aggregate's state, so that snapshots of earlier ones can be used still.

    Without it they are not used, and replaced by the next one: all events are applied once more.

    Args:
        version: of the snapshots that are written from now on.
        upcasters: as for `event`; one that returns None makes a snapshot unusable.

    Raises:
        ValueError: as for `event`.
    """
    return _declare(Evolution(None, version, (), dict(upcasters or {})))


def _declare(evolution: Evolution) -> Callable[[T], T]:
    wanted = set(range(1, evolution.version))
    if evolution.version < 1 or set(evolution.upcasters) != wanted:
        raise ValueError(
            f"version {evolution.version} needs an upcaster for each version before it, "
            f"{sorted(wanted)}; got {sorted(evolution.upcasters)}"
        )

    def declare(cls: T) -> T:
        setattr(cls, _ATTRIBUTE, evolution)
        return cls

    return declare


def evolution_of(cls: type) -> Evolution:
    """Return what is declared of a class itself."""
    found: Evolution = cls.__dict__.get(_ATTRIBUTE, _PLAIN)
    return found


def version_number(text: str) -> int:
    """Read a version from the column: ``2``, or ``1.0`` as the Gleam stores have it; 1 for anything else."""
    found = re.match(r"[1-9]\d{0,8}", text)
    return int(found[0]) if found else 1


def each(payload: Any) -> tuple[Any, ...]:
    """Return the events that a payload stands for; usually itself."""
    return payload.events if type(payload) is Several else (payload,)
