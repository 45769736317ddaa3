"""What Erlang may start in the tests of ``pyglyn_child``; a module of its own, for fresh interpreters to import."""

from __future__ import annotations

import os
import signal
from typing import Any

from pyglyn import Atom, GenServer, Ignore, Process
from pyglyn.supervision import ChildSpec, Supervisor, export_child, worker


class Probe(GenServer):
    """Tells its OS process, and kills it."""

    async def handle_call(self, request: Any, caller: Any) -> Any:
        return os.getpid()

    async def handle_cast(self, request: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@export_child("erlang_children")
def named(name: Atom) -> ChildSpec:
    """A probe with a registered name."""
    return worker(Probe, name=name.name)


@export_child("erlang_children")
class Trapping(GenServer):
    """Traps exits, says so, and does not care about any that is not its supervisor's."""

    async def init(self) -> None:
        self.me.trap_exit = True
        self.heard: list[Any] = []

    async def handle_call(self, request: Any, caller: Any) -> Any:
        return self.heard

    async def handle_info(self, message: Any) -> None:
        self.heard.append(message)


@export_child("erlang_children")
async def stubborn(me: Process) -> None:
    """Does not stop when asked to."""
    me.trap_exit = True
    while True:
        await me.receive()


@export_child("erlang_children")
class Absent(GenServer):
    """Chooses not to run."""

    async def init(self) -> None:
        raise Ignore


def workers() -> Supervisor:
    """The supervisor on the Python node, which has no child of its own."""
    return Supervisor(name="workers")
