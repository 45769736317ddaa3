"""A worker and its hub, joined by a socket."""

from __future__ import annotations

import asyncio
import itertools
import socket
from pathlib import Path

import pytest

from pyglyn.dist.control import Link, RegSend, Send
from pyglyn.errors import NodeBusy, PyglynError
from pyglyn.etf import Atom, Limits, Pid, Term, encode_bare
from pyglyn.node import Process
from pyglyn.node.admission import Admission, Arriving
from pyglyn.node.link import FrameReader, FrameWriter, LinkProtocol, encode_request
from pyglyn.node.settings import Settings, to_bytes
from pyglyn.node.worker import HubAddress, Worker


async def test_what_the_hub_sends_right_behind_its_welcome_is_taken(tmp_path: Path) -> None:
    """A connection may be lost at any moment, and other workers' nodes be busy from the beginning."""

    def hub() -> LinkProtocol:
        def on_request(request: Term) -> None:
            node = Atom("here@localhost")
            busy = [Atom("slow@localhost")]
            welcome = (Atom("welcome"), 7, node, 1, Atom("undefined"), busy, to_bytes(settings))
            protocol.request(welcome)
            protocol.request((Atom("node_down"), Atom("other@localhost")))
            protocol.request((Atom("busy"), Atom("slow@localhost"), False))

        protocol = Arriving(Admission(b"token", 5.0), on_request, lambda: None)
        return protocol

    settings = Settings(limits=Limits(depth=7))
    path = str(tmp_path / "hub")
    server = await asyncio.get_running_loop().create_unix_server(hub, path)
    async with server:
        worker = Worker()
        async with asyncio.timeout(180):
            await worker.connect(HubAddress(path, "token"), "worker")
        assert worker.runtime.serial == 7
        assert not worker.runtime.busy
        assert worker.runtime.settings == settings
        await worker.close()


def send_for_ever(me: Process, to: Pid) -> None:
    while True:
        me.send(to, bytes(1000))


async def test_a_loop_in_a_worker_that_never_waits_is_told_before_memory_runs_out(tmp_path: Path) -> None:
    """The hub does not read: what is queued for it grows to the limit and no further, for messages."""
    settings = Settings(send_limit=100_000)
    hubs: list[LinkProtocol] = []

    def hub() -> LinkProtocol:
        def on_request(request: Term) -> None:
            welcome = (
                Atom("welcome"),
                7,
                Atom("here@localhost"),
                1,
                Atom("undefined"),
                [],
                to_bytes(settings),
            )
            protocol.request(welcome)
            assert protocol.transport is not None
            protocol.transport.pause_reading()

        protocol = Arriving(Admission(b"token", 5.0), on_request, lambda: None)
        hubs.append(protocol)
        return protocol

    path = str(tmp_path / "hub")
    server = await asyncio.get_running_loop().create_unix_server(hub, path)
    async with server:
        worker = Worker()
        async with asyncio.timeout(180):
            await worker.connect(HubAddress(path, "token"), "worker")
        me, far = worker.runtime.attach("test"), Pid("far@localhost", 1, 0, 1)
        with pytest.raises(NodeBusy, match="are queued for the hub"):
            send_for_ever(me, far)
        queued = worker._protocol.queued_bytes
        assert 100_000 < queued < 102_000
        me.link(far)
        assert worker._protocol.queued_bytes > queued
        assert worker._protocol.transport is not None
        worker._closing = True
        worker._protocol.abort()
        hubs[0].abort()


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_frames_are_found_in_whatever_pieces_they_come(step: int) -> None:
    a, b = Pid("a@h", 1, 4, 1), Pid("b@h", 1, 0, 1)
    data = b"".join(
        [
            *FrameWriter().write(Send(a, b), None, [b"\x61", b"\x07"]),
            *FrameWriter().write(RegSend(a, Atom("n")), "b@h", [b"x" * 1000]),
            encode_request((Atom("main"), a)),
            *FrameWriter().write(Link(a, b), None, None),
        ]
    )
    reader = FrameReader()
    frames = [f for at in range(0, len(data), step) for f in reader.receive_data(data[at : at + step])]
    assert [
        (f.control, f.node, None if f.payload is None else bytes(f.payload), f.request) for f in frames
    ] == [
        (Send(a, b), None, b"\x61\x07", None),
        (RegSend(a, Atom("n")), "b@h", b"x" * 1000, None),
        (None, None, None, (Atom("main"), a)),
        (Link(a, b), None, None, None),
    ]


def test_headers_that_are_known_read_and_write_the_same_as_new_ones() -> None:
    """More senders than are kept, names of several lengths, with and without a payload, in changing order."""
    pids = [Pid(f"{'n' * (1 + number % 7)}@h", number, number % 3, 1) for number in range(600)]
    shared = Send(pids[0], pids[1])
    signals = [
        (control, node, payload)
        for number, (one, other) in enumerate(itertools.pairwise(pids * 2))
        for control, node, payload in (
            (Send(one, other), None, b"\x61\x07"),
            (shared, None, b"x" * (number % 3) * 70_000),
            (Send(one, other), "b@h", b"\x61\x08"),
            (Send(None, other), None, b""),
            (RegSend(one, Atom("n")), "b@h", b"\x61\x09"),
            (Link(one, other), None, None),
        )
    ]
    writer, reader = FrameWriter(), FrameReader()
    for control, node, payload in signals:
        data = b"".join(writer.write(control, node, None if payload is None else (payload,)))
        assert data == b"".join(FrameWriter().write(control, node, None if payload is None else (payload,)))
        [frame] = reader.receive_data(data)
        assert (frame.control, frame.node, bytes(frame.payload or b"")) == (control, node, payload or b"")
    assert max(len(writer._known), len(reader.known)) <= 512


@pytest.mark.parametrize(
    "header", [b"", b"\xff", encode_bare(1), encode_bare((None, (99, 1))), encode_bare((1, 2, 3))]
)
def test_what_is_no_frame_is_refused(header: bytes) -> None:
    with pytest.raises(PyglynError):
        FrameReader().receive_data(len(header).to_bytes(4) + header)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_what_a_worker_says_last_is_read_though_a_write_to_it_fails(loop: str) -> None:
    """Its exits and messages would be lost whenever somebody sends to it in the moment it ends."""
    uvloop = pytest.importorskip("uvloop")

    async def run() -> list[object]:
        got: list[object] = []
        gone = asyncio.Event()
        ours, theirs = socket.socketpair()
        link = LinkProtocol(got.append, gone.set)
        await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=ours)
        theirs.sendall(b"".join(map(encode_request, range(2000))))
        theirs.close()
        assert link.transport is not None
        link.request(Atom("question"))  # before anything was read
        link.flush()
        await gone.wait()
        return got

    factory = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.run(run()) == list(range(2000))
