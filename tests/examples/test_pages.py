"""Programs and dialogues of docs/ run as they stand there: the program by ``pyglyn node``, the dialogue on a BEAM node."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyglyn import Atom, Node
from pyglyn import eventsourcing as es
from pyglyn.testing import Beam, eventually
from tests.node.conftest import unique_name

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = DOCS.parent / "examples"


def programs(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


def dialogue(page: str) -> list[tuple[str, str]]:
    """What is typed, without its full stop, and what is answered, in one line."""
    return re.findall(r"^\d+> (.*)\.\n(.*)$", (DOCS / page).read_text(), re.MULTILINE)


@pytest.fixture
def run(beam: Beam, tmp_path: Path) -> Iterator[Any]:
    """Starts a program of a page as a node of its own, and returns the node's name."""
    started: list[subprocess.Popen[bytes]] = []

    def start(program: str) -> str:
        name = unique_name("shop")
        (tmp_path / "program.py").write_text(program)
        shutil.copy(EXAMPLES / "bank_account.py", tmp_path)
        words = ["node", "--sname", name, "--cookie", beam.cookie, "--app", "program.py:app"]
        started.append(subprocess.Popen([sys.executable, "-m", "pyglyn", *words], cwd=tmp_path))
        return name

    yield start
    for process in started:
        process.send_signal(signal.SIGTERM)
    assert [process.wait(30) for process in started] == [0]


@pytest.mark.parametrize(("page", "lines"), [("processes.md", 5), ("groups.md", 3), ("eventsourcing.md", 3)])
async def test_a_dialogue_is_as_it_is_shown(beam: Beam, run: Any, page: str, lines: int) -> None:
    name = run(programs(page)[0])

    async def is_there() -> bool:
        return await beam.eval(f"net_adm:ping('{name}')") is Atom("pong")

    async def says(asked: str, shown: str) -> bool:
        # An evaluation has a process of its own, a shell one for all: what it links must outlive it.
        expression = re.sub("'(shop|bank)@localhost'", f"'{name}'", asked).replace(
            "pg:start_link()", "pg:start(pg)"
        )
        text = await beam.eval(
            f'begin X = begin {expression} end, iolist_to_binary(io_lib:format("~p", [X])) end'
        )
        assert text == shown.encode()
        return True

    await eventually(is_there, 60.0)
    assert len(dialogue(page)) == lines
    for asked, shown in dialogue(page):
        if asked.startswith("length("):
            await eventually(lambda asked=asked, shown=shown: says(asked, shown), 20.0)
        else:
            await says(asked, shown)


@pytest.fixture
def page() -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "page"}
    for program in programs("processes.md"):
        exec(compile(program, "docs/processes.md", "exec", dont_inherit=True), names)
    return names


async def test_a_reply_may_come_later_and_a_message_too(page: dict[str, Any]) -> None:
    async with Node(unique_name("shop"), cookie="x") as node, node.process() as me:
        await page["app"](node)
        me.send("counter", (Atom("add_later"), 2, 0.0))

        async def added() -> bool:
            return await me.call("counter", Atom("get")) == 7

        await eventually(added)
        ref, answer = me.expect_reply("counter")
        me.send("counter", (Atom("$gen_call"), (me.pid, ref), Atom("next")))
        assert await me.call("counter", (Atom("add"), 2)) is Atom("ok")
        assert await answer == (True, 9)
        me.forget_reply(ref)


async def test_what_is_asked_of_a_beam_node(beam: Beam, page: dict[str, Any]) -> None:
    async with Node(unique_name("shop"), cookie=beam.cookie) as node:
        assert await page["ask"](node, beam.name) == (beam.otp, Atom("noproc"))
        pid = node.spawn(page["watch"], beam.name, "init")
        assert node.runtime.processes[pid.id].alive
        pid = node.spawn(page["watch"], beam.name, "nobody")
        process = node.runtime.processes[pid.id]
        await eventually(lambda: not process.alive)
        assert process.exit_reason is Atom("noproc")


async def test_the_query_of_the_page_has_its_effects_once_and_again(beam: Beam, run: Any) -> None:
    service, query = programs("eventsourcing.md")[:2]
    name = run(service + query)
    async with Node(unique_name("asking"), cookie=beam.cookie) as node:
        bank = es.Service(node, ("bank", name))
        totals = ("totals", name)

        await eventually(lambda: beam.eval(f"net_adm:ping('{name}') =:= pong"), 60.0)
        await bank.execute("a", (Atom("open_account"), b"Ada"))
        for amount in (2, 3):
            committed = await bank.execute("a", (Atom("deposit"), amount), position=True)
        for _ in range(2):
            await es.wait_for(node, totals, committed.position, timeout=30.0)
            assert (await es.select(node, totals, "SELECT * FROM totals")).rows == [("a", 5)]
            assert await asyncio.to_thread(pyglyn, "replay", name, "totals", "--cookie", beam.cookie) == 0


def pyglyn(*words: str) -> int:
    return subprocess.run([sys.executable, "-m", "pyglyn", *words], timeout=60).returncode
