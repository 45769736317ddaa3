"""Accept connections from other nodes. Layer: net."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from pyglyn.errors import HandshakeError
from pyglyn.net.settings import LocalNode, NetSettings
from pyglyn.net.transport import ListeningSockets, explain, listen

logger = logging.getLogger("pyglyn.net")


class Listener:
    """The port at which other nodes reach this one.

    Binds loopback only where the host part of the name is ``localhost``, ``127.0.0.1`` or ``::1``, else all
    interfaces, and says so.
    """

    def __init__(
        self, local: LocalNode, settings: NetSettings, factory: Callable[[], asyncio.Protocol]
    ) -> None:
        self._local = local
        self._settings = settings
        self._factory = factory
        self._sockets: ListeningSockets | None = None

    @property
    def port(self) -> int:
        """Where it listens; 0 while it does not."""
        return self._sockets.port if self._sockets is not None else 0

    async def start(self) -> None:
        """Begin to accept.

        Raises:
            HandshakeError: the port is in use, or may not be bound.
        """
        net = self._settings
        address = net.loopback if self._local.loopback_only else net.everywhere
        try:
            self._sockets = await listen([address], net.port, self._factory)
        except OSError as error:
            raise HandshakeError(f"cannot listen on {address}:{net.port}: {explain(error)}") from error
        if self._local.loopback_only:
            logger.info("%s listens on %s:%d", self._local.name, address, self.port)
        else:
            logger.warning(
                "%s listens on port %d of all interfaces: whoever has the cookie can use this node",
                self._local.name,
                self.port,
            )

    def close(self) -> None:
        """Stop accepting."""
        if self._sockets is not None:
            self._sockets.close()
            self._sockets = None
