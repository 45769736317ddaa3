"""How many connections the HTTP port keeps: they take descriptors, and anybody may make them. Layer: http."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Final, Generic, Protocol, TypeVar

from pyglyn.net.transport import share_of_descriptors

logger = logging.getLogger("pyglyn.http")

MAX_CONNECTIONS: Final = 256
"""Connections at once; a sixteenth of the files the process may open, if that is fewer."""


ACCEPTED_A_TURN: Final = 4
"""Connections that are accepted in a turn of the event loop. Some six turns pass until the request of one is
seen: it must not have been the oldest that asks nothing by then."""


class Abortable(Protocol):
    """The part of a transport that is needed here."""

    def abort(self) -> None: ...


K = TypeVar("K")


class Connections(Generic[K]):
    """Closes the connection that has asked nothing for longest where there are too many; one that asks stays.

    Args:
        most: how many there may be.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = share_of_descriptors(16, MAX_CONNECTIONS) if most is None else most
        self._transports: dict[K, Abortable] = {}
        self._quiet: dict[K, None] = {}  # the one that asks nothing for longest first
        self._said = False

    def __len__(self) -> int:
        return len(self._transports)

    @property
    def busy(self) -> bool:
        """Whether half of those there may be ask something: others would find no place to ask from."""
        return 2 * (len(self._transports) - len(self._quiet)) >= self._most

    def made(self, connection: K, transport: Abortable) -> None:
        """There is one more: it, or an older one, goes where that is too many."""
        if len(self._transports) >= self._most:
            if not self._said:
                self._said = True
                logger.warning("more than %d HTTP connections; those that ask nothing are closed", self._most)
            oldest = next(iter(self._quiet), None)
            if oldest is None:
                transport.abort()
                return
            gone = self._transports[oldest]
            self.lost(oldest)
            gone.abort()
        self._transports[connection] = transport
        self._quiet[connection] = None

    def lost(self, connection: K) -> None:
        """One is closed."""
        self._transports.pop(connection, None)
        self._quiet.pop(connection, None)
        self._said = self._said and 2 * len(self._transports) > self._most

    @contextlib.contextmanager
    def asking(self, connection: K) -> Iterator[None]:
        """While a request over a connection is answered."""
        self._quiet.pop(connection, None)
        try:
            yield
        finally:
            if connection in self._transports:
                self._quiet[connection] = None
