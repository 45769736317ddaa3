"""Live queries: what they park and in which order it is driven, and that they answer meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import attrs
import pytest

from pyglyn import etf
from pyglyn import eventsourcing as es
from pyglyn.errors import CallTimeout, EventStoreError, StoreUnavailable
from pyglyn.etf import Atom, Term
from pyglyn.eventsourcing import glyn
from pyglyn.eventsourcing.domain import wire
from pyglyn.eventsourcing.queries import live
from pyglyn.eventsourcing.queries.bounds import Allowance
from pyglyn.eventsourcing.queries.parking import identity
from pyglyn.node import Node
from pyglyn.testing import eventually
from pyglyn.testing.bank import AccountOpened, BankAccountEvent
from tests.eventsourcing.opened import open_store
from tests.node.conftest import unique_name

pytestmark = pytest.mark.usefixtures("stores_closed")


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def parking(request, tmp_path) -> es.EventStore[Any, Any] | None:
    if request.param == "memory":
        return None
    if request.param == "sqlite":
        return open_store(f"sqlite:{tmp_path}/bank.db")
    return open_store(request.getfixturevalue("postgres"))


class Seen:
    """A query that fails at the accounts named in it, and notes what it saw."""

    def __init__(self, *bad: str) -> None:
        self.bad = set(bad)
        self.seen: list[str] = []

    def __call__(self, id: str, envelopes: list[Any]) -> None:
        for envelope in envelopes:
            if envelope.payload.account_id in self.bad:
                raise ValueError(f"not {envelope.payload.account_id}")
            self.seen.append(f"{id}{envelope.sequence} {envelope.payload.account_id}")


NEVER_AGAIN = es.FailurePolicy(retries=0)


async def start(node: Node, function: Any, **options: Any) -> None:
    given = {"policy": NEVER_AGAIN, "events": BankAccountEvent, **options}
    spec = es.QuerySpec(name="query", function=function, **given)
    await node.start(spec.server, spec, name=spec.name)


def envelope(id: str, sequence: int, account: str, type_: str | None = "bank") -> Any:
    if type_ is None:
        return es.MemoryStoreEventEnvelop(id, sequence, AccountOpened(account), [])
    return es.SerializedEventEnvelop(id, sequence, AccountOpened(account), [], "Event", "1.0", type_)


def message(*args: Any) -> Term:
    made = envelope(*args)
    return wire.process_events_term(es.ProcessEvents(made.aggregate_id, [made]))


async def parked(node: Node, count: int) -> list[Any]:
    found = await node.call("query", Atom("parked"))
    assert isinstance(found, list)
    assert len(found) == count
    return found


async def status(node: Node) -> es.QueryStatus:
    return es.QueryStatus.from_term(await node.call("query", Atom("status")))


async def drive(node: Node, what: int | None = None) -> int:
    answer = await node.call("query", (Atom("drive"), Atom("all") if what is None else what))
    if answer[0] is Atom("error"):
        raise wire.read_error(answer[1])
    return answer[1]


async def test_everything_that_cannot_be_processed_is_kept(node, parking):
    query = Seen("bad", "bad again")
    await start(node, query, parking=parking)
    garbage = [(Atom("garbage"), 1), (Atom("garbage"), 2), (Atom("process_events"), b"\xff", [])]
    unreadable = (Atom("process_events"), b"u", [(Atom("memory_store_event_envelop"), b"u", 7, 1, [])])
    for sent in (
        message("a", 1, "bad", "bank"),
        message("a", 1, "bad", "shop"),
        message("m", 1, "bad", None),
        (Atom("process_events"), b"a\0", [wire.envelope_term(envelope("a\0", 1, "bad"))]),
        (Atom("process_events"), b"h", [wire.envelope_term(envelope("h", 2**70, "bad"))]),
        (b"group", unreadable),
        *garbage,
        (b"group", garbage[0]),
        (Atom("process_events"), b"m", [wire.envelope_term(envelope("m", 1, "bad again", None))]),
        message("b", 1, "good"),
    ):
        node.send("query", sent)
    found = await eventually(lambda: parked(node, 10))
    await eventually(lambda: query.seen == ["b1 good"])
    raws = [etf.decode(each[Atom("raw")]) for each in found]
    assert raws[5:9] == [unreadable, *garbage]
    assert raws[9] == message("m", 1, "bad again", None)
    assert [each[Atom("sequence")] for each in found] == [1, 1, 1, 0, 0, 7, 0, 0, 0, 1]
    assert (await status(node)).parked == 10
    if parking is not None:
        kept = await parking.parked("query")
        assert [each.aggregate_type for each in kept[:3]] == ["bank", "shop", ""]
        assert [each.aggregate_id for each in kept[:3]] == ["a", "a", "m"]
        assert all(each.aggregate_id.startswith("sha256:") for each in (*kept[3:5], *kept[6:9]))
        await parking.close()
    query.bad.clear()
    assert await drive(node) == 6
    assert query.seen == [
        "b1 good",
        "a1 bad",
        "a1 bad",
        "m1 bad",
        "a\x001 bad",
        f"h{2**70} bad",
        "m1 bad again",
    ]
    assert [each[Atom("attempts")] for each in await parked(node, 4)] == [1, 1, 1, 1]


async def test_later_events_of_an_aggregate_are_parked_behind_it_and_driven_in_order(node, parking):
    query = Seen("1")
    await start(node, query, parking=parking)
    for number in (1, 2, 3):
        node.send("query", message("a", number, str(number)))
        node.send("query", message("b", number, "b"))
    await eventually(lambda: parked(node, 3))
    await eventually(lambda: query.seen == ["b1 b", "b2 b", "b3 b"])
    query.seen.clear()
    first, second, third = await parked(node, 3)
    assert [each[Atom("attempts")] for each in (first, second, third)] == [1, 0, 0]
    assert second[Atom("error")] == b"an earlier event of this aggregate is parked"

    with pytest.raises(EventStoreError, match=rf"event {first[Atom('id')]} has to be driven first"):
        await drive(node, third[Atom("id")])
    query.bad = {"2"}
    assert await drive(node) == 1, "the third one waits for the second"
    assert query.seen == ["a1 1"]
    node.send("query", message("a", 4, "4"))
    await eventually(lambda: parked(node, 3))
    query.bad = set()
    assert await drive(node) == 3
    assert query.seen == ["a1 1", "a2 2", "a3 3", "a4 4"]
    node.send("query", message("a", 5, "5"))
    await eventually(lambda: query.seen[-1] == "a5 5")
    assert await drive(node, 12345) == 0


async def test_after_a_restart_what_is_parked_is_there_and_later_events_wait_behind_it(node, tmp_path):
    parking = open_store(f"sqlite:{tmp_path}/bank.db")
    query = Seen("1")
    await start(node, query, parking=parking)
    node.send("query", message("a", 1, "1"))
    await eventually(lambda: parked(node, 1))
    pid = node.whereis("query")
    assert pid is not None
    node.system.exit(pid, "kill")
    await eventually(lambda: node.whereis("query") is None)
    query.bad.clear()
    await start(node, query, parking=parking)
    node.send("query", message("a", 2, "2"))
    await eventually(lambda: parked(node, 2))
    assert await drive(node) == 2
    assert query.seen == ["a1 1", "a2 2"]


async def test_what_somebody_else_has_driven_holds_nothing_up(node, tmp_path):
    parking = open_store(f"sqlite:{tmp_path}/bank.db")
    query = Seen("1")
    await start(node, query, parking=parking)
    node.send("query", message("a", 1, "1"))
    [event] = await eventually(lambda: parked(node, 1))
    assert await parking.unpark(event[Atom("id")])
    await parking.close()
    node.send("query", message("a", 2, "2"))
    await eventually(lambda: query.seen == ["a2 2"])


async def test_no_effect_follows_the_answer_to_pause(node):
    begun, go_on = threading.Event(), threading.Event()
    seen: list[str] = []

    def slow(id: str, envelopes: list[Any]) -> None:
        begun.set()
        assert go_on.wait(180)
        seen.append(id)

    await start(node, slow)
    for id in ("a", "b"):
        node.send("query", message(id, 1, "1"))
    await asyncio.to_thread(begun.wait, 180)
    try:
        pausing = asyncio.ensure_future(node.call("query", Atom("pause"), timeout=180))

        async def is_told() -> bool:
            return (await status(node)).state == "paused"

        await eventually(is_told)
        assert not pausing.done()
    finally:
        go_on.set()
    assert await pausing == Atom("ok")
    assert seen == ["a"]
    assert ((await status(node)).state, (await status(node)).lag) == ("paused", 1)


async def test_who_resumes_after_a_pause_that_was_not_answered_yet_has_it_go_on(node):
    begun, gate = asyncio.Event(), asyncio.Event()
    seen: list[str] = []

    async def waits(id: str, envelopes: list[Any]) -> None:
        begun.set()
        await gate.wait()
        seen.append(id)

    await start(node, waits)
    for id in ("a", "b"):
        node.send("query", message(id, 1, "1"))
    await begun.wait()
    with pytest.raises(CallTimeout):
        await node.call("query", Atom("pause"), timeout=0.01)
    assert (await status(node)).state == "paused"
    assert await node.call("query", Atom("resume")) == Atom("ok")
    gate.set()
    await eventually(lambda: seen == ["a", "b"])


async def test_a_query_that_tries_again_for_ever_answers_and_keeps_the_order(node):
    query = Seen("1")
    await start(node, query, policy=es.FailurePolicy(retries=None, first=0.01, longest=0.01))
    for number in (1, 2):
        node.send("query", message("a", number, str(number)))

    async def stuck() -> es.QueryStatus:
        found = await status(node)
        assert (found.state, found.lag, found.error) == ("stuck", 2, "ValueError: not 1")
        return found

    await eventually(stuck)
    assert await node.call("query", Atom("pause")) == Atom("ok")
    assert (await status(node)).state == "paused"
    query.bad.clear()
    assert await drive(node) == 0
    assert query.seen == []
    assert await node.call("query", Atom("resume")) == Atom("ok")

    async def over() -> bool:
        found = await status(node)
        return (found.state, found.lag, found.error) == ("live", 0, "")

    await eventually(over)
    assert query.seen == ["a1 1", "a2 2"]


async def test_a_query_answers_while_its_function_waits(node):
    gate = asyncio.Event()
    seen: list[int] = []

    async def waits(id: str, envelopes: list[Any]) -> None:
        await gate.wait()
        seen.append(envelopes[0].sequence)

    await start(node, waits)
    for number in (1, 2, 3):
        node.send("query", message("a", number, "x"))

    async def all_wait() -> bool:
        return (await status(node)).lag == 3

    await eventually(all_wait)
    gate.set()
    await eventually(lambda: seen == [1, 2, 3])


async def test_with_the_policy_stop_it_stands_still_until_it_is_resumed(node):
    query = Seen("1")
    await start(node, query, policy=attrs.evolve(NEVER_AGAIN, then="stop"))
    node.send("query", message("a", 1, "1"))
    node.send("query", message("b", 1, "b"))

    async def stuck() -> bool:
        return (await status(node)).state == "stopped"

    await eventually(stuck)
    query.bad.clear()
    await node.call("query", Atom("resume"))
    await eventually(lambda: query.seen == ["a1 1", "b1 b"])


async def test_an_event_that_came_too_early_is_delivered_also_when_a_tool_asks_meanwhile(node):
    query = Seen()
    await start(node, query)
    node.send("query", message("a", 1, "1"))
    node.send("query", message("a", 3, "3"))
    await eventually(lambda: query.seen == ["a1 1"])
    await status(node)
    await eventually(lambda: query.seen == ["a1 1", "a3 3"])


class Unreachable(es.MemoryStore[Any, Any]):
    """A database that cannot be reached until it is there."""

    has_sql = True
    there = False
    asked = 0

    def transaction(self, **options: Any) -> AbstractAsyncContextManager[es.Transaction[Any, Any]]:
        self.asked += 1
        if not self.there:
            raise StoreUnavailable("nobody answers")
        return super().transaction(**options)


async def test_while_the_parking_cannot_be_reached_nothing_is_lost(node):
    parking = Unreachable()
    parking.reopen = None  # the very object is used, not another one like it
    query = Seen("1")
    await start(node, query, parking=parking)
    node.send("query", message("a", 1, "1"))
    node.send("query", message("b", 1, "b"))

    async def stuck() -> bool:
        found = await status(node)
        return (found.state, found.lag, found.parked, found.error) == ("stuck", 2, 0, "nobody answers")

    await eventually(stuck)
    await eventually(lambda: parking.asked > 3)
    parking.there = True
    await eventually(lambda: query.seen == ["b1 b"])
    await parked(node, 1)


async def test_a_decoder_of_the_application_that_raises_parks_the_message(node):
    def read(term: Term) -> Any:
        raise LookupError("no such event")

    from pyglyn import gleam

    await start(node, Seen(), events=gleam.Decoder(read))
    node.send("query", message("a", 1, "1"))
    [event] = await eventually(lambda: parked(node, 1))
    assert event[Atom("error")] == b"LookupError: no such event"


async def test_a_function_that_ends_its_process_ends_it(node):
    def leaves(id: str, envelopes: list[Any]) -> None:
        raise SystemExit(3)

    await start(node, leaves)
    node.send("query", message("a", 1, "1"))
    await eventually(lambda: node.whereis("query") is None)


async def test_a_query_spec_keeps_what_it_says_and_gets_the_rest(tmp_path):
    store = open_store(f"sqlite:{tmp_path}/bank.db")
    other = open_store(f"sqlite:{tmp_path}/other.db")
    config = glyn.GlynConfig(pubsub_scope="scope", pubsub_group="group")
    said = es.QuerySpec(name="said", function=print, events=AccountOpened, group="mine", parking=other)
    found = glyn.query_specs(
        config, [("pair", print), es.QuerySpec(name="open", function=print), said], 1, store
    )
    assert [each.events for each in found] == [1, 1, AccountOpened]
    assert [each.group for each in found] == ["group", "group", "mine"]
    assert [each.scope for each in found] == ["scope"] * 3
    assert [each.parking for each in found] == [store, store, other]
    glyn_store = glyn.glyn_store(config, store)
    made = es.service(
        "bank", glyn_store, handle=print, apply=print, empty_state=None, queries=[("a", print), said]
    )
    assert [each.parking for each in made.queries] == [store, other]
    memory = es.service(
        "bank", es.MemoryStore(), handle=print, apply=print, empty_state=None, queries=[("a", print)]
    )
    assert memory.queries[0].parking is None


@pytest.mark.parametrize(
    "body",
    [
        Atom("rubbish"),
        (Atom("process_events"), b"a", []),
        (Atom("process_events"), b"\xff", [(Atom("x"), b"a", 1, 2, [])]),
        (Atom("process_events"), b"a", [(Atom("x"), b"a", -1, 2, [])]),
        (Atom("process_events"), b"a", [(Atom("x"), b"a", 2**63, 2, [])]),
        (Atom("process_events"), b"a", Atom("x")),
    ],
)
def test_a_message_that_does_not_say_whose_it_is_has_no_identity(body: Term) -> None:
    assert identity(body) is None


@pytest.mark.parametrize("known", [True, False], ids=["events of a known place", "anything"])
async def test_garbage_is_kept_within_bounds_and_told_in_a_line_a_burst(
    node, parking, caplog, known, monkeypatch
):
    monkeypatch.setattr(live, "Allowance", partial(Allowance, rate=0.01))  # however long it takes
    seen = Seen()
    await start(node, seen, parking=parking)
    for number in range(400):
        envelope_ = (Atom("memory_store_event_envelop"), b"a", number, (Atom("odd"), number), [])
        body: Term = (Atom("process_events"), b"a", [envelope_]) if known else (Atom("garbage"), number)
        node.send("query", (b"group", body))
    node.send("query", (b"group", message("b", 1, "b")))
    await eventually(lambda: seen.seen == ["b1 b"], timeout=20)
    found = await status(node)
    assert 100 <= found.parked < 110
    assert re.match(r"\d+ messages that do not decode were dropped; ", found.error) or found.error == ""
    lines = [record.getMessage() for record in caplog.records if "not decode" in record.getMessage()]
    assert len(lines) == 2, lines
    assert "parks messages that do not decode" in lines[0]
    assert "there are too many" in lines[1]


async def test_garbage_that_waits_for_a_paused_query_is_bounded_too(node, parking, caplog):
    """The events that wait with it are kept, however many."""
    seen = Seen()
    await start(node, seen, parking=parking)
    await node.call("query", Atom("pause"))
    for number in range(1500):
        node.send("query", (b"group", (Atom("garbage"), number)))
        if number % 10 == 0:
            node.send("query", (b"group", message(f"b{number}", 1, "b")))
    node.send("query", (b"group", (Atom("garbage"), bytes(20 << 20))))
    found = await status(node)
    assert found.lag == 1000 + 150
    assert found.error.startswith("501 messages that do not decode were dropped; ")
    lines = [record.getMessage() for record in caplog.records if "there are too many" in record.getMessage()]
    assert len(lines) == 1
    await node.call("query", Atom("resume"))
    await eventually(lambda: len(seen.seen) == 150, timeout=20)
    await node.call("query", Atom("pause"))
    for number in range(1500):
        node.send("query", (b"group", (Atom("garbage"), number)))
    assert (await status(node)).lag == 1000, "there was room again"


async def test_a_query_ends_although_its_function_takes_no_notice_of_a_cancellation(epmd) -> None:
    begun = asyncio.Event()

    async def deaf(id: str, envelopes: list[Any]) -> None:
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    async with Node(unique_name(), cookie="x") as node, node.process() as me:
        before = asyncio.all_tasks()
        await start(node, deaf)
        query = node.whereis("query")
        assert query is not None
        node.send("query", message("a", 1, "x"))
        await begun.wait()
        me.exit(query, Atom("shutdown"))
        await eventually(lambda: asyncio.all_tasks() <= before)
