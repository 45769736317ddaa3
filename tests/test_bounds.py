"""The table of bounds names every registered process and every limit, and nothing that does not exist."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import attrs
import pytest

import pyglyn
from pyglyn.etf import Limits
from pyglyn.groups import pg, syn
from pyglyn.net import NetSettings
from pyglyn.node import GenServer, Node, Settings
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


ROOT = Path(pyglyn.__file__).parent


def servers() -> set[type[GenServer]]:
    """Every server that the package itself runs; the demo's are an application's."""
    for path in ROOT.rglob("*.py"):
        if "Server)" in path.read_text() and "testing" not in path.parts:
            importlib.import_module(".".join(path.relative_to(ROOT.parent).with_suffix("").parts))
    found: set[type[GenServer]] = set()
    left = [GenServer]
    while left:
        below = [each for each in left.pop().__subclasses__() if each.__module__.startswith("pyglyn.")]
        found |= {*below}
        left += below
    return {each for each in found if each.__module__ != "pyglyn.cli.demo"}


def test_no_server_of_the_package_ends_by_a_request_that_it_does_not_know() -> None:
    """What `GenServer` does with such a cast or call is right for users' servers: it ends, as in Erlang."""
    assert len(servers()) > 6
    for server in servers():
        for handler in ("handle_call", "handle_cast", "handle_info"):
            if handler == "handle_info" and server.handle_info is GenServer.handle_info:
                continue  # it is logged, with its tag only
            assert getattr(server, handler) is not getattr(GenServer, handler), (server, handler)


OPENS = re.compile(
    r"create_server\(|create_unix_server\(|\b(?!self|peers)\w+\.listen\(|\b(?!target)\w+\.bind\(|mkdtemp|NamedTemporaryFile"
    r"|lru_cache|functools\.cache\b|open_connection\(|create_connection\(|create_unix_connection\(|\.open\(\"[wax]"
    r"|\.write_bytes\(|\.write_text\("
)
KNOWN = {
    "certificates.py": "files of `pyglyn certs`, which somebody runs",
    "cli/": "programs that somebody runs",
    "testing/": "for tests",
    "eventsourcing/": "stores and relays, to where the program says",
    "eventsourcing/cluster/sources.py": "no cache of peers' data",
    "net/transport.py": "the distribution port, EPMD: rows of their own",
    "net/epmd_client.py": "what the EPMD is asked",
    "net/discovery.py": "name servers",
    "net/dns.py": "name servers",
    "net/peers.py": "calls what listens",
    "net/registrar.py": "what the EPMD is asked",
    "node/hub.py": "a cache of one value",
    "node/settings.py": "a cache of one value",
    "node/node.py": "calls what listens",
    "supervision/exported.py": "binds arguments",
    "supervision/os/kernel.py": "a cache of one value",
    "supervision/os/program.py": "a child's readiness, by its own socket or a port of its own",
    "node/workers.py": "the socket for workers",
    "node/worker.py": "the link to the hub",
    "node/shared.py": "the memory of a link; a cache with a value for each size of places",
    "node/notify.py": "the heartbeat file, systemd's socket",
    "http/server.py": "the HTTP port",
}


def test_a_new_socket_file_or_cache_is_noticed() -> None:
    """Whoever adds one sees to its row in the table, and then adds its file here."""
    found = {
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*.py")
        if any(OPENS.search(line.partition("#")[0]) for line in path.read_text().splitlines())
    }
    unknown = {name for name in found if not any(name.startswith(known) for known in KNOWN)}
    assert not unknown
