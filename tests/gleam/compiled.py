"""Names and values that a real Gleam compiler and a real BEAM made; versions are in the data file."""

from __future__ import annotations

from pathlib import Path

_LINES = (Path(__file__).parent / "data" / "compiled_gleam.txt").read_text().splitlines()

COMPILED_NAMES: dict[str, str] = dict(line.split()[1:] for line in _LINES if line.startswith("NAME "))
"""Constructor to atom."""

COMPILED_VALUES: dict[str, bytes] = {
    name: bytes.fromhex(data)
    for name, data in (line.removeprefix("VALUE ").split("|") for line in _LINES if line.startswith("VALUE "))
}
"""What was encoded to the external term format of it."""
