"""The last events of stores, with what caused what. Layer: http.

A store is only read, in a thread: so this is for ``pyglyn observe``, which has no children to fork. The first
look reads the whole store once to find its end, the following ones what is new. Events that have no position
yet (PostgreSQL gives it when somebody reads them) are read anew at each look.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

import attrs

from pyglyn.errors import PyglynError
from pyglyn.eventsourcing.domain.trace import Traced, trace
from pyglyn.eventsourcing.stores.readonly import NO_POSITION, look

LAST: Final = 100
"""How many events are shown of a store."""
MOST_UNNUMBERED: Final = 1000
"""Where more events than these have no position, nobody numbers them: what is new is not shown."""


@attrs.define
class Events:
    """The last events of one store.

    Attributes:
        url: of the store.
    """

    url: str
    _after: int = 0
    _last: deque[Any] = attrs.field(factory=lambda: deque(maxlen=LAST))
    _unnumbered: deque[Any] = attrs.field(factory=lambda: deque(maxlen=LAST))
    _over: bool = False
    _reading: asyncio.Lock = attrs.field(factory=asyncio.Lock)

    async def look(self) -> dict[str, Any]:
        """The trees of the last events, the newest first; or why they cannot be read."""
        shown = self.url.rpartition("@")[2]  # a URL may have a password in front of that
        try:
            async with self._reading:
                await asyncio.to_thread(self._read)
        except (PyglynError, OSError) as error:
            return {"store": shown, "error": str(error), "trees": []}
        last = [*self._last, *self._unnumbered][-LAST:]
        roots = trace((event.envelope, event.recorded_at) for event in last)
        return {"store": shown, "error": "", "trees": [_json(root) for root in reversed(roots)]}

    def _read(self) -> None:
        if self._over:
            return
        self._unnumbered.clear()
        unnumbered = 0
        for event in look(self.url, after=self._after):
            is_numbered = event.position != NO_POSITION
            if event.envelope is not None:
                (self._last if is_numbered else self._unnumbered).append(event)
            if is_numbered:
                self._after = event.position
            else:
                unnumbered += 1
        self._over = unnumbered > MOST_UNNUMBERED


def _json(event: Traced) -> dict[str, Any]:
    below = [_json(each) for each in event.caused]
    return {"id": event.id, "name": event.name, "node": event.node, "at": event.at, "caused": below}
