"""``application``, ``init`` and ``net_kernel``: what runs on the node, and how it stands. Layer: node.

Applications are the supervision trees, with the version of the distribution that their code is from, this
package, and Python. Of the command line nothing is told: there may be a cookie on it.
"""

from __future__ import annotations

import asyncio
import os
import platform
import sys
from pathlib import Path
from typing import Final

from pyglyn.etf import Atom, Term
from pyglyn.node.census import Census
from pyglyn.node.destinations import name_of
from pyglyn.node.exits import atom_of
from pyglyn.node.hub import Application, Hub
from pyglyn.node.reasons import ERROR, OK, UNDEFINED
from pyglyn.node.tools.terms import Functions, check_may_change, text

STOP_DELAY_S: Final = 0.05
"""Lets the answer to who asked for the end go out first."""


def running(hub: Hub) -> list[Application]:
    """The applications of a node."""
    return [
        *hub.applications.values(),
        Application("pyglyn", "A node of an Erlang cluster in Python", "pyglyn", hub.system.pid),
        Application("python", "The Python interpreter", platform.python_implementation()),
    ]


def find(hub: Hub, name: Term) -> Application | None:
    """The application with a name."""
    return next((each for each in running(hub) if each.name == name_of(name)), None)


def triple(application: Application) -> Term:
    """``{Name, Description, Version}``."""
    return (atom_of(application.name), text(application.description), text(application.version))


def stop_soon(hub: Hub) -> None:
    """Stop the node, once what it is about to say has been said."""
    asyncio.get_running_loop().call_later(STOP_DELAY_S, hub.stopping.set)


def functions(hub: Hub, census: Census) -> Functions:
    """Those of modules ``application``, ``application_controller``, ``init`` and ``net_kernel``."""

    async def which_applications(timeout: Term = None) -> Term:
        return [triple(application) for application in running(hub)]

    async def get_key(application: Term, key: Term) -> Term:
        found = find(hub, application)
        if found is None or key not in (Atom("vsn"), Atom("description")):
            return UNDEFINED
        return (OK, text(found.version if key is Atom("vsn") else found.description))

    async def get_master(application: Term) -> Term:
        found = find(hub, application)
        return UNDEFINED if found is None else found.top or UNDEFINED

    async def get_argument(flag: Term) -> Term:
        values = {"home": str(Path.home()), "progname": os.path.basename(sys.argv[0]), "root": sys.prefix}
        value = values.get(name_of(flag) or "")
        return ERROR if value is None else (OK, [[text(value)]])

    async def get_arguments() -> Term:
        return []

    async def get_status() -> Term:
        status = Atom("stopping" if hub.stopping.is_set() else "started")
        return (status, status)

    async def stop() -> Term:
        check_may_change(hub, "init:stop/0")
        stop_soon(hub)
        return OK

    async def get_net_ticktime() -> Term:
        return round(hub.settings.net.channel.net_ticktime_s)

    async def get_state() -> Term:
        host = hub.name.partition("@")[2]
        return {
            Atom("started"): Atom("static"),
            Atom("name"): Atom(hub.name),
            Atom("name_type"): Atom("static"),
            Atom("name_domain"): Atom("longnames" if "." in host else "shortnames"),
        }

    return {
        ("application", "which_applications"): which_applications,
        ("application", "loaded_applications"): which_applications,
        ("application", "get_key"): get_key,
        ("application_controller", "get_master"): get_master,
        ("init", "get_argument"): get_argument,
        ("init", "get_arguments"): get_arguments,
        ("init", "get_plain_arguments"): get_arguments,
        ("init", "get_status"): get_status,
        ("init", "stop"): stop,
        ("net_kernel", "get_net_ticktime"): get_net_ticktime,
        ("net_kernel", "get_state"): get_state,
    }
