"""Subscriptions that are billed each period and end when a bill is not paid: a process manager with deadlines.

python examples/billing.py [STORE-URL]

STORE-URL says where the events go: memory: (unless given), sqlite:billing.db, or postgresql://localhost/billing.

When the next bill is due, and until when the last one is to be paid, is in the database. So a node that was down for
a week writes the bills of that week when it is back, and of several nodes one does it.
"""

from __future__ import annotations

import asyncio
import sys

import attrs

from pyglyn import Node
from pyglyn import eventsourcing as es

# --- the subscriptions ---------------------------------------------------------------------------------


@attrs.frozen
class Subscribe:
    price: int
    period_s: float
    grace_s: float


@attrs.frozen
class Bill:
    number: int


@attrs.frozen
class Pay:
    number: int


@attrs.frozen
class Cancel:
    pass


@attrs.frozen
class Suspend:
    number: int


Command = Subscribe | Bill | Pay | Cancel | Suspend


@attrs.frozen
class Subscribed:
    price: int
    period_s: float
    grace_s: float


@attrs.frozen
class Billed:
    number: int
    amount: int


@attrs.frozen
class Paid:
    number: int


@attrs.frozen
class Cancelled:
    pass


@attrs.frozen
class Suspended:
    number: int


Event = Subscribed | Billed | Paid | Cancelled | Suspended


@attrs.frozen
class Subscription:
    price: int = 0
    is_active: bool = False
    unpaid: frozenset[int] = frozenset()


def handle(subscription: Subscription, command: Command) -> list[Event]:
    """Decide: the events that a command causes, or a DomainError."""
    match command:
        case Subscribe(price, period_s, grace_s) if not subscription.price:
            return [Subscribed(price, period_s, grace_s)]
        case Pay(number) if number in subscription.unpaid:
            return [Paid(number)]
        case Bill(number) if subscription.is_active:
            return [Billed(number, subscription.price)]
        case Suspend(number):
            return [Suspended(number)] if subscription.is_active and number in subscription.unpaid else []
        case Cancel() if subscription.is_active:
            return [Cancelled()]
    raise es.DomainError(f"{type(command).__name__} is not possible now")


def apply(subscription: Subscription, event: Event) -> Subscription:
    """Remember: the subscription after an event."""
    match event:
        case Subscribed(price):
            return Subscription(price, is_active=True)
        case Billed(number):
            return attrs.evolve(subscription, unpaid=subscription.unpaid | {number})
        case Paid(number):
            return attrs.evolve(subscription, unpaid=subscription.unpaid - {number})
        case Cancelled() | Suspended():
            return attrs.evolve(subscription, is_active=False)


# --- the manager ---------------------------------------------------------------------------------------


@attrs.frozen
class Terms:
    """What is to be known of a subscription that is billed."""

    period_s: float = 0.0
    grace_s: float = 0.0


def follow(terms: Terms, message: Event | es.Expired) -> list[es.Action]:
    """Say what follows. An instance is a subscription, and has its id."""
    match message:
        case Subscribed():
            return [es.Dispatch("subscriptions", Bill(1))]
        case Billed(number):
            following = es.Dispatch("subscriptions", Bill(number + 1))
            return [
                es.Schedule("next bill", following, after=terms.period_s),
                es.Deadline(f"payment {number}", after=terms.grace_s),
            ]
        case Paid(number):
            return [es.Cancel(f"payment {number}")]
        case es.Expired(name):
            return [es.Dispatch("subscriptions", Suspend(int(name.removeprefix("payment "))))]
    return [es.End()]


def note(terms: Terms, message: Event | es.Expired) -> Terms:
    """Remember: the terms after an event."""
    return Terms(message.period_s, message.grace_s) if isinstance(message, Subscribed) else terms


# --- on a node -----------------------------------------------------------------------------------------


def billing(url: str) -> tuple[es.ServiceSpec[Subscription, Command, Event], es.Manager[Terms]]:
    """Describe the subscriptions, and the manager of their bills."""
    store = es.open_store(url, events=Event, state=Subscription, aggregate_type="subscription")
    service = es.service("subscriptions", store, handle=handle, apply=apply, empty_state=Subscription())
    manager = es.manager(
        "billing",
        store=store,
        handle=follow,
        apply=note,
        empty_state=Terms(),
        starts=(Subscribed,),
        services={"subscriptions": es.Destination(commands=Command)},
        on_refusal="skip",  # a bill that came too late for a subscription that has ended
    )
    return service, manager


async def main(url: str = "memory:") -> None:
    async with Node("billing@localhost", cookie="eventsourcing") as node:
        service, manager = billing(url)
        subscriptions = await es.start(node, service)
        await manager.start(node)
        id = f"ada {await manager.store.last_position()}"
        await subscriptions.execute(id, Subscribe(price=5, period_s=0.5, grace_s=14 * 86400.0))
        async for event in es.subscribe(manager.store, aggregate_id=id):
            happened = event.envelope.payload if event.envelope else None
            print(happened)
            match happened:
                case Billed(3):
                    await subscriptions.execute(id, Cancel())
                case Billed(number):
                    await subscriptions.execute(id, Pay(number))
                case Cancelled():
                    break


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["-h" | "--help"]:
            print(__doc__)
        case [] | [_]:
            try:
                asyncio.run(main(*sys.argv[1:]))
            except es.EventStoreError as error:
                sys.exit(str(error))
        case _:
            sys.exit(__doc__)
