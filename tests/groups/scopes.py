"""Scope processes on simulated nodes: ours around the real machines, and models of the BEAM's.

The models follow pg.erl and syn's sources clause by clause; what would crash the Erlang process raises
``Crash`` here, so that a test in which we kill a peer fails.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from pyglyn.etf import Atom, Pid
from pyglyn.groups import effects as fx
from pyglyn.groups.pg_state import PgState
from pyglyn.groups.syn_pg_state import SynGroups
from pyglyn.groups.syn_registry_state import SynRegistry
from tests.groups.simulation import Actor, Node

CONFLICT = Atom("syn_conflict_resolution")
NORMAL = Atom("normal")
UNDEFINED = Atom("undefined")
V3 = Atom("3.0")


class Crash(AssertionError):
    """A message has crashed an Erlang process."""


class OurScope(Actor):
    """Carries out the effects of one of our machines."""

    def __init__(self, node: Node, scope: str) -> None:
        super().__init__(node)
        self.scope = scope
        self.refs: dict[Any, Any] = {}
        self.events: list[fx.Event] = []
        self.rejected: list[fx.Rejected] = []
        self.replies: list[tuple[Any, Any]] = []
        self.state = self.make_state()
        self.name = str(self.state.discovery.name)

    def make_state(self) -> Any:
        raise NotImplementedError

    def start(self) -> None:
        for other in self.node.net.nodes:
            if other != self.node.name and self.node.net.is_up(self.node.name, other):
                self.perform(self.state.handle_node_up(other))

    def next_deadline(self) -> float | None:
        return self.state.next_deadline()

    def handle_timeout(self) -> None:
        self.perform(self.state.handle_timeout(self.node.net.now))

    def handle(self, kind: str, value: Any) -> None:
        now = self.node.net.now
        if kind == "message":
            self.perform(self.take(value, now))
        elif kind == "down":
            ref, target, reason = value
            if self.refs.get(target) == ref:
                del self.refs[target]
                self.perform(self.state.handle_down(target, reason, now))
        elif kind == "nodeup":
            self.perform(self.state.handle_node_up(value))
        elif kind == "nodedown":
            self.perform(self.state.handle_node_down(value))
        elif kind == "watch":
            self.perform(self.state.handle_watch(*value, now))

    def take(self, message: Any, now: float) -> list[fx.Effect]:
        return self.state.handle_message(message, now)

    def perform(self, effects: list[fx.Effect]) -> None:
        for effect in effects:
            match effect:
                case fx.Send(to, message):
                    self.node.send(to, message)
                case fx.Monitor(target):
                    assert target not in self.refs, "a second monitor on the same target"
                    self.refs[target] = self.node.monitor(self.pid, target)
                case fx.Demonitor(target):
                    self.node.demonitor(self.refs.pop(target))
                case fx.Watch(name, node):
                    self.node.watch(str(name), node, self.pid)
                case fx.SendExit(pid, reason):
                    self.node.exit(pid, reason)
                case fx.CheckWatched(pid):
                    if not self.node.is_watched_by(self.pid, pid):
                        self.perform(self.state.handle_unwatched(pid, self.node.net.now))
                case fx.AnswerCall(caller, reply):
                    self.replies.append((caller, reply))
                case fx.Rejected():
                    self.rejected.append(effect)
                case fx.Event():
                    self.events.append(effect)


class OurPg(OurScope):
    def make_state(self) -> PgState:
        return PgState(self.pid, self.scope, self.node.make_ref)

    def join(self, group: Any, pids: Any) -> None:
        self.perform(self.state.join(group, pids))

    def leave(self, group: Any, pids: Any) -> None:
        self.perform(self.state.leave(group, pids)[1])

    def view(self) -> dict[Any, Counter[Pid]]:
        return {g: Counter(self.state.get_members(g)) for g in self.state.which_groups()}

    def local(self) -> dict[Any, list[Pid]]:
        return {g: self.state.get_local_members(g) for g in self.state.which_local_groups()}


class BeamPg(Actor):
    """pg.erl of OTP 25."""

    def __init__(self, node: Node, scope: str) -> None:
        super().__init__(node)
        self.name = scope
        self.members: dict[Pid, tuple[Any, list[Any]]] = {}
        self.remote: dict[Pid, tuple[Any, dict[Any, list[Pid]]]] = {}

    def start(self) -> None:
        net, own = self.node.net, self.node.name
        for other in net.nodes:
            if other != own and net.is_up(own, other) and net.is_visible(own, other):
                self.node.send((Atom(self.name), other), (Atom("discover"), self.pid))

    def view(self) -> dict[Any, Counter[Pid]]:
        found: dict[Any, Counter[Pid]] = {g: Counter(pids) for g, pids in self.local().items()}
        for _, groups in self.remote.values():
            for group, pids in groups.items():
                found.setdefault(group, Counter()).update(pids)
        return found

    def local(self) -> dict[Any, list[Pid]]:
        found: dict[Any, list[Pid]] = {}
        for pid, (_, groups) in self.members.items():
            for group in groups:
                found.setdefault(group, []).append(pid)
        return found

    def join(self, group: Any, pids: Any) -> None:
        for pid in pids if isinstance(pids, list) else [pids]:
            if pid in self.members:
                self.members[pid][1].insert(0, group)
            else:
                self.members[pid] = (self.node.monitor(self.pid, pid), [group])
        self.broadcast((Atom("join"), self.pid, group, pids))

    def leave(self, group: Any, pids: Any) -> None:
        changed = False
        for pid in pids if isinstance(pids, list) else [pids]:
            if pid in self.members and group in self.members[pid][1]:
                changed = True
                self.members[pid][1].remove(group)
                if not self.members[pid][1]:
                    self.node.demonitor(self.members.pop(pid)[0])
        if changed:
            self.broadcast((Atom("leave"), self.pid, pids, [group]))

    def broadcast(self, message: Any) -> None:
        for peer in self.remote:
            self.node.send(peer, message)

    def handle(self, kind: str, value: Any) -> None:
        if kind == "message":
            self.on_message(value)
        elif kind == "down":
            self.on_down(*value)
        elif kind == "nodeup" and self.node.net.is_visible(self.node.name, value):
            self.node.send((Atom(self.name), value), (Atom("discover"), self.pid))

    def on_message(self, message: Any) -> None:
        match message:
            case (Atom("discover"), Pid() as peer):
                groups = list(self.local().items())
                self.node.send(peer, (Atom("$gen_cast"), (Atom("sync"), self.pid, groups)))
                if peer not in self.remote:
                    self.remote[peer] = (self.node.monitor(self.pid, peer), {})
                    self.node.send(peer, (Atom("discover"), self.pid))
            case (Atom("$gen_cast"), (Atom("sync"), Pid() as peer, list(groups))):
                ref = self.remote[peer][0] if peer in self.remote else self.node.monitor(self.pid, peer)
                self.remote[peer] = (ref, {group: list(pids) for group, pids in groups})
            case (Atom("join"), Pid() as peer, group, pids):
                if peer in self.remote:
                    joined = self.remote[peer][1].setdefault(group, [])
                    joined += pids if isinstance(pids, list) else [pids]
            case (Atom("leave"), Pid() as peer, pids, list(groups)):
                if peer in self.remote:
                    self.on_leave(self.remote[peer][1], pids, groups)
            case _:
                raise Crash(f"pg: badarg: {message!r}")

    def on_leave(self, known: dict[Any, list[Pid]], pids: Any, groups: list[Any]) -> None:
        for group in groups:
            if group not in known:
                raise Crash(f"pg: badkey {group!r} in a leave")
            for pid in pids if isinstance(pids, list) else [pids]:
                if pid in known[group]:
                    known[group].remove(pid)
            if not known[group]:
                del known[group]

    def on_down(self, ref: Any, pid: Pid, reason: Any) -> None:
        if pid.node == self.node.name:
            if pid in self.members and self.members[pid][0] == ref:
                _, groups = self.members.pop(pid)
                self.broadcast((Atom("leave"), self.pid, pid, groups))
        elif pid in self.remote and self.remote[pid][0] == ref:
            del self.remote[pid]


# --- syn ---------------------------------------------------------------------------------------------


class OurSyn(OurScope):
    def take(self, message: Any, now: float) -> list[fx.Effect]:
        return self.state.handle_message(message, now, self.node.net.system_ns(self.node.name))

    def is_alive(self, pid: Pid) -> bool:
        return pid in self.node.actors

    def ns(self) -> int:
        return self.node.net.system_ns(self.node.name)

    def restore(self, entries: list[Any]) -> None:
        self.perform(self.state.restore(entries))

    def entries(self) -> list[Any]:
        return self.state.local_entries()


class OurSynGroups(OurSyn):
    def make_state(self) -> SynGroups:
        return SynGroups(self.pid, self.scope, is_alive=self.is_alive)

    def join(self, group: Any, pid: Pid, meta: Any) -> Any:
        reply, effects = self.state.join(group, pid, meta, self.ns())
        self.perform(effects)
        return reply

    def leave(self, group: Any, pid: Pid) -> None:
        self.perform(self.state.leave(group, pid)[1])

    def view(self) -> dict[Any, Any]:
        return {(g, pid): meta for g in self.state.group_names() for pid, meta in self.state.members(g)}


class OurSynRegistry(OurSyn):
    def make_state(self) -> SynRegistry:
        return SynRegistry(self.pid, self.scope, is_alive=self.is_alive)

    def register(self, name: Any, pid: Pid, meta: Any) -> Any:
        reply, effects = self.state.register(name, pid, meta, self.ns())
        self.perform(effects)
        return reply

    def unregister(self, name: Any) -> None:
        found = self.state.lookup(name)
        if found is not None and found[0].node == self.node.name:
            self.perform(self.state.unregister(name, found[0])[1])

    def view(self) -> dict[Any, Any]:
        return {name: self.state.lookup(name) for name in self.state.names()}


class Sender(Actor):
    """syn's separate sending process."""

    def handle(self, kind: str, value: Any) -> None:
        if kind == "message":
            for to, message in value:
                self.node.send(to, message)


class BeamSyn(Actor):
    """syn_gen_scope.erl, of 3.3.0 (the scope process sends its acks itself) or 3.4.1 (all through one)."""

    handler = ""

    def __init__(self, node: Node, scope: str, version: tuple[int, ...] = (3, 4, 1)) -> None:
        super().__init__(node)
        self.version = version
        self.name = f"{self.handler}_{scope}"
        self.known: dict[str, Pid] = {}
        self.times = 0
        self.sender = node.spawn(Sender(node))

    def start(self) -> None:
        net, own = self.node.net, self.node.name
        for other in net.nodes:
            if other != own and net.is_up(own, other) and net.is_visible(own, other):
                self.node.send((Atom(self.name), other), (V3, Atom("discover"), self.pid))

    def ns(self) -> int:
        self.times = max(self.times + 1, self.node.net.system_ns(self.node.name))
        return self.times

    def broadcast(self, message: Any, *excluded: str) -> None:
        to = [(Atom(self.name), node) for node in self.known if node not in excluded]
        self.node.send(self.sender.pid, [(each, message) for each in to])

    def send_to_node(self, node: str, message: Any) -> None:
        if self.version < (3, 4):
            self.node.send((Atom(self.name), node), message)
        else:
            self.node.send(self.sender.pid, [((Atom(self.name), node), message)])

    def learn(self, pid: Pid) -> None:
        self.node.monitor(self.pid, pid)
        self.known[pid.node] = pid

    def handle(self, kind: str, value: Any) -> None:
        if kind == "down":
            self.on_down(*value)
        elif kind == "nodeup" and self.node.net.is_visible(self.node.name, value):
            self.send_to_node(value, (V3, Atom("discover"), self.pid))
        elif kind == "message":
            self.on_message(value)

    def on_message(self, message: Any) -> None:
        match message:
            case (Atom("3.0"), Atom("discover"), Pid() as pid):
                self.send_to_node(pid.node, (V3, Atom("ack_sync"), self.pid, self.entries()))
                if pid.node not in self.known:
                    self.learn(pid)
            case (Atom("3.0"), Atom("ack_sync"), Pid() as pid, list(data)):
                for entry in data:
                    self.merge(*entry)
                if pid.node not in self.known:
                    self.send_to_node(pid.node, (V3, Atom("ack_sync"), self.pid, self.entries()))
                    self.learn(pid)
            case (Atom("$gen_cast"), _):
                raise Crash("syn: function_clause in handle_cast")
            case _:
                self.on_change(message)

    def on_down(self, ref: Any, pid: Pid, reason: Any) -> None:
        if pid.node == self.node.name:
            self.ended(pid, reason)
        elif pid.node in self.known:
            if self.known[pid.node] != pid:
                raise Crash("syn: case_clause, a DOWN of another scope pid than the known one")
            del self.known[pid.node]
            self.purge(pid.node)

    def entries(self) -> list[Any]:
        raise NotImplementedError

    def restore(self, entries: list[Any]) -> None:
        raise NotImplementedError

    def merge(self, name: Any, pid: Pid, meta: Any, time: int) -> None:
        raise NotImplementedError

    def on_change(self, message: Any) -> None:
        raise NotImplementedError

    def ended(self, pid: Pid, reason: Any) -> None:
        raise NotImplementedError

    def purge(self, node: str) -> None:
        raise NotImplementedError


class BeamSynGroups(BeamSyn):
    """syn_pg.erl."""

    handler = "syn_pg"

    def __init__(self, node: Node, scope: str, version: tuple[int, ...] = (3, 4, 1)) -> None:
        super().__init__(node, scope, version)
        self.table: dict[tuple[Any, Pid], tuple[Any, int]] = {}

    def view(self) -> dict[Any, Any]:
        return {key: meta for key, (meta, _) in self.table.items()}

    def entries(self) -> list[Any]:
        own = self.node.name
        return [(g, pid, meta, time) for (g, pid), (meta, time) in self.table.items() if pid.node == own]

    def restore(self, entries: list[Any]) -> None:
        for group, pid, meta, time in entries:
            if pid in self.node.actors:
                self.node.monitor(self.pid, pid)
                self.table[group, pid] = (meta, time)

    def join(self, group: Any, pid: Pid, meta: Any) -> None:
        if pid not in self.node.actors or self.table.get((group, pid), (None, 0))[0] == meta:
            return
        time = self.ns()
        if not any(member == pid for _, member in self.table):
            self.node.monitor(self.pid, pid)
        self.table[group, pid] = (meta, time)
        self.broadcast((V3, Atom("sync_join"), group, pid, meta, time, NORMAL))

    def leave(self, group: Any, pid: Pid) -> None:
        if (group, pid) in self.table:
            meta, _ = self.table.pop((group, pid))
            self.broadcast((V3, Atom("sync_leave"), group, pid, meta, NORMAL))

    def merge(self, name: Any, pid: Pid, meta: Any, time: int) -> None:
        known = self.table.get((name, pid))
        if known is None or time > known[1]:
            self.table[name, pid] = (meta, time)

    def on_change(self, message: Any) -> None:
        match message:
            case (_, Atom("sync_join"), group, pid, meta, time, _):
                if pid.node in self.known:
                    self.merge(group, pid, meta, time)
            case (_, Atom("sync_leave"), group, pid, _, _):
                self.table.pop((group, pid), None)

    def ended(self, pid: Pid, reason: Any) -> None:
        for group, member in list(self.table):
            if member == pid:
                meta, _ = self.table.pop((group, pid))
                self.broadcast((V3, Atom("sync_leave"), group, pid, meta, reason))

    def purge(self, node: str) -> None:
        self.table = {key: entry for key, entry in self.table.items() if key[1].node != node}


class BeamSynRegistry(BeamSyn):
    """syn_registry.erl."""

    handler = "syn_registry"

    def __init__(self, node: Node, scope: str, version: tuple[int, ...] = (3, 4, 1)) -> None:
        super().__init__(node, scope, version)
        self.table: dict[Any, tuple[Pid, Any, int]] = {}

    def view(self) -> dict[Any, Any]:
        return {name: (pid, meta) for name, (pid, meta, _) in self.table.items()}

    def entries(self) -> list[Any]:
        own = self.node.name
        return [(n, pid, meta, time) for n, (pid, meta, time) in self.table.items() if pid.node == own]

    def restore(self, entries: list[Any]) -> None:
        for name, pid, meta, time in entries:
            if pid in self.node.actors:
                self.node.monitor(self.pid, pid)
                self.table[name] = (pid, meta, time)

    def register(self, name: Any, pid: Pid, meta: Any) -> None:
        known = self.table.get(name)
        if pid not in self.node.actors or (known is not None and (known[0] != pid or known[1] == meta)):
            return
        time = self.ns()
        if not any(entry[0] == pid for entry in self.table.values()):
            self.node.monitor(self.pid, pid)
        self.table[name] = (pid, meta, time)
        self.broadcast((V3, Atom("sync_register"), name, pid, meta, time, NORMAL))

    def unregister(self, name: Any) -> None:
        known = self.table.get(name)
        if known is not None and known[0].node == self.node.name:
            del self.table[name]
            self.broadcast((V3, Atom("sync_unregister"), name, known[0], known[1], NORMAL))

    def merge(self, name: Any, pid: Pid, meta: Any, time: int) -> None:
        known = self.table.get(name)
        if known is None or known[0] == pid:
            self.table[name] = (pid, meta, time)
        elif known[0].node == self.node.name:
            self.resolve(name, (pid, meta, time), known)
        elif known[2] < time:
            self.table[name] = (pid, meta, time)

    def resolve(self, name: Any, remote: tuple[Pid, Any, int], local: tuple[Pid, Any, int]) -> None:
        if remote[2] == local[2] and self.version >= (3, 4, 1):
            keep_remote = remote[0].sort_key() > local[0].sort_key()
        else:
            keep_remote = remote[2] > local[2]
        if keep_remote:
            self.table[name] = remote
            self.node.exit(local[0], (Atom("syn_resolve_kill"), name, local[1]))
            if self.version >= (3, 4):
                self.broadcast((V3, Atom("sync_unregister"), name, local[0], local[1], CONFLICT))
        else:
            time = self.ns()
            self.table[name] = (local[0], local[1], time)
            self.broadcast((V3, Atom("sync_register"), name, local[0], local[1], time, CONFLICT))

    def on_change(self, message: Any) -> None:
        match message:
            case (_, Atom("sync_register"), name, pid, meta, time, _):
                if pid.node in self.known:
                    self.merge(name, pid, meta, time)
            case (_, Atom("sync_unregister"), name, pid, _, _):
                if name in self.table and self.table[name][0] == pid:
                    del self.table[name]

    def ended(self, pid: Pid, reason: Any) -> None:
        for name, (owner, meta, _) in list(self.table.items()):
            if owner == pid:
                del self.table[name]
                self.broadcast((V3, Atom("sync_unregister"), name, pid, meta, reason))

    def purge(self, node: str) -> None:
        self.table = {name: entry for name, entry in self.table.items() if entry[0].node != node}
