"""Frames between a hub and its workers: written, split and read. Over sockets in test_worker_link and test_worker_socket."""

from __future__ import annotations

import asyncio
import socket
import sys
import tracemalloc
from typing import Any

import psutil
import pytest

from pyglyn import etf
from pyglyn.dist.control import AliasSend, Link, RegSend, Send
from pyglyn.errors import DecodeError, PyglynError, RemoteProtocolError
from pyglyn.etf import Atom, Reference, decode_bare, encode_bare
from pyglyn.node.link import Frame, FrameReader, FrameWriter, LinkProtocol, encode_request, frames_of
from pyglyn.node.ways import way_out
from pyglyn.testing import eventually
from tests.node.runtimes import NODE, REF, THEM

NAMED = RegSend(THEM, Atom("shop"))


def bytes_of(body: object) -> bytes:
    """A frame around anything."""
    data = etf.encode_bare(body)  # type: ignore[arg-type]
    return len(data).to_bytes(4) + data


def frames() -> bytes:
    """Three frames, with and without a term and a node."""
    sent = [
        FrameWriter().write(Send(THEM, THEM), None, etf.encode_parts([1, b"two"])),
        FrameWriter().write(NAMED, NODE, [b"abc", memoryview(b"def")]),
        FrameWriter().write(Link(THEM, THEM), None, None),
        [encode_request((Atom("whereis"), REF, b"shop"))],
    ]
    return b"".join(bytes(part) for frame in sent for part in frame)


def read(found: list[Frame]) -> list[object]:
    """What is in frames."""
    return [
        (frame.control, frame.node, None if frame.payload is None else bytes(frame.payload), frame.request)
        for frame in found
    ]


EXPECTED = [
    (Send(THEM, THEM), None, b"".join(map(bytes, etf.encode_parts([1, b"two"]))), None),
    (NAMED, NODE, b"abcdef", None),
    (Link(THEM, THEM), None, None, None),
    (None, None, None, (Atom("whereis"), REF, b"shop")),
]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64, 10_000])
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(size: int) -> None:
    data, reader, found = frames(), FrameReader(), []
    for at in range(0, len(data), size):
        found += reader.receive_data(data[at : at + size])
    assert read(found) == EXPECTED


def test_a_frame_comes_out_with_its_last_byte_and_not_before() -> None:
    data, reader = encode_request(1), FrameReader()
    assert reader.receive_data(data[:-1]) == []
    assert read(reader.receive_data(data[-1:])) == [(None, None, None, 1)]


@pytest.mark.parametrize("body", [1, (1, 2, 3), (Atom("a"), 7)])
def test_what_no_hub_or_worker_sends_is_an_error(body: object) -> None:
    with pytest.raises(RemoteProtocolError):
        FrameReader().receive_data(bytes_of(body))


@pytest.mark.parametrize("data", [b"\0\0\0\0", b"\0\0\0\1\xff", b"\0\0\0\2h\2"])
def test_bytes_that_are_no_term_are_an_error(data: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        FrameReader().receive_data(data)
    assert isinstance(caught.value, PyglynError)


async def test_a_signal_that_cannot_be_handled_costs_itself_only(caplog: pytest.LogCaptureFixture) -> None:
    """A peer may have sent it; with the link all processes of the worker would end."""
    handled: list[Frame] = []

    def on_signal(control: Any, payload: Any, node: str | None) -> None:
        handled.append(Frame(control, node, payload))
        if len(handled) == 1:
            raise KeyError("shop")

    link = LinkProtocol(lambda request: handled.append(Frame(None, request=request)), lambda: None)
    link.on_signal = on_signal
    link.data_received(frames())
    assert read(handled) == EXPECTED
    assert "could not be handled" in caplog.text


async def test_what_a_way_does_not_take_is_read_and_what_it_raises_costs_itself_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What cannot be sent to another node must not end the worker's link."""
    passed: list[bytes] = []
    handled: list[Any] = []

    def way(rest: bytes) -> bool:
        passed.append(rest)
        if len(passed) == 1:
            raise KeyError("shop")
        return len(passed) == 2

    link = LinkProtocol(handled.append, lambda: None)
    link.on_signal = lambda *signal: handled.append(signal)
    link.unread[THEM.node.encode()] = way
    alias = Reference(THEM.node, 1, (1, 2, 3))
    link.data_received(
        b"".join(
            bytes(part)
            for number in range(3)
            for part in FrameWriter().write(AliasSend(THEM, alias), THEM.node, [etf.encode_bare(number)])
        )
    )
    control = etf.encode_bare((33, THEM, alias))
    assert passed == [control + etf.encode_bare(number) for number in range(3)]
    assert handled == [(AliasSend(THEM, alias), etf.encode_bare(2), None)]
    assert "could not be handled" in caplog.text


LARGE_ONES = [b"small", b"x" * 70_000, b"", bytes(range(256)) * 2_000, b"y" * 65_536, b"z"]


def large_frames() -> bytes:
    """Frames around and beyond what is read into its place."""
    writer = FrameWriter()
    return b"".join(
        bytes(part) for payload in LARGE_ONES for part in writer.write(Send(THEM, THEM), None, [payload])
    )


@pytest.mark.parametrize("step", [1_000, 65_535, 65_536, 1 << 20])
def test_a_large_frame_is_the_same_read_into_its_place_or_given(step: int) -> None:
    data = large_frames()
    given, reader, found = FrameReader(), FrameReader(), []
    expected = [
        frame for at in range(0, len(data), step) for frame in given.receive_data(data[at : at + step])
    ]
    at, placed = 0, 0
    while at < len(data):
        room = reader.room()
        if room is None:
            piece = data[at : at + min(step, 16_384)]
            found += reader.receive_data(piece)
        else:
            piece = data[at : at + min(step, len(room))]
            room[: len(piece)] = piece
            found += frames_of(reader.filled(len(piece)))
            placed += len(piece)
        at += len(piece)
    assert (
        read(found) == read(expected) == [(Send(THEM, THEM), None, each or None, None) for each in LARGE_ONES]
    )
    assert placed > 500_000
    assert reader.room() is None


async def test_large_terms_wait_uncopied_for_an_end_that_reads_slowly() -> None:
    """asyncio copies what it is given and the socket does not take: so it is given little at a time."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    link = LinkProtocol(lambda request: None, lambda: None)
    await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=ours)
    blobs = [bytes([number]) * (1 << 20) for number in range(8)]
    tracemalloc.start(1)
    try:
        for blob in blobs:
            link.send(Send(THEM, THEM), None, [blob])
        link.flush()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= 400_000
    assert link.queued_bytes > 7 << 20
    reader, found = FrameReader(), []
    while len(found) < len(blobs):
        data = await asyncio.get_running_loop().sock_recv(theirs, 1 << 20)
        found += reader.receive_data(data)
    assert [bytes(frame.payload or b"") for frame in found] == blobs
    assert link.queued_bytes == 0
    link.abort()
    theirs.close()


async def test_small_frames_that_nobody_takes_cost_little_more_than_their_bytes() -> None:
    """By whatever way they come: each by itself, in runs, or by the short way in C."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    link = LinkProtocol(lambda request: None, lambda: None, high_water=64 << 20)
    await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=ours)
    link.send(Send(THEM, THEM), None, [bytes(4 << 20)])
    link.flush()
    assert not link._writable
    way = link.way(Send(THEM, THEM), None)
    assert way is not None
    short, sent = way_out(*way), 1
    for number in range(20_000):
        match number % 4:
            case 0:
                assert short(number)
            case 1:
                link.send(Send(THEM, THEM), None, [encode_bare(number)])
            case 2:
                link.send(Link(THEM, THEM), None, None)
            case 3:
                link.send_many(Send(THEM, THEM), None, [encode_bare(number), encode_bare(-number)])
                sent += 1
        sent += 1
    small = [piece for piece in link._out if len(piece) < 1 << 20]
    assert sum(map(sys.getsizeof, small)) <= 1.2 * sum(map(len, small))
    assert len(small) <= 2 + sum(map(len, small)) // (100 << 10)
    reader, found = FrameReader(), []
    while len(found) < sent:
        found += reader.receive_data(await asyncio.get_running_loop().sock_recv(theirs, 1 << 20))
    terms = [decode_bare(frame.payload)[0] for frame in found[1:] if frame.payload is not None]
    numbers = [
        [number, -number] if number % 4 == 3 else [number] for number in range(20_000) if number % 4 != 2
    ]
    assert terms == [each for some in numbers for each in some]
    await link.written()
    link.abort()
    theirs.close()


@pytest.mark.parametrize("high_water", [2 << 20, 1 << 16, 1 << 12])
async def test_an_end_that_is_busy_is_so_until_a_quarter_is_left(high_water: int) -> None:
    told: list[tuple[bool, int]] = []
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    link = LinkProtocol(
        lambda request: None,
        lambda: None,
        high_water=high_water,
        on_busy=lambda busy: told.append((busy, link.queued_bytes)),
    )
    await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=ours)
    piece = bytes(high_water // 2)
    sent = 0
    while not link.busy:
        assert told == []
        assert link.queued_bytes <= 3 * high_water
        link.send(Send(THEM, THEM), None, [piece])
        sent += 1
        await asyncio.sleep(0)  # at the end of each turn, also while nothing is taken
        await asyncio.sleep(0)
    reader, found = FrameReader(), []
    while len(found) < sent:
        found += reader.receive_data(await asyncio.get_running_loop().sock_recv(theirs, 1 << 16))
    await eventually(lambda: not link.busy)
    assert [busy for busy, _ in told] == [True, False]
    assert told[0][1] > high_water
    assert told[1][1] <= high_water // 4
    await link.written()
    assert link.queued_bytes == 0
    link.abort()
    theirs.close()


@pytest.mark.parametrize("high_water", [16 << 10, 1 << 20, 4 << 20])
async def test_an_end_that_reads_nothing_is_busy_at_the_limit_and_no_longer_once_it_has_read(
    high_water: int,
) -> None:
    told: list[bool] = []
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    link = LinkProtocol(lambda request: None, lambda: None, high_water=high_water, on_busy=told.append)
    loop = asyncio.get_running_loop()
    await loop.create_unix_connection(lambda: link, sock=ours)
    sent = 0
    while not link.busy:
        link.send(Send(THEM, THEM), None, [bytes(1 << 12)])
        sent += 1
        assert link.queued_bytes < high_water + (1 << 14)
        await asyncio.sleep(0)
    reader, found = FrameReader(), []
    while len(found) < sent:
        found += reader.receive_data(await loop.sock_recv(theirs, 1 << 16))
    await eventually(lambda: told == [True, False])
    assert not link.queued_bytes
    link.abort()
    theirs.close()


def test_a_frame_takes_the_memory_of_what_has_come_and_not_of_what_was_announced() -> None:
    """What is not written to costs nothing; zeroed at once, it took seconds and gigabytes."""
    resident = psutil.Process().memory_info().rss
    readers = [FrameReader() for _ in range(3)]
    for reader in readers:
        assert reader.receive_data((2**31).to_bytes(4) + b"x" * 10) == []
        assert len(reader.room() or b"") == 2**31 - 10
    assert psutil.Process().memory_info().rss - resident < 64 << 20


def test_a_frame_that_comes_byte_by_byte_is_read_once_it_is_complete() -> None:
    body = frames()
    reader = FrameReader()
    found = [frame for byte in body for frame in reader.receive_data(bytes((byte,)))]
    assert read(found) == read(FrameReader().receive_data(body))
