"""Terms as the receiver would see them, without the bytes in between. Layer: etf, pure.

Lists and maps are always new, so that sender and receiver share nothing that either can change.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

from pyglyn.errors import EncodeError
from pyglyn.etf.encoder import check_keys
from pyglyn.etf.maps import DuplicateKey, make_map
from pyglyn.etf.terms import Atom, BitString, Export, Fun, ImproperList, Pid, Port, Reference, Term, TermMap
from pyglyn.etf.writers import CONTAINERS, LEAF_FAULTS, term_type, write_float

RECURSION = 64


def normalise(term: object) -> Term:
    """Return ``decode(encode(term))`` without making the bytes.

    ``str``, ``bytearray`` and ``memoryview`` become ``bytes``, subclasses what they derive from, a
    ``TermMap`` a dict where one can hold it. Parts that cannot change and need no change are shared.

    Raises:
        EncodeError: something in it is no term. Identifiers are taken as they are.
    """
    try:
        result: Term = _NORMALISERS[type(term)](term, RECURSION)
    except (_Again, KeyError, RecursionError, DuplicateKey, *LEAF_FAULTS):
        result = _walk(term)
    return result


# --- leaves ----------------------------------------------------------------------------------------


def _same(term: Any, depth: int) -> Any:
    return term


def _float(term: float, depth: int) -> float:
    write_float(term, _nowhere)
    return term


def _nowhere(part: object) -> None:
    """Take what a writer writes for the sake of its checks."""


def _str(term: str, depth: int) -> bytes:
    return term.encode()


def _bytes(term: bytearray | memoryview, depth: int) -> bytes:
    return bytes(term)


_LEAVES: dict[type, Callable[[Any, int], Any]] = {
    int: _same,
    bool: _same,
    type(None): _same,
    bytes: _same,
    Atom: _same,
    Pid: _same,
    Port: _same,
    Reference: _same,
    Export: _same,
    Fun: _same,
    BitString: _same,
    float: _float,
    str: _str,
    bytearray: _bytes,
    memoryview: _bytes,
}


# --- by recursion ----------------------------------------------------------------------------------


class _Again(Exception):
    """This term is for the walk."""


def _all(terms: Iterable[Any], depth: int) -> list[Any]:
    if not depth:
        raise _Again
    depth -= 1
    return [_NORMALISERS[type(item)](item, depth) for item in terms]


def _tuple(term: tuple[Any, ...], depth: int) -> tuple[Any, ...]:
    items = _all(term, depth)
    return term if all(map(operator.is_, items, term)) else tuple(items)


def _improper(term: ImproperList, depth: int) -> ImproperList:
    *elements, tail = _all((*term.elements, term.tail), depth)
    return ImproperList(tuple(elements), tail)


def _map(term: dict[Any, Any] | TermMap, depth: int) -> dict[Any, Any] | TermMap:
    return make_map(_all(term, depth), _all(term.values(), depth))


_NORMALISERS: dict[type, Callable[[Any, int], Any]] = {
    **_LEAVES,
    list: _all,
    tuple: _tuple,
    ImproperList: _improper,
    dict: _map,
    TermMap: _map,
}


# --- step by step ----------------------------------------------------------------------------------


class _Frame:
    """A container of which not all elements are normalised yet."""

    __slots__ = ("done", "kind", "term", "todo")

    def __init__(self, kind: type, term: Any) -> None:
        self.kind = kind
        self.term = term
        self.done: list[Any] = []
        self.todo = iter(_elements(kind, term))

    def build(self) -> Any:
        done = self.done
        if self.kind is list:
            return done
        if self.kind is tuple:
            return self.term if all(map(operator.is_, done, self.term)) else tuple(done)
        if self.kind is ImproperList:
            return ImproperList(tuple(done[:-1]), done[-1])
        half = len(done) // 2
        return make_map(done[:half], done[half:])


def _elements(kind: type, term: Any) -> Iterable[Any]:
    if kind is ImproperList:
        return (*term.elements, term.tail)
    if kind is dict or kind is TermMap:
        check_keys(term)
        return (*term, *term.values())
    elements: Iterable[Any] = term
    return elements


def _walk(term: object) -> Any:
    """Normalise with an explicit stack; values that contain themselves are found."""
    root = _Frame(tuple, (term,))
    stack = [root]
    active: set[int] = set()
    while stack:
        frame = stack[-1]
        for item in frame.todo:
            kind = term_type(item)
            if kind not in CONTAINERS:
                frame.done.append(_leaf(item, kind))
                continue
            if id(item) in active:
                raise EncodeError(f"a {kind.__name__} that contains itself", value=None)
            active.add(id(item))
            stack.append(_Frame(kind, item))
            break
        else:
            stack.pop()
            if stack:
                active.discard(id(frame.term))
                stack[-1].done.append(frame.build())
    return root.done[0]


def _leaf(item: Any, kind: type) -> Any:
    try:
        plain = item if type(item) is kind else _plain(item, kind)
        return _LEAVES[kind](plain, 0)
    except LEAF_FAULTS as error:
        raise EncodeError(f"a {kind.__name__} that does not fit its encoding: {error}", value=item) from error


def _plain(item: Any, kind: type) -> Any:
    """The value of a subclass as its base, whatever the subclass overrides."""
    if kind is int:
        return int.__pos__(item)
    if kind is float:
        return float.__pos__(item)
    if kind is str:
        return str.__str__(item)
    return kind(item)
