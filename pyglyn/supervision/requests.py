"""The requests of supervisor(3): ``start_child``, ``which_children``, …. Layer: supervision, pure.

Source: supervisor.erl, handle_call (OTP 25.2, 28). The replies are OTP's to the term. A request is the term
that ``supervisor:start_child/2`` and its siblings send, with one addition: Python callers may give a
`ChildSpec` where Erlang gives a map or tuple.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from pyglyn.errors import SpecificationError
from pyglyn.etf import Atom, Pid, Term, exact_key
from pyglyn.node.reasons import ERROR, OK, UNDEFINED
from pyglyn.supervision.effects import (
    AnswerRequest,
    Child,
    ChildFailed,
    ChildIgnored,
    ChildStarted,
    Effect,
    Outcome,
    Restarting,
)
from pyglyn.supervision.erlang_spec import (
    child_record,
    child_spec_from_term,
    child_spec_to_term,
    modules_term,
)
from pyglyn.supervision.policy import Policy, Steps
from pyglyn.supervision.spec import ChildSpec
from pyglyn.supervision.words import ChildType, Restart

_NOT_FOUND: Final = (ERROR, Atom("not_found"))
_RUNNING: Final = (ERROR, Atom("running"))
_RESTARTING: Final = (ERROR, Atom("restarting"))
_SIMPLE: Final = (ERROR, Atom("simple_one_for_one"))
_FLATMAP_LIMIT = 32


def receive_request(
    policy: Policy, caller: object, request: Term | tuple[Atom, ChildSpec], now: int
) -> list[Effect]:
    """Handle a request in its turn; its answer is a `AnswerRequest` effect with the same ``caller``.

    A caller still waiting when the supervisor ends gets no reply: its monitor tells it.
    """
    return policy.receive_handler(_answer(policy, caller, request), now)


def _answer(policy: Policy, caller: object, request: Any) -> Steps[None]:
    match request:
        case Atom(name) if name in _WITHOUT_ARGUMENT:
            reply = _WITHOUT_ARGUMENT[name](policy)
        case (Atom(name), argument) if name in _IMMEDIATE:
            reply = _IMMEDIATE[name](policy, argument)
        case (Atom(name), argument) if name in _ACTING:
            reply = yield from _ACTING[name](policy, argument)
        case _:
            reply = (ERROR, (Atom("bad_request"), request))
    policy.emit(AnswerRequest(caller, reply))


# --- requests that start and stop ----------------------------------------------------------------------


def _start_child(policy: Policy, argument: Any) -> Steps[Term]:
    if policy.is_simple:
        return (yield from _start_dynamic_child(policy, argument))
    try:
        spec = (
            argument
            if isinstance(argument, ChildSpec)
            else child_spec_from_term(argument, policy.auto_shutdown, policy.described)
        )
        spec.check_auto_shutdown(policy.auto_shutdown)
    except SpecificationError as error:
        return (ERROR, error.reason)
    present = policy.children.get(exact_key(spec.id))
    if present is not None:
        if isinstance(present.pid, Pid):
            return (ERROR, (Atom("already_started"), present.pid))
        return (ERROR, Atom("already_present"))
    child = Child(spec, args_kept=spec.restart is not Restart.TEMPORARY)
    outcome = yield from policy.start_child(child)
    if isinstance(outcome, ChildFailed):
        if _is_already_started(outcome.reason):
            return (ERROR, outcome.reason)
        return (ERROR, (outcome.reason, child_record(spec)))
    if not (isinstance(outcome, ChildIgnored) and spec.restart is Restart.TEMPORARY):
        policy.children[exact_key(spec.id)] = child
        policy.set_started(child, outcome)
    return _started(outcome)


def _start_dynamic_child(policy: Policy, argument: Any) -> Steps[Term]:
    if not isinstance(argument, list):
        return (ERROR, (Atom("badarg"), argument))
    [template] = policy.children.values()
    child = Child(template.spec, args=tuple(argument))
    outcome = yield from policy.start_child(child)
    if isinstance(outcome, ChildStarted):
        policy.set_started(child, outcome)
        policy.dynamics[outcome.pid] = child
    return _started(outcome)


def _is_already_started(reason: Term) -> bool:
    return isinstance(reason, tuple) and len(reason) == 2 and reason[0] is Atom("already_started")


def _started(outcome: Outcome) -> Term:
    match outcome:
        case ChildStarted(pid, info, True):
            return (OK, pid, info)
        case ChildStarted(pid):
            return (OK, pid)
        case ChildIgnored():
            return (OK, UNDEFINED)
        case ChildFailed(reason):
            return (ERROR, reason)


def _terminate_child(policy: Policy, argument: Any) -> Steps[Term]:
    if policy.is_simple:
        if not isinstance(argument, Pid):
            return _SIMPLE
        child = policy.dynamics.get(argument) or policy.dynamics.get(Restarting(argument))
        if child is None:
            return _NOT_FOUND if policy.is_alive(argument) else OK
    else:
        found = policy.children.get(exact_key(argument))
        if found is None:
            return _NOT_FOUND
        child = found
    yield from policy.stop_child(child)
    policy.forget_child(child)
    return OK


def _restart_child(policy: Policy, argument: Any) -> Steps[Term]:
    child = _stopped_child(policy, argument)
    if not isinstance(child, Child):
        return child
    outcome = yield from policy.start_child(child, again=True)
    if not isinstance(outcome, ChildFailed):
        policy.set_started(child, outcome)
    return _started(outcome)


def _delete_child(policy: Policy, argument: Any) -> Term:
    child = _stopped_child(policy, argument)
    if not isinstance(child, Child):
        return child
    del policy.children[exact_key(child.spec.id)]
    return OK


def _stopped_child(policy: Policy, argument: Any) -> Child | Term:
    """The child with this id if it is neither running nor restarting, else the reply that says why not."""
    if policy.is_simple:
        return _SIMPLE
    child = policy.children.get(exact_key(argument))
    if child is None:
        return _NOT_FOUND
    if child.pid is None:
        return child
    return _RESTARTING if isinstance(child.pid, Restarting) else _RUNNING


# --- requests that only look ---------------------------------------------------------------------------


def _get_childspec(policy: Policy, argument: Any) -> Term:
    child: Child | None
    if policy.is_simple and isinstance(argument, Pid):
        child = policy.dynamics.get(argument) or policy.dynamics.get(Restarting(argument))
        if child is None and not policy.is_alive(argument):
            [child] = policy.children.values()
    else:
        child = policy.children.get(exact_key(argument))
    if child is None:
        return _NOT_FOUND
    return (OK, child_spec_to_term(child.spec, args_kept=child.args_kept))


def _which_children(policy: Policy) -> Term:
    if policy.is_simple:
        return [_shown(UNDEFINED, policy.dynamics[key]) for key in _in_map_order(list(policy.dynamics))]
    return [_shown(child.spec.id, child) for child in reversed(policy.children.values())]


def _shown(id: Term, child: Child) -> Term:
    if isinstance(child.pid, Restarting):
        pid: Term = Atom("restarting")
    else:
        pid = UNDEFINED if child.pid is None else child.pid
    return (id, pid, Atom(child.spec.type.value), modules_term(child.spec))


def _in_map_order(keys: Sequence[Pid | Restarting]) -> Sequence[Pid | Restarting]:
    """The order of a small Erlang map's keys: pids, then ``{restarting, Pid}``; a large map has none."""
    if len(keys) > _FLATMAP_LIMIT:
        return keys
    pids = [key for key in keys if isinstance(key, Pid)]
    others = [key for key in keys if isinstance(key, Restarting)]
    return [
        *sorted(pids, key=Pid.sort_key),
        *sorted(others, key=lambda key: key.pid.sort_key() if key.pid is not None else (0, 0, "", 0)),
    ]


def _count_children(policy: Policy) -> Term:
    if policy.is_simple:
        [template] = policy.children.values()
        kinds = [template.spec.type] * len(policy.dynamics)
        specs, active = 1, sum(isinstance(key, Pid) for key in policy.dynamics)
    else:
        kinds = [child.spec.type for child in policy.children.values()]
        specs, active = len(kinds), sum(map(policy.is_running, policy.children.values()))
    supervisors = kinds.count(ChildType.SUPERVISOR)
    counts = (specs, active, supervisors, len(kinds) - supervisors)
    return list(zip(map(Atom, ("specs", "active", "supervisors", "workers")), counts, strict=True))


_ACTING: Final[dict[str, Callable[[Policy, Any], Steps[Term]]]] = {
    "start_child": _start_child,
    "terminate_child": _terminate_child,
    "restart_child": _restart_child,
}
_IMMEDIATE: Final[dict[str, Callable[[Policy, Any], Term]]] = {
    "delete_child": _delete_child,
    "get_childspec": _get_childspec,
}
_WITHOUT_ARGUMENT: Final[dict[str, Callable[[Policy], Term]]] = {
    "which_children": _which_children,
    "count_children": _count_children,
}
