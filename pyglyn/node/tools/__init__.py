"""What Observer, etop, Spectator, LiveDashboard, erldash and people at a shell ask. Layer: node.

Each module has the functions of one or some of OTP's modules, by their names there; `answers` puts
them into a table. All of them read. What changes something is refused unless ``Settings.observe`` is
``full``, and with ``off`` there is none of them.

Source: observer_backend.erl, appmon_info.erl, etop.erl (OTP 25, 28), spectator_ffi.erl,
Phoenix.LiveDashboard.SystemInfo, erldash's erlang.rs.
"""

from __future__ import annotations

from pyglyn.node.census import Census
from pyglyn.node.exports import Exports
from pyglyn.node.hub import Hub
from pyglyn.node.tools import (
    applications,
    appmon,
    live_dashboard,
    modules,
    observer_backend,
    ports,
    processes,
    system_info,
)

_MODULES = (system_info, ports, processes, modules, applications, observer_backend, appmon, live_dashboard)


def add_answers(table: Exports, hub: Hub, census: Census) -> None:
    """Add every function that tools call to the table."""
    for module in _MODULES:
        for (name, function_name), function in module.functions(hub, census).items():
            table.add(name, function, function_name)
    modules.add_code(table)


__all__ = ["add_answers"]
