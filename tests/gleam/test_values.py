"""Derived decoders and encoders: each rule of the mapping, and each way to break it."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import fractions
import math
import threading
import uuid
from typing import Annotated, Any, Generic, NewType, TypeAlias, TypeVar

import attrs
import pytest
import typing_extensions

from pyglyn import gleam
from pyglyn.errors import DecodeErrors, UnsupportedType, ValueEncodeError
from pyglyn.etf import Atom, BitString, Export, ImproperList, Pid, Port, Reference, Term, TermMap
from pyglyn.gleam import DecodeError, Error, NamedSubject, Ok, Result, Some, Subject, decode

T = TypeVar("T")
U = TypeVar("U")

PID = Pid("a@b", 1, 2, 3)
REFERENCE = Reference("a@b", 3, (1, 2, 3))


def errors_of(type_: object, term: Term) -> list[tuple[str, str, tuple[str, ...]]]:
    with pytest.raises(DecodeErrors) as caught:
        gleam.decoder(type_).decode(term)
    return [(each.expected, each.found, each.path) for each in caught.value.errors]


def refused(value: object, *type_: object) -> tuple[str, str, tuple[str, ...]]:
    with pytest.raises(ValueEncodeError) as caught:
        gleam.encode(value, *type_)
    return caught.value.expected, caught.value.found, caught.value.path


def both_ways(type_: object, value: object, term: Term) -> None:
    assert gleam.encode(value, type_) == term
    decoded = gleam.decoder(type_).decode(term)
    assert decoded == value
    assert type(decoded) is type(value)


# --- plain values ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "value", "term"),
    [
        (int, 5, 5),
        (int, -(2**70), -(2**70)),
        (float, 1.5, 1.5),
        (bool, True, True),
        (bool, False, False),
        (None, None, None),
        (str, "é", "é".encode()),
        (bytes, b"\xff", b"\xff"),
        (Atom, Atom("x"), Atom("x")),
        (Pid, PID, PID),
        (Reference, REFERENCE, REFERENCE),
        (Port, Port("a@b", 1, 2), Port("a@b", 1, 2)),
        (Export, Export("m", "f", 1), Export("m", "f", 1)),
        (BitString, BitString(b"\x80", 1), BitString(b"\x80", 1)),
        (ImproperList, ImproperList((1,), 2), ImproperList((1,), 2)),
        (TermMap, TermMap([(1, 2), (1.0, 3)]), TermMap([(1, 2), (1.0, 3)])),
        (list[int], [1, 2], [1, 2]),
        (list[str], ["a"], [b"a"]),
        (list[list[str]], [["a"], []], [[b"a"], []]),
        (dict[str, int], {"a": 1}, {b"a": 1}),
        (dict[int, list[str]], {1: ["a"]}, {1: [b"a"]}),
        (set[str], {"a"}, (Atom("set"), {b"a": []})),
        (frozenset[int], frozenset({1}), (Atom("set"), {1: []})),
        (tuple[str, int], ("a", 1), (b"a", 1)),
        (tuple[()], (), ()),
    ],
)
def test_plain_values_go_both_ways(type_: object, value: object, term: Term) -> None:
    both_ways(type_, value, term)


@pytest.mark.parametrize(
    ("type_", "term", "error"),
    [
        (float, 1, ("Float", "Int")),
        (int, 1.0, ("Int", "Float")),
        (int, True, ("Int", "Bool")),
        (bool, 1, ("Bool", "Int")),
        (bool, Atom("yes"), ("Bool", "Atom yes")),
        (None, Atom("undefined"), ("Nil", "Atom undefined")),
        (None, False, ("Nil", "Bool")),
        (str, b"\xff", ("String", "BitArray that is not UTF-8")),
        (str, b"\xed\xa0\x80", ("String", "BitArray that is not UTF-8")),
        (str, Atom("a"), ("String", "Atom a")),
        (str, [97], ("String", "List")),
        (bytes, BitString(b"\x80", 1), ("BitArray", "BitArray")),
        (Atom, True, ("Atom", "Bool")),
        (Atom, b"a", ("Atom", "String")),
        (Pid, REFERENCE, ("Pid", "Reference")),
        (list[int], ImproperList((1,), 2), ("List", "List")),
        (list[int], (1, 2), ("List", "Array of 2")),
        (dict[str, int], [], ("Dict", "List")),
        (set[int], {1: []}, ("Set", "Dict")),
        (set[int], (Atom("set"), {1: True}), ("Set", "set with 1 field")),
        (set[int], (Atom("set"), [1]), ("Set", "set with 1 field")),
        (tuple[int, int], (1, 2, 3), ("Array of 2", "Array of 3")),
        (tuple[int], [1], ("Array of 1", "List")),
        (int, (Atom("a"), 1, 2), ("Int", "a with 2 fields")),
    ],
)
def test_nothing_is_converted_in_silence_when_decoding(
    type_: object, term: Term, error: tuple[str, str]
) -> None:
    assert errors_of(type_, term) == [(*error, ())]


class Whole(int):
    pass


@pytest.mark.parametrize(
    ("type_", "value", "error"),
    [
        (float, 1, ("float", "int")),
        (float, math.nan, ("float", "a float that is not finite")),
        (float, math.inf, ("float", "a float that is not finite")),
        (int, 1.0, ("int", "float")),
        (int, True, ("int", "bool")),
        (int, Whole(1), ("int", "Whole")),
        (bool, 1, ("bool", "int")),
        (None, False, ("Nil", "bool")),
        (str, b"a", ("str", "bytes")),
        (str, "\ud800", ("str that UTF-8 can hold", "str with a lone surrogate")),
        (bytes, "a", ("bytes", "str")),
        (bytes, bytearray(b"a"), ("bytes", "bytearray")),
        (Atom, "a", ("Atom", "str")),
        (list[int], (1,), ("list", "tuple")),
        (dict[str, int], [], ("dict", "list")),
        (set[int], frozenset(), ("set", "frozenset")),
        (frozenset[int], set(), ("frozenset", "set")),
        (tuple[int, int], (1, 2, 3), ("tuple of 2", "tuple of 3")),
        (tuple[int], [1], ("tuple of 1", "list")),
        (int | None, "a", ("int", "str")),
    ],
)
def test_nothing_is_converted_in_silence_when_encoding(
    type_: object, value: object, error: tuple[str, str]
) -> None:
    assert refused(value, type_) == (*error, ())


def test_what_is_no_gleam_value_has_no_encoding_by_class() -> None:
    for value in (object(), 1j, fractions.Fraction(1, 2), bytearray(b"a"), range(3)):
        with pytest.raises(UnsupportedType, match="no Gleam counterpart"):
            gleam.encode(value)
    assert refused([1, {"a": [1j]}]) == ("Any", "complex", ("1", "a", "0"))


def test_a_term_is_left_alone() -> None:
    @attrs.frozen
    class Holder:
        term: Term

    term = (Atom("holder"), [(1, b"\xff"), ImproperList((1,), 2)])
    assert gleam.decoder(Holder).decode(term).term is term[1]
    assert gleam.encode(Holder(term[1])) == term
    assert gleam.decoder(Any).decode(term) is term


def test_any_is_encoded_by_class() -> None:
    assert gleam.encode(["a", {"b": Ok(1)}], Any) == [b"a", {b"b": (Atom("ok"), 1)}]
    assert gleam.encode(("a", 1, None)) == (b"a", 1, None)
    assert gleam.encode({"a"}, set) == (Atom("set"), {b"a": []})


# --- constructors ----------------------------------------------------------------------------------


@attrs.frozen
class Product:
    id: str
    name: str
    price: int


@attrs.frozen
class Item:
    product: Product
    quantity: int


@attrs.frozen
class OrderCreated:
    id: str
    items: list[Item]
    total: int


@attrs.frozen
class OrderConfirmed:
    id: str


@attrs.frozen
class OrderForgotten:
    pass


OrderEvent: TypeAlias = OrderCreated | OrderConfirmed | OrderForgotten

LAPTOP = (Atom("product"), b"laptop", b"Gaming Laptop", 20)
CREATED = (Atom("order_created"), b"o1", [(Atom("item"), LAPTOP, 2)], 40)


def test_a_class_is_a_constructor_and_a_union_a_custom_type() -> None:
    created = OrderCreated("o1", [Item(Product("laptop", "Gaming Laptop", 20), 2)], 40)
    both_ways(OrderEvent, created, CREATED)
    both_ways(OrderEvent, OrderConfirmed("o1"), (Atom("order_confirmed"), b"o1"))
    both_ways(OrderEvent, OrderForgotten(), Atom("order_forgotten"))
    both_ways(OrderForgotten, OrderForgotten(), Atom("order_forgotten"))


def test_a_bad_term_is_told_field_by_field() -> None:
    term = (
        Atom("order_created"),
        1,
        [(Atom("item"), LAPTOP, 2), (Atom("item"), (Atom("product"), b"\xff", b"", 1.0), True)],
        4.0,
    )
    assert errors_of(OrderEvent, term) == [
        ("String", "Int", ("id",)),
        ("String", "BitArray that is not UTF-8", ("items", "1", "product", "id")),
        ("Int", "Float", ("items", "1", "product", "price")),
        ("Int", "Bool", ("items", "1", "quantity")),
        ("Int", "Float", ("total",)),
    ]


UNION = "OrderCreated | OrderConfirmed | OrderForgotten"


@pytest.mark.parametrize(
    ("term", "error"),
    [
        ((Atom("order_shipped"), b"o1"), (UNION, "order_shipped with 1 field")),
        (Atom("order_lost"), (UNION, "Atom order_lost")),
        (
            (Atom("order_confirmed"), b"o1", 1),
            ("OrderConfirmed with 1 field", "order_confirmed with 2 fields"),
        ),
        ((Atom("order_confirmed"),), ("OrderConfirmed with 1 field", "order_confirmed with 0 fields")),
        (Atom("order_confirmed"), (UNION, "Atom order_confirmed")),
        ((Atom("order_forgotten"),), (UNION, "order_forgotten with 0 fields")),
        ((), (UNION, "Array of 0")),
        (([], 1), (UNION, "Array of 2")),
        ((b"order_confirmed", b"o1"), (UNION, "Array of 2")),
        ([Atom("order_confirmed"), b"o1"], (UNION, "List")),
        (None, (UNION, "Nil")),
        (True, (UNION, "Bool")),
    ],
)
def test_what_is_no_member_of_a_union_is_said(term: Term, error: tuple[str, str]) -> None:
    assert errors_of(OrderEvent, term) == [(*error, ())]


def test_an_unencodable_field_is_told_with_its_path() -> None:
    order = OrderCreated("o1", [Item(Product("laptop", "x", 20), 2), Item(Product("p", None, 1), 2)], 40)  # type: ignore[arg-type]
    assert refused(order, OrderEvent) == ("str", "NoneType", ("items", "1", "product", "name"))
    assert refused(OrderCreated("o1", "items", 40)) == ("list", "str", ("items",))  # type: ignore[arg-type]
    assert refused(OrderCreated("o1", [], 40.0)) == ("int", "float", ("total",))  # type: ignore[arg-type]
    assert refused(Product("a", "b", 1), OrderEvent) == (UNION, "Product", ())


@attrs.frozen
class SpecialProduct(Product):
    discount: int


def test_a_subclass_is_a_constructor_of_its_own() -> None:
    special = SpecialProduct("a", "b", 3, 1)
    both_ways(SpecialProduct, special, (Atom("special_product"), b"a", b"b", 3, 1))
    assert refused(Item(special, 1)) == ("Product", "SpecialProduct", ("product",))


@attrs.define
class Private:
    _secret: int
    derived: int = attrs.field(init=False, default=7)
    named: str = attrs.field(kw_only=True, default="x", alias="alias")


@dataclasses.dataclass
class Plain:
    id: str
    tags: list[str] = dataclasses.field(default_factory=list)
    length: int = dataclasses.field(init=False, default=0)
    key: int = dataclasses.field(kw_only=True, default=0)
    registry: dataclasses.InitVar[None] = None


def test_private_keyword_and_computed_fields() -> None:
    """A field that ``__init__`` does not take is not on the wire."""
    both_ways(Private, Private(1, alias="n"), (Atom("private"), 1, b"n"))


def test_dataclasses_are_constructors_too() -> None:
    both_ways(Plain, Plain("a", ["t"], key=3), (Atom("plain"), b"a", [b"t"], 3))


@attrs.frozen
class Positive:
    number: int = attrs.field(validator=attrs.validators.gt(0))


def test_a_value_refused_by_its_class_is_an_error_with_its_cause() -> None:
    with pytest.raises(DecodeErrors) as caught:
        gleam.decoder(list[Positive]).decode([(Atom("positive"), 1), (Atom("positive"), -1)])
    (error,) = caught.value.errors
    assert error == DecodeError("Positive", "positive with 1 field", ("1",))
    assert isinstance(error.cause, ValueError)  # type: ignore[attr-defined]


class Color(enum.Enum):
    RED = enum.auto()
    DarkBlue = enum.auto()


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Word(enum.StrEnum):
    HELLO = enum.auto()


@attrs.frozen
class Mixed:
    shade: int


def test_an_enum_is_atoms() -> None:
    both_ways(Color, Color.DarkBlue, Atom("dark_blue"))
    both_ways(list[Level], [Level.LOW, Level.HIGH], [Atom("low"), Atom("high")])
    both_ways(Word, Word.HELLO, Atom("hello"))
    both_ways(Color | Mixed, Color.RED, Atom("red"))
    both_ways(Color | Mixed, Mixed(1), (Atom("mixed"), 1))
    assert gleam.encode(Level.LOW) is Atom("low")
    assert errors_of(Color, Atom("green")) == [("Color", "Atom green", ())]
    assert errors_of(Level, 1) == [("Level", "Int", ())]
    assert refused(Level.LOW, int) == ("int", "Level", ())
    assert refused(Word.HELLO, str) == ("str", "Word", ())
    assert refused(1, Level) == ("Level", "int", ())


class Truth(enum.Enum):
    YES = "true"
    NO = "false"
    UNKNOWN = "nil"


def test_an_enum_may_use_the_special_atoms() -> None:
    for member, term in ((Truth.YES, True), (Truth.NO, False), (Truth.UNKNOWN, None)):
        both_ways(Truth, member, term)
    assert errors_of(Truth, 1) == [("Truth", "Int", ())]
    assert errors_of(Truth | Mixed, 1) == [("Truth | Mixed", "Int", ())]


@gleam.constructor("mixed")
@attrs.frozen
class MixedTwice:
    shade: int
    other: int


@gleam.constructor("mixed")
@attrs.frozen
class MixedNot:
    pass


def test_constructors_of_one_name_are_told_apart_by_their_size() -> None:
    type_ = Mixed | MixedTwice | MixedNot
    both_ways(type_, Mixed(1), (Atom("mixed"), 1))
    both_ways(type_, MixedTwice(1, 2), (Atom("mixed"), 1, 2))
    both_ways(type_, MixedNot(), Atom("mixed"))
    assert errors_of(type_, (Atom("mixed"), 1, 2, 3)) == [
        ("Mixed | MixedTwice | MixedNot", "mixed with 3 fields", ())
    ]


@gleam.constructor("mixed")
@attrs.frozen
class MixedAgain:
    shade: str


def test_a_type_may_be_shared_by_several_unions() -> None:
    both_ways(list[Mixed | OrderForgotten], [Mixed(1)], [(Atom("mixed"), 1)])
    both_ways(list[Mixed | OrderConfirmed], [Mixed(1)], [(Atom("mixed"), 1)])


@attrs.frozen
class HTTPServer:
    port: int


@attrs.frozen
class HttpServer:
    port: int


def test_an_acronym_is_decoded_by_either_rule_and_encoded_by_the_chosen_one() -> None:
    today, before = (Atom("h_t_t_p_server"), 80), (Atom("http_server"), 80)
    for type_ in (HTTPServer, HTTPServer | OrderForgotten):
        assert gleam.decoder(type_).decode(today) == gleam.decoder(type_).decode(before) == HTTPServer(80)
    assert gleam.encode(HTTPServer(80)) == today
    assert gleam.Converter(legacy_names=True).encode(HTTPServer(80)) == before


def test_a_proper_name_goes_before_a_former_one() -> None:
    type_ = HTTPServer | HttpServer
    both_ways(type_, HttpServer(80), (Atom("http_server"), 80))
    both_ways(type_, HTTPServer(80), (Atom("h_t_t_p_server"), 80))


# --- options, results, subjects --------------------------------------------------------------------


def test_an_option_is_some_or_none() -> None:
    both_ways(str | None, "a", (Atom("some"), b"a"))
    both_ways(str | None, None, Atom("none"))
    both_ways(
        OrderConfirmed | OrderForgotten | None, OrderForgotten(), (Atom("some"), Atom("order_forgotten"))
    )
    assert errors_of(int | None, (Atom("some"), b"a")) == [("Int", "String", ())]
    for term in (None, 5, (Atom("some"),), (Atom("some"), 1, 2), Atom("undefined")):
        assert [each[0] for each in errors_of(int | None, term)] == ["Option(int)"]


def test_an_option_in_an_option_needs_some() -> None:
    type_ = Some[int | None] | None
    both_ways(type_, None, Atom("none"))
    both_ways(type_, Some(None), (Atom("some"), Atom("none")))
    both_ways(type_, Some(3), (Atom("some"), (Atom("some"), 3)))


@attrs.frozen
class Maybe(Generic[T]):
    value: T | None


@attrs.frozen
class Box(Generic[T]):
    value: T


MaybeInt = typing_extensions.TypeAliasType("MaybeInt", int | None)


@pytest.mark.parametrize(
    "type_",
    [Maybe[int | None], Maybe[None], MaybeInt | None, Maybe[Any], Any | None, Maybe, Some[int] | int | None],
)
def test_an_ambiguous_option_is_refused(type_: object) -> None:
    """Python takes ``T | None`` with ``int | None`` for ``T`` as one option; Gleam has two."""
    with pytest.raises(UnsupportedType, match="Some"):
        gleam.decoder(type_)
    with pytest.raises(UnsupportedType, match="Some"):
        gleam.encoder(type_)


def test_a_result_is_ok_or_error() -> None:
    both_ways(Result[int, str], Ok(1), (Atom("ok"), 1))
    both_ways(Result[None, str], Ok(None), (Atom("ok"), None))
    both_ways(Result[int, OrderEvent], Error(OrderForgotten()), (Atom("error"), Atom("order_forgotten")))
    assert errors_of(Result[int, str], (Atom("ok"), b"1")) == [("Int", "String", ("value",))]
    assert refused(Ok("1"), Result[int, str]) == ("int", "str", ("value",))


def test_subjects_carry_an_owner_or_a_name() -> None:
    @attrs.frozen
    class GetPrice:
        product: str
        reply_to: Subject[int] | NamedSubject[int]

    attrs.resolve_types(GetPrice, globals(), locals())
    subject = (Atom("subject"), PID, REFERENCE)
    both_ways(GetPrice, GetPrice("a", Subject(PID, REFERENCE)), (Atom("get_price"), b"a", subject))
    named = (Atom("named_subject"), Atom("pricing$1"))
    both_ways(GetPrice, GetPrice("a", NamedSubject(Atom("pricing$1"))), (Atom("get_price"), b"a", named))


# --- generics, aliases, recursion ------------------------------------------------------------------


def test_generic_classes_take_their_parameters() -> None:
    both_ways(Box[str], Box("a"), (Atom("box"), b"a"))
    both_ways(Box[int | None], Box(None), (Atom("box"), Atom("none")))
    both_ways(
        Box[Box[list[OrderEvent]]],
        Box(Box([OrderForgotten()])),
        (Atom("box"), (Atom("box"), [Atom("order_forgotten")])),
    )
    both_ways(Maybe[int], Maybe(3), (Atom("maybe"), (Atom("some"), 3)))
    assert refused(Box("a"), Box[int]) == ("int", "str", ("value",))


def test_a_generic_class_without_parameters_holds_terms() -> None:
    assert gleam.decoder(Box).decode((Atom("box"), [b"a"])) == Box([b"a"])
    assert gleam.encode(Box("a")) == (Atom("box"), b"a")
    assert gleam.encode(Box(None)) == (Atom("box"), None)
    assert gleam.encode(Box(None), Box[int | None]) == (Atom("box"), Atom("none"))


@attrs.frozen
class Pair(Box[U], Generic[T, U]):
    other: T


@attrs.frozen
class IntPair(Pair[int, str]):
    third: float


@attrs.frozen
class Deeper(IntPair):
    fourth: bool


B = TypeVar("B", bound=OrderConfirmed)


@attrs.frozen
class Bounded(Generic[B]):
    value: B


def test_generic_bases_get_the_right_parameters() -> None:
    both_ways(Pair[int, str], Pair("a", 1), (Atom("pair"), b"a", 1))
    both_ways(IntPair, IntPair("a", 1, 2.0), (Atom("int_pair"), b"a", 1, 2.0))
    both_ways(Deeper, Deeper("a", 1, 2.0, True), (Atom("deeper"), b"a", 1, 2.0, True))
    assert errors_of(Deeper, (Atom("deeper"), 1, b"a", 2, 1)) == [
        ("String", "Int", ("value",)),
        ("Int", "String", ("other",)),
        ("Float", "Int", ("third",)),
        ("Bool", "Int", ("fourth",)),
    ]


def test_a_bound_stands_for_a_free_variable() -> None:
    assert errors_of(Bounded, (Atom("bounded"), 1)) == [("OrderConfirmed", "Int", ("value",))]


@attrs.frozen
class Leaf:
    pass


@attrs.frozen
class Node(Generic[T]):
    value: T
    children: list[Tree[T]]


Tree: TypeAlias = Leaf | Node[T]


@attrs.frozen
class Chain:
    next: Chain | None


@attrs.frozen
class Even:
    next: Odd


@attrs.frozen
class Odd:
    next: Even | Leaf


def test_recursive_types() -> None:
    both_ways(Chain, Chain(Chain(None)), (Atom("chain"), (Atom("some"), (Atom("chain"), Atom("none")))))
    both_ways(
        Tree[int], Node(1, [Leaf(), Node(2, [])]), (Atom("node"), 1, [Atom("leaf"), (Atom("node"), 2, [])])
    )
    both_ways(
        Even,
        Even(Odd(Even(Odd(Leaf())))),
        (Atom("even"), (Atom("odd"), (Atom("even"), (Atom("odd"), Atom("leaf"))))),
    )
    assert errors_of(Tree[int], (Atom("node"), 1, [Atom("leaf"), (Atom("node"), b"", [5])])) == [
        ("Int", "String", ("children", "1", "value")),
        ("Leaf | Node[int]", "Int", ("children", "1", "children", "0")),
    ]


def test_a_local_class_may_name_itself() -> None:
    @attrs.frozen
    class Local:
        next: Local | None

    both_ways(Local, Local(None), (Atom("local"), Atom("none")))


@attrs.frozen
class Forest:
    trees: Forests


Forests = typing_extensions.TypeAliasType("Forests", "list[Forest]")  # type: ignore[misc]
Json = typing_extensions.TypeAliasType("Json", "Leaf | Box[list[Json]]")  # type: ignore[misc]
Listed = typing_extensions.TypeAliasType("Listed", list[T] | OrderForgotten, type_params=(T,))  # type: ignore[misc]
UserId = NewType("UserId", str)
EventAlias = typing_extensions.TypeAliasType("EventAlias", OrderCreated | OrderConfirmed)


def test_aliases_of_pep_695() -> None:
    both_ways(EventAlias, OrderConfirmed("a"), (Atom("order_confirmed"), b"a"))
    both_ways(EventAlias | OrderForgotten, OrderForgotten(), Atom("order_forgotten"))
    both_ways(Listed[int], [1], [1])
    assert errors_of(EventAlias, 1) == [("EventAlias", "Int", ())]


def test_an_alias_that_is_a_string_cannot_be_seen_through() -> None:
    with pytest.raises(UnsupportedType, match="cannot be resolved"):
        gleam.decoder(Forests)


def test_annotated_and_newtype_are_what_they_wrap() -> None:
    both_ways(UserId, UserId("a"), b"a")
    both_ways(Annotated[int, "metres"], 5, 5)
    both_ways(Box[Annotated[UserId, 1]], Box("a"), (Atom("box"), b"a"))


# --- maps and sets ---------------------------------------------------------------------------------


def test_map_errors_name_the_key() -> None:
    assert errors_of(dict[str, int], {b"a": 1, b"b": 2.0}) == [("Int", "Float", ("b",))]
    assert errors_of(dict[str, int], {5: 1}) == [("String", "Int", ("keys",))]
    assert errors_of(set[str], (Atom("set"), {5: []})) == [("String", "Int", ("members",))]
    assert refused({"a": 1, "b": 2.0}, dict[str, int]) == ("int", "float", ("b",))
    assert refused({5: 1}, dict[str, int]) == ("str", "int", ("keys",))
    assert refused({5}, set[str]) == ("str", "int", ("members",))


def test_keys_that_python_takes_for_one_are_an_error() -> None:
    term = TermMap([(1, b"a"), (1.0, b"b")])
    assert errors_of(dict[Any, str], term) == [
        ("Dict with distinct keys", "Dict with keys equal in Python", ())
    ]
    assert errors_of(set[Any], (Atom("set"), TermMap([(1, []), (True, [])]))) == [
        ("Set of distinct members", "Set with members equal in Python", ())
    ]


def test_keys_that_no_dict_can_hold_become_a_term_map() -> None:
    assert gleam.encode({Ok((1, 2)): 1}, dict[Ok[tuple[int, int]], int]) == {(Atom("ok"), (1, 2)): 1}
    encoded = gleam.encode({frozenset({1}): 1}, dict[frozenset[int], int])
    assert encoded == TermMap([((Atom("set"), {1: []}), 1)])
    assert gleam.decoder(dict[frozenset[int], int]).decode(encoded) == {frozenset({1}): 1}


@attrs.frozen(eq=False)
class Identity:
    pass


def test_keys_that_become_one_term_are_an_error() -> None:
    assert refused({Identity(): 1, Identity(): 2}) == (
        "distinct keys",
        "two that are one as Gleam values",
        (),
    )
    assert refused({Identity(), Identity()}) == ("distinct keys", "two that are one as Gleam values", ())


# --- time ------------------------------------------------------------------------------------------


def test_datetimes_are_timestamps_cut_to_microseconds() -> None:
    moment = datetime.datetime(2024, 2, 29, 12, 30, 1, 5, tzinfo=datetime.UTC)
    term = (Atom("timestamp"), 1709209801, 5000)
    both_ways(datetime.datetime, moment, term)
    assert gleam.decoder(datetime.datetime).decode((*term[:2], 5999)) == moment
    zone = datetime.timezone(datetime.timedelta(hours=2))
    assert gleam.encode(moment.astimezone(zone)) == term
    both_ways(Box[datetime.datetime | None], Box(moment), (Atom("box"), (Atom("some"), term)))


def test_a_datetime_without_a_zone_is_refused() -> None:
    assert refused(datetime.datetime(2024, 1, 1)) == ("datetime", "datetime", ())
    assert refused([datetime.datetime(2024, 1, 1)], list[datetime.datetime])[2] == ("0",)


def test_timedeltas_are_durations() -> None:
    both_ways(datetime.timedelta, datetime.timedelta(seconds=-1.5), (Atom("duration"), -2, 500_000_000))


@pytest.mark.parametrize(
    ("type_", "term"),
    [
        (datetime.datetime, (Atom("timestamp"), 10**20, 0)),
        (datetime.datetime, (Atom("timestamp"), 0, 10**9)),
        (datetime.datetime, (Atom("timestamp"), 0, -1)),
        (datetime.timedelta, (Atom("duration"), 10**30, 0)),
        (gleam.Timestamp, (Atom("timestamp"), 0, 10**9)),
        (gleam.Duration, (Atom("duration"), 0, -5)),
    ],
)
def test_times_out_of_range_are_decode_errors(type_: object, term: Term) -> None:
    assert len(errors_of(type_, term)) == 1


# --- hooks -----------------------------------------------------------------------------------------


@attrs.frozen
class Payment:
    id: uuid.UUID
    amount: decimal.Decimal
    labels: dict[str, uuid.UUID]


def with_hooks() -> gleam.Converter:
    converter = gleam.Converter()
    converter.register_structure_hook(uuid.UUID, lambda term, _: uuid.UUID(bytes=term))
    converter.register_unstructure_hook(uuid.UUID, lambda value: value.bytes)
    text = decode.string.map(decimal.Decimal)
    converter.register_structure_hook(decimal.Decimal, lambda term, _: text.decode(term))
    converter.register_unstructure_hook(decimal.Decimal, lambda value: str(value).encode())
    return converter


def test_hooks_for_types_of_your_own() -> None:
    id = uuid.UUID(int=5)
    payment = Payment(id, decimal.Decimal("1.50"), {"a": id})
    term = (Atom("payment"), id.bytes, b"1.50", {b"a": id.bytes})
    for converter in (with_hooks(), with_hooks().copy()):
        assert converter.encode(payment) == term
        assert converter.decoder(Payment).decode(term) == payment
        assert converter.decoder(Payment | OrderForgotten).decode(term) == payment
    with pytest.raises(UnsupportedType, match="UUID has no Gleam counterpart"):
        gleam.decoder(Payment)


def test_what_a_hook_raises_is_an_error_at_its_place() -> None:
    decoder = with_hooks().decoder(list[Payment])
    with pytest.raises(DecodeErrors) as caught:
        decoder.decode([(Atom("payment"), b"short", b"x", {b"a": 7})])
    assert list(caught.value.errors) == [
        DecodeError("UUID", "String", ("0", "id")),
        DecodeError("Decimal", "String", ("0", "amount")),
        DecodeError("UUID", "Int", ("0", "labels", "a")),
    ]
    with pytest.raises(DecodeErrors) as caught:
        with_hooks().decoder(uuid.UUID).decode(7)
    assert caught.value.errors == (DecodeError("UUID", "Int"),)
    assert isinstance(caught.value.__cause__, TypeError)


def test_a_hook_may_replace_what_is_derived() -> None:
    converter = gleam.Converter()
    converter.register_structure_hook(str, lambda term, _: term.decode("latin-1"))
    converter.register_unstructure_hook(str, lambda value: value.encode("latin-1"))
    converter.register_structure_hook(int | str, lambda term, _: str(term))
    both = (Atom("product"), b"\xe9", b"\xe8", 1)
    assert converter.decoder(Product).decode(both) == Product("é", "è", 1)
    assert converter.encode(Product("é", "è", 1)) == both
    assert converter.decoder(list[int | str]).decode([1]) == ["1"]


def test_a_hook_factory_gets_the_type() -> None:
    converter = gleam.Converter()

    @converter.register_structure_hook_factory(lambda type_: type_ is fractions.Fraction)
    def make(type_: Any) -> Any:
        inner = converter.decoder(tuple[int, int])
        return lambda term, _: type_(*inner.decode(term))

    assert converter.decoder(Box[fractions.Fraction]).decode((Atom("box"), (1, 2))) == Box(
        fractions.Fraction(1, 2)
    )


# --- types that do not work ------------------------------------------------------------------------


@attrs.frozen
class Untyped:
    field = attrs.field()


@attrs.frozen
class Unknown:
    field: Nowhere  # type: ignore[name-defined]  # noqa: F821


@attrs.frozen
class Growing(Generic[T]):
    next: Leaf | Growing[list[T]]


class Twice(enum.Enum):
    A = "same"
    B = Atom("same")


class TooLong(enum.Enum):
    A = "x" * 256


@pytest.mark.parametrize(
    ("type_", "text"),
    [
        (complex, "complex has no Gleam counterpart"),
        (tuple[int, ...], "fixed size"),
        (Untyped, "Untyped.field has no type"),
        (Unknown, "'Nowhere' names nothing"),
        (Growing[int], "expands without end"),
        (Mixed | MixedAgain, r"are the same term \(mixed with 1 fields\)"),
        (Box[int] | Box[str], "are the same term"),
        (str | bytes, "are the same term"),
        (list[int] | list[str], "are the same term"),
        (Atom | Color, "are the same term"),
        (bool | Truth, "are the same term"),
        (int | tuple[int, int], "cannot be a member of a union"),
        (Twice, "same atom"),
        (TooLong, "at most 255"),
        ("OrderEvent", "cannot be resolved"),
        (list["OrderEvent"], "cannot be resolved"),
        (5, "has no Gleam counterpart"),
        (Annotated[int, []], "not a type"),
        (Box[complex], "no Gleam counterpart"),
        (typing_extensions.Literal["a"], "no Gleam counterpart"),
    ],
)
def test_a_type_without_counterpart_is_refused_with_the_reason(type_: object, text: str) -> None:
    for make in (gleam.decoder, gleam.encoder):
        for _ in range(2):
            with pytest.raises(UnsupportedType, match=text):
                make(type_)


def test_a_bare_tuple_can_be_encoded_only() -> None:
    assert gleam.encode((1, "a"), tuple) == (1, b"a")
    with pytest.raises(UnsupportedType, match="types of its elements"):
        gleam.decoder(tuple)


@attrs.frozen
class Broken:
    next: Broken | None
    bad: complex


def test_a_type_that_failed_leaves_nothing_behind() -> None:
    for _ in range(2):
        with pytest.raises(UnsupportedType):
            gleam.decoder(list[Broken])
        with pytest.raises(UnsupportedType):
            gleam.decoder(Broken | None)


def test_unions_of_terms_are_told_apart_by_their_kind() -> None:
    type_ = int | float | str | list[int] | Pid | OrderConfirmed | set[int] | dict[str, int]
    for value, term in [
        (1, 1),
        (1.0, 1.0),
        ("a", b"a"),
        ([1], [1]),
        (PID, PID),
        ({1}, (Atom("set"), {1: []})),
        ({"a": 1}, {b"a": 1}),
    ]:
        both_ways(type_, value, term)
    both_ways(Atom | int, Atom("undefined"), Atom("undefined"))
    both_ways(bool | int, True, True)
    both_ways(bool | int, 1, 1)


# --- limits ----------------------------------------------------------------------------------------


def nested(depth: int) -> Term:
    term: Term = Atom("none")
    for _ in range(depth):
        term = (Atom("some"), (Atom("chain"), term))
    return (Atom("chain"), term)


def test_a_term_nested_too_deeply_is_an_error() -> None:
    assert gleam.encode(gleam.decoder(Chain).decode(nested(250))) == nested(250)
    assert gleam.encode(gleam.decoder(Tree[int]).decode(deep_tree(160))) == deep_tree(160)
    with pytest.raises(DecodeErrors, match="less deeply nested data"):
        gleam.decoder(Chain).decode(nested(100_000))
    with pytest.raises(DecodeErrors, match="less deeply nested data"):
        gleam.decoder(Tree[int]).decode(deep_tree(5_000))


def test_a_term_is_not_followed_beyond_the_recursion_limit() -> None:
    """CPython 3.13 does not count calls of functions with defaults (gh-132744).

    Each level entered below the limit leaves an exception, and making one looks through all that there are.
    """
    left = []
    for depth in (2_000, 4_000):
        with pytest.raises(RecursionError) as raised:
            gleam.default_converter.structure(nested(depth), Chain)  # without a plan in C
        left.append(len(contexts(raised.value)))
    assert left[0] == left[1]


def contexts(error: BaseException | None) -> list[BaseException]:
    found = []
    while error is not None:
        found.append(error)
        error = error.__context__
    return found


def deep_tree(depth: int) -> Term:
    term: Term = Atom("leaf")
    for _ in range(depth):
        term = (Atom("node"), 1, [term])
    return term


def test_a_value_nested_too_deeply_is_an_error() -> None:
    chain: Chain | None = None
    for _ in range(50_000):
        chain = Chain(chain)
    with pytest.raises(ValueEncodeError, match="less deeply nested data"):
        gleam.encode(chain)
    while chain is not None:  # taken apart from outside, as Python's own destructor recurses
        chain = chain.next


def test_a_bad_leaf_at_the_bottom_costs_no_more_than_a_good_one() -> None:
    """Decoding again for the errors at each level would take 2 to the depth steps."""
    term: Term = b"bad"
    for _ in range(60):
        term = (Atom("node"), 1, [Atom("leaf"), term])
    ((_, _, path),) = errors_of(Tree[int], term)
    assert path == ("children", "1") * 60
    value: Any = 5
    for _ in range(60):
        value = Node(1, [Leaf(), value])
    assert refused(value, Tree[int]) == ("Leaf | Node[int]", "int", ("children", "1") * 60)


@attrs.frozen
class Fork:
    left: Fork | Leaf
    right: Fork | Leaf


def test_errors_are_limited_in_number() -> None:
    term: Term = 5
    for _ in range(12):
        term = (Atom("fork"), term, term)
    assert len(errors_of(Fork, term)) == 100


def test_the_text_of_errors_has_no_contents() -> None:
    with pytest.raises(DecodeErrors) as caught:
        gleam.decoder(OrderCreated).decode((Atom("order_created"), [b"secret"], b"secret", b"secret"))
    assert "secret" not in str(caught.value)
    with pytest.raises(ValueEncodeError) as failed:
        gleam.encode(OrderCreated("a", [], "secret"))  # type: ignore[arg-type]
    assert str(failed.value) == "expected int, got str at total"


def test_errors_can_be_pickled_and_read() -> None:
    import pickle

    with pytest.raises(DecodeErrors) as caught:
        gleam.decoder(tuple[int, int, int, int, int, int, int]).decode((b"",) * 7)
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.errors == caught.value.errors
    assert str(again).endswith("expected Int, found String at 4; and 2 more")
    error = ValueEncodeError("int", "str", ("a",))
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == "expected int, got str at a"


def test_decoders_are_compiled_once_and_work_in_any_thread() -> None:
    converter = gleam.Converter()
    assert converter.get_structure_hook(OrderEvent) is converter.get_structure_hook(OrderEvent)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for type_, term in ((Tree[int], deep_tree(20)), (OrderEvent, CREATED), (Chain, nested(20))):
                value = converter.decoder(type_).decode(term)
                assert converter.encode(value, type_) == term
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []


# --- both kinds of decoder -------------------------------------------------------------------------


def test_either_kind_is_taken_where_a_decoder_is() -> None:
    by_hand = decode.field(1, decode.string).map(OrderConfirmed)
    derived = gleam.as_decoder(OrderConfirmed)
    assert gleam.as_decoder(by_hand) is by_hand
    assert gleam.as_decoder(derived) is derived
    term = (Atom("order_confirmed"), b"o1")
    for decoder in (by_hand, derived, decode.one_of(derived, [by_hand]), decode.one_of(by_hand, [derived])):
        assert decoder.decode(term) == OrderConfirmed("o1")


def test_derived_decoders_combine_with_those_by_hand() -> None:
    option = gleam.decoder(int | None)
    decoder = decode.field(
        "a", option, lambda a: decode.field("b", gleam.decoder(OrderEvent)).map(lambda b: (a, b))
    )
    assert decoder.decode({b"a": (Atom("some"), 1), b"b": Atom("order_forgotten")}) == (1, OrderForgotten())
    with pytest.raises(DecodeErrors) as caught:
        decoder.decode({b"a": 1, b"b": (CREATED[0], 1, *CREATED[2:])})
    assert list(caught.value.errors) == [
        DecodeError("Option(int)", "Int", ("a",)),
        DecodeError("String", "Int", ("b", "id")),
    ]
    assert decode.list_of(gleam.decoder(Chain)).collapse_errors("Chains").map(len).decode([nested(1)]) == 1


# --- what the functions in Python do where a plan in C has given up ---------------------------------------


def by_hook(type_: Any, term: Term) -> Any:
    """Decode by the function alone, as where there is no compiler."""
    return gleam.default_converter.structure(term, type_)


def test_a_constructor_without_fields_is_its_atom_and_no_other() -> None:
    assert by_hook(Leaf, Atom("leaf")) == Leaf()
    for term in (Atom("other"), b"leaf", (Atom("leaf"),), None):
        with pytest.raises(DecodeErrors):
            by_hook(Leaf, term)
        with pytest.raises(DecodeErrors):
            gleam.decoder(Leaf).decode(term)


@pytest.mark.parametrize("kind", [int, float, bool, bytes, Pid])
def test_a_list_of_one_kind_has_nothing_else_in_it(kind: type) -> None:
    good: dict[type, Any] = {int: 1, float: 1.5, bool: True, bytes: b"x", Pid: PID}
    assert by_hook(list[kind], [good[kind]] * 3) == [good[kind]] * 3  # type: ignore[valid-type]
    for other in {*good} - {kind}:
        term = [good[kind], good[other], good[kind]]
        ((_, _, path),) = errors_of(list[kind], term)  # type: ignore[valid-type]
        assert path == ("1",)


def test_constructors_of_one_name_are_told_apart_by_how_many_fields_they_have() -> None:
    one = attrs.make_class("Sized", {"a": attrs.field(type=int)}, frozen=True)
    two = attrs.make_class("Sized", {"a": attrs.field(type=int), "b": attrs.field(type=int)}, frozen=True)
    either: Any = one | two
    for value, term in ((one(1), (Atom("sized"), 1)), (two(1, 2), (Atom("sized"), 1, 2))):
        assert by_hook(either, term) == gleam.decoder(either).decode(term) == value
    ((_, found, _),) = errors_of(either, (Atom("sized"), 1, 2, 3))
    assert found == "sized with 3 fields"
    ((_, _, path),) = errors_of(either, (Atom("sized"), 1, b"2"))
    assert path == ("b",)


def test_what_a_field_cannot_hold_is_told_in_its_own_words() -> None:
    named = attrs.make_class("Named", {"name": attrs.field(type=str)}, frozen=True)
    with pytest.raises(ValueEncodeError) as caught:
        gleam.encode(named("\ud800"))
    assert str(caught.value) == "expected str that UTF-8 can hold, got str with a lone surrogate at name"


def test_a_member_of_another_enum_is_none_of_this_one() -> None:
    this, other = enum.Enum("This", ["ONE"]), enum.Enum("Other", ["ONE"])
    assert gleam.default_converter.unstructure(this.ONE, this) == Atom("one")  # type: ignore[attr-defined]
    for value in (other.ONE, "ONE", this):  # type: ignore[attr-defined]
        with pytest.raises(ValueEncodeError, match="expected This"):
            gleam.default_converter.unstructure(value, this)


def test_several_classes_in_a_list_are_no_type_and_what_to_write_is_said() -> None:
    with pytest.raises(
        UnsupportedType, match=r"^a list of classes is no type: for one of several write int \| str$"
    ):
        gleam.decoder([int, str])
