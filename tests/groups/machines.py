"""Names, and machines with one peer, for the tests of the rules of groups."""

from __future__ import annotations

from typing import Any

from pyglyn.etf import Atom, Pid, Reference
from pyglyn.groups import effects as fx
from pyglyn.groups.pg_state import PgState
from pyglyn.groups.syn_pg_state import SynGroups
from pyglyn.groups.syn_registry_state import SynRegistry

OWN, PEER = "own@h", "peer@h"
SELF = Pid(OWN, 1, 0, 1)
THEM = Pid(PEER, 1, 0, 1)
A, B = Pid(OWN, 10, 0, 1), Pid(OWN, 11, 0, 1)
X, Y = Pid(PEER, 10, 0, 1), Pid(PEER, 11, 0, 1)
SYNC, DISCOVER, JOIN, LEAVE = Atom("sync"), Atom("discover"), Atom("join"), Atom("leave")
CAST, CALL = Atom("$gen_cast"), Atom("$gen_call")
V3, NORMAL, UNDEFINED = Atom("3.0"), Atom("normal"), Atom("undefined")
NOPROC, NOCONNECTION = Atom("noproc"), Atom("noconnection")


def sent(effects: list[fx.Effect]) -> list[Any]:
    return [effect.message for effect in effects if isinstance(effect, fx.Send)]


def events(effects: list[fx.Effect]) -> list[tuple[str, Any, Any, Any]]:
    return [(e.kind, e.name, e.pid, e.reason) for e in effects if isinstance(e, fx.Event)]


def pg() -> PgState:
    counter = iter(range(1, 1000))
    return PgState(SELF, "scope", lambda: Reference(OWN, 1, (next(counter), 0, 0)))


def groups() -> SynGroups:
    state = SynGroups(SELF, "s")
    state.handle_node_up(PEER)
    return state


def ack(*entries: Any, pid: Pid = THEM) -> Any:
    return (V3, Atom("ack_sync"), pid, list(entries))


def registry(**arguments: Any) -> SynRegistry:
    state = SynRegistry(SELF, "s", **arguments)
    state.handle_node_up(PEER)
    return state
