"""Distribution headers with atom cache references, on receive (erl_ext_dist, "Distribution Header")."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyglyn.dist import RECOMMENDED, Channel, DistFlags, MessageReceived, ProtocolBroken
from pyglyn.dist.control import Send
from pyglyn.dist.headers import AtomCache, spell_atoms
from pyglyn.errors import RemoteProtocolError
from pyglyn.etf import (
    Atom,
    BitString,
    Export,
    ImproperList,
    Pid,
    Port,
    Reference,
    Term,
    decode_bare,
    encode_bare,
)
from tests.strategies import terms

ROOM = 1 << 30
WITH_CACHE = RECOMMENDED | DistFlags.DIST_HDR_ATOM_CACHE


class CachingWriter:
    """The sending side, for the tests only: bare terms with every atom as a reference into a header.

    Written from the specification, with the codec's output rewritten atom by atom.
    """

    def __init__(self) -> None:
        self._slots: dict[bytes, int] = {}

    def message(self, *terms: Term) -> tuple[bytes, bytes]:
        """The header's atom part, and the terms with references."""
        atoms: list[bytes] = []
        body = b"".join(self._refer(encode_bare(term), atoms) for term in terms)
        return self._header(atoms), body

    def _refer(self, data: bytes, atoms: list[bytes]) -> bytes:
        out = b""
        while data:
            atom = next(_atoms_at(data), None)
            if atom is None:
                out, data = out + data[:1], data[1:]
                continue
            if atom not in atoms:
                atoms.append(atom)
            out, data = out + bytes((82, atoms.index(atom))), data[2 + len(atom) :]
        return out

    def _header(self, atoms: list[bytes]) -> bytes:
        if not atoms:
            return b"\0"
        nibbles, refs = [], b""
        for atom in atoms:
            slot = self._slots.get(atom)
            nibbles.append((slot or len(self._slots)) >> 8 | (0 if slot is not None else 8))
            if slot is None:
                slot = self._slots[atom] = len(self._slots)
                refs += bytes((slot & 255, len(atom))) + atom
            else:
                refs += bytes((slot & 255,))
        nibbles += [0] * (2 - len(atoms) % 2)
        flags = bytes(low | high << 4 for low, high in zip(nibbles[::2], nibbles[1::2], strict=True))
        return bytes((len(atoms),)) + flags + refs


MARK = "atom_that_marks_"


def _atoms_at(data: bytes) -> Iterator[bytes]:
    """The atom whose encoding stands right here, if it is one of ours (nothing else looks like it)."""
    if data[:1] == b"w" and data[2 : 2 + len(MARK)] == MARK.encode():
        yield data[2 : 2 + data[1]]


def marked(number: int) -> Atom:
    return Atom(f"{MARK}{number}")


NODE = f"{MARK}node@host"
PID = Pid(NODE, 1, 2, 3)
TERMS: list[Term] = [
    marked(1),
    [marked(1), marked(2), marked(1)],
    (marked(1), {marked(2): marked(3), b"k": [marked(4)]}),
    PID,
    Port(NODE, 7, 3),
    Port(NODE, 1 << 40, 3),
    Reference(NODE, 3, (1, 2, 3)),
    Reference(NODE, 3, (1,)),
    Export(f"{MARK}m", f"{MARK}f", 3),
    ImproperList((marked(1), 1), marked(2)),
    [1, -5, 1 << 40, -(1 << 3000), 2.5, b"bytes", b"text", BitString(b"\xa0", 3), [], marked(9)],
    [97, 98, 99],
    tuple([marked(5)] * 300),
]


@pytest.mark.parametrize("term", TERMS, ids=lambda term: type(term).__name__)
def test_references_in_every_kind_of_term_are_spelled_out(term: Term) -> None:
    header, body = CachingWriter().message(term)
    atoms, at = AtomCache().read_refs(header, 0)
    assert at == len(header)
    assert spell_atoms(body + b"rest", 0, atoms, ROOM) == (encode_bare(term), len(body))


def test_a_fun_gets_its_new_size() -> None:
    """NEW_FUN_EXT has its own length in it, which grows with the atoms."""
    module, pid = encode_bare(marked(1)), encode_bare(PID)
    rest = b"\0" + bytes(16) + bytes(4) + (1).to_bytes(4)
    free = encode_bare([marked(2)])
    size = 4 + len(rest) + len(module) + 4 + len(pid) + len(free)
    fun = b"p" + size.to_bytes(4) + rest + module + b"a\1a\2" + pid + free
    writer = CachingWriter()
    atoms: list[bytes] = []
    short = writer._refer(fun, atoms)
    assert len(short) < len(fun)
    encoded = [b"w" + bytes((len(atom),)) + atom for atom in atoms]
    assert spell_atoms(short, 0, encoded, ROOM) == (fun, len(short))
    decode_bare(fun)


@given(terms())
def test_terms_without_references_stay_as_they_are(term: Term) -> None:
    data = encode_bare(term)
    assert spell_atoms(data, 0, [], ROOM) == (data, len(data))


def test_slots_are_kept_from_packet_to_packet_and_replaced() -> None:
    cache = AtomCache()
    cache.read_refs(b"\1\x08\5\1a", 0)
    assert cache.read_refs(b"\1\x00\5", 0) == ([b"w\1a"], 3)
    cache.read_refs(b"\1\x08\5\1b", 0)
    assert cache.read_refs(b"\1\x00\5", 0) == ([b"w\1b"], 3)
    with pytest.raises(RemoteProtocolError, match="slot 261 is empty"):
        cache.read_refs(b"\1\x01\5", 0)  # the same index of another segment


def test_long_atoms_have_two_bytes_of_length() -> None:
    text = "ü" * 200
    header = b"\1\x18\0" + (400).to_bytes(2) + text.encode()
    atoms, at = AtomCache().read_refs(header, 0)
    assert (atoms, at) == ([b"v" + (400).to_bytes(2) + text.encode()], len(header))
    assert decode_bare(spell_atoms(b"R\0", 0, atoms, ROOM)[0])[0] == Atom(text)


@given(st.binary(max_size=60))
def test_a_damaged_header_is_a_protocol_error(data: bytes) -> None:
    try:
        atoms, at = AtomCache().read_refs(data, 0)
    except RemoteProtocolError:
        return
    assert at <= len(data)
    assert len(atoms) == data[0]


@given(st.binary(max_size=60), st.lists(st.just(b"w\1a"), max_size=3))
def test_a_damaged_term_is_a_protocol_error(data: bytes, atoms: list[bytes]) -> None:
    try:
        _, at = spell_atoms(data, 0, atoms, ROOM)
    except RemoteProtocolError:
        return
    assert 0 < at <= len(data)


def test_deep_and_huge_claims_take_no_time() -> None:
    deep = b"l\0\0\0\1" * 100_000 + b"j" * 100_001
    assert spell_atoms(deep, 0, [], ROOM)[1] == len(deep)
    with pytest.raises(RemoteProtocolError, match="ends early"):
        spell_atoms(b"i\xff\xff\xff\xff" * 10, 0, [], ROOM)


A, B = Pid(NODE, 1, 0, 5), Pid("b@host", 2, 1, 6)


def messages(channel: Channel, data: bytes) -> list[Any]:
    events = channel.receive_data(data)
    assert not [event for event in events if isinstance(event, ProtocolBroken)], events
    return [
        (event.control, decode_bare(event.payload or b"")[0])
        for event in events
        if isinstance(event, MessageReceived)
    ]


def test_a_channel_reads_messages_with_cached_atoms() -> None:
    channel, writer = Channel(WITH_CACHE, 0.0), CachingWriter()
    for term in [*TERMS, *TERMS]:
        header, body = writer.message((22, A, B), term)
        packet = b"\x83D" + header + body
        assert messages(channel, len(packet).to_bytes(4) + packet) == [(Send(A, B), term)]


def test_a_channel_reads_fragments_with_cached_atoms() -> None:
    """Cache entries count from the first fragment on, also for other messages in between."""
    channel, writer = Channel(WITH_CACHE, 0.0), CachingWriter()
    header, control = writer.message((22, A, B))
    term = (b"x" * 100, A)
    payload = b"h\2" + encode_bare(term[0]) + control[control.index(b"X") :][: len(b"X\x52\0") + 12]
    pieces = [payload[:40], payload[40:90], payload[90:]]
    sequence = (77).to_bytes(8)
    packets = [
        b"\x83E" + sequence + (3).to_bytes(8) + header + control + pieces[0],
        b"\x83D" + writer.message((22, A, B), b"between")[0] + writer.message((22, A, B), b"between")[1],
        b"\x83F" + sequence + (2).to_bytes(8) + pieces[1],
        b"\x83F" + sequence + (1).to_bytes(8) + pieces[2],
    ]
    data = b"".join(len(packet).to_bytes(4) + packet for packet in packets)
    assert messages(channel, data) == [(Send(A, B), b"between"), (Send(A, B), term)]


def tagged(tag: int, *parts: bytes) -> bytes:
    return bytes((tag, *b"".join(parts)))


NODE_REF, ATOM = b"R\0", b"w\1n"  # a reference into the header, and the atom it stands for
OLD_AND_NEW = [
    *(
        tagged(70 if size == 8 else 97 if size == 1 else 98 if size == 4 else 99, b"x" * size)
        for size in (8, 1, 4, 31)
    ),
    tagged(106),
    tagged(77, b"\0\0\0\2", b"\3", b"xx"),
    *(tagged(tag, b"\0\2", b"xx") for tag in (100, 107, 118)),
    tagged(109, b"\0\0\0\2", b"xx"),
    *(tagged(tag, b"\2", b"xx") for tag in (115, 119)),
    tagged(110, b"\2", b"\0", b"xx"),
    tagged(111, b"\0\0\0\2", b"\0", b"xx"),
    tagged(104, b"\2", b"jj"),
    tagged(105, b"\0\0\0\2", b"jj"),
    tagged(108, b"\0\0\0\2", b"jjj"),
    tagged(116, b"\0\0\0\1", b"jj"),
]


@pytest.mark.parametrize("text", ["x" * 254, "x" * 255, "\u00e9" * 127, "\u00e9" * 128, "\u6f22" * 255])
def test_an_atom_of_the_header_is_one_again_however_long_its_text_is(text: str) -> None:
    data = text.encode()
    header = b"\1\x18\0" + len(data).to_bytes(2) + data
    atoms, at = AtomCache().read_refs(header + b"rest", 0)
    assert at == len(header)
    assert [decode_bare(atom)[0] for atom in atoms] == [Atom(text)]
    for end in range(1, len(header), 50):
        with pytest.raises(RemoteProtocolError):
            AtomCache().read_refs(header[:end], 0)


@pytest.mark.parametrize("term", OLD_AND_NEW, ids=lambda term: str(term[0]))
def test_terms_without_atoms_are_copied_to_their_last_byte(term: bytes) -> None:
    data = tagged(104, b"\2", term, NODE_REF)
    assert spell_atoms(data + b"rest", 0, [ATOM], ROOM) == (tagged(104, b"\2", term, ATOM), len(data))
    for end in range(1, len(data)):
        with pytest.raises(RemoteProtocolError):
            spell_atoms(data[:end], 0, [ATOM], ROOM)


@pytest.mark.parametrize(
    ("tag", "before", "after"),
    [
        *(
            (tag, b"", b"x" * size)
            for tag, size in ((88, 12), (89, 8), (101, 5), (102, 5), (103, 9), (120, 12))
        ),
        (90, b"\0\2", b"x" * 12),
        (114, b"\0\2", b"x" * 9),
    ],
)
def test_identifiers_have_their_nodes_name_spelled(tag: int, before: bytes, after: bytes) -> None:
    data = tagged(104, b"\2", tagged(tag, before, NODE_REF, after), NODE_REF)
    spelled = tagged(104, b"\2", tagged(tag, before, ATOM, after), ATOM)
    assert spell_atoms(data, 0, [ATOM], ROOM) == (spelled, len(data))


# --- what was not negotiated, and what grows -------------------------------------------------------


def the_error(events: list[Any]) -> str:
    assert isinstance(events[-1], ProtocolBroken)
    return str(events[-1].error)


@pytest.mark.parametrize(
    "kind", [b"\x83D", b"\x83E" + bytes(7) + b"\1" + bytes(7) + b"\2"], ids=["one", "first of two"]
)
def test_references_that_were_not_negotiated_are_not_even_read(
    kind: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    header, body = CachingWriter().message((22, A, B), [Atom("x") for _ in range(1000)])
    packet = kind + header + body
    channel = Channel(RECOMMENDED, 0.0)
    for name in ("read_refs", "_enter"):
        monkeypatch.delattr(AtomCache, name)
    error = the_error(channel.receive_data(len(packet).to_bytes(4) + packet))
    assert error == "atom cache references, which were not negotiated"


def test_two_bytes_that_stand_for_a_long_atom_do_not_fill_the_memory() -> None:
    """266 KB of references to one atom of 255 characters of four bytes would be 135 MB."""
    text = "𐍈" * 255
    atom = text.encode()
    count = 133_000
    header = b"\1\x18\0" + len(atom).to_bytes(2) + atom
    control = encode_bare((22, A, B))
    packet = b"\x83D" + header + control + b"l" + count.to_bytes(4) + b"R\0" * count + b"j"
    error = the_error(Channel(WITH_CACHE, 0.0).receive_data(len(packet).to_bytes(4) + packet))
    assert error.startswith(f"a message of more than {64 * len(packet)} bytes with its atoms spelled out")
