"""The layouts of our side tables: which version a database has, and the steps from one to the next. No I/O.

``schema/<kind>.sql`` makes the tables of version 1, ``schema/<kind>_<n>.sql`` takes a database of the version
before to version n. New databases get them all at once; those there are get them by ``pyglyn store migrate``
and by nothing else, so that somebody decides when services of an older version can no longer use a database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Literal, TypeAlias

from pyglyn.errors import EventStoreError

Kind: TypeAlias = Literal["sqlite", "postgres"]

VERSION = 4

_POSITION = ("position", "aggregate_type", "aggregate_id", "sequence", "recorded_at")
_COMMON: dict[str, tuple[str, ...]] = {
    "pyglyn_checkpoint": (
        "query",
        "position",
        "paused",
        "updated_at",
        "version",
        "mark",
        "replay_aggregate_id",
        "replay_position",
        "replay_until",
    ),
    "pyglyn_parked": (
        "id",
        "query",
        "aggregate_type",
        "aggregate_id",
        "sequence",
        "position",
        "format",
        "raw",
        "error",
        "attempts",
        "parked_at",
    ),
    "pyglyn_outbox": ("id", "topic", "body", "attempts", "available_at", "created_at", "last_error"),
    "pyglyn_command": ("id", "aggregate_type", "aggregate_id", "sequence", "events", "done_at"),
    "pyglyn_lease": ("name", "owner", "until"),
    "pyglyn_manager": ("manager", "instance", "state", "updated_at"),
    "pyglyn_dispatch": (
        "id",
        "manager",
        "instance",
        "command_id",
        "service",
        "aggregate_id",
        "command",
        "metadata",
        "status",
        "attempts",
        "error",
    ),
    "pyglyn_deadline": (
        "id",
        "manager",
        "instance",
        "name",
        "due_at",
        "service",
        "aggregate_id",
        "command",
        "metadata",
        "attempts",
        "error",
    ),
    "pyglyn_schema": ("version",),
}
TABLES: Mapping[Kind, Mapping[str, tuple[str, ...]]] = {
    "sqlite": {**_COMMON, "pyglyn_position": _POSITION},
    "postgres": {
        **_COMMON,
        "pyglyn_position": (*_POSITION, "commit_id"),
        "pyglyn_pending": (
            "id",
            "xid",
            "aggregate_type",
            "aggregate_id",
            "sequence",
            "recorded_at",
            "commit_id",
        ),
        "pyglyn_assigned": ("id", "last_position", "seen", "xid"),
    },
}
"""The columns of each side table of `VERSION`."""


def step(kind: Kind, version: int) -> str:
    """Return the statements that make a version of the one before; of none at all for 1."""
    name = f"{kind}.sql" if version == 1 else f"{kind}_{version}.sql"
    return resources.files("pyglyn.eventsourcing.stores").joinpath(f"schema/{name}").read_text()


def scripts(kind: Kind) -> list[str]:
    """Return the statements that make all tables, in several texts."""
    return [step(kind, version) for version in range(1, VERSION + 1)]


def check_version(versions: Iterable[object]) -> int:
    """Read the rows of ``pyglyn_schema``.

    Raises:
        EventStoreError: it is none that this package knows.
    """
    found = list(versions)
    version = max((each for each in found if type(each) is int), default=None)
    if version is None or len(found) != sum(type(each) is int for each in found):
        raise EventStoreError(f"pyglyn_schema has no version of our side tables but {found}")
    if version > VERSION:
        raise EventStoreError(f"a newer version made the tables: {version}, this one knows {VERSION}")
    if version < 1:
        raise EventStoreError(f"the side tables have version {version}, which was never released")
    return version


def check_current(version: int) -> None:
    """Check that a database needs no step.

    Raises:
        EventStoreError: it does.
    """
    if version < VERSION:
        raise EventStoreError(
            f"the side tables have version {version}, and this package needs {VERSION}: stop what is older,"
            " then run `pyglyn store migrate URL`"
        )


def check_columns(kind: Kind, found: Mapping[str, Iterable[str]]) -> None:
    """Check that the tables are what their version says, before anything is written.

    Args:
        kind: of the database.
        found: the columns of each table there is.

    Raises:
        EventStoreError: a table or column is missing.
    """
    for table, columns in TABLES[kind].items():
        missing = set(columns) - set(found.get(table, ()))
        if table not in found:
            raise EventStoreError(f"the side tables are of another layout: {table} is missing")
        if missing:
            names = ", ".join(sorted(missing))
            raise EventStoreError(f"the side tables are of another layout: {table} has no {names}")
