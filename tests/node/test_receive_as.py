"""Messages as values: made straight of the bytes that they came as, or of the term where they are terms already."""

from __future__ import annotations

import asyncio
from typing import Any

import attrs
import pytest

from pyglyn import etf, gleam
from pyglyn.dist.control import Send
from pyglyn.errors import DecodeErrors
from pyglyn.etf import Atom, Limits
from pyglyn.gleam import decode
from tests.node.runtimes import noted


@attrs.frozen
class Ordered:
    id: str
    count: int


DERIVED = gleam.decoder(Ordered)
BY_HAND = decode.field(1, decode.string, lambda id: decode.field(2, decode.int).map(lambda n: Ordered(id, n)))
TERM = (Atom("ordered"), b"a", 1)


@pytest.mark.parametrize("decoder", [DERIVED, BY_HAND], ids=["derived", "by hand"])
async def test_messages_from_outside_and_from_here_become_values_in_order(decoder: Any) -> None:
    runtime = noted()
    me = runtime.process()
    runtime.receive(Send(None, me.pid), TERM)  # type: ignore[arg-type]
    me.send(me.pid, (Atom("ordered"), b"b", 2))
    waiting = asyncio.ensure_future(me.receive(lambda message: message == b"binary", 1))
    await asyncio.sleep(0)
    runtime.receive(Send(None, me.pid), (Atom("ordered"), b"c", 3))  # type: ignore[arg-type]
    me.send(me.pid, b"binary")
    assert await waiting == b"binary"  # and those before it are terms now
    runtime.receive(Send(None, me.pid), (Atom("ordered"), b"d", 4))  # type: ignore[arg-type]
    assert [await me.receive_as(decoder) for _ in range(4)] == [
        Ordered(id, n) for n, id in enumerate("abcd", 1)
    ]
    with pytest.raises(TimeoutError):
        await me.receive_as(decoder, 0)


async def test_a_binary_is_the_message_however_it_came_and_whatever_was_passed_over() -> None:
    runtime = noted()
    me = runtime.process()
    runtime.receive(Send(None, me.pid), b"m\0\0\0\1x")  # type: ignore[arg-type]
    me.send(me.pid, b"m\0\0\0\1y")
    text = gleam.decoder(bytes)
    assert await me.receive_as(text) == b"m\0\0\0\1x"
    me.send(me.pid, Atom("wanted"))
    assert await me.receive(lambda message: message is Atom("wanted")) is Atom("wanted")
    assert await me.receive_as(text) == b"m\0\0\0\1y"


@pytest.mark.parametrize("decoder", [DERIVED, BY_HAND], ids=["derived", "by hand"])
async def test_a_message_that_does_not_fit_is_taken_and_told(decoder: Any) -> None:
    runtime = noted()
    me = runtime.process()
    for message in ((Atom("ordered"), 5, b""), TERM):
        runtime.receive(Send(None, me.pid), message)  # type: ignore[arg-type]
    with pytest.raises(DecodeErrors) as caught:
        await me.receive_as(decoder)
    assert caught.value.errors
    assert await me.receive_as(decoder, 0) == Ordered("a", 1)


async def test_what_is_no_term_or_beyond_the_limits_is_dropped_and_counted() -> None:
    runtime = noted(limits=Limits(depth=1))
    me = runtime.process()
    anything = gleam.decoder(Any)
    runtime.runtime.receive_encoded(Send(None, me.pid), b"h\1")  # type: ignore[arg-type]
    runtime.receive(Send(None, me.pid), ((1,),))  # type: ignore[arg-type]
    runtime.receive(Send(None, me.pid), (1,))  # type: ignore[arg-type]
    assert await me.receive_as(anything, 1) == (1,)
    assert runtime.runtime.refused == 2
    runtime.runtime.receive_encoded(Send(None, me.pid), b"h\1")  # type: ignore[arg-type]
    with pytest.raises(TimeoutError):
        await me.receive_as(anything, 0)


async def test_a_derived_decoder_never_sees_the_term_of_one_that_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if etf.IMPLEMENTATION != "c":
        pytest.skip("the plans are in C")
    runtime = noted()
    me = runtime.process()
    read: list[bytes] = []
    monkeypatch.setattr(etf, "decode_bare", lambda data, *_, **__: read.append(data))
    me._mailbox._decode = read.append  # type: ignore[assignment]
    me._mailbox.put_encoded(etf.encode_bare(TERM))
    assert await me.receive_as(DERIVED) == Ordered("a", 1)
    assert read == []
