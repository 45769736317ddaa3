"""Whether a node, or one of its OS processes, is ready for work, and if not, why. Layer: node.

Two kinds of reasons: something is not done yet (the app has not started), and a check fails now (a database
does not answer). Checks belong to the OS process in which they were required; the hub asks all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

Check: TypeAlias = Callable[[], Awaitable[object]]
"""Raises, with a text for people, where something is not as it must be."""


class Readiness:
    """What has to be so in one OS process before it is ready.

    Args:
        timeout_s: how long a check may take before it counts as failed.

    Attributes:
        on_required: called with the names of all checks when there are others than before.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._waiting: dict[str, str] = {}
        self._checks: dict[str, Check] = {}
        self._begun = asyncio.Event()
        self._begun.set()
        self.on_required: Callable[[list[str]], None] = lambda names: None

    def waits_for(self, what: str, why: str = "not yet") -> None:
        """Not be ready until `done` says so."""
        self._waiting[what] = why
        self._begun.clear()

    def done(self, what: str) -> None:
        """What was waited for is there."""
        self._waiting.pop(what, None)
        if not self._waiting:
            self._begun.set()

    async def begun(self) -> None:
        """Wait until nothing is waited for."""
        await self._begun.wait()

    def require(self, what: str, check: Check) -> Callable[[], None]:
        """Be ready only while a check succeeds; returns what takes the requirement back."""
        self._checks[what] = check
        self.on_required([*self._checks])

        def withdraw() -> None:
            if self._checks.get(what) is check:
                del self._checks[what]
                self.on_required([*self._checks])

        return withdraw

    async def problems(self) -> dict[str, str]:
        """Run the checks, all at once: what is required, and why it is not so; empty texts are fine ones."""
        names = list(self._checks)
        found = await asyncio.gather(*(self._try(self._checks[name]) for name in names))
        return {**self._waiting, **dict(zip(names, found, strict=True))}

    async def _try(self, check: Check) -> str:
        try:
            async with asyncio.timeout(self._timeout_s):
                await check()
        except TimeoutError as error:
            return str(error) or f"no answer within {self._timeout_s:g} s"
        except Exception as error:
            return str(error) or type(error).__name__
        return ""
