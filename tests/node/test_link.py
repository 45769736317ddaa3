"""Frames between a hub and its workers: written, split and read. Over sockets in test_worker_link and test_worker_socket."""

from __future__ import annotations

import pytest

from pyglyn import etf
from pyglyn.dist.control import Link, RegSend, Send
from pyglyn.errors import DecodeError, PyglynError, RemoteProtocolError
from pyglyn.etf import Atom
from pyglyn.node.link import Frame, FrameReader, FrameWriter, LinkProtocol, encode_request
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

    def on_frame(frame: Frame) -> None:
        handled.append(frame)
        if len(handled) == 1:
            raise KeyError("shop")

    LinkProtocol(on_frame, lambda: None).data_received(frames())
    assert read(handled) == EXPECTED
    assert "could not be handled" in caplog.text
