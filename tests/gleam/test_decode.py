"""Decoders by hand: where Python needs rules of its own; what Gleam has is in test_decode_as_gleam."""

from __future__ import annotations

import decimal
import enum
import uuid
from typing import Any

import attrs
import hypothesis.strategies as st
import pytest
from hypothesis import given

from pyglyn.errors import DecodeErrors
from pyglyn.etf import Atom, BitString, Export, ImproperList, Pid, Port, Reference, Term, TermMap
from pyglyn.gleam import DecodeError, Decoder, Error, Ok, decode
from tests.gleam.terms import any_term


def errors_of(decoder: Decoder[Any], term: Term) -> list[DecodeError]:
    with pytest.raises(DecodeErrors) as caught:
        decoder.decode(term)
    return list(caught.value.errors)  # type: ignore[arg-type]


@attrs.frozen
class OrderConfirmed:
    id: str


def test_a_constructor_by_its_tag_and_fields() -> None:
    order = decode.field(0, decode.atom_named("order_confirmed")).then(
        lambda _: decode.field(1, decode.string).map(OrderConfirmed)
    )
    assert order.decode((Atom("order_confirmed"), b"o1")) == OrderConfirmed("o1")
    assert errors_of(order, (Atom("order_lost"), b"o1")) == [DecodeError("order_confirmed", "Atom", ["0"])]
    assert errors_of(order, (Atom("order_confirmed"), 1)) == [DecodeError("String", "Int", ["1"])]


def test_run_gives_a_result() -> None:
    assert decode.run(5, decode.int) == Ok(5)
    assert decode.run(b"5", decode.int) == Error([DecodeError("Int", "String")])


@pytest.mark.parametrize(
    ("term", "name"),
    [
        (Pid("a@b", 1, 2, 3), "Pid"),
        (Port("a@b", 1, 2), "Port"),
        (Reference("a@b", 1, (1,)), "Reference"),
        (Export("m", "f", 1), "Function"),
        (ImproperList((1,), 2), "List"),
        (TermMap([(1, 2), (1.0, 3)]), "Dict"),
        (BitString(b"\x80", 1), "BitArray"),
        ("no term", "Unknown"),
    ],
)
def test_classify_names_every_kind_of_term(term: Term, name: str) -> None:
    """gleam_stdlib, classify_dynamic/1; the kinds not met in the recorded results."""
    assert decode.classify(term) == name


def test_atoms() -> None:
    assert decode.atom.decode(Atom("a")) is Atom("a")
    assert decode.atom_named("nil").decode(None) is None
    assert decode.atom_named("true").decode(True) is True
    for term, found in ((True, "Bool"), (None, "Nil"), (b"a", "String"), (1, "Int")):
        assert errors_of(decode.atom, term) == [DecodeError("Atom", found)]
    assert errors_of(decode.atom_named("true"), 1) == [DecodeError("true", "Int")]


def test_an_improper_list_is_no_list() -> None:
    """Gleam takes its elements and forgets the tail."""
    assert errors_of(decode.list_of(decode.int), ImproperList((1, 2), 3)) == [DecodeError("List", "List")]


def test_keys_that_become_one_are_an_error() -> None:
    """Gleam has no such thing for 1 and 1.0, and keeps the last of two keys mapped to one."""
    merged = [DecodeError("Dict with distinct keys", "Dict")]
    by_length = decode.dict_of(decode.string.map(len), decode.int)
    assert by_length.decode({b"a": 1, b"bb": 2}) == {1: 1, 2: 2}
    assert errors_of(by_length, {b"a": 1, b"b": 2}) == merged
    assert errors_of(decode.dict_of(decode.dynamic, decode.int), TermMap([(1, 1), (1.0, 2)])) == merged
    lists = TermMap([([1], 1)])
    assert errors_of(decode.dict_of(decode.dynamic, decode.int), lists) == [
        DecodeError("hashable key", "List", ["keys"])
    ]


@pytest.mark.parametrize(
    ("key", "found"),
    [(1, None), (1.0, 5), (True, None), ((1,), None), ((1.0,), 6), ("a", 7), (b"a", 7), (None, 8)],
)
def test_map_keys_are_looked_up_as_erlang_compares_them(key: Any, found: int | None) -> None:
    term: Term = {1.0: 5, (1.0,): 6, b"a": 7, None: 8}
    assert decode.optional_field(key, None, decode.dynamic).decode(term) == found
    both = TermMap([(1, 0), *term.items()])  # type: ignore[union-attr]
    assert decode.optional_field(key, None, decode.dynamic).decode(both) == (
        0 if key == 1 and key is not True and type(key) is int else found
    )


def test_a_key_no_dict_can_have_is_missing() -> None:
    assert errors_of(decode.at([[1]], decode.int), {b"a": 1}) == [  # type: ignore[list-item]
        DecodeError("Field", "Nothing", ["<List>"])
    ]
    assert decode.at([[1]], decode.int).decode(TermMap([([1], 3)])) == 3  # type: ignore[list-item]


@pytest.mark.parametrize("position", [-1, 3, 10**30])
def test_positions_outside_a_tuple_are_missing(position: int) -> None:
    assert errors_of(decode.field(position, decode.int), (1, 2, 3)) == [
        DecodeError("Field", "Nothing", [str(position)])
    ]


@pytest.mark.parametrize(
    ("key", "written"),
    [
        ("é", "é"),
        (b"\xff", "<String>"),
        (5, "5"),
        (-1.5, "-1.5"),
        (1e25, "1.0e25"),
        (1.5e-7, "1.5e-7"),
        (Atom("a"), "<Atom>"),
        (True, "<Bool>"),
        ((1,), "<Array>"),
    ],
)
def test_paths_name_keys_as_gleam_does(key: Any, written: str) -> None:
    assert errors_of(decode.at([key], decode.int), {}) == [DecodeError("Field", "Nothing", [written])]


# --- functions that refuse -------------------------------------------------------------------------


def parse_even(number: int) -> int:
    if number % 2:
        raise ValueError("odd")
    return number


class Color(enum.Enum):
    RED = 1


@pytest.mark.parametrize(
    ("decoder", "term", "expected"),
    [
        (decode.int.map(parse_even), 3, "parse_even"),
        (decode.string.map(uuid.UUID), b"x", "UUID"),
        (decode.string.map(decimal.Decimal), b"x", "Decimal"),
        (decode.string.map(lambda name: Color[name]), b"BLUE", "a value its decoder accepts"),
        (decode.int.then(lambda number: decode.success(10 // number)), 0, "a value its decoder accepts"),
        (
            decode.field(0, decode.int, lambda n: decode.success(parse_even(n))),
            (3,),
            "a value its decoder accepts",
        ),
    ],
)
def test_a_function_may_refuse_a_value(decoder: Decoder[Any], term: Term, expected: str) -> None:
    (error,) = errors_of(decoder, term)
    assert error == DecodeError(expected, decode.classify(term))
    assert error.cause is not None


def test_a_refusal_has_the_path_to_its_value() -> None:
    decoder = decode.list_of(decode.field("n", decode.int.map(parse_even)))
    assert errors_of(decoder, [{b"n": 2}, {b"n": 3}]) == [DecodeError("parse_even", "Int", ["1", "n"])]


def test_decode_errors_raised_by_a_function_are_kept() -> None:
    inner = decode.field("a", decode.int)
    decoder = decode.dynamic.map(inner.decode)
    assert errors_of(decoder, {b"a": b""}) == [DecodeError("Int", "String", ["a"])]


def test_a_bug_in_a_function_is_not_a_decode_error() -> None:
    with pytest.raises(AttributeError):
        decode.string.map(lambda text: text.no_such_method()).decode(b"a")


def test_functions_need_not_be_ready_for_placeholders() -> None:
    """The fields after a bad one are looked at, with a placeholder that functions may choke on."""

    def second(first: str) -> Decoder[tuple[str, int]]:
        letter = first[0]  # IndexError for the placeholder ""
        return decode.field(1, decode.int).map(lambda number: (letter, number))

    decoder = decode.field(0, decode.string, second)
    assert decoder.decode((b"abc", 1)) == ("a", 1)
    assert errors_of(decoder, (1, b"")) == [DecodeError("String", "Int", ["0"])]
    assert errors_of(decode.field("gone", decode.dynamic.map(lambda d: d["x"])), {}) == [
        DecodeError("Field", "Nothing", ["gone"])
    ]
    assert errors_of(decode.field(0, decode.string, lambda _: decode.field(1, decode.int)), (1, b"")) == [
        DecodeError("String", "Int", ["0"]),
        DecodeError("Int", "String", ["1"]),
    ]


def test_map_errors_sees_and_replaces_the_list() -> None:
    decoder = decode.at(
        ["data"],
        decode.string.map_errors(lambda errors: [DecodeError("Wibble", "Wobble", ["ok"])] * len(errors)),
    )
    assert errors_of(decoder, {b"data": 1}) == [DecodeError("Wibble", "Wobble", ["data", "ok"])]
    assert decoder.decode({b"data": b"a"}) == "a"


def test_the_functions_of_gleam_are_the_methods() -> None:
    """``decoder |> decode.map(f)`` reads ``decode.map(decoder, f)`` or ``decoder.map(f)``."""
    assert decode.map(decode.int, str).decode(5) == "5"
    assert decode.then(decode.int, decode.success).decode(5) == 5
    assert errors_of(decode.collapse_errors(decode.int, "Number"), b"") == [DecodeError("Number", "String")]
    assert decode.run(1, decode.map_errors(decode.string, lambda _: [])) == Ok("")


def test_primitive_decoders_of_your_own() -> None:
    port = decode.new_primitive_decoder(
        "Port", lambda term: Ok(term) if isinstance(term, Port) else Error(None)
    )
    assert port.decode(Port("a@b", 1, 2)) == Port("a@b", 1, 2)
    assert errors_of(port, 1) == [DecodeError("Port", "Int")]


# --- recursion -------------------------------------------------------------------------------------


def nested() -> Decoder[Any]:
    return decode.recursive(lambda: decode.one_of(decode.string, [decode.list_of(nested())]))


def linked() -> Decoder[Any]:
    def rest(kind: str) -> Decoder[Any]:
        if kind != "more":
            return decode.success(())
        return decode.field("tail", decode.recursive(linked), lambda tail: decode.success(("more", tail)))

    return decode.field("type", decode.string, rest)


def test_recursive_decoders() -> None:
    assert nested().decode([[b"a", b"b"], [], b"c"]) == [["a", "b"], [], "c"]
    assert linked().decode({b"type": b"more", b"tail": {b"type": b"end"}}) == ("more", ())


def test_a_missing_field_of_a_recursive_decoder_is_an_error() -> None:
    """Gleam never ends here: it decodes the same data again to get a placeholder."""
    assert errors_of(linked(), {b"type": b"more"}) == [DecodeError("Field", "Nothing", ["tail"])]


@pytest.mark.parametrize("depth", [5_000, 100_000])
def test_a_term_nested_too_deeply_is_an_error(depth: int) -> None:
    term: Term = b"a"
    for _ in range(depth):
        term = [term]
    (error,) = errors_of(nested(), term)
    assert error == DecodeError("less deeply nested data", "List")
    assert decode.run(term, nested()) == Error([error])


EVERY_DECODER: list[Decoder[Any]] = [
    decode.string,
    decode.bool,
    decode.bit_array,
    decode.atom,
    decode.optional(decode.float),
    decode.list_of(decode.dynamic),
    decode.dict_of(decode.dynamic, decode.dynamic),
    decode.dict_of(decode.string.map(len), decode.int),
    decode.field(0, decode.dynamic, decode.success),
    decode.subfield([0, "a", 1.0], decode.string, lambda text: decode.field(1, decode.string).map(text.join)),
    decode.optionally_at([0, 0], None, decode.int),
    decode.one_of(decode.int.map(parse_even), [nested(), linked()]),
]


@given(any_term, st.sampled_from(EVERY_DECODER))
def test_any_term_gives_a_value_or_decode_errors(term: Term, decoder: Decoder[Any]) -> None:
    match decode.run(term, decoder):
        case Ok(value):
            assert decoder.decode(term) == value or value != value
        case Error(errors):
            assert errors_of(decoder, term) == errors
            assert errors
