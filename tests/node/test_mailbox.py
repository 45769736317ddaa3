"""Selective receive: what is passed over stays in order; what comes encoded is decoded when its turn comes."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from typing import Any, SupportsIndex

import pytest

from pyglyn import etf
from pyglyn.errors import DecodeError
from pyglyn.etf import Term
from pyglyn.node import mailbox as mailbox_module
from pyglyn.node.mailbox import FAIRNESS, Mailbox
from tests.hot import hot as hot
from tests.hot import in_python_and_in_c

pytestmark = in_python_and_in_c


def read(message: bytes | memoryview) -> Term:
    return etf.decode_bare(message)[0]


def filled(*messages: int) -> Mailbox:
    mailbox = Mailbox(read)
    for message in messages:
        mailbox.put(message)
    return mailbox


async def test_messages_come_in_order_and_those_passed_over_stay_in_order() -> None:
    mailbox = filled(1, 2, 3, 4)
    assert await mailbox.get(lambda m: m % 2 == 0) == 2
    assert [await mailbox.get(timeout=0) for _ in range(3)] == [1, 3, 4]
    with pytest.raises(TimeoutError):
        await mailbox.get(timeout=0)


async def test_a_receive_that_waits_looks_at_each_new_message_once() -> None:
    mailbox = filled(1)
    seen: list[int] = []

    def match(message: int) -> bool:
        seen.append(message)
        return message == 3

    waiting = asyncio.ensure_future(mailbox.get(match))  # type: ignore[arg-type]
    for message in (2, 3):
        await asyncio.sleep(0)
        mailbox.put(message)
    assert await waiting == 3
    assert seen == [1, 2, 3]
    assert [await mailbox.get(timeout=0) for _ in range(2)] == [1, 2]


async def test_two_messages_that_come_before_the_receiver_runs_are_both_seen() -> None:
    mailbox = Mailbox(read)
    waiting = asyncio.ensure_future(mailbox.get(lambda m: m == 2))
    await asyncio.sleep(0)
    mailbox.put(1)
    mailbox.put(2)
    assert await waiting == 2
    assert len(mailbox) == 1


async def test_a_message_that_is_there_when_the_timeout_is_noticed_is_taken() -> None:
    mailbox, loop = Mailbox(read), asyncio.get_running_loop()
    waiting = asyncio.ensure_future(mailbox.get(timeout=0.001))
    await asyncio.sleep(0)
    due = loop.time() + 0.01
    while loop.time() < due:
        pass
    mailbox.put(1)
    assert await waiting == 1


async def test_a_wait_that_is_given_up_leaves_the_mailbox_as_it_was() -> None:
    mailbox = filled(1)
    waiting = asyncio.ensure_future(mailbox.get(lambda m: m == 2))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    mailbox.put(2)
    assert [await mailbox.get(timeout=0) for _ in range(2)] == [1, 2]


async def test_two_receivers_at_once_are_told_that_this_is_a_mistake() -> None:
    mailbox = Mailbox(read)
    waiting = asyncio.ensure_future(mailbox.get())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="two coroutines"):
        await mailbox.get()
    mailbox.put(1)
    assert await waiting == 1


async def test_a_closed_mailbox_raises_for_who_waits_and_who_comes_later() -> None:
    mailbox = filled(1)
    waiting = asyncio.ensure_future(mailbox.get(lambda m: False))
    await asyncio.sleep(0)
    mailbox.close(KeyError("gone"))
    with pytest.raises(KeyError):
        await waiting
    with pytest.raises(KeyError):
        await mailbox.get(timeout=0)
    assert len(mailbox) == 0


async def test_a_full_mailbox_does_not_keep_the_others_from_running() -> None:
    mailbox = filled(*range(10 * FAIRNESS))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    running = asyncio.ensure_future(other())
    for _ in range(10 * FAIRNESS):
        await mailbox.get()
    running.cancel()
    assert turns >= 9


# --- encoded messages --------------------------------------------------------------------------------------


class Reader:
    """Decodes, and remembers what."""

    def __init__(self) -> None:
        self.decoded: list[Term] = []

    def __call__(self, message: bytes | memoryview) -> Term:
        term = read(message)
        self.decoded.append(term)
        return term


def encoded(reader: Any, *messages: Term) -> Mailbox:
    mailbox = Mailbox(reader)
    for message in messages:
        mailbox.put_encoded(etf.encode_bare(message))
    return mailbox


async def test_a_message_is_decoded_when_it_is_taken_and_not_before() -> None:
    reader = Reader()
    mailbox = encoded(reader, 1, 2)
    assert len(mailbox) == 2
    assert reader.decoded == []
    assert await mailbox.get() == 1
    assert reader.decoded == [1]


async def test_a_message_that_was_passed_over_is_not_decoded_again() -> None:
    reader = Reader()
    mailbox = encoded(reader, 1, 2, 3, 4)
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await mailbox.get(lambda m: False, timeout=0)
    assert await mailbox.get(lambda m: m == 3) == 3
    assert [await mailbox.get(timeout=0) for _ in range(3)] == [1, 2, 4]
    assert reader.decoded == [1, 2, 3, 4]


async def test_encoded_and_other_messages_keep_their_order_and_a_binary_is_itself() -> None:
    mailbox = encoded(read, b"from outside")
    mailbox.put(b"from here")
    mailbox.put_encoded(memoryview(etf.encode_bare([1])))
    mailbox.put(7)
    assert mailbox.waiting() == [b"from outside", b"from here", [1], 7]
    assert [await mailbox.get() for _ in range(4)] == [b"from outside", b"from here", [1], 7]


@pytest.mark.parametrize("match", [None, lambda m: m == 2], ids=["next", "selective"])
async def test_what_does_not_decode_is_dropped_when_it_is_looked_at(match: Any) -> None:
    refused = []

    def reader(message: bytes | memoryview) -> Term:
        try:
            return read(message)
        except DecodeError as error:
            refused.append(error)
            raise

    mailbox = Mailbox(reader)
    mailbox.put_encoded(b"\0")
    mailbox.put_encoded(etf.encode_bare(2))
    mailbox.put_encoded(b"\0")
    assert (len(mailbox), refused) == (3, [])
    assert await mailbox.get(match) == 2
    assert len(refused) == 1
    assert mailbox.waiting() == []
    assert len(refused) == 2
    assert len(mailbox) == 0


async def test_a_waiting_receiver_goes_on_waiting_after_what_does_not_decode() -> None:
    mailbox = Mailbox(read)
    waiting = asyncio.ensure_future(mailbox.get())
    await asyncio.sleep(0)
    mailbox.put_encoded(b"\0")
    for _ in range(3):
        await asyncio.sleep(0)
    assert not waiting.done()
    mailbox.put_encoded(etf.encode_bare(1))
    assert await waiting == 1


async def test_a_match_that_raises_loses_no_message() -> None:
    mailbox = encoded(read, 1, 2)
    with pytest.raises(ZeroDivisionError):
        await mailbox.get(lambda m: 1 // 0)
    assert [await mailbox.get(timeout=0) for _ in range(2)] == [1, 2]


async def test_a_receive_sees_what_others_have_looked_at_after_it_was_woken() -> None:
    """A second coroutine of the process takes what it wants, as ``demonitor(flush=True)`` does."""
    mailbox = Mailbox(read)
    receiving = asyncio.ensure_future(mailbox.get())
    await asyncio.sleep(0)
    mailbox.put(1)
    assert mailbox.take(lambda m: m == "DOWN") == (False, None)
    for _ in range(3):
        await asyncio.sleep(0)
    mailbox.put(2)
    assert [await receiving, await mailbox.get(timeout=0)] == [1, 2]


async def test_a_receive_sees_what_others_have_looked_at_while_it_let_them_run() -> None:
    mailbox = encoded(read, *range(3 * FAIRNESS))
    last = 3 * FAIRNESS - 1
    receiving = asyncio.ensure_future(mailbox.get(lambda m: m == last, timeout=0))
    await asyncio.sleep(0)
    assert mailbox.take(lambda m: m == "DOWN") == (False, None)
    assert await receiving == last


async def test_the_others_run_while_a_selective_receive_goes_through_many() -> None:
    mailbox = encoded(read, *range(10 * FAIRNESS))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    running = asyncio.ensure_future(other())
    assert await mailbox.get(lambda m: m == 10 * FAIRNESS - 1) == 10 * FAIRNESS - 1
    running.cancel()
    assert turns >= 9


async def test_a_mailbox_that_closes_while_it_is_looked_through_ends_the_receive() -> None:
    mailbox = encoded(read, *range(10 * FAIRNESS))
    receiving = asyncio.ensure_future(mailbox.get(lambda m: False))
    await asyncio.sleep(0)
    mailbox.close(KeyError("gone"))
    with pytest.raises(KeyError):
        await receiving


# --- how often messages are moved --------------------------------------------------------------------------


class OnlyEnds(deque[Any]):
    """A queue of which only the ends can be used: all else would move, or walk past, what lies between."""

    def __getitem__(self, index: Any) -> Any:
        raise AssertionError("looked into the middle")

    def __delitem__(self, index: Any) -> None:
        raise AssertionError("took something out of the middle")

    def insert(self, index: SupportsIndex, value: Any) -> None:
        raise AssertionError("put something into the middle")

    def remove(self, value: Any) -> None:
        raise AssertionError("searched")

    def rotate(self, n: SupportsIndex = 1) -> None:
        raise AssertionError("moved everything")


class Moves(Mailbox):
    """Counts the messages that are moved to take others."""

    moved = 0

    def _remove(self, index: int) -> None:
        before = self._looked_at
        super()._remove(index)
        if self._looked_at is not before:
            self.moved += len(self._looked_at)


MANY = 400_000


async def test_taking_the_last_of_many_moves_none_and_decodes_each_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mailbox_module, "deque", OnlyEnds)
    reader = Reader()
    mailbox = Moves(reader)
    message = etf.encode_bare(1)
    for _ in range(MANY - 1):
        mailbox.put_encoded(message)
    mailbox.put_encoded(etf.encode_bare(2))
    looks = 0

    def wanted(term: Term) -> bool:
        nonlocal looks
        looks += 1
        return term == 2

    assert await mailbox.get(wanted) == 2
    assert (looks, len(reader.decoded), mailbox.moved) == (MANY, MANY, 0)
    mailbox.put_encoded(etf.encode_bare(2))
    assert await mailbox.get(wanted) == 2
    assert (looks, len(reader.decoded), mailbox.moved) == (2 * MANY, MANY + 1, 0)


def test_emptying_a_mailbox_that_was_passed_over_moves_each_message_a_few_times() -> None:
    count = 20_000
    mailbox = Moves(read)
    for number in range(count):
        mailbox.put_encoded(etf.encode_bare(number))
    assert mailbox.take(lambda m: False) == (False, None)
    taken = []
    while len(mailbox) > 1:  # the second one, then the first one, and so on
        looks = itertools.count(1)
        taken.append(mailbox.take(lambda m: next(looks) == 2)[1])  # noqa: B023
        taken.append(mailbox.take(None)[1])
    assert set(taken) == set(range(count))
    assert len(taken) == count
    assert mailbox.moved <= 2 * count


# --- held --------------------------------------------------------------------------------------------------


async def test_a_held_mailbox_gives_nothing_and_then_all_in_order() -> None:
    mailbox = encoded(read, 1, 2, 3)
    assert mailbox.take(lambda m: m == 2) == (True, 2)
    mailbox.hold(True)
    assert mailbox.take(None) == (False, None)
    with pytest.raises(TimeoutError):
        await mailbox.get(timeout=0)
    with pytest.raises(TimeoutError):
        await mailbox.get(timeout=0.001)
    waiting = asyncio.ensure_future(mailbox.get())
    await asyncio.sleep(0)
    mailbox.put(4)
    for _ in range(3):
        await asyncio.sleep(0)
    assert not waiting.done()
    mailbox.hold(False)
    assert await waiting == 1
    assert [await mailbox.get(timeout=0) for _ in range(2)] == [3, 4]


async def test_a_mailbox_that_is_held_while_a_receive_waits_holds_what_comes() -> None:
    mailbox = encoded(read, 1)
    waiting = asyncio.ensure_future(mailbox.get(lambda m: m != 1))
    await asyncio.sleep(0)
    mailbox.hold(True)
    mailbox.put(2)
    for _ in range(3):
        await asyncio.sleep(0)
    assert not waiting.done()
    mailbox.hold(False)
    assert await waiting == 2


async def next_of(mailbox: Mailbox) -> tuple[bool, Term]:
    return await mailbox.next_to_come()


async def test_who_waits_for_what_comes_takes_it_or_stops_waiting() -> None:
    mailbox = filled()
    for how in ("taken", "cancelled", "closed"):
        task = asyncio.ensure_future(next_of(mailbox))
        await asyncio.sleep(0)
        assert await mailbox.next_to_come() == (False, None)  # one waits already
        if how == "taken":
            mailbox.put_encoded(etf.encode_bare((1, 2)))
            assert await task == (True, (1, 2))
        elif how == "cancelled":
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            mailbox.put(b"bytes")
            mailbox.put_encoded(b"damaged")
            assert await task == (True, b"bytes")
    with pytest.raises(DecodeError):
        read(b"damaged")
    assert mailbox.next() == (False, None)  # that is dropped
    assert len(mailbox) == 0
    mailbox.put(3)
    assert await mailbox.next_to_come() == (False, None)  # it is here already
    assert mailbox.next() == (True, 3)


async def test_one_that_is_let_go_while_it_waits_is_not_waited_for() -> None:
    mailbox = filled()
    waiting = next_of(mailbox)
    assert asyncio.isfuture(waiting.send(None))
    waiting.close()
    again = next_of(mailbox)
    assert asyncio.isfuture(again.send(None))
    with pytest.raises(ZeroDivisionError):
        again.throw(ZeroDivisionError())
    last = next_of(mailbox)
    last.send(None)
    mailbox.put(1)
    with pytest.raises(StopIteration) as stop:
        last.send(None)
    assert stop.value.value == (True, 1)
    lost = next_of(mailbox)
    lost.send(None)
    del lost
    mailbox.put(2)
    assert await mailbox.get() == 2


async def test_of_those_that_wait_encoded_so_many_are_taken_before_the_others_run() -> None:
    mailbox = filled(*range(2 * FAIRNESS))
    assert [mailbox.next() for _ in range(FAIRNESS - 1)] == [(True, number) for number in range(FAIRNESS - 1)]
    assert mailbox.next() == (False, None)
    assert await mailbox.get() == FAIRNESS - 1
    assert mailbox.next() == (True, FAIRNESS)
    mailbox.hold(True)
    assert mailbox.next() == (False, None)
