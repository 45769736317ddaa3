"""A key for each aggregate, kept apart from its events: who deletes the key has deleted what it encrypts.

Keys are 256 bits at random, in a table ``pyglyn_key`` of a SQLite file or a PostgreSQL database of their own,
or in memory. With a master key they are wrapped by it (AES Key Wrap with Padding, RFC 5649), so that the
table alone opens nothing. What is forgotten leaves a row without a key: nobody makes another one.

SQLite overwrites what it deletes (``secure_delete``) and keeps no WAL here. PostgreSQL keeps a deleted row
until the next VACUUM, which follows at once, and in its write-ahead log; backups of either keep what they
have.

Needs cryptography (the extra ``encryption``). Layer: eventsourcing, stores.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias, TypeVar

from pyglyn.errors import EventStoreError, Forgotten
from pyglyn.eventsourcing.stores.rows import storable_text
from pyglyn.eventsourcing.stores.sqlite_database import translate as translate_sqlite

T = TypeVar("T")

Found: TypeAlias = "dict[str, bytes | None]"
"""Keys by aggregate id; None where it was forgotten."""

KEY_SIZE = 32

_TABLE = """
CREATE TABLE IF NOT EXISTS pyglyn_key
(
  aggregate_type text NOT NULL,
  aggregate_id text NOT NULL,
  key {binary},
  changed_at bigint NOT NULL,
  PRIMARY KEY (aggregate_type, aggregate_id)
)
"""
_INSERT = """
INSERT INTO pyglyn_key (aggregate_type, aggregate_id, key, changed_at) VALUES (%s, %s, %s, %s)
ON CONFLICT (aggregate_type, aggregate_id) DO NOTHING
"""
_FORGET = """
INSERT INTO pyglyn_key (aggregate_type, aggregate_id, key, changed_at) VALUES (%s, %s, NULL, %s)
ON CONFLICT (aggregate_type, aggregate_id) DO UPDATE SET key = NULL, changed_at = excluded.changed_at
"""
_SELECT = "SELECT aggregate_id, key FROM pyglyn_key WHERE aggregate_type = %s AND aggregate_id IN ({marks})"
_AT_ONCE = 500


class Keys(abc.ABC):
    """Where keys are."""

    @abc.abstractmethod
    async def find(self, aggregate_type: str, ids: Iterable[str]) -> Found:
        """Return the keys of those aggregates that have or had one."""

    @abc.abstractmethod
    async def add(self, aggregate_type: str, aggregate_id: str, key: bytes) -> None:
        """Keep a key, unless the aggregate has or had one."""

    @abc.abstractmethod
    async def forget(self, aggregate_type: str, aggregate_id: str) -> None:
        """Delete a key for good, and let there be no other one."""

    async def make(self, aggregate_type: str, aggregate_id: str) -> bytes:
        """Return the key of an aggregate, a new one if it has none.

        Raises:
            Forgotten: it was forgotten.
            EventEncodeError: no database can store its id.
        """
        _names(aggregate_type, aggregate_id)
        found = await self.find(aggregate_type, [aggregate_id])
        if aggregate_id not in found:
            await self.add(aggregate_type, aggregate_id, secrets.token_bytes(KEY_SIZE))
            found = await self.find(aggregate_type, [aggregate_id])  # somebody may have been first
        key = found[aggregate_id]
        if key is None:
            raise Forgotten(aggregate_id)
        return key


class MemoryKeys(Keys):
    """Keys in memory, for tests: without them, what they encrypt is lost."""

    def __init__(self) -> None:
        self._keys: dict[tuple[str, str], bytes | None] = {}

    async def find(self, aggregate_type: str, ids: Iterable[str]) -> Found:
        return {id: self._keys[aggregate_type, id] for id in ids if (aggregate_type, id) in self._keys}

    async def add(self, aggregate_type: str, aggregate_id: str, key: bytes) -> None:
        self._keys.setdefault((aggregate_type, aggregate_id), key)

    async def forget(self, aggregate_type: str, aggregate_id: str) -> None:
        self._keys[aggregate_type, aggregate_id] = None


class _SqlKeys(Keys):
    """Keys in a table, wrapped by a master key if there is one. Each call has a connection of its own."""

    def __init__(self, master: bytes | None) -> None:
        if master is not None and len(master) not in (16, 24, 32):
            raise EventStoreError(f"a master key has 16, 24 or 32 bytes, got {len(master)}")
        self._master = master

    @abc.abstractmethod
    async def _run(self, work: Callable[[Callable[..., list[Any]]], T], *, forgetting: bool = False) -> T:
        """Call a function with one that runs a statement (written with ``%s``) and returns its rows."""

    async def find(self, aggregate_type: str, ids: Iterable[str]) -> Found:
        wanted = sorted({id for id in ids if isinstance(id, str)})

        def select(run: Callable[..., list[Any]]) -> Found:
            found: Found = {}
            for start in range(0, len(wanted), _AT_ONCE):
                part = wanted[start : start + _AT_ONCE]
                statement = _SELECT.format(marks=", ".join(["%s"] * len(part)))
                found |= {
                    id: None if key is None else self._unwrapped(bytes(key))
                    for id, key in run(statement, (aggregate_type, *part))
                }
            return found

        return await self._run(select)

    async def add(self, aggregate_type: str, aggregate_id: str, key: bytes) -> None:
        row = (*_names(aggregate_type, aggregate_id), self._wrapped(key), int(time.time() * 1000))
        await self._run(lambda run: run(_INSERT, row))

    async def forget(self, aggregate_type: str, aggregate_id: str) -> None:
        row = (*_names(aggregate_type, aggregate_id), int(time.time() * 1000))
        await self._run(lambda run: run(_FORGET, row), forgetting=True)

    def _wrapped(self, key: bytes) -> bytes:
        if self._master is None:
            return key
        from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding

        return aes_key_wrap_with_padding(self._master, key)

    def _unwrapped(self, key: bytes) -> bytes:
        if self._master is None:
            if len(key) != KEY_SIZE:
                raise EventStoreError("the keys are wrapped: a master key is needed")
            return key
        from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap_with_padding

        try:
            return aes_key_unwrap_with_padding(self._master, key)
        except InvalidUnwrap as error:
            raise EventStoreError("the keys were wrapped by another master key, or by none") from error


def _names(aggregate_type: str, aggregate_id: str) -> tuple[str, str]:
    return storable_text(aggregate_type, "aggregate type"), storable_text(aggregate_id, "aggregate id")


class SqliteKeys(_SqlKeys):
    """Keys in a SQLite file of their own."""

    def __init__(self, path: str, master: bytes | None = None) -> None:
        super().__init__(master)
        self.path = path

    async def _run(self, work: Callable[[Callable[..., list[Any]]], T], *, forgetting: bool = False) -> T:
        return await asyncio.to_thread(self._in_thread, work)

    def _in_thread(self, work: Callable[[Callable[..., list[Any]]], T]) -> T:
        try:
            with self._opened() as connection:

                def run(statement: str, parameters: Iterable[object]) -> list[Any]:
                    return connection.execute(statement.replace("%s", "?"), tuple(parameters)).fetchall()

                return work(run)
        except sqlite3.Error as error:
            raise translate_sqlite(error, self.path) from error

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self.path, timeout=10.0, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")
            connection.execute("PRAGMA secure_delete=ON")
            connection.execute(_TABLE.format(binary="blob"))
            yield connection


class PostgresKeys(_SqlKeys):
    """Keys in a PostgreSQL database."""

    def __init__(self, conninfo: str, master: bytes | None = None) -> None:
        super().__init__(master)
        self._conninfo = conninfo

    async def _run(self, work: Callable[[Callable[..., list[Any]]], T], *, forgetting: bool = False) -> T:
        return await asyncio.to_thread(self._in_thread, work, forgetting)

    def _in_thread(self, work: Callable[[Callable[..., list[Any]]], T], forgetting: bool) -> T:
        import psycopg

        from pyglyn.eventsourcing.stores.postgres_database import translate

        try:
            with psycopg.connect(self._conninfo, autocommit=True, prepare_threshold=None) as connection:

                def run(statement: str, parameters: Iterable[object]) -> list[Any]:
                    cursor = connection.execute(statement.encode(), tuple(parameters))
                    return cursor.fetchall() if cursor.description is not None else []

                if not run("SELECT to_regclass('pyglyn_key')", ())[0][0]:
                    with connection.transaction():
                        run("SELECT pg_advisory_xact_lock(hashtext('pyglyn_key'))", ())
                        run(_TABLE.format(binary="bytea"), ())
                found = work(run)
                if forgetting:
                    run("VACUUM pyglyn_key", ())
                return found
        except psycopg.Error as error:
            raise translate(error) from error


def open_keys(url: str, *, master: bytes | None = None) -> Keys:
    """Describe where keys are, by a URL as for `open_store`: ``memory:``, ``sqlite:path``, ``postgresql://…``.

    Args:
        url: where; for SQLite a file of its own, which is made when it is missing.
        master: wraps the keys; 16, 24 or 32 bytes.

    Raises:
        EventStoreError: an unknown kind of URL, a master key of another size, or cryptography is missing.
    """
    check_installed()
    scheme, _, rest = url.partition(":")
    if scheme == "memory":
        return MemoryKeys()
    if scheme == "sqlite" and rest:
        return SqliteKeys(rest, master)
    if scheme in ("postgresql", "postgres"):
        return PostgresKeys(url, master)
    raise EventStoreError("keys are in memory:, sqlite:path or postgresql://…")


def check_installed() -> None:
    """Check that there is something to encrypt with.

    Raises:
        EventStoreError: there is not.
    """
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        text = "encryption needs cryptography: pip install 'pyglyn[encryption]'"
        raise EventStoreError(text) from error
