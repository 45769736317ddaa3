"""Child specifications and the words they are made of. Layer: supervision, pure.

The words are OTP's (supervisor(3)) and Gleam's (``gleam/otp/supervision``, ``static_supervisor``,
``factory_supervisor``); so are the defaults: at most 2 restarts in 5 seconds, workers get 5 seconds to shut
down, supervisors as long as they need. Durations are seconds here and milliseconds in Erlang terms, for
which see `pyglyn.supervision.erlang_spec`. How programs write them is in `pyglyn.supervision.declaration`.

All values can be pickled when their functions can (module-level functions and classes), so they may be
handed to another OS process.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar

import attrs

from pyglyn.errors import SpecificationError
from pyglyn.etf.terms import Atom, Term

if TYPE_CHECKING:
    from pyglyn.supervision.declaration import Supervisor

MAX_SHUTDOWN_S: Final = 2**32 / 1000
"""The longest shutdown time, about 50 days: a BEAM timer's limit in ``receive … after``."""


class Strategy(enum.StrEnum):
    """Which children are restarted when one of them ends."""

    ONE_FOR_ONE = "one_for_one"
    ONE_FOR_ALL = "one_for_all"
    REST_FOR_ONE = "rest_for_one"
    SIMPLE_ONE_FOR_ONE = "simple_one_for_one"
    """Dynamic children of one kind, what Gleam calls a factory supervisor."""


class Restart(enum.StrEnum):
    """When a child that ended is started again."""

    PERMANENT = "permanent"
    TRANSIENT = "transient"
    """Only after another reason than ``normal``, ``shutdown`` and ``{shutdown, Term}``."""
    TEMPORARY = "temporary"
    """Never, not even when a sibling's end stopped it."""


class AutoShutdown(enum.StrEnum):
    """Whether a supervisor stops by itself when significant children have ended."""

    NEVER = "never"
    ANY_SIGNIFICANT = "any_significant"
    ALL_SIGNIFICANT = "all_significant"


class ChildType(enum.StrEnum):
    """What a child is; a supervisor is counted apart and gets all the time it needs to stop."""

    WORKER = "worker"
    SUPERVISOR = "supervisor"


class Isolation(enum.StrEnum):
    """Where a child lives."""

    PROCESS = "process"
    """In an OS process of its own."""
    TASK = "task"
    """In its supervisor's OS process."""


class StartMethod(enum.StrEnum):
    """How an OS process for a child is made."""

    FORK = "fork"
    """A copy of the supervisor: fast, modules shared. Needs a supervisor without threads."""
    SPAWN = "spawn"
    """A fresh interpreter that imports what it needs."""


class ShutdownWord(enum.StrEnum):
    """The two shutdowns that are no time."""

    BRUTAL_KILL = "brutal_kill"
    INFINITY = "infinity"


Shutdown: TypeAlias = float | ShutdownWord
"""Seconds a child has for stopping before it is killed, or one of the two words."""


def reject(text: str, tag: str, value: object) -> SpecificationError:
    """Make the error for a value that OTP would refuse with ``{tag, value}``."""
    return SpecificationError(text, reason=(Atom(tag), value))


E = TypeVar("E", bound=enum.StrEnum)


def one_of(kind: type[E], tag: str, value: object) -> E:
    """Read a word of an enumeration, given as one, as text or as an atom.

    Raises:
        SpecificationError: another value; the text names the words there are, the reason is ``{tag, value}``.
    """
    word = value.name if isinstance(value, Atom) else value
    if isinstance(word, str) and word in set(kind):
        return kind(word)
    raise reject(f"expected one of {', '.join(kind)}, got {value!r}", tag, value)


def _restart_of(value: object) -> Restart:
    return one_of(Restart, "invalid_restart_type", value)


def _child_type_of(value: object) -> ChildType:
    return one_of(ChildType, "invalid_child_type", value)


def _isolation_of(value: object) -> Isolation:
    return one_of(Isolation, "invalid_isolation", value)


def _words(value: Iterable[str]) -> tuple[str, ...]:
    return tuple(value)


def start_method_of(value: object) -> StartMethod | None:
    """Read ``fork`` or ``spawn``, or None."""
    return None if value is None else one_of(StartMethod, "invalid_start_method", value)


def shutdown_of(value: object) -> Shutdown:
    """Read a shutdown: seconds (0 and up), ``brutal_kill``, ``infinity``, or ``math.inf``.

    Raises:
        SpecificationError: anything else.
    """
    if isinstance(value, (str, Atom)):
        return one_of(ShutdownWord, "invalid_shutdown", value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if value == math.inf:
            return ShutdownWord.INFINITY
        if 0 <= value <= MAX_SHUTDOWN_S:
            return float(value)
    raise reject(
        f"a shutdown is seconds from 0, brutal_kill or infinity; got {value!r}", "invalid_shutdown", value
    )


_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def bytes_of(value: int | str | None) -> int | None:
    """Read a size in bytes: an integer, or a number with a unit such as ``"512 MiB"`` or ``"2 GB"``.

    Raises:
        SpecificationError: not a size above 0.
    """
    if value is None:
        return None
    size = 0
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, str) and (match := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", value)):
        size = int(float(match[1]) * _UNITS.get(match[2].lower(), 0))
    if size <= 0:
        raise reject(f'expected bytes or a size like "512 MiB", got {value!r}', "invalid_memory_limit", value)
    return size


def _positive_seconds(what: str) -> Callable[[Any, Any, float | None], None]:
    def check(instance: object, attribute: object, value: float | None) -> None:
        if value is None:
            return
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise reject(f"{what} is a number of seconds above 0, got {value!r}", f"invalid_{what}", value)

    return check


# --- how a child starts --------------------------------------------------------------------------------


@attrs.frozen
class CallableStart:
    """An async function, a plain function or a `GenServer` class, with its arguments."""

    target: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen
class ReadyLine:
    """A program is ready when a line of its output matches a pattern (``re.search``)."""

    pattern: str = attrs.field()

    @pattern.validator
    def _check(self, attribute: object, value: str) -> None:
        try:
            re.compile(value)
        except (re.error, TypeError) as error:
            raise reject(f"{value!r} is no pattern: {error}", "invalid_ready", value) from error


@attrs.frozen
class ReadyNotify:
    """A program is ready when it sends ``READY=1`` to the socket ``$NOTIFY_SOCKET``; see sd_notify(3)."""


@attrs.frozen
class ReadyFd:
    """A program is ready when it writes a line to the descriptor numbered in ``$READY_FD``."""


@attrs.frozen
class ReadyPort:
    """A program is ready when it accepts TCP connections on a port. Tried in growing steps up to 0.2 s."""

    port: int = attrs.field()
    host: str = "127.0.0.1"

    @port.validator
    def _check(self, attribute: object, value: int) -> None:
        if not isinstance(value, int) or not 0 < value < 65536:
            raise reject(f"a port is 1 to 65535, got {value!r}", "invalid_ready", value)


Ready: TypeAlias = ReadyLine | ReadyNotify | ReadyFd | ReadyPort


@attrs.frozen
class ProgramStart:
    """An external program.

    Attributes:
        argv: the program, looked up on ``PATH``, and its arguments.
        env: variables added to (or, with value None, taken from) the supervisor's environment.
        cwd: its working directory; None for the supervisor's.
        ready: when it counts as started; None as soon as it runs.
    """

    argv: tuple[str, ...] = attrs.field(converter=_words)
    env: Mapping[str, str | None] = attrs.field(factory=dict)
    cwd: str | None = None
    ready: Ready | None = attrs.field(default=None)

    @ready.validator
    def _check_ready(self, attribute: object, value: object) -> None:
        if value is not None and not isinstance(value, (ReadyLine, ReadyNotify, ReadyFd, ReadyPort)):
            hint = f"; did you mean ReadyLine({value!r})?" if isinstance(value, str) else ""
            raise reject(
                f"ready is ReadyLine, ReadyNotify, ReadyFd or ReadyPort, got {value!r}{hint}",
                "invalid_ready",
                repr(value),
            )

    @env.validator
    def _check_env(self, attribute: object, value: Mapping[str, str | None]) -> None:
        for key, text in value.items():
            if not isinstance(key, str) or not (text is None or isinstance(text, str)):
                raise reject(
                    f"env maps names to strings, or to None: {key!r} is {text!r}", "invalid_env", repr(key)
                )

    @argv.validator
    def _check(self, attribute: object, value: tuple[str, ...]) -> None:
        if not value or not all(isinstance(word, str) and "\0" not in word for word in value):
            raise reject(f"argv is a list of strings and not empty, got {value!r}", "invalid_argv", value)


@attrs.frozen
class SupervisorStart:
    """A nested supervisor: the declaration itself, or what returns one (called at every start, as ``init``).

    See `pyglyn.supervision.declaration.declared`.
    """

    target: Supervisor | Callable[..., Supervisor]
    args: tuple[Any, ...] = ()


@attrs.frozen
class ExportStart:
    """``{Module, Function, Args}`` as Erlang names it: an exported function or child specification."""

    module: Atom
    function: Atom
    args: list[Term] = attrs.field(factory=list)


Start: TypeAlias = CallableStart | ProgramStart | SupervisorStart | ExportStart


@attrs.frozen(kw_only=True)
class Backoff:
    """Growing pauses before restarts of one child, in seconds.

    The n-th restart in a row waits ``initial * factor ** (n - 1)``, at most ``maximum``. A child that has
    run for ``reset_after`` starts the row anew. Restarts still count against the intensity, each at the
    time it is tried.
    """

    initial: float = attrs.field(default=0.1, validator=_positive_seconds("backoff"))
    factor: float = attrs.field(default=2.0, validator=_positive_seconds("backoff"))
    maximum: float = attrs.field(default=30.0, validator=_positive_seconds("backoff"))
    reset_after: float = attrs.field(default=60.0, validator=_positive_seconds("backoff"))

    def delay(self, restarts_in_a_row: int) -> float:
        """Seconds to wait before the next restart when so many came before it."""
        if self.factor <= 1.0:
            return float(min(self.maximum, self.initial * self.factor**restarts_in_a_row))
        steps = math.log(max(self.maximum / self.initial, 1.0), self.factor)
        return float(
            min(self.maximum, self.initial * self.factor ** min(restarts_in_a_row, math.ceil(steps)))
        )


# --- child specifications ------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class ChildSpec:
    """One child of a supervisor. Made by `worker`, `supervisor`, `program` and `factory`, or from Erlang.

    Attributes:
        id: a term, unique in its supervisor.
        start: what is started.
        restart: when it is started again.
        shutdown: seconds it has for stopping, or ``brutal_kill``, or ``infinity``.
        type: worker or supervisor.
        significant: whether its end can stop the supervisor (see `AutoShutdown`).
        modules: for release handlers; None for the module of what is started.
        name: what it is registered as on the node, if anything.
        isolation: in an OS process of its own, or in the supervisor's.
        start_method: fork or spawn; None to do as its supervisor does.
        start_timeout: seconds until a start that is not done counts as failed; None for no limit.
        heartbeat: seconds its event loop may be stuck before it is killed with reason ``stuck``.
        memory_limit: bytes of resident memory before it is killed with ``{memory_limit, Bytes}``.
        backoff: pauses before its restarts.
        handover: whether the supervisor keeps what the child last checkpointed, for its successor.
        default_id: the id was made up; a supervisor that has it already makes another one up.
    """

    id: Term
    start: Start
    restart: Restart = attrs.field(default=Restart.PERMANENT, converter=_restart_of)
    shutdown: Shutdown = attrs.field(default=5.0, converter=shutdown_of)
    type: ChildType = attrs.field(default=ChildType.WORKER, converter=_child_type_of)
    significant: bool = attrs.field(default=False)
    modules: tuple[Atom, ...] | Literal["dynamic"] | None = None
    name: str | None = None
    isolation: Isolation = attrs.field(default=Isolation.PROCESS, converter=_isolation_of)
    start_method: StartMethod | None = attrs.field(default=None, converter=start_method_of)
    start_timeout: float | None = attrs.field(default=None, validator=_positive_seconds("start_timeout"))
    heartbeat: float | None = attrs.field(default=None, validator=_positive_seconds("heartbeat"))
    memory_limit: int | None = attrs.field(default=None, converter=bytes_of)
    backoff: Backoff | None = attrs.field(default=None)
    handover: bool = False
    default_id: bool = attrs.field(default=False, eq=False, repr=False)

    @backoff.validator
    def _check_backoff(self, attribute: object, value: object) -> None:
        if value is not None and not isinstance(value, Backoff):
            raise reject(
                f"backoff is a Backoff, such as Backoff(initial=0.5); got {value!r}",
                "invalid_backoff",
                repr(value),
            )

    @significant.validator
    def _check_significant(self, attribute: object, value: object) -> None:
        if not isinstance(value, bool):
            raise reject(f"significant is True or False, got {value!r}", "invalid_significant", value)
        if value and self.restart is Restart.PERMANENT:
            raise SpecificationError(
                f"{self.id!r}: a permanent child cannot be significant; make it transient or temporary",
                reason=_bad_combination("restart", Atom("permanent")),
            )

    def __attrs_post_init__(self) -> None:
        if self.isolation is Isolation.TASK:
            for option in ("heartbeat", "memory_limit", "start_method"):
                if getattr(self, option) is not None:
                    raise reject(
                        f"{self.id!r}: {option} needs an OS process, not isolation='task'",
                        "bad_combination",
                        [(Atom("isolation"), Atom("task")), (Atom(option), True)],
                    )

    def check_auto_shutdown(self, auto_shutdown: AutoShutdown) -> None:
        """Check that a supervisor with this ``auto_shutdown`` may have the child.

        Raises:
            SpecificationError: a significant child where nothing can come of it.
        """
        if self.significant and auto_shutdown is AutoShutdown.NEVER:
            raise SpecificationError(
                f"{self.id!r} is significant, but its supervisor's auto_shutdown is never",
                reason=_bad_combination("auto_shutdown", Atom("never")),
            )


def _bad_combination(key: str, value: Term) -> Term:
    return (Atom("bad_combination"), [(Atom(key), value), (Atom("significant"), True)])


def identifier(given: Term) -> Term:
    """A child's id as a term: text becomes an atom, as names do everywhere in calls.

    Raises:
        SpecificationError: text that cannot be an atom.
    """
    if not isinstance(given, str):
        return given
    try:
        return Atom(given)
    except ValueError as error:
        raise reject(f"{given!r} cannot be a child's id: {error}", "invalid_child_id", given) from error
