"""The groups and registered names of a cluster, as its nodes see them. Layer: groups.

A pyglyn node tells of all its scopes at once, a BEAM node of its ``pg`` scopes (processes that run
``pg:init/1``) and its tables of ``syn``. What several nodes see is put together here: they should agree, and
where they do not, each member says who does not know of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, TypeAlias

import attrs

from pyglyn import etf
from pyglyn.errors import RemoteException
from pyglyn.etf import Atom, Pid, Term
from pyglyn.node.exits import ErlangError
from pyglyn.node.reasons import UNDEFINED

Ask: TypeAlias = Callable[..., Awaitable[Any]]
"""Calls a function of the node that is looked at: module, function, arguments."""

_UNDEF: Final = Atom("undef")
_SYN_TABLES: Final = {
    "syn_pg_": ("syn_groups", "syn_pg_by_name_"),
    "syn_registry_": ("syn_registry", "syn_registry_by_name_"),
}


@attrs.frozen
class Scope:
    """One scope as seen from a node.

    Attributes:
        kind: ``pg``, ``syn_groups`` or ``syn_registry``.
        name: the scope.
        groups: group (or registered name) -> members with metadata.
    """

    kind: str
    name: str
    groups: list[tuple[Term, list[tuple[Pid, Term]]]]


@attrs.frozen
class Member:
    """A member of a group.

    Attributes:
        missing: the nodes that run the scope and do not know of it.
    """

    pid: Pid
    meta: Term
    missing: list[str]


@attrs.frozen
class Merged:
    """One scope as seen from all nodes that run it."""

    kind: str
    name: str
    nodes: list[str]
    groups: list[tuple[Term, list[Member]]]


async def overview(ask: Ask) -> list[Scope]:
    """The scopes, groups and members that a node knows of.

    Raises:
        RemoteException: it cannot be asked.
    """
    try:
        answer = await ask("pyglyn", "groups")
    except (RemoteException, ErlangError) as error:
        if error.reason is not _UNDEF:
            raise
    else:
        return [Scope(kind.name, name.decode(), groups) for kind, name, groups in answer]
    try:
        await ask("pyglyn", "log_level")
    except (RemoteException, ErlangError) as error:
        if error.reason is not _UNDEF:
            raise
        return await of_beam(ask)
    return []  # a pyglyn node that runs no scope


async def of_beam(ask: Ask) -> list[Scope]:
    """The scopes of a BEAM node."""
    names = sorted(str(name) for name in await ask("erlang", "registered"))
    found = await asyncio.gather(*(_scopes_named(ask, name) for name in names))
    return [scope for scopes in found for scope in scopes]


async def _scopes_named(ask: Ask, name: str) -> list[Scope]:
    """What a registered process of a BEAM node is a scope of."""
    for prefix, (kind, table) in _SYN_TABLES.items():
        if name.startswith(prefix):
            scope = name.removeprefix(prefix)
            entries = await ask("ets", "tab2list", Atom(table + scope))
            return [Scope(kind, scope, _syn_groups(kind, entries))]
    if not await _is_pg_scope(ask, name):
        return []
    groups = await ask("pg", "which_groups", Atom(name))
    members = await asyncio.gather(*(ask("pg", "get_members", Atom(name), group) for group in groups))
    listed: Any = [(g, [(pid, UNDEFINED) for pid in m]) for g, m in zip(groups, members, strict=True)]
    return [Scope("pg", name, listed)]


async def _is_pg_scope(ask: Ask, name: str) -> bool:
    pid = await ask("erlang", "whereis", Atom(name))
    if not isinstance(pid, Pid):
        return False
    info = await ask("erlang", "process_info", pid, Atom("dictionary"))
    pairs = info[1] if isinstance(info, tuple) else []
    return (Atom("$initial_call"), (Atom("pg"), Atom("init"), 1)) in pairs


def _syn_groups(kind: str, entries: list[Any]) -> list[tuple[Term, list[tuple[Pid, Term]]]]:
    """Rows of syn's tables: ``{{Group, Pid}, Meta, …}`` for groups, ``{Name, Pid, Meta, …}`` for names."""
    groups: dict[str, tuple[Term, list[tuple[Pid, Term]]]] = {}
    for entry in entries:
        (name, pid), meta = entry[:2] if kind == "syn_groups" else (entry[:2], entry[2])
        groups.setdefault(etf.text.format(name), (name, []))[1].append((pid, meta))
    return [groups[key] for key in sorted(groups)]


def merge(found: Iterable[tuple[str, list[Scope]]]) -> list[Merged]:
    """Put together what several nodes see.

    Args:
        found: nodes, and the scopes that each of them runs.
    """
    scopes: dict[tuple[str, str], dict[str, Scope]] = {}
    for node, seen in found:
        for scope in seen:
            scopes.setdefault((scope.kind, scope.name), {})[node] = scope
    return [_merged(kind, name, by_node) for (kind, name), by_node in sorted(scopes.items())]


def _merged(kind: str, name: str, by_node: dict[str, Scope]) -> Merged:
    names: dict[str, Term] = {}
    seen_by: dict[str, dict[tuple[str, str], tuple[Pid, Term, set[str]]]] = {}
    for node, scope in by_node.items():
        for group, members in scope.groups:
            key = etf.text.format(group)
            names[key] = group
            known = seen_by.setdefault(key, {})
            for pid, meta in members:
                member = (f"{pid} {pid.creation}", etf.text.format(meta))
                known.setdefault(member, (pid, meta, set()))[2].add(node)
    groups = [
        (
            names[key],
            [
                Member(pid, meta, sorted(by_node.keys() - seen))
                for _, (pid, meta, seen) in sorted(seen_by[key].items(), key=lambda item: item[0])
            ],
        )
        for key in sorted(names)
    ]
    return Merged(kind, name, sorted(by_node), groups)
