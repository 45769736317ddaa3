"""Supervision trees of a node: started, watched and stopped by the hub. Layer: supervision.

Above all trees of a node stands one supervisor in the hub itself, ``pyglyn_sup``. A tree that ends is not
started again: it has used up its restarts, and whoever started it decides what that means.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import attrs

from pyglyn import etf
from pyglyn.errors import CallFailed, ChildStartError, TreeEnded
from pyglyn.etf import Atom, ImproperList, Pid, Term
from pyglyn.node import Node
from pyglyn.node.calls import ALIAS, GEN_CALL
from pyglyn.node.exits import reason_text
from pyglyn.node.gen_server import run_server
from pyglyn.node.hub import Application
from pyglyn.node.process import Process
from pyglyn.node.reasons import SHUTDOWN
from pyglyn.node.worker import HubAddress
from pyglyn.supervision.child import run_child
from pyglyn.supervision.declaration import supervisor
from pyglyn.supervision.exported import EXPORTED
from pyglyn.supervision.os.processes import OsProcesses
from pyglyn.supervision.place import Place
from pyglyn.supervision.running import Running
from pyglyn.supervision.server import ROOT, SupervisorServer
from pyglyn.supervision.spec import CallableStart, ChildSpec, Supervisor, SupervisorStart
from pyglyn.supervision.words import Restart

OnEnd = Callable[[Term], None]
"""Called with the exit reason of a tree that ended by itself."""


class RootServer(SupervisorServer):
    """The supervisor in the hub; its children are the trees."""

    async def init(self, declaration: Supervisor, place: Place, trees: Trees | None = None) -> None:
        assert trees is not None
        self.trees = trees
        await super().init(declaration, place)

    def child_ended(self, run: Running, reason: Term) -> None:
        applications = self.trees.node.hub.applications
        for name in [name for name, each in applications.items() if each.top == run.pid]:
            del applications[name]
        on_end = self.trees.on_end.pop(etf.encode(run.spec.id), None)
        if not self.trees.stopping and not run.stopped:
            self.trees.ended(run.spec.id, reason, on_end)

    def _note_forced(self, title: str) -> None:
        self.trees.forced += 1


class Trees:
    """The supervision trees of one node.

    Attributes:
        on_end: by encoded id, what to call when that tree has ended by itself.
        forced: how many children of all trees did not stop in time and were killed.
        stopping: the node is about to stop.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self.on_end: dict[bytes, OnEnd | None] = {}
        self.forced = 0
        self.stopping = False
        self._numbers = itertools.count(1)
        self._root: Process | None = None
        self._preparing = asyncio.Lock()
        self._place: Place | None = None

    async def prepare(self) -> Process:
        """Start the supervisor above all trees; nothing happens when it runs."""
        async with self._preparing:
            if self._root is None:
                self._root = await self._prepare()
            return self._root

    async def _prepare(self) -> Process:
        node = self.node
        EXPORTED.check()
        await node.workers.start()
        if self._place is None:
            address = HubAddress(node.workers.address, node.workers.token)
            os_processes = OsProcesses(owns_orphans=False)
            self._place = Place(os_processes, address, node.workers.exited, run_child)
            node.on_info.append(self._place.rows)
            node.before_stop.append(self.stop)
        declaration = Supervisor("one_for_one", intensity=0, name=ROOT)
        root = node.runtime.spawn(
            run_server,
            (RootServer, (declaration, self._place), {"trees": self}),
            name=ROOT,
            label="supervisor",
        )
        root.parent = node.system.pid
        root.on_end.append(self._root_ended)
        return root

    def _root_ended(self, reason: Term) -> None:
        """Somebody killed the supervisor above all trees: they have ended, and a new tree needs a new one."""
        if self.stopping:
            return
        assert self._root is not None
        assert self._place is not None
        self._place.abandon(self._root.pid)
        self._root = None
        ended, self.on_end = list(self.on_end.items()), {}
        for key, on_end in ended:
            self.ended(etf.decode(key), reason, on_end)

    def _add_application(self, spec: ChildSpec, pid: Pid) -> None:
        names = [name for name, owner in self.node.runtime.names.items() if owner == pid]
        name = names[0] if names else str(spec.id)
        application = Application(name, f"The supervision tree {spec.id!s}", _module_of(spec), pid)
        self.node.hub.applications[name] = application

    def ended(self, id: Term, reason: Term, on_end: OnEnd | None) -> None:
        """A tree has ended by itself: tell who started it, or else have the node fail."""
        if on_end is not None:
            on_end(reason)
        else:
            text = f"the supervision tree {id!s} has ended by itself: {reason_text(reason)}"
            self.node.fail(TreeEnded(text, tree=id, reason=reason))

    async def start(self, spec: ChildSpec, on_end: OnEnd | None) -> Pid:
        """Start a tree; see `start`."""
        root = await self.prepare()
        if spec.default_id:
            spec = attrs.evolve(spec, id=Atom(f"tree_{next(self._numbers)}"))
        spec = attrs.evolve(spec, restart=Restart.TEMPORARY)
        key = etf.encode(spec.id)
        self.on_end[key] = on_end
        match await self._call(root, (Atom("start_child"), spec)):
            case (Atom("ok"), Pid() as pid):
                self._add_application(spec, pid)
                return pid
            case (_, reason):
                self.on_end.pop(key, None)
                cause = reason[0] if isinstance(reason, tuple) and len(reason) == 2 else reason
                text = f"{spec.id!s} did not start: {etf.text.format(cause)}"
                raise ChildStartError(text, child_id=spec.id, reason=cause)
        raise AssertionError("not an answer of a supervisor")

    async def _call(self, root: Process, request: Any) -> Any:
        """A call within this OS process: the request has Python objects in it."""
        system = self.node.system
        ref, future = system.expect_reply(root.pid)
        try:
            root.put((GEN_CALL, (system.pid, ImproperList((ALIAS,), ref)), request))
            answered, value = await future
        finally:
            system.forget_reply(ref)
        if not answered:
            raise CallFailed("the node is stopping", reason=value)
        return value

    async def stop(self) -> None:
        """Stop all trees, the last one first, each with the time its children have."""
        self.stopping = True
        root = self._root
        if root is None:
            return
        if root.alive:
            ended: asyncio.Future[Term] = asyncio.get_running_loop().create_future()
            root.on_end.append(ended.set_result)
            self.node.system.exit(root.pid, SHUTDOWN)
            await ended
        if self._place is not None:
            await self._place.os_processes.close()


def _module_of(spec: ChildSpec) -> str:
    """Where the code of a tree is: that of its declaration, or else of its first child."""
    match spec.start:
        case SupervisorStart(Supervisor() as declared):
            if type(declared) is not Supervisor:
                return type(declared).__module__
            return next((found for child in declared.children if (found := _module_of(child))), "")
        case SupervisorStart(target) | CallableStart(target):
            return str(getattr(target, "__module__", ""))
        case _:
            return ""


def trees(node: Node) -> Trees:
    """The supervision trees of a node that has been started."""
    return node.runtime.belongings.get(Trees, lambda: Trees(node))


async def start(
    node: Node,
    target: Supervisor | ChildSpec | Callable[..., Supervisor],
    *args: Any,
    name: str | None = None,
    on_end: OnEnd | None = None,
) -> Pid:
    """Start a supervision tree on a node and wait until all its children are ready.

    Args:
        target: a `Supervisor`, a class or function that makes one from ``args``, or a child specification,
            which then is the only child.
        name: what the supervisor is registered as; by default what its declaration says.
        on_end: called with the reason when the tree ends by itself, because it gave up or shut itself down.
            Without it, ``node.run()`` raises `TreeEnded` then.

    Raises:
        ChildStartError: a child did not start, and those before it are stopped again; ``reason`` says why,
            as OTP's ``{shutdown, {failed_to_start_child, Id, Reason}}``.
    """
    if isinstance(target, ChildSpec):
        target = Supervisor().add(target)
    return await trees(node).start(supervisor(target, *args, name=name), on_end)
