"""The last events of stores, for those who name a store's address. Layer: http.

A store is only read, in a thread: so this is for ``pyglyn observe``, which has no children to fork. The first
look reads the whole store once to find its end, the following ones what is new. Events that have no position
yet (PostgreSQL gives it when somebody reads them) are read anew at each look.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

import attrs

from pyglyn.errors import PyglynError
from pyglyn.eventsourcing.domain.trace import Step, step
from pyglyn.eventsourcing.stores.readonly import NO_POSITION, look

LAST: Final = 100
"""How many events are shown."""
MOST_UNNUMBERED: Final = 1000
"""Where more events than these have no position, nobody numbers them: what is new is not shown."""


@attrs.define
class Events:
    """The last events of one store.

    Attributes:
        url: of the store.
        name: that without a password.
        error: why the last look got nothing; empty where it did.
    """

    url: str
    name: str = attrs.field(init=False)
    error: str = ""
    _after: int = 0
    _last: deque[Step] = attrs.field(factory=lambda: deque(maxlen=LAST))
    _unnumbered: deque[Step] = attrs.field(factory=lambda: deque(maxlen=LAST))
    _over: bool = False
    _reading: asyncio.Lock = attrs.field(factory=asyncio.Lock)

    def __attrs_post_init__(self) -> None:
        self.name = self.url.rpartition("@")[2]

    async def look(self) -> list[Step]:
        """The last events, in order; none if they cannot be read."""
        try:
            async with self._reading:
                await asyncio.to_thread(self._read)
        except (PyglynError, OSError) as error:
            self.error = str(error)
            return []
        self.error = ""
        return [*self._last, *self._unnumbered][-LAST:]

    def _read(self) -> None:
        if self._over:
            return
        self._unnumbered.clear()
        unnumbered = 0
        for event in look(self.url, after=self._after):
            is_numbered = event.position != NO_POSITION
            if event.envelope is not None:
                known = step(event.envelope, event.recorded_at)
                (self._last if is_numbered else self._unnumbered).append(known)
            if is_numbered:
                self._after = event.position
            else:
                unnumbered += 1
        self._over = unnumbered > MOST_UNNUMBERED
