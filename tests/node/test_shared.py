"""Memory of both ends of a link: large messages through it, in their order, and through the socket where there is no room."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from pyglyn import etf
from pyglyn.dist.control import Send
from pyglyn.dist.framing import LARGE
from pyglyn.errors import RemoteProtocolError
from pyglyn.etf import Pid
from pyglyn.net import NetSettings
from pyglyn.node import Node, Process, Settings
from pyglyn.node.link import LinkProtocol
from pyglyn.node.shared import FRONT, LEAST, PIECE, Borrower, Lender
from pyglyn.node.worker_link import BUSY
from pyglyn.supervision import Supervisor, start, worker
from pyglyn.testing import eventually
from tests.node.conftest import unique_name
from tests.node.joined import joined, mailbox
from tests.node.runtimes import THEM

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere all goes through the socket")

MIB = 1 << 20
TO_THEM = Send(THEM, THEM)


class Both:
    """The two ends of memory."""

    def __init__(self, size: int) -> None:
        offers: list[tuple[str, str]] = []
        self.lender = Lender(size, lambda path, name: offers.append((path, name)))
        assert self.lender.put([bytes(PIECE)], PIECE) is None, "nobody has it yet"
        [(path, name)] = offers
        self.path, self.name = path, name
        self.borrower = Borrower(path, name)
        self.lender.answered(True)

    def send(self, *parts: bytes) -> bytes | memoryview | None:
        """What comes out of what was put in; None where there is no room."""
        size = sum(map(len, parts))
        first = self.lender.put(parts, size)
        return None if first is None else self.borrower.take(first, size)


def mapped(names: Sequence[str]) -> int:
    """How often this OS process has memory of these names."""
    with open("/proc/self/maps") as maps:
        return sum(any(name in line for name in names) for line in maps)


# --- places -------------------------------------------------------------------------------------------


def test_a_message_comes_out_as_it_went_in_and_its_place_is_free_again() -> None:
    both = Both(8 * PIECE)
    for size in (1, LARGE, PIECE + 1, 4 * PIECE, 2 * PIECE - 1) * 4:
        data = os.urandom(size)
        found = both.send(data[: size // 3], b"", data[size // 3 :])
        assert type(found) is memoryview
        assert found == data
        del found
    name = both.name
    assert mapped([name]) == 2
    del both
    assert not mapped([name])


def test_a_place_is_taken_as_long_as_anything_refers_to_it() -> None:
    both = Both(8 * PIECE)
    first, second = both.send(b"1" * PIECE), both.send(b"2" * PIECE)
    assert type(first) is memoryview
    assert type(second) is memoryview
    part = memoryview(first[10:20])
    del first, second
    third = both.send(b"3" * PIECE)
    assert bytes(part) == b"1" * 10
    assert both.lender.in_use == 2
    del part
    fourth = both.send(b"4" * PIECE)
    assert (third, fourth) == (b"3" * PIECE, b"4" * PIECE)
    assert both.lender.in_use == 2


def test_messages_that_nobody_lets_go_of_leave_half_of_it_to_others() -> None:
    both = Both(8 * PIECE)
    kept = [both.send(bytes((number,)) * 2 * PIECE) for number in range(20)]
    assert [type(each) for each in kept] == [memoryview] * 2 + [bytes] * 18
    assert kept == [bytes((number,)) * 2 * PIECE for number in range(20)]
    assert both.lender.in_use <= 6


def test_what_is_too_large_or_finds_no_room_is_not_put_there() -> None:
    both = Both(8 * PIECE)
    assert both.send(bytes(4 * PIECE + 1)) is None
    assert not both.lender.is_short
    places = [FRONT + first * PIECE for first in (0, 2, 4, 6)]
    assert [both.lender.put([bytes(2 * PIECE)], 2 * PIECE) for _ in range(5)] == [*places, None]
    assert both.lender.is_short
    for place in places[1:3]:
        both.borrower.take(place, 2 * PIECE)
    assert both.lender.put([bytes(4 * PIECE)], 4 * PIECE) == places[1]
    both.lender.close()
    assert not both.lender.is_short
    assert both.send(bytes(PIECE)) is None


@pytest.mark.parametrize(
    ("at", "size"),
    [
        (-1, 10),
        (FRONT - 1, 10),
        (FRONT, 0),
        (FRONT, -1),
        (FRONT + 8 * PIECE, 1),
        (FRONT + 7 * PIECE + 1, PIECE),
        (2**70, 1),
    ],
)
def test_nothing_is_read_beyond_it(at: int, size: int) -> None:
    with pytest.raises(RemoteProtocolError):
        Both(8 * PIECE).borrower.take(at, size)


def test_what_is_put_together_in_a_place_is_sent_from_there() -> None:
    both = Both(8 * PIECE)
    place = both.lender.reserve(2 * PIECE + 1)
    assert place is not None
    assert len(place) == 3 * PIECE
    place[:] = bytes(range(256)) * (3 * PIECE // 256)
    message = place[10 : PIECE + 20][5:]
    del place
    at = both.lender.put([message], len(message))
    assert at == FRONT + 15
    assert both.lender.in_use == 3
    expected = bytes(message)
    del message
    found = both.borrower.take(at, PIECE + 5)
    assert found == expected
    assert both.send(bytes(PIECE)) == bytes(PIECE)
    assert both.lender.in_use == 4
    del found
    assert both.send(bytes(PIECE)) == bytes(PIECE)
    assert both.lender.in_use == 1


def test_a_place_that_is_not_used_is_free_again() -> None:
    both = Both(8 * PIECE)
    assert both.lender.reserve(4 * PIECE + 1) is None
    places = [both.lender.reserve(4 * PIECE) for _ in range(3)]
    assert [place is not None for place in places] == [True, True, False]
    view = memoryview(places[0] or b"")[100:200]
    places.clear()
    assert both.lender.in_use == 4
    del view
    assert both.lender.in_use == 0
    place = both.lender.reserve(PIECE)
    both.lender.close()
    del place
    assert both.lender.reserve(PIECE) is None
    assert both.lender.in_use == 0


def test_what_begins_late_in_its_place_or_is_in_another_ones_is_copied() -> None:
    both, other = Both(8 * PIECE), Both(8 * PIECE)
    place = both.lender.reserve(3 * PIECE)
    assert place is not None
    place[:] = b"x" * 3 * PIECE
    for lender, message in ((both.lender, place[PIECE:]), (other.lender, place)):
        at = lender.put([message], len(message))
        borrower = both.borrower if lender is both.lender else other.borrower
        assert at is not None
        assert borrower.take(at, len(message)) == b"x" * len(message)
    assert both.lender.in_use == 5
    message = place[1:]
    del place
    assert both.lender.put([message], len(message)) == FRONT + 1, "and from there after all"


def test_another_file_by_the_same_path_is_not_taken_for_it() -> None:
    """As in another container, where the number is somebody else's."""
    both = Both(8 * PIECE)
    with open("/etc/passwd", "rb") as other:
        for path, name in (
            (f"/proc/{os.getpid()}/fd/{other.fileno()}", both.name),
            ("/proc/1/fd/no", both.name),
            (both.path, "pyglyn-other"),
            ("a\0b", both.name),
        ):
            with pytest.raises(FileNotFoundError):
                Borrower(path, name)


def test_memory_that_may_shrink_is_not_taken() -> None:
    """To look at what is not there any more ends an OS process by a signal."""
    name = "pyglyn-1234"
    fd = os.memfd_create(name, os.MFD_ALLOW_SEALING)
    path = f"/proc/{os.getpid()}/fd/{fd}"
    try:
        os.ftruncate(fd, FRONT + 8 * PIECE)
        with pytest.raises(PermissionError):
            Borrower(path, name)
        os.ftruncate(fd, FRONT)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        with pytest.raises(FileNotFoundError):
            Borrower(path, name)
        os.ftruncate(fd, FRONT + 8 * PIECE)
        Borrower(path, name)
    finally:
        os.close(fd)


def test_a_fork_keeps_nothing_of_it_and_gives_nothing_back() -> None:
    both = Both(8 * PIECE)
    kept = both.send(b"x" * PIECE)
    idle = Both(8 * PIECE)
    names = [both.name, idle.name]
    assert mapped(names) == 4
    forked = os.fork()
    if not forked:
        try:
            still = mapped(names)  # a view refers to this one
            del kept
            os._exit(still)
        except BaseException:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 1
    assert both.send(b"y" * PIECE) == b"y" * PIECE
    assert kept == b"x" * PIECE
    assert idle.send(b"z" * PIECE) == b"z" * PIECE


# --- links --------------------------------------------------------------------------------------------


class Ends:
    """Two links, and what has come to the second."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.busy: list[bool] = []
        self.one: LinkProtocol
        self.other: LinkProtocol

    def _take(self, payload: bytes | memoryview | None) -> None:
        self.got.append(bytes(payload or b""))

    async def connect(
        self, memory: int = 8 * MIB, *, keep: Callable[[Any], None] | None = None, **options: Any
    ) -> None:
        pair = socket.socketpair()
        loop = asyncio.get_running_loop()
        self.one = LinkProtocol(
            lambda request: None, lambda: None, memory=memory, on_busy=self.busy.append, **options
        )
        self.other = LinkProtocol(lambda request: None, lambda: None)
        take = keep or self._take
        self.other.on_signal = lambda control, payload, node: take(payload)
        for sock, link in zip(pair, (self.one, self.other), strict=True):
            await loop.create_unix_connection(lambda link=link: link, sock=sock)

    async def accepted(self) -> None:
        """The memory is there for what is sent from now on."""
        self.one.send(TO_THEM, None, [bytes(LARGE)])
        await eventually(lambda: self.one._writer.lender._accepted)  # type: ignore[union-attr]
        await eventually(lambda: self.got)
        self.got.clear()


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    made = Ends()
    yield made
    made.one.abort()
    made.other.abort()


def numbered(count: int) -> list[bytes]:
    """Messages of every way: small ones, and large ones in memory, too large for it, and more than it has."""
    sizes = (10, LEAST - 1, LEAST, LARGE, MIB, 100, 3 * MIB, 5 * MIB)
    return [bytes((number,)) * sizes[number % len(sizes)] for number in range(count)]


@pytest.mark.parametrize("memory", [8 * MIB, MIB, 3 * PIECE, 1, 0])
@pytest.mark.parametrize("at_once", [True, False])
async def test_large_and_small_messages_keep_their_order(ends: Ends, memory: int, at_once: bool) -> None:
    await ends.connect(memory)
    sent = numbered(50)
    for message in sent:
        ends.one.send(TO_THEM, None, [message[:5], message[5:]])
        if not at_once:
            await asyncio.sleep(0)
    await eventually(lambda: len(ends.got) == len(sent), timeout=60)
    assert ends.got == sent


@pytest.mark.parametrize("size", [LEAST, MIB])
@pytest.mark.parametrize("together", [True, False])
async def test_few_bytes_of_large_messages_go_through_the_socket(
    ends: Ends, size: int, together: bool
) -> None:
    """Their copies and system calls are what that way costs: some 20 for a mebibyte."""
    await ends.connect()
    await ends.accepted()
    assert ends.one.transport is not None
    written: list[int] = []
    write = ends.one.transport.write
    ends.one.transport.write = lambda data: (written.append(len(data)), write(data))[1]  # type: ignore[method-assign]
    for number in range(0, 50, 2):
        two = [bytes((each,)) * size for each in (number, number + 1)]
        if together:
            ends.one.send_many(TO_THEM, None, two)
        else:
            for message in two:
                ends.one.send(TO_THEM, None, [message])
        await eventually(lambda number=number: len(ends.got) == number + 2)
    assert ends.got == [bytes((number,)) * size for number in range(50)]
    assert len(written) <= 50
    assert sum(written) < 50 * 200


async def test_messages_that_are_kept_where_they_are_come_to_no_harm(ends: Ends) -> None:
    """As in mailboxes that nobody reads."""
    kept: list[Any] = []
    await ends.connect(2 * MIB, keep=kept.append)
    for number in range(100):
        ends.one.send(TO_THEM, None, [bytes((number,)) * (PIECE + 3 * number)])
        await eventually(lambda number=number: len(kept) == number + 1)
    assert [bytes(payload) for payload in kept] == [
        bytes((number,)) * (PIECE + 3 * number) for number in range(100)
    ]


async def test_an_end_that_waits_is_busy_while_most_of_the_memory_is_in_use(ends: Ends) -> None:
    await ends.connect(6 * MIB, waits=True)
    await ends.accepted()
    assert ends.other.transport is not None
    ends.other.transport.pause_reading()
    sent = 0
    while not ends.one.busy:
        ends.one.send(TO_THEM, None, [bytes(MIB)])
        sent += 1
    assert sent == 4
    assert ends.one.queued_bytes < 1000
    ends.other.transport.resume_reading()
    await eventually(lambda: not ends.one.busy)
    assert len(ends.got) == sent
    assert ends.busy == [True, False]


async def test_the_other_end_hears_of_large_messages_at_once_and_who_sends_many_lets_others_have_a_turn(
    ends: Ends,
) -> None:
    await ends.connect(32 * MIB, waits=True)
    await ends.accepted()
    assert ends.one.transport is not None
    sent = 0
    while not ends.one.busy:
        ends.one.send(TO_THEM, None, [bytes(MIB)])
        sent += 1
        assert not ends.one._out
    assert sent == 4
    turns = 0
    while ends.one.busy:
        await asyncio.sleep(0)
        turns += 1
    assert turns == 1
    assert ends.busy == [True, False]
    await eventually(lambda: len(ends.got) == sent)


@pytest.mark.parametrize("waits", [True, False])
async def test_an_end_is_busy_the_moment_too_much_waits(ends: Ends, waits: bool) -> None:
    """A process that sends again and again, and gives way whenever it has to, would not have to before it is done."""
    await ends.connect(0, waits=waits, high_water=2 * MIB)
    sent = 0
    while not ends.one.busy:
        ends.one.send(TO_THEM, None, [bytes(MIB)])
        sent += 1
    assert sent == 2
    await eventually(lambda: len(ends.got) == sent)
    assert ends.busy == [True, False]


async def test_an_end_that_does_not_wait_sends_the_rest_through_the_socket(ends: Ends) -> None:
    await ends.connect(8 * MIB, high_water=64 * MIB)
    await ends.accepted()
    for number in range(30):
        ends.one.send(TO_THEM, None, [bytes((number,)) * MIB])
    assert not ends.one.busy
    assert 20 * MIB < ends.one.queued_bytes < 30 * MIB
    await eventually(lambda: len(ends.got) == 30, timeout=60)
    assert ends.got == [bytes((number,)) * MIB for number in range(30)]


async def test_where_the_memory_cannot_be_opened_all_goes_through_the_socket(ends: Ends) -> None:
    await ends.connect()
    for number in range(10):
        ends.one.send(TO_THEM, None, [bytes((number,)) * MIB])
        ends.one._writer.lender._close_number()  # type: ignore[union-attr]
        await eventually(lambda number=number: len(ends.got) == number + 1)
    assert ends.got == [bytes((number,)) * MIB for number in range(10)]
    assert ends.one._writer.lender is not None
    assert not ends.one._writer.lender.in_use


async def test_an_end_that_is_closed_keeps_no_memory(ends: Ends) -> None:
    await ends.connect()
    await ends.accepted()
    name = ends.one._writer.lender.name  # type: ignore[union-attr]
    assert mapped([name]) == 2
    ends.one.abort()
    await eventually(lambda: ends.one.transport is None and ends.other.transport is None)
    assert not mapped([name])


async def test_a_message_is_said_to_be_where_there_is_none(ends: Ends) -> None:
    await ends.connect()
    await ends.accepted()
    assert ends.one.transport is not None
    header = etf.encode_bare((None, (2, None, THEM), 2**40, MIB))
    ends.one.transport.write(len(header).to_bytes(4) + header)
    with pytest.raises(RemoteProtocolError):
        ends.other._reader.receive_data(len(header).to_bytes(4) + header)
    ends.one.transport.abort()


# --- nodes --------------------------------------------------------------------------------------------


async def test_blobs_go_through_the_hub_in_their_order_with_small_messages_between() -> None:
    """From a peer to a worker, and from a worker to another one and to a peer."""
    async with joined() as here:
        peer, first, second = await here.peer(), await here.worker(), await here.worker()
        inside, beside = first.runtime.attach("inside"), second.runtime.attach("beside")
        messages = [each for number in range(30) for each in (number, bytes((number,)) * MIB)]

        async def send_all(send: Callable[[Any], None], got: Callable[[], list[Any]]) -> None:
            for count, message in enumerate(messages, 1):
                send(message)
                if count % 12 == 0:
                    await eventually(lambda count=count: len(got()) == count)
            await eventually(lambda: got() == messages, timeout=60)

        await send_all(
            lambda message: peer.send(here.node.name, inside.pid, message), lambda: mailbox(inside)
        )
        await send_all(lambda message: inside.send(beside.pid, message), lambda: mailbox(beside))
        await send_all(lambda message: inside.send(("sink", peer.name), message), peer.received)
        for link in (here.link(first), here.link(second)):
            assert link.protocol._writer.lender is not None
            assert link.protocol._writer.lender.in_use


async def test_a_worker_is_told_that_a_node_is_busy_only_if_it_still_is_when_what_can_be_is_written() -> None:
    async with joined() as here:
        peer, worker_ = await here.peer(), await here.worker()
        inside, link = worker_.runtime.attach("inside"), here.link(worker_)
        told: list[Any] = []
        request = link.protocol.request

        def noting(what: Any) -> None:
            told.append(what)
            request(what)

        link.protocol.request = noting  # type: ignore[method-assign]
        for number in range(5):
            inside.send(("sink", peer.name), bytes(MIB + number))
            await eventually(lambda number=number: len(peer.received()) == number + 1)
        assert not [each for each in told if type(each) is tuple and each[0] is BUSY]
        peer.ups[0].pause_reading()
        while not worker_.runtime.busy.nodes:
            inside.send(("sink", peer.name), bytes(MIB))
            await asyncio.sleep(0)
        await eventually(lambda: peer.name in worker_.runtime.busy.nodes)
        peer.ups[0].resume_reading()
        await eventually(lambda: not worker_.runtime.busy.nodes)


async def test_who_sends_blobs_to_a_worker_that_takes_nothing_is_not_read_until_it_has_caught_up() -> None:
    """What finds no room in memory waits for the socket, up to the limit of the link."""
    async with joined(shared_memory=2 * MIB, worker_queue_limit=4 * MIB) as here:
        peer, slow = await here.peer(), await here.worker()
        inside = slow.runtime.attach("inside")
        link = here.link(slow)
        peer.send(here.node.name, inside.pid, (0, bytes(MIB // 2)))
        lender = link.protocol._writer.lender
        assert lender is not None
        await eventually(lambda: lender._accepted and len(mailbox(inside)) == 1)
        assert slow._protocol.transport is not None
        slow._protocol.transport.pause_reading()
        sent = 1
        while not link.paused._sources:
            peer.send(here.node.name, inside.pid, (sent, bytes(MIB // 2)))
            peer.send(here.node.name, inside.pid, (sent + 1, b"small"))
            sent += 2
            await asyncio.sleep(0)
        assert link.paused._sources == {here.connection(peer)}
        assert lender.is_short
        assert link.protocol.queued_bytes < 8 * MIB
        slow._protocol.transport.resume_reading()
        await eventually(lambda: len(mailbox(inside)) == sent, timeout=60)
        assert [number for number, _ in mailbox(inside)] == list(range(sent))
        assert not link.paused._sources


async def test_what_a_peer_sends_in_fragments_is_put_together_where_the_worker_reads_it() -> None:
    async with joined() as here:
        peer, worker_ = await here.peer(), await here.worker()
        inside, local = worker_.runtime.attach("inside"), here.node.runtime.attach("local")
        link = here.link(worker_)
        connection = here.connection(peer)
        peer.send(here.node.name, inside.pid, bytes(MIB))
        lender = link.protocol._writer.lender
        assert lender is not None
        await eventually(lambda: lender._accepted and len(mailbox(inside)) == 1)
        kept = lender.in_use
        for to in (local.pid, Pid(here.node.name, 99, 77, here.node.local.creation)):
            assert here.node.router.room_for(Send(None, to), MIB) is None
        room = here.node.router.room_for(Send(None, inside.pid), MIB)
        assert room is not None
        assert lender.in_use == kept + MIB // PIECE
        del room
        assert lender.in_use == kept
        copies: list[int] = []
        find = lender._find
        lender._find = lambda size: (copies.append(size), find(size))[1]  # type: ignore[method-assign]
        for number in range(5):
            peer.send(here.node.name, inside.pid, bytes((number,)) * MIB)
        await eventually(lambda: len(mailbox(inside)) == 6)
        assert mailbox(inside)[1:] == [bytes((number,)) * MIB for number in range(5)]
        assert len(copies) == 5, "one place for each"
        # A peer that goes in the middle of one.
        head = b"\x83E" + (1).to_bytes(8) + (40).to_bytes(8) + b"\0"
        packet = head + etf.encode_bare((22, peer.pid(), inside.pid)) + bytes(PIECE)
        theirs = peer.ups[0]._transport
        assert theirs is not None
        kept = lender.in_use
        theirs.write(len(packet).to_bytes(4) + packet)
        await eventually(lambda: lender.in_use == kept + 41)
        theirs.abort()
        await eventually(lambda: connection.closed and lender.in_use == kept)


async def stuck(me: Process) -> None:
    """Reads two messages; then its OS process reads nothing any more."""
    me.send("test", (me.pid, os.getpid()))
    await me.receive()
    await me.receive()
    signal.pause()


async def reading(me: Process) -> None:
    me.send("test", (me.pid, os.getpid()))
    while True:
        message = await me.receive()
        me.send("test", (message[:1], len(message)))


async def test_a_worker_that_is_killed_with_blobs_on_their_way_keeps_no_memory() -> None:
    """And what is for others arrives, before and after."""
    settings = Settings(net=NetSettings(epmd_port=0))
    async with Node(unique_name(), cookie="c", settings=settings) as node, node.process() as me:
        await me.register("test")
        await start(node, Supervisor(name="tree").add(worker(stuck, restart="temporary")))
        stuck_one, os_pid = await me.receive(timeout=60)
        me.send(stuck_one, bytes(MIB))
        lender = node.workers.links[stuck_one.serial].protocol._writer.lender
        await eventually(lambda: lender is not None and lender._accepted)
        me.send(stuck_one, b"go on")
        for _ in range(30):
            me.send(stuck_one, bytes(MIB))
            await asyncio.sleep(0)
        assert lender is not None
        assert lender.is_short
        ref = me.monitor(stuck_one)
        await start(node, Supervisor(name="others").add(worker(reading)))
        other, _ = await me.receive(lambda message: message[0] != stuck_one, timeout=60)
        for number in range(30):
            me.send(other, bytes((number,)) * MIB)
            assert await me.receive(lambda message: len(message) == 2, timeout=60) == (bytes((number,)), MIB)
        name = lender.name
        assert mapped([name]) == 1
        os.kill(os_pid, signal.SIGKILL)
        await me.receive(lambda message: message[1] == ref, timeout=60)
        await eventually(lambda: not mapped([name]))
        me.send(other, bytes(MIB))
        assert await me.receive(lambda message: len(message) == 2, timeout=60) == (b"\0", MIB)
