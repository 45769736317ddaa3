"""The table of bounds names every registered process and every limit, and nothing that does not exist."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import attrs
import pytest

from pyglyn.etf import Limits
from pyglyn.groups import pg, syn
from pyglyn.net import NetSettings
from pyglyn.node import Node, Settings
from pyglyn.supervision import Supervisor, start

TABLE = (Path(__file__).parent.parent / "docs" / "design" / "bounds.md").read_text()
QUOTED = set(re.findall(r"`([^`]+)`", TABLE))


def numbers_of(settings: object) -> set[str]:
    """The names of all settings that are numbers, at every depth but for terms' own limits."""
    names: set[str] = set()
    for field in attrs.fields(type(settings)):
        value = getattr(settings, field.name)
        if isinstance(value, Limits) or (isinstance(value, int | float) and not isinstance(value, bool)):
            names.add(field.name)
        elif attrs.has(type(value)):
            names |= numbers_of(value)
    return names


def test_each_limit_among_the_settings_has_its_row() -> None:
    of_reconnects = {"first", "factor", "longest", "jitter"}  # waits, which bound nothing
    flags = {"flags", "required_flags"}
    missing = numbers_of(Settings()) - QUOTED - of_reconnects - flags
    assert not missing


@pytest.mark.parametrize("hidden", [True, False])
async def test_each_registered_name_has_its_row(hidden: bool) -> None:
    settings = Settings(net=NetSettings(epmd_port=0))
    async with Node("bounds@localhost", cookie="c", hidden=hidden, settings=settings) as node:
        pg.start(node)
        syn.start(node, "example")
        await start(node, Supervisor())
        for name in node.runtime.names:
            shown = name.replace("example", "…")
            assert shown in QUOTED, name


def test_what_it_names_exists() -> None:
    named = [each for each in QUOTED if re.fullmatch(r"pyglyn(\.\w+)+", each)]
    assert len(named) > 10
    for path in named:
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name), path
