"""``examples/billing.py``: bills come each period, whoever is restarted, and who does not pay is suspended."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from examples import billing
from examples.billing import Bill, Billed, Paid, Subscribe, Subscribed, Suspend, Suspended, Terms
from pyglyn import eventsourcing as es
from pyglyn.node import Node
from pyglyn.testing import eventually
from tests.eventsourcing.conftest import node, postgres, wheel_server  # noqa: F401
from tests.node.conftest import unique_name

PROGRAM = Path(__file__).parents[2] / "examples" / "billing.py"
LONG_S = 1e6

PRINTED = """\
Subscribed(price=5, period_s=0.5, grace_s=1209600.0)
Billed(number=1, amount=5)
Paid(number=1)
Billed(number=2, amount=5)
Paid(number=2)
Billed(number=3, amount=5)
Cancelled()
"""


async def test_the_program_prints_what_its_reader_expects(epmd: object) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(PROGRAM), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 120)
    assert (process.returncode, out.decode(), err) == (0, PRINTED, b"")


def test_a_bill_leads_to_the_next_one_and_to_a_deadline() -> None:
    terms = billing.note(Terms(), Subscribed(5, 30.0, 14.0))
    assert terms == Terms(30.0, 14.0)
    assert billing.follow(terms, Billed(2, 5)) == [
        es.Schedule("next bill", es.Dispatch("subscriptions", Bill(3)), after=30.0),
        es.Deadline("payment 2", after=14.0),
    ]
    assert billing.follow(terms, Paid(2)) == [es.Cancel("payment 2")]
    assert billing.follow(terms, es.Expired("payment 2")) == [es.Dispatch("subscriptions", Suspend(2))]
    assert billing.follow(terms, Suspended(2)) == [es.End()]


async def events(store: es.EventStore[Any, Any]) -> list[Any]:
    return [envelope.payload for envelope in await store.load_events("ada")]


@pytest.mark.parametrize("store", ["memory", "sqlite", "postgres"])
async def test_who_does_not_pay_in_time_is_suspended_and_billed_no_more(
    node: Node,  # noqa: F811
    store: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    url = {"memory": "memory:", "sqlite": f"sqlite:{tmp_path}/billing.db"}.get(store)
    service, manager = billing.billing(url or request.getfixturevalue("postgres"))
    log = service.store
    subscriptions = await es.start(node, service)
    await manager.start(node)
    await subscriptions.execute("ada", Subscribe(5, LONG_S, 0.0))

    async def suspended() -> bool:
        assert await events(log) == [Subscribed(5, LONG_S, 0.0), Billed(1, 5), Suspended(1)]
        assert await log.timers("billing") == []
        return True

    await eventually(suspended, timeout=30)
    await log.close()


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
async def test_bills_come_when_they_are_due_though_their_node_has_ended(
    epmd: object, store: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("postgres") if store == "postgres" else f"sqlite:{tmp_path}/billing.db"

    async def billed(log: es.EventStore[Any, Any], number: int) -> bool:
        return Billed(number, 5) in await events(log)

    async with Node(unique_name(), cookie="eventsourcing") as first:
        service, manager = billing.billing(url)
        subscriptions = await es.start(first, service)
        await manager.start(first)
        await subscriptions.execute("ada", Subscribe(5, 0.2, LONG_S))
        await eventually(lambda: billed(service.store, 2), timeout=30)
    await service.store.close()
    async with Node(unique_name(), cookie="eventsourcing") as second:
        service, manager = billing.billing(url)
        await es.start(second, service)
        await manager.start(second)
        last = len(await events(service.store)) - 1
        await eventually(lambda: billed(service.store, last + 2), timeout=30)
        numbers = [each.number for each in await events(service.store) if isinstance(each, Billed)]
        assert numbers == list(range(1, len(numbers) + 1))
    await service.store.close()
