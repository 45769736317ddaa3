"""Which kind of event loop an OS process runs: asyncio's own, or uvloop's, which is quicker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

Kind: TypeAlias = Literal["asyncio", "uvloop"]
KINDS: Final[tuple[Kind, ...]] = ("asyncio", "uvloop")


def running() -> Kind:
    """The kind of the running event loop."""
    return "uvloop" if type(asyncio.get_running_loop()).__module__ == "uvloop" else "asyncio"


def maker(kind: Kind) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes event loops of a kind; asyncio's are as the program's policy has them.

    Raises:
        ImportError: uvloop is not installed.
    """
    if kind == "asyncio":
        return asyncio.new_event_loop
    import uvloop  # late: an extra

    made: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return made
