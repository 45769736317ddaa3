"""A runtime without a node around it: what leaves it is noted, and what a peer would send is put into it."""

from __future__ import annotations

from typing import Any

import attrs

from pyglyn import etf
from pyglyn.dist.control import Control
from pyglyn.etf import Atom, Pid, Reference, Term
from pyglyn.net import LocalNode, Peers
from pyglyn.node import Process, Settings
from pyglyn.node.exports import Exports
from pyglyn.node.hub import Hub
from pyglyn.node.runtime import Identity, Parts, Runtime

NODE, PEER = "py@h", "erl@h"
CREATION = 7
THEM = Pid(PEER, 90, 0, 3)
REF = Reference(PEER, 3, (1, 0, 0))
NOPROC, NOCONNECTION, NORMAL = Atom("noproc"), Atom("noconnection"), Atom("normal")


@attrs.frozen
class Noted:
    """A runtime and what it has sent out: control message, term, node."""

    runtime: Runtime
    out: list[tuple[Control, Term, str]]

    def take(self) -> list[tuple[Control, Term, str]]:
        """What has been sent out since the last look."""
        taken, self.out[:] = list(self.out), []
        return taken

    def receive(self, control: Control, *body: Term) -> None:
        """Let a signal of a peer arrive, with its term if it has one."""
        payload = b"".join(etf.encode_parts(body[0])) if body else None
        self.runtime.receive_encoded(control, payload)

    def process(self, name: str | None = None) -> Process:
        """A process that the test acts as."""
        process = self.runtime.attach("test")
        if name is not None:
            self.runtime.register(name, process.pid)
        return process


def noted(serial: int = 0, **settings: Any) -> Noted:
    """Make a runtime; the event loop has to run."""
    out: list[tuple[Control, Term, str]] = []

    def outlet(control: Control, parts: Parts | None, node: str) -> None:
        body = None if parts is None else etf.decode_bare(b"".join(parts))[0]
        out.append((control, body, node))

    return Noted(Runtime(Identity(NODE, CREATION, serial), outlet, Settings(**settings)), out)


def mailbox(process: Process) -> list[Any]:
    """The messages that wait, without taking them."""
    return process.waiting_messages


def hub(here: Noted | None = None, exports: Exports | None = None) -> Hub:
    """A hub around a runtime, that has not begun to listen or to connect."""
    here = here or noted()
    local = LocalNode(name=NODE, cookie="c", creation=CREATION)
    settings = here.runtime.settings
    peers = Peers(local, _nothing, _nothing, _nothing, settings.net)
    made = Hub(local, settings, peers, exports or Exports())
    made.runtime = here.runtime
    made.begin()
    return made


def _nothing(*_: object) -> None:
    pass
