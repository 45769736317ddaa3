"""Distribution headers with atom cache references, on the receiving side. Layer: dist, pure.

Source: erl_ext_dist, "Distribution Header"; external.c (OTP 25.2).

We do not offer DIST_HDR_ATOM_CACHE, so a real peer sends headers without atoms, and others are refused. Should a
caller offer the flag, they are read, and every reference in control message and payload is spelled out, so that
those above only ever see whole terms. Not supported: writing them.
"""

from __future__ import annotations

import struct

from pyglyn.errors import RemoteProtocolError

_NEW_ENTRY = 8
_ATOM_CACHE_REF = 82
_NEW_FUN = 112


class AtomCache:
    """The atoms a peer has sent on one connection: 2048 slots, told by segment and index.

    What a slot holds changes in the order the packets arrive. Atoms are kept as encoded terms.
    """

    def __init__(self) -> None:
        self._slots: dict[int, bytes] = {}

    def read_refs(self, packet: bytes | memoryview, at: int) -> tuple[list[bytes], int]:
        """Read the atom part of a header and enter the new atoms.

        Layout: N:1, if N > 0 then N//2+1 bytes of flags and N references. Nibble i of the flags (the
        low half of a byte first) has bit 3 for a new entry and the segment in bits 2..0; bit 0 of nibble
        N says that new atoms have 2-byte lengths. A reference is index:1, for a new entry then
        length:1 or 2 and the text.

        Returns:
            The atoms as encoded terms, and the offset after the header.

        Raises:
            RemoteProtocolError: the header ends early, or refers to an empty slot.
        """
        if at >= len(packet):
            raise _ends_early(at)
        count = packet[at]
        at += 1
        if not count:
            return [], at
        flags = bytes(packet[at : at + count // 2 + 1])
        if len(flags) != count // 2 + 1:
            raise _ends_early(at)
        at += len(flags)
        length_size = 1 + (_nibble(flags, count) & 1)
        atoms = []
        for i in range(count):
            nibble = _nibble(flags, i)
            if at >= len(packet):
                raise _ends_early(at)
            slot = (nibble & 7) << 8 | packet[at]
            at += 1
            if nibble & _NEW_ENTRY:
                at = self._enter(slot, packet, at, length_size)
            atom = self._slots.get(slot)
            if atom is None:
                raise RemoteProtocolError(f"atom cache slot {slot} is empty")
            atoms.append(atom)
        return atoms, at

    def _enter(self, slot: int, packet: bytes | memoryview, at: int, length_size: int) -> int:
        text_at = at + length_size
        length = int.from_bytes(packet[at:text_at])
        text = bytes(packet[text_at : text_at + length])
        if len(text) != length or text_at > len(packet):
            raise _ends_early(at)
        head = bytes((119, length)) if length < 256 else b"\x76" + length.to_bytes(2)
        self._slots[slot] = head + text
        return text_at + length


def _nibble(flags: bytes, i: int) -> int:
    return flags[i // 2] >> 4 * (i % 2) & 15


def _ends_early(at: int) -> RemoteProtocolError:
    return RemoteProtocolError(f"a distribution header or its term ends early, at byte {at}")


# tag -> (bytes to skip, size of a count or length field after them, ...) would hide the differences:
# one small table for each shape of a tag instead.
_FIXED = {70: 8, 97: 1, 98: 4, 99: 31, 106: 0}
_LENGTH_THEN_BYTES = {77: (4, 1), 100: (2, 0), 107: (2, 0), 109: (4, 0), 110: (1, 1), 111: (4, 1)}
_LENGTH_THEN_BYTES |= {115: (1, 0), 118: (2, 0), 119: (1, 0)}
_COUNT_THEN_TERMS = {104: (1, 1, 0), 105: (4, 1, 0), 108: (4, 1, 1), 116: (4, 2, 0)}
_NODE_THEN_BYTES = {88: 12, 89: 8, 101: 5, 102: 5, 103: 9, 120: 12}
_REFERENCE_WORDS = {90: 4, 114: 1}
_FUN_HEAD = struct.Struct(">I17xII")  # size, arity and uniq, index, number of free variables


def spell_atoms(
    data: bytes | memoryview, at: int, atoms: list[bytes], room: int
) -> tuple[bytes, int]:
    """Copy the bare term at ``at`` with every ATOM_CACHE_REF replaced by the atom it stands for.

    Args:
        data: the packet, or what comes after its header.
        at: where the term begins.
        atoms: those of the header.
        room: bytes that the copy may have.

    Returns:
        The term, and the offset after it in ``data``.

    Raises:
        RemoteProtocolError: the term ends early, has an unknown tag, or an atom number not in the header, or
            grows beyond ``room``.
    """
    walk = _Walk(bytes(data), at, atoms, room)
    walk.run()
    return bytes(walk.out), walk.at


class _Walk:
    """A walk over one term without recursion; the stack says what is still to be copied.

    On the stack: a positive number is so many terms, a negative one so many bytes, and a tuple holds the
    place in ``out`` of a fun's size, to be corrected when all of the fun is copied.
    """

    def __init__(self, data: bytes, at: int, atoms: list[bytes], room: int) -> None:
        self.data = data
        self.at = at
        self.atoms = atoms
        self.room = room
        self.out = bytearray()
        self.stack: list[int | tuple[int]] = [1]

    def run(self) -> None:
        stack = self.stack
        while stack:
            job = stack.pop()
            if isinstance(job, tuple):
                self.out[job[0] : job[0] + 4] = (len(self.out) - job[0]).to_bytes(4)
            elif job < 0:
                self.copy(-job)
            elif job > 0:
                stack.append(job - 1)
                self.term()

    def copy(self, size: int) -> bytes:
        taken = self.data[self.at : self.at + size]
        if len(taken) != size:
            raise _ends_early(len(self.data))
        self.at += size
        self.out += taken
        return taken

    def term(self) -> None:
        tag = self.data[self.at] if self.at < len(self.data) else None
        if tag == _ATOM_CACHE_REF:
            self.atom()
            return
        self.copy(1)
        if tag in _FIXED:
            self.copy(_FIXED[tag])
        elif tag in _LENGTH_THEN_BYTES:
            length_size, more = _LENGTH_THEN_BYTES[tag]
            self.copy(int.from_bytes(self.copy(length_size)) + more)
        elif tag in _COUNT_THEN_TERMS:
            count_size, factor, more = _COUNT_THEN_TERMS[tag]
            self.stack.append(int.from_bytes(self.copy(count_size)) * factor + more)
        elif tag in _NODE_THEN_BYTES:
            self.stack += (-_NODE_THEN_BYTES[tag], 1)
        elif tag in _REFERENCE_WORDS:
            words = int.from_bytes(self.copy(2))
            self.stack += (-_REFERENCE_WORDS[tag] - 4 * words, 1)
        elif tag == 113:
            self.stack.append(3)
        elif tag == _NEW_FUN:
            start = len(self.out)
            _, _, free = _FUN_HEAD.unpack(self.copy(_FUN_HEAD.size))
            self.stack += ((start,), 4 + free)
        else:
            raise RemoteProtocolError(f"unknown tag {tag} in a term with atom cache references")

    def atom(self) -> None:
        number = self.data[self.at + 1] if self.at + 1 < len(self.data) else len(self.atoms)
        if number >= len(self.atoms):
            raise RemoteProtocolError("a reference to an atom that is not in the distribution header")
        self.out += self.atoms[number]
        if len(self.out) > self.room:
            raise RemoteProtocolError(f"a message of more than {self.room} bytes with its atoms spelled out")
        self.at += 2
