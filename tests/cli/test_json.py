"""``--json``: every command that shows something has it, and its fields are those of the documentation."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rich_click as click

from pyglyn import Atom, Node
from pyglyn import eventsourcing as es
from pyglyn.cli import COMMANDS, load_command, values
from pyglyn.errors import DomainError
from pyglyn.etf import Export, TermMap
from pyglyn.groups import pg, syn
from pyglyn.supervision import Supervisor, start, worker
from pyglyn.testing import eventually
from pyglyn.testing.bank import BankAccountEvent, OpenAccount
from tests.cli.test_cli import run
from tests.cli.test_eventsourcing_commands import COOKIE, bank
from tests.eventsourcing.handles import bank_at
from tests.node.conftest import unique_name
from tests.supervision.service import Probe

DOCUMENT = Path(__file__).parents[2] / "docs" / "operations.md"
SHOWS_NOTHING = {"certs", "demo", "epmd", "interop", "kill", "observe", "stop", "store"}
"""Commands that act, serve or draw; those of ``store`` are looked at one by one."""


def documented() -> dict[str, tuple[str, list[str]]]:
    """By command: what it prints, and the outermost fields of an item."""
    text = DOCUMENT.read_text().partition("## JSON from commands")[2].partition("\n## ")[0]
    found = {}
    for line in re.findall(r"^\| `(.*) \|$", text, re.M):
        command, kind, fields = (part.strip() for part in line.split("|"))
        while "(" in fields:
            fields = re.sub(r"\([^()]*\)", "", fields)
        found[command.strip("`")] = (kind, re.findall(r"`(\w+)`", fields))
    return found


def commands() -> Iterator[tuple[str, click.Command]]:
    for name in COMMANDS:
        command = load_command(name)
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {below}", each) for below, each in command.commands.items())


def test_every_command_that_shows_something_has_it_and_is_documented() -> None:
    with_json = {
        name for name, command in commands() if any("--json" in each.opts for each in command.params)
    }
    assert with_json == {name for name, _ in commands()} - SHOWS_NOTHING
    told = {name.partition(" --")[0] for name in documented()} - {"events check"}
    assert told == with_json


class Told:
    """What commands say as JSON."""

    async def ask(self, *words: str, status: int = 0) -> Any:
        got, output = await run(*words, "--json")
        assert got == status, output
        lines = [line for line in output.splitlines() if not line.startswith("pyglyn: ")]
        return [json.loads(line) for line in lines]

    async def one(self, *words: str, status: int = 0, of: str) -> Any:
        """One value, with the fields documented for a command."""
        [value] = await self.ask(*words, status=status)
        self.has_fields(value, of)
        return value

    def has_fields(self, value: Any, of: str) -> None:
        kind, fields = documented()[of]
        items = value if kind.startswith("list") else [value]
        assert items
        for item in items:
            assert list(item) == fields, of


@pytest.fixture
def told() -> Told:
    return Told()


async def test_commands_about_nodes(beam, epmd, told) -> None:
    async with Node(unique_name(), cookie=beam.cookie) as node, node.process("someone") as me:
        await start(node, Supervisor(name="top").add(worker(Probe, name="probe")))
        await pg.join(node, "workers", me.pid)
        syn.start(node, "shop")
        await syn.join(node, "shop", b"till", me.pid, Atom("busy"))
        cookie = ("--cookie", beam.cookie)
        found = await told.one("names", of="names")
        assert {"node": node.name, "port": node.peers.port} in found
        pong = await told.one("ping", node.name, *cookie, of="ping")
        assert (pong["node"], pong["answer"], pong["error"], pong["seconds"] > 0) == (
            node.name,
            "pong",
            None,
            True,
        )
        pang = await told.one("ping", "nobody@localhost", *cookie, status=1, of="ping")
        assert (pang["answer"], pang["seconds"], "knows no node" in pang["error"]) == ("pang", None, True)
        steps = await told.one("doctor", beam.name, *cookie, of="doctor")
        assert [step["ok"] for step in steps] == [True] * 7
        steps = await told.one("doctor", beam.name, "--cookie", "no", status=1, of="doctor")
        assert (steps[-1]["step"], steps[-1]["ok"]) == ("cookie", False)
        text = '{ok, <<"text">>, [1, 2.5], #{key => nil}}'
        assert await told.ask("call", beam.name, "erlang", "hd", f"[{text}]", *cookie) == [
            [{"atom": "ok"}, "text", [1, 2.5], {"key": None}]
        ]
        assert await told.one("log-level", node.name, *cookie, of="log-level") == {
            "node": node.name, "level": (await run("log-level", node.name, *cookie))[1].strip(),
        }  # fmt: skip
        scopes = {each["kind"]: each for each in await told.one("groups", node.name, *cookie, of="groups")}
        member = {"pid": f"<{me.pid.id}.0>", "node": node.name, "meta": None, "missing": []}
        [workers] = scopes["pg"]["groups"]
        assert (workers["name"], workers["members"]) in [
            ({"atom": "workers"}, [member]),
            ("workers", [member]),
        ]
        assert scopes["syn_groups"] == {
            "kind": "syn_groups", "scope": "shop", "nodes": [node.name],
            "groups": [{"name": "till", "members": [{**member, "meta": {"atom": "busy"}}]}],
        }  # fmt: skip
        sent = await told.one(
            "publish", node.name, "--scope", "shop", "--group", "till", "1", *cookie, of="publish"
        )
        assert sent == {"sent": 1}
        rows = {row["name"]: row for row in await told.one("tree", node.name, *cookie, of="tree")}
        assert rows["probe"]["parent"] == rows["top"]["pid"]
        assert (rows["probe"]["status"], rows["probe"]["restarts"]) == ("running", 0)
        assert rows["probe"]["memory"] > 2**20
        assert rows["someone"]["memory"] is None
        top = await told.one("top", node.name, "--interval", "0.2", "--sort", "name", *cookie, of="top")
        assert [set(row) for row in top["processes"]] == [{*documented()["tree"][1], "cpu"}] * len(
            top["processes"]
        )
        names = [row["name"] for row in top["processes"]]
        assert names == sorted(names, key=str.lower)


async def test_commands_about_events_and_queries(epmd, told, tmp_path) -> None:
    url = f"sqlite:{tmp_path}/bank.db"
    failing = True

    async def project(tx: Any, envelope: Any) -> None:
        if failing and envelope.aggregate_id == "b":
            raise DomainError("not b")

    async def undo(tx: Any, aggregate_id: str | None) -> None:
        pass

    async with Node(unique_name(), cookie="eventsourcing") as node:
        await es.start(node, bank(url))
        store = es.open_store(url, events=BankAccountEvent, aggregate_type="BankAccount")
        policy = es.FailurePolicy(retries=0)
        query = es.DurableQuery("levels", project, store=store, into=store, policy=policy, on_reset=undo)
        await query.start(node)
        [opened] = await bank_at(node).execute("a", OpenAccount("a"))
        await bank_at(node).execute("b", OpenAccount("b"))

        async def all_read() -> bool:
            return await store.checkpoint("levels") == 2

        await eventually(all_read)
        lines = await told.ask("events", url)
        assert [line["id"] for line in lines] == ["BankAccount/a/1", "BankAccount/b/1"]
        for line in lines:
            told.has_fields(line, "events")
        assert lines[0]["metadata"] == [list(pair) for pair in opened.metadata]
        correlation = dict(opened.metadata)["correlation_id"]
        traced = await told.one("trace", correlation, url, of="trace")
        assert [(event["id"], event["cause"]) for event in traced["events"]] == [("BankAccount/a/1", None)]
        [status] = await told.one("queries", node.name, *COOKIE, of="queries")
        assert status["state"] in ("idle", "live")
        assert (status["name"], status["position"], status["parked"]) == (
            "levels",
            2,
            1,
        )
        [event] = await told.one("parked", node.name, *COOKIE, of="parked")
        assert (event["query"], event["aggregate_id"], "not b" in event["error"]) == ("levels", "b", True)
        drive = ("parked", node.name, "levels", "--drive", "all", *COOKIE)
        driven = await told.one(*drive, status=1, of="parked --drive")
        assert (driven["driven"], [each["id"] for each in driven["failed"]]) == (0, [event["id"]])
        failing = False
        driven = await told.one(*drive, of="parked --drive")
        assert driven == {"driven": 1, "behind": 0, "waiting": 0, "failed": []}
        status, output = await run("replay", node.name, "levels", "--json", *COOKIE)
        value = json.loads(output.splitlines()[-1])
        told.has_fields(value, "replay")
        assert (status, value["done"], value["position"], value["parked"]) == (0, True, 2, [])


async def test_the_care_of_a_store(told, tmp_path) -> None:
    async with Node(unique_name(), cookie="eventsourcing") as node:
        url = f"sqlite:{tmp_path}/bank.db"
        await es.start(node, bank(url))
        await bank_at(node).execute("a", OpenAccount("a"))
    migrated = await told.one("store", "migrate", url, of="store migrate")
    assert migrated["before"] == migrated["after"]
    copied = await told.one("store", "copy", url, f"sqlite:{tmp_path}/copy.db", of="store copy")
    assert (copied["events"], copied["there_before"]) == (1, 0)
    assert await told.ask("store", "verify", url) == [[]]
    archived = ("store", "archive", url, f"sqlite:{tmp_path}/archive.db", "--until", "1")
    assert await told.one(*archived, of="store archive") == {"events": 0}
    stats = await told.one("store", "stats", url, of="store stats")
    assert (stats["events"], stats["facts"]) == (1, None)
    facts = f"sqlite:{tmp_path}/facts.db"
    async with es.open_log(facts) as log:
        await log.append(
            [es.NewFact(type="planned", data=b'{"a":1}', tags=["show:1"], metadata=[("by", "Zoë")])]
        )
    [fact] = await told.ask("events", "--facts", facts)
    told.has_fields(fact, "events --facts")
    assert (fact["data"], fact["tags"], fact["metadata"]) == ({"a": 1}, ["show:1"], [["by", "Zoë"]])


async def test_what_holds_for_a_node(told) -> None:
    [held] = await told.ask("node", "--sname", "a@localhost", "--cookie", "secret", "--print-config")
    assert held["sname"] == {"value": "a@localhost", "from": "command line"}
    assert held["cookie"] == {"value": "***", "from": "command line"}
    assert held["name"] == {"value": None, "from": "default"}


@pytest.mark.parametrize(
    ("term", "shown"),
    [
        (True, True),
        (None, None),
        (Atom("ok"), {"atom": "ok"}),
        ((1, [b"x", 2.5]), [1, ["x", 2.5]]),
        (b"\xff", "\\xff"),
        ({b"k": 1, Atom("a"): 2}, {'<<"k">>': 1, "a": 2}),
        (Export("m", "f", 1), "fun m:f/1"),
        (TermMap([(1, 1), (1.0, 2)]), "#{1 => 1,1.0 => 2}"),
    ],
)
def test_a_term_in_json(term: Any, shown: Any) -> None:
    assert values.json_of(term) == shown
