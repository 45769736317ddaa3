"""JSON values <-> text, under the rules of the Gleam stores. Pure.

What the Gleam side reads and writes (``gleam_json``): no spaces, UTF-8 unescaped, and a float always with a
decimal point, because its float decoder refuses ``10``. Python's encoder writes ``1e+22``; here it is
``1.0e+22``. NaN and the infinities are refused both ways. Not supported: JSON with duplicate keys keeps the
last one, as Python does.
"""

from __future__ import annotations

import json
import re
from typing import Any, TypeAlias

from pyglyn.errors import EventDecodeError, EventEncodeError

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"

MAX_DEPTH = 200
"""Nesting beyond which a value is refused: far more than data has, far less than the interpreter's stack."""

# A float whose shortest form has an exponent but no decimal point. It may also match inside a string, which
# costs only the slower writer.
_EXPONENT_WITHOUT_POINT = re.compile(r"(?<![\d.])\d+e[-+]?\d")
_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_quote = json.encoder.encode_basestring
_c_encoder: Any = getattr(json.encoder, "c_make_encoder", None)
# What the encoder does for each value anew; without a look for circles, which end in a RecursionError.
_encode_parts: Any = (
    _c_encoder(None, _encoder.default, _quote, None, ":", ",", False, False, False)
    if _c_encoder is not None
    else lambda value, _level: (_encoder.encode(value),)
)


def dump(value: JsonValue) -> str:
    """Write a JSON value.

    Raises:
        EventEncodeError: not a JSON value, not a finite number, nested too deeply, or text that is no
        Unicode.
    """
    try:
        text = "".join(_encode_parts(value, 0))
        if _EXPONENT_WITHOUT_POINT.search(text):
            parts: list[str] = []
            _write(value, parts, 0)
            text = "".join(parts)
        if not text.isascii():
            text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise EventEncodeError(f"not writable as JSON: {error}", value=value) from error
    return text


def _write(value: JsonValue, parts: list[str], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    if isinstance(value, str):
        parts.append(_quote(value))
    elif isinstance(value, float):
        parts.append(_float_text(value))
    elif isinstance(value, dict):
        for index, (key, item) in enumerate(value.items()):
            parts.append(("," if index else "{") + _quote(key) + ":")
            _write(item, parts, depth + 1)
        parts.append("}" if value else "{}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            parts.append("," if index else "[")
            _write(item, parts, depth + 1)
        parts.append("]" if value else "[]")
    else:
        parts.append(_encoder.encode(value))


def _float_text(value: float) -> str:
    text = float.__repr__(value)
    mantissa, exponent, power = text.partition("e")
    return text if "." in mantissa else f"{mantissa}.0{exponent}{power}"


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _refuse_overflow(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:40]} does not fit a float")
    return number


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)
_checking_decoder = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_refuse_overflow)
scan_once: Any = _decoder.scan_once  # type: ignore[attr-defined]
"""Reads the value at a place of a text, and returns where it ends; StopIteration where there is none."""


def _scan(text: str) -> tuple[JsonValue, int]:
    """Read the value at the start of the text: what the decoder does, without looking for blanks."""
    try:
        found: tuple[JsonValue, int] = scan_once(text, 0)
    except StopIteration:
        return _decoder.decode(text), len(text)
    return found


def load(text: str, *, check_floats: bool = False) -> JsonValue:
    """Read a JSON text.

    Args:
        text: one value, perhaps with blanks around it.
        check_floats: refuse literals beyond a float here; else they come as an infinity, which whoever
            knows the types has to refuse (it is twice as fast).

    Raises:
        EventDecodeError: not JSON, or nested too deeply; it has the text in ``payload``.
    """
    try:
        value: JsonValue
        if check_floats:
            value = _checking_decoder.decode(text)
        else:
            value, end = _scan(text)
            if end != len(text):  # blanks around it, or more than one value
                value = _decoder.decode(text)
    except json.JSONDecodeError as error:
        raise EventDecodeError([f"no JSON: {error.msg} at character {error.pos}"], payload=text) from error
    except ValueError as error:
        raise EventDecodeError([f"no JSON: {error}"], payload=text) from error
    except RecursionError as error:
        raise EventDecodeError(["no JSON: nested too deeply"], payload=text) from error
    return value


def dump_metadata(pairs: list[tuple[str, str]]) -> str:
    """Write metadata as the stores keep it: ``[["k","v"]]``, ``[]`` when empty."""
    return dump([[key, value] for key, value in pairs]) if pairs else "[]"


def load_metadata(text: str | None) -> list[tuple[str, str]]:
    """Read stored metadata; NULL (allowed in SQLite) counts as empty.

    Raises:
        EventDecodeError: not an array of arrays of two strings.
    """
    if text is None or text == "[]":
        return []
    rows = load(text)
    if not isinstance(rows, list):
        raise EventDecodeError(["metadata is no array"], payload=text)
    pairs = [(row[0], row[1]) for row in rows if isinstance(row, list) and len(row) == 2]
    if len(pairs) != len(rows) or not all(type(k) is str and type(v) is str for k, v in pairs):
        index = next(n for n, row in enumerate(rows) if not _is_pair(row))
        raise EventDecodeError([f"expected two strings @ metadata[{index}]"], payload=text)
    return pairs  # type: ignore[return-value]


def _is_pair(row: JsonValue) -> bool:
    return isinstance(row, list) and len(row) == 2 and all(isinstance(part, str) for part in row)
