"""The codec in C beside the one in Python: same bytes in, same term or same error out."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyglyn.etf import Atom, BitString, ImproperList, Limits, Pid, Reference
from pyglyn.etf import pure as python
from pyglyn.etf.decoder import Walk
from tests.etf.codec import DECODING, ENCODING, assert_same, outcome_of
from tests.etf.damage import mutated, seeds
from tests.strategies import small_maps, terms

SEEDS = seeds()


def _limits() -> st.SearchStrategy[Limits]:
    some = st.builds(
        Limits,
        depth=st.one_of(st.integers(0, 6), st.integers(60, 70)),
        elements=st.one_of(st.integers(0, 40), st.just(1000)),
        size=st.integers(0, 1000),
    )
    return st.one_of(st.just(Limits()), some)


def _decodes_the_same(speedups: ModuleType, data: bytes, limits: Limits) -> None:
    assert_same(speedups, "decode", data, limits=limits)
    assert_same(speedups, "decode_prefix", data, limits=limits)
    for offset in (0, 1, len(data)):
        assert_same(speedups, "decode_bare", data, offset, limits=limits)


@given(term=terms(), limits=_limits(), rest=st.binary(max_size=3))
def test_right_bytes_give_the_same_term(speedups: ModuleType, term: Any, limits: Limits, rest: bytes) -> None:
    _decodes_the_same(speedups, python.encode(term) + rest, limits)


@given(term=small_maps())
def test_maps_are_the_same(speedups: ModuleType, term: Any) -> None:
    _decodes_the_same(speedups, python.encode(term), Limits())


@given(data=st.one_of(st.binary(max_size=60), st.binary(max_size=60).map(b"\x83".__add__)), limits=_limits())
def test_noise_gives_the_same_error(speedups: ModuleType, data: bytes, limits: Limits) -> None:
    _decodes_the_same(speedups, data, limits)


@given(data=terms().map(python.encode), rng=st.randoms(use_true_random=False), limits=_limits())
def test_damage_gives_the_same_error(
    speedups: ModuleType, data: bytes, rng: random.Random, limits: Limits
) -> None:
    _decodes_the_same(speedups, mutated(data, rng), limits)


@pytest.mark.parametrize("data", SEEDS, ids=lambda data: data[:12].hex())
def test_every_tag_is_the_same_whole_cut_off_and_damaged(speedups: ModuleType, data: bytes) -> None:
    rng = random.Random(len(data))
    for damaged in (
        data,
        *(data[:size] for size in range(len(data))),
        *(mutated(data, rng) for _ in range(50)),
    ):
        for whole in (
            damaged,
            b"\x83l\0\0\0\2" + damaged[1:] + b"a\1j",
            b"\x83t\0\0\0\1" + damaged[1:] + b"j",
        ):
            _decodes_the_same(speedups, whole, Limits())


DEEP = {
    "tuples": lambda n: b"\x83" + b"h\1" * n + b"a\1",
    "large tuples": lambda n: b"\x83" + b"i\0\0\0\1" * n + b"a\1",
    "lists": lambda n: b"\x83" + b"l\0\0\0\1" * n + b"a\1" + b"j" * n,
    "tails": lambda n: b"\x83" + b"l\0\0\0\1a\1h\1" * (n // 2) + b"a\1",
    "map values": lambda n: b"\x83" + b"t\0\0\0\1a\1" * n + b"a\1",
    "map keys": lambda n: b"\x83" + b"t\0\0\0\1" * n + b"a\1" + b"j" * n,
}


@pytest.mark.parametrize("shape", DEEP)
@pytest.mark.parametrize("depth", [0, 1, 2, 63, 64, 65, 66, 128])
def test_depth_is_limited_the_same(speedups: ModuleType, shape: str, depth: int) -> None:
    data = DEEP[shape](depth)
    for limit in (depth - 2, depth - 1, depth, depth + 1):
        _decodes_the_same(speedups, data, Limits(depth=limit))
    term = python.decode(data)
    for name in ENCODING:
        assert_same(speedups, name, term)


@pytest.mark.parametrize(
    "data",
    [
        b"\x83l\0\0\0\1a\1k\0\2ab",
        b"\x83l\0\0\0\0a\1",
        b"\x83l\0\0\0\0j",
        b"\x83l\0\0\0\1a\1l\0\0\0\1a\2w\1z",
        b"\x83i\0\0\0\0",
        b"\x83k\0\0",
        b"\x83t\0\0\0\2a\1jF?\xf0\0\0\0\0\0\0j",
        b"\x83t\0\0\0\2a\1jw\4truej",
        b"\x83t\0\0\0\2a\1jb\0\0\0\1j",
        b"\x83t\0\0\0\1h\1a\1j",
        b"\x83t\0\0\0\1jj",
        b"\x83n\x08\0" + b"\xff" * 8,
        b"\x83n\x08\1" + b"\xff" * 7 + b"\x7f",
        b"\x83n\x08\1" + b"\0" * 7 + b"\x80",
        b"\x83n\x09\1" + b"\0" * 9,
        b"\x83n\0\1",
        b"\x83o\0\0\0\2\1ab",
        b"\x83o\0\0\x10\0\1" + b"a" * 4096,
        b"\x83M\0\0\x10\0\3" + b"a" * 4096,
        b"\x83v\3\xfc" + "\U0001f600".encode() * 255,
        b"\x83q" + 2 * (b"v\3\xfc" + "\U0001f600".encode() * 255) + b"a\1",
        b"\x83Xv\0\3a@b" + bytes(12),
        b"\x83Xs\3\xe9@b" + bytes(12),
        b"\x83Xd\0\4\xe9\xe9@b" + bytes(12),
        b"\x83v\1\0" + b"x" * 256,
        b"\x83v\1\1" + b"x" * 256 + b"\xff",
        b"\x83Z\0\0w\3a@b" + bytes(4),
        b"\x83Z\0\6w\3a@b" + bytes(28),
        b"\x83r\0\1w\3a@b\4" + bytes(4),
        b"\x83r\0\1w\3a@b\3\0\4\0\0",
        b"\x83ew\3a@b\0\3\xff\xff\3",
        b"\x83fw\3a@b\0\0\0\1\4",
        b"\x83gw\3a@b\0\0\0\1\0\0\0\1\4",
        b"\x83xw\3a@b" + b"\xff" * 12,
        b"\x83qw\1mw\1fb\0\0\0\1",
        b"\x83qw\1mn\1\0\1a\1",
        b"\x83l\0\0\0\1a\1l\0\0\0\0l\0\0\0\1a\2k\0\2ab",
        b"\x83l\0\0\0\0l\0\0\0\0a\1",
        b"\x83l\0\0\0\0k\0\2ab",
        b"\x83h\2l\0\0\0\0a\1a\2",
    ],
)
@pytest.mark.parametrize("elements", [0, 1, 2, 3, 4, 1000])
def test_corners_are_the_same(speedups: ModuleType, data: bytes, elements: int) -> None:
    _decodes_the_same(speedups, data, Limits(elements=elements))


def _map_of(keys: list[Any]) -> bytes:
    pairs = b"".join(python.encode_bare(key) + b"j" for key in keys)
    return b"\x83t" + len(keys).to_bytes(4, "big") + pairs


@pytest.mark.parametrize("count", [100, 101, 250])
@pytest.mark.parametrize("step", [1, (1 << 61) - 1])
def test_large_maps_are_the_same_with_keys_that_collide_and_others(
    speedups: ModuleType, count: int, step: int
) -> None:
    for keys in (
        [step * n for n in range(count)],
        [(step * n,) for n in range(count)],
        [float(step * n) for n in range(count)],
        [b"%d" % (step * n) for n in range(count)],
    ):
        _decodes_the_same(speedups, _map_of(keys), Limits())
        _decodes_the_same(speedups, _map_of([*keys, keys[0]]), Limits())


BUFFERS: list[Callable[[bytes], Any]] = [
    bytearray,
    memoryview,
    lambda data: memoryview(bytearray(data)),
    lambda data: memoryview(data).cast("c"),
    lambda data: memoryview(data + bytes(-len(data) % 4)).cast("I"),
    lambda data: memoryview(bytes(b for byte in data for b in (byte, 0)))[::2],
    lambda data: memoryview(data).cast("B", (1, len(data))) if data else memoryview(data),
    type("Bytes", (bytes,), {}),
]


@pytest.mark.parametrize("buffer", BUFFERS)
@pytest.mark.parametrize("size", [0, 70_000])
def test_every_buffer_gives_the_same(speedups: ModuleType, buffer: Callable[[bytes], Any], size: int) -> None:
    data = python.encode(
        [bytes(size), Pid("a@b", 1, 2, 3), Reference("a@b", 1, (2,)), [1.5], {b"k": BitString(b"\x80", 1)}]
    )
    for damaged in (data, data[:-1], data + b"\0", b"", b"\x83"):
        _decodes_the_same(speedups, buffer(damaged), Limits())


def test_a_view_that_was_released_is_the_same_error(speedups: ModuleType) -> None:
    view = memoryview(b"\x83a\1")
    view.release()
    for name in DECODING:
        assert_same(speedups, name, view)


def test_the_handler_of_an_error_may_resize_the_buffer(speedups: ModuleType) -> None:
    for damage in (b"\x83h\2a\1", b"\x83h\2p", b"\x83", b"\x83P", b"\x83o\xff\xff\xff\xff"):
        buffer = bytearray(damage)
        with pytest.raises(ValueError, match="expected"):
            speedups.decode(buffer)
        buffer.clear()


def test_atoms_are_the_same_objects_and_pids_are_shared(speedups: ModuleType) -> None:
    data = python.encode([Atom("one"), True, None, 7, ()])
    for mine, theirs in zip(speedups.decode(data), python.decode(data), strict=True):
        assert mine is theirs
    fresh = python.encode([Pid("n@h", 9, 9, 9), Pid("n@h", 9, 9, 9), Pid("n@h", 9, 8, 9)])
    one, two, three = speedups.decode(fresh)
    assert one is two
    assert one == python.decode(fresh)[0]
    assert one != three


def test_more_atoms_and_pids_than_are_remembered_are_all_right(speedups: ModuleType) -> None:
    term = [(Atom("a" * (n % 250) + str(n)), Pid(f"n{n % 7}@h", n, n % 3, 1)) for n in range(10_000)]
    data = python.encode(term)
    assert speedups.decode(data) == term
    assert speedups.decode(data) == term


def test_the_collector_is_not_shown_what_cannot_be_in_a_cycle(speedups: ModuleType) -> None:
    plain = (
        Atom("down"),
        b"x",
        1.5,
        (Reference("a@b", 1, (1 << 20,)), Pid("a@b", 1, 2, 3)),
        ImproperList((1,), b"t"),
    )
    for term, tracked in ((plain, False), ((1, []), True), ((1, {}), True), (((1, [2]),), True), ([1], True)):
        assert gc.is_tracked(speedups.decode(python.encode(term))) is tracked
    reference = speedups.decode(python.encode(Reference("a@b", 1, (1 << 20,))))
    assert not gc.is_tracked(reference)
    assert not gc.is_tracked(reference.words)


def test_the_collector_is_as_it_was(speedups: ModuleType) -> None:
    """Also where Python code runs in between, and after errors."""
    large = [(n, BitString(b"\x80", 1), {(n,): n}) for n in range(300)]
    for data in (python.encode(large), python.encode(large)[:-1], python.encode([b"x" * 5000, 1])):
        assert gc.isenabled()
        outcome_of(speedups.decode, data)
        assert gc.isenabled()
        gc.disable()
        try:
            outcome_of(speedups.decode, data)
            assert not gc.isenabled()
        finally:
            gc.enable()


@pytest.mark.parametrize("shape", DEEP)
def test_what_is_wrong_at_the_end_of_a_large_input_is_told_without_reading_it_again(
    speedups: ModuleType, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steps that Python takes are counted, not the time."""
    steps = 0
    step = Walk._step

    def counted(walk: Walk) -> None:
        nonlocal steps
        steps += 1
        step(walk)

    monkeypatch.setattr(Walk, "_step", counted)
    inner = DEEP[shape](2_000)[1:]
    for data in (
        b"\x83l\0\0\0\2" + inner + b"\xff",
        b"\x83h\3" + inner + b"p" + bytes(40),
        b"\x83h\2l\0\0\4\0" + b"a\1" * 1024 + b"jt\0\0\0\2a\1ja\1j",
        b"\x83h\2" + inner,
    ):
        expected = outcome_of(python.decode, data)
        steps = 0
        assert outcome_of(speedups.decode, data) == expected
        assert steps <= 1
