"""``code``, ``function_exported/3``, ``ets``: which modules there are, and that no others come. Layer: node.

A module is loaded when the node answers for it. BEAM code is refused in words: observer_cli and recon send
theirs to the node that they look at, and can do nothing with one that runs none.
"""

from __future__ import annotations

from typing import Final

from pyglyn.etf import Atom, Term
from pyglyn.node.census import Census
from pyglyn.node.destinations import name_of
from pyglyn.node.exits import atom_of
from pyglyn.node.exports import Badarg, Exports
from pyglyn.node.hub import Hub
from pyglyn.node.reasons import ERROR, UNDEFINED
from pyglyn.node.tools.terms import Functions, refused

PRELOADED: Final = Atom("preloaded")
_NO_CODE: Final = "this node is a Python program: it runs no BEAM code, so nothing can be loaded into it"
_INITIAL_CALLS: Final = "python"
"""The module in ``initial_call`` of every process; Observer asks for its attributes."""


def names(hub: Hub) -> list[str]:
    """The modules that a node answers for."""
    return sorted({module for table in (hub.exports, hub.builtins) for module, _ in table})


def functions(hub: Hub, census: Census) -> Functions:
    """Those of modules ``code``, ``erlang`` and ``ets``."""

    async def ensure_loaded(module: Term) -> Term:
        return (Atom("module"), module) if name_of(module) in names(hub) else (ERROR, Atom("nofile"))

    async def is_loaded(module: Term) -> Term:
        return (Atom("file"), PRELOADED) if name_of(module) in names(hub) else False

    async def all_loaded() -> Term:
        return [(atom_of(module), PRELOADED) for module in names(hub)]

    async def load_binary(module: Term, file: Term, code: Term) -> Term:
        raise refused(_NO_CODE)

    async def load_file(module: Term) -> Term:
        raise refused(_NO_CODE)

    async def purge(module: Term) -> Term:
        return False

    async def function_exported(module: Term, function: Term, arity: Term) -> Term:
        if name_of(module) is None or name_of(function) is None or not isinstance(arity, int):
            raise Badarg("function_exported: a module, a function, an arity")
        return any(table.find(module, function, arity) for table in (hub.exports, hub.builtins))

    async def ets_all() -> Term:
        return []

    async def ets_info(table: Term, item: Term = None) -> Term:
        return UNDEFINED

    async def ets_match(table: Term, pattern: Term, limit: Term = None) -> Term:
        raise Badarg("there are no tables here")

    async def ets_new(name: Term, options: Term) -> Term:
        raise refused("this node has no tables of ETS")

    return {
        ("code", "ensure_loaded"): ensure_loaded,
        ("code", "is_loaded"): is_loaded,
        ("code", "all_loaded"): all_loaded,
        ("code", "load_binary"): load_binary,
        ("code", "load_file"): load_file,
        ("code", "purge"): purge,
        ("erlang", "function_exported"): function_exported,
        ("ets", "all"): ets_all,
        ("ets", "info"): ets_info,
        ("ets", "match"): ets_match,
        ("ets", "new"): ets_new,
    }


def add_code(table: Exports) -> None:
    """Have every module of the table, and that of initial calls, tell of itself by ``module_info/1``."""
    modules = {_INITIAL_CALLS, *(module for module, _ in table)}

    async def module_info(item: Term) -> Term:
        if item in (Atom("attributes"), Atom("exports"), Atom("functions"), Atom("compile")):
            return []
        raise Badarg("module_info: attributes, compile, exports or functions")

    for module in sorted(modules):
        table.add(module, module_info)
