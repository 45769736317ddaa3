"""How programs declare supervision trees: `Supervisor`, `worker`, `supervisor`, `program`, `factory`.

Layer: supervision, pure. After Gleam's ``static_supervisor``, ``factory_supervisor`` and ``supervision``,
with their defaults: 2 restarts in 5 seconds, permanent children, transient ones in a factory.

Not supported: restart intensities over a fraction of a second (OTP counts whole seconds).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pyglyn.etf.terms import Term
from pyglyn.supervision.os.command import ProgramStart, Ready
from pyglyn.supervision.spec import (
    CallableStart,
    ChildSpec,
    Supervisor,
    SupervisorStart,
    identifier,
    registered_name,
)
from pyglyn.supervision.words import (
    Backoff,
    ChildType,
    Isolation,
    Recycle,
    Restart,
    Shutdown,
    ShutdownWord,
    StartMethod,
    Strategy,
    reject,
)


def _described(target: object) -> str:
    """A short name for what is started: a function's or class's own, without its module."""
    text = getattr(target, "__qualname__", None) or type(target).__qualname__
    return str(text).rpartition(".")[2].strip("<>")


def _spec(id: Term, name: str | None, fallback: str, **fields: Any) -> ChildSpec:
    """Build a child specification whose id is the one given, else the name, else a made-up one."""
    made_up = id is None and name is None
    chosen = identifier(id if id is not None else name if name is not None else fallback)
    return ChildSpec(id=chosen, name=registered_name(name), default_id=made_up, **fields)


def worker(
    target: Callable[..., Any],
    *args: Any,
    name: str | None = None,
    id: Term = None,
    restart: Restart | str = Restart.PERMANENT,
    shutdown: Shutdown | str = 5.0,
    isolation: Isolation | str = Isolation.PROCESS,
    start: StartMethod | str | None = None,
    start_timeout: float | None = None,
    heartbeat: float | None = None,
    memory_limit: int | str | None = None,
    recycle: Recycle | None = None,
    backoff: Backoff | None = None,
    handover: bool = False,
    significant: bool = False,
    **kwargs: Any,
) -> ChildSpec:
    """Specify a worker: an async function, a blocking function or a `GenServer` class, with its arguments.

    The other options are `ChildSpec`'s; ``start`` is its ``start_method``.

    Raises:
        SpecificationError: an option makes no sense; the text says which.
    """
    if not callable(target):
        raise reject(f"a worker is a function or a class, got {target!r}", "invalid_target", repr(target))
    if inspect.isasyncgenfunction(target) or inspect.isgeneratorfunction(target):
        raise reject(
            f"{_described(target)} is a generator; a worker is a function", "invalid_target", repr(target)
        )
    return _spec(
        id,
        name,
        _described(target),
        start=CallableStart(target, args, kwargs),
        restart=restart,
        shutdown=shutdown,
        isolation=isolation,
        start_method=start,
        start_timeout=start_timeout,
        heartbeat=heartbeat,
        memory_limit=memory_limit,
        recycle=recycle,
        backoff=backoff,
        handover=handover,
        significant=significant,
    )


def supervisor(
    target: Supervisor | Callable[..., Supervisor],
    *args: Any,
    name: str | None = None,
    id: Term = None,
    restart: Restart | str = Restart.PERMANENT,
    shutdown: Shutdown | str = ShutdownWord.INFINITY,
    isolation: Isolation | str = Isolation.PROCESS,
    start: StartMethod | str | None = None,
    start_timeout: float | None = None,
    backoff: Backoff | None = None,
    significant: bool = False,
) -> ChildSpec:
    """Specify a nested supervisor: a `Supervisor`, a subclass, or a function that returns one.

    A class or function is called with ``args`` at every start and restart, as OTP calls ``init``.

    Raises:
        SpecificationError: an option makes no sense; the text says which.
    """
    if not isinstance(target, Supervisor) and not callable(target):
        raise reject(
            f"expected a Supervisor or what makes one, got {target!r}", "invalid_target", repr(target)
        )
    declared = target.name if isinstance(target, Supervisor) else None
    return _spec(
        id,
        name if name is not None else declared,
        "supervisor" if isinstance(target, Supervisor) else _described(target),
        start=SupervisorStart(target, args),
        type=ChildType.SUPERVISOR,
        restart=restart,
        shutdown=shutdown,
        isolation=isolation,
        start_method=start,
        start_timeout=start_timeout,
        backoff=backoff,
        significant=significant,
    )


def program(
    argv: Sequence[str],
    *,
    env: Mapping[str, str | None] | None = None,
    cwd: str | None = None,
    ready: Ready | None = None,
    name: str | None = None,
    id: Term = None,
    restart: Restart | str = Restart.PERMANENT,
    shutdown: Shutdown | str = 5.0,
    start_timeout: float | None = None,
    memory_limit: int | str | None = None,
    backoff: Backoff | None = None,
    significant: bool = False,
) -> ChildSpec:
    """Specify an external program. It is stopped with SIGTERM, and SIGKILL when its shutdown time is over.

    Raises:
        SpecificationError: an option makes no sense; the text says which.
    """
    if isinstance(argv, (str, bytes)):
        raise reject(f"argv is a list of words, not one text: {argv!r}", "invalid_argv", argv)
    begin = ProgramStart(argv, dict(env or {}), cwd, ready)
    return _spec(
        id,
        name,
        begin.argv[0].rpartition("/")[2],
        start=begin,
        restart=restart,
        shutdown=shutdown,
        start_timeout=start_timeout,
        memory_limit=memory_limit,
        backoff=backoff,
        significant=significant,
    )


def factory(
    child: ChildSpec | Callable[..., Any],
    *args: Any,
    name: str | None = None,
    id: Term = None,
    intensity: int = 2,
    period: float = 5.0,
    **options: Any,
) -> ChildSpec:
    """Specify a factory supervisor: dynamic children of one kind, each started by ``start_child``.

    The arguments of that call follow the ones given here. A function or class makes transient children, as in
    Gleam; give a `ChildSpec` for anything else. Further options are `supervisor`'s.

    Raises:
        SpecificationError: an option makes no sense; the text says which.
    """
    template = child if isinstance(child, ChildSpec) else worker(child, *args, restart=Restart.TRANSIENT)
    made = Supervisor(Strategy.SIMPLE_ONE_FOR_ONE, intensity=intensity, period=period, name=name).add(
        template
    )
    return supervisor(made, name=name, id=id if id is not None or name else template.id, **options)
