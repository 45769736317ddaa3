"""JSON of single values: numbers, strings, dates; strict both ways. Pure.

``SCALARS`` maps a type to what writes it (value to JSON value) and what reads it; both raise TypeError or
ValueError with what was expected and what came.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import decimal
import sys
import uuid
from collections.abc import Callable
from typing import Any

_LARGEST_EXACT = 2**53
_LARGEST = sys.float_info.max


def kind_of(value: object) -> str:
    """Name the kind of a JSON value, with its article."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a float"
        case str():
            return "a string"
        case list():
            return "an array"
        case dict():
            return "an object"
    return f"a {type(value).__name__}"


def shown(value: object) -> str:
    """Show a value in an error text, shortened."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _exactly(kind: type, name: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if type(value) is not kind and (not isinstance(value, kind) or isinstance(value, bool)):
            raise TypeError(f"expected {name}, got {kind_of(value)}")
        return value

    return check


def _float(value: Any) -> float:
    if isinstance(value, float):
        if not -_LARGEST <= value <= _LARGEST:
            raise ValueError(f"expected a finite float, got {value}")
        return float(value)
    if isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > _LARGEST_EXACT:
            raise ValueError(f"expected a float, got the integer {value}, which no float holds for certain")
        return float(value)
    raise TypeError(f"expected a float, got {kind_of(value)}")


def _none(value: Any) -> None:
    if value is not None:
        raise TypeError(f"expected null, got {kind_of(value)}")


def _from_string(parse: Callable[[str], Any], name: str) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if not isinstance(value, str):
            raise TypeError(f"expected {name}, got {kind_of(value)}")
        try:
            return parse(value)
        except (ValueError, ArithmeticError, binascii.Error) as error:
            raise ValueError(f"expected {name}, got {shown(value)}") from error

    return read


def _checked(kind: type, write: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def to_json(value: Any) -> Any:
        if not isinstance(value, kind):
            raise TypeError(f"expected {kind.__name__}, got {shown(value)}")
        return write(value)

    return to_json


_bool, _int, _str = _exactly(bool, "a boolean"), _exactly(int, "an integer"), _exactly(str, "a string")

SCALARS: dict[Any, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    bool: (_bool, _bool),
    int: (_int, _int),
    float: (_float, _float),
    str: (_str, _str),
    type(None): (_none, _none),
    bytes: (
        _checked(bytes, lambda value: base64.b64encode(value).decode()),
        _from_string(lambda text: base64.b64decode(text, validate=True), "base64"),
    ),
    datetime.datetime: (
        _checked(datetime.datetime, datetime.datetime.isoformat),
        _from_string(datetime.datetime.fromisoformat, "a date and time"),
    ),
    datetime.date: (
        _checked(datetime.date, datetime.date.isoformat),
        _from_string(datetime.date.fromisoformat, "a date"),
    ),
    uuid.UUID: (_checked(uuid.UUID, str), _from_string(uuid.UUID, "a UUID")),
    decimal.Decimal: (_checked(decimal.Decimal, str), _from_string(decimal.Decimal, "a decimal number")),
}
