"""Who may talk to the hub's socket for workers: OS processes of this user that show the token. Layer: node.

On Linux the socket is in the abstract namespace, where anybody on the machine can find it and connect. So a
connection is nobody's until it has shown the token, which has a fixed size and is read before anything
else: no frame of a stranger is parsed, nor waited for. Until then it is of this user (or of root, who can do
all of it anyway), and one of few, and has little time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from pyglyn.complaints import Complaints
from pyglyn.credentials import may_talk, user_of
from pyglyn.digests import compare_digest
from pyglyn.node.link import LinkProtocol
from pyglyn.patience import Patience, after_reading

logger = logging.getLogger("pyglyn.node")

MAX_UNKNOWN: Final = 64
"""Connections that have not shown the token yet; of more, the oldest go, once they have been read."""


class Admission:
    """The connections that have not shown the token yet.

    Args:
        token: what has to be shown.
        timeout_s: how long a connection may take to show it.
    """

    def __init__(self, token: bytes, timeout_s: float) -> None:
        self.token = token
        self.timeout_s = timeout_s
        self.unknown: dict[Arriving, None] = {}
        self._complaints = Complaints()

    def arrived(self, connection: Arriving) -> None:
        """One more; it has to show the token now."""
        self.unknown[connection] = None
        if len(self.unknown) > MAX_UNKNOWN:
            after_reading(self._make_room)

    def left(self, connection: Arriving) -> None:
        """It has shown the token, or is gone."""
        self.unknown.pop(connection, None)

    def refuse(self, connection: Arriving, why: str) -> None:
        """Close a connection; each cause is logged once a burst."""
        self._complaints.log(logger, why, start="refused a connection to the socket for workers: ")
        self.left(connection)
        connection.abort()

    def _make_room(self) -> None:
        """Close the oldest: one of ours sends the token the moment it has connected."""
        for connection in list(self.unknown)[: len(self.unknown) - MAX_UNKNOWN]:
            self.refuse(connection, "too many have not shown the token")

    def close(self) -> None:
        """Close all of them."""
        for connection in list(self.unknown):
            self.left(connection)
            connection.abort()


class Arriving(LinkProtocol):
    """The hub's end of a link, which begins with the token.

    Args:
        admission: whom to ask.
        others: those of `LinkProtocol`.
    """

    def __init__(self, admission: Admission, *args: Callable[..., None], **others: Any) -> None:
        super().__init__(*args, **others)
        self._admission: Admission | None = admission
        self._is_known = False
        self._shown = b""
        self._timer: Patience | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        admission = self._admission
        assert admission is not None
        user = user_of(transport.get_extra_info("socket"))
        if not may_talk(user):
            admission.refuse(self, f"it is of user {user}")
            return
        self._timer = Patience(admission.timeout_s, admission.refuse, self, "the token did not come in time")
        admission.arrived(self)

    def data_received(self, data: bytes) -> None:
        admission = self._admission
        if admission is None:
            super().data_received(data)
            return
        missing = len(admission.token) - len(self._shown)
        self._shown += data[:missing]
        if len(data) < missing or self.transport is None or self.transport.is_closing():
            return
        if not compare_digest(self._shown, admission.token):
            admission.refuse(self, "the token is wrong")
            return
        self._be_known()
        admission.left(self)
        super().data_received(data[missing:])

    def connection_lost(self, exc: Exception | None) -> None:
        admission = self._admission
        if admission is not None:
            self._closed = True  # no frame of a stranger is read, also not what it said last
            admission.left(self)
        self._be_known()
        super().connection_lost(exc)

    def _be_known(self) -> None:
        self._admission, self._shown = None, b""
        self._is_known = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
