"""What several nodes and stores tell of the same, as one: groups by their members, events by their causes.

Layer: http.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pyglyn import etf
from pyglyn.etf import Term
from pyglyn.eventsourcing.domain.trace import Step, Traced, tree
from pyglyn.groups.overview import Member, Scope, merge
from pyglyn.node.described import Json, pid_text
from pyglyn.node.reasons import UNDEFINED

TERM_CHARACTERS: Final = 2000
SHOWN: Final = 100
"""How many events are shown: of all services and stores together, the last ones."""


def events(found: Iterable[tuple[str, list[Step]]]) -> list[Json]:
    """The trees of the last events, the newest first.

    Several nodes that serve one database tell of the same events, which then are one. Where two databases
    have events of one name, those of the second are told apart by where they are from.

    Args:
        found: where events are from, and these.
    """
    known: dict[str, Step] = {}
    for source, steps in found:
        for each in steps:
            other = known.setdefault(each.id, each)
            if other.at != each.at:
                id = f"{each.id} ({source})"
                known[id] = Step(id, each.name, each.node, each.at, each.cause)
    last = sorted(known.values(), key=lambda step: step.at or 0.0)[-SHOWN:]
    return [_event(root) for root in reversed(tree(last))]


def _event(event: Traced) -> Json:
    below = [_event(each) for each in event.caused]
    return {"id": event.id, "name": event.name, "node": event.node, "at": event.at, "caused": below}


def groups(found: Iterable[tuple[str, list[Scope]]]) -> list[Json]:
    """The scopes with their groups, as all nodes see them."""
    return [
        {
            "kind": scope.kind,
            "scope": scope.name,
            "nodes": scope.nodes,
            "groups": [
                {"name": text(group), "members": [_member(member) for member in members]}
                for group, members in scope.groups
            ],
        }
        for scope in merge(found)
    ]


def _member(member: Member) -> Json:
    meta = None if member.meta is UNDEFINED else text(member.meta)
    return {
        "pid": pid_text(member.pid),
        "node": member.pid.node,
        "meta": meta,
        "missing": member.missing,
    }


def text(term: Term) -> str:
    """A term in Erlang syntax, binaries that are text as they are."""
    if isinstance(term, bytes):
        return term.decode("utf-8", "backslashreplace")[:TERM_CHARACTERS]
    return etf.text.format(term, limit=TERM_CHARACTERS)
