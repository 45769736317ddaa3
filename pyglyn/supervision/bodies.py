"""What the main process of a child runs: an async function or a `GenServer`. Layer: supervision."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from pyglyn.errors import NameTaken
from pyglyn.etf import Atom
from pyglyn.node.exits import Exit
from pyglyn.node.gen_server import GenServer, Ignore, run_server
from pyglyn.node.process import ACK, Process
from pyglyn.supervision.spec import CallableStart


def is_server(target: object) -> bool:
    """Whether a child is a `GenServer` class."""
    return inspect.isclass(target) and issubclass(target, GenServer)


def is_blocking(target: Callable[..., Any]) -> bool:
    """Whether a child is a plain function, which has its OS process to itself."""
    if is_server(target):
        return False
    called: object = target
    if not inspect.isroutine(target):
        called = getattr(target, "func", None) or type(target).__call__
    return not inspect.iscoroutinefunction(target) and not inspect.iscoroutinefunction(called)


class Started(asyncio.Future[Any]):
    """Resolved when a server's ``init`` is through; tells the parent in that very moment."""

    me: Process

    def set_result(self, error: Any) -> None:
        super().set_result(error)
        if error is None:
            self.me.ready()
        elif isinstance(error, Ignore):
            assert self.me.parent is not None
            self.me.tell_parent((ACK, self.me.pid, Atom("ignore")))


def run_callable(me: Process, start: CallableStart, waits: bool) -> Awaitable[None]:
    """The body of a child that is an async function or a `GenServer`.

    Args:
        waits: a function is started when it calls ``me.ready()``, not at once.
    """
    target: Any = start.target
    if is_server(target):
        started = Started()
        started.me = me
        return run_server(me, target, start.args, dict(start.kwargs), started, me.parent)
    if not waits:
        me.ready()
    made: Awaitable[None] = target(me, *start.args, **start.kwargs)
    return made


async def take_name(me: Process, name: str | None) -> None:
    """Register the child's name.

    Raises:
        Exit: ``{already_started, Pid}`` when another process has it, as from ``gen_server:start``.
    """
    if name is None:
        return
    try:
        await me.register(name)
    except NameTaken:
        raise Exit((Atom("already_started"), await me.whereis(name) or Atom("undefined"))) from None
