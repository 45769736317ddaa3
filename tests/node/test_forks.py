"""What a node has open is its own: processes that the application forks keep none of it."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

from pyglyn.etf import Atom
from pyglyn.net.settings import NetSettings
from pyglyn.node import Node, Settings
from pyglyn.testing import Beam, eventually, free_port
from tests.node.conftest import unique_name

ROOT = Path(__file__).parents[2]


class Forking:
    """A node of its own with a process that its application has forked."""

    def __init__(self, name: str, beam: Beam, port: int) -> None:
        command = [sys.executable, "-m", "tests.node.forking", name, beam.cookie, str(port)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self.line() == "up"

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()  # the fork has a copy of its other end


WATCH = """
    S = self(),
    P = spawn(fun() -> monitor_node(N, true), S ! ready,
                       receive {nodedown, N} -> receive {ask, A} -> A ! told end end end),
    receive ready -> P end
"""


async def test_after_kill_9_a_fork_keeps_neither_connection_nor_name_nor_port(beam: Beam) -> None:
    name, port = unique_name(), free_port()
    first = Forking(name, beam, port)
    forks: list[int] = []
    try:
        assert await beam.eval("net_adm:ping(N)", N=Atom(name)) == Atom("pong")
        watcher = await beam.eval(WATCH, N=Atom(name))
        forks.append(int(first.line()))
    finally:
        first.kill()
    try:
        told = "P ! {ask, self()}, receive told -> told after 60000 -> not_told end"
        assert await beam.eval(told, timeout=90.0, P=watcher) == Atom("told")
        os.kill(forks[0], 0)
        second = Forking(name, beam, port)
        try:
            again = await beam.eval("net_adm:ping(N)", N=Atom(name))
            forks.append(int(second.line()))
        finally:
            second.kill()
        assert again == Atom("pong")
    finally:
        for forked in forks:
            os.kill(forked, signal.SIGKILL)


async def test_a_node_that_stops_tells_its_peers_whoever_has_a_copy_of_its_sockets(epmd: object) -> None:
    """As what C code has forked, which runs no hook of Python's."""
    port = free_port()
    settings = Settings(net=NetSettings(listen_port=port))
    async with Node(unique_name(), cookie="c") as peer:
        node = Node(unique_name(), cookie="c", settings=settings)
        await node.start_node()
        await node.connect(peer.name)
        copies = [os.dup(int(fd)) for fd in os.listdir("/proc/self/fd") if _is_socket(int(fd))]
        try:
            await node.stop()
            await eventually(lambda: not peer.peers.connections)
            async with Node(node.name, cookie="c", settings=settings) as again:
                await peer.connect(again.name)
        finally:
            for copy in copies:
                os.close(copy)


def _is_socket(fd: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False
