"""Children with an operating-system process of their own that use groups; see ``test_workers``."""

from __future__ import annotations

from typing import Any

import attrs

from pyglyn import glyn
from pyglyn.errors import NoProcess, NotInGroup, PyglynError, RegistrationFailed
from pyglyn.etf import Atom, Pid
from pyglyn.groups import pg, syn
from pyglyn.node import Process


@attrs.frozen
class Priced:
    product: str
    price: int


async def member(me: Process, to: Pid) -> None:
    """Do with pg and syn what a program does, and tell ``to`` what came of it."""
    await pg.join(me, b"workers", [me.pid, me.pid], scope="scope")
    await pg.leave(me, b"workers", me.pid, scope="scope")
    await syn.join(me, "example", b"workers", me.pid, b"meta")
    await syn.register(me, "example", b"worker", me.pid, 1)
    await syn.update(me, "example", b"worker", lambda pid, meta: meta + 1)
    await syn.update_member(me, "example", b"workers", me.pid, lambda meta: [meta])
    me.send(
        to,
        [
            await pg.get_members(me, b"workers", scope="scope"),
            await pg.which_groups(me, scope="scope"),
            await syn.members(me, "example", b"workers"),
            await syn.lookup(me, "example", b"worker"),
            await syn.count(me, "example"),
            await _names_of_errors(me),
        ],
    )
    await me.receive(lambda message: False)


async def _names_of_errors(me: Process) -> list[str]:
    failures: list[Any] = [
        pg.leave(me, b"nothing", me.pid, scope="scope"),
        pg.join(me, b"workers", Pid("other@h", 1, 0, 1), scope="scope"),
        pg.get_members(me, b"workers", scope="not started"),
        syn.register(me, "example", b"taken", me.pid),
        syn.join(me, "example", b"workers", Pid("other@h", 1, 0, 1)),
    ]
    names = []
    for failure in failures:
        try:
            await failure
        except (NotInGroup, RegistrationFailed, PyglynError, ValueError) as error:
            names.append(type(error).__name__)
    return names


async def subscriber(me: Process, to: Pid) -> None:
    """Subscribe and register from here, publish once, and pass on what comes."""
    prices: glyn.PubSub[Priced] = glyn.PubSub(me, "example", Priced)
    registry: glyn.Registry[Priced] = glyn.Registry(me, "example", Priced)
    subscription = await prices.subscribe(me, "prices")
    registration = await registry.register(me, "prices", "here")
    me.send(to, (Atom("ready"), me.pid, subscription.pid))
    event = await subscription.receive(10)
    me.send(to, (Atom("event"), event.product, event.price))
    me.send(to, await prices.publish("prices", Priced("from the worker", 1)))
    message = await registration.receive(10)
    me.send(to, (Atom("message"), message.product))
    await subscription.unsubscribe()
    me.send(to, await prices.subscriber_count("prices"))
    await me.receive(lambda message: False)


async def without_scopes(me: Process, to: Pid) -> None:
    """Use scopes that nobody started; send what the errors say."""
    for operation in (
        pg.join(me, "workers", me.pid),
        pg.get_members(me, "workers", scope="own"),
        syn.join(me, "example", "workers", me.pid),
        syn.lookup(me, "example", "worker"),
    ):
        try:
            await operation
        except NoProcess as error:
            me.send(to, str(error).encode())
