"""A SQLite file for one event loop: a thread that writes, a thread that reads, group commit, error
translation.

- WAL mode, so readers and the writer do not wait for each other. Writers of other connections and OS
  processes do: each transaction starts with BEGIN IMMEDIATE and waits up to ``busy_timeout`` for its turn.
  (A transaction that reads first and writes later, as the Gleam store's, is refused at once when another
  commits in between.)
- Appends that are queued while a commit is under way are committed together, each in a savepoint of its
  own: one fsync for many commands.
- ``synchronous=FULL``: what was acknowledged survives a power cut. ``NORMAL`` is several times faster for
  single commands and may lose the last ones, never the order.
- A file that is deleted or replaced while it is open goes on existing for whoever has it open. So it is
  looked at before each use and each commit: another one is ``StoreUnavailable``, and the next use opens it,
  unless the old one's WAL still lies beside it (see `sqlite_wal`).
- A connection must not be used on the other side of a fork, not even closed: after a fork the child gives up
  what it inherited and opens its own.

Not supported: ``:memory:`` (it cannot be shared by two connections; there is the memory store), network file
systems without working locks.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import sqlite3
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

from pyglyn.errors import EventStoreError, StoreUnavailable
from pyglyn.eventsourcing.stores import layout, sqlite_wal
from pyglyn.eventsourcing.stores.sqlite_wal import FileIdentity, identity
from pyglyn.eventsourcing.stores.sqlite_watch import FileWatch, tell
from pyglyn.eventsourcing.stores.threads import WorkerThread

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]
Row = tuple[Any, ...]

LARGEST_GROUP = 256
"""Appends committed together at most: bounds what one failure takes with it."""

_TRY_AGAIN = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_INTERRUPT,
}


def translate(error: sqlite3.Error, path: str, *, outcome_unknown: bool = False) -> EventStoreError:
    """Turn an error of the driver into one of ours."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    text = f"{path}: {error}"
    if code in _TRY_AGAIN:
        return StoreUnavailable(text, outcome_unknown=outcome_unknown and code == sqlite3.SQLITE_IOERR)
    return EventStoreError(text)


def fetch(
    connection: sqlite3.Connection, statement: str, parameters: Sequence[object]
) -> tuple[list[Row], int]:
    """Run a statement of ours; return its rows and how many it changed. Text not in UTF-8 comes as bytes."""
    try:
        return execute(connection, statement, parameters)
    except sqlite3.OperationalError as error:
        if not is_no_text(error):
            raise
    # Once more, for every single text; not always, because that takes longer.
    connection.text_factory = _text_or_bytes
    try:
        return execute(connection, statement, parameters)
    finally:
        connection.text_factory = str


def is_no_text(error: sqlite3.OperationalError) -> bool:
    """Tell whether a text was read that is not in UTF-8."""
    return "decode to UTF-8" in str(error)


def execute(
    connection: sqlite3.Connection, statement: str, parameters: Sequence[object]
) -> tuple[list[Row], int]:
    """Run any statement; return its rows and how many it changed."""
    cursor = connection.execute(statement, tuple(parameters))
    return cursor.fetchall(), cursor.rowcount


def execute_many(
    connection: sqlite3.Connection, statement: str, parameters: Sequence[object]
) -> tuple[list[Row], int]:
    """Run any statement once for each row of parameters; return no rows, and how many it changed."""
    rows: Any = parameters
    return [], connection.executemany(statement, rows).rowcount


def _text_or_bytes(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


class SqliteDatabase:
    """The connections of one store in one OS process and event loop."""

    def __init__(self, path: str, *, synchronous: str, busy_timeout: float) -> None:
        self.path = path
        self.loop = asyncio.get_running_loop()
        self.grown = asyncio.Event()  # replaced after each commit of ours, and when somebody wrote
        self.watch = FileWatch(self.loop, path, self.wake)
        self.calls = 0  # how often one of the threads was asked for something
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout
        self._connections: dict[WorkerThread, sqlite3.Connection] = {}
        self._files: dict[WorkerThread, FileIdentity] = {}  # which file each connection has open
        self._file: FileIdentity = None  # which file was found last
        self._writer = WorkerThread(self.loop, "pyglyn-sqlite-writer")
        self._reader = WorkerThread(self.loop, "pyglyn-sqlite-reader")
        self._write_lock = asyncio.Lock()  # held by a group commit or by an open transaction
        self._queue: deque[tuple[Operation[Any], asyncio.Future[Any]]] = deque()
        self._committer: asyncio.Task[None] | None = None
        self._prepared = False
        self._is_closed = False
        self._is_noted = False  # which WAL belongs to the file
        _databases.add(self)

    async def start(self) -> None:
        """Open the file and create what is missing.

        Raises:
            StoreUnavailable: it cannot be opened, or is locked for longer than the busy timeout.
            EventStoreError: it is no SQLite database, or a newer version of this package made its tables.
        """
        if self._prepared:
            return
        async with self._write_lock:
            if not self._prepared:
                try:
                    await self._in_thread(self._writer, _create_tables)
                except BaseException:  # nobody closes what did not begin
                    if not self._is_closed:
                        await asyncio.shield(self._writer.call(partial(self._close_connection, self._writer)))
                    raise
                self._is_noted = sqlite_wal.note(self.path)
                self._prepared = True

    async def close(self) -> None:
        """Close both connections, after what is queued is committed.

        Each in its thread: an operation whose caller was cancelled may be opening one.
        """
        if self._committer is not None:
            await self._committer
        self._is_closed = True  # before anything else is awaited: a thread that has ended answers nobody
        for thread in (self._reader, self._writer):
            if thread.is_used:
                await thread.call(partial(self._close_connection, thread))
            thread.stop()
        self.watch.close()
        sqlite_wal.forget(self.path)

    def _close_connection(self, thread: WorkerThread) -> None:
        connection = self._connections.pop(thread, None)
        if connection is not None:
            connection.close()

    async def read(self, operation: Operation[T], then: Operation[None] | None = None) -> T:
        """Run a function that only reads, in the reader's thread; each of its statements by itself.

        Args:
            operation: the function.
            then: what its thread goes on with, with the same connection, without anybody waiting for it.
                What it raises is lost.
        """
        await self.start()
        return await self._in_thread(self._reader, operation, then)

    async def data_version(self) -> int:
        """Return a number that changes whenever another connection has committed; costs microseconds."""
        await self.start()
        return await self._in_thread(
            self._reader, lambda connection: int(connection.execute("PRAGMA data_version").fetchone()[0])
        )

    async def commit(self, operation: Operation[T]) -> T:
        """Run a function in a write transaction, together with others that wait for their turn.

        What it raises undoes its own part only. Returns once the transaction is on disk.
        """
        await self.start()
        future: asyncio.Future[T] = self.loop.create_future()
        self._queue.append((operation, future))
        if self._committer is None:
            self._committer = self.loop.create_task(self._commit_queue())
        return await future

    async def _commit_queue(self) -> None:
        try:
            while self._queue:
                async with self._write_lock:
                    await self._commit_group(self._next_group())
        finally:
            self._committer = None
            while self._queue:  # only when this task was cancelled
                self._queue.popleft()[1].cancel()

    def _next_group(self) -> list[tuple[Operation[Any], asyncio.Future[Any]]]:
        group: list[tuple[Operation[Any], asyncio.Future[Any]]] = []
        while self._queue and len(group) < LARGEST_GROUP:
            entry = self._queue.popleft()
            if not entry[1].cancelled():
                group.append(entry)
        return group

    async def _commit_group(self, group: list[tuple[Operation[Any], asyncio.Future[Any]]]) -> None:
        if not group:
            return
        operations = [operation for operation, _ in group]
        outcomes: Sequence[object]
        try:
            outcomes = await self._in_thread(
                self._writer, lambda connection: self._group(connection, operations)
            )
        except Exception as error:
            outcomes = [_Failure(error)] * len(group)
        except BaseException:
            for _, future in group:
                future.cancel()
            raise
        self.wake()
        for (_, future), outcome in zip(group, outcomes, strict=True):
            if future.done():
                continue
            if isinstance(outcome, _Failure):
                future.set_exception(outcome.error)
            else:
                future.set_result(outcome)

    def _group(self, connection: sqlite3.Connection, operations: list[Operation[Any]]) -> list[object]:
        """In the writer's thread: one transaction, one savepoint per operation if there are several."""
        outcomes: list[object] = []
        connection.execute("BEGIN IMMEDIATE")
        if len(operations) == 1:
            return [self._alone(connection, operations[0])]
        try:
            for operation in operations:
                connection.execute("SAVEPOINT command")
                try:
                    outcomes.append(operation(connection))
                except Exception as error:
                    if not connection.in_transaction:  # SQLite has undone everything: nobody was served
                        raise
                    connection.execute("ROLLBACK TO command")
                    outcomes.append(_Failure(_ours(error, self.path)))
                connection.execute("RELEASE command")
            self._finish(connection)
        except BaseException:
            roll_back(connection)
            raise
        return outcomes

    def _alone(self, connection: sqlite3.Connection, operation: Operation[Any]) -> object:
        try:
            try:
                outcome = operation(connection)
            except Exception as error:
                if not connection.in_transaction:
                    raise
                roll_back(connection)
                return _Failure(_ours(error, self.path))
            self._finish(connection)
        except BaseException:
            roll_back(connection)
            raise
        return outcome

    def _finish(self, connection: sqlite3.Connection) -> None:
        if self._is_outdated(self._writer):
            self._prepared, self._file = False, identity(self.path)
            raise self._replaced()
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise translate(error, self.path, outcome_unknown=True) from error
        tell(self.path)
        if not self._is_noted:
            self._is_noted = sqlite_wal.note(self.path)

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Callable[[Operation[Any]], Any]]:
        """Hold the file's write lock; yields an async function that runs functions in the transaction."""
        await self.start()
        async with self._write_lock:

            async def run(operation: Operation[Any]) -> Any:
                return await self._in_thread(self._writer, operation)

            try:
                # Whoever is cancelled while it waits for the file's lock: the thread waits on, and gets it.
                await run(lambda connection: connection.execute("BEGIN IMMEDIATE"))
                yield run
                await run(self._finish)
            except BaseException:
                if not self._is_closed:  # else it was undone with that
                    await asyncio.shield(run(roll_back))
                raise
            finally:
                self.wake()  # it may be committed also where the caller was cancelled

    def wake(self) -> None:
        """Tell those who wait for events that we have committed, or somebody has written."""
        self.grown.set()
        self.grown = asyncio.Event()

    async def _in_thread(
        self, thread: WorkerThread, operation: Operation[T], then: Operation[None] | None = None
    ) -> T:
        def call() -> T:
            with ours(self.path):
                return operation(self._connection(thread))

        if self._is_closed:
            raise StoreUnavailable(f"{self.path}: the store was closed")
        self.calls += 1
        return await thread.call(call, partial(self._go_on, thread, then) if then is not None else None)

    def _go_on(self, thread: WorkerThread, operation: Operation[None]) -> None:
        connection = self._connections.get(thread)
        if connection is not None:  # which is not closed yet
            with contextlib.suppress(Exception):
                operation(connection)

    def _connection(self, thread: WorkerThread) -> sqlite3.Connection:
        connection = self._connections.get(thread)
        if connection is not None and not connection.in_transaction and self._is_outdated(thread):
            del self._connections[thread]
            connection.close()
            connection = None
            self._prepared = False
            self._say_if_new()
        if connection is None:
            sqlite_wal.refuse_stale(self.path)
            self._is_noted = False
            connection = sqlite3.connect(
                self.path, timeout=self._busy_timeout, isolation_level=None, check_same_thread=False
            )
            try:
                _use_wal(connection, self._busy_timeout)
                connection.execute(f"PRAGMA synchronous={self._synchronous}")
                if thread is self._reader:
                    connection.execute("PRAGMA query_only=ON")
            except BaseException:
                connection.close()
                raise
            self._connections[thread] = connection
            self._file = self._files[thread] = identity(self.path)
        return connection

    def _is_outdated(self, thread: WorkerThread) -> bool:
        """Whether a connection has another file open than the one that is there now."""
        return self._files[thread] != identity(self.path)

    def _say_if_new(self) -> None:
        """Say, once, that the file is another one now.

        Raises:
            StoreUnavailable: it is.
        """
        found = identity(self.path)
        if found != self._file:
            self._file = found
            raise self._replaced()

    def _replaced(self) -> StoreUnavailable:
        return StoreUnavailable(f"{self.path}: the file was deleted or replaced while it was in use")

    def abandon(self) -> None:
        """Give up everything after a fork, in the child: another thread may have held any lock at that
        moment.

        The extra reference keeps the interpreter from ever closing the inherited connections.
        """
        self.watch.abandon()
        for connection in self._connections.values():
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
        self._connections = {}


def _ours(error: Exception, path: str) -> EventStoreError:
    """Make whatever an operation raised one of our errors."""
    if isinstance(error, EventStoreError):
        return error
    if isinstance(error, sqlite3.Error):
        return translate(error, path)
    return EventStoreError(f"{path}: {type(error).__name__}: {error}")


@contextlib.contextmanager
def ours(path: str) -> Iterator[None]:
    """Make what the driver raises one of our errors."""
    try:
        yield
    except (sqlite3.Error, UnicodeError, OverflowError) as error:
        raise _ours(error, path) from error


class _Failure:
    """What one operation of a group raised."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def roll_back(connection: sqlite3.Connection) -> None:
    """Undo the open transaction, if SQLite has not done so already (it does when the disk is full)."""
    if connection.in_transaction:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")


def _use_wal(connection: sqlite3.Connection, busy_timeout: float) -> None:
    """Switch to WAL mode. Unlike other statements this one does not wait for a lock by itself."""
    deadline = time.monotonic() + busy_timeout
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").fetchone()
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _create_tables(connection: sqlite3.Connection) -> None:
    """Create our tables once; several OS processes may come here at the same time."""
    if schema_version(connection) is None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            if schema_version(connection) is None:
                for statements in layout.scripts("sqlite"):
                    run_script(connection, statements)
            connection.execute("COMMIT")
        except BaseException:
            roll_back(connection)
            raise
    layout.check_current(schema_version(connection) or 0)
    layout.check_columns("sqlite", columns_of(connection))


def schema_version(connection: sqlite3.Connection) -> int | None:
    """Return the version of our side tables; None when there are none.

    Raises:
        EventStoreError: it is unknown.
    """
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'pyglyn_schema'").fetchone()
    if found is None:
        return None
    return layout.check_version(row[0] for row in connection.execute("SELECT version FROM pyglyn_schema"))


def columns_of(connection: sqlite3.Connection) -> dict[str, list[str]]:
    """Return the columns of each side table there is."""
    statement = """
    SELECT t.name, c.name FROM sqlite_master AS t, pragma_table_info(t.name) AS c
    WHERE t.type = 'table' AND t.name LIKE 'pyglyn%'
    """
    found: dict[str, list[str]] = {}
    for table, column in connection.execute(statement):
        found.setdefault(table, []).append(column)
    return found


def run_script(connection: sqlite3.Connection, text: str) -> None:
    """Run several statements in the open transaction."""
    pending = ""
    for line in text.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            connection.execute(pending)
            pending = ""


_databases: weakref.WeakSet[SqliteDatabase] = weakref.WeakSet()


def _after_fork() -> None:
    for database in list(_databases):
        database.abandon()
    _databases.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
