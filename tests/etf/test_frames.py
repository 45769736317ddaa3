"""Frames of one head and many terms: cut, joined and written, in Python and in C."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyglyn.etf import Atom, Pid, Reference, encode_bare, frames
from tests import strategies
from tests.etf import codec

BEGINS = b"\x83D\0"
THEM, US = Pid("them@h", 90, 0, 3), Pid("us@h", 5, 1, 7)
CONTROLS: list[Any] = [
    (22, THEM, US),
    (6, THEM, Atom(""), Atom("shop")),
    (33, THEM, Reference("us@h", 7, (1, 2, 3))),
    (Atom("us@h"), (22, THEM, US)),
    (None, (22, THEM, US)),
    (35, 1 << 20, THEM, US),
]
HEADS = [BEGINS + encode_bare(control) for control in CONTROLS]
KNOWN: dict[bytes, Any] = {head: number for number, head in enumerate(HEADS)}


@pytest.fixture(params=["python", "c"])
def module(request: pytest.FixtureRequest) -> ModuleType:
    """One of the two implementations."""
    return frames if request.param == "python" else codec.implementation("c")


def cut(
    module: ModuleType, data: Any, at: int = 0, least: int = 65_536, known: dict[bytes, Any] | None = None
) -> tuple[int, list[Any]]:
    """The frames that are cut off, and where it stopped."""
    runs: list[Any] = []
    return module.cut_frames(data, at, least, BEGINS, KNOWN if known is None else known, runs), runs


@pytest.mark.parametrize("head", HEADS)
def test_frames_with_one_known_head_are_one_run(module: ModuleType, head: bytes) -> None:
    data = module.join_frames(head, [b"one", b"two", b"h\1a\1"])
    assert cut(module, data) == (len(data), [(KNOWN[head], [b"one", b"two", b"h\1a\1"])])


def test_runs_are_in_the_order_of_the_frames(module: ModuleType) -> None:
    data = b"".join(
        module.join_frames(HEADS[number], [term])
        for number, term in ((0, b"a"), (0, b"b"), (1, b"c"), (0, b"d"))
    )
    assert cut(module, data) == (len(data), [(0, [b"a", b"b"]), (1, [b"c"]), (0, [b"d"])])


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_terms_are_bytes_of_their_own_whatever_they_are_cut_off(module: ModuleType, kind: Any) -> None:
    data = kind(bytearray(b"xx" + module.join_frames(HEADS[0], [b"term"])))
    _, runs = cut(module, data, 2)
    if kind is not bytes:
        data[-1:] = b"!"
    assert runs == [(0, [b"term"])]
    assert type(runs[0][1][0]) is bytes


FRAME = frames.join_frames(HEADS[0], [b"term"])
OTHERS = {
    "a tick": b"\0\0\0\0",
    "not complete": FRAME[:-1],
    "a length only": FRAME[:4],
    "part of a length": FRAME[:3],
    "large": frames.join_frames(HEADS[0], [b"x" * 65_536]),
    "without a term": frames.join_frames(HEADS[0], [b""]),
    "of an unknown head": frames.join_frames(BEGINS + encode_bare((22, US, US)), [b"term"]),
    "that begins otherwise": frames.join_frames(b"\x83D\1" + HEADS[0][3:], [b"term"]),
    "shorter than what heads begin with": frames.join_frames(b"\x83", [b"D"]),
    "of a longest length": b"\xff" * 40,
    "with a head cut off": frames.join_frames(HEADS[0][:-1], [b"!"]),
}


@pytest.mark.parametrize("other", OTHERS)
def test_it_stops_at_every_other_frame(module: ModuleType, other: str) -> None:
    data = FRAME + OTHERS[other]
    assert cut(module, data) == (len(FRAME), [(0, [b"term"])])


def test_a_known_head_of_terms_that_real_heads_have_not_is_another(module: ModuleType) -> None:
    for control in ((22, [1, 2]), (22, 1.5), (22, b"x"), Atom("é" * 200), (1,) * 64, (22, Atom("x" * 250), (Atom("x" * 250),) * 4)):  # fmt: skip
        head = BEGINS + encode_bare(control)
        assert cut(module, module.join_frames(head, [b"x"]), known={head: 1}) == (0, [])


def test_an_offset_beyond_the_data_is_refused() -> None:
    c = codec.implementation("c")
    for at in (-1, 4):
        with pytest.raises(ValueError, match="no such place"):
            cut(c, b"abc", at)
    with pytest.raises(TypeError):
        c.cut_frames(b"abc", 0, 1, bytearray(), {}, [])
    with pytest.raises(TypeError):
        c.cut_frames(b"abc", 0, 1, b"", {}, ())


REF = Reference("us@h", 7, (1, 2, 3))
SIGNALS: frames.Signals = {
    35: ("ipp", lambda *fields: (b"unlink", *fields), False),
    19: ("pnr", lambda *fields: (b"monitor", *fields), False),
    33: ("pr", lambda *fields: (b"alias", *fields), True),
}
"""What is read as it comes, as something that no head means."""


def signals_in(
    module: ModuleType, data: bytes, begins: bytes = BEGINS, unread: dict[bytes, Any] | None = None
) -> tuple[int, list[Any]]:
    """As `cut`, with the signals."""
    runs: list[Any] = []
    return module.cut_frames(data, 0, 65_536, begins, KNOWN, runs, SIGNALS, sys.maxsize, unread), runs


def frame(control: Any, payload: bytes = b"") -> bytes:
    """A frame with a head of its own."""
    return frames.join_frames(BEGINS + encode_bare(control), [payload])


@pytest.mark.parametrize("watched", [US, Atom("shop"), True, None], ids=repr)
def test_signals_are_read_as_they_come_and_end_a_run(module: ModuleType, watched: Any) -> None:
    data = FRAME + frame((19, THEM, watched, REF)) + FRAME + FRAME + frame((33, THEM, REF), b"h\0")
    assert signals_in(module, data) == (
        len(data),
        [
            (0, [b"term"]),
            ((b"monitor", THEM, watched, REF), None),
            (0, [b"term", b"term"]),
            ((b"alias", THEM, REF), b"h\0"),
        ],
    )


@pytest.mark.parametrize("number", [1, 255, 256, 2**31 - 1])
def test_a_number_may_be_in_a_signal(module: ModuleType, number: int) -> None:
    data = frame((35, number, THEM, US))
    assert signals_in(module, data) == (len(data), [((b"unlink", number, THEM, US), None)])


@pytest.mark.parametrize(("node", "name"), [(Atom("us@h"), "us@h"), (None, None), (True, None)])
def test_a_signal_behind_a_node_means_both(module: ModuleType, node: Any, name: str | None) -> None:
    data = frames.join_frames(encode_bare((node, (33, THEM, REF))), [b"h\0"])
    assert signals_in(module, data, b"") == (len(data), [(((b"alias", THEM, REF), name), b"h\0")])


WAYS = {b"us@h": "way", b"nil": "no node"}
ALIAS = encode_bare((33, THEM, REF))


def paired(node: Any, control: bytes, payload: bytes = b"h\0") -> bytes:
    """A frame of a node, a control message and a term."""
    return frames.join_frames(b"h\2" + encode_bare(node) + control, [payload])


def test_signals_with_a_term_are_left_unread_for_nodes_that_want_it_so(module: ModuleType) -> None:
    for_us, for_others = paired(Atom("us@h"), ALIAS), paired(Atom("them@h"), ALIAS)
    known = frames.join_frames(HEADS[3][len(BEGINS) :], [b"term"])
    of_known = {HEADS[3][len(BEGINS) :]: 3}
    runs: list[Any] = []
    data = for_us + known + for_others + for_us
    at = module.cut_frames(data, 0, 65_536, b"", of_known, runs, SIGNALS, sys.maxsize, WAYS)
    read = ((b"alias", THEM, REF), "them@h"), b"h\0"
    unread = "way", ALIAS + b"h\0"
    assert (at, runs) == (len(data), [unread, (3, [b"term"]), read, unread])


@pytest.mark.parametrize("unread", [None, {}, {b"other@h": 1}])
def test_without_a_way_for_its_node_a_signal_is_read(
    module: ModuleType, unread: dict[bytes, Any] | None
) -> None:
    data = paired(Atom("us@h"), ALIAS)
    expected = (len(data), [(((b"alias", THEM, REF), "us@h"), b"h\0")])
    assert signals_in(module, data, b"", unread) == expected


def test_what_has_no_term_or_is_none_of_the_signals_is_not_left_unread(module: ModuleType) -> None:
    monitor = encode_bare((19, THEM, US, REF))
    data = paired(Atom("us@h"), monitor, b"")
    assert signals_in(module, data, b"", WAYS) == (len(data), [(((b"monitor", THEM, US, REF), "us@h"), None)])
    for control, payload in (
        (monitor, b"h\0"),
        (ALIAS, b""),
        (encode_bare((33, THEM)), b"h\0"),
        (encode_bare((33, THEM, REF, 1)), b"h\0"),
        (encode_bare((20, THEM, REF)), b"h\0"),
        (encode_bare((33, [THEM], REF)), b"h\0"),
        (ALIAS[:-1], b""),
    ):
        assert signals_in(module, paired(Atom("us@h"), control, payload), b"", WAYS) == (0, [])


def test_only_behind_a_node_is_anything_left_unread(module: ModuleType) -> None:
    data = frame((33, THEM, REF), b"h\0")
    assert signals_in(module, data, unread=WAYS) == (len(data), [((b"alias", THEM, REF), b"h\0")])


UNUSUAL = {
    "of another operation": frame((20, THEM, US, REF)),
    "with a field too few": frame((19, THEM, US)),
    "with a field too many": frame((19, THEM, US, REF, 1)),
    "with a number for a name": frame((19, THEM, 5, REF)),
    "with a name for a pid": frame((19, Atom("x"), US, REF)),
    "with a pid for a reference": frame((33, THEM, US), b"h\0"),
    "with a zero for a number": frame((35, 0, THEM, US)),
    "with a negative number": frame((35, -5, THEM, US)),
    "with a large number": frame((35, 1 << 40, THEM, US)),
    "with a pid for a number": frame((35, THEM, THEM, US)),
    "with a term too many": frame((19, THEM, US, REF), b"h\0"),
    "without its term": frame((33, THEM, REF)),
    "with a list in it": frame((19, THEM, [US], REF)),
    "of one element": frame((19,)),
    "with an atom that is no text": frame((33, THEM, REF), b"h\0").replace(b"them@h", b"the\xff@h"),
    "with a number of four bytes": frame((19, THEM, US, REF)).replace(b"a\x13", b"b\0\0\0\x13"),
    "cut off": frame((19, THEM, US, REF))[:-1],
}


@pytest.mark.parametrize("other", UNUSUAL)
def test_it_stops_at_a_signal_that_is_unusual(module: ModuleType, other: str) -> None:
    assert signals_in(module, FRAME + UNUSUAL[other]) == (len(FRAME), [(0, [b"term"])])
    behind = UNUSUAL[other][4 + len(BEGINS) :]
    for body in (behind, b"h\2w\4us@h" + behind, b"h\2" + behind, b"h\3w\4us@h" + behind):
        if other != "cut off":
            assert signals_in(module, len(body).to_bytes(4) + body, b"") == (0, [])


def test_what_is_no_table_of_signals_is_refused() -> None:
    c = codec.implementation("c")
    for signals in ((), {19: ("pnr", print)}, {19: "pnr"}, {19: (1, print, False)}):
        with pytest.raises(TypeError):
            c.cut_frames(frame((19, THEM, US, REF)), 0, 65_536, BEGINS, {}, [], signals)
    for signals in ({33: ("pr", print)}, {33: "pr"}, {33: (1, print, True)}):
        with pytest.raises(TypeError):
            c.cut_frames(paired(Atom("us@h"), ALIAS), 0, 65_536, b"", {}, [], signals, 9, WAYS)
    with pytest.raises(TypeError):
        c.cut_frames(b"", 0, 65_536, b"", {}, [], SIGNALS, 9, ())


def test_what_the_signal_raises_comes_out(module: ModuleType) -> None:
    def broken(*fields: object) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        module.cut_frames(frame((33, THEM, REF), b"x"), 0, 99, BEGINS, {}, [], {33: ("pr", broken, True)})


PIECES = st.sampled_from([*HEADS, *OTHERS.values(), FRAME, b"\0\0\0\x2f", b"term"])


@given(st.lists(PIECES, max_size=12), st.integers(0, 3), st.sampled_from([1, 60, 65_536]))
def test_both_cut_alike_whatever_comes(pieces: list[bytes], at: int, least: int) -> None:
    data = b"".join(pieces)
    at = min(at, len(data))
    assert cut(codec.implementation("c"), data, at, least) == cut(frames, data, at, least)


FIELDS = st.sampled_from(
    [THEM, US, REF, Atom("x"), Atom("\u00e9" * 200), True, None, 5, 70_000, 1.5, b"x", [], (THEM,)]
)
SIGNAL = st.builds(
    lambda op, fields: (op, *fields), st.sampled_from([19, 33, 20, 400]), st.lists(FIELDS, max_size=4)
)


@given(
    st.lists(st.tuples(SIGNAL | FIELDS, st.sampled_from([b"", b"h\0", b"x" * 2_000])), max_size=6),
    st.sampled_from([b"", BEGINS, b"h\2w\4us@h", b"h\2w\3nil"]),
    st.sampled_from([b"", BEGINS]),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=2),
    st.sampled_from([None, {}, WAYS]),
)
def test_both_read_the_same_signals(
    controls: list[tuple[Any, bytes]],
    front: bytes,
    begins: bytes,
    changes: list[tuple[int, int]],
    unread: dict[bytes, Any] | None,
) -> None:
    data = bytearray(
        b"".join(frames.join_frames(front + encode_bare(control), [payload]) for control, payload in controls)
    )
    for at, byte in changes:
        if at < len(data):
            data[at] = byte
    expected = signals_in(frames, bytes(data), begins, unread)
    assert signals_in(codec.implementation("c"), bytes(data), begins, unread) == expected


@given(st.lists(st.sampled_from([(19, THEM, US, REF), *CONTROLS[:3]])), st.integers(1, 8))
def test_no_more_runs_are_cut_off_than_asked_for(controls: list[Any], most: int) -> None:
    data = b"".join(frame(control, b"" if control[0] == 19 else b"x") for control in controls)
    whole = signals_in(frames, data)
    for implementation in (frames, codec.implementation("c")):
        found: list[Any] = []
        at = 0
        while at < len(data):
            runs: list[Any] = []
            before, at = at, implementation.cut_frames(data, at, 65_536, BEGINS, KNOWN, runs, SIGNALS, most)
            assert at > before
            assert len(runs) == most or at == len(data)
            assert len(runs) <= most
            found += runs
        assert (at, found) == whole


@given(st.binary(min_size=1, max_size=200), st.integers(0, 400))
def test_both_find_the_same_end_of_a_head(begins: bytes, size: int) -> None:
    data = (len(begins) + size).to_bytes(4) + begins + bytes(size)
    known = {begins[:each]: each for each in range(1, len(begins) + 1)}
    runs: list[Any] = []
    ours: list[Any] = []
    at = codec.implementation("c").cut_frames(data, 0, 65_536, b"", known, runs)
    assert (at, runs) == (frames.cut_frames(data, 0, 65_536, b"", known, ours), ours)


@given(strategies.terms(), st.sampled_from([0, 3, 20, 300, 65_536, 1 << 30]))
def test_a_frame_is_head_and_term_or_nothing(term: Any, most: int) -> None:
    expected = frames.pack_frame(b"head", term, most)
    assert codec.implementation("c").pack_frame(b"head", term, most) == expected
    data = b"head" + encode_bare(term)
    assert expected == (len(data).to_bytes(4) + data if len(data) <= most else None)


@pytest.mark.parametrize(
    "term", [b"x" * 65_536, b"x" * 491, "é" * 245, [7] * 493, [1.5] * 54, list(range(300))]
)
@pytest.mark.parametrize("by", [-1, 0, 1])
def test_a_frame_may_have_as_many_bytes_as_it_is_said(module: ModuleType, term: Any, by: int) -> None:
    size = 4 + len(encode_bare(term))
    assert (module.pack_frame(b"head", term, size + by) is None) == (by < 0)


def test_what_is_no_term_is_no_frame(module: ModuleType) -> None:
    assert module.pack_frame(b"head", object(), 65_536) is None
    assert module.pack_frame(b"head", [1, {2: object()}], 65_536) is None
    assert module.pack_frame(b"head", 1, 65_536, (33, object())) is None


@given(strategies.terms(), st.sampled_from(CONTROLS), st.sampled_from([0, 40, 80, 65_536]))
def test_a_term_may_belong_to_the_head(term: Any, control: Any, most: int) -> None:
    expected = frames.pack_frame(b"head", term, most, control)
    assert codec.implementation("c").pack_frame(b"head", term, most, control) == expected
    data = b"head" + encode_bare(control) + encode_bare(term)
    assert expected == (len(data).to_bytes(4) + data if len(data) <= most else None)


def test_joined_terms_may_be_views(module: ModuleType) -> None:
    expected = b"\0\0\0\3hxy" + b"\0\0\0\2hz"
    assert module.join_frames(b"h", [memoryview(b"xy"), bytearray(b"z")]) == expected
    assert module.join_frames(b"h", (b"xy", b"z")) == expected
    assert module.join_frames(b"h", []) == b""


def test_the_choice_is_that_of_the_codec() -> None:
    etf = importlib.import_module("pyglyn.etf")
    expected = "pyglyn.etf.frames" if etf.IMPLEMENTATION == "python" else "pyglyn.etf._speedups"
    assert etf.cut_frames.__module__ == expected
