"""Keys of aggregates: made once, wrapped by a master key, forgotten for good."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from pyglyn.errors import EventEncodeError, EventStoreError, Forgotten, StoreUnavailable
from pyglyn.eventsourcing.stores.keys import KEY_SIZE, Keys, open_keys

MASTER = secrets.token_bytes(32)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def opened(request: pytest.FixtureRequest, tmp_path: Any) -> Callable[..., Keys]:
    urls = {"memory": "memory:", "sqlite": f"sqlite:{tmp_path}/keys.db"}
    url = urls.get(request.param) or request.getfixturevalue("postgres")
    return lambda **options: open_keys(url, **options)


@pytest.mark.parametrize("master", [None, MASTER], ids=["plain", "wrapped"])
async def test_a_key_is_made_once_and_gone_once_it_is_forgotten(opened, master):
    keys = opened(master=master)
    assert await keys.find("t", ["a", "b"]) == {}
    made = await asyncio.gather(*(keys.make("t", "a") for _ in range(8)))
    assert len(set(made)) == 1
    assert len(made[0]) == KEY_SIZE
    other = await keys.make("u", "a")
    assert other != made[0]
    await keys.forget("t", "a")
    await keys.forget("t", "a")
    await keys.forget("t", "b")
    assert await keys.find("t", ["a", "b", "c"]) == {"a": None, "b": None}
    for id in ("a", "b"):
        with pytest.raises(Forgotten):
            await keys.make("t", id)
    assert await keys.find("u", ["a"]) == {"a": other}


async def test_many_are_found_at_once(opened):
    keys = opened()
    ids = [f"a{number}" for number in range(1100)]
    for id in ids[::100]:
        await keys.make("t", id)
    assert (await keys.find("t", ids)).keys() == set(ids[::100])


async def test_wrapped_keys_open_only_with_their_master_key(tmp_path):
    url = f"sqlite:{tmp_path}/keys.db"
    made = await open_keys(url, master=MASTER).make("t", "a")
    with contextlib.closing(sqlite3.connect(tmp_path / "keys.db")) as keys:
        [(stored,)] = keys.execute("SELECT key FROM pyglyn_key").fetchall()
    assert made not in stored
    with pytest.raises(EventStoreError, match="another master key"):
        await open_keys(url, master=secrets.token_bytes(32)).find("t", ["a"])
    with pytest.raises(EventStoreError, match="a master key is needed"):
        await open_keys(url).find("t", ["a"])
    with pytest.raises(EventStoreError, match="16, 24 or 32"):
        open_keys(url, master=b"short")


async def test_what_is_away_or_cannot_be_a_key_is_told(tmp_path):
    with pytest.raises(StoreUnavailable):
        await open_keys(f"sqlite:{tmp_path}/none/keys.db").find("t", ["a"])
    with pytest.raises(StoreUnavailable):
        await open_keys("postgresql://127.0.0.1:1/none").find("t", ["a"])
    with pytest.raises(EventEncodeError):
        await open_keys(f"sqlite:{tmp_path}/keys.db").make("t", "a\0b")
