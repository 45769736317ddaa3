"""Formats give what a real node's ``io_lib:format`` gives; `io_formats.txt` has one call a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pyglyn.etf import Atom, Fun, Pid, Port, Reference, io_lib
from pyglyn.etf.io_write import MAX_NODES, Names

CALLS = Path(__file__).with_name("io_formats.txt").read_text().splitlines()
MADE = """
    [{F, A, try unicode:characters_to_binary(io_lib:format(F, A)) catch _:_ -> badarg end}
     || {F, A} <- [%s]]
"""


async def test_formats_are_those_of_a_real_node(beam):
    assert len(CALLS) > 300
    made: Any = await beam.eval(MADE % ",".join(f"{{{call}}}" for call in CALLS), timeout=60)
    wrong = []
    for call, (template, args, expected) in zip(CALLS, made, strict=True):
        try:
            text: Any = io_lib.format(template, args).encode()
        except io_lib.BadFormat:
            text = Atom("badarg")
        if text != expected:
            wrong.append((call, expected, text))
    assert not wrong


async def test_identities_are_those_of_a_real_node_but_for_the_numbers_of_other_nodes(beam):
    template = b"~p ~w ~p ~p ~w"
    ours, *args = await beam.eval(
        'P = open_port({spawn_executable, "/bin/true"}, []),'
        "Args = [self(), P, make_ref(), fun(X) -> X end, fun lists:map/2],"
        "[unicode:characters_to_binary(io_lib:format(Format, Args)) | Args]",
        Format=template,
    )
    assert io_lib.format(template, args, Names(beam.name)).encode() == ours
    here = Names("py@localhost")
    shown = io_lib.format(template, args, here).encode()
    assert shown == ours.replace(b"<0.", b"<1.")  # a port, a pid and a reference begin so
    assert io_lib.format(b"~w", [Pid("other@localhost", 7, 0, 1)], here) == "<2.7.0>"
    assert io_lib.format(b"~w", [Pid("py@localhost", 7, 0, 1)], here) == "<0.7.0>"
    assert [type(each) for each in args[:4]] == [Pid, Port, Reference, Fun]


@pytest.mark.parametrize("depth", [10, 100_000])
def test_what_is_nested_deeply_has_a_text(depth):
    term: Any = []
    for _ in range(depth):
        term = [Atom("a"), term]
    for control in (b"~w", b"~p"):
        assert io_lib.format(control, [term]).count("a") >= 10


def test_a_width_beyond_all_measure_is_refused():
    for template in (b"~999999999w", b"~99999999999999999999w", b"~.999999999f"):
        with pytest.raises(io_lib.BadFormat):
            io_lib.format(template, [1.0])


def test_what_is_left_out_is_dots():
    assert io_lib.format(b"~w", [[*range(1000, 4000)]]).endswith(",...]")
    assert io_lib.format(b"~p", [tuple(range(5000))]).endswith("...}")
    assert io_lib.format(b"~s", [b"a" * 100_000]).endswith("aaa...")
    assert io_lib.format(b"~s", [[97] * 100_000]).endswith("aaa...")
    assert io_lib.format(b"~p", [[97] * 100_000]).endswith('aaa..."')
    assert io_lib.format(b"~s|~p", [b"a" * 100_000, Atom("b")]).endswith("aaa...|...")
    assert io_lib.format(b"~w", [[1, 2]]) == "[1,2]"


def test_numbers_of_nodes_begin_anew_once_there_are_many():
    names = Names("own@localhost")
    assert [names.number(f"n{n}@localhost") for n in range(MAX_NODES + 1)] == [*range(1, MAX_NODES + 1), 1]
    assert names.number("own@localhost") == 0
