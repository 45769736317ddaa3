"""JSON of single values: numbers, strings, dates; strict both ways. Pure.

``SCALARS`` maps a type to what writes it (value to JSON value) and what reads it (which is also given the
type); both raise TypeError or ValueError with what was expected and what came.

A value is written only if it is of the very type, as :mod:`pyglyn.gleam` has it, so that what is committed
can be sent too: an ``int`` is no ``float``, a ``bool`` no ``int``, a subclass not its base. Subclasses of
what Gleam takes with them (``datetime``), or has no counterpart of, are written as their base.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import decimal
import math
import sys
import uuid
from collections.abc import Callable
from typing import Any

_LARGEST_EXACT = 2**53
_LARGEST = sys.float_info.max

_KINDS: dict[type, str] = {
    type(None): "null",
    bool: "a boolean",
    int: "an integer",
    float: "a float",
    str: "a string",
    list: "an array",
    dict: "an object",
}


def kind_of(value: object) -> str:
    """Name the kind of a JSON value, with its article; of any other value the class."""
    return _KINDS.get(type(value)) or f"a {type(value).__name__}"


def shown(value: object) -> str:
    """Show a value in an error text, shortened."""
    try:
        text = repr(value)
    except Exception:
        return kind_of(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _exactly(kind: type, name: str) -> Callable[..., Any]:
    """Return the function that lets the values of one type through, and none of its subclasses."""

    def check(value: Any, _of: Any = None) -> Any:
        if type(value) is not kind:
            raise TypeError(f"expected {name}, got {kind_of(value)}")
        return value

    return check


def _write_float(value: Any) -> float:
    if type(value) is not float:
        raise TypeError(f"expected a float, got {kind_of(value)}")
    if not math.isfinite(value):
        raise ValueError(f"expected a finite float, got {value}")
    return value


def _read_float(value: Any, _of: Any) -> float:
    if type(value) is float:
        if not -_LARGEST <= value <= _LARGEST:
            raise ValueError(f"expected a finite float, got {value}")
        return value
    if type(value) is int:
        if abs(value) > _LARGEST_EXACT:
            raise ValueError(f"expected a float, got the integer {value}, which no float holds for certain")
        return float(value)
    raise TypeError(f"expected a float, got {kind_of(value)}")


def _from_string(parse: Callable[[str], Any], name: str) -> Callable[[Any, Any], Any]:
    def read(value: Any, _of: Any) -> Any:
        if not isinstance(value, str):
            raise TypeError(f"expected {name}, got {kind_of(value)}")
        try:
            return parse(value)
        except (ValueError, ArithmeticError, binascii.Error) as error:
            raise ValueError(f"expected {name}, got {shown(value)}") from error

    return read


def _instance(kind: type, write: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def to_json(value: Any) -> Any:
        if not isinstance(value, kind):
            raise TypeError(f"expected {kind.__name__}, got {shown(value)}")
        return write(value)

    return to_json


def _write_bytes(value: Any) -> str:
    if type(value) is not bytes:
        raise TypeError(f"expected bytes, got {kind_of(value)}")
    return base64.b64encode(value).decode()


def _write_moment(value: datetime.datetime) -> str:
    if value.utcoffset() is None:
        raise ValueError(f"expected a date and time with a time zone, got {shown(value)}")
    return value.isoformat()


def _write_date(value: Any) -> str:
    if not isinstance(value, datetime.date) or isinstance(value, datetime.datetime):
        raise TypeError(f"expected date, got {shown(value)}")
    return value.isoformat()


_bool, _int, _str = _exactly(bool, "a boolean"), _exactly(int, "an integer"), _exactly(str, "a string")
_none = _exactly(type(None), "null")

SCALARS: dict[Any, tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]] = {
    bool: (_bool, _bool),
    int: (_int, _int),
    float: (_write_float, _read_float),
    str: (_str, _str),
    type(None): (_none, _none),
    bytes: (_write_bytes, _from_string(lambda text: base64.b64decode(text, validate=True), "base64")),
    datetime.datetime: (
        _instance(datetime.datetime, _write_moment),
        _from_string(datetime.datetime.fromisoformat, "a date and time"),
    ),
    datetime.date: (_write_date, _from_string(datetime.date.fromisoformat, "a date")),
    uuid.UUID: (_instance(uuid.UUID, str), _from_string(uuid.UUID, "a UUID")),
    decimal.Decimal: (_instance(decimal.Decimal, str), _from_string(decimal.Decimal, "a decimal number")),
}
