"""What an observer tells of nodes that end, and of nodes whose answers are not as ours."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from pyglyn import Exports, Node
from pyglyn.etf import Atom, Term
from pyglyn.http import Observer
from pyglyn.testing import eventually
from tests.cli.test_cli import pyglyn

APP = """
from pyglyn.supervision import Supervisor, worker
from tests.supervision.service import Probe

def app(node):
    return Supervisor("one_for_one", name="top").add(worker(Probe, name="a"))
"""


def unique_name(what: str) -> str:
    return f"{what}_{secrets.token_hex(4)}@localhost"


@pytest_asyncio.fixture
async def node(epmd: Any) -> AsyncIterator[Node]:
    async with Node(unique_name("observer"), cookie="observer") as running:
        yield running


class Other:
    """A node that has functions of module ``pyglyn`` of its own.

    Attributes:
        answers: what they return, by name.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Term] = {"tree": [], "counts": [], "groups": []}
        exports = Exports()
        for name in self.answers:
            exports.add("pyglyn", self._answering(name), name)
        self.node = Node(unique_name("other"), cookie="observer", exports=exports)

    def _answering(self, name: str) -> Any:
        async def answer() -> Term:
            return self.answers[name]

        return answer


@pytest_asyncio.fixture
async def other(epmd: Any) -> AsyncIterator[Other]:
    made = Other()
    async with made.node:
        yield made


def row(**about: Term) -> dict[Term, Term]:
    return {Atom(key): value for key, value in about.items()}


class Told:
    """What a watcher is told."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
        self._events = observer.events()

    async def next(self, event: str) -> Any:
        """The next one of that name."""
        async with asyncio.timeout(60):
            while True:
                name, data = await anext(self._events)
                if name == event:
                    return json.loads(data)

    async def until(self, condition: Any) -> Any:
        """The node, once something is so."""
        while True:
            (node,) = (await self.next("nodes"))["nodes"]
            if condition(node):
                return node


def is_in(state: str) -> Any:
    return lambda node: node["state"] == state


async def test_the_deaths_of_a_node_that_ends_are_told_once(node: Node, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    name = unique_name("ends")
    args = ("--sname", name, "--cookie", "observer", "--app", f"{tmp_path}/app.py:app")
    async with pyglyn("node", *args, env={"PYTHONPATH": os.getcwd()}) as program:
        observer = Observer(node, [name])
        told = Told(observer)
        await told.until(is_in("up"))
        program.process.kill()
        await told.until(is_in("closed"))
        for _ in range(2):
            await told.until(is_in("closed"))
        deaths = sorted((death["name"], death["reason"]) for death in observer.deaths)
        assert deaths == [("a", "noconnection"), ("top", "noconnection")]


async def test_after_a_pid_of_another_node_among_the_children_deaths_are_told(
    node: Node, other: Other
) -> None:
    async with node.process() as foreign, other.node.process() as child:
        other.answers["tree"] = [
            row(pid=foreign.pid, restarts=0, name=Atom("foreign")),
            row(pid=child.pid, restarts=0, name=Atom("ours")),
        ]
        told = Told(Observer(node, [other.node.name]))
        await told.next("deaths")
        await told.until(is_in("up"))
        foreign.exit(foreign.pid, "kill")
        await told.until(is_in("up"))
        child.exit(child.pid, "kill")
        assert [death["name"] for death in await told.next("deaths")] == ["ours"]
        for _ in range(2):  # looks that still tell of it, and have it monitored
            await told.until(is_in("up"))
        observer = told.observer
        await eventually(lambda: not observer._monitored)
        assert [death["name"] for death in observer.deaths] == ["ours"]


async def test_a_death_that_is_made_up_is_not_told(node: Node, other: Other) -> None:
    """References are counted, so a peer may name that of any monitor; a signal comes from whoever has ended."""
    async with other.node.process() as child:
        other.answers["tree"] = [row(pid=child.pid, restarts=0, name=Atom("ours"))]
        observer = Observer(node, [other.node.name])
        told = Told(observer)
        await told.next("deaths")
        await told.until(is_in("up"))
        await eventually(lambda: child.signals.watchers)
        ((ref, (watcher, _)),) = child.signals.watchers.items()
        lie = (Atom("DOWN"), ref, Atom("process"), child.pid, Atom("lie"))
        child.send(watcher, lie)
        assert await other.node.ping(node.name)  # it is there
        await eventually(lambda: not node.runtime.processes[watcher.id].message_queue_len)
        child.send(watcher, lie)  # and once just before the real one
        child.exit(child.pid, "kill")
        assert [death["reason"] for death in await told.next("deaths")] == ["killed"]
        assert len(observer.deaths) == 1


async def test_who_answers_the_questions_is_no_process_of_the_node(node: Node, other: Other) -> None:
    questions = (b"pyglyn:tree", b"erlang:memory")
    async with other.node.process() as child:
        other.answers["tree"] = [row(pid=child.pid, label=label) for label in (*questions, b"till")]
        found = await Told(Observer(node, [other.node.name])).until(is_in("up"))
        assert [process["label"] for process in found["processes"]] == ["till"]


@pytest.mark.parametrize(
    ("function", "answer"),
    [
        ("tree", Atom("no_list")),
        ("tree", [Atom("no_row")]),
        ("tree", [row()]),
        ("tree", [row(pid=Atom("undefined"), label=7)]),
        ("counts", [Atom("no_count")]),
        ("groups", [7]),
    ],
)
async def test_a_node_whose_answer_is_not_understood_is_said_and_looked_at_again(
    node: Node, other: Other, function: str, answer: Term
) -> None:
    other.answers[function] = answer
    told = Told(Observer(node, [other.node.name]))
    assert "not understood" in (await told.until(is_in("refuses")))["error"]
    other.answers[function] = []
    await told.until(is_in("up"))


async def test_what_is_no_number_of_json_is_left_out(node: Node, other: Other) -> None:
    other.answers["counts"] = [(b"pyglyn_commands_total", [], 1 << 20_000)]
    other.answers["tree"] = [row(pid=Atom("undefined"), restarts=[Atom("odd")], uptime_ms=1 << 20_000)]
    found = await Told(Observer(node, [other.node.name])).until(is_in("up"))
    assert found["counts"]["commands"] is None
    (process,) = found["processes"]
    assert process["restarts"] is process["uptime_ms"] is None
