"""Which codec is chosen, and that both are called in the same way."""

from __future__ import annotations

import copy
import inspect
import os
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

from pyglyn.etf import Limits, Pid, Port, Reference
from pyglyn.etf import pure as python
from tests.etf.codec import DECODING, ENCODING, NORMALISING, assert_same, function_of, implementation


@pytest.mark.beside
@pytest.mark.parametrize(
    ("code", "variables", "chosen"),
    [
        ("", {}, "c"),
        ("", {"PYGLYN_PURE": "0"}, "c"),
        ("", {"PYGLYN_PURE": "1"}, "python"),
        ("import sys; sys.modules['pyglyn.etf._speedups'] = None; ", {}, "python"),
    ],
    ids=["built", "not-refused", "refused", "missing"],
)
def test_the_codec_is_chosen_once_and_silently(code: str, variables: dict[str, str], chosen: str) -> None:
    if chosen == "c":
        implementation("c")
    code += "from pyglyn import etf; print(etf.IMPLEMENTATION, etf.encode.__module__, etf.decode.__module__)"
    environment = {name: value for name, value in os.environ.items() if name != "PYGLYN_PURE"} | variables
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    module = {"c": "pyglyn.etf._speedups", "python": "pyglyn.etf.pure"}[chosen]
    assert done.stdout.split() == [chosen, module, module]
    assert not done.stderr


@pytest.mark.parametrize("name", [*DECODING, *ENCODING, NORMALISING])
def test_the_signatures_are_the_same(speedups: ModuleType, name: str) -> None:
    theirs, ours = (inspect.signature(function_of(m, name)).parameters for m in (python, speedups))
    assert [(p.name, p.kind) for p in ours.values()] == [(p.name, p.kind) for p in theirs.values()]
    required = inspect.Parameter.empty
    assert [p.default is required for p in ours.values()] == [p.default is required for p in theirs.values()]


CALLS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}),
    ((b"\x83a\1", 1, 2), {}),
    ((b"\x83a\1", 1.0), {}),
    ((b"\x83a\1", True), {}),
    ((b"\x83a\1", -1), {}),
    ((b"\x83a\1", 1 << 70), {}),
    ((b"\x83a\1", 4), {}),
    ((b"\x83a\1",), {"other": 1}),
    ((b"\x83a\1",), {"limits": None}),
    ((b"\x83h\1a\1",), {"limits": Limits(depth=1 << 70, elements=1 << 70)}),
    ((b"\x83h\1a\1",), {"limits": Limits(depth=-1)}),
    ((b"\x83h\0",), {"limits": Limits(elements=-1)}),
    ((b"\x83a\1",), {"limits": Limits(elements=-1, depth=-1)}),
    ((b"\x83a\1",), {"limits": Limits(), "compressed": 6}),
    ((b"\x83a\1",), {"compressed": 6}),
    ((b"\x83h\1" * 50,), {"compressed": 9}),
    ((b"\x83a\1",), {"compressed": 10}),
    ((b"\x83a\1",), {"compressed": "high"}),
    ((), {"data": b"\x83a\1"}),
    ((), {"term": 5}),
    ((), {"data": b"\x83a\1", "offset": 1, "limits": Limits()}),
    ((b"\x83a\1",), {"offset": 1, "limits": Limits()}),
    (("text",), {}),
    ((None,), {}),
]


@pytest.mark.parametrize("name", [*DECODING, *ENCODING, NORMALISING])
@pytest.mark.parametrize(("args", "options"), CALLS)
def test_calls_of_every_form_end_the_same(
    speedups: ModuleType, name: str, args: tuple[Any, ...], options: dict[str, Any]
) -> None:
    assert_same(speedups, name, *args, **options)


_HASHES = """
from pyglyn.etf import Pid, Port, Reference
print(*[hash(each) for each in (
    Pid("a@b", 1, 2, 3), Pid("a@b", 1, 2, 1 << 32), Port("a@b", 1 << 63, 2), Reference("a@b", 1, (1, 2, 3)),
    Reference("a@b", 1, ()), Reference("a@b", 1, (1,) * 6), Reference("a@b", -1, (1,)), Reference("é@b", 1, (2,)),
)])
"""


def _hashes(seed: int, **variables: str) -> list[int]:
    environment = os.environ | {"PYTHONHASHSEED": str(seed)} | variables
    done = subprocess.run(
        [sys.executable, "-c", _HASHES], env=environment, capture_output=True, text=True, check=True
    )
    return list(map(int, done.stdout.split()))


@pytest.mark.beside
def test_identifiers_have_the_same_hashes(speedups: ModuleType) -> None:
    assert _hashes(1, PYGLYN_PURE="0") == _hashes(1, PYGLYN_PURE="1")


@pytest.mark.beside
@pytest.mark.parametrize("pure", ["0", "1"])
def test_no_peer_can_know_which_identifiers_share_a_hash(pure: str) -> None:
    """What the numbers in it contribute has a key as well, not only the name of the node."""
    (one, *_, three), (again, *_, thrice) = ([*_hashes(seed, PYGLYN_PURE=pure)[::3][:2]] for seed in (1, 2))
    assert one ^ three != again ^ thrice


def test_identifiers_are_equal_by_all_their_fields() -> None:
    same = [Pid("a@b", 1, 2, 3), Port("a@b", 1, 2), Reference("a@b", 1, (1, 2))]
    other = [
        Pid("a@c", 1, 2, 3), Pid("a@b", 0, 2, 3), Pid("a@b", 1, 0, 3), Pid("a@b", 1, 2, 0),
        Port("a@c", 1, 2), Port("a@b", 0, 2), Port("a@b", 1, 0),
        Reference("a@c", 1, (1, 2)), Reference("a@b", 0, (1, 2)), Reference("a@b", 1, (1,)), Reference("a@b", 1, (2, 2)),
    ]  # fmt: skip
    for each in same:
        assert each == copy.copy(each)
        assert hash(each) == hash(copy.copy(each))
        assert each.__eq__(("a@b", 1, 2, 3)) is NotImplemented
        assert all(each != another for another in other)
    assert len({*same, *other, *map(copy.copy, same)}) == len(same) + len(other)
