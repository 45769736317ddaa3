"""What a service tells of its last events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pyglyn import eventsourcing as es
from pyglyn.etf import Atom
from pyglyn.eventsourcing.cluster import recent
from pyglyn.eventsourcing.domain.trace import Step
from pyglyn.node import Node
from pyglyn.testing.bank import AccountOpened, BankAccount, BankAccountEvent, OpenAccount, apply, handle
from tests.eventsourcing.handles import bank_at
from tests.node.conftest import unique_name


def store(folder: Path, aggregate_type: str = "BankAccount") -> es.EventStore[Any, Any]:
    url = f"sqlite:{folder}/bank.db"
    return es.open_store(url, events=BankAccountEvent, state=BankAccount, aggregate_type=aggregate_type)


async def ask(at: es.EventStore[Any, Any], after: int, limit: int) -> tuple[list[Step], int]:
    return recent.read_answer(await recent.answer(at, (recent.RECENT, after, limit)))


async def fill(at: es.EventStore[Any, Any], *ids: str) -> None:
    for id in ids:
        pairs = [("node", "n@h"), ("causation_id", f"cause of {id}")]
        await at.append(id, [AccountOpened(id)], expected=0, metadata=pairs)


async def test_the_last_ones_are_told_in_order_with_their_causes_and_then_what_is_new(tmp_path: Path) -> None:
    async with store(tmp_path) as at:
        assert await ask(at, 0, 3) == ([], 0)
        await fill(at, *"abcde")
        steps, last = await ask(at, 0, 3)
        assert [(each.id, each.cause) for each in steps] == [
            (f"BankAccount/{id}/1", f"cause of {id}") for id in "cde"
        ]
        assert {each.node for each in steps} == {"n@h"}
        assert all(each.at is not None for each in steps)
        assert await ask(at, last, 3) == ([], last)
        await fill(at, "f")
        steps, _ = await ask(at, last, 3)
        assert [each.id for each in steps] == ["BankAccount/f/1"]


async def test_events_of_another_type_between_them_hide_none(tmp_path: Path) -> None:
    async with store(tmp_path) as ours, store(tmp_path, "Other") as theirs:
        await fill(ours, *"ab")
        await fill(theirs, *"cdefgh")
        steps, last = await ask(ours, 0, 2)
        assert [each.id for each in steps] == ["BankAccount/a/1", "BankAccount/b/1"]
        assert last == 8


@pytest.mark.parametrize(("after", "limit"), [(-1, 1), (0, 0), (0, 5000), (b"0", 1), (0, b"1")])
async def test_odd_numbers_are_refused(tmp_path: Path, after: Any, limit: Any) -> None:
    async with store(tmp_path) as at:
        with pytest.raises(es.EventStoreError):
            await recent.answer(at, (recent.RECENT, after, limit))


def test_odd_answers_are_refused() -> None:
    for odd in (Atom("error"), (Atom("ok"), [], b"1"), (Atom("error"), b"no")):
        with pytest.raises(ValueError, match="something else"):
            recent.read_answer(odd)


async def test_a_service_is_found_by_its_name_and_answers(epmd: object, tmp_path: Path) -> None:
    async with Node(unique_name(), cookie="c") as node:
        empty = BankAccount()
        spec = es.service("bank", store(tmp_path), handle=handle, apply=apply, empty_state=empty, queries=[])
        await es.start(node, spec)
        await bank_at(node).execute("a", OpenAccount("a"))
        answer = await node.call(f"{recent.PREFIX}bank", (recent.RECENT, 0, 10))
        ([step], last) = recent.read_answer(answer)
        assert (step.id, step.node, last) == ("BankAccount/a/1", node.name, 1)
        assert await node.call("bank", (recent.RECENT, -1, 10)) != answer
