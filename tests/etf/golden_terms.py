"""Erlang expressions and the terms they are in Python; `golden.json` has their bytes from real nodes.

`make_golden` writes that file. Each line: the expression, the Python value, and whether encoding the value
gives the very bytes (not so for forms that OTP only reads, or writes in an order of its own).
"""

from __future__ import annotations

import math
from typing import Any

import attrs

from pyglyn.etf import Atom, BitString, Export, ImproperList, Pid, Port, Reference, TermMap

A = Atom
NODE = "nonode@nohost"


@attrs.frozen
class Golden:
    """One expression.

    Attributes:
        erlang: its value is the term, or with ``raw`` already the bytes.
        value: the term in Python.
        writes: `encode` gives the same bytes.
        raw: the expression is a binary made by a call that has its own options.
    """

    erlang: str
    value: Any
    writes: bool = True
    raw: bool = False

    def expression(self) -> str:
        """The expression that gives the bytes."""
        return self.erlang if self.raw else f"term_to_binary({self.erlang}, [{{minor_version, 2}}])"


def _numbers() -> list[Golden]:
    edges = [
        0,
        1,
        255,
        256,
        -1,
        -128,
        (1 << 27) - 1,
        1 << 27,
        -(1 << 27) - 1,
        (1 << 31) - 1,
        1 << 31,
        -(1 << 31),
    ]
    edges += [-(1 << 31) - 1, (1 << 32) - 1, 1 << 32, (1 << 59) - 1, 1 << 59, -(1 << 59), -(1 << 59) - 1]
    edges += [(1 << 63) - 1, 1 << 63, -(1 << 63), (1 << 64) - 1, 1 << 64, -(1 << 64)]
    golden = [Golden(str(edge), edge) for edge in edges]
    golden += [Golden(f"(1 bsl {bits}) - 1", (1 << bits) - 1) for bits in (128, 2040, 2048)]
    golden += [Golden(f"-(1 bsl {bits})", -(1 << bits)) for bits in (128, 2039, 2040, 4096)]
    for text in (
        "0.0",
        "-0.0",
        "1.0",
        "-1.5",
        "3.141592653589793",
        "1.0e300",
        "5.0e-324",
        "1.7976931348623157e308",
    ):
        golden.append(Golden(text, float(text)))
    return golden


def _atoms() -> list[Golden]:
    golden = [
        Golden(name, A(name))
        for name in ("ok", "undefined", "process_events", "'Elixir.GenServer'", "''")
        if "'" not in name
    ]
    return [
        *golden,
        Golden("''", A("")),
        Golden("'Elixir.GenServer'", A("Elixir.GenServer")),
        Golden("true", True),
        Golden("false", False),
        Golden("nil", None),
        Golden("list_to_atom([252])", A("ü")),
        Golden("list_to_atom([8364])", A("€")),
        Golden("list_to_atom([0])", A("\0")),
        Golden("list_to_atom(lists:duplicate(255, $a))", A("a" * 255)),
        Golden("list_to_atom(lists:duplicate(127, 233))", A("é" * 127)),
        Golden("list_to_atom(lists:duplicate(128, 233))", A("é" * 128)),
        Golden("list_to_atom(lists:duplicate(255, 16#1F600))", A("\U0001f600" * 255)),
    ]


def _binaries() -> list[Golden]:
    return [
        Golden("<<>>", b""),
        Golden('<<"Gaming Laptop">>', b"Gaming Laptop"),
        Golden("<<252/utf8>>", "ü".encode()),
        Golden("<<0:(8*70000)>>", bytes(70000)),
        Golden("<<1:1>>", BitString(b"\x80", 1)),
        Golden("<<5:3>>", BitString(b"\xa0", 3)),
        Golden("<<1,2,127:7>>", BitString(b"\x01\x02\xfe", 7)),
        Golden('<<"ab", 0:4>>', BitString(b"ab\0", 4)),
    ]


def _containers() -> list[Golden]:
    return [
        Golden("[]", []),
        Golden("[1]", [1]),
        Golden('"hello"', list(b"hello")),
        Golden("[256]", [256]),
        Golden("[1, 256]", [1, 256]),
        Golden("[1, a]", [1, A("a")]),
        Golden("[true]", [True]),
        Golden("[-1]", [-1]),
        Golden("[1.0]", [1.0]),
        Golden("lists:duplicate(65535, 255)", [255] * 65535),
        Golden("lists:duplicate(65536, 255)", [255] * 65536),
        Golden("[[], [[]], [1, [2, [3]]]]", [[], [[]], [1, [2, [3]]]]),
        Golden("[a | b]", ImproperList((A("a"),), A("b"))),
        Golden("[1, 2 | 3]", ImproperList((1, 2), 3)),
        Golden("[[a | b] | {}]", ImproperList((ImproperList((A("a"),), A("b")),), ())),
        Golden("[1 | <<2>>]", ImproperList((1,), b"\x02")),
        Golden("{}", ()),
        Golden("{ok, <<1>>}", (A("ok"), b"\x01")),
        Golden("list_to_tuple(lists:seq(1, 255))", tuple(range(1, 256))),
        Golden("list_to_tuple(lists:seq(1, 256))", tuple(range(1, 257))),
        Golden("{{{{}}}}", ((((),),),)),
        Golden("#{}", {}),
        Golden("#{a => 1}", {A("a"): 1}),
        Golden('#{<<"k">> => [v]}', {b"k": [A("v")]}),
        Golden("#{a => #{b => #{}}}", {A("a"): {A("b"): {}}}),
        Golden("#{1 => a, 1.0 => b}", TermMap([(1, A("a")), (1.0, A("b"))]), writes=False),
        Golden("#{[] => 1}", TermMap([([], 1)])),
        Golden("#{#{} => {}}", TermMap([({}, ())])),
        Golden("#{{1} => a, {1.0} => b}", TermMap([((1,), A("a")), ((1.0,), A("b"))]), writes=False),
        Golden(
            "maps:from_list([{N, N} || N <- lists:seq(1, 100)])", {n: n for n in range(1, 101)}, writes=False
        ),
    ]


def _identifiers() -> list[Golden]:
    far = '<<131,88,119,13,"n1@host.local",200:32,7:32,1700000000:32>>'
    return [
        Golden('list_to_pid("<0.123.0>")', Pid(NODE, 123, 0, 0)),
        Golden('list_to_pid("<0.123.7>")', Pid(NODE, 123, 7, 0)),
        Golden(f"binary_to_term({far})", Pid("n1@host.local", 200, 7, 1700000000)),
        Golden('list_to_ref("#Ref<0.1.2.3>")', Reference(NODE, 0, (3, 2, 1))),
        Golden(
            'binary_to_term(<<131,90,5:16,119,3,"a@b",9:32,1:32,2:32,3:32,4:32,5:32>>)',
            Reference("a@b", 9, (1, 2, 3, 4, 5)),
        ),
        Golden('binary_to_term(<<131,90,1:16,119,3,"a@b",9:32,77:32>>)', Reference("a@b", 9, (77,))),
        Golden('list_to_port("#Port<0.7>")', Port(NODE, 7, 0), writes=False),
        Golden('binary_to_term(<<131,120,119,3,"a@b",16#123456789A:64,9:32>>)', Port("a@b", 0x123456789A, 9)),
        Golden("fun lists:map/2", Export("lists", "map", 2)),
        Golden("fun 'Elixir.Enum':map/255", Export("Elixir.Enum", "map", 255)),
    ]


def _old_forms() -> list[Golden]:
    """What OTP 25 and 28 read, and write only when asked."""
    return [
        Golden("term_to_binary(1.5, [{minor_version, 0}])", 1.5, writes=False, raw=True),
        Golden("term_to_binary(-1.0e-300, [{minor_version, 0}])", -1.0e-300, writes=False, raw=True),
        Golden("term_to_binary(math:pi(), [{minor_version, 0}])", math.pi, writes=False, raw=True),
        Golden(
            "term_to_binary([abc, list_to_atom([233])], [{minor_version, 1}])",
            [A("abc"), A("é")],
            writes=False,
            raw=True,
        ),
        Golden(
            "term_to_binary(lists:duplicate(1000, laptop), [compressed])",
            [A("laptop")] * 1000,
            writes=False,
            raw=True,
        ),
        Golden(
            'term_to_binary(lists:duplicate(1000, {<<"ab">>}), [{compressed, 1}])',
            [(b"ab",)] * 1000,
            writes=False,
            raw=True,
        ),
        Golden("term_to_binary(a, [compressed])", A("a"), writes=False, raw=True),
    ]


def _messages() -> list[Golden]:
    event = """{<<"inventory">>, {process_events, <<"order_001">>, [{memory_store_event_envelop,
        <<"order_001">>, 1, {order_created, <<"order_001">>, [{item, {product, <<"laptop">>,
        <<"Gaming Laptop">>, 20}, 1}], 20}, []}]}}"""
    product = (A("product"), b"laptop", b"Gaming Laptop", 20)
    created = (A("order_created"), b"order_001", [(A("item"), product, 1)], 20)
    envelope = (A("memory_store_event_envelop"), b"order_001", 1, created, [])
    pid, ref = Pid(NODE, 123, 0, 0), Reference(NODE, 0, (3, 2, 1))
    return [
        Golden(event, (b"inventory", (A("process_events"), b"order_001", [envelope]))),
        Golden(
            '{\'$gen_call\', {list_to_pid("<0.123.0>"), [alias | list_to_ref("#Ref<0.1.2.3>")]}, {is_auth, a@b}}',
            (A("$gen_call"), (pid, ImproperList((A("alias"),), ref)), (A("is_auth"), A("a@b"))),
        ),
    ]


GOLDEN: list[Golden] = [
    *_numbers(),
    *_atoms(),
    *_binaries(),
    *_containers(),
    *_identifiers(),
    *_old_forms(),
    *_messages(),
]

OPAQUE = {
    "fun": "begin Y = 5, fun(X) -> X + Y end end",
    "fun_in_fun": "begin F = fun(X) -> X end, fun(Z) -> F(Z) end end",
    "alias": "alias()",
    "reference": "make_ref()",
    "pid": "self()",
    "port": "hd(erlang:ports())",
}
"""Terms that differ from run to run: only their kind is known, and that the bytes come back unchanged."""
