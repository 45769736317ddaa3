"""A PostgreSQL database for one event loop: the connection pool, the listener, error translation. Needs
psycopg 3.

- The pool reconnects by itself. A connection that the server has closed while it was idle is noticed before
  it is used (its socket is readable), so a restarted server costs no failed command where no command was
  under way.
- Behind a pooler (PgBouncer) a connection may be another one at each transaction. It is recognised by the
  number of the server's process, which is not the one the connection was told; then no statement is prepared,
  nothing is set for a session, and waiting readers look by themselves instead of listening.
- One more connection listens for NOTIFY, from the first reader that waits on, and says so by a lock. When it
  breaks, it is set up again with growing pauses, and all readers look for what they may have missed.
- Everything the driver raises becomes one of our errors here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from pyglyn import forks
from pyglyn.errors import EventStoreError, StoreUnavailable, TransactionRolledBack
from pyglyn.eventsourcing.stores import layout
from pyglyn.patience import cancellable

if TYPE_CHECKING:
    import psycopg
    import psycopg_pool

    Connection = psycopg.AsyncConnection[tuple[Any, ...]]

logger = logging.getLogger("pyglyn.eventsourcing")

CHANNEL = "pyglyn_event"

REPAIR_S = 5.0

LOOK_S = 0.1
"""Seconds until a waiting reader looks behind a pooler, which does not deliver what is announced."""

_ANNOUNCE_PAUSE_S = 0.01
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 5.0

# SQLSTATE classes and codes after which trying again may help.
_TRY_AGAIN_CLASSES = ("08", "53", "57", "58")
# Lock not available; a standby that is no primary (any more); idle or open for longer than the server allows.
_TRY_AGAIN_CODES = ("55P03", "25006", "25P03", "25P04")
_NOT_IN_REPERTOIRE = "22021"  # what is stored is not in UTF-8
_ROLLED_BACK = ("40001", "40P01")
_CRASHED = "57P02"  # the one FATAL that may come after the commit and before its answer

LISTENER_LOCK = "hashtext('pyglyn_listener'), hashtext(current_schema())"
"""Who listens shares it: an append that gets it for itself need not be announced."""

# The lock first: it waits for the commits of those who did not see it, and what comes after them announces.
_LISTEN = f"""
SELECT pg_advisory_lock_shared({LISTENER_LOCK}); LISTEN {CHANNEL}
"""
# Without waiting for the disk: there is nothing in it that has to survive.
_ANNOUNCE = f"""
BEGIN; SET LOCAL synchronous_commit TO off; SELECT pg_notify('{CHANNEL}', current_schema()); COMMIT
"""

_PROCESS_AND_DEFAULTS = b"""
SELECT pg_backend_pid(), current_setting('default_transaction_isolation'),
  current_setting('default_transaction_read_only')
"""

# Notices a dead peer after about a minute instead of two hours.
_KEEPALIVES: dict[str, Any] = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
# Also for a database in SQL_ASCII, which does not say what its bytes mean: a Gleam service writes UTF-8.
_CONNECTION: dict[str, Any] = {"autocommit": True, "client_encoding": "utf8"}


def import_psycopg() -> None:
    """Check that the driver is installed.

    Raises:
        EventStoreError: it is not; says what to install.
    """
    try:
        import psycopg  # noqa: F401
        import psycopg_pool  # noqa: F401
    except ImportError as error:
        raise EventStoreError(
            f"PostgreSQL needs psycopg: pip install 'pyglyn[postgres]' ({error})"
        ) from error


def translate(error: Exception, *, writing: bool = False) -> EventStoreError:
    """Turn an error of the driver or its pool into one of ours.

    Args:
        error: what was raised.
        writing: whether something that commits was under way.
    """
    import psycopg
    import psycopg_pool

    if isinstance(error, EventStoreError):
        return error
    state = getattr(error, "sqlstate", None)
    text = f"PostgreSQL: {' '.join(str(error).split())}"
    if state in _ROLLED_BACK:
        return TransactionRolledBack(text)
    if isinstance(error, psycopg_pool.PoolTimeout | psycopg_pool.PoolClosed | psycopg_pool.TooManyRequests):
        return StoreUnavailable(text)
    if state is None:
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            return StoreUnavailable(text, outcome_unknown=writing)
        return EventStoreError(text)
    if state[:2] in _TRY_AGAIN_CLASSES or state in _TRY_AGAIN_CODES:
        return StoreUnavailable(text, outcome_unknown=writing and state == _CRASHED)
    return EventStoreError(text)


class PostgresDatabase:
    """The connections of one store in one OS process and event loop."""

    def __init__(
        self, conninfo: str, *, pool_size: int, timeout: float, prepare_threshold: int | None, repair_s: float
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.grown = asyncio.Event()  # replaced at each wake-up
        self._conninfo = conninfo
        self._pool_size = pool_size
        self._timeout = timeout
        self._prepare_threshold = prepare_threshold
        self._repair_s = repair_s
        self.is_pooled = False  # there is a pooler in between
        self._pool: psycopg_pool.AsyncConnectionPool[Connection] | None = None
        self.news = 0  # how often others have announced a commit
        self._announcers: set[int] = set()  # the server's processes that have announced ours
        self._pipelines: set[asyncio.Task[Any]] = set()
        self._spare: Connection | None = None
        self._asking = 0
        self._starting = asyncio.Lock()
        self._listener: asyncio.Task[None] | None = None
        self._announcer: asyncio.Task[None] | None = None
        self._unannounced = False

    @property
    def look_s(self) -> float:
        """Seconds until a waiting reader looks for events that it was told nothing of."""
        return LOOK_S if self.is_pooled else self._repair_s

    async def start(self) -> None:
        """Create what is missing in the database and open the pool.

        Raises:
            StoreUnavailable: no connection.
            EventStoreError: no right to create the tables, or a newer version has made them.
        """
        import psycopg_pool

        async with self._starting:
            if self._pool is not None:
                return
            await self._create_tables()
            self._pool = psycopg_pool.AsyncConnectionPool(
                self._conninfo,
                min_size=1,
                max_size=self._pool_size,
                timeout=self._timeout,
                open=False,
                configure=None if self.is_pooled else _use_our_defaults,
                reconnect_timeout=self._timeout,
                kwargs={
                    **_CONNECTION,
                    "prepare_threshold": None if self.is_pooled else self._prepare_threshold,
                    **_KEEPALIVES,
                },
            )
            await self._pool.open()

    async def close(self) -> None:
        """Announce what is not announced yet, stop listening and close all connections."""
        if self._announcer is not None:
            await self._announcer
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
            self._listener = None
        for task in self._pipelines:
            task.cancel()
        await asyncio.gather(*self._pipelines, return_exceptions=True)
        if self._pool is not None:
            pool, self._pool = self._pool, None
            spare, self._spare = self._spare, None
            if spare is not None:
                await pool.putconn(spare)
            await pool.close()

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection in autocommit mode; errors inside the block are the block's to translate."""
        await self.start()
        pool = self._pool
        if pool is None:
            raise StoreUnavailable("the store was closed")
        connection, self._spare = self._spare, None
        self._asking += 1
        try:
            with cancellable():
                try:
                    if connection is None:
                        connection = await pool.getconn()
                    while not await _is_alive(connection):
                        # The pool's own check would wait a second, two, four … between dead connections.
                        dead, connection = connection, None
                        await pool.putconn(dead)
                        connection = await pool.getconn()
                except Exception as error:
                    raise await self._why_none(error) from error
                finally:
                    self._asking -= 1
            yield connection
        finally:
            if connection is not None and not self._keep(pool, connection):
                await asyncio.shield(pool.putconn(connection))

    def _keep(self, pool: psycopg_pool.AsyncConnectionPool[Connection], connection: Connection) -> bool:
        """Keep a connection for who comes next: the pool takes 100 µs of CPU time to take and give it.

        Not if somebody is asking the pool for one.
        """
        if self._spare is not None or self._asking or self._pool is not pool:
            return False
        if connection.closed or connection.pgconn.transaction_status != 0:  # IDLE
            return False
        self._spare = connection
        return True

    async def _why_none(self, error: Exception) -> EventStoreError:
        """Say why there is no connection: the pool only knows for how long it has waited."""
        import psycopg
        import psycopg_pool

        if isinstance(error, psycopg_pool.PoolTimeout):
            try:
                async with asyncio.timeout(1.0), await psycopg.AsyncConnection.connect(self._conninfo):
                    pass  # it answers: all connections are in use
            except psycopg.Error as why:
                return translate(why)
            except TimeoutError:
                pass
        return translate(error)

    async def query(
        self, statement: str, parameters: Sequence[object] = (), *, writing: bool = False
    ) -> list[tuple[Any, ...]]:
        """Run one statement in a transaction of its own and return its rows."""
        async with self.connection() as connection:
            try:
                cursor = await connection.execute(statement.encode(), parameters or None)
                return await cursor.fetchall() if cursor.description is not None else []
            except Exception as error:
                if getattr(error, "sqlstate", None) == _NOT_IN_REPERTOIRE and not writing:
                    return await _fetch_with_bytes(connection, statement, parameters)
                raise translate(error, writing=writing) from error

    async def queries(self, *statements: tuple[str, Sequence[object]]) -> list[list[tuple[Any, ...]]]:
        """Run statements one after the other, in one go where nothing is in between; return their rows.

        Each sees what was committed before it began. What cannot be done in one go is done again, one by one.
        A caller who is cancelled does not wait for the end, but the connection does: a pipeline broken
        off would cost it.
        """
        if self.is_pooled:
            return [await self.query(statement, parameters) for statement, parameters in statements]
        task = self.loop.create_task(self._pipelined(statements))
        self._pipelines.add(task)
        task.add_done_callback(self._pipeline_ended)
        return await asyncio.shield(task)

    def _pipeline_ended(self, task: asyncio.Task[Any]) -> None:
        self._pipelines.discard(task)
        if not task.cancelled():
            task.exception()  # seen, though its caller may have gone

    async def _pipelined(
        self, statements: Sequence[tuple[str, Sequence[object]]]
    ) -> list[list[tuple[Any, ...]]]:
        import psycopg

        async with self.connection() as connection:
            try:
                async with connection.pipeline():
                    cursors = [
                        await connection.execute(statement.encode(), parameters)
                        for statement, parameters in statements
                    ]
                return [await cursor.fetchall() for cursor in cursors]
            except psycopg.OperationalError as error:
                raise translate(error) from error
            except psycopg.Error as error:
                logger.debug("statement by statement: %s", translate(error))
        return [await self.query(statement, parameters) for statement, parameters in statements]

    # --- waking up -----------------------------------------------------------------------------------

    def listen(self) -> None:
        """See to it that commits of everybody wake us up: from the wake-up on that says we are listening."""
        if self.is_pooled:
            return
        if self._listener is None or self._listener.done():
            self._listener = self.loop.create_task(self._listen())

    async def _listen(self) -> None:
        import psycopg

        pause = _FIRST_PAUSE_S
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(
                    self._conninfo, **_CONNECTION, **_KEEPALIVES
                ) as connection:
                    forks.keep(connection)
                    await connection.execute(_LISTEN.encode())
                    self.wake()
                    pause = _FIRST_PAUSE_S
                    async for notice in connection.notifies():
                        self.news += notice.pid not in self._announcers
                        self.wake()
            except (psycopg.Error, OSError) as error:
                logger.warning("%s; listening again in %.2g s", translate(error), pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_S)

    def committed(self, *, unannounced: bool = True) -> None:
        """Tell of events of ours that are committed: here at once, to others soon if they do not know."""
        self.wake()
        self._unannounced |= unannounced
        if self._unannounced and self._announcer is None:
            self._announcer = self.loop.create_task(self._announce())

    async def _announce(self) -> None:
        try:
            while self._unannounced:
                self._unannounced = False
                async with self.connection() as connection:
                    self._announcers.add(connection.info.backend_pid)
                    await _send_announcement(connection)
                await asyncio.sleep(_ANNOUNCE_PAUSE_S)
        except EventStoreError as error:
            logger.debug("commits not announced, readers will look by themselves: %s", error)
        finally:
            self._announcer = None

    def wake(self) -> None:
        """Tell those who wait for events that somebody has committed."""
        self.grown.set()
        self.grown = asyncio.Event()

    # --- schema --------------------------------------------------------------------------------------

    async def _create_tables(self) -> None:
        import psycopg

        errors = psycopg.errors
        created_at_once = (errors.UniqueViolation, errors.DuplicateTable, errors.DuplicateObject)
        try:
            async with await psycopg.AsyncConnection.connect(self._conninfo, **_CONNECTION) as connection:
                self.is_pooled = await _is_pooled(connection)
                await connection.set_isolation_level(psycopg.IsolationLevel.READ_COMMITTED)
                await connection.set_read_only(False)
                for attempt in range(3):
                    try:
                        async with connection.transaction():
                            await _create_tables(connection)
                        return
                    except created_at_once:
                        # a Gleam service ran its own CREATE TABLE IF NOT EXISTS at the same moment
                        if attempt == 2:
                            raise
        except (psycopg.Error, OSError) as error:
            raise translate(error) from error


async def _send_announcement(connection: Connection) -> None:
    try:
        await connection.execute(_ANNOUNCE.encode())
    except Exception as error:
        raise translate(error) from error


async def _is_pooled(connection: Connection) -> bool:
    """Find out whether a pooler is in between.

    Raises:
        EventStoreError: there is, and the database has defaults that we cannot change behind it.
    """
    cursor = await connection.execute(_PROCESS_AND_DEFAULTS, prepare=False)
    row = await cursor.fetchone()
    assert row is not None
    if row[0] == connection.info.backend_pid:
        return False
    if row[1:] != ("read committed", "off"):
        raise EventStoreError(
            f"PostgreSQL: behind a pooler the defaults of the database hold, and they are {row[1]}, read only"
            f" {row[2]}; needed are read committed, off: ALTER ROLE … SET them, or connect without the pooler"
        )
    logger.info("there is a pooler before PostgreSQL: waiting readers look for events every %.2g s", LOOK_S)
    return True


async def _fetch_with_bytes(
    connection: Connection, statement: str, parameters: Sequence[object]
) -> list[tuple[Any, ...]]:
    """Run a statement that reads; text that is not in UTF-8 comes as bytes (a database in SQL_ASCII)."""
    from psycopg.adapt import Loader

    class Text(Loader):
        def load(self, data: Any) -> Any:
            try:
                return bytes(data).decode()
            except UnicodeDecodeError:
                return bytes(data)

    try:
        async with connection.transaction():
            await connection.execute(b"SET LOCAL client_encoding TO 'SQL_ASCII'")
            cursor = connection.cursor()
            cursor.adapters.register_loader("text", Text)
            await cursor.execute(statement.encode(), parameters or None, prepare=False)
            return await cursor.fetchall()
    except Exception as error:
        raise translate(error) from error


async def _create_tables(connection: Connection) -> None:
    """Create our tables once; an advisory lock lets one service at a time do it."""
    cursor = await connection.execute("SELECT current_schema(), quote_ident(current_schema())")
    row = await cursor.fetchone()
    if row is None or row[0] is None:
        raise EventStoreError("PostgreSQL: the search_path names no schema that exists")
    name, quoted = row
    if await schema_version(connection, quoted) is None:
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext('pyglyn'), hashtext(%s))", (name,))
        if await schema_version(connection, quoted) is None:
            for statements in layout.scripts("postgres"):
                await connection.execute(statements.replace("{schema}", quoted).encode())
    layout.check_current(await schema_version(connection, quoted) or 0)
    layout.check_columns("postgres", await columns_of(connection))


async def schema_version(connection: Connection, schema: str) -> int | None:
    """Return the version of our side tables; None when there are none.

    Raises:
        EventStoreError: it is unknown.
    """
    cursor = await connection.execute("SELECT to_regclass(%s) IS NULL", (f"{schema}.pyglyn_schema",))
    row = await cursor.fetchone()
    if row is None or row[0]:
        return None
    cursor = await connection.execute("SELECT version FROM pyglyn_schema")
    return layout.check_version([row[0] for row in await cursor.fetchall()])


async def columns_of(connection: Connection) -> dict[str, list[str]]:
    """Return the columns of each side table there is."""
    cursor = await connection.execute(
        """
        SELECT relname::text, attname::text FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
        WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' AND relname LIKE 'pyglyn%'
        AND attnum > 0 AND NOT attisdropped
        """
    )
    found: dict[str, list[str]] = {}
    for table, column in await cursor.fetchall():
        found.setdefault(table, []).append(column)
    return found


async def _use_our_defaults(connection: Connection) -> None:
    """Be independent of what database and role set; forks let go of it."""
    forks.keep(connection)
    await connection.execute(
        b"SET default_transaction_isolation TO 'read committed'; SET default_transaction_read_only TO off"
    )


async def _is_alive(connection: Connection) -> bool:
    """Tell whether the server has closed a connection: one that is idle has nothing to be read."""
    import psycopg

    if connection.closed:
        return False
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    if poll.poll(0):
        try:
            await connection.execute(b"")  # a notice, or the end
        except psycopg.Error:
            await connection.close()
            return False
    return True
