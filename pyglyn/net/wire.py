"""Control messages in the log, one line each: logger ``pyglyn.dist.wire``, level debug. Layer: net.

A line has the peer, the direction, the kind of the message, the pids, references and names in it and how
many bytes of payload came along; never a payload, an exit reason, a trace token or the options of a spawn,
which are the program's own data. Whether a connection is logged is decided when it comes up: where it is not,
its messages take the same way as if there were no log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from pyglyn import etf
from pyglyn.dist import Buffer
from pyglyn.dist.control import Control
from pyglyn.escaping import escaped
from pyglyn.etf import Pid

logger = logging.getLogger("pyglyn.dist.wire")

_LEFT_OUT = frozenset(("token", "reason", "options"))
_LONGEST = 300
"""Characters a name may have here."""

OnMessage = Callable[[Any, Control, "bytes | memoryview | None"], None]
SendControl = Callable[..., None]


def is_logged() -> bool:
    """Whether a connection that comes up now is logged."""
    return logger.isEnabledFor(logging.DEBUG)


def describe(control: Control, payload_size: int | None) -> str:
    """One line about a control message; without a newline, whatever the names in it are."""
    words = [type(control).__name__]
    for field in attrs.fields(type(control)):
        value = getattr(control, field.name)
        if field.name not in _LEFT_OUT and value is not None:
            words.append(f"{field.name}={etf.text.format(value, limit=_LONGEST)}")
    if payload_size is not None:
        words.append(f"({payload_size} bytes)")
    return escaped(" ".join(words))


def logging_received(on_message: OnMessage) -> OnMessage:
    """The same callback of a connection, with a line for each message first."""

    def received(connection: Any, control: Control, payload: bytes | memoryview | None) -> None:
        size = None if payload is None else len(payload)
        logger.debug("%s -> %s", connection.name, describe(control, size))
        on_message(connection, control, payload)

    return received


def logging_sent(peer: str, send: SendControl) -> SendControl:
    """The same sending of a channel, with a line for each message that was taken."""

    def sent(control: Control, payload: Sequence[Buffer] | None = None, *, sender: Pid | None = None) -> None:
        send(control, payload, sender=sender)
        size = None if payload is None else sum(map(len, payload))
        logger.debug("%s <- %s", peer, describe(control, size))

    return sent
