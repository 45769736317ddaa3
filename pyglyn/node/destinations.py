"""Whom a process may send to, call and monitor, and how that is read. Layer: node, pure."""

from __future__ import annotations

from typing import TypeAlias

from pyglyn.etf import Atom, Pid, Reference

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


def name_and_node(to: tuple[object, ...]) -> tuple[Atom, str]:
    """Read a ``(name, node)`` destination.

    Raises:
        TypeError: not two names.
    """
    if len(to) != 2 or not all(isinstance(part, (str, Atom)) for part in to):
        raise TypeError(f"a destination is a pid, a name, (name, node) or an alias, got {to!r}")
    name, node = to
    return (name if isinstance(name, Atom) else Atom(str(name))), str(node)


def node_of(to: Destination) -> str | None:
    """The node a destination names; None where it means this one."""
    if isinstance(to, (Pid, Reference)):
        return to.node
    return str(to[1]) if isinstance(to, tuple) else None


def describe(server: ServerRef) -> str:
    """A server reference for people."""
    return f"{server[0]} on {server[1]}" if isinstance(server, tuple) else str(server)
