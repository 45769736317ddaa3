"""Columns of a table, each as one JSON array. Pure."""

from __future__ import annotations

from typing import Any

from pyglyn.eventsourcing.stores.json.plans import MISFIT, c
from pyglyn.eventsourcing.stores.json.text import scan_once


def _reader(kind: str) -> Any:
    """Return the reader in C of an array of some kind with nulls, or what says that it does not fit."""
    if c is None:
        return lambda text: MISFIT
    made = [c.Reader() for _ in range(3)]
    made[0].become(getattr(c, kind))
    made[1].become(c.OPTION, nodes=(made[0],))
    made[2].become(c.ARRAY, nodes=(made[1],))
    return made[2]


_integers, _texts = _reader("INTEGER"), _reader("TEXT")


def integers(text: str) -> list[Any]:
    """Read an array of integers and nulls.

    Raises:
        ValueError: it is none.
    """
    found: list[Any] = _integers(text)
    if found is MISFIT:
        found = _read(text)
        if any(type(each) is not int for each in found if each is not None):
            raise ValueError("something else is among them")
    return found


def texts(text: str) -> list[Any]:
    """Read an array that has strings and nulls; others take longer."""
    found: list[Any] = _texts(text)
    return found if found is not MISFIT else _read(text)


def _read(text: str) -> list[Any]:
    found: Any
    try:
        found, end = scan_once(text, 0)
    except StopIteration:
        found = None
    if type(found) is not list or end != len(text):
        raise ValueError("no array")
    return found
