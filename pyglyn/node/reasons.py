"""Why a process ended, as terms, and the few atoms that stand in nearly every answer. Layer: node, pure.

Source: Erlang Reference Manual, "Processes" (exit reasons, the messages of links and monitors).
"""

from __future__ import annotations

from typing import Final

from pyglyn.etf import Atom, Term

OK: Final = Atom("ok")
ERROR: Final = Atom("error")
UNDEFINED: Final = Atom("undefined")

NORMAL: Final = Atom("normal")
SHUTDOWN: Final = Atom("shutdown")
KILL: Final = Atom("kill")
KILLED: Final = Atom("killed")
NOPROC: Final = Atom("noproc")
NOCONNECTION: Final = Atom("noconnection")
NODEDOWN: Final = Atom("nodedown")
BADARG: Final = Atom("badarg")
RECYCLED: Final = (SHUTDOWN, Atom("recycled"))
"""The reason with which a child ends that is to be started anew; no failure, so no restart that counts."""

EXIT: Final = Atom("EXIT")
"""Tag of the message ``{'EXIT', Pid, Reason}``, which an exit signal becomes where exits are trapped."""
DOWN: Final = Atom("DOWN")
"""Tag of the message ``{'DOWN', Ref, process, Item, Reason}`` of a monitor."""


def is_clean(reason: Term) -> bool:
    """True of ``normal``, ``shutdown`` and ``{shutdown, _}``, which are not logged as crashes."""
    if reason is NORMAL or reason is SHUTDOWN:
        return True
    return isinstance(reason, tuple) and len(reason) == 2 and reason[0] is SHUTDOWN
