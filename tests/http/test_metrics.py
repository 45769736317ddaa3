"""``/metrics``, read by Prometheus' own parser: right under a load of which every number is known."""

from __future__ import annotations

import os
import secrets
import signal

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pyglyn import Atom, Node, Process, counters, http
from pyglyn import eventsourcing as es
from pyglyn.errors import DomainError
from pyglyn.groups import pg
from pyglyn.http.exposition import Family, render
from pyglyn.supervision import Supervisor, start, worker
from pyglyn.supervision.wording import reason_word
from pyglyn.testing import bank, eventually
from tests.http.asking import get


async def scrape(port: int) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    status, text = await get(port, "/metrics")
    assert status == 200
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples, name: str, **labels: str) -> float | None:
    return samples.get((name, frozenset(labels.items())))


@pytest.fixture
def own_name() -> str:
    counters.take()
    return f"metrics_{secrets.token_hex(4)}@localhost"


@pytest.fixture
def name(own_name, epmd_port) -> str:
    return own_name


async def sink(me: Process) -> None:
    """A child that takes one message in three, and counts."""
    while True:
        counters.add("pyglyn_events_total", service="sink")
        message = await me.receive(lambda m: m in (Atom("take"), Atom("fall"), Atom("leave")))
        if message is Atom("fall"):
            raise KeyError("fallen")
        if message is Atom("leave"):
            return


async def test_a_scripted_load_a_killed_worker_and_restarts_are_counted(name, tmp_path):
    async with Node(name, cookie="c") as node:
        server = await http.serve(node, "127.0.0.1", 0)
        await start(node, Supervisor("one_for_one", intensity=9, name="top").add(worker(sink, name="sink")))
        who = {"supervisor": "top", "child": "sink"}

        for _ in range(5):
            node.send("sink", Atom("take"))
        for _ in range(7):
            node.send("sink", Atom("never"))

        async def all_there() -> bool:
            return value(await scrape(server.port), "pyglyn_mailbox_messages", worker="sink") == 7

        await eventually(all_there)
        seen = await scrape(server.port)
        assert value(seen, "pyglyn_events_total", service="sink") == 6
        assert value(seen, "pyglyn_mailbox_longest", worker="sink") == 7
        assert value(seen, "pyglyn_processes", worker="sink") == 1
        assert value(seen, "pyglyn_worker_up", worker="sink") == 1
        assert value(seen, "pyglyn_resident_memory_bytes", worker="sink") > 1_000_000
        assert value(seen, "pyglyn_event_loop_lag_seconds", worker="sink") >= 0
        assert value(seen, "pyglyn_child_restarts_total", **who) is None

        os_pid = next(link.os_pid for link in node.workers.links.values() if "sink" in link.title)
        os.kill(os_pid, signal.SIGKILL)

        async def again(number: int) -> bool:
            return value(await scrape(server.port), "pyglyn_child_restarts_total", **who) == number

        await eventually(lambda: again(1))
        node.send("sink", Atom("fall"))
        await eventually(lambda: again(2))
        node.send("sink", Atom("leave"))
        await eventually(lambda: again(3))

        async def begun() -> bool:  # each run counts once, when it begins
            return value(await scrape(server.port), "pyglyn_events_total", service="sink") == 9

        await eventually(begun)
        seen = await scrape(server.port)
        assert value(seen, "pyglyn_child_exits_total", **who, reason="signal 9") == 1
        assert value(seen, "pyglyn_child_exits_total", **who, reason="KeyError") == 1
        assert value(seen, "pyglyn_child_exits_total", **who, reason="normal") == 1
        assert value(seen, "pyglyn_mailbox_messages", worker="sink") == 0


async def test_commands_events_and_queries_are_counted(name, tmp_path):
    store = es.open_store(
        f"sqlite:{tmp_path}/bank.db",
        events=bank.BankAccountEvent,
        aggregate_type="BankAccount",
        state=bank.BankAccount,
    )
    async with Node(name, cookie="c") as node:
        server = await http.serve(node, "127.0.0.1", 0)
        spec = es.supervised(
            "bank",
            store,
            handle=bank.handle,
            apply=bank.apply,
            empty_state=bank.BankAccount(),
            queries=[("seen", _ignore)],
        )
        await start(node, spec)
        accounts = es.Service(node, "bank", events=bank.BankAccountEvent, state=bank.BankAccount)
        await accounts.execute("a", bank.OpenAccount("a"))
        await accounts.execute("a", bank.DepositMoney(5.0))
        with pytest.raises(DomainError):
            await accounts.execute("a", bank.WithDrawMoney(500.0))

        async def counted() -> bool:
            seen = await scrape(server.port)
            return value(seen, "pyglyn_commands_total", service="bank", outcome="refused") == 1

        await eventually(counted)
        seen = await scrape(server.port)
        assert value(seen, "pyglyn_commands_total", service="bank", outcome="done") == 2
        assert value(seen, "pyglyn_events_total", service="bank") == 2
        assert value(seen, "pyglyn_command_seconds_total", service="bank") > 0

        async def queried() -> bool:
            seen = await scrape(server.port)
            return value(seen, "pyglyn_query_processed", query="seen", kind="live") == 2

        await eventually(queried)
        seen = await scrape(server.port)
        assert value(seen, "pyglyn_query_lag", query="seen", kind="live") == 0
        assert value(seen, "pyglyn_query_parked", query="seen", kind="live") == 0


def _ignore(aggregate_id: str, envelopes: list[object]) -> None: ...


async def test_connections_have_the_names_and_labels_of_prometheus_erl(beam, own_name):
    async with Node(own_name, cookie=beam.cookie) as node:
        server = await http.serve(node, "127.0.0.1", 0)
        await node.connect(beam.name)
        peer = {"peer": beam.name}
        before = await scrape(server.port)
        assert value(before, "erlang_vm_dist_node_state", **peer) == 3
        await node.rpc(beam.name, "lists", "seq", [1, 20_000])
        await node.rpc(beam.name, "erlang", "byte_size", [b"x" * 50_000])
        after = await scrape(server.port)

        def more(what: str) -> float:
            return value(after, f"erlang_vm_dist_{what}", **peer) - value(
                before, f"erlang_vm_dist_{what}", **peer
            )

        assert more("recv_bytes") > 20_000
        assert more("send_bytes") > 50_000
        assert more("port_input_bytes") == more("recv_bytes")
        assert more("recv_cnt") >= 2
        assert more("send_cnt") >= 2
        assert value(after, "erlang_vm_dist_send_pend_bytes", **peer) == 0
        assert value(after, "erlang_vm_dist_node_queue_size_bytes", **peer) == 0
        assert value(after, "pyglyn_node_info", node=own_name, type="hidden", version=_version()) == 1


def _version() -> str:
    from pyglyn._version import __version__

    return __version__


async def test_groups_and_conditions_are_shown(name):
    async with Node(name, cookie="c") as node:
        server = await http.serve(node, "127.0.0.1", 0)
        for group in ("a", "b"):
            await pg.join(node, group, [node.system.pid, node.system.pid])
        node.readiness.waits_for("app")
        seen = await scrape(server.port)
        assert value(seen, "pyglyn_groups", kind="pg", scope="pg") == 2
        assert value(seen, "pyglyn_group_members", kind="pg", scope="pg") == 4
        assert value(seen, "pyglyn_ready", condition="app") == 0
        assert value(seen, "pyglyn_ready", condition="registered") == 1


async def test_a_worker_that_does_not_answer_is_seen_and_costs_only_its_own_figures(name, monkeypatch):
    async with Node(name, cookie="c") as node:
        server = await http.serve(node, "127.0.0.1", 0)
        tree = Supervisor("one_for_one").add(worker(sink, name="sink")).add(worker(sink, name="other"))
        await start(node, tree)
        os_pid = next(link.os_pid for link in node.workers.links.values() if "sink" in link.title)
        os.kill(os_pid, signal.SIGSTOP)
        try:
            seen = await scrape(server.port)
        finally:
            os.kill(os_pid, signal.SIGCONT)
        assert value(seen, "pyglyn_worker_up", worker="sink") == 0
        assert value(seen, "pyglyn_processes", worker="sink") is None
        assert value(seen, "pyglyn_processes", worker="other") == 1


def test_what_prometheus_reads_is_what_was_written() -> None:
    family = Family(name="x", kind="gauge", help='with "quotes", \\ and\nlines')
    family.add(0.25, label='a "b" \\ c\nd', other="ü\udcff")
    family.add(10**15)
    (read,) = text_string_to_metric_families(render([family]))
    assert (read.name, read.type, read.documentation) == ("x", "gauge", family.help)
    assert [(sample.labels, sample.value) for sample in read.samples] == [
        ({"label": 'a "b" \\ c\nd', "other": "ü?"}, 0.25),
        ({}, 1e15),
    ]


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        (Atom("normal"), "normal"),
        ((Atom("shutdown"), Atom("x")), "shutdown"),
        ((Atom("shutdown"), Atom("recycled")), "recycled"),
        ((Atom("signal"), 9), "signal 9"),
        ((Atom("signal"), 9, Atom("out_of_memory")), "out_of_memory"),
        ((Atom("exit_status"), 3), "exit_status 3"),
        ((Atom("memory_limit"), 12345), "memory_limit"),
        (((Atom("exception"), Atom("KeyError"), b"'x'"), []), "KeyError"),
        (((Atom("badmatch"), 1), []), "badmatch"),
        ((1, 2), "other"),
        (b"any", "other"),
    ],
)
def test_reasons_become_few_words(reason: object, word: str) -> None:
    assert reason_word(reason) == word


def test_too_many_labels_are_counted_together() -> None:
    counters.take()
    counters.add_all([("c", (("who", str(number)),), 1) for number in range(5)], most=2)
    assert counters.take() == [
        ("c", (("who", "0"),), 1),
        ("c", (("who", "1"),), 1),
        ("c", (("who", "other"),), 3),
    ]
