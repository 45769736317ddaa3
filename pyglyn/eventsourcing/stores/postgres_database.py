"""A PostgreSQL database for one event loop: the connection pool, the listener, error translation. Needs
psycopg 3.

- The pool reconnects by itself. A connection that the server has closed while it was idle is noticed before
  it is used (its socket is readable), so a restarted server costs no failed command where no command was
  under way.
- One more connection listens for the trigger's NOTIFY, from the first reader that waits on. When it breaks,
  it is set up again with growing pauses, and all readers look for what they may have missed.
- Everything the driver raises becomes one of our errors here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
from collections.abc import AsyncIterator, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

from pyglyn import forks
from pyglyn.errors import EventStoreError, StoreUnavailable, TransactionRolledBack

if TYPE_CHECKING:
    import psycopg
    import psycopg_pool

    Connection = psycopg.AsyncConnection[tuple[Any, ...]]

logger = logging.getLogger("pyglyn.eventsourcing")

SCHEMA_VERSION = 1
CHANNEL = "pyglyn_event"

REPAIR_S = 5.0
"""Seconds until a waiting reader looks for events that nobody announced: their writer died too early."""

_ANNOUNCE_PAUSE_S = 0.01
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 5.0

# SQLSTATE classes and codes after which trying again may help.
_TRY_AGAIN_CLASSES = ("08", "53", "57", "58")
# Lock not available; a standby that is no primary (any more); idle or open for longer than the server allows.
_TRY_AGAIN_CODES = ("55P03", "25006", "25P03", "25P04")
_ROLLED_BACK = ("40001", "40P01")
_CRASHED = "57P02"  # the one FATAL that may come after the commit and before its answer

# Without waiting for the disk: there is nothing in it that has to survive.
_ANNOUNCE = f"""
BEGIN; SET LOCAL synchronous_commit TO off; SELECT pg_notify('{CHANNEL}', current_schema()); COMMIT
"""

# Notices a dead peer after about a minute instead of two hours.
_KEEPALIVES: dict[str, Any] = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}


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
        self, conninfo: str, *, pool_size: int, timeout: float, prepare_threshold: int | None
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.grown = asyncio.Event()  # replaced at each wake-up
        self._conninfo = conninfo
        self._pool_size = pool_size
        self._timeout = timeout
        self._prepare_threshold = prepare_threshold
        self._pool: psycopg_pool.AsyncConnectionPool[Connection] | None = None
        self._starting = asyncio.Lock()
        self._listener: asyncio.Task[None] | None = None
        self._announcer: asyncio.Task[None] | None = None
        self._unannounced = False

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
                configure=_use_our_defaults,
                reconnect_timeout=self._timeout,
                kwargs={"autocommit": True, "prepare_threshold": self._prepare_threshold, **_KEEPALIVES},
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
        if self._pool is not None:
            pool, self._pool = self._pool, None
            await pool.close()

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection in autocommit mode; errors inside the block are the block's to translate."""
        await self.start()
        pool = self._pool
        if pool is None:
            raise StoreUnavailable("the store was closed")
        try:
            connection = await pool.getconn()
            while not await _is_alive(connection):
                # The pool's own check would wait a second, two, four … between dead connections.
                await pool.putconn(connection)
                connection = await pool.getconn()
        except Exception as error:
            raise await self._why_none(error) from error
        try:
            yield connection
        finally:
            await asyncio.shield(pool.putconn(connection))

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
                raise translate(error, writing=writing) from error

    # --- waking up -----------------------------------------------------------------------------------

    def listen(self) -> None:
        """See to it that commits of everybody wake us up: from the wake-up on that says we are listening."""
        if self._listener is None or self._listener.done():
            self._listener = self.loop.create_task(self._listen())

    async def _listen(self) -> None:
        import psycopg

        pause = _FIRST_PAUSE_S
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(
                    self._conninfo, autocommit=True, **_KEEPALIVES
                ) as connection:
                    forks.keep(connection)
                    await connection.execute(f"LISTEN {CHANNEL}".encode())
                    self.wake()
                    pause = _FIRST_PAUSE_S
                    async for _ in connection.notifies():
                        self.wake()
            except (psycopg.Error, OSError) as error:
                logger.warning("%s; listening again in %.2g s", translate(error), pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_S)

    def committed(self) -> None:
        """Announce a commit of ours: here at once, to others soon."""
        self.wake()
        self._unannounced = True
        if self._announcer is None:
            self._announcer = self.loop.create_task(self._announce())

    async def _announce(self) -> None:
        try:
            while self._unannounced:
                self._unannounced = False
                await self.query(_ANNOUNCE)
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
            async with await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True) as connection:
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


async def _create_tables(connection: Connection) -> None:
    """Create our tables once; an advisory lock lets one service at a time do it."""
    cursor = await connection.execute("SELECT current_schema(), quote_ident(current_schema())")
    row = await cursor.fetchone()
    if row is None or row[0] is None:
        raise EventStoreError("PostgreSQL: the search_path names no schema that exists")
    name, quoted = row
    if await _schema_version(connection, quoted) == SCHEMA_VERSION:
        return
    await connection.execute("SELECT pg_advisory_xact_lock(hashtext('pyglyn'), hashtext(%s))", (name,))
    if await _schema_version(connection, quoted) is None:
        script = resources.files("pyglyn.eventsourcing.stores").joinpath("schema/postgres.sql").read_text()
        await connection.execute(script.replace("{schema}", quoted).encode())


async def _schema_version(connection: Connection, schema: str) -> int | None:
    cursor = await connection.execute("SELECT to_regclass(%s) IS NULL", (f"{schema}.pyglyn_schema",))
    row = await cursor.fetchone()
    if row is None or row[0]:
        return None
    cursor = await connection.execute("SELECT max(version) FROM pyglyn_schema")
    row = await cursor.fetchone()
    version: int = row[0] if row is not None else 0
    if version > SCHEMA_VERSION:
        raise EventStoreError(f"a newer version made the tables: {version}, this one knows {SCHEMA_VERSION}")
    return version


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
