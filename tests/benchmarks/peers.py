"""What users would pick instead: each as a node in OS processes of its own, beside a BEAM that drives all of them.

The peers are a hidden BEAM, pyglyn (its hub, and workers; on uvloop too where it is installed), jinterface where its
sources and ``javac`` are, and ``erldistpy`` where it is installed; the codec is beside ``pickle`` and ``msgpack``.
Where latencies are compared, driver and peer share one core. Medians of the rounds; all of one row in turn.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import pickle
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs
from rich.console import Console
from rich.table import Table

from pyglyn.etf import Atom, Term, decode, encode
from pyglyn.supervision.os import kernel
from tests.benchmarks.harness import Bench
from tests.benchmarks.node import EVENT
from tests.benchmarks.python_peer import SINKS

BEAM, PYGLYN, WORKER, JINTERFACE, CLIENT = "BEAM", "pyglyn", "pyglyn worker", "jinterface", "erldistpy"
ON_UVLOOP, WORKER_ON_UVLOOP = "uvloop", "worker, uvloop"
OURS = (PYGLYN, ON_UVLOOP)
FLOODERS = (BEAM, PYGLYN, WORKER, ON_UVLOOP, WORKER_ON_UVLOOP)
ALL = (*FLOODERS, JINTERFACE)
ROOT = Path(__file__).parents[2]
ROLES = ("bench_", "worker_")
"""In front of the names of what is in the hub, and in workers."""
SMALL: Term = (Atom("ok"), 1)
CALLERS = 50
BLOB = f"M = binary:copy(<<0>>, {1 << 20})"
INTO, OUT = "pyglyn_bench:flood(Sink, N, M)", "pyglyn_bench:flooded(Flooder, Here, N, M)"
MEDIAN = "lists:nth(length(T) div 2 + 1, T)"


@attrs.frozen
class Compared:
    """One work, done by several.

    Attributes:
        what: the work, with its unit.
        less_is_better: it is a time, not a rate.
        values: by peer.
    """

    what: str
    less_is_better: bool
    values: dict[str, float]

    def ratio(self, peer: str) -> float | None:
        """How a peer compares to the BEAM of the same run."""
        beam = self.values.get(BEAM)
        return None if not beam or peer not in self.values else self.values[peer] / beam


@attrs.frozen
class Peer:
    """A node that is measured.

    Attributes:
        name: of the column.
        node: of the cluster.
        os_pid: its OS process; its children are pinned with it.
        prefix: of the names of its roles.
    """

    name: str
    node: str
    os_pid: int
    prefix: str = "bench_"

    def role(self, name: str) -> Term:
        """``{Name, Node}``."""
        return (Atom(self.prefix + name), Atom(self.node))


# --- the peers --------------------------------------------------------------------------------------------


@contextmanager
def program(command: Sequence[str]) -> Iterator[int]:
    """Run a program until it is no longer needed; it says ``ready`` when it serves. Gives its OS pid."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if line.strip() != "ready":
                raise RuntimeError(f"{command[0]} does not serve: {line!r}")
            yield process.pid
        finally:
            process.terminate()


def jinterface(folder: Path, root: Path) -> list[str] | None:
    """Compile the peer in Java; the command that runs it, None where that cannot be had."""
    sources = [*map(str, root.glob("lib/jinterface-*/java_src/com/ericsson/otp/erlang/*.java"))]
    javac, java = shutil.which("javac"), shutil.which("java")
    if not sources or javac is None or java is None:
        return None
    peer = ROOT / "interop" / "java" / "BenchPeer.java"
    done = subprocess.run(
        [javac, "-nowarn", "-d", str(folder), *sources, str(peer)], capture_output=True, check=False
    )
    return [java, "-cp", str(folder), "BenchPeer"] if done.returncode == 0 else None


def threads_below(os_pid: int) -> list[int]:
    """The threads of an OS process and of all below it."""
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        stat = kernel.os_stat(int(folder.name))
        if int(folder.name) == os_pid or (stat is not None and stat.parent == os_pid):
            with_threads = (folder / "task").iterdir() if (folder / "task").exists() else ()
            found += [int(thread.name) for thread in with_threads]
            if int(folder.name) != os_pid:
                found += threads_below(int(folder.name))
    return found


@contextmanager
def pinned(*os_pids: int) -> Iterator[None]:
    """Have some OS processes share one core, for latencies: else it matters which cores they have got."""
    cores = os.sched_getaffinity(0)
    threads = [thread for os_pid in os_pids for thread in threads_below(os_pid)]
    _pin(threads, {min(cores)})
    try:
        yield
    finally:
        _pin(threads, cores)


def _pin(threads: list[int], cores: set[int]) -> None:
    for thread in threads:
        try:
            os.sched_setaffinity(thread, cores)
        except ProcessLookupError:
            continue


# --- the rows ---------------------------------------------------------------------------------------------


class Rows:
    """What is measured, of the peers that there are."""

    def __init__(self, bench: Bench, peers: Sequence[Peer]) -> None:
        self._bench = bench
        self._peers = peers
        self._by = bench.peer

    async def _row(
        self,
        what: str,
        measure: Callable[[Peer], Awaitable[float]],
        *,
        less_is_better: bool = False,
        of: Sequence[str] = ALL,
    ) -> Compared:
        peers = [peer for peer in self._peers if peer.name in of]
        found: dict[str, list[float]] = {peer.name: [] for peer in peers}
        for _ in range(self._bench.scale.rounds):
            for peer in peers:
                found[peer.name].append(await measure(peer))
        return Compared(what, less_is_better, {name: statistics.median(each) for name, each in found.items()})

    async def _ask(self, text: str, **bindings: Any) -> Any:
        return await self._by.eval(text, timeout=120, **bindings)

    async def every(self) -> AsyncIterator[Compared]:
        """All of them."""
        count = self._bench.scale.count
        calls, blobs = max(10, count(4e-4)), max(3, count(3e-3))

        def flood(message: Term, each_s: float) -> Callable[[Peer], Awaitable[float]]:
            number = count(each_s)

            async def measure(peer: Peer) -> float:
                code = "pyglyn_bench:flood(Sink, N, M)"
                return float(
                    number / (await self._ask(code, Sink=peer.role("sink"), N=number, M=message)) * 1e6
                )

            return measure

        async def streams(peer: Peer) -> float:
            number = max(1, count(8e-6) // len(SINKS))
            sinks = [(Atom(name), Atom(peer.node)) for name in SINKS]
            micros = await self._ask("pyglyn_bench:streams(Sinks, N, M)", Sinks=sinks, N=number, M=SMALL)
            return float(number * len(SINKS) / micros * 1e6)

        async def out(peer: Peer) -> float:
            number = count(1e-5)
            sink = (Atom("bench_sink"), Atom(self._by.name))
            code = "erpc:call(Node, pyglyn_bench, flood, [Sink, N, M])"
            micros = await self._ask(code, Node=Atom(peer.node), Sink=sink, N=number, M=EVENT)
            return float(number / micros * 1e6)

        def blob(code: str) -> Callable[[Peer], Awaitable[float]]:
            """MiB a second."""

            async def measure(peer: Peer) -> float:
                return float(blobs / (await self._ask(f"{BLOB}, {code}", N=blobs, **ends(peer))) * 1e6)

            return measure

        def beside(code: str) -> Callable[[Peer], Awaitable[float]]:
            """Milliseconds of the echoes meanwhile."""

            async def measure(peer: Peer) -> float:
                asked = f"{BLOB}, {{_, T}} = pyglyn_bench:beside_echo(fun() -> {code} end, Echo), {MEDIAN}"
                return float(await self._ask(asked, N=blobs, Echo=peer.role("echo"), **ends(peer))) / 1e6

            return measure

        def ends(peer: Peer) -> dict[str, Term]:
            here = (Atom("bench_sink"), Atom(self._by.name))
            return {"Sink": peer.role("sink"), "Flooder": peer.role("flooder"), "Here": here}

        async def served(peer: Peer) -> float:
            number = count(1.2e-4 * CALLERS)
            micros = await self._ask(
                "pyglyn_bench:callers(To, Callers, N)", To=peer.role("server"), Callers=CALLERS, N=number
            )
            return float(CALLERS * number / micros * 1e6)

        def times(function: str, role: str) -> Callable[[Peer], Awaitable[float]]:
            async def measure(peer: Peer) -> float:
                code = f"T = pyglyn_bench:{function}(To, N), {MEDIAN}"
                with pinned(peer.os_pid, self._by.os_pid):
                    return float(await self._ask(code, To=peer.role(role), N=calls)) / 1e3

            return measure

        async def made(peer: Peer) -> float:
            server = (Atom("bench_server"), Atom(self._by.name))
            if peer.name == CLIENT:
                return await asyncio.to_thread(self._client, calls)
            code = f"T = erpc:call(Node, pyglyn_bench, call_times, [To, N]), {MEDIAN}"
            with pinned(peer.os_pid, self._by.os_pid):
                return float(await self._ask(code, Node=Atom(peer.node), To=server, N=calls)) / 1e3

        yield await self._row("small messages in /s", flood(SMALL, 8e-6))
        yield await self._row("event messages in /s", flood(EVENT, 1e-5))
        yield await self._row("8 senders to 8 processes /s", streams, of=(BEAM, *OURS, JINTERFACE))
        yield await self._row("event messages out /s", out, of=(BEAM, *OURS))
        for way, code, of in ((" in", INTO, ALL), (" out", OUT, FLOODERS)):
            yield await self._row(f"1 MiB messages{way}, MiB/s", blob(code), of=of)
            yield await self._row(f"echo meanwhile{way}, p50 ms", beside(code), less_is_better=True, of=of)
        yield await self._row(f"{CALLERS} callers, calls served /s", served)
        yield await self._row(
            "round trip, p50 µs, one core", times("echo_times", "echo"), less_is_better=True
        )
        yield await self._row(
            "call served, p50 µs, one core", times("call_times", "server"), less_is_better=True
        )
        yield await self._row(
            "call made, p50 µs, one core", made, less_is_better=True, of=(BEAM, *OURS, CLIENT)
        )
        yield await self._codec()

    def _client(self, calls: int) -> float:
        command = [sys.executable, "-m", "tests.benchmarks.client_peer", "bench_client@localhost"]
        core = {min(os.sched_getaffinity(0))}
        with pinned(self._by.os_pid):
            done = subprocess.run(
                [*command, self._by.cookie, self._by.name, str(calls)],
                cwd=ROOT, capture_output=True, text=True, check=True,
                preexec_fn=lambda: os.sched_setaffinity(0, core),
            )  # fmt: skip
        return int(done.stdout) / 1e3

    async def _codec(self) -> Compared:
        """An event written and read again, by what is installed."""
        number = self._bench.scale.count(3e-6)
        ways: dict[str, Callable[[], object]] = {PYGLYN: lambda: decode(encode(EVENT))}
        ways["pickle"] = lambda: pickle.loads(pickle.dumps(EVENT))
        if importlib.util.find_spec("msgpack") is not None:
            import msgpack

            plain = _without_atoms(EVENT)
            ways["msgpack"] = lambda: msgpack.unpackb(msgpack.packb(plain))
        code = "element(1, timer:tc(fun() -> [binary_to_term(term_to_binary(M)) || _ <- lists:seq(1, N)], ok end))"
        values = {BEAM: number / (await self._ask(code, M=EVENT, N=number)) * 1e6}
        for name, way in ways.items():
            begun = time.perf_counter()
            for _ in range(number):
                way()
            values[name] = number / (time.perf_counter() - begun)
        return Compared("event written and read /s", False, values)


def _without_atoms(term: Any) -> Any:
    """A term as ``msgpack`` can have it."""
    match term:
        case Atom(name):
            return name
        case tuple() | list():
            return [_without_atoms(each) for each in term]
    return term


async def measure(bench: Bench) -> AsyncIterator[Compared]:
    """Start the peers, and measure all rows."""
    hidden, by = bench.hidden, bench.peer
    for node in (hidden, by):
        await node.eval(
            "pyglyn_bench:start_echo(bench_echo), pyglyn_bench:start_flooder(bench_flooder), "
            "[pyglyn_bench:start_sink(Name) || Name <- Names], ok",
            Names=[Atom(name) for name in SINKS],
        )
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pyglyn-bench-")))
        peers = [Peer(BEAM, hidden.name, hidden.os_pid)]
        for kind, names in (("asyncio", (PYGLYN, WORKER)), ("uvloop", (ON_UVLOOP, WORKER_ON_UVLOOP))):
            if importlib.util.find_spec(kind) is not None:
                here = f"bench_{kind}@localhost"
                python = [sys.executable, "-m", "tests.benchmarks.python_peer", here, by.cookie, kind]
                os_pid = stack.enter_context(program(python))
                peers += [Peer(name, here, os_pid, prefix) for name, prefix in zip(names, ROLES, strict=True)]
        java = await asyncio.to_thread(jinterface, folder, bench.otp.root)
        if java is not None:
            name = "bench_java@localhost"
            peers.append(Peer(JINTERFACE, name, stack.enter_context(program([*java, name, by.cookie]))))
        if importlib.util.find_spec("erldistpy") is not None:
            peers.append(Peer(CLIENT, "", 0))
        async for row in Rows(bench, peers).every():
            yield row


# --- tables -----------------------------------------------------------------------------------------------


def names(rows: Sequence[Compared]) -> list[str]:
    """The columns, in the order in which they appear."""
    return list(dict.fromkeys(name for row in rows for name in row.values))


def cell(row: Compared, peer: str) -> str:
    """A value and, but for the BEAM's own, its ratio."""
    value = row.values.get(peer)
    if value is None:
        return "–"
    shown = f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
    ratio = row.ratio(peer)
    return shown if peer == BEAM or ratio is None else f"{shown} ({ratio:.2f})"


def show(rows: Sequence[Compared], console: Console) -> None:
    """Print a table."""
    table = Table(title="peers (in brackets: ratio to the hidden BEAM of the same run)", title_justify="left")
    table.add_column("what")
    for name in names(rows):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(row.what, *(cell(row, name) for name in names(rows)))
    console.print(table)


def markdown(rows: Sequence[Compared]) -> str:
    """The same table for a file."""
    head = ["what", *names(rows)]
    lines = [f"| {' | '.join(head)} |", "|---" + "|---:" * (len(head) - 1) + "|"]
    lines += [f"| {' | '.join([row.what, *(cell(row, name) for name in names(rows))])} |" for row in rows]
    return "\n".join(lines)
