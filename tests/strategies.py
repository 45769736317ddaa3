"""Hypothesis strategies for terms, to be used by the tests of every layer.

`terms` gives what `decode` can return, so that ``decode(encode(term))`` is the term; `encodable` gives what
`encode` also takes.
"""

from __future__ import annotations

from typing import Any

import hypothesis
from hypothesis import strategies as st

from pyglyn.etf import (
    Atom,
    BitString,
    Export,
    ImproperList,
    Pid,
    Port,
    Reference,
    TermMap,
    exact_key,
    normalise,
)

WORDS = st.integers(0, 0xFFFFFFFF)
NAME_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=255)


def node_names() -> st.SearchStrategy[str]:
    """Node names as they occur."""
    return st.sampled_from(
        ["inventory@localhost", "order@localhost", "a@b", "nonode@nohost", "n1@host.example"]
    )


def atoms() -> st.SearchStrategy[Atom]:
    """Atoms, common ones more often; never ``true``, ``false`` or ``nil``."""
    common = st.sampled_from(["ok", "error", "undefined", "", "it's", "process_events", "ü", "€", "é" * 255])
    return st.one_of(common, NAME_TEXT).filter(lambda name: name not in ("true", "false", "nil")).map(Atom)


def atom_terms() -> st.SearchStrategy[Any]:
    """All that are atoms in Erlang."""
    return st.one_of(atoms(), st.booleans(), st.none())


def integers() -> st.SearchStrategy[int]:
    """Integers around every limit of their encodings, and any."""
    edges = [
        0,
        255,
        1 << 27,
        1 << 31,
        1 << 32,
        1 << 59,
        1 << 60,
        (1 << 61) - 1,
        1 << 64,
        1 << 2032,
        1 << 2040,
    ]
    near = st.builds(
        lambda edge, sign, off: sign * edge + off,
        st.sampled_from(edges),
        st.sampled_from([1, -1]),
        st.integers(-2, 2),
    )
    return st.one_of(st.integers(0, 300), near, st.integers())


def floats() -> st.SearchStrategy[float]:
    """Floats that Erlang has."""
    return st.floats(allow_nan=False, allow_infinity=False)


def pids() -> st.SearchStrategy[Pid]:
    """Pids of any node."""
    return st.builds(Pid, node_names(), WORDS, WORDS, WORDS)


def ports() -> st.SearchStrategy[Port]:
    """Ports of any node."""
    return st.builds(Port, node_names(), st.integers(0, (1 << 64) - 1), WORDS)


def references() -> st.SearchStrategy[Reference]:
    """References of one to five words."""
    return st.builds(Reference, node_names(), WORDS, st.lists(WORDS, min_size=1, max_size=5).map(tuple))


def exports() -> st.SearchStrategy[Export]:
    """``fun Module:Function/Arity``."""
    names = st.sampled_from(["lists", "erlang", "true", "node's", "ü"])
    return st.builds(Export, names, names, st.integers(0, 255))


def bit_strings() -> st.SearchStrategy[BitString]:
    """Bitstrings that are no binaries."""
    return st.builds(BitString, st.binary(min_size=1, max_size=20), st.integers(1, 7))


def written_scalars() -> st.SearchStrategy[Any]:
    """Terms without elements that have a syntax."""
    return st.one_of(
        atom_terms(),
        integers(),
        floats(),
        st.binary(max_size=40),
        bit_strings(),
        exports(),
        st.text(max_size=20).map(str.encode),
    )


def scalars() -> st.SearchStrategy[Any]:
    """Terms without elements; local funs excepted, of which only a BEAM makes sensible ones."""
    return st.one_of(written_scalars(), pids(), ports(), references())


def _nested(leaves: st.SearchStrategy[Any], max_leaves: int) -> st.SearchStrategy[Any]:
    return st.recursive(leaves, _containers, max_leaves=max_leaves)


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, max_size=6),
        st.lists(inner, max_size=6).map(tuple),
        st.lists(st.integers(0, 255), max_size=20),
        st.tuples(st.lists(inner, min_size=1, max_size=4), inner).map(_list_with_tail),
        st.lists(st.tuples(inner, inner), max_size=5).map(_map),
    )


def _list_with_tail(parts: tuple[list[Any], Any]) -> Any:
    elements, tail = parts
    return elements + tail if isinstance(tail, list) else ImproperList(tuple(elements), tail)


def _map(pairs: list[tuple[Any, Any]]) -> Any:
    return normalise(TermMap(pairs))


def terms(max_leaves: int = 12) -> st.SearchStrategy[Any]:
    """Any term as `decode` returns it."""
    return _nested(scalars(), max_leaves)


def written_terms(max_leaves: int = 12) -> st.SearchStrategy[Any]:
    """Terms that have a syntax: no pids, ports, references, local funs."""
    return _nested(written_scalars(), max_leaves)


def encodable(max_leaves: int = 12) -> st.SearchStrategy[Any]:
    """What `encode` takes, `str` and the like included; maps have no two keys that are one term."""
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
    other = st.one_of(text, st.binary(max_size=10).map(bytearray), st.binary(max_size=10).map(memoryview))
    keys = st.one_of(text, st.integers(), atoms(), st.binary(max_size=3))
    maps = st.dictionaries(keys, text, max_size=4).filter(
        lambda d: len({exact_key(key) for key in d}) == len(d)
    )
    return _nested(st.one_of(scalars(), other, maps), max_leaves)


def drawn(strategy: st.SearchStrategy[Any], count: int) -> list[Any]:
    """Draw so many values at once: for several tests that each compare all of them with a running node."""
    found: list[Any] = []

    @hypothesis.settings(
        max_examples=count, database=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    @hypothesis.given(strategy)
    def draw(value: Any) -> None:
        found.append(value)

    draw()
    return found


def small_maps() -> st.SearchStrategy[Any]:
    """Maps whose keys Python would mix up."""
    keys = st.recursive(
        st.sampled_from([0, 1, -1, 0.0, -0.0, 1.0, True, False, None, b"", b"1", (1 << 61) - 1, 1 << 61]),
        lambda inner: st.one_of(st.lists(inner, max_size=2), st.lists(inner, max_size=2).map(tuple)),
        max_leaves=3,
    )
    return st.lists(st.tuples(keys, st.integers(0, 3)), max_size=8).map(_map)
