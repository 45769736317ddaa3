"""The last events of stores, with what caused what. Layer: http.

A store is only read, in a thread: so this is for ``pyglyn observe``, which has no children to fork. The first
look reads the whole store once to find its end, the following ones what is new.
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


@attrs.define
class Events:
    """The last events of one store.

    Attributes:
        url: of the store.
    """

    url: str
    _after: int = 0
    _last: deque[Any] = attrs.field(factory=lambda: deque(maxlen=LAST))
    _over: bool = False

    async def look(self) -> dict[str, Any]:
        """The trees of the last events, the newest first; or why they cannot be read."""
        shown = self.url.rpartition("@")[2]  # a URL may have a password in front of that
        try:
            await asyncio.to_thread(self._read)
        except PyglynError as error:
            return {"store": shown, "error": str(error), "trees": []}
        roots = trace((event.envelope, event.recorded_at) for event in self._last)
        return {"store": shown, "error": "", "trees": [_json(root) for root in reversed(roots)]}

    def _read(self) -> None:
        if self._over:
            return
        for event in look(self.url, after=self._after):
            if event.envelope is not None:
                self._last.append(event)
            if event.position == NO_POSITION:
                self._over = True  # nobody numbers them: what is new cannot be told
            else:
                self._after = event.position


def _json(event: Traced) -> dict[str, Any]:
    below = [_json(each) for each in event.caused]
    return {"id": event.id, "name": event.name, "node": event.node, "at": event.at, "caused": below}
