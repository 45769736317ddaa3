"""The plans in C beside the functions in Python: the same values, the same terms, the same errors."""

from __future__ import annotations

import copy
import dataclasses
import enum
import gc
from typing import Any, Generic, TypeVar

import attrs
import pytest

from pyglyn import gleam
from pyglyn.errors import DecodeErrors, ValueEncodeError
from pyglyn.etf import Atom, Term, TermMap
from pyglyn.gleam import plans
from pyglyn.gleam.plans import MISFIT, assigns_only
from pyglyn.testing import require

T = TypeVar("T")


@pytest.fixture(autouse=True)
def _built() -> None:
    require(plans.c, "the plans in C were not built: they take a C compiler and Python's headers")


class Colour(enum.Enum):
    RED = 1
    DARK_BLUE = 2


@attrs.frozen
class Leaf:
    name: str
    count: int


@attrs.define
class Empty:
    pass


@attrs.define(slots=False)
class Loose:
    leaf: Leaf
    rest: bytes = b""


@dataclasses.dataclass(frozen=True)
class Data:
    ratio: float
    flag: bool = True


@dataclasses.dataclass(slots=True)
class Slotted:
    data: Data
    none: None


@attrs.frozen
class Checked:
    count: int = attrs.field(validator=attrs.validators.ge(0))


@attrs.frozen(kw_only=True)
class Keyword:
    first: int = attrs.field()
    _second: str = attrs.field(converter=str.upper)


@attrs.frozen
class Mixed:
    one: int
    two: int = attrs.field(kw_only=True)
    three: str
    made: str = attrs.field(init=False, default="made")


@attrs.frozen
class Tree:
    name: str
    children: list[Tree]


@attrs.frozen
class Box(Generic[T]):
    inner: T
    option: T | None


@attrs.frozen(cache_hash=True)
class Hashed:
    name: str


@dataclasses.dataclass
class Posted:
    count: int

    def __post_init__(self) -> None:
        self.count += 1


@attrs.frozen
class Wide:
    a: int
    b: int
    c: int
    d: int
    e: int
    f: int
    g: int
    h: int
    i: int
    j: int
    k: int
    l: int  # noqa: E741
    m: int
    n: int = attrs.field(validator=attrs.validators.instance_of(int))


class Own:
    """With hooks of its own."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Own) and other.text == self.text

    __hash__ = None  # type: ignore[assignment]


LEAF = Leaf("ü", 3)
VALUES: list[tuple[Any, Any]] = [
    (Leaf, LEAF),
    (Empty, Empty()),
    (Loose, Loose(LEAF, b"\xff")),
    (Data, Data(1.5)),
    (Slotted, Slotted(Data(0.0, False), None)),
    (Checked, Checked(1)),
    (Keyword, Keyword(first=1, second="x")),
    (Mixed, Mixed(1, two=2, three="3")),
    (Tree, Tree("a", [Tree("b", []), Tree("c", [Tree("d", [])])])),
    (Box[int], Box(1, None)),
    (Box[Leaf], Box(LEAF, LEAF)),
    (Hashed, Hashed("x")),
    (Posted, Posted(1)),
    (Wide, Wide(*range(14))),
    (list[int], [1, 2, 3]),
    (list[str], ["a", "ü", ""]),
    (list[Leaf | Empty], [LEAF, Empty(), LEAF]),
    (dict[str, int], {"a": 1}),
    (dict[Leaf, list[str]], {LEAF: ["x"]}),
    (set[str], {"a", "b"}),
    (tuple[int, str, Leaf], (1, "a", LEAF)),
    (Leaf | None, LEAF),
    (Leaf | None, None),
    (Leaf | Empty | Data | int | str | bool, "x"),
    (Leaf | Empty | Data | int | str | bool, True),
    (Leaf | Empty | Data | int | str | bool, Empty()),
    (gleam.Ok[int] | gleam.Error[str], gleam.Error("bad")),
    (gleam.Some[int | None] | None, gleam.Some(None)),
    (Colour, Colour.DARK_BLUE),
    (Any, 5),
    (Term, (Atom("x"), [1])),
]


def _decoded(hook: Any, term: Any) -> Any:
    try:
        return hook(term)
    except DecodeErrors as error:
        return list(error.errors)


def _encoded(hook: Any, value: Any) -> Any:
    try:
        return hook(value)
    except ValueEncodeError as error:
        return error.expected, error.found, error.path


def _variants(term: Any) -> list[Any]:
    """A term with each part of it replaced in turn, wrong ones for most."""
    odd: list[Any] = [
        1,
        1.0,
        True,
        None,
        b"\xff",
        "text",
        Atom("some"),
        (),
        [],
        {},
        (Atom("leaf"),),
        TermMap([(1, 2)]),
    ]
    found = [*odd, (term,), [term]]
    if isinstance(term, (tuple, list)):
        kind = type(term)
        items = list(term)
        found += [kind(items[:-1]), kind([*items, 1])]
        for i, each in enumerate(items):
            found += [kind([*items[:i], other, *items[i + 1 :]]) for other in _variants(each)]
    elif isinstance(term, dict):
        for key, value in term.items():
            found += [{key: other} for other in _variants(value)]
            found += [{other: value} for other in odd if not isinstance(other, (list, dict))]
    return found


@pytest.mark.parametrize(("type_", "value"), VALUES, ids=[str(type_)[:40] for type_, _ in VALUES])
def test_what_fits_and_what_does_not_are_the_same_as_in_python(type_: Any, value: Any) -> None:
    decoder: Any = gleam.decoder(type_)
    encoder: Any = gleam.encoder(type_)
    term = encoder._hook(value)
    assert repr(encoder._plan(value)) == repr(term)
    assert repr(decoder._plan(term)) == repr(decoder._hook(term))
    for variant in _variants(term):
        expected = _decoded(decoder._hook, variant)
        assert repr(_decoded(decoder.decode, variant)) == repr(expected)
        planned = decoder._plan(variant)
        assert planned is MISFIT or repr(planned) == repr(expected)
        expected = _encoded(encoder._hook, variant)
        assert repr(_encoded(encoder.encode, variant)) == repr(expected)


def test_only_a_generated_init_is_left_out() -> None:
    plain = [Leaf, Empty, Loose, Data, Slotted, Tree, Box]
    called = [Checked, Keyword, Mixed, Hashed, Posted, Own]
    assert [cls for cls in [*plain, *called] if assigns_only(cls)] == plain


def test_instances_made_without_init_are_whole() -> None:
    leaf = gleam.decoder(Leaf).decode((Atom("leaf"), b"x", 1))
    assert (leaf, hash(leaf), copy.copy(leaf)) == (Leaf("x", 1), hash(Leaf("x", 1)), leaf)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        leaf.name = "y"  # type: ignore[misc]
    loose = gleam.decoder(Loose).decode((Atom("loose"), (Atom("leaf"), b"x", 1), b"y"))
    loose.leaf = LEAF
    assert loose == Loose(LEAF, b"y")
    assert gleam.decoder(Hashed).decode((Atom("hashed"), b"x")) in {Hashed("x")}
    assert gleam.decoder(Posted).decode((Atom("posted"), 1)).count == 2


def test_hooks_of_a_user_are_called_within_plans() -> None:
    converter = gleam.Converter()
    converter.register_structure_hook(Own, lambda term, _: Own(bytes(term).decode()))
    converter.register_unstructure_hook(Own, lambda own: own.text.encode())
    decoder = converter.decoder(list[Box[Own]])
    term: Any = [(Atom("box"), b"a", Atom("none")), (Atom("box"), b"b", (Atom("some"), b"c"))]
    value = [Box(Own("a"), None), Box(Own("b"), Own("c"))]
    assert decoder.decode(term) == value
    assert converter.encoder(list[Box[Own]]).encode(value) == term
    with pytest.raises(DecodeErrors, match="Own"):
        decoder.decode([(Atom("box"), b"\xff", Atom("none"))])


def test_a_list_that_a_hook_changes_does_no_harm() -> None:
    converter = gleam.Converter()
    terms: list[Any] = [b"a", b"b", b"c"]

    def structure(term: Any, _: object) -> Own:
        terms.clear()
        return Own("x")

    converter.register_structure_hook(Own, structure)
    decoder = converter.decoder(list[Own])
    assert decoder.decode(terms) in ([], [Own("x")])


def test_an_interruption_goes_through() -> None:
    converter = gleam.Converter()

    def structure(term: Any, _: object) -> Own:
        raise KeyboardInterrupt

    converter.register_structure_hook(Own, structure)
    with pytest.raises(KeyboardInterrupt):
        converter.decoder(list[Own]).decode([1])


def test_deep_values_end_in_an_error_and_not_in_a_crash() -> None:
    term: Any = (Atom("tree"), b"leaf", [])
    value = Tree("leaf", [])
    for _ in range(20_000):
        term = (Atom("tree"), b"x", [term])
        value = Tree("x", [value])
    with pytest.raises(DecodeErrors, match="less deeply nested"):
        gleam.decoder(Tree).decode(term)
    with pytest.raises(ValueEncodeError, match="less deeply nested"):
        gleam.encoder(Tree).encode(value)


def test_what_is_no_plan_is_refused() -> None:
    plan = plans.c.Plan()
    assert plan(1) is MISFIT
    for arguments in ((0,), (99,), (plans.c.LIST,), (plans.c.NATIVE, 5), (plans.c.UNION_IN, {1: 2}, {}, {})):
        with pytest.raises(ValueError, match="plan"):
            plan.become(*arguments)
    with pytest.raises(TypeError):
        plan.become(plans.c.LIST, nodes=[1])
    plan.become(plans.c.AS_IT_IS)
    with pytest.raises(ValueError, match="plan"):
        plan.become(plans.c.TEXT_IN)


def test_nothing_is_kept_of_what_was_decoded_or_encoded() -> None:
    import sys

    cases = [(gleam.decoder(type_), gleam.encoder(type_), value) for type_, value in VALUES]
    inputs = [(d, e, value, variant) for d, e, value in cases for variant in _variants(e.encode(value))[:20]]

    def rounds(count: int) -> int:
        for _ in range(count):
            for decoder, encoder, value, variant in inputs:
                _decoded(decoder.decode, variant)
                encoder.encode(value)
        gc.collect()
        return sys.getallocatedblocks()

    rounds(2)
    before = rounds(1)
    assert rounds(5) - before < 200


@attrs.frozen
class Anything(Generic[T]):
    value: T


def test_a_value_of_which_only_the_class_is_known_is_encoded_in_c() -> None:
    converter = gleam.Converter()
    value: Any = Anything([Leaf("a", 1), Anything(Colour.RED), None, {"k": (1.5, b"x")}])
    expected = converter.encode(value)
    plan = converter._encode_plans.by_class
    assert plan(value) == expected
    assert plan(object()) is MISFIT
    with pytest.raises(ValueEncodeError, match="object at value"):
        converter.encode(Anything(object()))
    with pytest.raises(ValueEncodeError, match="float"):
        converter.encode(Anything([float("nan")]))


def test_a_hook_registered_later_holds_for_what_is_encoded_by_its_class() -> None:
    converter = gleam.Converter()
    value: Any = Anything([Leaf("a", 1)])
    assert converter.encode(value) == (Atom("anything"), [(Atom("leaf"), b"a", 1)])
    converter.register_unstructure_hook(Leaf, lambda leaf: leaf.count)
    assert converter.encode(value) == (Atom("anything"), [1])
    converter.register_unstructure_hook_func(lambda cls: cls is Leaf, lambda leaf: b"func")
    assert converter.copy().encode(value) == converter.encode(value)
    converter.register_unstructure_hook_factory(lambda cls: cls is Empty, lambda cls: lambda empty: 7)
    assert converter.encode(Anything(Empty())) == (Atom("anything"), 7)
