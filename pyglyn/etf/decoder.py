"""Bytes to terms: containers, limits, the two ways of walking. Layer: etf, pure.

``Walk`` is the definition: one step per term and an explicit stack, so no input can exhaust Python's.
Nearly all real messages are shallow, small and well-formed, and recursion reads those in half the time:
``read_term`` tries that first, and anything it stumbles over (depth, improper shapes, any error) is read
again by ``Walk``, which alone decides what the result or the error is.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from struct import error as StructError
from typing import Any, TypeAlias

from pyglyn.errors import DecodeError, LimitExceeded, TruncatedTerm
from pyglyn.etf import tags
from pyglyn.etf.limits import Limits
from pyglyn.etf.maps import DuplicateKey, make_map
from pyglyn.etf.readers import (
    LEAF_READERS,
    Buffer,
    Reader,
    invalid,
    read_atom_name,
    read_unknown,
    truncated,
)
from pyglyn.etf.terms import Fun, ImproperList, Pid, Term

RECURSION = 64
"""Depth up to which recursion is tried; far below Python's own limit of about 1000 calls."""

_U32 = Struct(">I").unpack_from
_FUN = Struct(">IB16sII").unpack_from


def read_term(data: Buffer, pos: int, limits: Limits) -> tuple[Term, int]:
    """Read one term that starts at ``pos``: the term and the offset after it.

    Raises:
        DecodeError: damaged input, or more than the limits allow.
    """
    if len(data) - pos <= limits.elements and limits.depth >= RECURSION:
        try:
            return _READERS[data[pos]](data, pos + 1, RECURSION)
        except (_Again, DecodeError, DuplicateKey, IndexError, StructError, RecursionError):
            pass
    return Walk(data, pos, limits).run()


# --- by recursion ----------------------------------------------------------------------------------


class _Again(Exception):
    """This term is for the walk."""


def _read_small_tuple(data: Buffer, pos: int, depth: int) -> tuple[tuple[Term, ...], int]:
    if not depth:
        raise _Again
    depth -= 1
    items = []
    at = pos + 1
    for _ in range(data[pos]):
        item, at = _READERS[data[at]](data, at + 1, depth)
        items.append(item)
    return tuple(items), at


def _read_large_tuple(data: Buffer, pos: int, depth: int) -> tuple[tuple[Term, ...], int]:
    items, pos = _read_items(data, pos + 4, depth, _U32(data, pos)[0])
    return tuple(items), pos


def _read_items(data: Buffer, pos: int, depth: int, count: int) -> tuple[list[Term], int]:
    if not depth:
        raise _Again
    depth -= 1
    items = []
    for _ in range(count):
        item, pos = _READERS[data[pos]](data, pos + 1, depth)
        items.append(item)
    return items, pos


def _read_list(data: Buffer, pos: int, depth: int) -> tuple[list[Term] | ImproperList, int]:
    if not depth:
        raise _Again
    count = _U32(data, pos)[0]
    pos += 4
    items = []
    for _ in range(count):
        item, pos = _READERS[data[pos]](data, pos + 1, depth - 1)
        items.append(item)
    tag = data[pos]
    if tag == tags.NIL_EXT:
        return items, pos + 1
    if not count or tag == tags.LIST_EXT or tag == tags.STRING_EXT:
        raise _Again
    tail, pos = _READERS[tag](data, pos + 1, depth - 1)
    return ImproperList(tuple(items), tail), pos


def _read_map(data: Buffer, pos: int, depth: int) -> tuple[Term, int]:
    items, pos = _read_items(data, pos + 4, depth, 2 * _U32(data, pos)[0])
    return make_map(items[::2], items[1::2]), pos


def _read_again(data: Buffer, pos: int, depth: int) -> tuple[Term, int]:
    raise _Again


_READERS: list[Reader] = [LEAF_READERS.get(tag, read_unknown) for tag in range(256)]
_READERS[tags.SMALL_TUPLE_EXT] = _read_small_tuple
_READERS[tags.LARGE_TUPLE_EXT] = _read_large_tuple
_READERS[tags.LIST_EXT] = _read_list
_READERS[tags.MAP_EXT] = _read_map
_READERS[tags.NEW_FUN_EXT] = _read_again


# --- step by step ----------------------------------------------------------------------------------

_IMPROPER = -1
"""The kind of a list of which only the tail is missing."""

_Frame: TypeAlias = tuple[list[Any], int, int, int]
"""Elements read so far, how many are missing, the container's tag, its offset."""


class Walk:
    """Read one term with an explicit stack.

    ``items``, ``left``, ``kind`` and ``start`` are the frame of the innermost open container; the frames
    around it are in ``stack``. The outermost frame is no container: it waits for the one term.
    """

    def __init__(self, data: Buffer, pos: int, limits: Limits) -> None:
        self.data = data
        self.pos = pos
        self.limits = limits
        self.budget = limits.elements
        self.funs = 0
        self.stack: list[_Frame] = []
        self.items: list[Any] = []
        self.left = 1
        self.kind = 0
        self.start = pos

    @classmethod
    def resumed(
        cls, data: Buffer, limits: Limits, pos: int, budget: int, funs: int, frames: list[_Frame]
    ) -> Walk:
        """Give a walk as it is when it comes to ``pos``: where the one in C stopped.

        Args:
            budget: elements that may still be declared.
            funs: how many local funs are under way.
            frames: the open containers, outermost first.
        """
        walk = cls(data, pos, limits)
        walk.budget, walk.funs = budget, funs
        for frame in frames:
            walk.stack.append((walk.items, walk.left, walk.kind, walk.start))
            walk.items, walk.left, walk.kind, walk.start = frame
        return walk

    def run(self) -> tuple[Term, int]:
        """Return the term and the offset after it; raise DecodeError."""
        try:
            while self.left or self.stack:
                if self.left:
                    self._step()
                else:
                    _CLOSERS[self.kind](self)
        except (IndexError, StructError):
            raise self._cut_off() from None
        return self.items[0], self.pos

    def _step(self) -> None:
        tag = self.data[self.pos]
        opener = _OPENERS.get(tag)
        if opener is not None:
            opener(self)
            return
        if tag == tags.STRING_EXT:
            self._spend(int.from_bytes(self.data[self.pos + 1 : self.pos + 3], "big"))
        term, self.pos = _READERS[tag](self.data, self.pos + 1, 0)
        self.items.append(term)
        self.left -= 1

    def _cut_off(self) -> TruncatedTerm:
        """Say what is missing where the head of a term goes beyond the input."""
        if self.pos >= len(self.data):
            within = self.kind if self.stack and self.kind != _IMPROPER else None
            return truncated(self.data, self.pos, 1, tags.LIST_EXT if self.kind == _IMPROPER else within)
        tag = self.data[self.pos]
        return truncated(self.data, self.pos + 1, tags.HEAD_SIZES[tag], tag)

    def _spend(self, count: int) -> None:
        self.budget -= count
        if self.budget < 0:
            raise LimitExceeded(
                f"more than {self.limits.elements} elements, at offset {self.pos}",
                offset=self.pos,
                tag=self.data[self.pos],
            )

    def _open(self, tag: int, count: int, first: int) -> None:
        """Begin a container whose ``count`` elements begin at offset ``first``."""
        if count > len(self.data) - first:
            raise truncated(self.data, first, count, tag)
        self._spend(count)
        if len(self.stack) >= self.limits.depth:
            raise LimitExceeded(
                f"nested deeper than {self.limits.depth} at offset {self.pos}", offset=self.pos, tag=tag
            )
        self.stack.append((self.items, self.left, self.kind, self.start))
        self.items, self.left, self.kind, self.start = [], count, tag, self.pos
        self.pos = first

    def _close(self, term: Term) -> None:
        """Make the finished container an element of the one around it."""
        self._drop()
        self.items.append(term)
        self.left -= 1

    def _drop(self) -> None:
        self.items, self.left, self.kind, self.start = self.stack.pop()

    # tuples

    def open_small_tuple(self) -> None:
        self._open(tags.SMALL_TUPLE_EXT, self.data[self.pos + 1], self.pos + 2)

    def open_large_tuple(self) -> None:
        self._open(tags.LARGE_TUPLE_EXT, _U32(self.data, self.pos + 1)[0], self.pos + 5)

    def close_tuple(self) -> None:
        self._close(tuple(self.items))

    # lists

    def open_list(self) -> None:
        self._open(tags.LIST_EXT, _U32(self.data, self.pos + 1)[0], self.pos + 5)

    def close_list(self) -> None:
        """Look at the tail: the end, more of the same list, or the tail of an improper one.

        A list may come as a chain of short ones. It stays one frame, so that its time is linear and its
        depth is one. A list of no elements with a tail is that tail (OTP 25 and 28 read it so).
        """
        tag = self.data[self.pos]
        if tag == tags.NIL_EXT:
            self.pos += 1
            self._close(self.items)
        elif tag == tags.STRING_EXT:
            text, end = _READERS[tag](self.data, self.pos + 1, 0)
            self._spend(len(text))
            self.items.extend(text)
            self.pos = end
            self._close(self.items)
        elif tag == tags.LIST_EXT:
            count, first = _U32(self.data, self.pos + 1)[0], self.pos + 5
            if count > len(self.data) - first:
                raise truncated(self.data, first, count, tag)
            self._spend(count)
            self.left, self.pos = count, first
        elif not self.items:
            self._drop()
        else:
            self.kind, self.left = _IMPROPER, 1

    def close_improper(self) -> None:
        tail = self.items.pop()
        self._close(ImproperList(tuple(self.items), tail))

    # maps

    def open_map(self) -> None:
        self._open(tags.MAP_EXT, 2 * _U32(self.data, self.pos + 1)[0], self.pos + 5)

    def close_map(self) -> None:
        try:
            made = make_map(self.items[::2], self.items[1::2])
        except DuplicateKey:
            raise invalid("a map with the same key twice", self.start, tags.MAP_EXT) from None
        self._close(made)

    # funs

    def open_fun(self) -> None:
        """Check the fixed part of a local fun; its free variables are the elements.

        Layout: size:32 arity:8 uniq:16/bytes index:32 free:32 module old_index old_uniq pid free_variables.
        """
        free = _FUN(self.data, self.pos + 1)[4]
        self.funs += 1
        self._open(tags.NEW_FUN_EXT, free, _fun_pid(self.data, self.pos + 30))

    def close_fun(self) -> None:
        """Keep the fun's bytes; not of one inside another's free variables, which would be copied twice."""
        size, arity, uniq, index, _ = _FUN(self.data, self.start + 1)
        if size != self.pos - self.start - 1:
            raise invalid(
                f"a fun of {self.pos - self.start - 1} bytes that says {size}", self.start, tags.NEW_FUN_EXT
            )
        self.funs -= 1
        if self.funs:
            self._close(None)
            return
        raw = bytes(self.data[self.start + 1 : self.pos])
        module, _ = read_atom_name(self.data, self.start + 30, tags.NEW_FUN_EXT)
        self._close(Fun(raw, module, arity, index, uniq))


def _fun_pid(data: Buffer, pos: int) -> int:
    """Check what lies between a fun's fixed part and its free variables; return the offset after it."""
    tag = tags.NEW_FUN_EXT
    _, pos = read_atom_name(data, pos, tag)
    for kind in (int, int, Pid):
        if pos >= len(data):
            raise truncated(data, pos, 1, tag)
        inner = data[pos]
        if inner not in (_PID_TAGS if kind is Pid else _INTEGER_TAGS):
            raise invalid(f"{tags.tag_name(inner)} in place of the fun's {kind.__name__.lower()}", pos, tag)
        if len(data) - pos - 1 < tags.HEAD_SIZES[inner]:
            raise truncated(data, pos + 1, tags.HEAD_SIZES[inner], inner)
        _, pos = LEAF_READERS[inner](data, pos + 1, 0)
    return pos


_INTEGER_TAGS = frozenset((tags.SMALL_INTEGER_EXT, tags.INTEGER_EXT, tags.SMALL_BIG_EXT))
_PID_TAGS = frozenset((tags.NEW_PID_EXT, tags.PID_EXT))

_OPENERS: dict[int, Callable[[Walk], None]] = {
    tags.SMALL_TUPLE_EXT: Walk.open_small_tuple,
    tags.LARGE_TUPLE_EXT: Walk.open_large_tuple,
    tags.LIST_EXT: Walk.open_list,
    tags.MAP_EXT: Walk.open_map,
    tags.NEW_FUN_EXT: Walk.open_fun,
}

_CLOSERS: dict[int, Callable[[Walk], None]] = {
    tags.SMALL_TUPLE_EXT: Walk.close_tuple,
    tags.LARGE_TUPLE_EXT: Walk.close_tuple,
    tags.LIST_EXT: Walk.close_list,
    _IMPROPER: Walk.close_improper,
    tags.MAP_EXT: Walk.close_map,
    tags.NEW_FUN_EXT: Walk.close_fun,
}
