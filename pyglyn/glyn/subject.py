"""Messages to Gleam subjects; what is done with messages that do not decode. Layer: glyn."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Generic, TypeAlias, TypeVar

from pyglyn import etf, gleam
from pyglyn.errors import DecodeError, DecodeErrors
from pyglyn.etf import Limits, Term
from pyglyn.gleam import NamedSubject, Subject
from pyglyn.node import At

logger = logging.getLogger("pyglyn.glyn")

T = TypeVar("T")

Undecodable: TypeAlias = Callable[[Term, DecodeErrors], None]
"""Gets the raw term of a message that did not decode, and why."""


def send(at: At, subject: Subject[Any] | NamedSubject[Any], value: object) -> None:
    """Send a value to a Gleam subject, as ``process.send``; replies to calls go this way.

    A named subject means a process of this node. Nothing tells whether somebody receives it.

    Raises:
        ValueEncodeError: the value has no Gleam counterpart.
    """
    if isinstance(subject, NamedSubject):
        at.send(subject.name, (subject.name, gleam.encode(value)))
    else:
        at.send(subject.owner, (subject.tag, gleam.encode(value)))


class Codec(Generic[T]):
    """Decodes and encodes the messages of a PubSub or Registry.

    Args:
        decoder: a decoder, or a type to derive one from; with a type, what is sent is checked against it too.
        on_undecodable: called for what does not decode; by default it is logged (the first hundred
            characters, at most once for each kind of failure).
        where: what it is for, for the log.

    Attributes:
        undecodable: how many messages did not decode.
    """

    MAX_LOGGED = 100

    def __init__(self, decoder: Any, on_undecodable: Undecodable | None, where: str) -> None:
        self.undecodable = 0
        self._decoder: gleam.Decoder[T] = gleam.as_decoder(decoder)
        self._encoder = None if isinstance(decoder, gleam.Decoder) else gleam.encoder(decoder)
        self._on_undecodable = on_undecodable or self._log
        self._where = where
        self._logged: set[str] = set()

    def encode(self, message: T) -> Term:
        """The term of a message.

        Raises:
            ValueEncodeError: it has none, or is not of the declared type.
        """
        return gleam.encode(message) if self._encoder is None else self._encoder.encode(message)

    def decode(self, term: Term) -> tuple[bool, T | None]:
        """``(True, message)``; or ``(False, None)`` after the handler got what did not decode."""
        try:
            return True, self._decoder.decode(term)
        except DecodeErrors as error:
            self.undecodable += 1
            try:
                self._on_undecodable(term, error)
            except Exception:
                logger.exception("%s: the handler of undecodable messages failed", self._where)
            return False, None

    def read(self, payload: bytes | memoryview, at: int, limits: Limits) -> tuple[bool, T | None]:
        """``(True, message)`` of one that is encoded from an offset on; else ``(False, None)``, untold."""
        try:
            return True, self._decoder.decode_bare(payload, at, limits=limits)
        except (DecodeErrors, DecodeError):
            return False, None

    def _log(self, term: Term, error: DecodeErrors) -> None:
        reason = str(error)
        if reason in self._logged or len(self._logged) >= self.MAX_LOGGED:
            return
        self._logged.add(reason)
        logger.warning("%s: dropped %.100s: %s", self._where, etf.text.format(term), reason)
