"""``examples/transfers.py``: money arrives, or comes back, and none is lost or made."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from pathlib import Path

import pytest

from examples import transfers
from examples.transfers import Closed, Received, Sent, TakenBack
from pyglyn import eventsourcing as es
from pyglyn.eventsourcing.stores.managing import Outlook
from pyglyn.node import Node
from pyglyn.testing import eventually
from tests.eventsourcing.conftest import node, postgres, wheel_server  # noqa: F401

PROGRAM = Path(__file__).parents[2] / "examples" / "transfers.py"

PRINTED = """\
t1: Received(transfer='t1', amount=30)
t2: TakenBack(transfer='t2', amount=30, reason='Receive is not possible now')
ada has 70
bo has 50
"""


async def test_the_program_prints_what_its_reader_expects(epmd: object) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(PROGRAM), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 120)
    assert (process.returncode, out.decode(), err) == (0, PRINTED, b"")


def test_a_transfer_is_followed_from_one_account_to_the_other() -> None:
    sent = Sent("t", "ada", "bo", 5)
    receive = es.Dispatch("accounts", transfers.Receive("t", 5), to="bo")
    known = transfers.note(transfers.Transfer(), sent)
    assert transfers.follow(transfers.Transfer(), sent) == [receive]
    assert transfers.follow(known, Received("t", 5)) == [es.End()]
    back = es.Dispatch("accounts", transfers.TakeBack("t", 5, "no"), to="ada")
    assert transfers.follow(known, es.Refused(receive, "no")) == [back]
    assert transfers.note(known, es.Refused(receive, "no")) == known


@pytest.mark.parametrize("store", ["memory", "sqlite", "postgres"])
async def test_no_money_is_lost_whoever_sends_to_whom(
    node: Node,  # noqa: F811
    store: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    url = {"memory": "memory:", "sqlite": f"sqlite:{tmp_path}/bank.db"}.get(store)
    service, manager = transfers.bank(url or request.getfixturevalue("postgres"))
    log = service.store
    accounts = await es.start(node, service)
    await manager.start(node)
    chance, names = random.Random(7), ["ada", "bo", "cy", "di"]
    for name in names:
        await accounts.execute(name, transfers.Open(50))

    async def customer(name: str) -> None:
        for number in range(10):
            target = chance.choice([*names, "nobody"])
            with contextlib.suppress(es.DomainError):
                command = transfers.Send(f"{name} {number}", name, target, chance.randint(1, 30))
                await accounts.execute(name, command)

    await asyncio.gather(*map(customer, names))

    async def at_rest() -> bool:
        assert await log.outlook("transfers") == Outlook()
        assert await log.checkpoint("transfers") == await log.last_position()
        return True

    await eventually(at_rest, timeout=30)
    entities = [(await accounts.load_aggregate(name)).entity for name in names]
    assert sum(each.balance for each in entities) == 200
    happened = [each.envelope.payload for each in await log.read(limit=1000) if each.envelope is not None]
    sent = {each.transfer for each in happened if isinstance(each, Sent)}
    ended = [each.transfer for each in happened if isinstance(each, Received | TakenBack)]
    assert sorted(ended) == sorted(sent)
    assert len(sent) > 8
    assert Closed() not in happened
    assert [await log.manager_state("transfers", each) for each in sent] == [None] * len(sent)
    await log.close()
