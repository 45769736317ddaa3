"""Connections to other nodes over asyncio: the only place with sockets. Layer: net."""

from __future__ import annotations

from pyglyn.net.connection import Connection
from pyglyn.net.discovery import Discovery
from pyglyn.net.epmd_server import EpmdServer
from pyglyn.net.peers import Peers
from pyglyn.net.settings import LocalNode, NetSettings
from pyglyn.net.tls import TlsSettings, TlsSide

__all__ = [
    "Connection",
    "Discovery",
    "EpmdServer",
    "LocalNode",
    "NetSettings",
    "Peers",
    "TlsSettings",
    "TlsSide",
]
