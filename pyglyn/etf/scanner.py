"""Erlang text to tokens, as far as terms need them. Layer: etf, pure.

Source: Erlang Reference Manual, "Data Types" and "Character Set"; ``erl_scan.erl`` of OTP 25. Triple-quoted
strings and sigils (OTP 27) and floats in other bases (OTP 28) are not supported.
"""

from __future__ import annotations

import re
from enum import Enum
from math import isfinite
from typing import TypeAlias

from pyglyn.errors import TermSyntaxError

_TOKEN = re.compile(
    r"""
    (?P<space>   (?: \s | %[^\n]* )+ )
  | (?P<based>   [0-9]+(?:_[0-9]+)* \# [0-9A-Za-z]+(?:_[0-9A-Za-z]+)* )
  | (?P<float>   [0-9]+(?:_[0-9]+)* \. [0-9]+(?:_[0-9]+)* (?: [eE][+-]?[0-9]+(?:_[0-9]+)* )? )
  | (?P<integer> [0-9]+(?:_[0-9]+)* )
  | (?P<atom>    [a-zß-öø-ÿ] [0-9A-Za-zÀ-ÖØ-öø-ÿ_@]* )
  | (?P<quoted>  '[^'\\]*(?:\\.[^'\\]*)*' )
  | (?P<string>  "[^"\\]*(?:\\.[^"\\]*)*" )
  | (?P<char>    \$ (?: \\x\{[0-9A-Fa-f]+\} | \\x[0-9A-Fa-f]{2} | \\[0-7]{1,3} | \\\^. | \\. | [^\\] ) )
  | (?P<mark>    << | >> | => | \#\{ | [][{}(),|:/.+-] )
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:x\{([0-9A-Fa-f]+)\}|x([0-9A-Fa-f]{2})|([0-7]{1,3})|\^(.)|(.))", re.DOTALL)
_CONTROLS = {"b": 8, "d": 127, "e": 27, "f": 12, "n": 10, "r": 13, "s": 32, "t": 9, "v": 11}
_VARIABLE = re.compile(r"[A-Z_À-ÖØ-Þ][\w@]*")
_WORD = re.compile(r"\w+")

_WORDS = """
    after and andalso band begin bnot bor bsl bsr bxor case catch cond div else end fun if let maybe not of
    or orelse receive rem try when xor
"""
RESERVED = frozenset(_WORDS.split())
"""Words that are atoms only in quotes."""


class Kind(Enum):
    """What a token is; ``MARK`` is punctuation."""

    NUMBER = 1
    ATOM = 2
    STRING = 3
    CHAR = 4
    MARK = 5
    FUN = 6
    END = 7


Value: TypeAlias = int | float | str


class Scanner:
    """The tokens of a text, one at a time; ``kind``, ``value`` and ``start`` are those of the current one."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.kind = Kind.END
        self.value: Value = ""
        self.start = 0
        self._next = 0
        self.advance()

    def error(self, message: str, position: int | None = None) -> TermSyntaxError:
        """The error at the current token, or at another position."""
        at = self.start if position is None else position
        return TermSyntaxError(f"{message}, at character {at + 1}", text=self.text, position=at)

    def expected(self, what: str) -> TermSyntaxError:
        """The error for anything but ``what`` at the current token."""
        return self.error(f"expected {what}, got {self.shown()}")

    def shown(self) -> str:
        """The current token for a message."""
        if self.kind is Kind.END:
            return "the end of the text"
        shown = self.text[self.start : self._next]
        return shown if len(shown) <= 30 else f"{shown[:27]}..."

    def ended(self) -> bool:
        """Tell whether all tokens were read."""
        return self.kind is Kind.END

    def at(self, mark: str) -> bool:
        """Tell whether the current token is this punctuation."""
        return self.kind is Kind.MARK and self.value == mark

    def skip(self, mark: str) -> bool:
        """Go past this punctuation if it is the current token."""
        if not self.at(mark):
            return False
        self.advance()
        return True

    def following(self) -> str:
        """The first character of the next token, or nothing."""
        space = _TOKEN.match(self.text, self._next)
        at = space.end() if space and space.lastgroup == "space" else self._next
        return self.text[at : at + 1]

    def advance(self) -> None:
        """Read the next token.

        Raises:
            TermSyntaxError: there is none.
        """
        found = _TOKEN.match(self.text, self._next)
        if found and found.lastgroup == "space":
            self._next = found.end()
            found = _TOKEN.match(self.text, self._next)
        self.start = self._next
        if self.start == len(self.text):
            self.kind, self.value = Kind.END, ""
            return
        if not found:
            raise self._unreadable()
        self._next = found.end()
        self._accept(str(found.lastgroup), found.group())

    def _unreadable(self) -> TermSyntaxError:
        char = self.text[self.start]
        if variable := _VARIABLE.match(self.text, self.start):
            return self.error(f"{variable.group()} is a variable; an atom like this stands in 'quotes'")
        if char in "'\"":
            return self.error(f"the closing {char} is missing")
        if char.isalpha():
            return self.error(f"an atom that begins with {char} stands in 'quotes'")
        return self.error(f"{char!r} begins no term")

    def _accept(self, group: str, text: str) -> None:
        if group == "mark":
            self.kind, self.value = Kind.MARK, text
        elif group == "atom":
            self.kind, self.value = (Kind.FUN if text == "fun" else Kind.ATOM), text
            if text in RESERVED and text != "fun":
                raise self.error(f"{text} is a reserved word; as an atom it stands in 'quotes'")
        elif group == "quoted":
            self.kind, self.value = Kind.ATOM, self._unescaped(text[1:-1])
        elif group == "string":
            self.kind, self.value = Kind.STRING, self._unescaped(text[1:-1])
        elif group == "char":
            self.kind, self.value = Kind.CHAR, ord(self._unescaped(text[1:]))
        else:
            self.kind, self.value = Kind.NUMBER, self._number(group, text.replace("_", ""))
            if word := _WORD.match(self.text, self._next):
                raise self.error(f"{word.group()} directly after a number", self._next)

    def _number(self, group: str, text: str) -> int | float:
        if group == "float":
            value = float(text)
            if not isfinite(value):
                raise self.error("a float beyond the range of 64 bits")
            return value
        base, _, digits = text.partition("#") if group == "based" else ("10", "", text)
        if len(base) > 2 or not 2 <= int(base) <= 36:
            raise self.error(f"base {base}, 2 to 36 are possible")
        try:
            return int(digits, int(base))
        except ValueError as error:
            if "limit" in str(error):
                raise self.error("an integer of so many digits is written in base 16") from None
            raise self.error(f"{digits} is no number in base {base}") from None

    def _unescaped(self, text: str) -> str:
        if "\\" in text:
            text = _ESCAPE.sub(self._escape, text)
        for char in text:
            if 0xD800 <= ord(char) <= 0xDFFF:
                raise self.error("half of a surrogate pair is no character")
        return text

    def _escape(self, found: re.Match[str]) -> str:
        long_hex, short_hex, octal, control, char = found.groups()
        if char is not None:
            if char == "x":
                raise self.error("expected hexadecimal digits after \\x")
            return chr(_CONTROLS[char]) if char in _CONTROLS else char
        if control is not None:
            if not "@" <= control <= "_":
                raise self.error(f"\\^{control} is no control character")
            return chr(ord(control) & 31)
        code = int(octal, 8) if octal is not None else int(long_hex or short_hex, 16)
        if code > 0x10FFFF:
            raise self.error(f"{code:#x} is beyond the last character")
        return chr(code)
