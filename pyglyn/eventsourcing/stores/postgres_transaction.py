"""A transaction of the PostgreSQL store: READ COMMITTED to PostgreSQL, begun by its first statement.

How it keeps others out, or is kept out, is written in :mod:`pyglyn.eventsourcing.stores.postgres`.
"""

from __future__ import annotations

import asyncio
import contextlib
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pyglyn.errors import (
    CommandRepeated,
    EventStoreError,
    StoreUnavailable,
    TransactionRolledBack,
    VersionConflict,
)
from pyglyn.eventsourcing.domain.envelope import EventEnvelope
from pyglyn.eventsourcing.domain.snapshot import Snapshot
from pyglyn.eventsourcing.stores.later import Later
from pyglyn.eventsourcing.stores.postgres_database import translate
from pyglyn.eventsourcing.stores.rows import RowCodec
from pyglyn.eventsourcing.stores.sql import EVENT_COLUMNS, Row, SqlTransaction, inside
from pyglyn.eventsourcing.stores.store import Cursor, Isolation, OutboxMessage

if TYPE_CHECKING:
    from pyglyn.eventsourcing.stores.postgres_database import Connection

E = TypeVar("E")
S = TypeVar("S")
T = TypeVar("T")

_UNIQUE_VIOLATION = "23505"

EVENT_LOCK = "hashtext('pyglyn_event'), hashtext(current_schema())"
"""An advisory lock: appends share it, and a serializable transaction has it for itself."""

NOW = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
"""PostgreSQL's clock, in milliseconds since 1970."""

_BEGIN = """
BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SELECT set_config('pyglyn.quiet', 'on', true)"""
_COMMIT = "SELECT current_setting('pyglyn.quiet', true) = 'inserted'; COMMIT"
"""Tells whether there are events to announce."""

_LOCK_TABLE = "LOCK TABLE event IN ROW EXCLUSIVE MODE; SELECT"
_ALONE = f"{_LOCK_TABLE} pg_advisory_xact_lock({EVENT_LOCK})"
_WITH_OTHERS = f"{_LOCK_TABLE} pg_advisory_xact_lock_shared({EVENT_LOCK})"

# Who wants to insert an event in the same place waits for the end of our transaction, and then may.
_KEEP_FREE = f"""
WITH silent AS (SELECT set_config('pyglyn.placeholder', 'on', true) AS on)
INSERT INTO event ({EVENT_COLUMNS}) SELECT %s, %s, %s, '', '', '', '' FROM silent
"""
_FREE = "DELETE FROM event WHERE aggregate_type = %s AND aggregate_id = %s AND sequence = %s"
_NOT_SILENT = "SELECT set_config('pyglyn.placeholder', '', true)"


def checked(isolation: Isolation) -> Isolation:
    """Return an isolation that there is.

    Raises:
        EventStoreError: it is none.
    """
    if isolation not in typing.get_args(Isolation):
        known = " or ".join(typing.get_args(Isolation))
        raise EventStoreError(f"unknown isolation: {isolation!r}; expected {known}")
    return isolation


async def roll_back(connection: Connection) -> None:
    """Undo what is open; a connection that cannot even do that is thrown away by the pool."""
    import psycopg
    from psycopg.pq import TransactionStatus

    if connection.info.transaction_status == TransactionStatus.IDLE:
        return
    try:
        await connection.execute(b"ROLLBACK")
    except psycopg.Error:
        await connection.close()


class PostgresTransaction(SqlTransaction[E, S]):
    """A transaction on a connection; its statements are run in turn.

    Args:
        codec: the store's.
        connection: in autocommit mode, and of nobody else meanwhile.
        alone: whether it is serializable.

    Attributes:
        has_inserted: whether there are events, as is known after the commit; True while it is not.
        ended: whether it is over, however.
    """

    _lock_rows = " FOR UPDATE SKIP LOCKED"
    _now = NOW

    def __init__(self, codec: RowCodec[E, S], connection: Connection, *, alone: bool) -> None:
        super().__init__(codec)
        self._connection = connection
        self._has_lock = self._alone = alone
        self._fault: EventStoreError | None = None  # the last error of a statement
        self._later: Later | None = None
        self._has_begun = False
        self.has_inserted = False
        self.ended = False

    async def begin(self) -> None:
        """Begin, and shut others out if it is to be alone; else its first statement begins it."""
        if self._alone:
            self._has_begun = True
            await self._send(f"{_BEGIN}; {_ALONE}")

    async def _begin(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            await self._send(_BEGIN)

    async def commit(self) -> None:
        """Commit. PostgreSQL answers the COMMIT of a transaction with an error by rolling back, silently."""
        self.check()
        if not self._has_begun:
            return
        self.has_inserted = True
        rows, _ = await self._send(_COMMIT, writing=True)
        self.has_inserted = rows[0][0]

    def check(self) -> None:
        from psycopg.pq import TransactionStatus

        self._check_open()
        if self._later is not None and self._later.failed is not None:
            raise self._later.failed
        if self._connection.info.transaction_status == TransactionStatus.INERROR and self._fault is not None:
            raise self._fault

    def put_off(self) -> None:
        self._later = Later()

    async def run_put_off(self) -> None:
        self.check()
        await self._run_later()
        self._later = None

    async def _run_later(self) -> None:
        """Run what was put off, in one pipeline."""
        later = self._later
        if not later:
            return
        await self._begin()
        try:
            async with self._connection.pipeline(), self._connection.cursor() as cursor:
                for statement, rows in later.taken():
                    if rows[0]:
                        await cursor.executemany(statement.encode(), rows)
                    else:
                        for _ in rows:
                            await self._connection.execute(statement.encode())
        except Exception as error:
            fault = translate(error)
            if isinstance(fault, StoreUnavailable | TransactionRolledBack):
                raise fault from error
            raise later.fail(fault) from error

    def _check_open(self) -> None:
        from psycopg.pq import TransactionStatus

        if self.ended:
            raise EventStoreError("the transaction has ended")
        if self._has_begun and self._connection.info.transaction_status == TransactionStatus.IDLE:
            raise EventStoreError("a statement has ended the transaction that it is part of")

    async def run(self, statement: str, parameters: Sequence[object] = ()) -> tuple[list[Row], int]:
        self._check_open()
        await self._run_later()
        await self._begin()
        return await self._send(statement, parameters)

    async def _send(
        self, statement: str, parameters: Sequence[object] = (), *, writing: bool = False
    ) -> tuple[list[Row], int]:
        try:
            cursor = await self._connection.execute(statement.encode(), parameters or None)
            rows: list[Any] = await cursor.fetchall() if cursor.description is not None else []
            return rows, cursor.rowcount
        except Exception as error:
            self._fault = translate(error, writing=writing)
            raise self._fault from error

    async def _run(self, statement: str, parameters: Sequence[object] = ()) -> tuple[list[Row], int]:
        if self._has_begun or self._later:
            return await self.run(statement, parameters)
        self._check_open()
        self._has_begun = True
        return await self._begin_with(statement, parameters)

    async def _begin_with(self, statement: str, parameters: Sequence[object]) -> tuple[list[Row], int]:
        """Begin with a statement of ours, in one text: each is a way to the server and back."""
        import psycopg

        cursor = psycopg.AsyncClientCursor(self._connection)
        try:
            await cursor.execute(f"{_BEGIN}; {statement}".encode(), parameters or None)
            while cursor.nextset():
                pass
            rows: list[Any] = await cursor.fetchall() if cursor.description is not None else []
            return rows, cursor.rowcount
        except Exception as error:
            self._fault = translate(error)
            raise self._fault from error

    async def execute(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[object, ...]]:
        if self._put_off(statement, parameters):
            await self._run_if_due()
            return []
        return (await self.run(inside(statement), parameters))[0]

    def _put_off(self, statement: str, parameters: Sequence[object]) -> bool:
        if self._later is None or not self._later.take(statement, parameters):
            return False
        if self._later.failed is not None:
            raise self._later.failed
        if self.ended:
            raise EventStoreError("the transaction has ended")
        return True

    async def _run_if_due(self) -> None:
        if self._later is not None and self._later.is_due:
            await self._run_later()

    async def call(self, work: Callable[[Cursor], T]) -> T:
        loop = asyncio.get_running_loop()

        def execute(statement: str, parameters: Sequence[object]) -> list[tuple[object, ...]]:
            if self._put_off(statement, parameters):
                if self._later is not None and self._later.is_due:
                    asyncio.run_coroutine_threadsafe(self._run_if_due(), loop).result()
                return []
            return asyncio.run_coroutine_threadsafe(self.execute(statement, parameters), loop).result()

        def execute_many(statement: str, rows: Iterable[Sequence[object]]) -> None:
            every = self.execute_many(statement, list(rows))
            asyncio.run_coroutine_threadsafe(every, loop).result()

        return await asyncio.to_thread(work, Cursor(execute, self.check, execute_many))

    async def execute_many(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        self._check_open()
        await self._run_later()
        await self._begin()
        try:
            async with self._connection.cursor() as cursor:
                await cursor.executemany(inside(statement).encode(), rows)
        except EventStoreError:
            raise
        except Exception as error:
            self._fault = translate(error)
            raise self._fault from error

    async def append(
        self,
        aggregate_id: str,
        events: Sequence[E],
        *,
        expected: int,
        metadata: Iterable[tuple[str, str]] = (),
        snapshot: Snapshot[S] | None = None,
        outbox: Iterable[OutboxMessage] = (),
        written: Sequence[Any] = (),
        command_id: str | None = None,
    ) -> list[EventEnvelope[E]]:
        await self._share_lock()
        with _conflicts(aggregate_id, expected, command_id):
            return await super().append(
                aggregate_id,
                events,
                expected=expected,
                metadata=metadata,
                snapshot=snapshot,
                outbox=outbox,
                command_id=command_id,
            )

    async def require(self, aggregate_id: str, sequence: int) -> None:
        await self._share_lock()
        await super().require(aggregate_id, sequence)
        place = (*self._codec.key(aggregate_id), sequence + 1)
        with _conflicts(aggregate_id, sequence):
            await self._run(_KEEP_FREE, place)
        await self._run(_FREE, place)
        await self._run(_NOT_SILENT)

    async def _share_lock(self) -> None:
        """Keep serializable transactions out, as a single append does."""
        if not self._has_lock:
            await self._run(_WITH_OTHERS)
            self._has_lock = True


@contextlib.contextmanager
def _conflicts(aggregate_id: str, expected: int, command_id: str | None = None) -> Iterator[None]:
    try:
        yield
    except EventStoreError as error:
        table = violated(error.__cause__)
        if table == "event":
            raise VersionConflict(aggregate_id, expected, None) from error
        if table == "pyglyn_command" and command_id is not None:
            raise CommandRepeated(command_id) from error
        raise


def violated(error: BaseException | None) -> str | None:
    """Return the table whose key is there already, if that is what an error says."""
    import psycopg

    if isinstance(error, psycopg.Error) and error.sqlstate == _UNIQUE_VIOLATION:
        return error.diag.table_name
    return None
