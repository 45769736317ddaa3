"""JSON derived from types: the Gleam examples' spelling, strictness, errors with paths."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import decimal
import enum
import json
import math
import uuid
from typing import Any, Generic, Literal, NewType, TypeVar

import attrs
import pytest
from hypothesis import given, strategies

from pyglyn import eventsourcing as es
from pyglyn import gleam
from pyglyn.testing.bank import AccountOpened, BankAccount, BankAccountEvent, CustomerDepositedCash

EVENTS: es.JsonCodec[Any] = es.JsonCodec(BankAccountEvent, tagged=True)


class Color(enum.Enum):
    RED = 1
    DARK_BLUE = 2


class Level(enum.IntEnum):
    LOW = 1


class Mode(enum.StrEnum):
    ON_LINE = "x"


@attrs.frozen
class Point:
    x: float
    label: str = ""


@attrs.frozen
class Leaf:
    pass


@attrs.frozen
class Branch:
    left: Branch | Leaf
    right: Branch | Leaf


T = TypeVar("T")
Cents = NewType("Cents", int)


@attrs.frozen
class Box(Generic[T]):
    item: T


@dataclasses.dataclass(frozen=True)
class Everything:
    number: int
    ratio: float
    flag: bool
    data: bytes
    when: datetime.datetime
    day: datetime.date
    key: uuid.UUID
    price: decimal.Decimal
    color: Color
    level: Level
    mode: Mode
    maybe: float | None
    point: Point | None
    shape: Point | Leaf
    tree: Branch
    pairs: list[tuple[str, float]]
    names: dict[str, list[Point]]
    either: list[int | str]
    word: Literal["a", "b"]
    cents: Cents
    many: frozenset[int]
    box: Box[int]


EVERYTHING: es.JsonCodec[Everything] = es.JsonCodec(Everything)
EXACT_EVERYTHING: es.JsonCodec[Everything] = es.JsonCodec(Everything, exact=True)
floats = strategies.floats(allow_nan=False, allow_infinity=False)
texts = strategies.text(strategies.characters(exclude_categories=["Cs"]))
points = strategies.builds(Point, floats, texts)
trees = strategies.recursive(
    strategies.just(Leaf()), lambda inner: strategies.builds(Branch, inner, inner), max_leaves=8
)
everything = strategies.builds(
    Everything,
    number=strategies.integers(),
    ratio=floats,
    when=strategies.datetimes(timezones=strategies.just(datetime.UTC)),
    maybe=strategies.none() | floats,
    point=strategies.none() | points,
    shape=points | strategies.just(Leaf()),
    tree=strategies.builds(Branch, trees, trees),
    pairs=strategies.lists(strategies.tuples(texts, floats)),
    names=strategies.dictionaries(texts, strategies.lists(points, max_size=3), max_size=3),
    either=strategies.lists(strategies.integers() | texts),
    price=strategies.decimals(allow_nan=False, allow_infinity=False),
    word=strategies.sampled_from(["a", "b"]),
    many=strategies.frozensets(strategies.integers()),
    box=strategies.builds(Box, strategies.integers()),
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """List each container of a JSON value with each of its keys or indexes."""
    inside = list(value.items() if isinstance(value, dict) else enumerate(value))
    here = [(value, key) for key, _ in inside]
    return here + [place for _, each in inside if isinstance(each, dict | list) for place in places(each)]


others = strategies.one_of(
    strategies.none(),
    strategies.booleans(),
    strategies.integers(),
    strategies.just(2**53 + 1),
    strategies.just(float("inf")),
    floats,
    strategies.just("leaf"),
    texts,
    strategies.builds(list),
    strategies.builds(dict),
)


@given(everything, strategies.data())
def test_what_is_read_quickly_is_what_is_read_with_care(value: Everything, data: Any) -> None:
    """Of a value in which one thing is another one, or missing, or too much."""
    for codec in (EVERYTHING, EXACT_EVERYTHING):
        written, read = codec._quick
        plain: Any = written(value)
        assert plain == codec._encode(value)
        assert codec._decode is not None
        assert read(plain) == codec._decode(plain) == value
        container, key = data.draw(strategies.sampled_from(places(plain)))
        match data.draw(strategies.sampled_from(["replace", "remove", "add"])):
            case "replace":
                container[key] = data.draw(others)
            case "remove":
                del container[key]
            case "add" if isinstance(container, dict):
                container["more"] = data.draw(others)
            case _:
                container.append(data.draw(others))
        try:
            quickly = read(plain)
        except Exception:
            continue
        carefully = codec._decode(plain)
        assert (quickly, repr(quickly)) == (carefully, repr(carefully))


@attrs.frozen
class Node:
    name: str
    inside: list[Node]


def test_a_fault_deep_inside_is_looked_for_once() -> None:
    codec: es.JsonCodec[Node] = es.JsonCodec(Node)
    value: Any = {"name": 7, "inside": []}
    for _ in range(50):
        value = {"name": "n", "inside": [value]}
    text = json.dumps(value)
    with pytest.raises(es.EventDecodeError, match="expected a string, got an integer"):
        codec.decode(text)


@given(everything)
def test_what_is_written_reads_back(value: Everything) -> None:
    assert EVERYTHING.decode(EVERYTHING.encode(value)) == value


@given(floats)
def test_a_float_has_a_decimal_point_and_is_the_same_number(number: float) -> None:
    text = es.JsonCodec(Point).encode(Point(number))
    literal = text[len('{"x":') :].split(",")[0]
    assert "." in literal.partition("e")[0]
    assert math.copysign(1, json.loads(literal)) == math.copysign(1, number)
    assert json.loads(literal) == number


def test_events_are_spelled_as_in_the_gleam_examples() -> None:
    assert EVENTS.encode(AccountOpened("42")) == '{"event-type":"account-opened","account-id":"42"}'
    deposited = '{"event-type":"customer-deposited-cash","amount":10.0,"balance":1.0e+22}'
    assert EVENTS.encode(CustomerDepositedCash(10.0, 1e22)) == deposited
    assert es.JsonCodec(BankAccount).encode(BankAccount(True, 4.01)) == '{"opened":true,"balance":4.01}'


def test_tags_and_keys_can_be_spelled_otherwise() -> None:
    style = es.JsonStyle(
        tag_key="kind",
        tag_spelling=es.pascal_case,
        key_spelling=es.camel_case,
        tags={CustomerDepositedCash: "deposit"},
    )
    codec: es.JsonCodec[Any] = es.JsonCodec(BankAccountEvent, style, tagged=True)
    assert codec.encode(AccountOpened("1")) == '{"kind":"AccountOpened","accountId":"1"}'
    assert codec.encode(CustomerDepositedCash(1.0, 2.0)) == '{"kind":"deposit","amount":1.0,"balance":2.0}'


@pytest.mark.parametrize(
    ("name", "kebab", "snake", "camel", "pascal"),
    [
        ("AccountOpened", "account-opened", "account_opened", "accountOpened", "AccountOpened"),
        ("HTTPServer2", "http-server2", "http_server2", "httpServer2", "HttpServer2"),
        ("account_id", "account-id", "account_id", "accountId", "AccountId"),
        ("A", "a", "a", "a", "A"),
    ],
)
def test_spellings(name: str, kebab: str, snake: str, camel: str, pascal: str) -> None:
    spelled = (es.kebab_case(name), es.snake_case(name), es.camel_case(name), es.pascal_case(name))
    assert spelled == (kebab, snake, camel, pascal)


def test_a_type_can_have_its_own_codec() -> None:
    style = es.JsonStyle(codecs={Point: (lambda p: [p.x, p.label], lambda v: Point(v[0], v[1]))})
    codec = es.JsonCodec[Box[Point]](Box[Point], style)
    assert codec.encode(Box(Point(1.0, "a"))) == '{"item":[1.0,"a"]}'
    assert codec.decode('{"item":[1.0,"a"]}') == Box(Point(1.0, "a"))


def test_without_a_type_plain_json_goes_through() -> None:
    codec: es.JsonCodec[Any] = es.JsonCodec(None)
    with pytest.raises(es.EventDecodeError, match="1e999 does not fit a float"):
        codec.decode('{"a":1e999}')
    with pytest.raises(es.EventEncodeError, match="not JSON compliant"):
        codec.encode({"a": math.inf})
    assert codec.decode(codec.encode({"a": [1, 2.0, None, "é"]})) == {"a": [1, 2.0, None, "é"]}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "no JSON"),
        ("", "no JSON"),
        ('{"event-type":"account-opened","account-id":"1"} x', "no JSON: Extra data"),
        ("[" * 100_000, "nested too deeply"),
        ("1" * 5000, "no JSON"),
        ("[]", "expected an object, got an array @ $"),
        ("{}", "expected a string under 'event-type', got nothing"),
        ('{"event-type":7}', "expected a string under 'event-type', got an integer"),
        ('{"event-type":"closed"}', "unknown event-type 'closed'"),
        ('{"event-type":"account-opened"}', "missing field 'account-id'"),
        (
            '{"event-type":"account-opened","account-id":1}',
            r"expected a string, got an integer @ $.account_id",
        ),
        (
            '{"event-type":"customer-withdrew-cash","amount":"1","balance":1.0}',
            r"float, got a string @ $.amount",
        ),
        (
            '{"event-type":"customer-withdrew-cash","amount":true,"balance":1.0}',
            "expected a float, got a boolean",
        ),
        ('{"event-type":"customer-withdrew-cash","amount":NaN,"balance":1.0}', "NaN is no JSON number"),
        (
            '{"event-type":"customer-withdrew-cash","amount":1e999,"balance":1.0}',
            "expected a finite float, got inf @ $.amount",
        ),
        ('{"event-type":"customer-withdrew-cash","amount":9007199254740993,"balance":1.0}', "no float holds"),
    ],
)
def test_what_does_not_decode_says_why_and_where(text: str, fault: str) -> None:
    with pytest.raises(es.EventDecodeError) as caught:
        EVENTS.decode(text)
    assert fault in str(caught.value)
    assert caught.value.payload == text


def test_an_integer_literal_is_read_as_a_float() -> None:
    text = '{"event-type":"customer-deposited-cash","amount":10,"balance":10,"more":[1]}'
    event = EVENTS.decode(text)
    assert event == CustomerDepositedCash(10.0, 10.0)
    assert type(event.amount) is float


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (CustomerDepositedCash(float("nan"), 1.0), "expected a finite float"),
        (CustomerDepositedCash(float("inf"), 1.0), "expected a finite float"),
        (CustomerDepositedCash("1", 1.0), "expected a float, got a string"),  # type: ignore[arg-type]
        (CustomerDepositedCash(True, 1.0), "expected a float, got a boolean"),
        (CustomerDepositedCash(10, 1.0), "expected a float, got an integer"),
        (AccountOpened(b"a"), "expected a string"),  # type: ignore[arg-type]
        (AccountOpened("\ud800"), "surrogates"),
        (BankAccount(), "expected one of AccountOpened"),
        (None, "expected one of AccountOpened"),
    ],
)
def test_what_is_not_of_the_type_is_not_written(value: Any, fault: str) -> None:
    with pytest.raises(es.EventEncodeError, match=fault):
        EVENTS.encode(value)


class Label(str):
    """A string of the application's own kind."""


class Ratio(float):
    pass


@attrs.frozen
class FarPoint(Point):
    pass


MOMENT = datetime.datetime(2024, 1, 1)
TYPES: list[Any] = [
    int, float, bool, str, bytes, datetime.datetime, Color, Level, Mode, Point, Point | Leaf, int | None,
    float | None, int | str, list[int], list[float], list[Point | None], tuple[int, int], tuple[int, list[float]],
    dict[str, float], dict[str, list[int]], set[int], frozenset[int], Box[int], Box[list[float]], Cents,
]  # fmt: skip
VALUES: list[Any] = [
    0, 1, True, 1.0, math.nan, math.inf, Ratio(1.0), "a", "\ud800", Label("a"), b"a", bytearray(b"a"), None, MOMENT,
    MOMENT.replace(tzinfo=datetime.UTC), MOMENT.date(), Color.RED, Level.LOW, Mode.ON_LINE, Point(1.0), Point(1),
    FarPoint(1.0), Leaf(), [], [1], [1.0], [True], [None], [Point(1.0)], [Point(1)], (), (1, 2), (1, 2, 3), [1, 2],
    (1, [1.0]), (1, [1]), (1, (1.0,)), {}, {"a": 1.0}, {"a": 1}, {"a": [1]}, {"a": (1,)}, {1: 1.0}, {Label("a"): 1.0},
    {1}, {1.0}, frozenset({1}), Box(1), Box(1.0), Box([1.0]), Box((1.0,)), iter([1]), object(),
]  # fmt: skip


@pytest.mark.parametrize("declared", TYPES, ids=str)
def test_what_cannot_be_sent_is_not_written_and_what_is_written_reads_back(declared: Any) -> None:
    """The codec and the Gleam encoder refuse the same values of a field."""
    field = attrs.make_class("Happened", {"it": attrs.field(type=declared)}, frozen=True)
    codec: es.JsonCodec[Any] = es.JsonCodec(field, tagged=True)
    encoder = gleam.encoder(field)
    written = 0
    for value in VALUES:
        event = field(value)
        try:
            encoder.encode(event)
        except gleam.ValueEncodeError:
            with pytest.raises(es.EventEncodeError):
                codec.encode(event)
        else:
            assert codec.decode(codec.encode(event)) == event
            written += 1
    assert written > 0


@pytest.mark.parametrize(
    ("declared", "value", "fault"),
    [
        (tuple[int, int], (1, 2, 3), "expected a tuple of 2, got one of 3"),
        (tuple[int, ...], [1], r"expected tuple, got \[1\]"),
        (datetime.date, MOMENT, "expected date, got datetime"),
        (datetime.datetime, MOMENT, "with a time zone"),
        (Literal["a", 1], "b", "expected one of"),
        (Literal["a", 1], True, "expected one of"),
        (dict[str, int], {1: 1}, "expected a string, got an integer"),
        (Any, {"a": (1,)}, "expected a JSON value, got a tuple"),
        (Any, {1: 1}, "expected strings as keys"),
        (str, object(), "expected a string, got a object"),
    ],
)
def test_what_would_read_back_as_something_else_is_not_written(declared: Any, value: Any, fault: str) -> None:
    with pytest.raises(es.EventEncodeError, match=fault):
        es.JsonCodec[Any](Box[declared]).encode(Box(value))


@pytest.mark.parametrize(
    ("declared", "text", "fault"),
    [
        (list[str], '"abc"', "expected an array, got a string"),
        (list[int], "{}", "expected an array, got an object"),
        (list[int], "[1,true]", r"expected an integer, got a boolean @ \$.item\[1\]"),
        (tuple[int, int], "[1,2,3]", "expected an array of 2, got one of 3"),
        (tuple[int, str], '[1,"a",1]', "expected an array of 2, got one of 3"),
        (tuple[int, str], "[1,2]", r"expected a string, got an integer @ \$.item\[1\]"),
        (dict[str, int], "[]", "expected an object, got an array"),
        (dict[str, int], '{"a":""}', r"expected an integer, got a string @ \$.item\['a'\]"),
        (Literal["a", 1], "true", "expected one of"),
        (Literal["a", 1], "[]", "expected one of"),
        (set[Any], "[{}]", "no set"),
    ],
)
def test_collections_are_read_as_strictly(declared: Any, text: str, fault: str) -> None:
    with pytest.raises(es.EventDecodeError, match=fault):
        es.JsonCodec[Any](Box[declared]).decode(f'{{"item":{text}}}')


def test_an_integer_stays_one_beside_a_float() -> None:
    codec = es.JsonCodec[Any](Box[float | int])
    for number in (1, 1.0):
        assert type(codec.decode(codec.encode(Box(number))).item) is type(number)


def test_an_exact_codec_reads_only_the_fields_of_the_class() -> None:
    codec = es.JsonCodec[Any](Box[Point | Leaf], exact=True)
    assert codec.decode('{"item":{"type":"point","x":1.0,"label":""}}') == Box(Point(1.0))
    for text, fault in [
        ('{"item":{"type":"point","x":1.0}}', "Point has other fields: missing field 'label'"),
        ('{"item":{"type":"leaf","label":""}}', "Leaf has other fields: unknown field 'label'"),
        ('{"item":{"type":"leaf"},"count":1}', "Box has other fields: unknown field 'count'"),
        ("{}", "Box has other fields: missing field 'item'"),
    ]:
        with pytest.raises(es.EventDecodeError, match=fault):
            codec.decode(text)


@attrs.frozen
class EventType:
    event_type: str


@attrs.frozen
class HasObject:
    anything: object


def test_ambiguous_types_are_refused_when_the_codec_is_made() -> None:
    with pytest.raises(ValueError, match="which is the tag's"):
        es.JsonCodec(EventType, tagged=True)
    with pytest.raises(ValueError, match="the same tag"):
        es.JsonCodec(BankAccountEvent, es.JsonStyle(tag_spelling=lambda name: "x"), tagged=True)
    with pytest.raises(TypeError, match="no JSON for"):
        es.JsonCodec(HasObject)
    for declared in (Label, dict[int, str], dict[tuple[int, int], str], list[Label]):
        with pytest.raises(TypeError, match="no JSON for"):
            es.JsonCodec(Box[declared])  # type: ignore[valid-type]
    with pytest.raises(ValueError, match="two members of Twins"):
        es.JsonCodec(enum.Enum("Twins", ["A_B", "a_b"]))
    with pytest.raises(TypeError, match="expected an attrs class"):
        es.JsonCodec(AccountOpened | int, tagged=True)


@given(strategies.binary())
def test_any_bytes_as_text_decode_or_say_why(data: bytes) -> None:
    for text in (data.decode("latin-1"), base64.b64encode(data).decode()):
        with pytest.raises(es.EventDecodeError):
            EVENTS.decode(text)
