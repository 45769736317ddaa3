"""Terms to bytes: containers, and the two ways of walking. Layer: etf, pure.

As in ``decoder``: recursion for what is shallow and of exact types, an explicit stack for everything
else. The stepwise form is the definition; it alone finds values that contain themselves.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

from pyglyn.errors import EncodeError
from pyglyn.etf import tags
from pyglyn.etf.terms import Atom, ImproperList, Pid, Port, Reference, TermMap, exact_key
from pyglyn.etf.writers import (
    CONTAINERS,
    LEAF_FAULTS,
    LEAF_WRITERS,
    MAX_TUPLE_ARITY,
    Part,
    Write,
    Writer,
    term_type,
)

RECURSION = 64
MAX_STRING = 0xFFFF

_HEAD32 = struct.Struct(">BI").pack
_SMALL_TUPLES = [bytes((tags.SMALL_TUPLE_EXT, arity)) for arity in range(256)]
_NIL = bytes((tags.NIL_EXT,))


def write_term(term: object) -> list[Part]:
    """Encode a term, without the version byte, as a list of parts; binaries of 64 KiB and more stand alone.

    Raises:
        EncodeError: something in it is no term.
    """
    parts: list[Part] = []
    try:
        _WRITERS[type(term)](term, parts.append, RECURSION)
        return parts
    except (_Again, KeyError, RecursionError, *LEAF_FAULTS):
        pass  # an error of the walk has nothing to do with this one
    parts = []
    _walk(term, parts.append)
    return parts


# --- by recursion ----------------------------------------------------------------------------------


class _Again(Exception):
    """This term is for the walk."""


def _write_tuple(term: tuple[Any, ...], write: Write, depth: int) -> None:
    if not depth:
        raise _Again
    depth -= 1
    write(_tuple_head(term))
    for item in term:
        _WRITERS[type(item)](item, write, depth)


def _write_list(term: list[Any], write: Write, depth: int) -> None:
    if not depth:
        raise _Again
    if not term:
        write(_NIL)
        return
    text = string_bytes(term)
    if text is not None:
        write(text)
        return
    write(_HEAD32(tags.LIST_EXT, len(term)))
    for item in term:
        _WRITERS[type(item)](item, write, depth - 1)
    write(_NIL)


def _write_improper(term: ImproperList, write: Write, depth: int) -> None:
    if not depth:
        raise _Again
    write(_HEAD32(tags.LIST_EXT, len(term.elements)))
    for item in term.elements:
        _WRITERS[type(item)](item, write, depth - 1)
    _WRITERS[type(term.tail)](term.tail, write, depth - 1)


def _write_map(term: dict[Any, Any] | TermMap, write: Write, depth: int) -> None:
    if not depth:
        raise _Again
    check_keys(term)
    write(_HEAD32(tags.MAP_EXT, len(term)))
    for key, value in term.items():
        _WRITERS[type(key)](key, write, depth - 1)
        _WRITERS[type(value)](value, write, depth - 1)


_WRITERS: dict[type, Writer] = {
    **LEAF_WRITERS,
    tuple: _write_tuple,
    list: _write_list,
    ImproperList: _write_improper,
    dict: _write_map,
    TermMap: _write_map,
}


# --- shared ----------------------------------------------------------------------------------------


def _tuple_head(term: tuple[Any, ...]) -> bytes:
    arity = len(term)
    if arity < 256:
        return _SMALL_TUPLES[arity]
    if arity > MAX_TUPLE_ARITY:
        raise EncodeError(f"a tuple has at most {MAX_TUPLE_ARITY} elements, got {arity}", value=term)
    return _HEAD32(tags.LARGE_TUPLE_EXT, arity)


def string_bytes(term: list[Any]) -> bytes | None:
    """STRING_EXT for a list of 1 to 65535 integers from 0 to 255, as OTP writes each such list, or None."""
    first = term[0]
    if not isinstance(first, int) or len(term) > MAX_STRING:
        return None
    kinds = set(map(type, term))
    if kinds != {int} and (bool in kinds or not all(issubclass(kind, int) for kind in kinds)):
        return None
    try:
        return struct.pack(">BH", tags.STRING_EXT, len(term)) + bytes(term)
    except ValueError:
        return None


_EXACT = frozenset((Atom, int, float, bool, type(None), Pid, Port, Reference))


def check_keys(term: dict[Any, Any] | TermMap) -> None:
    """Refuse a dict of which two keys are the same term: ``"a"`` beside ``b"a"``."""
    if isinstance(term, TermMap):
        return
    kinds = set(map(type, term))
    if kinds - _EXACT <= {bytes} or kinds - _EXACT <= {str}:
        return
    seen = set()
    for key in term:
        exact = exact_key(key)
        if exact in seen:
            raise EncodeError("two keys of a map are the same term", value=key)
        seen.add(exact)


# --- step by step ----------------------------------------------------------------------------------


def _walk(term: object, write: Write) -> None:
    """Encode with an explicit stack: of each open container what is left of it, and its identity."""
    stack: list[Iterator[Any]] = [iter((term,))]
    inside: list[int] = [0]
    active: set[int] = set()
    while stack:
        for item in stack[-1]:
            kind = term_type(item)
            if kind not in CONTAINERS:
                _write_leaf(item, kind, write)
                continue
            if id(item) in active:
                raise EncodeError(f"a {kind.__name__} that contains itself", value=None)
            active.add(id(item))
            inside.append(id(item))
            stack.append(iter(_OPENERS[kind](item, write)))
            break
        else:
            stack.pop()
            active.discard(inside.pop())


def _write_leaf(item: object, kind: type, write: Write) -> None:
    try:
        LEAF_WRITERS[kind](item, write, 0)
    except LEAF_FAULTS as error:
        raise EncodeError(f"a {kind.__name__} that does not fit its encoding: {error}", value=item) from error


def _open_tuple(term: tuple[Any, ...], write: Write) -> Iterable[Any]:
    write(_tuple_head(term))
    return term


def _open_list(term: list[Any], write: Write) -> Iterable[Any]:
    if not term:
        write(_NIL)
        return ()
    text = string_bytes(term)
    if text is not None:
        write(text)
        return ()
    write(_HEAD32(tags.LIST_EXT, len(term)))
    return chain(term, ([],))


def _open_improper(term: ImproperList, write: Write) -> Iterable[Any]:
    write(_HEAD32(tags.LIST_EXT, len(term.elements)))
    return chain(term.elements, (term.tail,))


def _open_map(term: dict[Any, Any] | TermMap, write: Write) -> Iterable[Any]:
    check_keys(term)
    write(_HEAD32(tags.MAP_EXT, len(term)))
    return chain.from_iterable(term.items())


_OPENERS: dict[type, Callable[[Any, Write], Iterable[Any]]] = {
    tuple: _open_tuple,
    list: _open_list,
    ImproperList: _open_improper,
    dict: _open_map,
    TermMap: _open_map,
}
