"""The command line, run as a user runs it, against real nodes."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import pty
import re
import secrets
import signal
import socket
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pyglyn import eventsourcing as es
from pyglyn._version import __version__
from pyglyn.dist.epmd import NodeEntry
from pyglyn.etf import Atom
from pyglyn.net import epmd_client
from pyglyn.node import Node
from pyglyn.testing import eventually
from pyglyn.testing.bank import BankAccountEvent, CustomerDepositedCash
from pyglyn.testing.waiting import patiently

APP = """
from pyglyn import Atom, GenServer, export

@export("pricing")
async def quote(product: str, quantity: int) -> float:
    return 2.5 * quantity

class Stock(GenServer):
    async def init(self, items):
        self.items = items
    async def handle_call(self, request, caller):
        return self.items.get(request, 0)

async def app(node):
    await node.start(Stock, {b"laptop": 10}, name="stock")

async def broken(node):
    raise RuntimeError("no database")
"""


class Program:
    """A running ``pyglyn`` command with what it has printed so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.output = ""
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        decoder = codecs.getincrementaldecoder("utf-8")()
        while data := await self.process.stdout.read(4096):
            self.output += decoder.decode(data)

    async def ends(self) -> int:
        status = await asyncio.wait_for(self.process.wait(), 180)
        await self._reader
        return status

    async def says(self, pattern: str) -> re.Match[str]:
        def found() -> re.Match[str]:
            match = re.search(pattern, self.output)
            assert match, self.output
            return match

        return await eventually(found, timeout=60)


@asynccontextmanager
async def pyglyn(*args: str, env: dict[str, str] | None = None, cwd=None) -> AsyncIterator[Program]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pyglyn", *args,
        env={**os.environ, "COLUMNS": "100", "PYGLYN_TIMEOUT": str(patiently(10.0)), **(env or {})}, cwd=cwd,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, stdin=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    program = Program(process)
    try:
        yield program
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await program._reader


async def run(*args: str, **kwargs) -> tuple[int, str]:
    async with pyglyn(*args, **kwargs) as program:
        return await program.ends(), program.output


async def on_terminal(*args: str, columns: int) -> str:
    """Run a command on a terminal of so many columns; what it printed."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pyglyn", *args,
        env={**environment, "TERM": "xterm"}, stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    printed = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while data := await asyncio.to_thread(os.read, ours, 4096):
            printed += data
    os.close(ours)
    assert await process.wait() == 0, printed
    return printed.decode()


@pytest.fixture
def name() -> str:
    return f"cli_{secrets.token_hex(4)}@localhost"


@pytest.fixture
def app(tmp_path):
    path = tmp_path / "my_service.py"
    path.write_text(APP)
    return path


async def test_a_node_started_from_the_command_line_serves_the_cluster(beam, name, app, tmp_path):
    args = ["node", "--sname", name, "--cookie", beam.cookie, "--app", f"{app}:app", "--connect", beam.name]
    async with pyglyn(*args) as node:
        await node.says(re.escape(beam.name) + " is up")
        where = Atom(name)
        assert await beam.eval("nodes(hidden)") == [where]
        assert await beam.eval('gen_server:call({stock, N}, <<"laptop">>)', N=where) == 10
        assert await beam.eval('rpc:call(N, pricing, quote, [<<"laptop">>, 3])', N=where) == 7.5

        status, output = await run("ping", name, "--cookie", beam.cookie)
        assert (status, output[:5]) == (0, "pong ")
        status, output = await run(
            "call", name, "pricing", "quote", '<<"laptop">>', "4", "--cookie", beam.cookie
        )
        assert (status, output) == (0, "10.0\n")
        status, output = await run(
            "call", name, "pricing:quote", '<<"laptop">>', "2", "--cookie", beam.cookie
        )
        assert (status, output) == (0, "5.0\n")
        status, output = await run("call", name, "pricing:quote", "--cookie", beam.cookie)
        asked = f"has {name} exported pricing:quote/0?"
        assert (status, output) == (1, f"pyglyn: pricing:quote on {name}: error undef; {asked}\n")
        status, output = await run("names")
        assert status == 0
        assert name in output.replace("\n", "")

        node.process.send_signal(signal.SIGTERM)
        assert await node.ends() == 0
        assert "SIGTERM: stopping" in node.output
        assert beam.cookie not in node.output
    await eventually(lambda: beam.eval("nodes(hidden) =:= []"))


SLOW_TO_START = """
import asyncio, os
from pyglyn.supervision import Supervisor, worker

async def app(node):
    print("starting", flush=True)
    while not os.path.exists("go"):
        await asyncio.sleep(0.01)
    greeting = "forked with"

    async def clerk(me):  # local: no fresh interpreter could be given it
        print(f"{greeting} {len(os.listdir(f'/proc/{os.getppid()}/task'))} thread", flush=True)
        print(f"got {await me.receive()}", flush=True)

    return Supervisor().add(worker(clerk, name="clerk"))

async def clerk(node):
    async with node.process("clerk") as me:
        try:
            await me.receive(timeout=0)  # looks, and does not wait
        except TimeoutError:
            print("starting", flush=True)
        while not os.path.exists("go"):
            await asyncio.sleep(0.01)
        print(f"got {await me.receive()}", flush=True)

async def for_ever(node):
    print("starting", flush=True)
    while not os.path.exists("go"):
        await asyncio.sleep(0.01)
    node.ready()
    await asyncio.Event().wait()
"""
ORDER_AT_NODEUP = """
spawn(fun() ->
    ok = net_kernel:monitor_nodes(true, [{node_type, all}]), Test ! watching,
    receive {nodeup, Node, _} -> {clerk, Node} ! {order, 7} end
end), receive watching -> ok end
"""


async def test_a_node_is_announced_and_connects_when_its_app_has_started(beam, name, tmp_path):
    (tmp_path / "slow.py").write_text(SLOW_TO_START)
    await beam.eval("Test = self()," + ORDER_AT_NODEUP, Node=Atom(name))
    unresolved = f"nobody@no-such-host-{secrets.token_hex(4)}"
    args = ["--sname", name, "--cookie", beam.cookie, "--connect", beam.name, "--connect", unresolved]
    async with pyglyn("node", *args, "--app", "slow:app", cwd=tmp_path) as node:
        await node.says("starting")
        assert name not in (await run("names"))[1]
        assert await beam.eval("net_adm:ping(N)", N=Atom(name)) is Atom("pang")
        (tmp_path / "go").touch()
        await node.says("forked with 1 thread")
        await node.says(r"got .*order.* 7")
        assert await beam.eval("net_adm:ping(N)", N=Atom(name)) is Atom("pong")
        await node.says(f"cannot connect to {unresolved}.*cannot be resolved")
        assert node.output.index("forked with") < node.output.index("registered as")
        assert node.output.index("registered as") < node.output.index("cannot connect to")


async def test_an_app_that_receives_is_announced_when_it_waits_for_a_message(beam, name, tmp_path):
    (tmp_path / "slow.py").write_text(SLOW_TO_START)
    await beam.eval("Test = self()," + ORDER_AT_NODEUP, Node=Atom(name))
    args = ["node", "--sname", name, "--cookie", beam.cookie, "--connect", beam.name, "--app", "slow:clerk"]
    async with pyglyn(*args, cwd=tmp_path) as node:
        await node.says("starting")
        assert await beam.eval("net_adm:ping(N)", N=Atom(name)) is Atom("pang")
        (tmp_path / "go").touch()
        await node.says(r"got .*order.* 7")
        assert await beam.eval("net_adm:ping(N)", N=Atom(name)) is Atom("pong")


async def test_an_app_that_does_not_return_is_announced_when_it_says_so(beam, name, tmp_path):
    (tmp_path / "slow.py").write_text(SLOW_TO_START)
    args = ["node", "--sname", name, "--cookie", beam.cookie, "--app", "slow:for_ever"]
    async with pyglyn(*args, cwd=tmp_path) as node:
        await node.says("starting")
        assert await beam.eval("net_adm:ping(N)", N=Atom(name)) is Atom("pang")
        (tmp_path / "go").touch()
        await node.says("registered as")
        assert await beam.eval("net_adm:ping(N)", N=Atom(name)) is Atom("pong")


async def test_a_second_node_of_a_name_ends_before_its_app_starts(beam, name, tmp_path):
    (tmp_path / "slow.py").write_text(SLOW_TO_START)
    (tmp_path / "go").touch()
    args = ["node", "--sname", name, "--cookie", beam.cookie, "--app", "slow:app"]
    async with pyglyn(*args, cwd=tmp_path) as node:
        await node.says("registered as")
        status, output = await run(*args, cwd=tmp_path)
        assert status == 1
        assert "is taken" in output
        assert "starting" not in output


async def test_a_blocking_function_that_still_runs_does_not_keep_the_node_from_stopping(beam, name, tmp_path):
    service = tmp_path / "stuck.py"
    service.write_text(
        """
import threading
from pyglyn import export

@export("stuck")
def wait():
    print("waiting", flush=True)
    threading.Event().wait()

async def app(node): ...
"""
    )
    async with pyglyn("node", "--sname", name, "--cookie", beam.cookie, "--app", f"{service}:app") as node:
        await node.says("registered as")
        await beam.eval("rpc:cast(N, stuck, wait, [])", N=Atom(name))
        await node.says("waiting")
        node.process.send_signal(signal.SIGINT)
        assert await node.ends() == 0


LOOPS = """
import asyncio
from pyglyn.supervision import Supervisor, worker

def say(who):
    print(who, "on", type(asyncio.get_running_loop()).__module__.partition(".")[0], flush=True)

async def child(me):
    say("worker")
    await me.receive()

def app(node):
    say("node")
    return Supervisor().add(worker(child, name="child"))
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_the_event_loop_is_an_option_and_workers_have_it_too(epmd, name, loop, tmp_path):
    (tmp_path / "of_loops.py").write_text(LOOPS)
    args = ["node", "--sname", name, "--cookie", "c", "--loop", loop, "--app", "of_loops:app"]
    async with pyglyn(*args, cwd=tmp_path) as node:
        await node.says(f"node on {loop}")
        await node.says(f"worker on {loop}")
        node.process.send_signal(signal.SIGINT)
        assert await node.ends() == 0


async def test_an_app_of_an_importable_module_and_a_visible_node(beam, name, app):
    args = ["node", "--sname", name, "--cookie", beam.cookie, "--app", "my_service:app", "--visible"]
    async with pyglyn(*args, cwd=app.parent) as node:
        await eventually(lambda: beam.eval("net_adm:ping(N) =:= pong", N=Atom(name)), timeout=20)
        assert await beam.eval("nodes()") == [Atom(name)]
        node.process.send_signal(signal.SIGINT)
        assert await node.ends() == 0


async def test_the_net_ticktime_of_the_cluster_is_an_option(beam, name):
    """Asked as a real node would ask another one."""
    args = ("node", "--sname", name, "--cookie", beam.cookie, "--net-ticktime", "7.5", "--connect", beam.name)
    async with pyglyn(*args) as node:
        await node.says("is up")
        asked = f"gen_server:call({{net_kernel, '{name}'}}, ticktime)"
        assert await beam.eval(asked) == 7500
        status, output = await run("ping", name, "--cookie", beam.cookie, "--net-ticktime", "7.5")
        assert status == 0, output
    status, output = await run("node", "--sname", name, "--net-ticktime", "0")
    assert status == 2
    assert "--net-ticktime" in output


async def test_connect_is_tried_again_until_the_node_is_there(beams, name):
    later = f"later_{secrets.token_hex(4)}"
    async with pyglyn("node", "--sname", name, "--cookie", "c", "--connect", f"{later}@localhost") as node:
        await node.says(f"cannot connect to {later}@localhost, trying again")
        beam = await beams.start(later, cookie="c")
        await node.says(f"{later}@localhost is up")
        beam.kill()
        await node.says(f"{later}@localhost is down")
        await beams.start(later, cookie="c")
        await eventually(lambda: node.output.count("is up") == 2, timeout=20)


async def test_nodes_are_discovered_by_a_list_a_variable_and_code_of_the_users(beams, name, tmp_path):
    first, second, third = [await beams.start(cookie="c") for _ in range(3)]
    (tmp_path / "ways.py").write_text(
        "class Way:\n    def __init__(self, name): self.name = name\n"
        "    async def nodes(self): return [self.name]\n"
        f"def own(node): return Way({third.name!r})\n"
    )
    words = (f"list:{first.name}", "env:THE_NODES", f"python:{tmp_path}/ways.py:own")
    discover = [word for each in words for word in ("--discover", each)]
    async with pyglyn(
        "node", "--sname", name, "--cookie", "c", *discover, env={"THE_NODES": second.name}
    ) as node:
        for beam in (first, second, third):
            await node.says(f"{beam.name} is up")


async def test_a_second_signal_ends_a_node_that_is_slow_to_stop(epmd, name, tmp_path):
    (tmp_path / "slow.py").write_text(
        "import asyncio\n"
        "async def app(node):\n"
        "    async def stubborn(me):\n"
        "        try:\n            await me.receive()\n"
        "        finally:\n            print('cleaning up', flush=True); await asyncio.sleep(60)\n"
        "    node.spawn(stubborn)\n    print('running', flush=True)\n"
    )
    async with pyglyn("node", "--sname", name, "--cookie", "c", "--app", f"{tmp_path}/slow.py:app") as node:
        await node.says("running")
        node.process.send_signal(signal.SIGINT)
        await node.says("cleaning up")
        node.process.send_signal(signal.SIGINT)
        assert await node.ends() == 128 + signal.SIGINT


@pytest.mark.parametrize(
    ("args", "status", "says"),
    [
        (["node"], 2, "--sname"),
        (["node", "--sname", "a@b.c"], 2, "--name a@b.c"),
        (["node", "--name", "a@localhost"], 2, "--sname a@localhost"),
        (["node", "--sname", "a@localhost", "--app", "nothing_here:app"], 2, "nothing_here"),
        (["node", "--sname", "a@localhost", "--app", "os:no_such_function"], 2, "no_such_function"),
        (["node", "--sname", "a@localhost", "--app", "no_colon"], 2, "module:function"),
        (["node", "--sname", "a@localhost", "--discover", "svc"], 2, "write list:A@X"),
        (["node", "--sname", "a@localhost", "--discover", "python:no_colon"], 2, "--discover no_colon"),
        (["ping", "nobody@localhost", "--cookie", "c"], 1, "pang pyglyn: "),
        (["ping", "no_host"], 2, "name@host"),
        (
            ["ping", "nobody@localhost", "--ssl-dist-optfile", "/nowhere.conf"],
            2,
            "--ssl-dist-optfile: the TLS option file /nowhere.conf cannot be read",
        ),
        (["node", "--sname", "a@localhost", "--name", "a@b.c"], 2, "give the node one name"),
        (["node", "--sname", "a@localhost", "--connect", "b"], 2, "--connect b: write name@host"),
        (["node", "--sname", "a@localhost", "--connect", "b@c.d"], 2, "a@localhost is a short name"),
        (["node", "--name", "a@b.c", "--connect", "b@localhost"], 2, "a@b.c is a long name"),
        (["call", "nobody@localhost", "m"], 2, "Missing argument 'FUNCTION'"),
        (["call", "nobody@localhost", "m:f", "3x", "--cookie", "c"], 1, "; the argument is 3x"),
        (["node", "--sname", "a.b@localhost", "--cookie", "c"], 1, "only a-z, A-Z, 0-9, _ and - are allowed"),
        (["call", "nobody@localhost", "m", "f", "{unclosed", "--cookie", "c"], 1, "pyglyn: "),
    ],
)
async def test_what_cannot_be_done_is_said_in_a_line(epmd, args, status, says):
    got, output = await run(*args)
    assert got == status
    assert says in " ".join(output.split())
    assert "Traceback" not in output


async def test_a_node_whose_name_is_taken_does_not_start(beam):
    status, output = await run("node", "--sname", beam.name, "--cookie", "c")
    assert status == 1
    *_, last = output.strip().splitlines()
    assert last.startswith("pyglyn: ")
    assert "is taken" in last
    assert "Traceback" not in output


async def test_a_wrong_cookie_is_named_as_the_reason(beam):
    status, output = await run("ping", beam.name, "--cookie", "wrong")
    assert status == 1
    assert output.startswith("pang\npyglyn: ")
    assert "cookie" in output


@pytest.mark.parametrize("command", [["ping"], ["tree", "--live"], ["call", "m", "f"]], ids=" ".join)
async def test_the_timeout_is_for_the_whole_command(epmd, command):
    """A node that EPMD knows, and whose port takes connections but says nothing."""
    name, *rest = command
    with socket.create_server(("127.0.0.1", 0)) as mute:
        entry = NodeEntry(name=f"mute_{secrets.token_hex(4)}", port=mute.getsockname()[1])
        registration = await epmd_client.register(entry, "127.0.0.1", epmd.port)
        peer = f"{entry.name}@localhost"
        try:
            status, output = await run(name, peer, *rest, "--cookie", "c", "--timeout", "0.3")
        finally:
            registration.close()
    assert status == 1
    assert f"no connection to {peer} within 0.3 s" in output


async def test_an_app_that_fails_ends_the_node_with_status_1(epmd, name, app):
    status, output = await run("node", "--sname", name, "--cookie", "c", "--app", f"{app}:broken")
    assert status == 1
    assert "no database" in output


async def test_the_cookie_comes_from_the_environment_or_the_file(beam, tmp_path):
    home = {"HOME": str(tmp_path)}
    status, output = await run("ping", beam.name, env={**home, "PYGLYN_COOKIE": beam.cookie})
    assert status == 0, output
    status, output = await run("ping", beam.name, "--cookie", env=home)
    assert status == 1
    file = tmp_path / ".erlang.cookie"
    assert file.stat().st_mode & 0o777 == 0o400
    file.chmod(0o600)
    file.write_text(beam.cookie + "\n")
    status, output = await run("ping", beam.name, env=home)
    assert status == 0, output
    file.chmod(0o644)
    status, output = await run("ping", beam.name, env=home)
    assert status == 1
    assert "chmod 400" in output


async def test_results_that_are_errors_exit_with_1(beam):
    status, output = await run("call", beam.name, "erlang", "hd", "[]", "--cookie", beam.cookie)
    assert status == 1
    assert "badarg" in output
    status, output = await run(
        "call", beam.name, "lists", "reverse", '[1,{a,<<"b">>},-3]', "--cookie", beam.cookie
    )
    assert (status, output) == (0, '[-3,{a,<<"b">>},1]\n')


async def test_an_epmd_of_its_own(epmd_port):
    async with pyglyn("epmd") as server:
        await server.says("serving EPMD")
        status, output = await run("names")
        assert (status, output) == (0, "no nodes on localhost\n")
        server.process.send_signal(signal.SIGTERM)
        assert await server.ends() == 0


async def test_help_and_version():
    status, output = await run("--help")
    assert status == 0
    for command in ("node", "ping", "call", "names", "epmd", "demo"):
        assert re.search(rf"\b{command}\b", output)
    assert (await run("--version"))[1].strip().endswith(__version__)


async def test_the_demo_runs_and_keeps_a_line_whole(epmd):
    status, output = await run("demo", env={"COLUMNS": "40"})
    assert status == 0
    for expected in ("pong", "59.97", "order_confirmed", "{badrpc,undef}"):
        assert expected in output
    assert re.search(r"^  python received OrderCreated\(.*, total=40\)$", output, re.MULTILINE), output


async def test_an_epmd_that_cannot_serve_says_so_in_one_line(epmd):
    status, output = await run("epmd", "--port", str(epmd.port))
    assert status == 1
    assert output == f"pyglyn: cannot serve EPMD on port {epmd.port}: address already in use\n"
    status, output = await run("epmd", "--port", "70000")
    assert status == 2
    assert "Traceback" not in output


async def test_names_of_a_host_that_does_not_exist():
    status, output = await run("names", "no-such-host.invalid")
    assert status == 1
    assert "the host name 'no-such-host.invalid' cannot be resolved" in output


async def test_what_is_said_of_an_error_is_one_line_in_one_style(epmd, name):
    for args, status in (
        (("nonsense",), 2),
        (("tree",), 2),
        (("node", "--port", "x"), 2),
        (("parked", "a@localhost", "--drive", "all"), 2),
        (("events", "memory:"), 1),
        (("call", name, "m", "f", "--cookie", "c"), 1),
        (("stop", name, "--cookie", "c"), 1),
        (("groups", name, "--cookie", "c"), 1),
    ):
        got, output = await run(*args)
        assert (got, output.count("\n")) == (status, 1), output
        assert output.startswith("pyglyn: "), output


async def test_only_a_hidden_node_is_said_to_be_hidden(beams, name):
    visible, hidden = await beams.start(cookie="c"), await beams.start(cookie="c", hidden=True)
    connect = ("--connect", visible.name, "--connect", hidden.name)
    async with pyglyn("node", "--sname", name, "--cookie", "c", *connect) as node:
        assert (await node.says(rf"{visible.name} is up(.*)")).group(1) == ""
        assert (await node.says(rf"{hidden.name} is up(.*)")).group(1) == " (a hidden node)"


@pytest.mark.parametrize("columns", ["20", "80"])
async def test_a_table_in_a_pipe_has_a_line_for_each_row_and_no_box(epmd, columns):
    async with Node(f"{'long_' * 20}@localhost", cookie="c") as node:
        status, output = await run("names", env={"COLUMNS": columns})
        assert status == 0
        assert output.splitlines()[0].split() == ["node", "port"]
        assert any(re.fullmatch(rf"{node.name} +\d+", line) for line in output.splitlines())
        assert output == "".join(line.rstrip() + "\n" for line in output.splitlines())
        assert re.fullmatch(r"[\w@\s]+", output), output


async def test_a_table_on_a_narrow_terminal_has_a_line_for_each_row(epmd):
    async with Node(f"{'long_' * 20}@localhost", cookie="c") as node:
        printed = await on_terminal("names", columns=30)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in printed.splitlines()]
    [row] = [line for line in lines if line.startswith("long")]
    assert re.fullmatch(rf"{node.name[:15]}\w+…  \d+", row), printed
    assert all(len(line) <= 30 for line in lines)


async def test_what_is_long_stands_below_the_rest_on_a_terminal(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path}/bank.db"
    async with es.open_store(url, events=BankAccountEvent, aggregate_type="BankAccount") as store:
        await store.append("a", [CustomerDepositedCash(1.0, 1.0)], expected=0, metadata=[("why", "x" * 90)])
    shown = (await on_terminal("events", url, columns=80)).splitlines()
    assert re.fullmatch(r"1  \S+Z  BankAccount/a/1", shown[0])
    assert shown[1].startswith('    {"event-type": ')
    assert shown[2] == "    why=" + "x" * 90
    shown = (await on_terminal("store", "stats", url, columns=80)).splitlines()
    assert re.search(r"  recorded \S+Z to \S+Z$", shown[1].rstrip())
