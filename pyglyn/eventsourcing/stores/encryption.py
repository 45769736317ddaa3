"""Payloads and entities encrypted by the key of their aggregate, in rows. Pure but for the clock.

A stored payload is ``{"pyglyn-encrypted":"…","event-type":"…"}``: base64 of a nonce of 12 bytes, the
ciphertext of AES-256-GCM and its tag. What kind of event it is stays readable, so that it can be selected.
Type, id and sequence of the event are authenticated with it: no ciphertext can stand in for another one.

What was stored before keys were used is read as it is. An event whose key is gone is none any more
(`Several` of nothing): it keeps its place, and has no effect.

Keys are known for a minute, then asked for again: so long another OS process goes on with a forgotten one.

Layer: eventsourcing, stores.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import attrs

from pyglyn.errors import EventDecodeError, EventStoreError, Forgotten
from pyglyn.eventsourcing.domain.envelope import RecordedEvent, SerializedEventEnvelop
from pyglyn.eventsourcing.domain.evolution import Several
from pyglyn.eventsourcing.domain.snapshot import Snapshot
from pyglyn.eventsourcing.stores.json.codec import JsonCodec
from pyglyn.eventsourcing.stores.json.text import dump
from pyglyn.eventsourcing.stores.keys import Keys
from pyglyn.eventsourcing.stores.rows import (
    NOTHING_USUAL,
    EventRow,
    PositionedRow,
    RowCodec,
    SnapshotRow,
    Usual,
)

E = TypeVar("E")
S = TypeVar("S")

MARK = "pyglyn-encrypted"
_BEGIN = f'{{"{MARK}":"'
_FORGOTTEN = "\0forgotten"
_NONCE = 12
KNOWN_S = 60.0
MOST_KEYS = 100_000

TEXT_MARK = f"{MARK}:"
"""Before texts that are no JSON of ours: messages of the outbox, what is parked, what managers keep."""


class KeysMissing(Exception):
    """Keys have to be fetched before this can be read."""

    def __init__(self, ids: Iterable[str]) -> None:
        super().__init__("keys have to be fetched")
        self.ids = set(ids)


class KeyRing:
    """The keys known at hand.

    Args:
        keys: where all are.
        aggregate_type: whose.
        known_s: for how long one is believed to be still there, in seconds.
        most: how many are known at a time.
    """

    def __init__(
        self, keys: Keys, aggregate_type: str, *, known_s: float = KNOWN_S, most: int = MOST_KEYS
    ) -> None:
        self.keys = keys
        self.aggregate_type = aggregate_type
        self._known_s = known_s
        self._most = most
        self._known: OrderedDict[str, tuple[bytes | None, float]] = OrderedDict()

    def __reduce__(self) -> Any:
        return type(self), (self.keys, self.aggregate_type)

    def key(self, aggregate_id: str) -> bytes | None:
        """Return a key that is known; None for one that was forgotten.

        Raises:
            KeysMissing: it is not known.
        """
        found = self._known.get(aggregate_id)
        if found is None or (found[0] is not None and found[1] < time.monotonic()):
            raise KeysMissing([aggregate_id])
        return found[0]

    def is_forgotten(self, aggregate_id: str) -> bool:
        """Tell whether an aggregate is known to have been forgotten."""
        return self._known.get(aggregate_id, (b"", 0.0))[0] is None

    def missing(self, ids: Iterable[str]) -> set[str]:
        """Return of which aggregates the key is not known."""
        found: set[str] = set()
        for id in ids:
            try:
                self.key(id)
            except KeysMissing:
                found.add(id)
        return found

    async def fetch(self, ids: Iterable[str]) -> None:
        """Get to know keys.

        Raises:
            EventStoreError: there is none, and none was forgotten: these are not the keys of this store.
        """
        wanted = set(ids)
        found = await self.keys.find(self.aggregate_type, wanted)
        for id, key in found.items():
            self._know(id, key)
        lost = sorted(wanted - found.keys(), key=repr)
        if lost:
            raise EventStoreError(f"there is no key of {lost[0]!r}, nor was it forgotten: are the keys lost?")

    async def has(self, aggregate_id: str) -> bool:
        """Tell whether an aggregate has a key.

        Raises:
            Forgotten: it had one.
        """
        found = await self.keys.find(self.aggregate_type, [aggregate_id])
        for id, key in found.items():
            self._know(id, key)
        if aggregate_id in found and self.key(aggregate_id) is None:
            raise Forgotten(aggregate_id)
        return aggregate_id in found

    async def make(self, aggregate_id: str) -> None:
        """See to it that an aggregate has a key.

        Raises:
            Forgotten: it was forgotten.
        """
        try:
            known = self.key(aggregate_id)
        except KeysMissing:
            known = None
        if known is None:
            self._know(aggregate_id, await self.keys.make(self.aggregate_type, aggregate_id))

    async def forget(self, aggregate_id: str) -> None:
        """Delete a key for good."""
        await self.keys.forget(self.aggregate_type, aggregate_id)
        self._know(aggregate_id, None)

    def _know(self, aggregate_id: str, key: bytes | None) -> None:
        known = self._known.get(aggregate_id)
        if known is not None and known[0] is None:
            key = None  # it was forgotten while somebody asked for it
        self._known[aggregate_id] = key, time.monotonic() + self._known_s
        self._known.move_to_end(aggregate_id)
        if len(self._known) > self._most:
            self._known.popitem(last=False)

    def seal(self, aggregate_id: str, what: str, text: str) -> str:
        """Encrypt a text.

        Args:
            aggregate_id: by whose key.
            what: it is, which has to be told again to open it.
            text: to be encrypted.

        Raises:
            Forgotten: there is no key any more.
        """
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        key = self.key(aggregate_id)
        if key is None:
            raise Forgotten(aggregate_id)
        nonce = secrets.token_bytes(_NONCE)
        sealed = AESGCM(key).encrypt(nonce, text.encode(), self._bound(aggregate_id, what))
        return base64.b64encode(nonce + sealed).decode()

    def open(self, aggregate_id: str, what: str, sealed: str) -> str | None:
        """Decrypt a text; None if its key is gone.

        Raises:
            EventDecodeError: it was changed, or is that of something else.
        """
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        key = self.key(aggregate_id)
        if key is None:
            return None
        try:
            raw = base64.b64decode(sealed, validate=True)
            opened = AESGCM(key).decrypt(raw[:_NONCE], raw[_NONCE:], self._bound(aggregate_id, what))
        except (InvalidTag, ValueError, binascii.Error) as error:
            raise EventDecodeError(["it was encrypted by another key, or changed"], payload=sealed) from error
        return opened.decode()

    def mark(self, aggregate_id: str) -> str:
        """Return what texts begin with that `seal_text` has made of an aggregate's."""
        return TEXT_MARK + json.dumps([self.aggregate_type, aggregate_id])[:-1] + ', "'

    def seal_text(self, aggregate_id: str, what: str, text: str) -> str:
        """Encrypt a text as `seal`, so that it says whose it is."""
        return f'{self.mark(aggregate_id)}{self.seal(aggregate_id, what, text)}"]'

    def open_text(self, what: str, text: str) -> str | None:
        """Return a text as it was before `seal_text`; others as they are; None if its key is gone.

        Raises:
            KeysMissing, EventDecodeError: as `open`.
        """
        if not text.startswith(TEXT_MARK):
            return text
        _type, aggregate_id, sealed = json.loads(text[len(TEXT_MARK) :])
        return self.open(aggregate_id, what, sealed)

    async def text_of(self, what: str, text: str) -> str | None:
        """Return what `open_text` does, and fetch the key if it is not known."""
        try:
            return self.open_text(what, text)
        except KeysMissing as missing:
            await self.fetch(missing.ids)
            return self.open_text(what, text)

    def _bound(self, aggregate_id: str, what: str) -> bytes:
        return json.dumps([self.aggregate_type, aggregate_id, what]).encode()


def sealed_in(text: object) -> str | None:
    """Return what is encrypted in a stored payload or entity; None if nothing is."""
    if type(text) is not str or not text.startswith(_BEGIN):
        return None
    return text[len(_BEGIN) : text.index('"', len(_BEGIN))]


class _Forgetful(JsonCodec[E]):
    """A codec that reads an event that was forgotten as none."""

    def __init__(self, inside: JsonCodec[E]) -> None:
        self.__dict__.update(inside.__dict__)
        self._inside = inside

    def decode(self, text: str, version: int = 1) -> E:
        if text == _FORGOTTEN:
            return Several(())  # type: ignore[return-value]
        return self._inside.decode(text, version)

    def quick_reader(self) -> Callable[[str, int], E]:
        return self.decode


class EncryptingCodec(RowCodec[E, S]):
    """Rows whose payloads and entities are encrypted.

    What it reads raises `KeysMissing` where keys have to be fetched first.
    """

    def __init__(self, ring: KeyRing, **options: Any) -> None:
        super().__init__(**options)
        self._ring = ring
        self._options = options
        self._events = _Forgetful(self._events)

    def __reduce__(self) -> Any:
        return _codec, (self._ring, self._options)

    def rows(self, envelopes: list[SerializedEventEnvelop[E]]) -> list[EventRow]:
        return [self._sealed(row) for row in super().rows(envelopes)]

    def _sealed(self, row: EventRow) -> EventRow:
        sealed = self._ring.seal(row.aggregate_id, _event(row.sequence), row.payload)
        kept = {MARK: sealed}
        try:
            tag = json.loads(row.payload)[self.tag_key]
            if isinstance(tag, str):
                kept[self.tag_key] = tag
        except (TypeError, KeyError, IndexError):
            pass
        row.payload = dump({**kept})
        return row

    def _open(self, aggregate_id: str, what: str, text: Any) -> Any:
        """Return a stored text as it was before it was encrypted; others as they are."""
        sealed = sealed_in(text)
        if sealed is None:
            return text
        opened = self._ring.open(aggregate_id, what, sealed)
        return _FORGOTTEN if opened is None else opened

    def _check_known(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Check that all keys of rows of ``event`` are known."""
        missing = self._ring.missing({row[1] for row in rows if sealed_in(row[5]) is not None})
        if missing:
            raise KeysMissing(missing)

    def _opened(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        try:
            payload = self._open(row[1], _event(row[2]), row[5])
        except EventDecodeError:
            return row  # does not decode: no event has our mark among its fields alone
        return (*row[:5], payload, *row[6:])

    def event_rows(self, rows: Iterable[tuple[Any, ...]]) -> list[SerializedEventEnvelop[E]]:
        found = list(rows)
        self._check_known(found)
        return super().event_rows(map(self._opened, found))

    def recorded_rows(
        self, rows: Iterable[tuple[Any, ...]], usual: Usual = NOTHING_USUAL, gaps: list[int] | None = None
    ) -> list[RecordedEvent[E]]:
        every = list(rows)
        self._check_known(row[2:] for row in every)
        opened = ((*row[:2], *self._opened(row[2:])) for row in every)
        events = super().recorded_rows(opened, usual, gaps)
        for event, row in zip(events, (row for row in every if row[3] is not None), strict=True):
            event.raw = row[7] if isinstance(row[7], str | bytes) else repr(row[7])  # as it is stored
        return events

    def envelope(self, row: EventRow) -> SerializedEventEnvelop[E]:
        """As `RowCodec.envelope`, of a row that is opened or was never encrypted."""
        return super().envelope(row)

    def recorded(self, row: PositionedRow) -> RecordedEvent[E]:
        """As `RowCodec.recorded`, of a row that is opened or was never encrypted."""
        return super().recorded(row)

    def read_event(self, payload: str | bytes, version: str) -> E:
        """Read a payload that is not encrypted.

        Raises:
            EventStoreError: it is: without its aggregate nobody can read it.
        """
        if sealed_in(payload) is not None:
            raise EventStoreError("the events are encrypted, so they cannot be read here")
        return super().read_event(payload, version)

    def snapshot_row(self, snapshot: Snapshot[S]) -> SnapshotRow:
        row = super().snapshot_row(snapshot)
        sealed = self._ring.seal(row.aggregate_id, _snapshot(row.sequence), row.entity)
        return attrs.evolve(row, entity=dump({MARK: sealed}))

    def snapshot(self, row: SnapshotRow) -> Snapshot[S]:
        entity = self._open(row.aggregate_id, _snapshot(row.sequence), row.entity)
        if entity == _FORGOTTEN:
            raise Forgotten(row.aggregate_id)
        return super().snapshot(attrs.evolve(row, entity=entity))

    def usable_snapshot(self, row: SnapshotRow | None) -> Snapshot[S] | None:
        try:
            return super().usable_snapshot(row)
        except Forgotten:
            return None


def _codec(ring: KeyRing, options: dict[str, Any]) -> EncryptingCodec[Any, Any]:
    return EncryptingCodec(ring, **options)


def _event(sequence: object) -> str:
    return f"event {sequence}"


def _snapshot(sequence: object) -> str:
    return f"snapshot {sequence}"
