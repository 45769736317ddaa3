"""What one message costs besides time: system calls, and memory blocks while it waits. No clock has a part in it.

Each bound is a little above what was counted when it was last changed (Python 3.11, Linux).
"""

from __future__ import annotations

import asyncio
import gc
import os
import re
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from pyglyn.dist.control import Send
from pyglyn.etf import Atom, Pid, Term, encode_bare
from pyglyn.node import Caller, GenServer, Node, Process
from pyglyn.node.runtime import Identity, Runtime
from pyglyn.supervision import Supervisor, start, worker
from pyglyn.testing import Beam, eventually, require

CALLS = 500
EVENT: Term = (
    Atom("event"), b"bank", b"account-17", 12345, [(Atom("deposited"), 100, b"EUR"), (Atom("noted"), 1.5)],
)  # fmt: skip


class Echo(GenServer):
    async def handle_call(self, request: Term, caller: Caller) -> Term:
        return request


def frequent_in(log: Path) -> dict[str, float]:
    """What ``strace -c`` has counted, for each call; without what was rare."""
    row = r"^ *\S+ +\S+ +\S+ +(\d+) +(?:\d+ +)?(\w+)$"
    counted = {name: int(calls) for calls, name in re.findall(row, log.read_text(), re.MULTILINE)}
    return {name: calls / CALLS for name, calls in counted.items() if calls > CALLS / 4 and name != "total"}


async def of_each_call(beam: Beam, pid: Pid, os_pid: int, log: Path) -> dict[str, float]:
    """The system calls of an OS process for each call of a server that a BEAM makes."""
    return await counted(beam, "[ok = gen_server:call(P, ok) || _ <- lists:seq(1, N)]", os_pid, log, P=pid)


async def counted(beam: Beam, code: str, os_pid: int, log: Path, **bindings: Term) -> dict[str, float]:
    """The system calls of an OS process for each time that code does something ``N`` times; ``strace`` counts."""
    strace = shutil.which("strace")
    require(strace, "counting system calls takes strace (the Debian package of that name)")
    await beam.eval(f"{code}, ok", N=1, **bindings)
    tracing = await asyncio.create_subprocess_exec(
        str(strace), "-c", "-o", str(log), "-p", str(os_pid), stderr=subprocess.DEVNULL
    )
    try:
        status = Path(f"/proc/{os_pid}/status")
        untraced = "TracerPid:\t0\n"
        await eventually(lambda: untraced not in status.read_text() or tracing.returncode is not None)
        require(tracing.returncode is None, f"the OS process {os_pid} may not be traced")
        await beam.eval(f"{code}, ok", N=CALLS, timeout=60, **bindings)
    finally:
        if tracing.returncode is None:
            tracing.terminate()
        await tracing.wait()
    return frequent_in(log)


async def test_a_call_takes_one_write_and_as_many_reads_and_polls_as_the_peer_has_writes(
    beam: Beam, node: Node, tmp_path: Path
) -> None:
    per_call = await of_each_call(beam, await node.start(Echo), os.getpid(), tmp_path / "calls")
    assert set(per_call) <= {"recvfrom", "sendto", "epoll_wait", "getpid"}, per_call
    # A caller's three signals (a monitor, the call, the end of the monitor) come in as many writes as the peer makes.
    assert per_call["recvfrom"] <= 3.2, per_call
    assert per_call["epoll_wait"] <= per_call["recvfrom"] + 0.2, per_call
    assert all(calls <= 1.2 for name, calls in per_call.items() if name in {"sendto", "getpid"}), per_call


async def test_a_call_of_a_process_in_a_worker_takes_a_write_for_each_way_and_no_poll_for_nothing(
    beam: Beam, node: Node, tmp_path: Path
) -> None:
    """The hub passes on what a read brought in one write, and the worker answers in one."""
    await start(node, Supervisor().add(worker(Echo, name="echo")))
    pid = await eventually(lambda: node.whereis("echo"))
    assert isinstance(pid, Pid)
    of_hub = await of_each_call(beam, pid, os.getpid(), tmp_path / "hub")
    of_worker = await of_each_call(beam, pid, node.workers.links[pid.serial].os_pid, tmp_path / "worker")
    for per_call, reads in ((of_hub, 4.2), (of_worker, 3.2)):
        assert set(per_call) <= {"recvfrom", "sendto", "epoll_wait", "getpid"}, per_call
        # As many as the caller's node has writes for its three signals, and in the hub the answer.
        assert per_call["recvfrom"] <= reads, per_call
        assert per_call["epoll_wait"] <= per_call["recvfrom"] + 0.2, per_call
    assert of_hub["sendto"] <= of_hub["recvfrom"] + 0.2, of_hub
    assert of_worker["sendto"] <= 1.2, of_worker


async def test_a_mebibyte_goes_out_in_few_system_calls(beam: Beam, node: Node, tmp_path: Path) -> None:
    """Of the hub, also where a worker sends it: four writes, and what waiting for a full socket takes."""
    await start(node, Supervisor().add(worker(flooder, name="flooder")))
    sink = await beam.eval(
        "spawn(fun Loop() -> receive stop -> ok; {F, N} -> F ! N, Loop(); _ -> Loop() end end)"
    )
    inside = await eventually(lambda: node.whereis("flooder"))
    assert isinstance(inside, Pid)
    for name, pid, calls in (("hub", node.spawn(flooder), 14.0), ("of worker", inside, 14.0)):
        code = "P ! {S, self(), N}, receive {P, N} -> ok end"
        per_mib = await counted(beam, code, os.getpid(), tmp_path / name, P=pid, S=sink)
        assert per_mib.get("writev", 0.0) <= 6, (name, per_mib)
        assert sum(per_mib.values()) <= calls, (name, per_mib)


async def flooder(me: Process) -> None:
    """Sends a process so many mebibytes, waits until it has got them and then says so."""
    while True:
        sink, asker, count = await me.receive()
        for _ in range(count):
            me.send(sink, bytes(1 << 20))
            await me.drain()
        me.send(sink, (me.pid, count))
        await me.receive(lambda answer: type(answer) is int)
        me.send(asker, (me.pid, count))


def blocks(runtime: Runtime, process: Process, count: int, message: Callable[[], bytes]) -> float:
    """Memory blocks for each message that waits."""
    control = Send(None, process.pid)
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(count):
        runtime.receive_encoded(control, message())
    return (sys.getallocatedblocks() - before) / count


async def test_a_message_that_waits_is_one_block_and_nothing_for_the_collector() -> None:
    """One is the bytes themselves, and every 64 of them share a block of the queue."""
    runtime = Runtime(Identity("n@h", 1), lambda control, parts, node: None)
    process = runtime.attach("receiver")
    data = encode_bare(EVENT)
    tracked = len(gc.get_objects())
    assert blocks(runtime, process, 10_000, lambda: data[:-1] + data[-1:]) <= 1.1
    assert len(gc.get_objects()) - tracked < 100
    assert process.message_queue_len == 10_000
    assert await process.receive() == EVENT


@pytest.mark.parametrize("waiting", [100, 100_000])
async def test_a_long_queue_starts_no_collection(waiting: int) -> None:
    runtime = Runtime(Identity("n@h", 1), lambda control, parts, node: None)
    process = runtime.attach("receiver")
    control, data = Send(Pid("p@h", 1, 0, 1), process.pid), encode_bare(EVENT)
    for _ in range(waiting):
        runtime.receive_encoded(control, data)
    gc.collect()
    before = [generation["collections"] for generation in gc.get_stats()]
    for _ in range(2_000):
        runtime.receive_encoded(control, data)
    assert [generation["collections"] for generation in gc.get_stats()] == before


async def test_a_light_process_that_waits_takes_four_kibibytes() -> None:
    runtime = Runtime(Identity("n@h", 1), lambda control, parts, node: None)

    async def waits(me: Process) -> None:
        await me.receive()

    runtime.spawn(waits)
    await asyncio.sleep(0)
    tracemalloc.start(1)
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(2_000):
            runtime.spawn(waits)
        await asyncio.sleep(0)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        runtime.kill_all(None)
    assert (taken - before) / 2_000 <= 4_096 + 150
