"""Children that end after their present work because they have grown large, or old, and are started anew."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from pyglyn import Atom, GenServer, Process
from pyglyn.errors import ChildStartError, SpecificationError
from pyglyn.etf import Term
from pyglyn.node.calls import Caller, reply
from pyglyn.node.census import Census
from pyglyn.node.reasons import RECYCLED
from pyglyn.supervision import Recycle, Supervisor, factory, start, start_child, worker
from pyglyn.supervision.effects import ChildStarted
from pyglyn.testing import eventually
from tests.supervision.conftest import Client
from tests.supervision.policies import BACKOFF, job, pid, seen, started

A = Atom


class Till(GenServer):
    """Counts, grows, and tells who listens what it has done at its end."""

    async def init(self, *listener: Any) -> None:
        self.listener = listener
        self.count = 0
        self.grabbed = b""

    async def handle_call(self, request: Any, caller: Any) -> Term:
        match request:
            case Atom("count"):
                self.count += 1
                return self.count
            case Atom("grow"):
                self.grabbed = os.urandom(64 * 2**20)
                return os.getpid()
            case Atom("os_pid"):
                return os.getpid()
        raise AssertionError(request)

    async def handle_cast(self, request: Any) -> None:
        await self.me.call(request, A("go"), 60.0)

    async def terminate(self, reason: Term) -> None:
        for listener in self.listener:
            self.me.send(listener, (A("terminated"), self.count, reason))


async def loop(me: Process, listener: Any) -> None:
    while True:
        me.send(listener, (me.pid, await me.receive()))


def busy() -> None:
    """A function that takes no messages."""


def tree(child: Any, **flags: Any) -> Supervisor:
    return Supervisor("one_for_one", name="top", intensity=0, **flags).add(child)


async def next_pid(local: Client, name: str, before: Any) -> Any:
    return await eventually(lambda: (found := local.node.whereis(name)) != before and found, 20.0)


async def test_a_server_ends_after_so_many_messages_and_no_restart_counts(local: Client) -> None:
    """Three lives in a moment, below a supervisor that allows no restart."""
    await start(local.node, tree(worker(Till, local.me.pid, name="till", recycle=Recycle(messages=2))))
    before = None
    for _ in range(3):
        before = await next_pid(local, "till", before)
        ref = local.me.monitor(before)
        assert await local.me.call("till", A("count")) == 1
        assert await local.me.call("till", A("count")) == 2
        assert await local.me.receive(lambda m: m[0] is A("terminated"), 20.0) == (
            A("terminated"),
            2,
            RECYCLED,
        )
        assert await local.reason(ref) == RECYCLED
    await next_pid(local, "till", before)


async def test_what_waits_when_the_limit_is_reached_is_still_done(local: Client) -> None:
    await start(local.node, tree(worker(Till, local.me.pid, name="till", recycle=Recycle(messages=1))))
    before = local.node.whereis("till")
    assert before is not None
    local.me.cast("till", local.me.pid)
    _, caller, _ = await local.me.receive(timeout=60)
    calls = [asyncio.create_task(local.node.call("till", A("count"), 30.0)) for _ in range(3)]

    # All three wait behind the cast, whose handler holds the server up.
    async def waiting() -> bool:
        looks = await Census(local.node.hub, local.node.workers).look()
        return any(look.measures and look.measures.longest == 3 for look in looks)

    await eventually(waiting, 20.0)
    reply(local.me, Caller.from_term(caller), A("ok"))
    assert await asyncio.gather(*calls) == [1, 2, 3]
    assert await local.me.receive(timeout=60) == (A("terminated"), 3, RECYCLED)
    await next_pid(local, "till", before)


async def test_an_idle_server_that_has_grown_is_started_anew(local: Client) -> None:
    await start(local.node, tree(worker(Till, local.me.pid, name="till", recycle=Recycle(memory="48 MiB"))))
    before = local.node.whereis("till")
    old = await local.me.call("till", A("grow"), 20.0)
    assert await local.me.receive(timeout=60) == (A("terminated"), 0, RECYCLED)
    await next_pid(local, "till", before)
    assert await local.me.call("till", A("os_pid")) != old


async def test_an_async_function_ends_in_its_next_receive(local: Client) -> None:
    spec = worker(loop, local.me.pid, name="loop", restart="transient", recycle=Recycle(messages=3))
    await start(local.node, tree(spec))
    first = local.node.whereis("loop")
    for number in range(3):
        local.me.send("loop", number)
        assert await local.me.receive(timeout=60) == (first, number)
    second = await next_pid(local, "loop", first)
    local.me.send("loop", 4)
    assert await local.me.receive(timeout=60) == (second, 4)


async def test_a_child_of_a_factory_is_started_anew_too(local: Client) -> None:
    template = worker(Till, local.me.pid, restart="transient", recycle=Recycle(messages=1))
    await start(local.node, Supervisor().add(factory(template, name="tills", intensity=0)))
    first: Any = await start_child(local.me, "tills")
    await local.me.call(first, A("count"))
    assert await local.me.receive(timeout=60) == (A("terminated"), 1, RECYCLED)

    async def another() -> bool:
        rows: Any = await local.me.call("tills", A("which_children"))
        return [row[1] for row in rows if isinstance(row[1], type(first)) and row[1] != first] != []

    await eventually(another, 20.0)


async def test_what_takes_no_messages_cannot_be_recycled(local: Client) -> None:
    with pytest.raises(ChildStartError, match="recycle is for async functions and GenServers"):
        await start(local.node, tree(worker(busy, recycle=Recycle(messages=1))))


def test_a_recycled_child_starts_at_once_uncounted_and_by_the_strategy() -> None:
    limits = Recycle(messages=1)
    supervisor = Supervisor("rest_for_one", intensity=0).add(worker(job, id="a"))
    supervisor.add(worker(job, id="b", recycle=limits, backoff=BACKOFF)).add(worker(job, id="c"))
    policy = started(supervisor)
    assert seen(policy.child_exited(pid(2), RECYCLED, 0)) == [("stop", 3, "shutdown"), ("timer", 5.0)]
    effects = seen(policy.child_exited(pid(3), A("shutdown"), 0))
    assert effects[-1] == ("start", "b")
    assert seen(policy.child_started(ChildStarted(pid(4)), 0)) == [("start", "c")]


def test_the_reason_means_nothing_for_a_child_without_limits() -> None:
    policy = started(Supervisor(intensity=0).add(worker(job, restart="transient")))
    assert seen(policy.child_exited(pid(1), RECYCLED, 0)) == []
    assert [child.pid for child in policy.children.values()] == [None]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"recycle": 5}, "recycle is a Recycle"),
        ({"recycle": Recycle(messages=1), "restart": "temporary"}, "never started again"),
        ({"recycle": Recycle(messages=1), "isolation": "task"}, "recycle needs an OS process"),
    ],
)
def test_limits_that_make_no_sense_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecificationError, match=says):
        worker(job, **options)


@pytest.mark.parametrize("fields", [{}, {"messages": 0}, {"messages": True}, {"memory": "much"}])
def test_a_limit_is_a_number_above_nothing(fields: dict[str, Any]) -> None:
    with pytest.raises(SpecificationError):
        Recycle(**fields)
