"""Facts as rows of factos' table, of SQLite and PostgreSQL: pure. Layer: eventsourcing, stores."""

from __future__ import annotations

from importlib import resources

from pyglyn.eventsourcing.stores.facts.log import Query, RawFact, read_metadata, read_tags
from pyglyn.eventsourcing.stores.sql import NO_LIMIT, Row

COLUMNS = "position, id, stream, revision, type, version, tags, metadata, data"
LAST = "SELECT coalesce(max(position), 0) FROM factos_events"


def selection(query: Query | None, after: int, limit: int | None) -> tuple[str, list[object]]:
    """Return the statement that reads facts, and its parameters."""
    conditions, parameters = ["position > %s"], [after]
    alternatives: list[str] = []
    values: list[object] = []
    for each in query.criteria if query is not None else ():
        parts: list[str] = []
        if each.types:
            parts.append(f"type IN ({', '.join(['%s'] * len(each.types))})")
            values += each.types
        for tag in each.tags:
            parts.append(
                "position IN (SELECT position FROM pyglyn_fact_tag WHERE tag = %s AND position > %s)"
            )
            values += [tag, after]
        alternatives.append(" AND ".join(parts) if parts else "1 = 1")
    if alternatives:
        conditions.append("(" + " OR ".join(f"({each})" for each in alternatives) + ")")
    where = " AND ".join(conditions)
    statement = f"SELECT {COLUMNS} FROM factos_events WHERE {where} ORDER BY position LIMIT %s"
    return statement, [*parameters, *values, NO_LIMIT if limit is None else max(limit, 0)]


def fact_of(row: Row) -> RawFact:
    """Read a row of `COLUMNS`."""
    return RawFact(
        position=row[0],
        id=row[1],
        stream=row[2],
        revision=row[3],
        type=row[4],
        version=row[5],
        tags=read_tags(row[6]),
        metadata=read_metadata(row[7]),
        data=bytes(row[8]),
    )


def script(kind: str) -> str:
    """Return the statements that create the tables in a kind of database: ``sqlite`` or ``postgres``."""
    return resources.files("pyglyn.eventsourcing.stores").joinpath(f"schema/facts_{kind}.sql").read_text()
