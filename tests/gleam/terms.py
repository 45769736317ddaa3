"""Hypothesis strategies of terms, as decoding gives them."""

from __future__ import annotations

import hypothesis.strategies as st

from pyglyn.etf import Atom, BitString, Export, ImproperList, Pid, Reference, TermMap

atoms = st.sampled_from(["a", "ok", "error", "some", "none", "set", "undefined", "leaf", "node"]).map(Atom)
leaves = st.one_of(
    atoms,
    st.booleans(),
    st.none(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.binary(max_size=8),
    st.text(max_size=4).map(str.encode),
    st.just(BitString(b"\x80", 1)),
    st.just(Pid("a@b", 1, 2, 3)),
    st.just(Reference("a@b", 1, (1, 2, 3))),
    st.just(Export("m", "f", 1)),
)

any_term = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.tuples(atoms, inner),
        st.tuples(atoms, inner, inner),
        st.dictionaries(st.one_of(st.binary(max_size=2), st.integers(), atoms), inner, max_size=3),
        st.lists(st.tuples(inner, inner), max_size=3).map(TermMap),
        st.tuples(st.lists(inner, min_size=1, max_size=2), st.integers()).map(lambda p: ImproperList(*p)),
    ),
    max_leaves=12,
)
