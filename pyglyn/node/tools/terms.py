"""Terms that several tools take and give, and what is refused. Layer: node."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from pyglyn.etf import Atom, Term
from pyglyn.node.exits import ErlangError
from pyglyn.node.hub import Hub

Functions: TypeAlias = dict[tuple[str, str], Callable[..., Awaitable[Any]]]
"""By Erlang's names of the module and the function."""
NOTSUP = Atom("notsup")


def pairs(*names_and_values: Any) -> list[Any]:
    """A property list, from names and values in turn."""
    given = iter(names_and_values)
    return [(Atom(name), value) for name, value in zip(given, given, strict=True)]


def text(value: str) -> list[Term]:
    """A string as Erlang has it: a list of characters."""
    return [ord(character) for character in value]


def refused(why: str) -> ErlangError:
    """``{notsup, Text}``, an error that says why."""
    return ErlangError((NOTSUP, why.encode()))


def check_may_change(hub: Hub, what: str) -> None:
    """Refuse what changes something, unless the node's settings allow it.

    Raises:
        ErlangError: ``{notsup, Text}``.
    """
    if hub.settings.observe != "full":
        raise refused(f'{what} changes something: Settings(observe="full") of the node allows it')
