"""Group commit: what is asked for while a commit is under way goes into the next one, all together.

A commit waits for the disk and for the network, however little is in it. One by itself is not held up: while
fewer than `AT_ONCE` commits are under way it goes off at once, alone. What comes meanwhile waits for the
first of them to end, and then goes together. Two under way at the same time keep client and server busy.

Some commit may have to wait long, for a lock of somebody else. So when none has ended for `HELD_UP_S`
seconds, those that wait do not wait for it, up to `MOST_AT_ONCE` under way.

Layer: eventsourcing, stores.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Generic, TypeVar

import attrs

T = TypeVar("T")

AT_ONCE = 2

MOST_AT_ONCE = 8

HELD_UP_S = 0.05

LARGEST = 256
"""How many go together at most: bounds the size of a statement, and what one failure takes with it."""


@attrs.define(eq=False)
class Entry(Generic[T]):
    """One that waits for its group."""

    key: Hashable
    item: T
    done: asyncio.Future[None]


class Groups(Generic[T]):
    """Commits items: alone where nothing is under way, else in groups, each key once in a group.

    Args:
        alone: commits an item, or raises.
        together: commits several; it resolves the future of each, whatever happens.
        held_up_s: see above.
    """

    def __init__(
        self,
        alone: Callable[[T], Awaitable[None]],
        together: Callable[[list[Entry[T]]], Awaitable[None]],
        *,
        held_up_s: float = HELD_UP_S,
    ) -> None:
        self._alone = alone
        self._together = together
        self._waiting: list[Entry[T]] = []
        self._under_way = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._held_up_s = held_up_s
        self._ended = 0
        self._look: asyncio.TimerHandle | None = None

    async def commit(self, key: Hashable, item: T) -> None:
        """Commit an item; of the same key in the order in which they come.

        Who is cancelled while it waits in a group does not hold up the others: it may be committed.
        """
        if self._under_way < AT_ONCE and not self._waiting:
            self._under_way += 1
            try:
                await self._alone(item)
            finally:
                self._one_ended()
            return
        entry = Entry(key, item, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        self._look_later()
        await entry.done

    def _look_later(self) -> None:
        if self._look is None and self._waiting and self._under_way < MOST_AT_ONCE:
            loop = asyncio.get_running_loop()
            self._look = loop.call_later(self._held_up_s, self._if_held_up, self._ended)

    def _if_held_up(self, ended: int) -> None:
        self._look = None
        if ended == self._ended:
            self._start_one()
        self._look_later()

    def _one_ended(self) -> None:
        self._under_way -= 1
        self._ended += 1
        while self._under_way < AT_ONCE and self._start_one():
            pass

    def _start_one(self) -> bool:
        """Have a group of those that wait carried out; False if none does."""
        group = self._next()
        if not group:
            return False
        self._under_way += 1
        task = asyncio.get_running_loop().create_task(self._carry_out(group))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    def _next(self) -> list[Entry[T]]:
        """Take a group from those that wait; what nobody waits for any more is dropped."""
        group: dict[Hashable, Entry[T]] = {}
        rest: list[Entry[T]] = []
        for entry in self._waiting:
            if entry.done.cancelled():
                continue
            if entry.key in group or len(group) >= LARGEST:
                rest.append(entry)
            else:
                group[entry.key] = entry
        self._waiting = rest
        return list(group.values())

    async def _carry_out(self, group: list[Entry[T]]) -> None:
        try:
            await self._together(group)
        except BaseException as error:  # a fault, or the loop is being closed
            for entry in group:
                if isinstance(error, Exception) and not entry.done.done():
                    entry.done.set_exception(error)
                entry.done.cancel()
            if not isinstance(error, Exception):
                raise
        finally:
            self._one_ended()
