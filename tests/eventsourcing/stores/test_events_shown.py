"""The last events of a store, as the page shows them while others write and read it."""

from __future__ import annotations

import asyncio
from typing import Any

from pyglyn import eventsourcing as es
from pyglyn.http.events import Events
from pyglyn.testing.bank import AccountOpened, BankAccount, BankAccountEvent


def ids(shown: dict[str, Any]) -> list[str]:
    assert not shown["error"]
    return [tree["id"] for tree in shown["trees"]]


async def test_events_are_shown_before_and_after_somebody_has_read_them(url: str) -> None:
    option = "busy_timeout=5" if url.startswith("sqlite:") else "pool_size=2"
    url = f"{url}{'&' if '?' in url else '?'}{option}"
    store = es.open_store(url, events=BankAccountEvent, state=BankAccount, aggregate_type="BankAccount")
    async with store:
        await store.append("a", [AccountOpened("a")], expected=0)
        events = Events(url)
        assert ids(await events.look()) == ["BankAccount/a/1"]
        await store.append("b", [AccountOpened("b")], expected=0)
        assert ids(await events.look()) == ["BankAccount/b/1", "BankAccount/a/1"]
        assert len(await store.read()) == 2
        await store.append("c", [AccountOpened("c")], expected=0)
        for shown in await asyncio.gather(events.look(), events.look()):
            assert ids(shown) == ["BankAccount/c/1", "BankAccount/b/1", "BankAccount/a/1"]
