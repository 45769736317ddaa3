"""A relay as a process: it delivers what is committed, answers tools, and gives way to another instance."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from pyglyn import eventsourcing as es
from pyglyn import supervision
from pyglyn.errors import EventStoreError, NonPositiveArgument
from pyglyn.etf import Atom
from pyglyn.eventsourcing.relay import Relay, WebhookPublisher
from pyglyn.node import Node
from pyglyn.supervision import Supervisor
from pyglyn.testing import eventually
from tests.eventsourcing.queries.totals import parked, status
from tests.node.conftest import unique_name

QUICK = es.FailurePolicy(retries=1, first=0.001, longest=0.002)


def to_topic(base: str) -> Any:
    return lambda topic: f"{base}/{topic}"


def relay(store: Any, hooks: Any, **options: Any) -> Relay:
    options = {"topics": ["orders", "mails"], "policy": QUICK, **options}
    return Relay("out", store=store, to=WebhookPublisher(to_topic(hooks.url)), **options)


async def commit(store: Any, sequence: int, *bodies: str, topic: str = "orders") -> None:
    messages = [es.OutboxMessage(topic, body) for body in bodies]
    await store.append("order", [{"n": sequence}], expected=sequence, outbox=messages)


async def test_what_is_committed_is_delivered_and_what_fails_is_parked_and_driven(node, store, hooks):
    await commit(store, 0, "1", "2")
    await relay(store, hooks).start(node)
    await eventually(lambda: hooks.bodies == [b"1", b"2"])
    await commit(store, 1, "3")
    await store.put_outbox([es.OutboxMessage("mails", "m")])
    await eventually(lambda: sorted(hooks.bodies) == [b"1", b"2", b"3", b"m"])
    assert {path for path, _, _ in hooks.got} == {"/orders", "/mails"}

    hooks.refused.add(b"4")
    await commit(store, 2, "4", "5")
    await eventually(lambda: hooks.bodies[-1] == b"5")
    [event] = await parked(node, 1, "out")
    assert (event[Atom("raw")], b"500" in event[Atom("error")]) == (b"4", True)

    async def has_settled() -> bool:
        now = await status(node, "out")
        assert (now.kind, now.state, now.lag, now.parked, now.processed) == ("relay", "live", 0, 1, 5)
        return True

    await eventually(has_settled)
    hooks.refused.clear()
    assert await node.call("out", (Atom("drive"), Atom("all"))) == (Atom("ok"), 1)
    await eventually(lambda: hooks.bodies[-1] == b"4")

    async def is_empty() -> bool:
        return await store.outbox_size() == 0

    await eventually(is_empty)


async def test_a_pause_lasts_and_a_failing_server_is_shown_until_it_works(node, store, hooks):
    await store.set_paused("out", True)
    await commit(store, 0, "1")
    hooks.refused.add(b"1")
    await relay(store, hooks, policy=es.FailurePolicy(retries=None, first=0.01, longest=0.02)).start(node)

    async def is_in(state: str) -> bool:
        assert (await status(node, "out")).state == state
        return True

    await eventually(lambda: is_in("paused"))
    await node.call("out", Atom("resume"))
    await eventually(lambda: is_in("stuck"))
    now = await status(node, "out")
    assert ("so it is" in now.error, now.lag, hooks.got) == (True, 1, [])
    hooks.refused.clear()
    await eventually(lambda: is_in("live"))
    assert (hooks.bodies, (await status(node, "out")).error) == ([b"1"], "")


async def test_with_the_policy_stop_it_stands_still_until_it_is_resumed(node, store, hooks):
    hooks.refused.add(b"1")
    await commit(store, 0, "1", "2")
    await relay(store, hooks, policy=es.FailurePolicy(retries=0, then="stop")).start(node)

    async def is_stopped() -> bool:
        assert (await status(node, "out")).state == "stopped"
        return True

    await eventually(is_stopped)
    hooks.refused.clear()
    await node.call("out", Atom("resume"))
    await eventually(lambda: hooks.bodies == [b"1", b"2"])


async def test_of_two_instances_one_delivers_and_the_other_goes_on_when_it_ends(node, store, hooks):
    first = await relay(store, hooks).start(node)
    await commit(store, 0, "1")
    await eventually(lambda: hooks.bodies == [b"1"])
    async with Node(unique_name(), cookie="eventsourcing") as second:
        await second.connect(node.name)
        await relay(store, hooks).start(second)

        async def stands_by() -> bool:
            assert (await status(second, "out")).state == "standby"
            return True

        await eventually(stands_by)
        node.system.exit(first, "kill")
        await commit(store, 1, "2")
        # At least once: the first one may have delivered it before it ended, and not noted that.
        await eventually(lambda: [*dict.fromkeys(hooks.bodies)] == [b"1", b"2"], timeout=20)


async def test_it_runs_in_an_os_process_of_its_own(node, tmp_path, hooks):
    store = es.open_store(f"sqlite:{tmp_path}/out.db", aggregate_type="t")
    to = WebhookPublisher(f"{hooks.url}/orders", secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    made = Relay("out", store=store, topics=["orders"], to=pickle.loads(pickle.dumps(to)))
    tree = await supervision.start(node, Supervisor("one_for_one").add(made.worker()))
    async with store:
        await commit(store, 0, "1")
        await eventually(lambda: hooks.bodies == [b"1"])
        pid = node.whereis("out")
        assert pid is not None
        assert pid.serial != 0
    assert tree is not None


def test_what_makes_no_sense_is_refused():
    store = es.open_store("memory:")
    to = WebhookPublisher("http://localhost")
    with pytest.raises(EventStoreError, match="topics"):
        Relay("out", store=store, topics=[], to=to)
    with pytest.raises(NonPositiveArgument):
        Relay("out", store=store, topics=["a"], to=to, batch=0)
    with pytest.raises(EventStoreError, match="one OS process"):
        Relay("out", store=store, topics=["a"], to=to).worker()
