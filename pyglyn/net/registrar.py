"""Keep a node registered with EPMD, and be the EPMD where there is none. Layer: net.

Real nodes start the ``epmd`` program when they start; later, when it goes away, they only try to register
again every two seconds (erl_epmd.erl). This one does the same, and whenever nothing answers at EPMD's port
it serves EPMD itself. So when the process that does ends, the next of our nodes takes over, and every node
keeps the creation it had.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os

from pyglyn.dist.epmd import FIRST_CREATION, LAST_CREATION, NodeEntry, NodeType, name_taken
from pyglyn.errors import EpmdError, EpmdNameTaken, EpmdUnreachable, HandshakeError
from pyglyn.net import epmd_client
from pyglyn.net.epmd_client import Registration
from pyglyn.net.epmd_server import LOOPBACK, EpmdServer
from pyglyn.net.settings import LOOPBACK_HOSTS, LocalNode, NetSettings, epmd_addresses_from_environment
from pyglyn.net.transport import explain, resolve

logger = logging.getLogger("pyglyn.net.epmd")

_PATIENCE_S = 1.0

EVERYWHERE = ("0.0.0.0", "::")
_NOT_OUTSIDE = (
    "which only this machine reaches: nodes on others will not find it. "
    "Start epmd first, or set ERL_EPMD_ADDRESS for the node that serves EPMD"
)


def random_creation() -> int:
    """Choose a creation: another one than earlier nodes of the same name had, as good as certainly."""
    return FIRST_CREATION + int.from_bytes(os.urandom(8), "big") % (LAST_CREATION - FIRST_CREATION)


class Registrar:
    """Register a node and keep it registered.

    Attributes:
        server: our own EPMD while we serve it, else None.
    """

    def __init__(self, local: LocalNode, settings: NetSettings) -> None:
        self.server: EpmdServer | None = None
        self._local = local
        self._settings = settings
        self._entry: NodeEntry | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._warned: set[str] = set()
        self._registered = False

    @property
    def problem(self) -> str:
        """Why other nodes do not find this one by its name now; empty where they do."""
        if self._registered or not self._settings.has_epmd:
            return ""
        return f"not registered with the EPMD on port {self._settings.epmd_port}"

    async def check(self) -> None:
        """Find out whether another node has the name, or nobody can be asked.

        Raises:
            EpmdNameTaken: another node that lives has it.
            EpmdUnreachable: there is no EPMD, and we may not be it.
            NotEpmd: what answers is no EPMD.
        """
        name, port = self._local.alive_name, self._settings.epmd_port
        if not port:
            return
        try:
            if name in dict(await epmd_client.names("127.0.0.1", port)) and await self._is_held(name):
                raise name_taken(name)
        except EpmdUnreachable:
            if not self._settings.embedded_epmd:
                raise

    async def start(self, port: int) -> None:
        """Register the node as listening on a port, unless the settings say that there is no EPMD.

        Raises:
            EpmdError: the name is taken, or there is no EPMD and we may not or cannot be it.
        """
        if not self._settings.has_epmd:
            return
        node_type = NodeType.HIDDEN if self._local.hidden else NodeType.NORMAL
        self._entry = NodeEntry(name=self._local.alive_name, port=port, node_type=node_type)
        try:
            registration = await self._register_first()
        except BaseException:
            self._stop_server()
            raise
        logger.info(
            "registered as %s with %s on port %d",
            self._entry.name,
            "our own EPMD" if self.server else "the EPMD",
            self._settings.epmd_port,
        )
        self._registered = True
        self._keeper = asyncio.create_task(self._keep(registration), name="pyglyn EPMD registration")

    def met(self, node: str) -> None:
        """Look at a node that has connected: it may be registered here, but be meant for other machines."""
        server = self.server
        if server is None or not server.this_machine_only or node in self._warned:
            return
        alive, _, host = node.partition("@")
        if host not in LOOPBACK_HOSTS and any(entry.name == alive for entry in server.nodes):
            self._warned.add(node)
            logger.warning("%s is registered with the EPMD of %s, %s", node, self._local.name, _NOT_OUTSIDE)

    async def _check_reach(self) -> None:
        """Say so where the EPMD of this machine serves this machine only, but our name is for others too."""
        if self.server is not None or self._local.loopback_only:
            return
        timeout_s = self._settings.setup_timeout_s
        with contextlib.suppress(HandshakeError, EpmdError):
            address = await resolve(self._local.host, timeout_s, ipv6=self._settings.ipv6)
            try:
                await epmd_client.names(address, self._settings.epmd_port, timeout_s=timeout_s)
            except EpmdUnreachable as error:
                logger.warning("%s is registered with an EPMD %s (%s)", self._local.name, _NOT_OUTSIDE, error)

    async def stop(self) -> None:
        """Unregister, and stop our EPMD if we serve it: another node will take over."""
        self._registered = False
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeper
        self._stop_server()

    def _stop_server(self) -> None:
        server, self.server = self.server, None
        if server is not None:
            server.stop()

    async def _register_first(self) -> Registration:
        """Register, with some patience for a name whose holder has just ended."""
        assert self._entry is not None
        deadline = asyncio.get_running_loop().time() + _PATIENCE_S
        while True:
            try:
                return await self._register()
            except EpmdNameTaken:
                expired = asyncio.get_running_loop().time() >= deadline
                if expired or await self._is_held(self._entry.name):
                    raise
            await asyncio.sleep(_PATIENCE_S / 20)

    async def _is_held(self, name: str) -> bool:
        """Tell whether the holder of a name still listens; EPMD notices its end a little later."""
        try:
            entry = await epmd_client.lookup(name, "127.0.0.1", self._settings.epmd_port)
            async with asyncio.timeout(_PATIENCE_S):
                _, writer = await asyncio.open_connection(self._settings.loopback, entry.port)
        except (EpmdError, ConnectionRefusedError):
            return False
        except OSError:
            return True
        writer.transport.abort()
        return True

    async def _register(self) -> Registration:
        """Register with whoever is EPMD, be it ourselves from now on."""
        assert self._entry is not None
        port = self._settings.epmd_port
        try:
            return await epmd_client.register(self._entry, "127.0.0.1", port)
        except EpmdUnreachable:
            if not self._settings.embedded_epmd:
                raise
        self._stop_server()
        server = EpmdServer(port, self._addresses())
        try:
            await server.start()
            self.server = server
        except OSError as error:
            # Another one may have been quicker; if not, registering fails and this is why.
            logger.info("cannot serve EPMD on port %d: %s", port, explain(error))
        return await epmd_client.register(self._entry, "127.0.0.1", port)

    def _addresses(self) -> tuple[str, ...]:
        chosen = self._settings.epmd_addresses
        if chosen is None:
            chosen = epmd_addresses_from_environment() or (() if self._local.loopback_only else EVERYWHERE)
        if set(chosen) & set(EVERYWHERE):
            return chosen
        return tuple(dict.fromkeys((*LOOPBACK, *chosen)))

    async def _keep(self, registration: Registration) -> None:
        """Register again whenever the registration is lost, for as long as it takes."""
        try:
            await self._check_reach()
        except BaseException:
            registration.close()
            raise
        while True:
            try:
                await registration.lost()
            finally:
                registration.close()
            self._registered = False
            logger.warning("the connection to EPMD is lost, trying again")
            registration = await self._register_again()
            self._registered = True
            logger.info("registered again with %s", "our own EPMD" if self.server else "EPMD")

    async def _register_again(self) -> Registration:
        complaint = ""
        while True:
            await asyncio.sleep(self._settings.epmd_retry_s)
            try:
                return await self._register()
            except EpmdError as error:
                if str(error) != complaint:
                    complaint = str(error)
                    logger.warning("cannot register again yet: %s", complaint)
