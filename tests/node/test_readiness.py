"""Whether what has to be so is so: what is waited for, and checks."""

from __future__ import annotations

import asyncio

from pyglyn.node.readiness import Readiness


async def fine() -> None:
    """Nothing is wrong."""


async def broken() -> None:
    raise OSError("no answer from the database")


async def silent_error() -> None:
    raise KeyError


async def for_ever() -> None:
    await asyncio.Event().wait()


async def test_what_is_waited_for_is_a_problem_until_it_is_done() -> None:
    readiness = Readiness(1.0)
    assert await readiness.problems() == {}
    readiness.waits_for("app", "it starts")
    readiness.waits_for("cache")
    assert await readiness.problems() == {"app": "it starts", "cache": "not yet"}
    readiness.done("app")
    readiness.done("never heard of")
    assert await readiness.problems() == {"cache": "not yet"}


async def test_each_check_says_what_is_wrong_and_one_that_hangs_holds_up_no_other() -> None:
    readiness = Readiness(0.01)
    for check in (fine, broken, silent_error, for_ever):
        readiness.require(check.__name__, check)
    assert await readiness.problems() == {
        "fine": "",
        "broken": "no answer from the database",
        "silent_error": "KeyError",
        "for_ever": "no answer within 0.01 s",
    }


async def test_who_required_something_takes_back_that_and_not_what_came_after_it() -> None:
    readiness = Readiness(1.0)
    told: list[list[str]] = []
    readiness.on_required = told.append
    first = readiness.require("database", broken)
    second = readiness.require("database", fine)
    first()
    assert await readiness.problems() == {"database": ""}
    second()
    second()
    assert await readiness.problems() == {}
    assert told == [["database"], ["database"], []]
