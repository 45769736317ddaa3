"""The last events of a store, as the page shows them while others write and read it."""

from __future__ import annotations

import asyncio

from pyglyn import eventsourcing as es
from pyglyn.http.events import Events
from pyglyn.testing.bank import AccountOpened, BankAccount, BankAccountEvent


async def ids(events: Events) -> list[str]:
    shown = [step.id for step in await events.look()]
    assert not events.error
    return shown


async def test_events_are_shown_before_and_after_somebody_has_read_them(url: str) -> None:
    option = "busy_timeout=5" if url.startswith("sqlite:") else "pool_size=2"
    url = f"{url}{'&' if '?' in url else '?'}{option}"
    store = es.open_store(url, events=BankAccountEvent, state=BankAccount, aggregate_type="BankAccount")
    async with store:
        await store.append("a", [AccountOpened("a")], expected=0)
        events = Events(url)
        assert await ids(events) == ["BankAccount/a/1"]
        await store.append("b", [AccountOpened("b")], expected=0)
        assert await ids(events) == ["BankAccount/a/1", "BankAccount/b/1"]
        assert len(await store.read()) == 2
        await store.append("c", [AccountOpened("c")], expected=0)
        for shown in await asyncio.gather(ids(events), ids(events)):
            assert shown == ["BankAccount/a/1", "BankAccount/b/1", "BankAccount/c/1"]
