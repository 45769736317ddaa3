"""Child specifications as Erlang terms, both ways. Layer: supervision, pure.

Source: supervisor.erl, check_childspec and child_to_spec (OTP 25, 28): the same checks in the same order, so
that the same bad specification gets the same error term.

Beside OTP's keys a map may have ``name``, ``isolation``, ``start_timeout`` and ``heartbeat`` (milliseconds),
``memory_limit`` (bytes) and ``start_method``; OTP ignores keys it does not know.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from pyglyn import etf
from pyglyn.errors import EncodeError, SpecificationError
from pyglyn.escaping import shown
from pyglyn.etf import Atom, Term, TermMap
from pyglyn.node.reasons import UNDEFINED
from pyglyn.supervision.os.command import ProgramStart
from pyglyn.supervision.spec import CallableStart, ChildSpec, ExportStart, Start
from pyglyn.supervision.words import (
    AutoShutdown,
    ChildType,
    Restart,
    Shutdown,
    ShutdownWord,
    one_of,
    reject,
    shutdown_of,
)

DYNAMIC = Atom("dynamic")
_OLD_KEYS = ("id", "start", "restart", "shutdown", "type", "modules")


# --- from Erlang ---------------------------------------------------------------------------------------


def child_spec_from_term(
    term: Term,
    auto_shutdown: AutoShutdown = AutoShutdown.NEVER,
    described: Callable[[ExportStart], ChildSpec | None] = lambda start: None,
) -> ChildSpec:
    """Read a child specification: a map, or the old tuple of six.

    Args:
        term: the specification.
        auto_shutdown: of the supervisor it is for; with ``never`` no child may be significant.
        described: gives the options that the specification leaves open, if what it starts has them.

    Raises:
        SpecificationError: ``reason`` is the term OTP would have given.
    """
    if isinstance(term, tuple) and len(term) == 6:
        term = {Atom(key): value for key, value in zip(_OLD_KEYS, term, strict=True)}
    if not isinstance(term, (dict, TermMap)):
        raise reject(f"expected a child specification, got {shown(term)}", "invalid_child_spec", term)
    given = {key.name: value for key, value in term.items() if isinstance(key, Atom)}
    for key in ("id", "start"):
        if key not in given:
            raise SpecificationError(f"the child specification has no {key}", reason=Atom(f"missing_{key}"))
    start = _start(given["start"])
    base = described(start) or ChildSpec(id=given["id"], start=start)
    restart = one_of(Restart, "invalid_restart_type", given.get("restart", base.restart))
    significant = _significant(given.get("significant", base.significant), restart, auto_shutdown)
    kind = one_of(ChildType, "invalid_child_type", given.get("type", base.type))
    return ChildSpec(
        id=given["id"],
        start=start,
        restart=restart,
        significant=significant,
        type=kind,
        shutdown=_shutdown(given, kind, base),
        modules=_modules(given, start),
        **_own_options(given),
    )


def _start(term: Term) -> ExportStart:
    match term:
        case (Atom() as module, Atom() as function, list() as args):
            return ExportStart(module, function, args)
    raise reject(f"start is {{Module, Function, Args}}, got {shown(term)}", "invalid_mfa", term)


def _significant(value: Term, restart: Restart, auto_shutdown: AutoShutdown) -> bool:
    if not isinstance(value, bool):
        raise reject(f"significant is true or false, got {shown(value)}", "invalid_significant", value)
    if value:
        clash = None
        if auto_shutdown is AutoShutdown.NEVER:
            clash = ("auto_shutdown", "never")
        elif restart is Restart.PERMANENT:
            clash = ("restart", "permanent")
        if clash is not None:
            raise SpecificationError(
                f"a child cannot be significant with {clash[0]} {clash[1]}",
                reason=(
                    Atom("bad_combination"),
                    [(Atom(clash[0]), Atom(clash[1])), (Atom("significant"), True)],
                ),
            )
    return value


def _shutdown(given: Mapping[str, Term], kind: ChildType, base: ChildSpec) -> Shutdown:
    if "shutdown" not in given:
        if base.type is kind and not isinstance(base.start, ExportStart):
            return base.shutdown
        return ShutdownWord.INFINITY if kind is ChildType.SUPERVISOR else 5.0
    value = given["shutdown"]
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return shutdown_of(value / 1000)
    if isinstance(value, Atom):
        return shutdown_of(value)
    raise reject(
        f"shutdown is milliseconds, brutal_kill or infinity, got {shown(value)}", "invalid_shutdown", value
    )


def _modules(given: Mapping[str, Term], start: ExportStart) -> Any:
    value = given.get("modules", [start.module])
    if value is DYNAMIC:
        return "dynamic"
    if not isinstance(value, list):
        raise reject(f"modules is dynamic or a list of atoms, got {shown(value)}", "invalid_modules", value)
    for module in value:
        if not isinstance(module, Atom):
            raise reject(f"a module is an atom, got {shown(module)}", "invalid_module", module)
    return tuple(value)


def _own_options(given: Mapping[str, Term]) -> dict[str, Any]:
    """The keys OTP does not know, for the constructor of `ChildSpec`."""
    options: dict[str, Any] = {}
    for key in ("isolation", "start_method", "memory_limit"):
        if key in given:
            options[key] = given[key]
    for key in ("start_timeout", "heartbeat"):
        value = given.get(key)
        if isinstance(value, int):
            options[key] = value / 1000
    if isinstance(name := given.get("name"), Atom):
        options["name"] = name.name
    return options


# --- to Erlang -----------------------------------------------------------------------------------------


def shutdown_term(shutdown: Shutdown) -> Term:
    """Milliseconds, or one of the two words."""
    return Atom(shutdown.value) if isinstance(shutdown, ShutdownWord) else round(shutdown * 1000)


def modules_term(spec: ChildSpec) -> Term:
    """The modules of a child, as ``which_children`` shows them."""
    if spec.modules == "dynamic":
        return DYNAMIC
    return list(spec.modules) if spec.modules is not None else [start_term(spec.start)[0]]


def child_spec_to_term(spec: ChildSpec, *, args_kept: bool = True) -> dict[Term, Term]:
    """The map that ``supervisor:get_childspec/2`` returns, with every key of OTP's.

    Args:
        spec: the specification.
        args_kept: False for a temporary child started dynamically; OTP forgets its arguments.
    """
    return {
        Atom("id"): spec.id,
        Atom("start"): start_term(spec.start, args_kept=args_kept),
        Atom("restart"): Atom(spec.restart.value),
        Atom("significant"): spec.significant,
        Atom("shutdown"): shutdown_term(spec.shutdown),
        Atom("type"): Atom(spec.type.value),
        Atom("modules"): modules_term(spec),
    }


def child_record(spec: ChildSpec, pid: Term = UNDEFINED) -> Term:
    """OTP's internal ``#child{}`` record, which ``start_child`` shows in its errors."""
    return (
        Atom("child"),
        pid,
        spec.id,
        start_term(spec.start),
        Atom(spec.restart.value),
        spec.significant,
        shutdown_term(spec.shutdown),
        Atom(spec.type.value),
        modules_term(spec),
    )


def start_term(start: Start, *, args_kept: bool = True) -> tuple[Atom, Atom, Term]:
    """``{Module, Function, Args}`` of what is started.

    For a Python function or class that is its module and qualified name, and its arguments as terms where
    they are terms, else as the text Python shows. A program is ``{program, Argv0, Argv}``.
    """
    args: list[Term]
    match start:
        case ExportStart(module, function, given):
            names, args = (module, function), given
        case ProgramStart(argv):
            names, args = (Atom("program"), _atom(argv[0])), [word.encode() for word in argv]
        case CallableStart(target, positional, keywords):
            extra = [keywords] if keywords else []
            names, args = _names(target), [_shown(each) for each in (*positional, *extra)]
        case _:
            names, args = _names(start.target), [_shown(each) for each in start.args]
    return (*names, args if args_kept else UNDEFINED)


def _names(target: object) -> tuple[Atom, Atom]:
    named = target if inspect.isroutine(target) or inspect.isclass(target) else type(target)
    return (
        _atom(getattr(named, "__module__", None) or "python"),
        _atom(getattr(named, "__qualname__", "call")),
    )


def _atom(text: str) -> Atom:
    return Atom(text[:255])


def _shown(value: object) -> Term:
    try:
        return etf.normalise(value)
    except EncodeError:
        return repr(value)[:200].encode(errors="replace")
