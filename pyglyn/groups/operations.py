"""Asking the scopes of a node, from its own operating-system process or from a worker. Layer: groups.

In the hub an operation is a method call. A worker sends the scope process a gen call
``{pyglyn_do, Secret, Operation, Argument, …}``, with what only the OS processes of the node know, and gets
``{ok, Result}`` or ``{error, Kind, Text, Cause}``, an exception in the form of a term.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from pyglyn.errors import CallFailed, CallTimeout, GroupError, NoProcess, NotInGroup, RegistrationFailed
from pyglyn.etf import Atom, Term
from pyglyn.node import At, Node, Process
from pyglyn.node.reasons import ERROR

OPERATION = Atom("pyglyn_do")


class Startable(Protocol):
    """What is asked of a scope here; ``Scope`` has it."""

    name: str
    node: Node

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def overview(self) -> Term: ...
    async def operate(self, operation: str, *args: Any) -> Any: ...


S = TypeVar("S", bound=Startable)


class _Scopes:
    """The scopes that run in one operating-system process, by the names they are registered as."""

    def __init__(self) -> None:
        self.by_name: dict[str, Any] = {}


def started(node: Node, name: str, make: Callable[[], S]) -> S:
    """The scope of a node that is registered as ``name``, started if it is not running.

    Raises:
        NameTaken: another process has that name.
    """
    scopes = _scopes_of(node)
    if not scopes:
        node.builtins.add("pyglyn", _overview_of(node), "groups")
    if name not in scopes:
        made = make()
        made.start()
        scopes[name] = made
    scope: S = scopes[name]
    return scope


def _scopes_of(at: At) -> dict[str, Any]:
    return at.runtime.belongings.get(_Scopes).by_name


def _overview_of(node: Node) -> Callable[[], Awaitable[Term]]:
    """The function ``pyglyn:groups`` of a node, for ``pyglyn groups``."""

    async def groups() -> Term:
        return [scope.overview() for _, scope in sorted(_scopes_of(node).items())]

    return groups


def stopped(node: Node, name: str) -> bool:
    """Stop a scope of a node; False if it does not run."""
    scope = _scopes_of(node).pop(name, None)
    if scope is None:
        return False
    scope.stop()
    return True


def forget(scope: Startable) -> None:
    """The scope has ended, maybe with its node: nothing here may keep it."""
    scopes = _scopes_of(scope.node)
    if scopes.get(scope.name) is scope:
        del scopes[scope.name]


def running(at: At, name: str) -> Any:
    """The scope that runs in this operating-system process; None if it does not, or runs in the hub."""
    return _scopes_of(at).get(name)


async def do(at: At, name: str, operation: str, *args: Any, timeout: float | None = 10.0) -> Any:
    """Run an operation of the scope that is registered as ``name``.

    Raises:
        NoProcess: the scope was not started on this node.
        GroupError, ProcessError, ValueError: whatever the operation raises.
    """
    here = running(at, name)
    if here is not None:
        return await here.operate(operation, *args)
    if isinstance(at, Process) and await at.whereis(name) is None:
        raise NoProcess(
            f"{at.node} does not run the scope: call {_start_of(name)} where the node runs, "
            "as in the function given to --app, before the tree starts"
        )
    match await at.call(name, (OPERATION, at.runtime.secret, Atom(operation), *args), timeout):
        case (Atom("ok"), result):
            return result
        case (Atom("error"), Atom() as kind, bytes(text), Atom() as cause):
            raise _ERRORS.get(kind.name, _group_error)(text.decode(), cause.name)
    raise GroupError(f"{name} is no scope of pyglyn")


def _start_of(name: str) -> str:
    """The call that starts a scope, by the name of its process."""
    for prefix in ("syn_pg_", "syn_registry_"):
        if name.startswith(prefix):
            return f'syn.start(node, "{name.removeprefix(prefix)}")'
    return "pg.start(node)" if name == "pg" else f'pg.start(node, "{name}")'


def _group_error(text: str, cause: str) -> Exception:
    return GroupError(text)


_ERRORS: dict[str, Callable[[str, str], Exception]] = {
    "NotInGroup": lambda text, cause: NotInGroup(text),
    "RegistrationFailed": lambda text, cause: RegistrationFailed(text, cause=cause),
    "NoProcess": lambda text, cause: NoProcess(text),
    "ValueError": lambda text, cause: ValueError(text),
    "CallTimeout": lambda text, cause: CallTimeout(text),
    "CallFailed": lambda text, cause: CallFailed(text, reason=Atom(cause)),
}


def error_term(error: Exception) -> Term:
    """An exception of an operation for a worker."""
    cause = getattr(error, "cause", getattr(error, "reason", ""))
    name = cause.name if isinstance(cause, Atom) else str(cause)[:100]
    names = (each.__name__ for each in type(error).__mro__)
    kind = next((name for name in names if name in _ERRORS), "GroupError")
    return ERROR, Atom(kind), str(error).encode("utf-8", "replace"), Atom(name or "undefined")
