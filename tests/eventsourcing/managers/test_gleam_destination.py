"""A manager sends commands to aggregates of Gleam's eventsourcing library, compiled, found in a Glyn Registry."""

from __future__ import annotations

from typing import Any

import attrs

from pyglyn import eventsourcing as es
from pyglyn import glyn
from pyglyn.etf import Term
from pyglyn.groups import syn
from pyglyn.node import Node
from pyglyn.testing import eventually
from pyglyn.testing.bank import BankAccount, BankAccountCommand, DepositMoney, OpenAccount, WithDrawMoney
from tests.eventsourcing.handles import bank_at
from tests.eventsourcing.managers.jobs import rests
from tests.node.conftest import unique_name
from tests.peers import GleamBeams


@attrs.frozen
class Ordered:
    amount: float


def follow(refused: str, message: object) -> list[es.Action]:
    match message:
        case Ordered(amount):
            commands = [OpenAccount("gleam"), DepositMoney(amount), DepositMoney(amount), WithDrawMoney(99.0)]
            return [es.Dispatch("bank", each, to="gleam") for each in commands]
        case es.Refused(es.Dispatch(_, WithDrawMoney(amount)), _):
            return [es.Dispatch("bank", DepositMoney(amount / 2), to="gleam")]
    return []


def note(refused: str, message: object) -> str:
    return message.error if isinstance(message, es.Refused) else refused


async def test_an_aggregate_in_gleam_carries_out_the_commands_of_a_manager_and_refuses_as_others_do(
    gleam_beams: GleamBeams,
) -> None:
    gleam = await gleam_beams.start("bank")
    async with Node(unique_name("manager"), cookie=gleam.cookie) as node:
        await gleam.eval('pyglyn_interop@bank_service:start(<<"example">>, <<"bank">>)')
        await node.connect(gleam.name)
        registry: glyn.Registry[Any] = glyn.Registry(node, "example", Term)

        async def found() -> bool:
            return await syn.lookup(node, "example", b"bank") is not None

        await eventually(found)
        accounts = await registry.subject("bank")
        async with es.open_store("memory:", events=Ordered, aggregate_type="order") as store:
            manager = es.manager(
                "steps",
                store=store,
                handle=follow,
                apply=note,
                empty_state="",
                services={"bank": es.Destination(name=accounts, commands=BankAccountCommand)},
                on_refusal="handle",
            )
            await store.append("order", [Ordered(2.5)], expected=0)
            await manager.start(node)
            await rests(store)
            loaded = await bank_at(node, accounts).load_aggregate("gleam")
            assert loaded == es.Aggregate("gleam", BankAccount(True, 54.5), 4)
            assert await store.manager_state("steps", "order") == '"the withdrawal is refused"'
