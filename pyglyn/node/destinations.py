"""Whom a process may send to, call and monitor, and how that is read. Layer: node, pure."""

from __future__ import annotations

from typing import Final, TypeAlias

from pyglyn.dist.control import Name
from pyglyn.etf import Atom, Pid, Reference, Term

_TERM_OF: Final[dict[str, Name]] = {"true": True, "false": False, "nil": None}
_NAME_OF: Final[dict[Term, str]] = {True: "true", False: "false", None: "nil"}


def name_term(name: str | Atom) -> Name:
    """The term of a registered name: an atom, also ``true``, ``false`` and ``nil``.

    Raises:
        ValueError: no atom has that name.
    """
    if isinstance(name, Atom):
        return name
    return _TERM_OF[name] if name in _TERM_OF else Atom(name)


def name_of(term: Term) -> str | None:
    """The name that a term is, where an atom is expected: ``true``, ``false`` and ``nil`` are atoms too."""
    if type(term) is Atom:
        return term.name
    return _NAME_OF.get(term) if term is None or type(term) is bool else None


ServerRef: TypeAlias = "Pid | str | Atom | tuple[str | Atom, str | Atom]"
"""A process: its pid, its registered name on this node, or its name and node."""
Destination: TypeAlias = "ServerRef | Reference"
"""A process, or an alias of one."""


def check_destination(to: object) -> None:
    """Refuse what no message can be sent to.

    Raises:
        TypeError: it is no pid, name, ``(name, node)`` or alias.
    """
    if not isinstance(to, (Pid, str, Atom, Reference, tuple)):
        raise TypeError(f"a destination is a pid, a name, (name, node) or an alias, got {to!r}")


def name_and_node(to: tuple[object, ...]) -> tuple[Name, str]:
    """Read a ``(name, node)`` destination.

    Raises:
        TypeError: not two names.
    """
    if len(to) == 2:
        name, node = to
        if isinstance(name, (str, Atom)) and isinstance(node, (str, Atom)):
            return name_term(name), str(node)
    raise TypeError(f"a destination is a pid, a name, (name, node) or an alias, got {to!r}")


def node_of(to: Destination) -> str | None:
    """The node a destination names; None where it means this one."""
    if isinstance(to, (Pid, Reference)):
        return to.node
    return str(to[1]) if isinstance(to, tuple) else None


def describe(server: ServerRef) -> str:
    """A server reference for people."""
    return f"{server[0]} on {server[1]}" if isinstance(server, tuple) else str(server)
