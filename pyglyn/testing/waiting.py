"""Waiting for a condition with a deadline: what tests do instead of sleeping."""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

_FIRST_PAUSE_S = 0.001
_LONGEST_PAUSE_S = 0.05

PATIENCE = "PYGLYN_TEST_PATIENCE"
"""The environment variable with a factor for the deadlines of waits, for slow machines."""

T = TypeVar("T")


def patiently(seconds: float) -> float:
    """Return how long a wait may take here that takes ``seconds`` at most where the machine is not busy."""
    return seconds * float(os.environ.get(PATIENCE) or 1.0)


async def eventually(predicate: Callable[[], T | Awaitable[T]], timeout: float = 5.0) -> T:
    """Call ``predicate`` again and again until what it returns is true, and return that.

    Args:
        predicate: a function without arguments, plain or async. An exception it raises is not caught,
            except `AssertionError`, which counts as "not yet".
        timeout: seconds until the wait is given up, times ``PYGLYN_TEST_PATIENCE`` if that is in the
            environment.

    Raises:
        AssertionError: the deadline passed; the text has the last value, or the last assertion is the cause.
    """
    timeout = patiently(timeout)
    deadline = time.monotonic() + timeout
    pause = _FIRST_PAUSE_S
    while True:
        failure: AssertionError | None = None
        value: object = None
        try:
            result = predicate()
            value = await result if inspect.isawaitable(result) else result
            if value:
                return value
        except AssertionError as error:
            failure = error
        if time.monotonic() >= deadline:
            seen = str(failure) if failure is not None else f"last value {value!r}"
            raise AssertionError(f"not true within {timeout} s: {seen}") from failure
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_S)
