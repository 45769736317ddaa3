"""Readers in C of JSON texts: what they give is what the functions in Python give, or that it does not fit."""

from __future__ import annotations

import gc
import json
import random
import sys
import weakref
from typing import Any

import attrs
import pytest
from hypothesis import given, strategies

from pyglyn import eventsourcing as es
from pyglyn.eventsourcing.domain.envelope import RecordedEvent, SerializedEventEnvelop
from pyglyn.eventsourcing.stores.json.columns import integers, texts
from pyglyn.eventsourcing.stores.json.plans import ENVELOPE, EVENT, MISFIT, c
from pyglyn.eventsourcing.stores.packed import Packed
from pyglyn.testing import require
from pyglyn.testing.bank import BankAccountEvent, CustomerDepositedCash
from tests.eventsourcing.stores.test_json_codec import EVERYTHING, Everything, Node, everything
from tests.fuzz.texts import CODECS, Both, Few, mutated, text_of


@pytest.fixture(autouse=True)
def _in_c() -> None:
    require(c, "the readers in C are not built")


def agree(codec: es.JsonCodec[Any], text: str) -> bool:
    """Read a text in C and in Python; tell whether it fits in C."""
    found = codec.in_c(text)
    if found is MISFIT:
        return False
    assert repr(found) == repr(codec._decode_in_python(text, 1))
    return True


EVENTS: es.JsonCodec[Any] = es.JsonCodec(BankAccountEvent, tagged=True)


def deposit(amount: str, more: str = "") -> str:
    return f'{{"event-type":"customer-deposited-cash","amount":{amount},"balance":1.5{more}}}'


@pytest.mark.parametrize(
    "text",
    [
        deposit("1.5"),
        deposit("-0.0"),
        deposit("1e5"),
        deposit("1.25E-3"),
        deposit("0"),
        deposit("-0"),
        deposit("-12"),
        deposit("999999999999999"),
        deposit("1.7976931348623157e308"),
        deposit("5e-324"),
        deposit("123456789012345678.5"),
        deposit(" 1.5\t", "\r\n "),
        deposit("1.5", ',"more":[1,{"amount":2}],"x":null'),
        '{ "event-type" : "customer-deposited-cash" , "balance":1.0, "amount" : 2.0 }',
        '{"event-type":"account-opened","account-id":""}',
        '{"event-type":"account-opened","account-id":"é Ω 😀"}',
        '{"event-type":"account-opened","é":["😀"],"ü":{"a":"Ω"},"account-id":"é Ω 😀","ö":"é"}',
        r'{"event-type":"account-opened","account-id":"\"\\\/\b\f\n\r\t é"}',
        '{"event-type":"account-opened","account-id":"' + "x" * 300 + r'\n"}',
    ],
)
def test_what_is_right_is_read_in_c(text: str) -> None:
    assert agree(EVENTS, text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "\0",
        deposit("01"),
        deposit("1."),
        deposit(".5"),
        deposit("+1"),
        deposit("-"),
        deposit("1e"),
        deposit("1e+"),
        deposit("1e999"),
        deposit("NaN"),
        deposit("-Infinity"),
        deposit("true"),
        deposit("null"),
        deposit('"1"'),
        deposit("9007199254740993"),
        deposit("1.5 2"),
        deposit("0x10"),
        deposit("1_0"),
        deposit("1.5", ","),
        deposit("1.5", ',"amount":2.5'),
        deposit("1.5", ',"event-type":"account-opened","account-id":"x"'),
        deposit("1.5", ',"more":[1'),
        deposit("1.5", ',"more":NaN'),
        deposit("1.5", ',"m\\u006fre":1'),
        deposit("1.5") + " ",
        " " + deposit("1.5"),
        deposit("1.5") + "x",
        '{"event-type":"customer-deposited-cash"}',
        '{"event-type":"customer-deposited-cash",}',
        '{"amount":1.5,"balance":1.5,"event-type":"customer-deposited-cash"}',
        '{"event-type":"account-opened","account-id":"\\u00e9"}',
        '{"event-type":"account-opened","account-id":"\\ud83d"}',
        '{"event-type":"account-opened","account-id":"\ud83d"}',
        '{"event-type":"account-opened","account-id":"\n"}',
        '{"event-type":"account-opened","account-id":"\\"}',
        '{"event-type":"account-opened","account-id":"\\x"}',
        '{"event-type":"account-opened","account-id":"a\\',
        '{"event-type":"account-opened","account-id":"a',
        '{"event-type":7}',
        '{"event-type":"closed"}',
    ],
)
def test_what_is_rare_or_wrong_is_left_to_python(text: str) -> None:
    assert not agree(EVENTS, text)


@pytest.mark.parametrize("text", [b"{}", None, 7, bytearray(b"1")])
def test_what_is_no_text_does_not_fit(text: object) -> None:
    assert EVENTS.in_c(text) is MISFIT


@given(everything, strategies.integers())
def test_texts_that_are_nearly_right_are_read_as_in_python(value: Everything, seed: int) -> None:
    text = EVERYTHING.encode(value)
    agree(EVERYTHING, text)
    rng = random.Random(seed)
    for _ in range(5):
        agree(EVERYTHING, mutated(text, rng))


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_generated_texts_are_read_as_in_python(codec: Any) -> None:
    rng = random.Random(codec.name)
    fit = sum(agree(codec.codec, text_of(codec, rng)) for _ in range(3000))
    assert 300 < fit < 3000


def test_classes_are_made_as_if_they_were_called() -> None:
    @attrs.define
    class Checked:
        low: int = attrs.field(validator=attrs.validators.ge(0))
        high: int = attrs.field(kw_only=True)
        _name: str = ""

    codec: es.JsonCodec[Any] = es.JsonCodec(Checked, exact=True)
    text = '{"low":1,"high":2,"-name":"x"}'.replace("-name", codec.style.key_spelling("_name"))
    assert codec.in_c(text) == Checked(1, high=2, name="x")
    assert codec.in_c(text.replace("1", "-1")) is MISFIT
    with pytest.raises(es.EventDecodeError, match="low"):
        codec.decode(text.replace("1", "-1"))


def test_what_is_nested_without_end_does_not_fit() -> None:
    codec: es.JsonCodec[Node] = es.JsonCodec(Node)
    deep = '{"name":"n","inside":[' * 100_000
    assert codec.in_c(deep) is MISFIT
    assert agree(codec, deep[: 22 * 50] + "]}" * 50)


def test_an_interrupt_is_not_taken_for_a_misfit() -> None:
    def read(value: Any) -> Any:
        raise KeyboardInterrupt

    style = es.JsonStyle(codecs={Both: (lambda value: None, read)})
    codec: es.JsonCodec[Any] = es.JsonCodec(Few, style)
    with pytest.raises(KeyboardInterrupt):
        codec.in_c('{"both":[1]}')


def test_nothing_is_kept_of_a_text_that_was_read() -> None:
    texts = [deposit("1.5"), deposit("x"), deposit("1.5", ',"more":[{"a":1}]'), deposit("1.5", ',"amount":2')]
    for text in texts:
        EVENTS.in_c(text)
    before = sys.getallocatedblocks()
    for _ in range(2000):
        for text in texts:
            EVENTS.in_c(text)
    assert sys.getallocatedblocks() - before < 500


def test_readers_are_forgotten_with_their_codec() -> None:
    codec: es.JsonCodec[Any] = es.JsonCodec(Node)
    assert codec.in_c('{"name":"n","inside":[]}') == Node("n", [])
    cls = weakref.ref(codec)
    del codec
    gc.collect()
    assert cls() is None


def test_only_what_is_whole_becomes_a_reader() -> None:
    text = c.Reader()
    text.become(c.TEXT)
    for make in (
        lambda one: one.become(c.TEXT + 100),
        lambda one: one.become(c.UNMADE),
        lambda one: one.become(c.OPTION),
        lambda one: one.become(c.ARRAY, nodes=(text, text)),
        lambda one: one.become(c.CALL, int),
        lambda one: one.become(c.TAGGED, "t", nodes=(text,), keys=("a",)),
        lambda one: one.become(c.TAGGED, "t", nodes=(text,)),
        lambda one: one.become(c.RECORD, Few, int, nodes=(text,), keys=("a",)),
        lambda one: one.become(c.RECORD, Few, int, nodes=(text,), keys=("a",), names=("both",), order=(1,)),
        lambda one: one.become(c.RECORD, 7, int, nodes=(text,), keys=("a",), names=("both",), order=(0,)),
        lambda one: one.become(c.TAGGED, "\ud800"),
        lambda one: text.become(c.TEXT),
    ):
        one = c.Reader()
        assert one("{}") is MISFIT
        with pytest.raises((ValueError, UnicodeError)):
            make(one)
        assert one("{}") is MISFIT
    with pytest.raises(TypeError):
        c.Reader()("a", "b")
    with pytest.raises(TypeError):
        c.Reader(1)


def test_columns_are_read_whatever_is_in_them() -> None:
    assert integers("[1,-2,null]") == [1, -2, None]
    assert integers(f"[ 1, {10**30}]") == [1, 10**30]
    assert texts('["a","\\"é\\n",null]') == ["a", '"é\n', None]
    assert texts('["\\u0000\\u001f",7]') == ["\0\x1f", 7]
    assert integers("[]") == texts("[]") == []


@pytest.mark.parametrize("text", ["", "[1", "1", "[1,1.5]", '["1"]', "[1] 2", "[Inf]", "[true]", "{}"])
def test_what_is_no_array_of_integers_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"array|among|Expecting"):
        integers(text)


def columns(count: int) -> list[list[Any]]:
    common = "T", "E", "1.0", [("k", "v")], 1
    payloads = [deposit(f"{n}.5") for n in range(count)]
    return [
        [common] * count, list(range(count)), [1000] * count, ["a"] * count, list(range(count)), payloads,
    ]  # fmt: skip


def test_events_are_made_of_columns() -> None:
    given = columns(9)
    _, _, times, ids, sequences, payloads = given
    given[0] = [*given[0][:8], None]
    times[1], times[2], times[7] = None, "now", 2**60
    ids[3], sequences[4] = b"x", 1.0
    payloads[5], payloads[6] = b"{}", "{}"
    events, misfits = c.events_of(EVENTS.in_c, ENVELOPE, EVENT, *given)
    assert misfits == [2, 3, 4, 5, 6, 7, 8]
    assert events[2:] == [None] * 7
    for n, at in enumerate([1.0, None]):
        payload = CustomerDepositedCash(n + 0.5, 1.5)
        envelope = SerializedEventEnvelop("a", n, payload, [("k", "v")], "E", "1.0", "T")
        assert events[n] == RecordedEvent(n, "a", n, envelope, None, at, deposit(f"{n}.5"))
    assert events[0].envelope.metadata is not events[1].envelope.metadata


def test_columns_of_other_sizes_are_refused() -> None:
    for change in range(6):
        given = columns(3)
        del given[change][0]
        with pytest.raises(TypeError):
            c.events_of(EVENTS.in_c, ENVELOPE, EVENT, *given)
    with pytest.raises(TypeError):
        c.events_of(EVENTS.in_c, EVENT, EVENTS.in_c, *columns(1))
    with pytest.raises(TypeError):
        c.events_of(EVENTS.in_c)
    assert c.events_of(EVENTS.in_c, ENVELOPE, EVENT, *columns(0)) == ([], [])


def test_a_page_by_columns_is_the_page_row_by_row() -> None:
    codec: es.RowCodec[Any, Any] = es.RowCodec(aggregate_type="T", events=BankAccountEvent)
    _, positions, times, ids, sequences, payloads = columns(20)
    payloads[3], payloads[4], sequences[5] = "{", " " + deposit("1.5"), "1"
    metadata = [json.dumps([["n", str(n % 3)]]) for n in range(20)]
    metadata[6], versions = "[1]", ["1.0"] * 20
    versions[7] = "2"
    others = times, ["T"] * 20, ids, sequences, ["E"] * 20, versions, payloads, metadata
    page = Packed(positions, others)
    by_columns, by_rows = codec.recorded_rows(page), codec.recorded_rows(list(page))
    assert [repr(each) for each in by_columns] == [repr(each) for each in by_rows]
    assert sum(each.error is not None for each in by_columns) == 3
