"""One statement that reads, of PostgreSQL. Needs psycopg 3.

The transaction is READ ONLY, with ``statement_timeout``; the statement goes by the extended protocol, which
takes one only, so it cannot end that transaction and go on. What functions do is the role's to do: give a URL
with a role that may do little.

A row comes as a whole, and the driver holds it as a whole. So the server is asked what the columns are, and
where they may be of any length it says how long they are, and leaves out the values of a row too long.
It is asked for a statement around that of the user, who cannot get out of it: what is inside has been a
statement by itself. The plan of an EXPLAIN, which nothing can be put around, is collected by the server.

Layer: eventsourcing, stores.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import attrs
import psycopg
from psycopg import generators, sql
from psycopg._queries import PostgresQuery
from psycopg.adapt import Transformer

from pyglyn.errors import EventStoreError
from pyglyn.eventsourcing.stores.postgres_database import translate
from pyglyn.eventsourcing.stores.read_only_sql import Kept, ReadOnlySql, Selected, plain, too_long

_EXPLAINS = re.compile(r"(?:\s|\(|--[^\n]*(?:\n|$)|/\*.*?\*/)*explain\b", re.IGNORECASE | re.DOTALL)
_TOKEN = re.compile(
    r"""
    (?P<end>;) | (?P<nothing>\s+|--[^\n]*|/\*.*?(?:\*/|\Z))
    | [eE]'(?:[^'\\]|\\.|'')*+'? | '[^']*+'? | "[^"]*+"? | \$((?:[^\W\d]\w*+)?)\$.*?(?:\$\3\$|\Z)
    | [^\W\d][\w$]*+ | .
    """,
    re.DOTALL | re.VERBOSE,
)
"""What is not closed goes to the end of the text, so that each character is looked at once."""
_JSON = 114
_OWN_LENGTH = (17, 25, 1042, 1043)
"""The types that have octet_length: bytea, text, char(n), varchar. Of others it is that of their text."""


def _without_end(statement: str) -> str:
    """Leave out the semicolon at the end, and what follows: nothing can be put around it."""
    end: int | None = None
    for token in _TOKEN.finditer(statement):
        if token.lastgroup == "end":
            end = token.start() if end is None else end
        elif token.lastgroup != "nothing":
            end = None
    return statement[:end]


@attrs.frozen
class _Column:
    name: str
    type: int
    is_bounded: bool

    def length(self, number: int) -> str:
        """Return what tells the length of the value, in bytes."""
        return f"octet_length(c{number}{'' if self.type in _OWN_LENGTH else '::text'})"


async def select(
    conninfo: str, statement: str, parameters: Sequence[object], limits: ReadOnlySql
) -> Selected:
    """Run one statement that reads; see `pyglyn.eventsourcing.stores.selecting.select`."""
    if len(statement) > min(limits.size, 1_000_000):
        raise EventStoreError("the statement is too long")
    try:
        async with asyncio.timeout(limits.seconds + 1.0), _read_only(conninfo, limits.seconds) as connection:
            return await _Asked(connection, _without_end(statement), tuple(parameters), limits).selected()
    except TimeoutError as error:
        raise too_long(limits) from error
    except psycopg.errors.QueryCanceled as error:
        raise too_long(limits) from error
    except psycopg.errors.ReadOnlySqlTransaction as error:
        raise EventStoreError(f"the statement does more than reading: {translate(error)}") from error
    except (psycopg.Error, UnicodeError, ValueError) as error:
        raise translate(error) from error


@contextlib.asynccontextmanager
async def _read_only(conninfo: str, seconds: float) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    milliseconds = max(1, round(seconds * 1000))
    options: dict[str, Any] = {"autocommit": True, "client_encoding": "utf8", "prepare_threshold": None}
    connection = await psycopg.AsyncConnection.connect(conninfo, **options)
    try:
        await connection.execute(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
            await connection.execute(f"SET LOCAL {name} TO {milliseconds}".encode())
        yield connection
    finally:
        await connection.close()  # which undoes what was set


class _Asked:
    """One statement, and what it may take."""

    def __init__(
        self,
        connection: psycopg.AsyncConnection[Any],
        statement: str,
        parameters: tuple[object, ...],
        limits: ReadOnlySql,
    ) -> None:
        self._connection = connection
        self._statement = statement
        self._parameters = parameters
        self._limits = limits

    async def selected(self) -> Selected:
        """Run it."""
        columns = await self._columns()
        kept, names = Kept(self._limits), tuple(column.name for column in columns)
        if _EXPLAINS.match(self._statement):
            lines = await self._explained(is_json=[column.type for column in columns] == [_JSON])
            return Selected(names, kept.rows, all(map(kept.take, lines)))
        if all(column.is_bounded for column in columns):
            return Selected(names, kept.rows, await self._take(kept, self._statement))
        return Selected(names, kept.rows, await self._take(kept, self._around(columns), is_around=True))

    async def _columns(self) -> list[_Column]:
        """Ask for the columns; nothing is run."""
        connection = self._connection
        query = PostgresQuery(Transformer(connection))
        query.convert(self._statement.encode(), self._parameters or None)
        connection.pgconn.send_prepare(b"", query.query, query.types)
        [prepared] = await connection.wait(generators.execute(connection.pgconn))
        if prepared.status != psycopg.pq.ExecStatus.COMMAND_OK:
            raise psycopg.errors.error_from_result(prepared, encoding="utf-8")
        connection.pgconn.send_describe_prepared(b"")
        [described] = await connection.wait(generators.execute(connection.pgconn))
        return [
            _Column((described.fname(n) or b"").decode(), described.ftype(n), described.fsize(n) >= 0)
            for n in range(described.nfields)
        ]

    def _around(self, columns: list[_Column]) -> str:
        """Return a statement around it: its columns, the largest value, and all that may be long together."""
        names = ", ".join(f"c{number}" for number in range(len(columns)))
        lengths = [column.length(number) for number, column in enumerate(columns) if not column.is_bounded]
        values = ", ".join(
            f"CASE WHEN s.sum <= {self._limits.size} THEN c{n} END" for n in range(len(columns))
        )
        largest = ", ".join(lengths)
        total = " + ".join(f"coalesce({length}, 0)::bigint" for length in lengths)
        return (
            f"WITH asked ({names}) AS MATERIALIZED (\n{self._statement}\n)\n"
            f"SELECT {values}, s.largest, s.sum FROM asked, "
            f"LATERAL (SELECT coalesce(greatest({largest}), 0) AS largest, {total} AS sum OFFSET 0) AS s"
        )

    async def _take(self, kept: Kept, statement: str, *, is_around: bool = False) -> bool:
        """Keep row by row; False if not all are. `stream` always takes the extended protocol."""
        async with self._connection.cursor() as cursor:
            rows: Any = cursor.stream(statement.encode(), self._parameters or None)
            async with contextlib.aclosing(rows):
                async for row in rows:
                    if is_around:
                        *row, largest, total = row
                        self._check(largest)
                        if total > self._limits.size:
                            return False
                    if not kept.take(row):
                        return False
        return True

    def _check(self, length: int) -> None:
        if length > self._limits.size:
            raise EventStoreError(
                f"PostgreSQL: a value is too big: {length} bytes, {self._limits.size} may be asked for"
            )

    async def _explained(self, *, is_json: bool) -> list[tuple[object]]:
        """Return the lines of a plan, which the server has collected if they are no more than may be."""
        cursor = psycopg.AsyncClientCursor(self._connection)
        explain = cursor.mogrify(self._statement.encode(), self._parameters or None)
        collect = sql.SQL("""
        DECLARE line text; lines text[] = '{{}}'; size bigint = 0;
        BEGIN
          FOR line IN EXECUTE {explain} LOOP
            size := size + octet_length(line);
            IF size <= {most} THEN lines := lines || line; END IF;
          END LOOP;
          PERFORM set_config('pyglyn.size', size::text, true);
          PERFORM set_config('pyglyn.lines', array_to_json(lines)::text, true);
        END
        """).format(explain=sql.Literal(explain), most=sql.Literal(self._limits.size))
        await cursor.execute(sql.SQL("DO {}").format(sql.Literal(collect.as_string(self._connection))))
        await cursor.execute(
            "SELECT current_setting('pyglyn.size')::bigint, current_setting('pyglyn.lines')::json"
        )
        row = await cursor.fetchone()
        assert row is not None
        self._check(row[0])
        return [(plain(json.loads(line)) if is_json else line,) for line in row[1]]
