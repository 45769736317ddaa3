"""Terms and text as ``io_lib:format/2`` makes them. Layer: etf, pure.

Source: stdlib, "io", ``format/3``; the results are compared with those of OTP 25 and 28. A map's keys come in
the order in which the node wrote them whose map it is; ``~k`` and ``~K`` change nothing. Lists are strings as
they are with OTP's default, Latin-1 (``+pc latin1``).

Unlike OTP's, it takes little time whatever is asked for, since peers ask: of the arguments so much is shown
as `io_write.Cut` leaves, of the text `MAX_TEXT` characters, and a format has at most `MAX_CONTROLS` controls.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any, Final

import attrs

from pyglyn.etf import formatter
from pyglyn.etf.io_pretty import PRINTABLE, Shower, printed
from pyglyn.etf.io_write import MAX_NESTING, UNLIMITED, Cut, Names, atom_name, is_atom, write
from pyglyn.etf.terms import ImproperList, Term

LINE: Final = 80
MAX_FIELD = 1 << 16
MAX_CONTROLS = 2_000
MAX_TEXT = 1 << 18
"""Characters after which the rest is dots: fields and terms may be much longer than what they are made of."""
_EXACT = Context(prec=MAX_FIELD + 400)


class BadFormat(ValueError):
    """The format and the arguments do not fit: ``badarg``."""


@attrs.frozen
class _Control:
    """One control sequence of a format: ``~F.P.PadModC``."""

    name: str
    width: int | None
    precision: int | None
    pad: str
    modifiers: str
    args: list[Term]
    names: Names | None = None

    @property
    def unicode(self) -> bool:
        return "t" in self.modifiers


def format(template: Term, args: Term, names: Names | None = None) -> str:
    """Format as ``io_lib:format/2`` does.

    Args:
        template: an atom, a binary or characters.
        args: the list of arguments.
        names: the numbers of nodes; None for their names instead.

    Raises:
        BadFormat: they do not fit; OTP's reason is ``badarg``.
    """
    if not isinstance(args, list):
        raise BadFormat("the arguments are a list")
    if len(args) > 3 * MAX_CONTROLS:
        raise BadFormat("too many arguments")
    text: list[str] = []
    size = column = 0
    for piece in _scan(_template(template), args):
        made = piece if isinstance(piece, str) else _built(attrs.evolve(piece, names=names), column)
        text.append(made)
        size += len(made)
        if size > MAX_TEXT:
            return "".join(text)[:MAX_TEXT] + "..."
        column = _column(made, column)
    return "".join(text)


def characters(data: Term) -> str:
    """The text of Erlang's chardata: a binary in UTF-8, or a list of code points, binaries and lists.

    Raises:
        ValueError: something else.
    """
    return "".join(_characters(data, "utf-8", 0))


def _characters(data: Term, encoding: str, depth: int) -> Iterator[str]:
    if depth > MAX_NESTING:
        raise BadFormat("characters nested too deeply")
    if isinstance(data, bytes):
        try:
            yield data.decode(encoding)
        except UnicodeDecodeError:
            yield data.decode("latin-1")  # as OTP's own servers do
    elif isinstance(data, list):
        for item in data:
            yield from _characters(item, encoding, depth + 1)
    elif isinstance(data, ImproperList):
        yield from _characters([*data.elements, data.tail], encoding, depth)
    elif isinstance(data, int) and not isinstance(data, bool) and 0 <= data < 0x110000:
        yield chr(data)
    else:
        raise BadFormat("no characters")


def _template(template: Term) -> str:
    return atom_name(template) if is_atom(template) else characters(template)


def _column(text: str, column: int) -> int:
    """The column behind a text that begins in one."""
    newline = text.rfind("\n")
    if newline < 0 and "\t" not in text:
        return column + len(text)
    column = column if newline < 0 else 0
    for character in text[newline + 1 :]:
        column = (column + 8) // 8 * 8 if character == "\t" else column + 1
    return column


# --- scanning -------------------------------------------------------------------------------------------


class _Arguments:
    """What is left of the arguments."""

    def __init__(self, args: list[Term]) -> None:
        self._left = iter(args)
        self._cut = Cut()

    def next(self, characters: Container[int] = ()) -> Any:
        for value in self._left:
            return self._cut.term(value, characters)
        raise BadFormat("too few arguments")

    def integer(self) -> int:
        value = self.next()
        if type(value) is not int:
            raise BadFormat("a width or precision is an integer")
        return value

    def end(self) -> None:
        if list(self._left):
            raise BadFormat("too many arguments")


def _scan(template: str, args: list[Term]) -> Iterator[str | _Control]:
    values, at, end = _Arguments(args), 0, len(template)
    ended, controls = template + "\0", 0
    while at < end:
        tilde = template.find("~", at)
        if tilde < 0:
            yield template[at:]
            break
        yield template[at:tilde]
        controls += 1
        if controls > MAX_CONTROLS:
            raise BadFormat("too many controls")
        control, at = _control(ended, tilde + 1, values)
        yield control
    values.end()


def _control(text: str, at: int, values: _Arguments) -> tuple[_Control, int]:
    left = text[at] == "-"
    width, at = _number(text, at + left, values)
    if width is not None:
        width = -width if left else width
    precision, pad = None, " "
    if text[at] == ".":
        precision, at = _number(text, at + 1, values)
        if precision is not None and precision < 0:
            raise BadFormat("a negative precision")
    if text[at] == ".":
        at += 1
        pad, at = (chr(values.integer()), at + 1) if text[at] == "*" else (text[at], at + 1)
    start = at
    while text[at] in "tlkK":
        if text[at] == "K":
            values.next()
        at += 1
    name = text[at]
    if name not in _CONTROLS:
        raise BadFormat(f"no control ~{name}")
    count = _ARGUMENTS.get(name, 1)
    if max(abs(width or 0), precision or 0) > MAX_FIELD:
        raise BadFormat("too wide")
    given = [values.next(_CHARACTERS.get(name, ())) for _ in range(count)]
    return _Control(name, width, precision, pad, text[start:at], given), at + 1


def _number(text: str, at: int, values: _Arguments) -> tuple[int | None, int]:
    if text[at] == "*":
        return values.integer(), at + 1
    start = at
    while text[at] in "0123456789":
        at += 1
    if at - start > 9:
        raise BadFormat("too wide")
    return int(text[start:at]) if at > start else None, at


# --- building -------------------------------------------------------------------------------------------


def _built(control: _Control, column: int) -> str:
    try:
        return _CONTROLS[control.name](control, column)
    except (TypeError, ArithmeticError) as error:
        raise BadFormat(str(error)) from error


def _field(text: str, control: _Control) -> str:
    """In a field of the width given; what does not fit are stars, as it could be taken for something else."""
    width = control.width
    if width is None:
        return text
    if len(text) > abs(width):
        return "*" * abs(width)
    return _padded(text, width, control.pad)


def _padded(text: str, width: int, pad: str) -> str:
    return text.ljust(-width, pad) if width < 0 else text.rjust(width, pad)


def _write_control(control: _Control, column: int) -> str:
    depth = control.args[1] if control.name == "W" else UNLIMITED
    return _limited(
        write(control.args[0], depth=_depth(depth), unicode=control.unicode, names=control.names), control
    )


def _limited(text: str, control: _Control) -> str:
    """A term in a field: as `_field`, and the precision is the field's width where it is smaller."""
    width, precision = control.width, control.precision
    if precision is not None and (width is None or precision < abs(width)):
        text = (
            "*" * precision
            if len(text) > precision
            else text.rjust(precision, control.pad)
            if width is None
            else text
        )
    return _field(text, control)


def _depth(depth: Term) -> int:
    if type(depth) is not int:
        raise BadFormat("a depth is an integer")
    return depth


def _print_control(control: _Control, column: int) -> str:
    depth = _depth(control.args[1]) if control.name == "P" else UNLIMITED
    line = LINE if control.width is None else control.width
    if line < 0:
        raise BadFormat("a line's width is not negative")
    column = column if control.precision is None else max(control.precision - 1, 0)
    shower = Shower(control.unicode, "l" not in control.modifiers, control.names)
    return printed(shower.shown(control.args[0], depth), line, column + 1)


def _string_control(control: _Control, column: int) -> str:
    value = control.args[0]
    encoding = "utf-8" if control.unicode else "latin-1"
    if is_atom(value):
        text = atom_name(value)
    elif isinstance(value, bytes) and not control.unicode:
        text = value.decode("latin-1")
    elif isinstance(value, (bytes, list, ImproperList)):
        text = "".join(_characters(value, encoding, 0))
    else:
        raise BadFormat("no string")
    if not control.unicode and any(ord(character) > 255 for character in text):
        raise BadFormat("characters beyond Latin-1 need ~ts")
    width, precision = control.width, control.precision
    if precision is None:
        precision = len(text) if width is None else min(abs(width), len(text))
    elif width is not None and abs(width) < precision:
        raise BadFormat("a string's precision is within its width")
    text = text[:precision].ljust(precision, control.pad)
    return text if width is None else _padded(text, width, control.pad)


def _char_control(control: _Control, column: int) -> str:
    code = _integer(control.args[0])
    character = chr(code if control.unicode else code & 255)
    if control.precision is not None:
        text = character * control.precision
        return text if control.width is None else _field(text, control)
    return character * (1 if control.width is None else abs(control.width))


def _integer(value: Term) -> int:
    if type(value) is not int:
        raise BadFormat("no integer")
    return value


def _integer_control(control: _Control, column: int) -> str:
    value = _integer(control.args[0])
    base = 10 if control.precision is None else control.precision
    if not 2 <= base <= 36:
        raise BadFormat("a base is 2 to 36")
    digits = _digits(abs(value), base)
    if control.name in "BX#":
        digits = digits.upper()
    prefix = ""
    if control.name in "xX":
        given = control.args[1]
        prefix = atom_name(given) if is_atom(given) else characters(given)
    elif control.name in "+#":
        prefix = f"{base}#"
    return _field(f"{'-' if value < 0 else ''}{prefix}{digits}", control)


def _digits(value: int, base: int) -> str:
    if base == 10:
        return formatter._format_int(value)
    if value >= formatter._LONG_INTEGER:
        raise BadFormat("too large to be written in that base")
    text = ""
    while value or not text:
        value, digit = divmod(value, base)
        text = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + text
    return text


def _float_control(control: _Control, column: int) -> str:
    value = control.args[0]
    if type(value) is not float:
        raise BadFormat("no float")
    digits = 6 if control.precision is None else control.precision
    how = control.name
    if how == "g":
        how = "e"
        if 0.1 <= abs(value) < 10000:
            before = len(str(int(abs(value)))) if abs(value) >= 1 else 0
            if digits > before:
                how, digits = "f", digits - before
    text = _exponential(value, digits) if how == "e" else _fixed(value, digits)
    return _field(text, control)


def _fixed(value: float, digits: int) -> str:
    if digits < 1:
        raise BadFormat("at least one digit")
    return f"{Decimal(value).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP, _EXACT):f}"


def _exponential(value: float, digits: int) -> str:
    if digits < 2:
        raise BadFormat("at least two digits")
    exact = Decimal(repr(value))
    exponent = exact.adjusted() if value else 0
    rounded = exact.scaleb(-exponent).quantize(Decimal(1).scaleb(1 - digits), ROUND_HALF_UP)
    if abs(rounded) >= 10:
        rounded, exponent = rounded.scaleb(-1).quantize(Decimal(1).scaleb(1 - digits)), exponent + 1
    return f"{rounded:f}e{exponent:+d}"


def _repeated(text: str) -> Callable[[_Control, int], str]:
    return lambda control, column: text * (1 if control.width is None else abs(control.width))


_CHARACTERS: dict[str, Container[int]] = {
    "s": range(0x110000),
    **dict.fromkeys("pP", PRINTABLE),
    **dict.fromkeys("xX", range(0x110000)),
}
_ARGUMENTS = {"W": 2, "P": 2, "x": 2, "X": 2, "n": 0, "~": 0}
_CONTROLS: dict[str, Callable[[_Control, int], str]] = {
    **dict.fromkeys("wW", _write_control),
    **dict.fromkeys("pP", _print_control),
    **dict.fromkeys("bBxX+#", _integer_control),
    **dict.fromkeys("efg", _float_control),
    "s": _string_control,
    "c": _char_control,
    "i": lambda control, column: "",
    "n": _repeated("\n"),
    "~": _repeated("~"),
}
