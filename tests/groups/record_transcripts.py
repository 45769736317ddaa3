"""Record what real scope processes say to each other, for ``test_transcripts``: not a test.

Two real nodes, ``peer`` and ``own``; the scope process of ``own`` is traced: everything it receives, calls and
DOWNs included, and everything it sends. ``python -m tests.groups.record_transcripts`` writes a file for each
syn release named by ``PYGLYN_SYN_EBIN`` and for the ``pg`` of each OTP found, JSON lines:

- the first: ``software``, ``otp``, ``process``, ``node``, ``peer``, and ``pid``, the traced process;
- then, in order: ``at_us`` (since the first), ``dir`` (``in`` or ``out``), ``to`` and ``term``.

Terms are in external term format, base64.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from pyglyn.etf import Atom, encode
from pyglyn.testing import Beam, Beams, PrivateEpmd, eventually, find_otps
from tests.peers import SynBeams, syn_ebins

FOLDER = Path(__file__).parent / "transcripts"
TRACER = Path(__file__).parent / "trace_scope.erl"
Script = Callable[[Beam, Beam], Awaitable[None]]


async def settle(*beams: Beam) -> None:
    """Let what is under way arrive: between the steps of a script only one thing happens at a time."""
    for _ in range(3):
        for beam in beams:
            await beam.eval("timer:sleep(30)")


async def syn_groups(own: Beam, peer: Beam) -> None:
    theirs = await peer.eval("syn_driver:join(example, <<103>>, [early])")
    ours = await own.eval("syn_driver:join(example, <<103>>)")
    await connect(own, peer)
    steps: list[tuple[Beam, str]] = [
        (peer, "syn:join(example, {group, 1.0}, P, 1)"),
        (peer, "syn:join(example, {group, 1.0}, P, 2)"),
        (own, "syn:join(example, {group, 1.0}, O, #{k => v})"),
        (own, "syn:join(example, {group, 1.0}, O, #{k => v})"),
        (peer, "syn:join(example, asked, O, 3)"),
        (peer, "syn:join(example, asked, O, 3)"),
        (peer, "syn:join(example, asked, O, 4)"),
        (peer, "syn:leave(example, asked, O)"),
        (peer, "syn:leave(example, asked, O)"),
        (own, "syn:leave(example, {group, 1.0}, O)"),
        (peer, "syn:leave(example, {group, 1.0}, P)"),
        (peer, "gen_server:call({syn_pg_example, N}, {'3.0', subcluster_nodes})"),
        (peer, "gen_server:call({syn_pg_example, N}, what)"),
        (own, "syn_driver:crash(O, oops)"),
        (peer, "syn_driver:crash(P, oops)"),
        (own, "syn_driver:join(example, <<103>>, again)"),
        (peer, "exit(whereis(syn_pg_example), kill)"),
        (peer, "syn_driver:join(example, <<103>>, again)"),
    ]
    await run(own, peer, steps, theirs, ours)
    await own.disconnect(peer.name)
    await settle(own, peer)
    await connect(own, peer)


async def syn_registry(own: Beam, peer: Beam) -> None:
    ours = await own.eval("syn_driver:register(example, <<111>>, 1)")
    await peer.eval("syn_driver:register(example, <<99, 49>>, theirs)")
    await settle(own, peer)
    await own.eval("syn_driver:register(example, <<99, 49>>, later)")
    await own.eval("syn_driver:register(example, <<99, 50>>, earlier)")
    await settle(own, peer)
    await peer.eval("syn_driver:register(example, <<99, 50>>, later)")
    theirs = await peer.eval("syn_driver:register(example, <<112>>, [])")
    await connect(own, peer)
    steps: list[tuple[Beam, str]] = [
        (peer, "syn:register(example, two, P, 1)"),
        (peer, "syn:register(example, two, P, 2)"),
        (own, "syn:register(example, {n, 1}, O, 1)"),
        (own, "syn:register(example, {n, 1}, O, 1)"),
        (own, "syn:register(example, {n, 1}, O, 2)"),
        (peer, "syn:register(example, asked, O, 3)"),
        (peer, "syn:register(example, asked, O, 4)"),
        (own, "syn:register(example, taken, O, 4)"),
        (
            peer,
            "gen_server:call({syn_registry_example, N}, {'3.0', register_or_update_on_node, node(), two, O, x})",
        ),
        (peer, "syn:unregister(example, asked)"),
        (peer, "gen_server:call({syn_registry_example, N}, {'3.0', unregister_on_node, node(), asked, O})"),
        (own, "syn:unregister(example, {n, 1})"),
        (peer, "syn:unregister(example, two)"),
        (own, "syn_driver:crash(O, oops)"),
        (peer, "syn_driver:crash(P, oops)"),
        (peer, "exit(whereis(syn_registry_example), kill)"),
        (own, "syn_driver:register(example, last, x)"),
    ]
    await run(own, peer, steps, theirs, ours)


async def pg(own: Beam, peer: Beam) -> None:
    member = "P = spawn(fun() -> receive stop -> ok end end), ok = pg:join(example, G, P), P"
    ours = await own.eval(member, G=b"g")
    theirs = await peer.eval(member, G=b"g")
    await connect(own, peer)
    steps: list[tuple[Beam, str]] = [
        (peer, "pg:join(example, {group, 1.0}, [P, P])"),
        (peer, "pg:leave(example, {group, 1.0}, P)"),
        (own, "pg:join(example, {group, 1.0}, [O, O])"),
        (own, "pg:join(example, other, O)"),
        (own, "pg:leave(example, {group, 1.0}, O)"),
        (own, "pg:leave(example, {group, 1.0}, [O])"),
        (own, "pg:leave(example, nothing, O)"),
        (peer, "pg:leave(example, {group, 1.0}, [P])"),
        (own, "pg:join(example, other, O)"),
        (own, "exit(O, kill)"),
        (peer, "exit(P, kill)"),
        (peer, "exit(whereis(example), kill)"),
        (peer, "{ok, _} = pg:start(example), ok"),
    ]
    await run(own, peer, steps, theirs, ours)
    await peer.eval(member, G=b"g")
    await own.eval(member, G=b"h")
    await settle(own, peer)
    await own.disconnect(peer.name)
    await settle(own, peer)
    await connect(own, peer)


async def run(own: Beam, peer: Beam, steps: list[tuple[Beam, str]], theirs: Any, ours: Any) -> None:
    for beam, text in steps:
        await beam.eval(f"catch {text}", P=theirs, O=ours, N=Atom(own.name))
        await settle(own, peer)


async def connect(own: Beam, peer: Beam) -> None:
    assert await own.eval("net_adm:ping(N)", N=Atom(peer.name)) is Atom("pong")
    await settle(own, peer)


async def record(own: Beam, peer: Beam, process: str, software: str, script: Script) -> None:
    await own.load(TRACER)
    await own.eval("logger:set_primary_config(level, none)")
    pid, tracer = await own.eval("trace_scope:start(N)", N=Atom(process))
    await script(own, peer)
    await settle(own, peer)
    records: Any = await own.eval("trace_scope:stop(T)", T=tracer)
    first = records[0][3] if records else 0
    lines = [
        {
            "software": software,
            "otp": own.otp,
            "process": process,
            "node": own.name,
            "peer": peer.name,
            "pid": base64.b64encode(encode(pid)).decode(),
        }
    ]
    lines += [
        {
            "at_us": at - first,
            "dir": str(direction),
            "to": base64.b64encode(to).decode(),
            "term": base64.b64encode(term).decode(),
        }
        for direction, to, term, at in records
    ]
    path = FOLDER / f"{software.replace(' ', '-')}-otp{own.otp}-{process}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(path.name, len(records))  # noqa: T201


async def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with PrivateEpmd() as epmd:
        os.environ.update(epmd.env)
        for otp in find_otps():
            for ebin in syn_ebins():
                for process, script in (
                    ("syn_pg_example", syn_groups),
                    ("syn_registry_example", syn_registry),
                ):
                    beams = Beams(epmd, otp)
                    nodes = SynBeams(beams, ebin)
                    own, peer = await nodes.start("own"), await nodes.start("peer")
                    await record(own, peer, process, ebin.parent.name.replace("-", " "), script)
                    beams.close()
            beams = Beams(epmd, otp)
            own, peer = await beams.start("own"), await beams.start("peer")
            for beam in (own, peer):
                await beam.eval("{ok, _} = pg:start(example), ok")
            await eventually(lambda own=own: own.eval("is_pid(whereis(example))"))
            await record(own, peer, "example", f"pg {otp.release}", pg)
            beams.close()


if __name__ == "__main__":
    asyncio.run(main())
