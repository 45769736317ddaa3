"""The words child specifications are made of, and how they are read. Layer: supervision, pure.

They are OTP's (supervisor(3)) and Gleam's (``gleam/otp/supervision``, ``static_supervisor``,
``factory_supervisor``). Both floors use them.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Callable
from typing import Any, Final, TypeAlias, TypeVar

import attrs

from pyglyn.errors import SpecificationError
from pyglyn.escaping import shown
from pyglyn.etf.terms import Atom

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
    raise reject(f"expected one of {', '.join(kind)}, got {shown(value)}", tag, value)


def restart_of(value: object) -> Restart:
    return one_of(Restart, "invalid_restart_type", value)


def child_type_of(value: object) -> ChildType:
    return one_of(ChildType, "invalid_child_type", value)


def isolation_of(value: object) -> Isolation:
    return one_of(Isolation, "invalid_isolation", value)


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
        f"a shutdown is seconds from 0, brutal_kill or infinity; got {shown(value)}",
        "invalid_shutdown",
        value,
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
        raise reject(
            f'expected bytes or a size like "512 MiB", got {shown(value)}', "invalid_memory_limit", value
        )
    return size


def positive_seconds(what: str) -> Callable[[Any, Any, float | None], None]:
    def check(instance: object, attribute: object, value: float | None) -> None:
        if value is None:
            return
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise reject(
                f"{what} is a number of seconds above 0, got {shown(value)}", f"invalid_{what}", value
            )

    return check


def _positive(instance: object, attribute: object, value: int | None) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value <= 0):
        raise reject(f"messages is a number above 0, got {shown(value)}", "invalid_recycle", repr(value))


@attrs.frozen(kw_only=True)
class Recycle:
    """When one child, an async function or a `GenServer`, ends after its present work, to be started anew.

    It ends in its next ``receive`` after the messages that waited then; the restart does not count against
    the intensity, and has no backoff. By the strategy, siblings may start anew with it.

    Attributes:
        memory: bytes of memory of its own, looked at once a second.
        messages: how many messages it takes.
    """

    memory: int | None = attrs.field(default=None, converter=bytes_of)
    messages: int | None = attrs.field(default=None, validator=_positive)

    def __attrs_post_init__(self) -> None:
        if self.memory is None and self.messages is None:
            raise reject("Recycle needs memory, messages or both", "invalid_recycle", "nothing")


@attrs.frozen(kw_only=True)
class Backoff:
    """Growing pauses before restarts of one child, in seconds.

    The n-th restart in a row waits ``initial * factor ** (n - 1)``, at most ``maximum``. A child that has
    run for ``reset_after`` starts the row anew. Restarts still count against the intensity, each at the
    time it is tried.
    """

    initial: float = attrs.field(default=0.1, validator=positive_seconds("backoff"))
    factor: float = attrs.field(default=2.0, validator=positive_seconds("backoff"))
    maximum: float = attrs.field(default=30.0, validator=positive_seconds("backoff"))
    reset_after: float = attrs.field(default=60.0, validator=positive_seconds("backoff"))

    def delay(self, restarts_in_a_row: int) -> float:
        """Seconds to wait before the next restart when so many came before it."""
        if self.factor <= 1.0:
            return float(min(self.maximum, self.initial * self.factor**restarts_in_a_row))
        steps = math.log(max(self.maximum / self.initial, 1.0), self.factor)
        return float(
            min(self.maximum, self.initial * self.factor ** min(restarts_in_a_row, math.ceil(steps)))
        )
