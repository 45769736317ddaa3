"""What a manager keeps of aggregates that have keys is encrypted by them, so that it is forgotten with them.

It is so where events come from a store with keys and the instances are its aggregates (no ``correlate``), for
states, and for commands until they are sent, wherever they are kept. What belongs to an aggregate that was
forgotten reads as nothing. What was kept in clear text is read as it is.

Layer: eventsourcing, managers.
"""

from __future__ import annotations

from pyglyn.errors import Forgotten
from pyglyn.eventsourcing.stores.encryption import TEXT_MARK, KeyRing, KeysMissing


class Sealing:
    """Encrypts what one manager keeps.

    Args:
        manager: its name.
        ring: the keys of its instances; None where they have none.
    """

    def __init__(self, manager: str, ring: KeyRing | None) -> None:
        self._what = f"manager {manager}"
        self._ring = ring

    async def seal(self, instance: str, text: str) -> str | None:
        """Return a text as it is kept; None if the instance was forgotten."""
        ring = self._ring
        if ring is None:
            return text
        try:
            if not await self._has_key(ring, instance):
                return text
            return ring.seal_text(instance, self._what, text)
        except Forgotten:
            return None

    async def _has_key(self, ring: KeyRing, instance: str) -> bool:
        try:
            ring.key(instance)
            return True
        except KeysMissing:
            return await ring.has(instance)

    async def open(self, text: str) -> str | None:
        """Return a text as it was given to `seal`; None if the instance was forgotten.

        Raises:
            EventDecodeError: it was changed.
            EventStoreError: the keys are lost, or cannot be reached.
        """
        return text if self._ring is None else await self._ring.text_of(self._what, text)

    async def seal_command(self, instance: str, command: bytes) -> bytes | None:
        """As `seal`, of a command in the external term format."""
        if self._ring is None:
            return command
        sealed = await self.seal(instance, command.decode("latin-1"))
        return None if sealed is None else _bytes(sealed)

    async def open_command(self, command: bytes) -> bytes | None:
        """As `open`, of a command."""
        if self._ring is None or not command.startswith(TEXT_MARK.encode()):
            return command
        opened = await self.open(command.decode())
        return None if opened is None else _bytes(opened)


def _bytes(text: str) -> bytes:
    return text.encode("latin-1")
