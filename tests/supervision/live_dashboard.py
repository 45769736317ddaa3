"""What LiveDashboard asks by its own module, and the shapes of what a BEAM node answers.

``python -m tests.supervision.live_dashboard SYSTEM_INFO.EX`` compiles ``Phoenix.LiveDashboard.SystemInfo``
(``lib/phoenix/live_dashboard/system_info.ex`` of phoenix_live_dashboard; it needs Debian's ``elixir``), has it
ask a BEAM node, which it sends itself to, and a Python one, says what differs, and writes down what came from
the BEAM node, which the tests compare with.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from pyglyn import etf
from pyglyn.etf import Atom
from pyglyn.testing import Beam, Beams, PrivateEpmd, find_otps
from tests.supervision.asking import asked_by

FILE = Path(__file__).parent / "transcripts" / "live_dashboard.txt"
ELIXIR = "/usr/lib/elixir/lib/elixir/ebin"
MODULE = Atom("Elixir.Phoenix.LiveDashboard.SystemInfo")

_SETUP = """
Shape = fun S(nil) -> nil; S(T) when is_boolean(T) -> boolean; S(T) when is_atom(T) -> atom;
    S(T) when is_integer(T) -> integer; S(T) when is_pid(T) -> pid; S(T) when is_port(T) -> port;
    S(T) when is_binary(T) -> binary; S([]) -> [];
    S(#{'__struct__' := N} = T) ->
        maps:put('__struct__', N, maps:map(fun(_, V) -> S(V) end, maps:remove('__struct__', T)));
    S(T) when is_map(T) ->
        case lists:all(fun erlang:is_atom/1, maps:keys(T)) of
            true -> maps:map(fun(_, V) -> S(V) end, T);
            false -> {map_of, S(hd(maps:keys(T))), S(hd(maps:values(T)))} end;
    S([{K, _} | _] = L) when is_atom(K) -> {proplist, [{I, S(V)} || {I, V} <- L]};
    S([C | _]) when is_integer(C) -> string; S([H | _]) -> [S(H)];
    S(T) when is_tuple(T) -> list_to_tuple([S(E) || E <- tuple_to_list(T)]) end,
Ask = fun(Callback, Args) -> erpc:call(N, M, list_to_atom(atom_to_list(Callback) ++ "_callback"), Args) end,
Pid = erpc:call(N, erlang, whereis, [Name]),
Port = proplists:get_value(port, hd(element(1, Ask(sockets, [nil, send_oct, desc, 1])))),
"""
CALLS = (
    'info, [[<<"HOME">>], App]',
    "info, [nil, no_such_application]",
    "usage, []",
    "capabilities, [[{application, App}, {module, code}, {process, Name}]]",
    "processes, [nil, memory, desc, 3, nil]",
    'processes, [<<"a">>, message_queue_len, asc, 3, #{}]',
    "process_info, [Pid]",
    "applications_info, [nil, name, asc, 3]",
    "app_tree, [App]",
    "app_tree, [no_such_application]",
    "sockets, [nil, send_oct, desc, 1]",
    'sockets, [<<"localhost">>, local_address, asc, 1]',
    "socket_info, [Port]",
    "port_info, [Port]",
    "ports, [nil, input, desc, 3]",
    "ets, [nil, memory, desc, 0]",
    "ets_info, [no_such_table]",
    "memory_allocators, [nil]",
    "memory_allocators, [#{total => 0}]",
)


async def shapes(asking: Beam, node: str, application: str, process: str) -> dict[str, Any]:
    """Have one node ask another everything; by call, the shape of the answer."""
    calls = ", ".join(f"Shape(Ask({call}))" for call in CALLS)
    about = {"N": Atom(node), "M": MODULE, "App": Atom(application), "Name": Atom(process)}
    found: Any = await asking.eval(f"{_SETUP} [{calls}]", timeout=60, **about)
    return dict(zip(CALLS, found, strict=True))


def recorded() -> dict[str, Any]:
    """The shapes that a BEAM node answered with."""
    lines = FILE.read_text().splitlines()[1:]
    return dict(zip(CALLS, map(etf.text.parse, lines), strict=True))


def differences(theirs: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """The calls that were answered in another shape."""
    return {call: (theirs[call], ours[call]) for call in CALLS if not _fits(theirs[call], ours[call])}


def _fits(theirs: Any, ours: Any) -> bool:
    """Whether a shape is the same, but for what may be empty, or is a node's own."""
    match theirs, ours:
        case (dict(), dict()) if Atom("binary_alloc") in theirs:
            return set(theirs.values()) == set(ours.values())
        case (dict(), dict()):  # OTP 28 has one key more in `max_heap_size`
            return theirs.keys() <= ours.keys() and all(_fits(theirs[key], ours[key]) for key in theirs)
        case (tuple((Atom("atom"), Atom("pid"), Atom("atom"))), tuple((_, _, Atom("binary")))):
            return True  # labels of a tree: they have numbers of OS processes in them
        case (tuple(), tuple()):
            return len(theirs) == len(ours) and all(map(_fits, theirs, ours))
        case (list() | Atom("string"), list() | Atom("string")) if [] in (theirs, ours):
            return True
        case ([((_, _, []), below)], list()) if len(ours) == 1:  # what is above the top of a tree
            return _fits(below, ours)
        case (list(), list()):
            return len(theirs) == len(ours) and all(map(_fits, theirs, ours))
        case (Atom("binary"), None):  # the value of an environment variable
            return True
    return bool(theirs == ours)


async def main(folder: str) -> int:
    """Ask, compare, and write the file."""
    with PrivateEpmd() as epmd:
        os.environ.update(epmd.env)
        otp = min(find_otps(), key=lambda otp: int(otp.release))
        beams = Beams(epmd, otp)
        asking = await beams.start(args=["-pa", ELIXIR, folder])
        asked = await beams.start(args=["-pa", ELIXIR])
        capable = "M:node_capabilities(N, [])"
        await asking.eval(capable, M=MODULE, N=Atom(asked.name), timeout=60)
        theirs = await shapes(asking, asked.name, "kernel", "kernel_sup")
        async with asked_by(asking) as python:
            await asking.eval(capable, M=MODULE, N=Atom(python.node.name), timeout=60)
            ours = await shapes(asking, python.node.name, "top", "a")
        beams.close()
    head = f"% Answers of Phoenix.LiveDashboard.SystemInfo on OTP {otp.release}, by the calls in live_dashboard.py."
    FILE.write_text("".join(f"{line}\n" for line in [head, *map(etf.text.format, theirs.values())]))
    different = differences(theirs, ours)
    for call, (wanted, got) in different.items():
        print(call, etf.text.format(wanted), etf.text.format(got), sep="\n    ")  # noqa: T201
    return 1 if different else 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as compiled:
        subprocess.run(["elixirc", "-o", compiled, sys.argv[1]], check=True, stderr=subprocess.DEVNULL)
        sys.exit(asyncio.run(main(compiled)))
