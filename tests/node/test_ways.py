"""Many messages to one receiver take a short way, and are what they would be on the long one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pyglyn import etf
from pyglyn.dist.control import (
    AliasSend,
    Control,
    DemonitorP,
    Link,
    LinkExit,
    MonitorP,
    MonitorPExit,
    RegSend,
    Send,
    UnlinkId,
)
from pyglyn.errors import EncodeError
from pyglyn.etf import Atom, Pid, Reference, Term
from pyglyn.node import Exit, Node
from pyglyn.node.ways import way_by_name, way_here, way_out
from pyglyn.testing import Beam, eventually
from tests.hot import hot as hot
from tests.hot import in_python_and_in_c
from tests.node.runtimes import CREATION, NODE, NOPROC, PEER, REF, THEM, mailbox, noted

pytestmark = in_python_and_in_c


class Port:
    """Keeps what is sent, while it is open."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.open = True

    def send_frame(self, frame: bytes) -> bool:
        if self.open:
            self.sent.append(frame)
        return self.open


def test_a_way_out_writes_head_and_term() -> None:
    port = Port()
    way = way_out(b"head", 100, port)
    assert way((1, b"x"))
    assert port.sent == [etf.pack_frame(b"head", (1, b"x"), 100)]


@pytest.mark.parametrize("message", [b"x" * 100, object()])
def test_what_is_too_large_or_no_term_takes_another(message: Any) -> None:
    port = Port()
    assert not way_out(b"head", 100, port)(message)
    assert port.sent == []


def test_a_port_that_takes_nothing_has_taken_nothing() -> None:
    port = Port()
    port.open = False
    assert not way_out(b"head", 100, port)(1)


async def test_a_way_here_ends_with_the_receiver() -> None:
    process = noted().process()
    way = way_here(process)
    assert way(["text"])
    assert mailbox(process) == [[b"text"]]
    process.end()
    assert not way(1)


async def test_a_way_by_name_ends_with_the_name() -> None:
    names = {"shop": THEM}
    way = way_by_name(lambda message: True, names, "shop")
    assert way(1)
    names["shop"] = Pid(PEER, 91, 0, 3)
    assert not way(1)
    del names["shop"]
    assert not way(1)


@pytest.mark.parametrize("to", [THEM, ("shop", PEER), (Atom("shop"), PEER)])
async def test_messages_out_are_the_same_on_every_way(to: Any) -> None:
    here, port = noted(), Port()
    asked: list[Any] = []

    def on_way(control: Any, node: str) -> Any:
        asked.append((control, node))
        return b"head", 1000, port

    here.runtime.on_way = on_way
    me = here.process()
    for number in range(4):
        me.send(to, number)
    control = Send(me.pid, THEM) if to is THEM else RegSend(me.pid, Atom("shop"))
    assert here.take() == [(control, 0, PEER), (control, 1, PEER)]
    assert asked == [(control, PEER)]
    assert port.sent == [etf.pack_frame(b"head", number, 1000) for number in (2, 3)]
    port.open = False
    me.send(to, 4)
    me.send(to, b"x" * 2000)
    assert here.take() == [(control, 4, PEER), (control, b"x" * 2000, PEER)]


async def test_messages_to_aliases_of_a_node_take_one_way() -> None:
    here, port = noted(), Port()
    here.runtime.on_way = lambda control, node: (b"head", 1000, port) if control is None else None
    me, other = here.process(), here.process()
    aliases = [Reference(PEER, 3, (number, 0, 0)) for number in range(4)]
    me.send(aliases[0], 0)
    assert here.take() == [(AliasSend(me.pid, aliases[0]), 0, PEER)]
    me.send(aliases[1], 1)
    other.send(aliases[2], 2)
    assert port.sent == [
        etf.pack_frame(b"head", 1, 1000, (33, me.pid, aliases[1])),
        etf.pack_frame(b"head", 2, 1000, (33, other.pid, aliases[2])),
    ]
    with pytest.raises(EncodeError):
        me.send(aliases[1], object())
    here.runtime.node_down(PEER)
    me.send(aliases[3], 3)
    port.open = False
    me.send(aliases[3], 4)
    assert here.take() == [(AliasSend(me.pid, aliases[3]), number, PEER) for number in (3, 4)]
    assert len(port.sent) == 2


@pytest.mark.parametrize("to", [THEM, ("shop", PEER)])
async def test_a_monitor_and_its_end_are_the_same_on_every_way(to: Any) -> None:
    here, port = noted(), Port()
    here.runtime.on_way = lambda control, node: (b"head", 1000, port) if control is None else None
    me = here.process()
    watched = to if isinstance(to, Pid) else Atom("shop")
    first = me.monitor(to)
    me.demonitor(first)
    assert here.take() == [(MonitorP(me.pid, watched, first), None, PEER)]
    second = me.monitor(to)
    assert port.sent == [
        etf.pack_frame(b"head", (20, me.pid, watched, first), 1000),
        etf.pack_frame(b"head", (19, me.pid, watched, second), 1000),
    ]
    port.open = False
    me.demonitor(second)
    assert here.take() == [(DemonitorP(me.pid, watched, second), None, PEER)]
    port.open = True
    here.runtime.node_down(PEER)
    third = me.monitor(to)
    assert here.take() == [(MonitorP(me.pid, watched, third), None, PEER)]


DEAD = Pid(NODE, 9_999, 0, CREATION)
ANSWERED: list[tuple[Control, Control, tuple[Any, ...]]] = [
    (MonitorP(THEM, DEAD, REF), MonitorPExit(DEAD, THEM, REF), (28, DEAD, THEM, REF)),
    (
        MonitorP(THEM, Atom("nobody"), REF),
        MonitorPExit(Atom("nobody"), THEM, REF),
        (28, Atom("nobody"), THEM, REF),
    ),
    (Link(THEM, DEAD), LinkExit(DEAD, THEM), (24, DEAD, THEM)),
]


@pytest.mark.parametrize(("asked", "answer", "signal"), ANSWERED)
async def test_the_end_of_a_process_is_told_the_same_on_every_way(
    asked: Control, answer: Control, signal: tuple[Any, ...]
) -> None:
    here, port = noted(), Port()
    here.runtime.on_way = lambda control, node: (b"head", 1000, port) if control is None else None
    for _ in range(3):
        here.runtime.receive_encoded(asked, None)
    assert here.take() == [(answer, NOPROC, PEER)]
    assert port.sent == 2 * [etf.pack_frame(b"head", NOPROC, 1000, signal)]
    port.open = False
    here.runtime.receive_encoded(asked, None)
    assert here.take() == [(answer, NOPROC, PEER)]


async def test_a_link_and_its_end_are_the_same_on_every_way() -> None:
    here, port = noted(), Port()
    here.runtime.on_way = lambda control, node: (b"head", 1000, port) if control is None else None
    me = here.process()
    me.link(THEM)
    assert here.take() == [(Link(me.pid, THEM), None, PEER)]
    here.runtime.receive_encoded(UnlinkId(7, THEM, me.pid), None)
    me.link(THEM)
    me.unlink(THEM)
    assert here.take() == []
    signals = [etf.decode_bare(frame[8:])[0] for frame in port.sent]
    (_, number, *_) = signals[-1]  # type: ignore[misc]
    assert signals == [(36, 7, me.pid, THEM), (1, me.pid, THEM), (35, number, me.pid, THEM)]


async def test_a_reason_that_is_too_long_for_the_short_way_takes_the_other() -> None:
    here, port = noted(), Port()
    here.runtime.on_way = lambda control, node: (b"head", 1000, port) if control is None else None
    for reason, sent in ((b"short", 0), (b"short", 1), (b"x" * 2000, 1)):
        me = here.process()
        here.runtime.receive_encoded(Link(THEM, me.pid), None)
        me.end(reason)
        assert len(port.sent) == sent
    assert [(type(control), reason) for control, reason, _ in here.take()] == [
        (LinkExit, b"short"), (LinkExit, b"x" * 2000)
    ]  # fmt: skip


async def test_an_alias_of_this_node_is_no_way_out() -> None:
    here, port = noted(), Port()
    here.runtime.on_way = lambda control, node: (b"head", 1000, port)
    me, to = here.process(), here.process()
    alias = to.alias()
    for number in range(3):
        me.send(alias, number)
    assert mailbox(to) == [0, 1, 2]
    assert port.sent == []


async def test_a_message_to_another_receiver_takes_its_own_way() -> None:
    here, port = noted(), Port()
    here.runtime.on_way = lambda control, node: (b"head", 1000, port)
    me, other = here.process(), here.process()
    for _ in range(3):
        me.send(THEM, 1)
    me.send(other.pid, 2)
    me.send(THEM, 3)
    assert mailbox(other) == [2]
    assert here.take()[-1] == (Send(me.pid, THEM), 3, PEER)
    assert len(port.sent) == 1


@pytest.mark.parametrize("named", [True, False])
async def test_messages_within_a_runtime_keep_their_order_and_share_nothing(named: bool) -> None:
    here = noted()
    me, to = here.process(), here.process("shop")
    dest: Any = "shop" if named else to.pid
    sent: list[Term] = [[number, "text"] for number in range(5)]
    for message in sent:
        me.send(dest, message)
    assert mailbox(to) == [[number, b"text"] for number in range(5)]
    sent[-1].append(1)  # type: ignore[union-attr]
    assert mailbox(to)[-1] == [4, b"text"]
    with pytest.raises(EncodeError):
        me.send(dest, object())
    to.end()
    me.send(dest, 1)
    if named:
        again = here.process("shop")
        me.send(dest, 2)
        assert mailbox(again) == [2]


async def test_a_process_that_has_ended_sends_nothing() -> None:
    here = noted()
    me, to = here.process(), here.process()
    for _ in range(3):
        me.send(to.pid, 1)
    me.end()
    with pytest.raises(Exit):
        me.send(to.pid, 1)
    assert len(mailbox(to)) == 3


async def test_what_another_thread_sends_comes_in_its_turn() -> None:
    here = noted()
    me, to = here.process(), here.process()
    for number in range(3):
        me.send(to.pid, number)
    await asyncio.to_thread(me.send, to.pid, 3)
    await eventually(lambda: len(mailbox(to)) == 4)
    assert mailbox(to) == [0, 1, 2, 3]


async def test_a_sender_waits_for_a_busy_node_on_every_way() -> None:
    here, port = noted(), Port()
    here.runtime.on_way = lambda control, node: (b"head", 1000, port)
    me = here.process()
    for _ in range(3):
        me.send(THEM, 1)
    here.runtime.busy.begin(PEER)
    me.send(THEM, 2)
    drained = asyncio.ensure_future(me.drain())
    await asyncio.sleep(0)
    assert not drained.done()
    here.runtime.busy.end(PEER)
    await drained


async def test_what_a_signal_causes_stays_in_its_order() -> None:
    """A message that a process sends while a signal is handled goes out behind what that signal causes."""
    here = noted()
    me, to = here.process(), here.process()
    for number in range(3):
        me.send(to.pid, number)
    ended = here.process()
    ended.on_end.append(lambda reason: me.send(to.pid, Atom("told")))
    ended.end()
    assert mailbox(to)[-1] is Atom("told")


async def test_a_beam_gets_what_is_sent_in_order_across_large_ones(beam: Beam, node: Node) -> None:
    pid = await beam.eval(
        "spawn(fun() -> put(got, []), (fun Loop() -> receive {get, P} -> P ! lists:reverse(get(got)), Loop();"
        " {N, B} -> put(got, [{N, byte_size(B)} | get(got)]), Loop() end end)() end)"
    )
    sizes = [10, 10, 10, 10, 300_000, 10, 10, 10, 10, 10, 70_000, 10, 10, 65_400, 65_500, 65_536, 10, 10]
    async with node.process() as me:
        for number, size in enumerate(sizes):
            me.send(pid, (number, bytes(size)))
        me.send(pid, (Atom("get"), me.pid))
        assert await me.receive(timeout=60) == list(enumerate(sizes))
