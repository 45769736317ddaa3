"""Terms in Erlang syntax."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyglyn.errors import EncodeError, TermSyntaxError
from pyglyn.etf import Atom, BitString, Export, ImproperList, Pid, Port, Reference, TermMap, exact_key
from pyglyn.etf.text import format, parse, parse_terms, point_at
from tests.etf.steps import grows_with_the_size
from tests.strategies import terms, written_terms

A = Atom

BOTH_WAYS = [
    ("ok", A("ok")),
    ("'Hello world'", A("Hello world")),
    ("'it\\'s'", A("it's")),
    ("''", A("")),
    ("'end'", A("end")),
    ("'ü'", A("ü")),
    ("'a\\nb\\x{1}'", A("a\nb\x01")),
    ("true", True),
    ("nil", None),
    ("a@b_C9", A("a@b_C9")),
    ("0", 0),
    ("-17", -17),
    ("1.5", 1.5),
    ("-0.0", -0.0),
    ("1.0e16", 1e16),
    ("1.0e-7", 1e-7),
    ("1.7976931348623157e308", 1.7976931348623157e308),
    ("{}", ()),
    ('{order,<<"o1">>,3}', (A("order"), b"o1", 3)),
    ("[]", []),
    ("[a,[]|b]", ImproperList((A("a"), []), A("b"))),
    ("[1,2]", [1, 2]),
    ('"abc"', [97, 98, 99]),
    ('"a\\"\\n\\\\"', [97, 34, 10, 92]),
    ("<<>>", b""),
    ('<<"ü"/utf8>>', "ü".encode()),
    ('<<"say \\"hi\\"">>', b'say "hi"'),
    ("<<255,0>>", b"\xff\0"),
    ("<<1:4>>", BitString(b"\x10", 4)),
    ("<<97,0:7>>", BitString(b"a\0", 7)),
    ("#{}", {}),
    ("#{a => #{},1 => {}}", {A("a"): {}, 1: ()}),
    ("#{1 => a,1.0 => b}", TermMap([(1, A("a")), (1.0, A("b"))])),
    ("#{[] => #{{} => []}}", TermMap([([], {(): []})])),
    ("fun lists:map/2", Export("lists", "map", 2)),
    ("fun 'Elixir.Enum':'to list'/1", Export("Elixir.Enum", "to list", 1)),
]


@pytest.mark.parametrize(("text", "term"), BOTH_WAYS)
def test_text_and_term_stand_for_each_other(text: str, term: Any) -> None:
    assert format(term) == text
    assert parse(text) == term
    assert exact_key(parse(text)) == exact_key(term)


ONLY_READ = [
    ('  { order , << "o1" >> , 3 } . ', (A("order"), b"o1", 3)),
    ("% comment\n{a, % more\n b}", (A("a"), A("b"))),
    ("16#ff", 255),
    ("36#Zz", 1295),
    ("-2#101", -5),
    ("1_000_000", 1_000_000),
    ("+5", 5),
    ("1.5E+3", 1500.0),
    ("$a", 97),
    ("$\\n", 10),
    ("$\\\\", 92),
    ("$ ", 32),
    ("-$a", -97),
    ("$\\x{20AC}", 0x20AC),
    ("$\\^A", 1),
    ("'ok'", A("ok")),
    ("éa", A("éa")),
    ('"a" "b"\n"c"', [97, 98, 99]),
    ('""', []),
    ('"\\101\\x41\\x{41}\\s\\e\\d"', [65, 65, 65, 32, 27, 127]),
    ("[a|[b|[c]]]", [A("a"), A("b"), A("c")]),
    ("[a|[b|[c|d]]]", ImproperList((A("a"), A("b"), A("c")), A("d"))),
    ('[a|"b"]', [A("a"), 98]),
    ("[[]|[]]", [[]]),
    ('<<"abc">>', b"abc"),
    ('<<"a", 1, "b">>', b"a\1b"),
    ("<<1:16>>", b"\0\1"),
    ("<<1:1, 127:7>>", b"\xff"),
    ("<<-1:16>>", b"\xff\xff"),
    ('<<1:1, "a":15>>', b"\x80a"),
    ("<<0:0>>", b""),
    ("<<$a, 8364/utf8>>", "a€".encode()),
    ('<<1:1, "ü"/utf8, 0:7>>', b"\xe1\xde\0"),
    ("<<5/integer>>", b"\5"),
    ('<<"">>', b""),
    ("fun m : f / 1", Export("m", "f", 1)),
    ("#{a=>1}", {A("a"): 1}),
]


@pytest.mark.parametrize(("text", "term"), ONLY_READ)
def test_other_spellings_are_read(text: str, term: Any) -> None:
    assert parse(text) == term
    assert exact_key(parse(text)) == exact_key(term)


WRONG = [
    ("", 0, "expected a term, got the end"),
    ("   ", 3, "got the end"),
    ("{a", 2, "expected }"),
    ("{a,}", 3, "expected a term"),
    ("[a|]", 3, "expected a term"),
    ("[|a]", 1, "expected a term"),
    ("[a|b,c]", 4, "after the tail"),
    ("[a|[b]", 6, "expected ]"),
    ("{a]", 2, "expected }"),
    ("a b", 2, "the end of the text"),
    ("a, b", 1, "the end of the text"),
    ("{a, Foo}", 4, "Foo is a variable"),
    ("_", 0, "variable"),
    ("end", 0, "reserved word"),
    ('{"abc', 1, 'closing " is missing'),
    ("'abc", 0, "closing ' is missing"),
    ("12a", 2, "directly after a number"),
    ("1.5e", 3, "directly after a number"),
    ("37#1", 0, "base 37"),
    ("1#1", 0, "base 1"),
    ("2#102", 0, "no number in base 2"),
    ("1.0e999", 0, "beyond the range"),
    ("9" * 5000, 0, "base 16"),
    ("-a", 1, "number after the sign"),
    ("--1", 1, "number after the sign"),
    ("fun f/1", 5, "fun Module:Function"),
    ("fun m:f", 7, "arity"),
    ("fun m:f/256", 8, "arity"),
    ("fun (X) -> X end", 4, "expected an atom"),
    ("#{a}", 3, "expected =>"),
    ("#{a => 1, a => 2}", 0, "same key twice"),
    ("#{1 => 1, 16#1 => 2}", 0, "same key twice"),
    ("#a{}", 0, "begins no term"),
    ("<<256>>", 2, "does not fit 8 bits"),
    ("<<-129>>", 2, "does not fit 8 bits"),
    ("<<1:0>>", 2, "does not fit 0 bits"),
    ('<<"€">>', 2, "/utf8"),
    ("<<1.5>>", 5, "float"),
    ("<<a>>", 2, "expected an integer or a string"),
    ("<<1/float>>", 4, "expected utf8 or integer"),
    ("<<1:9999999>>", 4, "expected a size"),
    ("<<55296/utf8>>", 2, "no character"),
    ("<<1,>>", 4, "expected an integer"),
    ("<<1", 3, "expected >>"),
    ("$", 0, "begins no term"),
    ('"\\xz"', 0, "hexadecimal"),
    ('"\\x{110000}"', 0, "beyond the last character"),
    ('"\\x{D800}"', 0, "surrogate"),
    ("\ud800", 0, "begins no term"),
    ("'" + "a" * 256 + "'", 0, "256 characters"),
    ("<0.1.0>", 0, "begins no term"),
    ("Ωmega", 0, "in 'quotes'"),
    ("a..", 2, "the end of the text"),
]


@pytest.mark.parametrize(("text", "position", "says"), WRONG)
def test_a_syntax_error_says_what_and_where(text: str, position: int, says: str) -> None:
    with pytest.raises(TermSyntaxError) as caught:
        parse(text)
    assert says in str(caught.value)
    assert caught.value.position == position
    assert caught.value.text == text
    line, caret = point_at(caught.value).split("\n")
    assert caret.strip() == "^"
    assert len(caret) - 1 <= len(line)


def test_the_caret_stands_under_the_offending_character() -> None:
    with pytest.raises(TermSyntaxError) as caught:
        parse("{order,\n  [a, Foo]}")
    assert point_at(caught.value) == "  [a, Foo]}\n      ^"
    with pytest.raises(TermSyntaxError) as caught:
        parse("[" + "aaaa," * 40 + "!]")
    line, caret = point_at(caught.value).split("\n")
    assert line[caret.index("^")] == "!"


def test_several_terms_are_separated_by_commas_or_ended_by_full_stops() -> None:
    assert parse_terms("a, {b}, 3") == [A("a"), (A("b"),), 3]
    assert parse_terms("{a, 1}.\n{b, 2}.\n") == [(A("a"), 1), (A("b"), 2)]
    assert parse_terms("") == []
    assert parse_terms(" % nothing") == []
    with pytest.raises(TermSyntaxError):
        parse_terms("a b")


def test_identifiers_are_readable() -> None:
    fun = (Pid("stock@host", 12, 0, 3), Port("stock@host", 7, 3), Reference("stock@host", 3, (1, 2)))
    assert format(fun) == "{<stock@host.12.0>,#Port<stock@host.7>,#Ref<stock@host.2.1>}"


def test_values_that_encode_as_another_type_are_written_as_it() -> None:
    assert format(["ü", bytearray(b"x"), memoryview(b"\0")]) == '[<<"ü"/utf8>>,<<"x">>,<<0>>]'
    assert format({"k": "v"}) == '#{<<"k">> => <<"v">>}'


@pytest.mark.parametrize("value", [object(), [float("nan")], ({1, 2},), "\ud800"])
def test_what_is_no_term_is_not_written(value: Any) -> None:
    with pytest.raises(EncodeError):
        format(value)


def test_a_value_that_contains_itself_is_not_written() -> None:
    cycle: list[Any] = [A("a")]
    cycle.append(cycle)
    with pytest.raises(EncodeError, match="contains itself"):
        format(cycle)


def test_a_limit_cuts_the_text_off() -> None:
    assert format([A("abc")] * 1000, limit=20) == "[abc,abc,abc,abc,abc..."
    assert format(A("abc"), limit=20) == "abc"
    assert len(format(b"x" * 1_000_000, limit=100)) == 103


def test_long_integers_are_written_in_base_16_and_read() -> None:
    value = -(1 << 100_000) - 12345
    assert format(value).startswith("-16#1000")
    assert parse(format(value)) == value


@given(written_terms())
def test_parsing_what_was_written_gives_the_term(term: Any) -> None:
    again = parse(format(term))
    assert exact_key(again) == exact_key(term)
    assert type(again) is type(term)


@given(terms())
def test_every_term_can_be_written(term: Any) -> None:
    assert format(term)


@given(st.text(max_size=30) | st.text("{}[]<>|,=#\"'\\:/.-0123456789abXe_$ \n", max_size=40))
def test_any_text_is_a_term_or_a_syntax_error(text: str) -> None:
    try:
        term = parse(text)
    except TermSyntaxError as error:
        assert 0 <= error.position <= len(text)  # noqa: PT017
    else:
        assert exact_key(parse(format(term))) == exact_key(term)


@pytest.mark.beside
@pytest.mark.parametrize(
    "make",
    [
        lambda n: "{" * n + "}" * n,
        lambda n: "[a|" * n + "b" + "]" * n,
        lambda n: "[" * n,
        lambda n: "<<" + "1," * n + "1>>",
        lambda n: "<<" + "1:1," * n + "1>>",
        lambda n: '"' + "a" * n,
        lambda n: "'" + "\\a" * n,
        lambda n: "1" + "_1" * min(n, 4000) + " " * n,
        lambda n: '"a" ' * n,
        lambda n: " " * n + "% " * n,
        lambda n: "16#" + "f" * n,
        lambda n: "#{" * n + "1 => 1" + "}" * n,
    ],
)
def test_reading_grows_with_the_length(make: Any) -> None:
    def reading(n: int) -> Any:
        text = make(n)
        return lambda: _read(text)

    assert grows_with_the_size(reading)


def _read(text: str) -> None:
    try:
        parse(text)
    except TermSyntaxError as error:
        assert error.position <= len(text)  # noqa: PT017


LARGE = [b"a" * 10_000_000, "a" * 10_000_000, [7] * 10_000_000, [1000] * 10_000_000]


@pytest.mark.parametrize("term", LARGE, ids=["binary", "str", "string", "list"])
def test_a_limit_holds_for_one_large_value_too(term):
    text = format((1, term), limit=50)
    assert len(text) == 53
    assert text.endswith("...")
