"""Text of others in a line of ours: nothing in it moves a cursor, ends the line or turns the text around."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from pyglyn.escaping import escaped

TURN_THE_TEXT = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ä 漢 🙂\ttab", "plain ä 漢 🙂\ttab"),
        ("two\nlines\r", "two\\nlines\\x0d"),
        ("\x1b[2Jgone\x07", "\\x1b[2Jgone\\x07"),
        ("\x7f\x80\x9b", "\\x7f\\x80\\x9b"),
        ("safe\u202eexe.txt\u2066\u200f", "safe\\u202eexe.txt\\u2066\\u200f"),
        ("a\u2028b\u2029c", "a\\u2028b\\u2029c"),
        (7, "7"),
    ],
)
def test_what_could_do_something_is_shown_as_its_number(text: object, shown: str) -> None:
    assert escaped(text) == shown


def test_no_control_and_nothing_that_turns_the_text_around_is_left() -> None:
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    left = set(escaped(every)) - {"\t"}
    assert not [each for each in left if unicodedata.category(each) in ("Cc", "Zl", "Zp")]
    assert not [each for each in left if unicodedata.bidirectional(each) in TURN_THE_TEXT]
    assert not left & {"\u200e", "\u200f"}


def test_a_long_text_is_cut_before_it_is_escaped() -> None:
    assert escaped("x" * 10, 10) == "x" * 10
    assert escaped("x" * 11, 10) == "x" * 10 + "…"
    assert escaped("\n" * 11, 2) == "\\n\\n…"
    assert escaped("", 0) == ""
