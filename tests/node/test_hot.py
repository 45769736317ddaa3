"""What goes out is the same, and in the same turn, with the methods in C and with those in Python."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pyglyn.dist import RECOMMENDED, HandshakeComplete
from pyglyn.dist.control import RegSend, Send
from pyglyn.etf import Atom, Pid, encode_parts
from pyglyn.net.connection import Connection
from pyglyn.net.settings import NetSettings
from pyglyn.node import hot
from pyglyn.node.link import LinkProtocol
from pyglyn.node.ways import way_for_signals, way_out
from tests.node.runtimes import NODE, PEER
from tests.node.test_inlet import OTHER, THEM, Transport

pytestmark = pytest.mark.skipif(hot.c is None, reason="pyglyn.node._hot was not built")


@pytest.fixture(autouse=True)
def in_c_again() -> Iterator[None]:
    built = hot.c
    yield
    hot.c = built
    built.use(True)


async def in_both(run: Callable[[], Any]) -> tuple[Any, Any]:
    """What something gives with the methods in Python, and with those in C."""
    built, results = hot.c, []
    for in_c in (False, True):
        built.use(in_c)
        hot.c = built if in_c else None
        results.append(await run())
    return results[0], results[1]


def connected(said: list[Any], **settings: Any) -> tuple[Connection, Any]:
    connection = Connection(
        HandshakeComplete(PEER, 3, RECOMMENDED),
        1,
        NODE,
        NetSettings(**settings),
        lambda *_: None,
        lambda *_: None,
        lambda _, busy: said.append(busy),
    )
    transport: Any = Transport()
    connection.start(transport)
    return connection, transport


@pytest.mark.parametrize("seed", range(30))
async def test_a_connection_writes_the_same(seed: int) -> None:
    me, to = Pid(NODE, 1, 0, 7), THEM

    async def run() -> Any:
        chance, said = random.Random(seed), []  # type: ignore[var-annotated]
        connection, transport = connected(said, busy_limit=20_000, write_buffer=chance.choice((500, 65_536)))
        head = connection.head_of(Send(me, to))
        assert head is not None
        way, signals = way_out(head, 60_000, connection), way_for_signals(b"\x83D\0", 60_000, connection)
        for _ in range(120):
            body = bytes(chance.choice((0, 10, 100, 3_000, 17_000, 59_000, 70_000)))
            what = chance.randrange(8)
            if what < 3:
                said.append(way(body))
            elif what == 3:
                said.append(signals((33, me, to), body))
            elif what == 4:
                connection.send(RegSend(me, Atom("name")), encode_parts(body))
            elif what == 5:
                said.append(connection.send_frame(b"\0\0\0\1x"))
            elif what == 6:
                (connection.pause_writing if chance.random() < 0.5 else connection.resume_writing)()
            else:
                await asyncio.sleep(0)
                said.append((list(map(bytes, transport.written)), connection.traffic))
                transport.written.clear()
            if chance.random() < 0.005:
                connection.close("over")
            if connection.closed:
                break
        connection.resume_writing()
        await asyncio.sleep(0)
        said.append((b"".join(transport.written), connection.traffic, connection.busy))
        connection.close("over")
        return said, way(b"x"), b"".join(transport.written), connection._channel._ticker.sent

    plain, quick = await in_both(run)
    assert quick == plain


async def test_what_the_transport_raises_is_the_same() -> None:
    async def run() -> Any:
        connection, transport = connected([])
        loop, said = asyncio.get_running_loop(), []  # type: ignore[var-annotated]
        loop.set_exception_handler(lambda _, context: said.append(str(context["exception"])))

        def fail(data: bytes) -> None:
            raise OSError("not now")

        transport.write = fail
        connection.send_frame(b"\0\0\0\1x")
        await asyncio.sleep(0)
        transport.write = transport.written.append
        connection.send_frame(b"\0\0\0\1y")
        await asyncio.sleep(0)
        loop.set_exception_handler(None)
        return said, transport.written, connection.traffic

    plain, quick = await in_both(run)
    assert quick == plain
    assert plain[0] == ["not now"]


async def test_a_way_takes_terms_and_says_no_to_what_is_none() -> None:
    async def run() -> Any:
        connection, _ = connected([])
        way, signals = way_out(b"head", 20, connection), way_for_signals(b"head", 20, connection)
        refused = [way(each) for each in (object(), bytes(40), b"x")]
        refused += [signals((1, OTHER), object()), signals((1,), 2)]
        with pytest.raises(TypeError):
            way()  # type: ignore[call-arg]
        with pytest.raises(TypeError):
            signals(1)  # type: ignore[call-arg, arg-type]
        connection.close("over")
        return refused

    plain, quick = await in_both(run)
    assert quick == plain == [False, False, True, False, True]


async def test_a_link_that_could_not_be_flushed_once_is_flushed_with_what_is_sent_next() -> None:
    class Failing(Transport):
        fails = True

        def is_closing(self) -> bool:
            if self.fails:
                raise OSError("not now")
            return False

    async def run() -> list[bytes]:
        link, transport = LinkProtocol(lambda _: None, lambda: None), Failing()
        link.transport = transport  # type: ignore[assignment]
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        link.send_frame(b"one")
        await asyncio.sleep(0)
        transport.fails = False
        link.send_frame(b"two")
        await asyncio.sleep(0)
        return transport.written

    assert await in_both(run) == ([b"onetwo"], [b"onetwo"])
