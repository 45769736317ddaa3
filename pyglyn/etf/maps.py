"""The Python value of an Erlang map: a dict where one can hold it, else a TermMap. Layer: etf, pure."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pyglyn.etf.terms import Atom, BitString, Export, Fun, Pid, Port, Reference, Term, TermMap

_SCALARS = frozenset(
    (bytes, Atom, int, bool, type(None), float, Pid, Port, Reference, Export, Fun, BitString),
)
_UNGUESSABLE = frozenset((bytes, Atom, bool, type(None), Pid, Port, Reference))
"""Key types whose hashes nobody outside can steer."""

MAX_KEY_DEPTH = 8
"""Tuples nested deeper are no dict keys here: hashing and comparing them recurses in C."""

MAX_COLLISIONS = 100
"""Keys of one map that may share a Python hash. Integers that are equal modulo 2**61 - 1 do, and so do
tuples built for it; a dict of n such keys takes n * n steps, a TermMap does not."""


class DuplicateKey(Exception):
    """Two keys of a map are the same term."""


def make_map(keys: list[Any], values: list[Any]) -> dict[Any, Any] | TermMap:
    """Build the map of decoded (or normalised) keys and values.

    Raises:
        DuplicateKey: two keys are the same term.
    """
    types = set(map(type, keys))
    if types <= _SCALARS or all(_fits_dict(key, MAX_KEY_DEPTH) for key in keys):
        crowded = len(keys) > MAX_COLLISIONS and not types <= _UNGUESSABLE and _collide(keys)
        if not crowded:
            made = dict(zip(keys, values, strict=True))
            if len(made) == len(keys):
                return made
    exact = TermMap(zip(keys, values, strict=True))
    if len(exact) != len(keys):
        raise DuplicateKey
    return exact


def _fits_dict(key: Term, depth: int) -> bool:
    """Tell scalars and shallow tuples of them."""
    if type(key) is tuple:
        return depth > 0 and all(_fits_dict(item, depth - 1) for item in key)
    return type(key) in _SCALARS


def _collide(keys: list[Term]) -> bool:
    return max(Counter(map(hash, keys)).values()) > MAX_COLLISIONS
