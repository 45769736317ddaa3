"""Random JSON texts for classes, right and nearly right: inputs for the readers in C."""

from __future__ import annotations

import enum
import json
import random
from collections.abc import Callable
from typing import Any

import attrs

from pyglyn import eventsourcing as es


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@attrs.frozen
class Both:
    number: int
    text: str


@attrs.frozen
class Few:
    both: Both | None


@attrs.define
class Many:
    """More fields than are kept on the stack, of every kind, one only by keyword, one with a default."""

    a: int
    b: str
    c: float
    d: bool
    e: int | None
    f: list[int]
    g: list[Both]
    h: dict[str, float]
    i: Colour
    j: Both | Few
    k: list[list[str]]
    l: tuple[int, str]  # noqa: E741
    m: Any
    n: float = attrs.field(kw_only=True)
    o: str | None
    p: list[Both | Few]
    q: int = attrs.field(default=1, validator=attrs.validators.le(10**20))
    é: str = ""


@attrs.frozen
class Tree:
    left: Tree | Both
    right: list[Tree | Both]


Make = Callable[[random.Random], Any]


def _text(rng: random.Random) -> str:
    letters = 'ab-"\\/\b\n\t \x7féΩ\U0001f600' + ("\0\x1f" if rng.random() < 0.02 else "")
    return "".join(rng.choice(letters) for _ in range(rng.choice((0, 1, 3, 20, 300))))


def _both(rng: random.Random) -> Any:
    return {"number": _integer(rng), "text": _text(rng)}


def _few(rng: random.Random) -> Any:
    return {"both": rng.choice((None, _both(rng)))}


def _one(rng: random.Random) -> Any:
    tag, make = rng.choice((("both", _both), ("few", _few)))
    return {"type": tag, **make(rng)}


def _integer(rng: random.Random) -> int:
    large = rng.randrange(10 ** rng.randrange(17, 25)) if rng.random() < 0.05 else 2**53 + 1
    return rng.choice((0, 1, -1, rng.randrange(1000), -rng.randrange(10**17), large))


def _float(rng: random.Random) -> float | int:
    return rng.choice((0.0, -0.0, 1.5, 1e22, 5e-324, 7, rng.random() * 10 ** rng.randrange(-300, 300)))


def _several(make: Make) -> Make:
    return lambda rng: [make(rng) for _ in range(rng.choice((0, 1, 3)))]


def _many(rng: random.Random) -> Any:
    made = {
        "a": _integer(rng), "b": _text(rng), "c": _float(rng), "d": rng.random() < 0.5,
        "e": rng.choice((None, 3)), "f": _several(_integer)(rng), "g": _several(_both)(rng),
        "h": {_text(rng): _float(rng)}, "i": rng.choice(("red", "blue")), "j": _one(rng),
        "k": _several(_several(_text))(rng), "l": [_integer(rng), _text(rng)], "m": [{"x": [None, 1.5, _text(rng)]}],
        "n": _float(rng), "o": rng.choice((None, _text(rng))), "p": _several(_one)(rng), "q": 1, "é": "é",
    }  # fmt: skip
    if rng.random() < 0.3:
        made[rng.choice("rst")] = _text(rng)
    return made


def _tree(rng: random.Random, depth: int = 6) -> Any:
    if depth == 0 or rng.random() < 0.4:
        return {"type": "both", **_both(rng)}
    right = [_tree(rng, depth - 2 if depth > 1 else 0) for _ in range(rng.randrange(3))]
    return {"type": "tree", "left": _tree(rng, depth - 1), "right": right}


def _tagged_tree(rng: random.Random) -> Any:
    value = _tree(rng)
    return {"event-type": value.pop("type"), **value}


@attrs.frozen
class Case:
    """A codec, and what makes values for it."""

    name: str
    codec: es.JsonCodec[Any]
    make: Make


CODECS = [
    Case("a class", es.JsonCodec(Both), _both),
    Case("an exact class", es.JsonCodec(Few, exact=True), _few),
    Case("many fields", es.JsonCodec(Many), _many),
    Case("exactly many fields", es.JsonCodec(Many, exact=True), _many),
    Case("events", es.JsonCodec(Tree | Both, tagged=True), _tagged_tree),
    Case("a union", es.JsonCodec(Both | Few | None), lambda rng: rng.choice((None, _one(rng)))),
]


def text_of(case: Case, rng: random.Random) -> str:
    """Write a value for a codec; sometimes in another order, with blanks, escapes, or damaged."""
    value = case.make(rng)
    if rng.random() < 0.2:
        value = _shuffled(value, rng)
    blanks = rng.random() < 0.2
    text = json.dumps(
        value,
        ensure_ascii=rng.random() < 0.1,
        indent=2 if blanks else None,
        separators=None if blanks else (",", ":"),
    )
    return mutated(text, rng) if rng.random() < 0.5 else text


def _shuffled(value: Any, rng: random.Random) -> Any:
    if isinstance(value, list):
        return [_shuffled(each, rng) for each in value]
    if not isinstance(value, dict):
        return value
    keys = sorted(value, key=lambda key: (key not in ("type", "event-type"), rng.random()))
    return {key: _shuffled(value[key], rng) for key in keys}


_PIECES = [
    '"', "\\", "{", "}", "[", "]", ",", ":", "null", "true", "false", "0", "-", ".", "1e9", "E+", "NaN", " ", "\n", "\0",
    '\\"', "\\\\", "\\u0041", "\\ud800", "\ud800", "é", '"text":', '"number":1,', '"type":"both",', "9" * 20, '"a":"b",',
]  # fmt: skip


def mutated(text: str, rng: random.Random) -> str:
    """Damage a text in a few places."""
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        start = rng.randrange(len(text) + 1)
        end = min(len(text), start + rng.choice((0, 0, 1, 1, 2, 10)))
        match rng.randrange(4):
            case 0:
                text = text[:start] + text[end:]
            case 1:
                text = text[:start] + text[start:end] * 2 + text[end:]
            case 2:
                text = text[:start]
            case _:
                text = text[:start] + rng.choice(_PIECES) + text[end:]
    return text
