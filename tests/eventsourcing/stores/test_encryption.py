"""Rows encrypted by the key of their aggregate: what stays readable, what is bound to what."""

from __future__ import annotations

import json
import pickle
from typing import Any

import attrs
import pytest

from pyglyn import eventsourcing as es
from pyglyn.errors import EventDecodeError, EventStoreError, Forgotten
from pyglyn.eventsourcing.domain.evolution import Several
from pyglyn.eventsourcing.stores.encryption import EncryptingCodec, KeyRing, KeysMissing, sealed_in
from pyglyn.eventsourcing.stores.keys import MemoryKeys


def codec(ring: KeyRing) -> EncryptingCodec[Any, Any]:
    return EncryptingCodec(ring, aggregate_type="t")


async def ring_of(*ids: str, **options: Any) -> KeyRing:
    ring = KeyRing(MemoryKeys(), "t", **options)
    for id in ids:
        await ring.make(id)
    return ring


def row_of(made: EncryptingCodec[Any, Any], payload: Any, id: str = "a") -> tuple[Any, ...]:
    [row] = made.rows(made.envelopes(id, [payload], 0, []))
    return attrs.astuple(row)


async def test_the_tag_of_an_event_stays_readable_and_nothing_else_does():
    made = codec(await ring_of("a"))
    payload = row_of(made, {"event-type": "opened", "by": "ada"})[5]
    stored = json.loads(payload)
    assert list(stored) == ["pyglyn-encrypted", "event-type"]
    assert stored["event-type"] == "opened"
    assert "ada" not in payload
    for odd in (["a"], "text", 1, None, {"event-type": 1}, {}):
        row = row_of(made, odd)
        assert list(json.loads(row[5])) == ["pyglyn-encrypted"]
        assert [each.payload for each in made.event_rows([row])] == [odd]


async def test_each_time_it_is_another_ciphertext():
    made = codec(await ring_of("a"))
    assert row_of(made, {"n": 1})[5] != row_of(made, {"n": 1})[5]


async def test_keys_that_are_not_known_are_named_all_at_once():
    keys = MemoryKeys()
    writer = codec(KeyRing(keys, "t"))
    for id in ("a", "b"):
        await writer._ring.make(id)
    rows = [row_of(writer, {"n": 1}, id) for id in ("a", "b")]
    ring = KeyRing(keys, "t")
    reader = codec(ring)
    with pytest.raises(KeysMissing) as missing:
        reader.event_rows(rows)
    assert missing.value.ids == {"a", "b"}
    with pytest.raises(KeysMissing):
        reader.recorded_rows([(1, None, *rows[0])])
    await ring.fetch(missing.value.ids)
    assert [each.payload for each in reader.event_rows(rows)] == [{"n": 1}] * 2
    [event] = reader.recorded_rows([(1, 1000, *rows[0]), (2, None, *[None] * 7)])
    assert (event.envelope.payload, event.raw) == ({"n": 1}, rows[0][5])  # type: ignore[union-attr]


async def test_a_known_key_is_asked_for_again_after_a_while_and_a_forgotten_one_is_not():
    ring = KeyRing(MemoryKeys(), "t", known_s=0.0)
    await ring.make("a")
    with pytest.raises(KeysMissing):
        ring.key("a")
    await ring.forget("a")
    assert ring.key("a") is None
    with pytest.raises(Forgotten):
        ring.seal("a", "event 1", "text")


async def test_most_keys_are_known_and_no_more():
    ring = await ring_of("a", "b", "c", "d", most=3)
    assert ring.missing("abcd") == {"a"}


async def test_a_text_opens_only_as_what_it_was_sealed_as():
    ring = await ring_of("a", "b")
    sealed = ring.seal("a", "event 1", "text")
    assert ring.open("a", "event 1", sealed) == "text"
    for id, what, text in (
        ("a", "event 2", sealed),
        ("b", "event 1", sealed),
        ("a", "event 1", sealed[:-4]),
        ("a", "event 1", "no base64!"),
        ("a", "event 1", ""),
    ):
        with pytest.raises(EventDecodeError):
            ring.open(id, what, text)


async def test_a_forgotten_snapshot_is_none_and_a_forgotten_event_nothing():
    ring = await ring_of("a")
    made = codec(ring)
    snapshot = made.snapshot_row(es.Snapshot("a", {"n": 1}, 3, 1))
    row = row_of(made, {"n": 1})
    assert made.snapshot(snapshot).entity == {"n": 1}
    assert sealed_in(snapshot.entity)
    await ring.forget("a")
    assert made.usable_snapshot(snapshot) is None
    with pytest.raises(Forgotten):
        made.snapshot(snapshot)
    assert [each.payload for each in made.event_rows([row])] == [Several(())]


async def test_without_its_aggregate_nobody_reads_a_payload():
    made = pickle.loads(pickle.dumps(codec(await ring_of("a"))))
    assert made.read_event('{"n":1}', "1.0") == {"n": 1}
    with pytest.raises(EventStoreError, match="encrypted"):
        made.read_event('{"pyglyn-encrypted":"AAAA"}', "1.0")


@pytest.mark.parametrize(
    "text", [None, b"x", "", "{}", '{"event-type":"x"}', '{"a":1,"pyglyn-encrypted":""}']
)
def test_other_texts_are_not_encrypted(text):
    assert sealed_in(text) is None
