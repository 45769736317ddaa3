"""What ``--json`` prints. Layer: cli."""

from __future__ import annotations

import json
import sys
from typing import Any

from pyglyn import etf
from pyglyn.etf import Atom, Term


def json_of(term: Term) -> Any:
    """A term as JSON, for reading: binaries as text, atoms as ``{"atom": …}``, tuples as lists."""
    match term:
        case Atom():
            return {"atom": term.name}
        case bytes():
            return term.decode("utf-8", "backslashreplace")
        case list() | tuple():
            return [json_of(item) for item in term]
        case dict():
            return {k if isinstance(k, str) else etf.text.format(k): json_of(v) for k, v in term.items()}
        case bool() | int() | float() | None:
            return term
        case _:
            return etf.text.format(term)


def show_json(value: object) -> None:
    """Print a value on standard output, as one line of JSON."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()
