"""Time as OTP's functions of module ``erlang`` have it; the native unit is the nanosecond. Layer: node.

Source: erlang(3), "convert_time_unit", "time_unit".
"""

from __future__ import annotations

from typing import Final

from pyglyn.etf import Atom, Term
from pyglyn.node.exports import Badarg

NATIVE_PER_SECOND: Final = 1_000_000_000
_PARTS: Final = {
    "second": 1,
    "seconds": 1,
    "millisecond": 1000,
    "milli_seconds": 1000,
    "microsecond": 1_000_000,
    "micro_seconds": 1_000_000,
    "nanosecond": NATIVE_PER_SECOND,
    "nano_seconds": NATIVE_PER_SECOND,
    "native": NATIVE_PER_SECOND,
    "perf_counter": NATIVE_PER_SECOND,
}


def parts_per_second(unit: Term) -> int:
    """How many of a unit a second has.

    Raises:
        Badarg: it is no unit.
    """
    if isinstance(unit, Atom) and unit.name in _PARTS:
        return _PARTS[unit.name]
    if isinstance(unit, int) and not isinstance(unit, bool) and unit > 0:
        return unit
    raise Badarg("no unit of time")


def convert(time: Term, from_unit: Term, to_unit: Term) -> int:
    """``convert_time_unit/3``; rounds down, as OTP does.

    Raises:
        Badarg: no integer, or no unit.
    """
    if not isinstance(time, int) or isinstance(time, bool):
        raise Badarg("a time is an integer")
    return time * parts_per_second(to_unit) // parts_per_second(from_unit)


def days_and_time(seconds: Term) -> Term:
    """``calendar:seconds_to_daystime/1``.

    Raises:
        Badarg: no integer.
    """
    if not isinstance(seconds, int) or isinstance(seconds, bool):
        raise Badarg("seconds are an integer")
    days, rest = divmod(seconds, 86400)
    return (days, (rest // 3600, rest // 60 % 60, rest % 60))
