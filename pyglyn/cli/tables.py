"""Tables and lines for people: one row is one line, however wide it is. Layer: cli.

No boxes and no titles, so that ``grep``, ``awk`` and ``column`` can read them. A pipe or a file gets whole
lines, with two blanks or more between the columns. A terminal gets what fits: the columns with the longest
texts are cut first, with ``…``. What came from another node cannot move the cursor.
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Iterable
from typing import IO

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from pyglyn.escaping import escaped

UNLIMITED = 1_000_000
"""The width of what is no terminal, in columns."""
LONGEST_NOTE = 2000
"""Characters."""


def console(file: IO[str] | None = None) -> Console:
    """A console of the terminal's width, or of none at all where there is no terminal."""
    file = sys.stdout if file is None else file
    return Console(file=file, highlight=False, width=None if file.isatty() else UNLIMITED)


def printable(text: str) -> str:
    """Text without what would move a terminal's cursor, change its colours or begin a new line."""
    return escaped(text)


def moment(seconds: float | None, *, whole: bool = False) -> str:
    """A moment in UTC, ISO 8601, from seconds since 1970; ``-`` for none.

    Args:
        whole: without the fraction of the second.
    """
    if seconds is None:
        return "-"
    try:
        when = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
        return when.strftime("%Y-%m-%dT%H:%M:%SZ" if whole else "%Y-%m-%dT%H:%M:%S.%fZ")
    except (OverflowError, ValueError, OSError):
        return str(seconds)


def cell(text: str, style: str = "") -> Text:
    """One cell: cut where it does not fit, never wrapped, and never taken for markup."""
    return Text(printable(text), style=style, no_wrap=True, overflow="ellipsis")


def row(table: Table, *values: object) -> None:
    """Add a row of plain cells: each value's text (`cell`)."""
    table.add_row(*(cell(str(value)) for value in values))


def table(*columns: str, right: Iterable[str] = (), whole: Iterable[str] = ()) -> Table:
    """An empty table.

    Args:
        columns: the headings.
        right: the columns of numbers.
        whole: the columns that are cut last of all.
    """
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    right, whole = set(right), set(whole)
    for name in columns:
        made.add_column(
            cell(name),
            justify="right" if name in right else "left",
            no_wrap=name in whole,
            overflow="ellipsis",
        )
    return made


def note(text: str) -> str:
    """A line that stands below another one on a terminal."""
    return f"    {printable(text if len(text) <= LONGEST_NOTE else text[: LONGEST_NOTE - 1] + '…')}"


def show_with_notes(what: Table, notes: Iterable[Iterable[str]]) -> None:
    """Print a table on a terminal, with lines below each row for what no column has room for.

    Args:
        notes: for each row its lines, which the terminal breaks, and `note` cuts.
    """
    out = console()
    with out.capture() as captured:
        out.print(what)
    heading, *lines = captured.get().splitlines()
    out.file.write(heading + "\n")
    for line, below in zip(lines, notes, strict=True):
        for each in (line, *map(note, below)):
            out.file.write(each + "\n")


def show(what: RenderableType) -> None:
    """Print a table or a tree on standard output; in a pipe without blanks at the ends of lines."""
    out = console()
    if out.is_terminal and out.width != UNLIMITED:
        out.print(what)
        return
    with out.capture() as captured:
        out.print(what)
    for line in captured.get().splitlines():
        out.file.write(line.rstrip() + "\n")
