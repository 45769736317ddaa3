"""Commands find the one owner of their aggregate among several nodes on one database."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from pyglyn import eventsourcing as es
from pyglyn import gleam as values
from pyglyn import glyn, supervision
from pyglyn.errors import CallFailed, DomainError, EntityNotFound, EventStoreError, NoOwner
from pyglyn.etf import Atom, Pid, Term, text
from pyglyn.eventsourcing.cluster import owners
from pyglyn.eventsourcing.cluster.errands import Errands
from pyglyn.eventsourcing.cluster.routing import Routing
from pyglyn.groups import syn
from pyglyn.node import Caller, GenServer, Node
from pyglyn.supervision import Supervisor
from pyglyn.testing import Beam, eventually
from pyglyn.testing.bank import (
    BankAccount,
    BankAccountCommand,
    BankAccountEvent,
    DepositMoney,
    OpenAccount,
    WithDrawMoney,
    apply,
    handle,
)
from tests.eventsourcing.handles import GatedStore, bank_at
from tests.node.conftest import unique_name
from tests.peers import GleamBeams

DOMAIN: dict[str, Any] = {"handle": handle, "apply": apply, "empty_state": BankAccount(), "scope": "example"}


def events(url: str) -> es.EventStore[Any, Any]:
    return es.open_store(url, events=BankAccountEvent, state=BankAccount, aggregate_type="BankAccount")


def bank(url: str) -> es.ServiceSpec:
    return es.service("bank", events(url), **DOMAIN)


async def start_supervised(node: Node, url: str, workers: int, **options: Any) -> None:
    """Serve the bank from OS processes."""
    service = es.supervised("bank", events(url), workers=workers, **{**DOMAIN, **options})
    await supervision.start(node, Supervisor("one_for_one", intensity=10).add(service))


async def meshed(nodes: list[Node]) -> None:
    """Connect all nodes and wait until each knows all services."""
    for one in nodes:
        for other in nodes:
            if one is not other:
                await one.connect(other.name)
    for node in nodes:

        async def complete(node: Node = node) -> bool:
            return len(await owners.members(node, "example", "bank")) == len(nodes)

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
    chosen = {name: owners.owner_of(name, pids) for name in names}
    counts = Counter(chosen.values())
    assert all(150 < count < 350 for count in counts.values())
    assert all(owners.owner_of(name, pids[::-1]) == owner for name, owner in chosen.items())
    left = pids[:3]
    moved = [name for name in names if owners.owner_of(name, left) != chosen[name]]
    assert all(chosen[name] == pids[3] for name in moved)
    assert owners.owner_of("a", []) is None


async def test_a_command_sent_to_any_node_is_carried_out_by_the_owner(nodes):
    names = [f"account-{number}" for number in range(12)]
    done: dict[str, set[str]] = {name: set() for name in names}
    for name in names:
        for node, command in zip(
            nodes, (OpenAccount(name), DepositMoney(1.0), DepositMoney(2.0)), strict=True
        ):
            [envelope] = await bank_at(node).execute(name, command)
            done[name].add(dict(envelope.metadata)["node"])
    found = {name: (await bank_at(nodes[0], scope="example").owner(name)).node for name in names}
    assert {name: {owner} for name, owner in found.items()} == done
    assert len(set(found.values())) > 1


async def test_a_node_that_serves_nothing_routes_and_gets_typed_errors(nodes):
    async with Node(unique_name(), cookie="eventsourcing") as client:
        with pytest.raises(NoOwner) as nobody:
            await bank_at(client, scope="example").execute("a", OpenAccount("a"))
        assert nobody.value.service == "bank"
        for node in nodes:
            await client.connect(node.name)  # it has not heard yet who serves what
        [opened] = await bank_at(client, scope="example").execute("a", OpenAccount("a"))
        assert opened.sequence == 1
        with pytest.raises(DomainError):
            await bank_at(client, scope="example").execute("a", WithDrawMoney(1.0))


async def test_when_the_owners_node_dies_the_next_command_goes_to_another_that_reloads(nodes):
    await bank_at(nodes[0]).execute("a", OpenAccount("a"))
    owner = (await bank_at(nodes[0], scope="example").owner("a")).node
    left = [node for node in nodes if node.name != owner]
    [dying] = [node for node in nodes if node.name == owner]
    await bank_at(left[0]).execute("a", DepositMoney(5.0))
    await dying.stop()
    await eventually(lambda: all(owner not in node.nodes() for node in left))

    async def without() -> bool:
        return len(await owners.members(left[0], "example", "bank")) == 2

    await eventually(without)
    [envelope] = await bank_at(left[0]).execute("a", DepositMoney(1.0))
    assert (envelope.sequence, envelope.payload.balance) == (3, 6.0)
    assert dict(envelope.metadata)["node"] != owner


async def _knows(node: Node, count: int) -> bool:
    return len(await owners.members(node, "example", "bank")) == count


async def test_two_owners_during_a_partition_lose_no_update(nodes):
    first, second, third = nodes
    await bank_at(first).execute("a", OpenAccount("a"))
    first.disconnect(second.name)
    first.disconnect(third.name)
    await eventually(lambda: not first.nodes())
    for node, count in ((first, 1), (second, 2)):
        await eventually(lambda node=node, count=count: _knows(node, count))
    found = {(await bank_at(node, scope="example").owner("a")).node for node in (first, second)}
    assert len(found) == 2, "each side has an owner of its own"
    await asyncio.gather(
        *(bank_at(node).execute("a", DepositMoney(1.0), timeout=30) for node in (first, second) * 10)
    )
    await meshed(nodes)
    loaded = await bank_at(third).load_aggregate("a")
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
            receive {Ref, Reply} -> Reply after 60000 -> none end
        """
        known = "syn:lookup(example, Name) =/= undefined"
        await eventually(lambda: syn_beam.eval(known, Name=b"bank"))
        opened = await syn_beam.eval(call, Name=b"bank", Command=text.parse('{open_account, <<"a">>}'))
        assert opened == (Atom("ok"), None)
        await eventually(lambda: syn_beam.eval(known, Name=b"bank/a"))
        deposit = text.parse("{deposit_money, 2.5}")
        assert await syn_beam.eval(call, Name=b"bank/a", Command=deposit) == (Atom("ok"), None)
        owner = (await bank_at(first, scope="example").owner("a")).node

        async def held_by(node: str) -> bool:
            found = await syn.lookup(first if first.name == node else second, "example", b"bank/a")
            return found is not None and found[0].node == node

        await eventually(lambda: held_by(owner))
        loaded: Any = await bank_at(first).load_aggregate("a")
        assert loaded.entity.balance == 2.5
        # The owner dies; its names are taken over.
        dying, left = (first, second) if first.name == owner else (second, first)
        await dying.stop()

        async def alone() -> bool:
            return len(await owners.members(left, "example", "bank")) == 1

        await eventually(alone)
        await bank_at(left).execute("a", DepositMoney(1.0))
        await eventually(lambda: held_by(left.name))
        await eventually(
            lambda: syn_beam.eval(
                "{P, _} = syn:lookup(example, Name), node(P) =:= Left", Name=b"bank", Left=Atom(left.name)
            )
        )


async def test_the_name_of_an_aggregate_goes_with_it_to_another_node_and_back(epmd, tmp_path):
    url = f"sqlite:{tmp_path}/bank.db"
    async with Node(unique_name(), cookie="eventsourcing") as first:
        await es.start(first, bank(url))
        async with Node(unique_name(), cookie="eventsourcing") as second:
            pids = [Pid(node.name, 1, 0, 1) for node in (first, second)]
            id = next(id for id in map(str, range(1000)) if owners.owner_of(id, pids) == pids[1])

            async def held_by(node: Node) -> bool:
                found = await syn.lookup(first, "example", f"bank/{id}".encode())
                return found is not None and found[0].node == node.name

            await bank_at(first).execute(id, OpenAccount(id))
            await eventually(lambda: held_by(first))
            registry: glyn.Registry[Any] = glyn.Registry(first, "example", object)
            looked_up = await registry.subject(f"bank/{id}")
            await es.start(second, bank(url))
            await meshed([first, second])
            await bank_at(first).execute(id, DepositMoney(1.0))
            await eventually(lambda: held_by(second))
            await bank_at(first, looked_up).execute(id, DepositMoney(1.0))
        await eventually(lambda: _knows(first, 1))
        await bank_at(first).execute(id, DepositMoney(1.0))
        await eventually(lambda: held_by(first))
        loaded = await bank_at(first).load_aggregate(id)
        assert loaded.entity.balance == 3.0


async def test_a_node_that_loses_the_services_name_answers_those_who_looked_it_up_before(epmd, tmp_path):
    async with (
        Node(unique_name(), cookie="eventsourcing") as first,
        Node(unique_name(), cookie="eventsourcing") as second,
    ):
        subjects = []
        for node in (first, second):
            await es.start(node, bank(f"sqlite:{tmp_path}/bank.db"))
            await eventually(lambda node=node: syn.lookup(node, "example", b"bank"))
            registry: glyn.Registry[Any] = glyn.Registry(node, "example", object)
            subjects.append(await registry.subject("bank"))
        await meshed([first, second])
        await eventually(lambda: agreed([first, second]))
        await bank_at(first, subjects[0]).execute("a", OpenAccount("a"))
        await bank_at(second, subjects[1]).execute("a", DepositMoney(1.0))


async def test_a_name_is_given_up_for_nobody_but_a_service(beam, tmp_path):
    """A peer that knows the process may tell it to, or send it an exit message."""
    async with Node(unique_name(), cookie=beam.cookie) as node:
        await es.start(node, bank(f"sqlite:{tmp_path}/bank.db"))
        await bank_at(node).execute("a", OpenAccount("a"))
        await eventually(lambda: syn.lookup(node, "example", b"bank/a"))
        doors = [(await syn.lookup(node, "example", name))[0] for name in (b"bank", b"bank/a")]
        links = node.runtime.processes[node.whereis("bank").id].signals.links
        before = {*links}
        lies = "{pyglyn_door, stop}", "{'EXIT', P, {syn_resolve_kill, a, b}}", "{'EXIT', P, normal}"
        for door in doors:
            await beam.eval(f"[P ! M || M <- [{', '.join(lies)}]], ok", P=door)
        registry: glyn.Registry[Any] = glyn.Registry(node, "example", object)
        for name in ("bank", "bank/a"):
            await bank_at(node, await registry.subject(name)).execute("a", DepositMoney(1.0), timeout=60)
        assert {*links} == before, "the service has the same doors, and no others"


async def agreed(nodes: list[Node]) -> Pid | None:
    """Return who has the service's name, if all nodes think so."""
    found = [await syn.lookup(node, "example", b"bank") for node in nodes]
    return found[0][0] if found[0] and found.count(found[0]) == len(nodes) else None


async def test_the_names_go_when_the_service_ends(epmd, tmp_path):
    async with Node(unique_name(), cookie="eventsourcing") as node:
        await es.start(node, bank(f"sqlite:{tmp_path}/bank.db"))
        service = node.whereis("bank")
        assert service is not None
        await bank_at(node).execute("a", OpenAccount("a"))

        async def named() -> list[bool]:
            return [await syn.lookup(node, "example", name) is not None for name in (b"bank", b"bank/a")]

        async def all_named() -> bool:
            return all(await named())

        async def none_named() -> bool:
            return not any(await named())

        await eventually(all_named)
        node.system.exit(service, Atom("kill"))
        await eventually(none_named)


class Owner(GenServer):
    """The part of a service that owns aggregates: it is told which ones are used."""

    async def init(self) -> None:
        self.me.trap_exit = True
        self.routing = Routing(self.me, "example", "bank", Errands(self.me), doors=2, linger_s=0.0)
        await self.routing.start()

    async def handle_call(self, request: Any, caller: Caller) -> Term:
        assert await self.routing.elsewhere(request.decode()) is None
        return Atom("ok")

    async def handle_info(self, message: Any) -> None:
        self.routing.exited(message[1])


async def test_of_many_aggregates_the_ones_used_last_have_names(epmd):
    async with Node(unique_name(), cookie="eventsourcing") as node:
        owner = await node.start(Owner)

        async def named(*ids: str) -> bool:
            found = [id for id in "abc" if await syn.lookup(node, "example", f"bank/{id}".encode())]
            return found == list(ids)

        for used, kept in ((b"ab", "ab"), (b"ac", "ac"), (b"b", "bc")):
            for id in used:
                await node.call(owner, bytes((id,)))
            await eventually(lambda kept=kept: named(*kept))


async def owned_by(node: Node) -> str:
    """Return the id of an account that a node owns."""
    for number in range(1000):
        id = f"account-{number}"
        if (await bank_at(node, scope="example").owner(id)).node == node.name:
            return id
    raise AssertionError("it owns none")


async def test_after_its_os_process_was_killed_a_service_takes_its_place_again(epmd, tmp_path):
    async with (
        Node(unique_name(), cookie="eventsourcing") as first,
        Node(unique_name(), cookie="eventsourcing") as second,
    ):
        for node in (first, second):
            await start_supervised(node, f"sqlite:{tmp_path}/bank.db", workers=0)
        await meshed([first, second])
        id = await owned_by(first)
        await bank_at(second, scope="example").execute(id, OpenAccount(id))
        killed = await bank_at(second, scope="example").owner(id)
        os.kill(first.workers.links[killed.serial].os_pid, signal.SIGKILL)

        async def back() -> bool:
            owner = await bank_at(second, scope="example").owner(id)
            return owner.node == first.name and owner != killed

        await eventually(back)
        [deposited] = await bank_at(second, scope="example").execute(id, DepositMoney(1.0))
        assert (deposited.sequence, dict(deposited.metadata)["node"]) == (2, first.name)

        async def has_its_names() -> bool:
            names = (f"bank/{id}".encode(), b"bank")
            found = [await syn.lookup(second, "example", name) for name in names]
            return all(found) and found[0][0].node == first.name

        await eventually(has_its_names)


def deadly(account: BankAccount, command: BankAccountCommand) -> list[Any]:
    """Kill the OS process that carries out a deposit of 13."""
    if command == DepositMoney(13.0):
        os.kill(os.getpid(), signal.SIGKILL)
    return handle(account, command)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("asking", ["call", "actor message"])
async def test_a_command_passed_on_to_an_owner_that_dies_is_answered_at_once(
    epmd, tmp_path, workers: int, asking: str
) -> None:
    """The caller has a link to the service it asked, which lives, and waits without a limit."""
    async with (
        Node(unique_name(), cookie="eventsourcing") as first,
        Node(unique_name(), cookie="eventsourcing") as second,
    ):
        for node in (first, second):
            url = f"sqlite:{tmp_path}/bank.db"
            await start_supervised(node, url, workers=workers, handle=deadly)
        await meshed([first, second])
        id = await owned_by(first)
        name: Any = (values.NamedSubject[Any](Atom("bank")), second.name) if asking != "call" else "bank"
        await bank_at(second, name).execute(id, OpenAccount(id))
        deposit = bank_at(second, name).execute(id, DepositMoney(13.0), timeout=None)
        with pytest.raises((CallFailed, EventStoreError), match="ended; it may have been carried out"):
            await asyncio.wait_for(deposit, 180)


async def test_a_command_passed_on_to_a_node_that_goes_away_is_answered_at_once(epmd) -> None:
    store = GatedStore()
    async with (
        Node(unique_name(), cookie="eventsourcing") as first,
        Node(unique_name(), cookie="eventsourcing") as second,
    ):
        for node in (first, second):
            await es.start(node, es.service("bank", store, **DOMAIN))
        await meshed([first, second])
        id = await owned_by(first)
        opening = asyncio.create_task(bank_at(second).execute(id, OpenAccount(id), timeout=None))
        await eventually(lambda: store.waiting == [id])
        second.disconnect(first.name)
        with pytest.raises(CallFailed, match="ended; it may have been carried out"):
            await asyncio.wait_for(opening, 180)
        store.open.set()


# --- real Gleam ------------------------------------------------------------------------------------------

DONE = (Atom("ok"), (Atom("ok"), None))
EXECUTE = (
    'pyglyn_interop@bank_client:execute(<<"example">>, Name, Id, Command, [{<<"by">>, <<"teller">>}], 5000)'
)
LOAD = 'pyglyn_interop@bank_client:load(<<"example">>, Name, Id, 5000)'
ADD_HALF = 'pyglyn_interop@bank_client:add_half(<<"example">>, Name, Id, 5000)'
WHEREIS = 'pyglyn_interop@bank_client:whereis(<<"example">>, Name)'


@asynccontextmanager
async def banks_beside(gleam: Beam, database: Path, workers: int | None = None) -> AsyncIterator[list[Node]]:
    """Two Python nodes that serve the bank, connected to each other and to a Gleam node.

    Args:
        workers: how many OS processes serve it besides the service's own; None has it in the test's.
    """
    async with AsyncExitStack() as stack:
        running = [Node(unique_name(), cookie=gleam.cookie) for _ in range(2)]
        for node in running:
            await stack.enter_async_context(node)
            if workers is None:
                await es.start(node, bank(f"sqlite:{database}"))
            else:
                await start_supervised(node, f"sqlite:{database}", workers)
            await node.connect(gleam.name)
        await meshed(running)
        yield running


async def has_name(gleam: Beam, name: str, node: str) -> bool:
    """Whether a Gleam program finds a name, and on this node."""
    match await gleam.eval(WHEREIS, Name=name.encode()):
        case (Atom("ok"), Pid() as pid):
            return pid.node == node
    return False


@pytest.mark.parametrize("workers", [None, 0, 2])
async def test_a_gleam_caller_reaches_the_owner_of_each_aggregate_by_a_name_in_the_registry(
    gleam_beams: GleamBeams, tmp_path: Path, workers: int | None
) -> None:
    gleam = await gleam_beams.start("teller")
    async with banks_beside(gleam, tmp_path / "bank.db", workers) as nodes:

        async def execute(name: str, id: str, command: object) -> Term:
            term = values.encode(command)
            return await gleam.eval(EXECUTE, Name=name.encode(), Id=id.encode(), Command=term)

        holder = await eventually(lambda: agreed(nodes))
        await eventually(lambda: has_name(gleam, "bank", holder.node))
        for owner in nodes:
            id = await owned_by(owner)
            name = f"bank/{id}"
            missing = (Atom("ok"), (Atom("error"), Atom("entity_not_found")))
            assert await gleam.eval(LOAD, Name=b"bank", Id=id.encode()) == missing
            assert await execute("bank", id, OpenAccount(id)) == DONE
            await eventually(lambda name=name, owner=owner: has_name(gleam, name, owner.name))
            assert await execute(name, id, DepositMoney(10.0)) == DONE
            refused = text.parse('{ok, {error, {domain_error, <<"refused: WithDrawMoney">>}}}')
            for either in ("bank", name):
                assert await execute(either, id, WithDrawMoney(99.0)) == refused
                loaded = await gleam.eval(LOAD, Name=either.encode(), Id=id.encode())
                assert loaded == text.parse(
                    f'{{ok, {{ok, {{aggregate, <<"{id}">>, {{bank_account, true, 10.0}}, 2}}}}}}'
                )
            assert await gleam.eval(ADD_HALF, Name=name.encode(), Id=id.encode()) == (Atom("ok"), 15.0)
            match await execute(name, id, Atom("nonsense")):
                case (Atom("ok"), (Atom("error"), (Atom("event_store_error"), why))):
                    assert b"does not decode" in why
                case other:
                    raise AssertionError(other)
            committed = [dict(each.metadata) for each in await bank_at(nodes[0]).load_events(id)]
            assert [pairs["node"] for pairs in committed] == [owner.name] * 3
            assert [pairs.get("by") for pairs in committed] == ["teller", "teller", None]
        unknown = (Atom("error"), (Atom("process_not_found"), b"nobody"))
        assert await execute("nobody", "a", OpenAccount("a")) == unknown
        no_account = (Atom("error"), b"no such account")
        assert await gleam.eval(ADD_HALF, Name=b"bank", Id=b"none") == no_account


async def test_when_the_owners_node_dies_a_gleam_caller_reaches_the_next_owner(
    gleam_beams: GleamBeams, tmp_path: Path
) -> None:
    gleam = await gleam_beams.start("teller")
    async with banks_beside(gleam, tmp_path / "bank.db") as (first, second):
        id = await owned_by(first)
        name = f"bank/{id}".encode()
        await bank_at(second).execute(id, OpenAccount(id))
        await eventually(lambda: has_name(gleam, f"bank/{id}", first.name))
        deposit = values.encode(DepositMoney(10.0))
        assert await gleam.eval(EXECUTE, Name=name, Id=id.encode(), Command=deposit) == DONE
        await first.stop()
        await eventually(lambda: _knows(second, 1))
        await eventually(lambda: has_name(gleam, "bank", second.name))
        assert await gleam.eval(EXECUTE, Name=b"bank", Id=id.encode(), Command=deposit) == DONE
        await eventually(lambda: has_name(gleam, f"bank/{id}", second.name))
        assert await gleam.eval(ADD_HALF, Name=name, Id=id.encode()) == (Atom("ok"), 30.0)


async def test_a_python_caller_reaches_a_gleam_aggregate_by_a_name_in_the_registry(
    gleam_beams: GleamBeams,
) -> None:
    gleam = await gleam_beams.start("bank")
    async with Node(unique_name("teller"), cookie=gleam.cookie) as node:
        await gleam.eval('pyglyn_interop@bank_service:start(<<"example">>, <<"bank">>)')
        await node.connect(gleam.name)
        registry: glyn.Registry[Any] = glyn.Registry(node, "example", Term)

        async def found() -> bool:
            return await syn.lookup(node, "example", b"bank") is not None

        await eventually(found)
        accounts = await registry.subject("bank")
        assert await bank_at(node, accounts).execute("a", OpenAccount("a")) == []
        await bank_at(node, accounts).execute("a", DepositMoney(2.5))
        with pytest.raises(DomainError, match="the withdrawal is refused"):
            await bank_at(node, accounts).execute("a", WithDrawMoney(99.0))
        loaded = await bank_at(node, accounts).load_aggregate("a")
        assert loaded == es.Aggregate("a", BankAccount(True, 2.5), 2)
        with pytest.raises(EntityNotFound):
            await bank_at(node, accounts).load_aggregate("b")
