"""Selective receive: what is passed over stays in order."""

from __future__ import annotations

import asyncio

import pytest

from pyglyn.node.mailbox import FAIRNESS, Mailbox


def filled(*messages: int) -> Mailbox:
    mailbox = Mailbox()
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
    mailbox = Mailbox()
    waiting = asyncio.ensure_future(mailbox.get(lambda m: m == 2))
    await asyncio.sleep(0)
    mailbox.put(1)
    mailbox.put(2)
    assert await waiting == 2
    assert len(mailbox) == 1


async def test_a_message_that_is_there_when_the_timeout_is_noticed_is_taken() -> None:
    mailbox, loop = Mailbox(), asyncio.get_running_loop()
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
    mailbox = Mailbox()
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
