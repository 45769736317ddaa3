"""The distribution protocol without sockets: bytes in, events out. Layer: dist, pure.

``handshake`` sets a connection up, ``channel`` is the established one, ``control`` has the messages that
travel over it, ``flags`` what two nodes can agree on, ``epmd`` the port mapper's protocol.
"""

from __future__ import annotations

from pyglyn.dist.channel import (
    Channel,
    ChannelSettings,
    MessageReceived,
    PeerSilent,
    ProtocolBroken,
    TickReceived,
)
from pyglyn.dist.flags import MANDATORY_25, MANDATORY_26, RECOMMENDED, DistFlags
from pyglyn.dist.framing import Buffer
from pyglyn.dist.handshake import (
    Acceptor,
    AliveReceived,
    HandshakeComplete,
    Initiator,
    LocalSide,
    UNDEFINED,
    NameReceived,
    NokReceived,
    has_long_host,
    is_node_name,
    is_own_name,
)

__all__ = [
    "MANDATORY_25",
    "MANDATORY_26",
    "RECOMMENDED",
    "Acceptor",
    "AliveReceived",
    "Buffer",
    "Channel",
    "ChannelSettings",
    "DistFlags",
    "HandshakeComplete",
    "Initiator",
    "LocalSide",
    "MessageReceived",
    "UNDEFINED",
    "NameReceived",
    "NokReceived",
    "PeerSilent",
    "ProtocolBroken",
    "TickReceived",
    "has_long_host",
    "is_node_name",
    "is_own_name",
]
