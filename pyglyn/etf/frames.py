"""Frames, as they go over a connection: a length of four bytes, a head and a term. Layer: etf, pure.

To another node the head is a distribution header and a control message, to a worker what ``node.link`` says.
Most messages have the head of one before them, by its bytes: such frames are cut off a stream, and put
together, without a look at what is in the head, and without an object for each.

What is in ``c/frames.c`` does the same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from pyglyn.errors import DecodeError, EncodeError
from pyglyn.etf import tags
from pyglyn.etf.decoder import read_term
from pyglyn.etf.encoder import write_term
from pyglyn.etf.limits import DEFAULT_LIMITS
from pyglyn.etf.terms import Atom, Pid, Reference

Buffer: TypeAlias = "bytes | bytearray | memoryview"
Run: TypeAlias = "tuple[Any, list[bytes] | bytes | None]"
"""What a head means, and the terms of the messages that had this head, one behind the other. Or a signal, and
the term that came with it, if it is of those that have one."""
Signals: TypeAlias = "dict[int, tuple[str, Callable[..., Any], bool]]"
"""Number of an operation -> its fields, what is called with them, and whether a term comes behind them.

A letter is a field: ``p`` a pid, ``r`` a reference, ``n`` a pid or a name, ``i`` an integer from 1."""

MOST_IN_HEAD: Final = 64
"""Terms in a head."""
LONGEST_HEAD: Final = 1024
"""Bytes of a head, after what all heads begin with; real ones have fewer than 200."""


def cut_frames(
    data: Buffer,
    at: int,
    least: int,
    begins: bytes,
    known: dict[bytes, Any],
    runs: list[Any],
    signals: Signals | None = None,
    most: int = sys.maxsize,
    unread: dict[bytes, Any] | None = None,
) -> int:
    """Cut off the frames with a known head, and the signals, that are complete; stops at the first other one.

    Args:
        data: what was received.
        at: where a frame begins.
        least: a frame of so many bytes or more is another, whatever its head.
        begins: what every head begins with; behind that is one term.
        known: what a head means.
        runs: gets the frames, in order; frames with the same head that follow each other are one run.
        signals: what is read as it comes, since no two of them are alike: ``{Op, …}``. Where ``begins`` is
            empty, the head is ``{Node, {Op, …}}`` and means what the signal does with the name of the node,
            None for what is no name of one.
        most: stops where ``runs`` would get more than these.
        unread: name of a node -> what stands for the signals with a term that have it in front of them, where
            ``begins`` is empty: they are not read, and all behind the node is what comes with it.

    Returns:
        Where the next frame begins.
    """
    end, last = len(data), b""
    while end - at >= 4:
        size = int.from_bytes(data[at : at + 4])
        body, stop = at + 4, at + 4 + size
        if size >= least or stop > end:
            break
        if not last or size <= len(last) or data[body : body + len(last)] != last:
            if len(runs) >= most:
                break
            signal = _cut_signal(data, body, stop, begins, signals, unread or {}) if signals else None
            if signal is not None:
                runs.append(signal)
                at, last = stop, b""
                continue
            if data[body : body + len(begins)] != begins:
                break
            behind = _end_of_head(data, body + len(begins), min(stop, body + len(begins) + LONGEST_HEAD))
            head = bytes(data[body:behind])
            if not behind or behind == stop or head not in known:
                break
            last = head
            runs.append((known[head], []))
        runs[-1][1].append(bytes(data[body + len(last) : stop]))
        at = stop
    return at


def _cut_signal(
    data: Buffer, body: int, stop: int, begins: bytes, signals: Signals, unread: dict[bytes, Any]
) -> Run | None:
    """One frame as the signal that it is; None where it is none of these."""
    at = body + len(begins)
    most = min(stop, at + LONGEST_HEAD)
    op = _place_of_op(data, at, most, begins == b"") if data[body:at] == begins else 0
    if not op or data[op] not in signals:
        return None
    end = _end_of_head(data, at, most)
    if not end:
        return None
    if begins == b"" and unread and end < stop:
        behind = at + 4 + data[at + 3]
        way = unread.get(bytes(data[at + 4 : behind]))
        letters, _, has_payload = signals[data[op]]
        if way is not None and has_payload and data[op - 2] == len(letters) + 1:
            return way, bytes(data[behind:stop])
    try:
        head, _ = read_term(bytes(data[at:end]), 0, DEFAULT_LIMITS)
    except DecodeError:
        return None
    meaning = _signal_in(head, begins == b"", end < stop, signals)
    return None if meaning is None else (meaning, bytes(data[end:stop]) if end < stop else None)


def _place_of_op(data: Buffer, at: int, end: int, paired: bool) -> int:
    """Where the number of the operation of a signal is, if paired behind an atom; 0 where there is none."""
    if paired:
        if end - at < 4 or data[at : at + 3] != bytes((tags.SMALL_TUPLE_EXT, 2, tags.SMALL_ATOM_UTF8_EXT)):
            return 0
        at += 4 + data[at + 3]
    if end - at < 4 or data[at] != tags.SMALL_TUPLE_EXT or data[at + 1] < 2:
        return 0
    return at + 3 if data[at + 2] == tags.SMALL_INTEGER_EXT else 0


def _signal_in(head: Any, paired: bool, with_payload: bool, signals: Signals) -> Any:
    """What a head means; None where it is no signal of these."""
    node, fields = head if paired else (None, head)
    if fields[0] not in signals:
        return None
    letters, kind, has_payload = signals[fields[0]]
    if len(letters) != len(fields) - 1 or has_payload is not with_payload:
        return None
    if not all(map(_is_of, fields[1:], letters)):
        return None
    signal = kind(*fields[1:])
    return (signal, node.name if type(node) is Atom else None) if paired else signal


def _is_of(field: Any, letter: str) -> bool:
    """Whether a field of a signal is what its letter says."""
    if letter == "r":
        return type(field) is Reference
    if letter == "i":
        return type(field) is int and field > 0
    return type(field) is Pid or (letter == "n" and (field is None or type(field) in (Atom, bool)))


def _end_of_head(data: Buffer, at: int, end: int) -> int:
    """Where a term ends of what real heads are made of: small tuples, integers, atoms, pids and references.

    0 where there is anything else in it, or it does not end before ``end``.
    """
    left = 1
    for _ in range(MOST_IN_HEAD):
        if end - at < 2:
            return 0
        tag = data[at]
        if tag == tags.SMALL_TUPLE_EXT:
            left += data[at + 1]
            at += 2
        elif tag == tags.SMALL_INTEGER_EXT:
            at += 2
        elif tag == tags.INTEGER_EXT:
            at += 5
        elif tag == tags.SMALL_ATOM_UTF8_EXT:
            at += 2 + data[at + 1]
        elif tag == tags.NEW_PID_EXT:
            at = _end_of_node(data, at + 1, end, 12)
        elif tag == tags.NEWER_REFERENCE_EXT and data[at + 1] == 0 and end - at >= 3:
            at = _end_of_node(data, at + 3, end, 4 + 4 * data[at + 2])
        else:
            return 0
        if not at or at > end:
            return 0
        left -= 1
        if not left:
            return at
    return 0


def _end_of_node(data: Buffer, at: int, end: int, more: int) -> int:
    """Where an atom and so many bytes behind it end; 0 for no atom."""
    if end - at < 2 or data[at] != tags.SMALL_ATOM_UTF8_EXT:
        return 0
    return at + 2 + data[at + 1] + more


def join_frames(head: bytes, terms: Sequence[Buffer]) -> bytes:
    """Put messages that have the same head together, as they go out.

    Raises:
        OverflowError: one of them has a length of more than four bytes.
    """
    parts: list[Buffer] = []
    for term in terms:
        parts += ((len(head) + len(term)).to_bytes(4), head, term)
    return b"".join(parts)


def pack_frame(head: bytes, term: object, most: int, control: object = None) -> bytes | None:
    """Write a message; None where head and terms have more bytes than ``most``, or one is no term.

    Args:
        control: a term that belongs to the head, behind the rest of it; None for none.
    """
    try:
        parts = write_term(term) if control is None else [*write_term(control), *write_term(term)]
    except EncodeError:
        return None
    size = len(head) + sum(map(len, parts))
    return b"".join((size.to_bytes(4), head, *parts)) if size <= most else None
