"""What Python values are which terms, equality as in Erlang, and what is refused."""

from __future__ import annotations

import collections
import copy
import dataclasses
import enum
import gc
import itertools
import pickle
import re
import tracemalloc
import typing
from typing import Any

import attrs
import pytest

from pyglyn.errors import DecodeError, EncodeError
from pyglyn.etf import (
    Atom,
    BitString,
    Export,
    Fun,
    ImproperList,
    Pid,
    Port,
    Reference,
    TermMap,
    exact_key,
)
from tests.etf.codec import decode, each_implementation, encode, normalise

pytestmark = each_implementation

PID = Pid("a@b", 1, 2, 3)


class Colour(enum.IntEnum):
    RED = 1


class Level(enum.StrEnum):
    LOW = "low"


class Weight(float):
    pass


class Raw(bytes):
    pass


class Point(typing.NamedTuple):
    x: int
    y: int


@attrs.frozen
class Order:
    id: str


@dataclasses.dataclass
class Item:
    id: str


# --- atoms -----------------------------------------------------------------------------------------


def test_atoms_of_one_name_are_one_object_wherever_they_come_from() -> None:
    atom = Atom("ping")
    assert Atom("pi" + "ng") is atom
    assert decode(encode(atom)) is atom
    assert decode(b"\x83d\0\x04ping") is atom
    assert copy.deepcopy([atom])[0] is atom
    assert pickle.loads(pickle.dumps(atom)) is atom


def test_an_atom_is_no_string_and_matches_in_patterns() -> None:
    assert Atom("ping") != "ping"
    match (Atom("ping"), 1):
        case (Atom("pong"), _):
            found = "pong"
        case (Atom("ping"), 1):
            found = "ping"
    assert found == "ping"


@pytest.mark.parametrize("name", ["true", "false", "nil", "a" * 256, "\ud800"])
def test_names_that_are_no_atoms_in_python_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"atom"):
        Atom(name)


def test_true_false_and_nil_are_pythons_own() -> None:
    assert decode(b"\x83w\4true") is True
    assert decode(b"\x83w\5false") is False
    assert decode(b"\x83w\3nil") is None
    assert decode(b"\x83d\0\4true") is True
    assert decode(b"\x83v\0\3nil") is None
    assert encode(True) == b"\x83w\4true"


def _size_of(number: int) -> int:
    """Decode so many new atoms, and identifiers of new nodes, with long names; what of it stays, in bytes."""
    tracemalloc.start()
    try:
        for n in range(number):
            name = "€" * 70 + f"{n:08}"
            decode(encode([Atom(name), Pid(name, n, 0, 1), Reference(name, 1, (n,)), Export(name, "f", 0)]))
            if n % 1_000 == 0:
                gc.collect()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def test_atoms_that_nobody_uses_are_forgotten() -> None:
    """However many there were: what stays are the caches, which are full after the first thousands."""
    from pyglyn.etf import terms

    few, many = _size_of(2_000), _size_of(10_000)
    assert many < few + 3 * 1024 * 1024  # how full the caches are depends on what came before
    assert many < 16 * 1024 * 1024
    assert len(terms._interned) < 9_000


def test_an_atom_that_somebody_uses_stays_the_same_object() -> None:
    kept = decode(encode(Atom("kept by somebody")))
    for n in range(5_000):
        decode(b"\x83w\x08" + b"%08d" % n)
    assert decode(b"\x83w\x10kept by somebody") is kept
    assert Atom("kept by somebody") is kept


def test_repeated_pids_and_atoms_are_shared() -> None:
    one, two = decode(encode([PID, Pid("a@b", 1, 2, 3)]))
    assert one == PID
    assert one is two


def test_pids_differ_in_every_field() -> None:
    fields = [("a@b", "c@d"), (1, 9), (2, 9), (3, 9)]
    pids = [Pid(*values) for values in itertools.product(*fields)]
    assert len({exact_key(decode(encode(pid))) for pid in pids}) == len(set(pids)) == 16


# --- what encodes as what --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "term"),
    [
        ("ü", "ü".encode()),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
        (memoryview(b"abcd")[::2], b"ac"),
        (Colour.RED, 1),
        ([Colour.RED, 2], [1, 2]),
        (Level.LOW, b"low"),
        (Weight(1.5), 1.5),
        (Raw(b"x"), b"x"),
        (collections.OrderedDict(a=1), {b"a": 1}),
        (collections.defaultdict(list, {1: 2}), {1: 2}),
        (collections.UserList([1]).data, [1]),
        ({"a": {"b": "c"}}, {b"a": {b"b": b"c"}}),
        (("x", ["y"]), (b"x", [b"y"])),
        (ImproperList(("a",), "b"), ImproperList((b"a",), b"b")),
        (TermMap([("k", 1)]), {b"k": 1}),
    ],
)
def test_values_that_are_written_as_another_type(value: Any, term: Any) -> None:
    assert decode(encode(value)) == term
    assert normalise(value) == term
    assert type(normalise(value)) is type(term)
    assert exact_key(normalise(value)) == exact_key(term)


def test_bools_are_atoms_also_in_lists_of_small_integers() -> None:
    assert encode([1, True]) == b"\x83l\0\0\0\2a\1w\4truej"
    assert encode([True, 1]) == b"\x83l\0\0\0\2w\4truea\1j"
    assert decode(encode([1, True]))[1] is True
    assert encode([1, 2.0]) != encode([1, 2])


REFUSED = [
    object(),
    {1, 2},
    frozenset(),
    1j,
    range(3),
    iter([]),
    Order,
    len,
    float("nan"),
    float("inf"),
    -float("inf"),
    "\ud800",
    Order("o1"),
    Item("i1"),
    Point(1, 2),
    Pid("a@b", 1 << 32, 0, 0),
    Pid("a@b", -1, 0, 0),
    Pid("a" * 256, 1, 0, 0),
    Pid(5, 1, 0, 0),  # type: ignore[arg-type]
    Port("a@b", 1 << 64, 0),
    Reference("a@b", 1, ()),
    Reference("a@b", 1, (1, 2, 3, 4, 5, 6)),
    Reference("a@b", 1, (1 << 32,)),
    Export("m", "f", 256),
    Export("m", "f", -1),
]


def _id(value: object) -> str:
    """Name a test case; without addresses, which differ between the processes that share the tests out."""
    return re.sub(r" at 0x\w+", "", repr(value))[:40]


@pytest.mark.parametrize("value", REFUSED, ids=_id)
def test_what_is_no_term_is_refused_and_named(value: Any) -> None:
    for term in (value, [1000, value], (value,), {b"k": value}, ImproperList((value,), 1), [[[[value]]]]):
        with pytest.raises(EncodeError) as caught:
            encode(term)
        assert caught.value.value is value


@pytest.mark.parametrize(
    "value", [v for v in REFUSED if type(v) not in (Pid, Port, Reference, Export)], ids=_id
)
def test_normalise_refuses_what_encode_refuses(value: Any) -> None:
    for term in (value, [1000, value], (value,), {b"k": value}, ImproperList((value,), 1)):
        with pytest.raises(EncodeError) as caught:
            normalise(term)
        assert caught.value.value is value


def test_typed_values_are_sent_to_the_gleam_layer() -> None:
    for value in (Order("o1"), Item("i1"), Point(1, 2)):
        with pytest.raises(EncodeError, match=r"gleam\.encode"):
            encode(value)


@pytest.mark.parametrize("pair", [("a", b"a"), (("a",), (b"a",)), ((1, ("a",)), (1, (b"a",)))])
def test_two_keys_that_become_one_are_refused(pair: tuple[Any, Any]) -> None:
    for function in (encode, normalise):
        with pytest.raises(EncodeError, match="same term"):
            function({pair[0]: 1, pair[1]: 2})


def test_a_value_that_contains_itself_is_refused() -> None:
    cycle: list[Any] = [1]
    cycle.append((cycle,))
    table: dict[Any, Any] = {}
    table[b"me"] = [table]
    for value in (cycle, table, (1, cycle), ImproperList((cycle,), 1)):
        for function in (encode, normalise, exact_key):
            with pytest.raises(EncodeError, match="contains itself"):
                function(value)


def test_the_same_part_twice_is_no_cycle() -> None:
    part = [1, [2]]
    deep: Any = (part, part)
    for _ in range(70):
        deep = (deep,)
    assert encode(deep) == encode(normalise(deep))
    assert exact_key(deep) == exact_key(normalise(deep))


# --- normalise -------------------------------------------------------------------------------------


def test_normalise_shares_what_cannot_change_and_copies_what_can() -> None:
    inner, pair, items = b"x" * 100, (1, b"y"), [1, 2]
    term = (inner, pair, items, {b"k": items})
    again = normalise(term)
    assert again == term
    assert again[0] is inner
    assert again[1] is pair
    assert again[2] is not items
    assert again[3][b"k"] is not items
    assert normalise(pair) is pair


# --- maps ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pairs",
    [
        [(1, b"a"), (1.0, b"b"), (True, b"c"), (Atom("1"), b"d"), (b"1", b"e")],
        [((1,), b"a"), ((1.0,), b"b"), ((True,), b"c")],
        [(0.0, b"a"), (-0.0, b"b"), (0, b"c"), (False, b"d")],
        [([1], b"a"), ([1.0], b"b"), ((1,), b"c")],
        [({1: 2}, b"a"), ({1.0: 2}, b"b"), ({1: 2.0}, b"c"), ({}, b"d"), ((), b"e"), ([], b"f")],
        [(ImproperList((1,), 2), b"a"), (ImproperList((1.0,), 2), b"b"), (ImproperList((1,), 2.0), b"c")],
        [(TermMap([([], 1)]), b"a"), (TermMap([([], 1.0)]), b"b")],
        [(((((((((((1,),),),),),),),),),), b"a"), (((((((((((1.0,),),),),),),),),),), b"b")],
    ],
)
def test_keys_that_python_would_mix_up_stay_apart(pairs: list[tuple[Any, Any]]) -> None:
    term = TermMap(pairs)
    assert len(term) == len(pairs)
    again = decode(encode(term))
    assert isinstance(again, TermMap)
    assert again == term
    assert hash(again) == hash(term)
    for key, value in pairs:
        assert again[key] == value
        assert key in again
    assert list(map(exact_key, again)) == [exact_key(key) for key, _ in pairs]


def test_a_map_that_a_dict_can_hold_is_a_dict() -> None:
    for pairs in ([(1, 2)], [(1.0, 2)], [((1, b"a"), 1), ((PID, None), 2)], []):
        assert type(decode(encode(TermMap(pairs)))) is dict


def test_a_term_map_looks_up_and_compares_as_erlang_does() -> None:
    term = TermMap([(1, b"a"), (1.0, b"b"), (b"k", b"c")])
    assert (term[1], term[1.0], term["k"]) == (b"a", b"b", b"c")
    assert term.get(2) is None
    assert term.get(2, 5) == 5
    assert True not in term
    with pytest.raises(KeyError):
        term[2]
    assert list(term.items()) == [(1, b"a"), (1.0, b"b"), (b"k", b"c")]
    assert list(term.values()) == [b"a", b"b", b"c"]
    assert term != {1: b"a"}
    assert term == TermMap([(b"k", b"c"), (1.0, b"b"), (1, b"a")])
    assert term != TermMap([(b"k", b"c"), (1.0, b"b"), (1, b"x")])
    assert term != TermMap([(1, b"a"), (1.0, b"b")])


DISTINCT = [
    0, False, 0.0, -0.0, 1, True, 1.0, -1, None, 1 << 60, -(1 << 60), 1 << 61, (1 << 61) - 1, float(1 << 60), 1 << 70,
    b"", b"a", Atom("a"), Atom(""), Atom("None"), [], (), {}, [[]], ([],), [()], {b"a": 1}, {b"a": 1.0}, {b"a": {}},
    {1: 2, 3: 4}, {1: 4, 3: 2}, [1, 2], (1, 2), [2, 1], [1, [2]], ImproperList((1,), 2), ImproperList((1, 2), 3),
    ImproperList((1,), ()), BitString(b"a", 7), BitString(b"a", 6), BitString(b"\0", 1), b"\0", [97], "ü", [252],
    PID, Port("a@b", 1, 2), Reference("a@b", 1, (2, 3)), Reference("a@b", 1, (2,)), Export("a", "b", 1),
    Export("a", "b", 2), Fun(b"x", "m", 1, 0, b""), Fun(b"y", "m", 1, 0, b""), b"x" * 100, b"x" * 101, (b"x" * 100,),
    [b"x" * 50, b"y" * 50], [b"x" * 50 + b"y" * 50],
]  # fmt: skip


def test_terms_that_differ_in_erlang_have_different_keys() -> None:
    wrapped = [*DISTINCT, *([0, term] for term in DISTINCT), *((b"z" * 80, term) for term in DISTINCT)]
    assert len({exact_key(term) for term in wrapped}) == len(wrapped)
    assert all(exact_key(copy.deepcopy(term)) == exact_key(term) for term in wrapped)


def test_a_str_has_the_key_of_its_binary() -> None:
    assert exact_key("ü") == exact_key("ü".encode()) == exact_key(bytearray("ü".encode()))
    assert exact_key(["ü"]) == exact_key(["ü".encode()])
    assert exact_key(Colour.RED) == exact_key(1)
    assert exact_key((Colour.RED, Level.LOW)) == exact_key((1, b"low"))


def test_the_key_of_a_map_does_not_depend_on_its_class_or_order() -> None:
    pairs = [(b"a", 1), ((1, 2), [2]), (5, {b"x": b"y"})]
    assert exact_key(dict(pairs)) == exact_key(TermMap(reversed(pairs)))
    assert exact_key([dict(pairs)]) == exact_key([TermMap(pairs)])


def test_what_is_no_term_has_no_key() -> None:
    with pytest.raises(EncodeError):
        exact_key([object()])
    with pytest.raises(EncodeError):
        exact_key(Point(1, 2))


# --- lists, bits -----------------------------------------------------------------------------------


def test_an_improper_list_has_elements_and_a_tail_that_is_no_list() -> None:
    for elements, tail in (((), 1), ((1,), []), ((1,), [2])):
        with pytest.raises(ValueError, match="use list"):
            ImproperList(elements, tail)
    assert ImproperList((1,), ImproperList((2,), 3)) == ImproperList([1, 2], 3)


def test_a_bit_string_has_zeros_in_the_bits_that_do_not_count() -> None:
    assert BitString(b"\xff", 3) == BitString(b"\xe0", 3)
    assert decode(b"\x83M\0\0\0\1\3\xff") == BitString(b"\xe0", 3)
    for data, bits in ((b"", 1), (b"a", 0), (b"a", 8)):
        with pytest.raises(ValueError, match="use bytes"):
            BitString(data, bits)


def test_whole_bytes_in_a_bit_string_are_bytes() -> None:
    assert decode(b"\x83M\0\0\0\2\x08ab") == b"ab"


@pytest.mark.parametrize("size", [65_535, 65_536])
def test_lists_of_bytes_are_strings_up_to_65535(size: int) -> None:
    assert encode([7] * size)[1] == (107 if size < 65_536 else 108)
    assert decode(encode([7] * size)) == [7] * size


@pytest.mark.parametrize("bits", [0, 8, 2032, 2040, 2048, 100_000])
def test_integers_of_any_size_come_back(bits: int) -> None:
    for value in (1 << bits, (1 << bits) - 1, -(1 << bits), -(1 << bits) - 1):
        assert decode(encode(value)) == value


@pytest.mark.parametrize("data", [b"n\0\0", b"n\0\1", b"n\2\0\0\0", b"o\0\0\0\0\1", b"a\0", b"b\0\0\0\0"])
def test_zero_in_any_form_is_zero(data: bytes) -> None:
    assert decode(b"\x83" + data) == 0


def test_errors_are_value_errors_too() -> None:
    with pytest.raises(ValueError, match="version byte"):
        decode(b"no term")
    assert issubclass(DecodeError, ValueError)
    assert issubclass(EncodeError, ValueError)
