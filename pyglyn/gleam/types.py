"""Gleam's own types as Python classes: Result, Some, Subject, Timestamp, Duration. Layer: gleam, pure.

Sources: the Gleam prelude; gleam_stdlib 1.0.4 (``gleam/option``); gleam_erlang 1.3
(``gleam/erlang/process``); gleam_time 1.7 (``gleam/time``). What Python has itself needs no class here:
``X | None`` is ``Option(X)``, ``None`` is ``Nil``, ``list``, ``dict``, ``set``, ``bool``, ``int``, ``float``,
``str`` and ``bytes`` are what they say. Not supported: a subject's type parameter is for type checkers only.
"""

from __future__ import annotations

import datetime
from typing import Generic, TypeAlias, TypeVar

import attrs

from pyglyn.etf.terms import Atom, BitString, Pid, Term

T = TypeVar("T")
E = TypeVar("E")

NANOSECONDS = 1_000_000_000
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)


@attrs.frozen
class Ok(Generic[T]):
    """The ``Ok`` of a ``Result``: ``{ok, Value}``."""

    value: T


@attrs.frozen
class Error(Generic[E]):
    """The ``Error`` of a ``Result``: ``{error, Reason}``."""

    error: E


Result: TypeAlias = Ok[T] | Error[E]
"""``Result[int, str]`` is ``Ok[int] | Error[str]``."""


@attrs.frozen
class Some(Generic[T]):
    """An explicit ``{some, Value}``, for an option within an option: ``Some[int | None] | None``.

    A plain ``X | None`` needs none of it: there the value itself stands for ``{some, Value}``.
    """

    value: T


BitArray: TypeAlias = bytes | BitString
"""A bit array of any length; ``bytes`` alone takes only whole bytes."""


@attrs.frozen
class Subject(Generic[T]):
    """Where a Gleam process receives messages of one type: ``{subject, Owner, Tag}``.

    A message to it is ``{Tag, Message}``, sent to the owner.
    """

    owner: Pid
    tag: Term


@attrs.frozen
class NamedSubject(Generic[T]):
    """A subject by registered name: ``{named_subject, Name}``; it means something on its own node only.

    A message to it is ``{Name, Message}``, sent to the process registered as ``Name``.
    """

    name: Atom


def _check_nanoseconds(instance: object, attribute: object, value: int) -> None:
    if not 0 <= value < NANOSECONDS:
        raise ValueError(f"nanoseconds are 0 to {NANOSECONDS - 1}")


@attrs.frozen(order=True)
class Timestamp:
    """A moment: ``{timestamp, Seconds, Nanoseconds}``, the sum of both since 1970-01-01T00:00:00Z."""

    seconds: int
    nanoseconds: int = attrs.field(default=0, validator=_check_nanoseconds)

    @classmethod
    def from_nanoseconds(cls, nanoseconds: int) -> Timestamp:
        """Make one of a count since the epoch, such as ``time.time_ns()``."""
        return cls(*divmod(nanoseconds, NANOSECONDS))

    @classmethod
    def from_datetime(cls, moment: datetime.datetime) -> Timestamp:
        """Make one of a datetime.

        Raises:
            ValueError: the datetime has no time zone.
        """
        if moment.utcoffset() is None:
            raise ValueError("a datetime without a time zone is not a moment")
        return cls.from_nanoseconds((moment - _EPOCH) // _MICROSECOND * 1000)

    def to_datetime(self) -> datetime.datetime:
        """Give the datetime in UTC; what is below a microsecond is cut off.

        Raises:
            OverflowError: outside the years 1 to 9999.
        """
        return _EPOCH + datetime.timedelta(seconds=self.seconds, microseconds=self.nanoseconds // 1000)


@attrs.frozen(order=True)
class Duration:
    """A span of time, either direction: ``{duration, Seconds, Nanoseconds}``, the sum of both."""

    seconds: int
    nanoseconds: int = attrs.field(default=0, validator=_check_nanoseconds)

    @classmethod
    def from_nanoseconds(cls, nanoseconds: int) -> Duration:
        """Make one of a count, negative ones included."""
        return cls(*divmod(nanoseconds, NANOSECONDS))

    @classmethod
    def from_timedelta(cls, span: datetime.timedelta) -> Duration:
        """Make one of a timedelta."""
        return cls.from_nanoseconds(span // _MICROSECOND * 1000)

    def to_timedelta(self) -> datetime.timedelta:
        """Give the timedelta; what is below a microsecond is cut off.

        Raises:
            OverflowError: more than 999,999,999 days.
        """
        return datetime.timedelta(seconds=self.seconds, microseconds=self.nanoseconds // 1000)
