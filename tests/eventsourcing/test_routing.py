"""Commands find the one owner of their aggregate among several nodes on one database."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from pyglyn import eventsourcing as es
from pyglyn.errors import DomainError, NoOwner
from pyglyn.etf import Atom, Pid, text
from pyglyn.eventsourcing import routing
from pyglyn.groups import syn
from pyglyn.node import Node
from pyglyn.testing import eventually
from pyglyn.testing.bank import (
    BankAccount,
    BankAccountEvent,
    DepositMoney,
    OpenAccount,
    WithDrawMoney,
    apply,
    handle,
)
from tests.node.conftest import unique_name


def bank(url: str) -> es.ServiceSpec:
    store = es.open_store(url, events=BankAccountEvent, state=BankAccount, aggregate_type="BankAccount")
    return es.service("bank", store, handle=handle, apply=apply, empty_state=BankAccount(), scope="example")


async def meshed(nodes: list[Node]) -> None:
    """Connect all nodes and wait until each knows all services."""
    for one in nodes:
        for other in nodes:
            if one is not other:
                await one.connect(other.name)
    for node in nodes:

        async def complete(node: Node = node) -> bool:
            return len(await routing.members(node, "example", "bank")) == len(nodes)

        await eventually(complete)


@pytest_asyncio.fixture
async def nodes(epmd, tmp_path) -> AsyncIterator[list[Node]]:
    """Three nodes that serve the bank."""
    running = [Node(unique_name(), cookie="eventsourcing") for _ in range(3)]
    for node in running:
        await node.start_node()
        await es.start(node, bank(f"sqlite:{tmp_path}/bank.db"))
    await meshed(running)
    yield running
    for node in running:
        await node.stop()


def test_owners_are_spread_and_only_those_of_a_lost_node_move():
    pids = [Pid(f"n{number}@localhost", 1, 0, 1) for number in range(4)]
    names = [f"account-{number}" for number in range(1000)]
    owners = {name: routing.owner_of(name, pids) for name in names}
    counts = Counter(owners.values())
    assert all(150 < count < 350 for count in counts.values())
    assert all(routing.owner_of(name, pids[::-1]) == owner for name, owner in owners.items())
    left = pids[:3]
    moved = [name for name in names if routing.owner_of(name, left) != owners[name]]
    assert all(owners[name] == pids[3] for name in moved)
    assert routing.owner_of("a", []) is None


async def test_a_command_sent_to_any_node_is_carried_out_by_the_owner(nodes):
    names = [f"account-{number}" for number in range(12)]
    done: dict[str, set[str]] = {name: set() for name in names}
    for name in names:
        for node, command in zip(
            nodes, (OpenAccount(name), DepositMoney(1.0), DepositMoney(2.0)), strict=True
        ):
            [envelope] = await es.execute(node, "bank", name, command)
            done[name].add(dict(envelope.metadata)["node"])
    owners = {name: (await es.find_owner(nodes[0], "example", "bank", name)).node for name in names}
    assert {name: {owner} for name, owner in owners.items()} == done
    assert len(set(owners.values())) > 1


async def test_a_node_that_serves_nothing_routes_and_gets_typed_errors(nodes):
    async with Node(unique_name(), cookie="eventsourcing") as client:
        with pytest.raises(NoOwner) as nobody:
            await es.route(client, "example", "bank", "a", OpenAccount("a"))
        assert nobody.value.service == "bank"
        for node in nodes:
            await client.connect(node.name)

        async def complete() -> bool:
            return len(await routing.members(client, "example", "bank")) == 3

        await eventually(complete)
        [opened] = await es.route(client, "example", "bank", "a", OpenAccount("a"))
        assert opened.sequence == 1
        with pytest.raises(DomainError):
            await es.route(client, "example", "bank", "a", WithDrawMoney(1.0))


async def test_when_the_owners_node_dies_the_next_command_goes_to_another_that_reloads(nodes):
    await es.execute(nodes[0], "bank", "a", OpenAccount("a"))
    owner = (await es.find_owner(nodes[0], "example", "bank", "a")).node
    left = [node for node in nodes if node.name != owner]
    [dying] = [node for node in nodes if node.name == owner]
    await es.execute(left[0], "bank", "a", DepositMoney(5.0))
    await dying.stop()
    await eventually(lambda: all(owner not in node.nodes() for node in left))

    async def without() -> bool:
        return len(await routing.members(left[0], "example", "bank")) == 2

    await eventually(without)
    [envelope] = await es.execute(left[0], "bank", "a", DepositMoney(1.0))
    assert (envelope.sequence, envelope.payload.balance) == (3, 6.0)
    assert dict(envelope.metadata)["node"] != owner


async def _knows(node: Node, count: int) -> bool:
    return len(await routing.members(node, "example", "bank")) == count


async def test_two_owners_during_a_partition_lose_no_update(nodes):
    first, second, third = nodes
    await es.execute(first, "bank", "a", OpenAccount("a"))
    first.disconnect(second.name)
    first.disconnect(third.name)
    await eventually(lambda: not first.nodes())
    for node, count in ((first, 1), (second, 2)):
        await eventually(lambda node=node, count=count: _knows(node, count))
    owners = {(await es.find_owner(node, "example", "bank", "a")).node for node in (first, second)}
    assert len(owners) == 2, "each side has an owner of its own"
    await asyncio.gather(
        *(es.execute(node, "bank", "a", DepositMoney(1.0), timeout=30) for node in (first, second) * 10)
    )
    await meshed(nodes)
    loaded = await es.load_aggregate(third, "bank", "a")
    assert (loaded.entity.balance, loaded.sequence) == (20.0, 21)


async def test_the_names_in_the_registry_lead_to_the_owner(syn_beam, tmp_path):
    """As Gleam's ``registry.call`` does it: look the subject up, send it an actor message."""
    async with (
        Node(unique_name(), cookie=syn_beam.cookie) as first,
        Node(unique_name(), cookie=syn_beam.cookie) as second,
    ):
        for node in (first, second):
            await es.start(node, bank(f"sqlite:{tmp_path}/bank.db"))
            await node.connect(syn_beam.name)
        await meshed([first, second])
        call = """
            {Pid, {{subject, Pid, Tag}, nil}} = syn:lookup(example, Name),
            Ref = make_ref(),
            Pid ! {Tag, {execute_command_with_response, <<"a">>, Command, [], {subject, self(), Ref}}},
            receive {Ref, Reply} -> Reply after 5000 -> none end
        """
        known = "syn:lookup(example, Name) =/= undefined"
        await eventually(lambda: syn_beam.eval(known, Name=b"bank"))
        opened = await syn_beam.eval(call, Name=b"bank", Command=text.parse('{open_account, <<"a">>}'))
        assert opened == (Atom("ok"), None)
        await eventually(lambda: syn_beam.eval(known, Name=b"bank/a"))
        deposit = text.parse("{deposit_money, 2.5}")
        assert await syn_beam.eval(call, Name=b"bank/a", Command=deposit) == (Atom("ok"), None)
        owner = (await es.find_owner(first, "example", "bank", "a")).node

        async def held_by(node: str) -> bool:
            found = await syn.lookup(first if first.name == node else second, "example", b"bank/a")
            return found is not None and found[0].node == node

        await eventually(lambda: held_by(owner))
        loaded: Any = await es.load_aggregate(first, "bank", "a")
        assert loaded.entity.balance == 2.5
        # The owner dies; its names are taken over.
        dying, left = (first, second) if first.name == owner else (second, first)
        await dying.stop()

        async def alone() -> bool:
            return len(await routing.members(left, "example", "bank")) == 1

        await eventually(alone)
        await es.execute(left, "bank", "a", DepositMoney(1.0))
        await eventually(lambda: held_by(left.name))
        await eventually(
            lambda: syn_beam.eval(
                "{P, _} = syn:lookup(example, Name), node(P) =:= Left", Name=b"bank", Left=Atom(left.name)
            )
        )
