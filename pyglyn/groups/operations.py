"""Asking the scopes of a node, from its own operating-system process or from a worker. Layer: groups.

In the hub an operation is a method call. A worker sends the scope process a gen call
``{pyglyn_do, Operation, Argument, …}`` and gets ``{ok, Result}`` or ``{error, Kind, Text, Cause}``, an
exception in the form of a term.
"""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from pyglyn.errors import CallFailed, CallTimeout, GroupError, NoProcess, NotInGroup, RegistrationFailed
from pyglyn.etf import Atom, Term
from pyglyn.node import Node, Process
from pyglyn.node.reasons import ERROR

if TYPE_CHECKING:
    from pyglyn.groups.scope import Scope

At: TypeAlias = "Node | Process"
"""Where a function acts: the node, in its own operating-system process, or a process anywhere on it."""

OPERATION = Atom("pyglyn_do")

S = TypeVar("S", bound="Scope[Any]")

_scopes: weakref.WeakKeyDictionary[Any, dict[str, Any]] = weakref.WeakKeyDictionary()


def started(node: Node, name: str, make: Callable[[], S]) -> S:
    """The scope of a node that is registered as ``name``, started if it is not running.

    Raises:
        NameTaken: another process has that name.
    """
    if node.runtime not in _scopes:
        node.builtins.add("pyglyn", _overview_of(node), "groups")
    scopes = _scopes.setdefault(node.runtime, {})
    if name not in scopes:
        made = make()
        made.start()
        scopes[name] = made
    scope: S = scopes[name]
    return scope


def _overview_of(node: Node) -> Callable[[], Awaitable[Term]]:
    """The function ``pyglyn:groups`` of a node, for ``pyglyn groups``."""

    async def groups() -> Term:
        scopes = _scopes.get(node.runtime, {})
        return [scope.overview() for _, scope in sorted(scopes.items())]

    return groups


def stopped(node: Node, name: str) -> bool:
    """Stop a scope of a node; False if it does not run."""
    scope = _scopes.get(node.runtime, {}).pop(name, None)
    if scope is None:
        return False
    scope.stop()
    return True


def forget(scope: Scope[Any]) -> None:
    """The scope has ended, maybe with its node: nothing here may keep it."""
    scopes = _scopes.get(scope.node.runtime, {})
    if scopes.get(scope.name) is scope:
        del scopes[scope.name]


def running(at: At, name: str) -> Any:
    """The scope that runs in this operating-system process; None if it does not, or runs in the hub."""
    return _scopes.get(at.runtime, {}).get(name)


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
        raise NoProcess(f"the scope process {name} does not run on this node: start the scope there first")
    match await at.call(name, (OPERATION, Atom(operation), *args), timeout):
        case (Atom("ok"), result):
            return result
        case (Atom("error"), Atom() as kind, bytes(text), Atom() as cause):
            raise _ERRORS.get(kind.name, _group_error)(text.decode(), cause.name)
    raise GroupError(f"{name} is no scope of pyglyn")


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
