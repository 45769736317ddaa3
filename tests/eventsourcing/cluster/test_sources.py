"""Reading a group's events from the services of other nodes: odd requests, odd events, services that hang."""

from __future__ import annotations

from typing import Any

import pytest

from pyglyn import eventsourcing as es
from pyglyn.etf import Atom, Term
from pyglyn.eventsourcing.cluster import sources
from pyglyn.eventsourcing.cluster.scope import ensure_scope
from pyglyn.node import Caller, GenServer, NoReply
from pyglyn.testing.bank import AccountOpened, BankAccount, BankAccountEvent, apply, handle
from pyglyn.testing.waiting import patiently

SCOPE, GROUP = "example", "bank"


class Reader(GenServer):
    """Reads as a durable query does."""

    async def init(self, **times: float) -> None:
        await ensure_scope(self.me, SCOPE)
        self.events = sources.RemoteEvents(self.me, SCOPE, GROUP, BankAccountEvent, **times)

    async def handle_call(self, request: Any, caller: Caller) -> Term:
        try:
            if request is Atom("last"):
                return await self.events.last_position()
            return [_shown(event) for event in await self.events.read(request[0], limit=request[1])]
        except es.StoreUnavailable as error:
            return str(error).encode()


def _shown(event: es.RecordedEvent[Any]) -> Term:
    raw = event.raw.encode() if isinstance(event.raw, str) else event.raw
    return (event.position, event.aggregate_id.encode(), event.envelope is not None, raw)


class Serving(GenServer):
    """Answers from a store, and counts."""

    async def init(self, store: es.EventStore[Any, Any], asked: list[Term], answers: bool = True) -> None:
        await ensure_scope(self.me, SCOPE)
        await sources.serve(self.me, SCOPE, GROUP)
        self.store, self.asked, self.answers = store, asked, answers

    async def handle_call(self, request: Term, caller: Caller) -> Any:
        self.asked.append(request)
        return await sources.answer_read(self.store, request, _write) if self.answers else NoReply


def _write(event: Any) -> Term:
    if event == AccountOpened("unwritable"):
        raise RecursionError("too deep")
    return (Atom("account_opened"), event.account_id.encode())


@pytest.fixture
async def store() -> es.EventStore[Any, Any]:
    store: es.EventStore[Any, Any] = es.MemoryStore("BankAccount")
    for id in ("a", "unwritable", "b"):
        await store.append(id, [AccountOpened(id)], expected=0)
    return store


async def test_an_event_that_cannot_be_sent_comes_as_undecodable_in_its_place(node, store):
    await node.start(Serving, store, [], name="serving")
    reader = await node.start(Reader, name="reader")
    found = await node.call(reader, [0, 10])
    assert [(position, id, decodes) for position, id, decodes, _ in found] == [
        (1, b"a", True),
        (2, b"unwritable", False),
        (3, b"b", True),
    ]
    assert b"unwritable" in found[1][3]
    assert await node.call(reader, [0, 0]) == []
    assert await node.call(reader, Atom("last")) == 3


async def test_one_service_that_hangs_costs_one_short_wait(node, store):
    hanging: list[Term] = []
    for number in range(3):
        await node.start(Serving, store, hanging, False, name=f"hanging{number}")
    await node.start(Serving, store, [], name="serving")
    reader = await node.start(Reader, name="reader", first_s=patiently(0.1))
    assert len(await node.call(reader, [0, 2], patiently(3.0))) == 2
    once = len(hanging)
    assert once <= 3
    for after in (1, 2):
        assert await node.call(reader, [after, 1], patiently(3.0))
    assert len(hanging) <= 3


async def test_without_a_service_the_events_are_unavailable(node):
    reader = await node.start(Reader, name="reader")
    assert b"no node serves them" in await node.call(reader, [0, 2])


@pytest.mark.parametrize("url", ["memory:", "sqlite:{}/bank.db"])
async def test_numbers_out_of_range_are_answered_with_an_error(node, tmp_path, url):
    store = es.open_store(
        url.format(tmp_path), events=BankAccountEvent, state=BankAccount, aggregate_type="BankAccount"
    )
    await store.append("a", [AccountOpened("a")], expected=0)
    made = es.service("bank", store, handle=handle, apply=apply, empty_state=BankAccount())
    await es.start(node, made)
    none = Atom("none")
    odd: list[Term] = [
        (Atom("read_events"), 0, -1, none),
        (Atom("read_events"), -1, 1, none),
        (Atom("read_events"), 2**80, 2, none),
        (Atom("read_events"), 0, 2, b"\xff"),
        (Atom("read_events"), Atom("a"), Atom("b"), none),
        (Atom("read_events"), 0, 2),
    ]
    for request in odd:
        assert (await node.call("bank", request))[0] is Atom("error"), request
    for limit, count in ((0, 0), (1, 1), (2**80, 1)):
        tag, events, last = await node.call("bank", (Atom("read_events"), 0, limit, none))
        assert (tag, len(events), last) == (Atom("ok"), count, 1)
    assert (await node.call("bank", (Atom("read_events"), 2**62, 5, none))) == (Atom("ok"), [], 1)
    await store.close()
