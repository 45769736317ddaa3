"""Waiting, counting leaks, requiring tools, finding installations."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from pyglyn.testing import (
    REQUIRE_ALL,
    count_file_descriptors,
    count_tasks,
    eventually,
    find_otps,
    free_port,
    no_leaks,
    require,
)


async def test_eventually_returns_the_first_true_value() -> None:
    values = iter([0, "", None, "there"])
    assert await eventually(lambda: next(values)) == "there"


async def test_eventually_awaits_an_async_predicate() -> None:
    values = iter([False, 7])

    async def predicate() -> object:
        return next(values)

    assert await eventually(predicate) == 7


@pytest.mark.parametrize(("patience", "seconds"), [("", r"0\.02"), ("1", r"0\.02"), ("2.5", r"0\.05")])
async def test_eventually_gives_up_at_the_deadline_and_says_what_it_saw(
    monkeypatch: pytest.MonkeyPatch, patience: str, seconds: str
) -> None:
    monkeypatch.setenv("PYGLYN_TEST_PATIENCE", patience)
    with pytest.raises(AssertionError, match=rf"not true within {seconds} s: last value 0"):
        await eventually(lambda: 0, timeout=0.02)


async def test_eventually_takes_a_failed_assertion_as_not_yet() -> None:
    def never() -> bool:
        raise AssertionError("still closed")

    with pytest.raises(AssertionError, match="still closed"):
        await eventually(never, timeout=0.02)


async def test_eventually_lets_other_errors_through() -> None:
    with pytest.raises(ZeroDivisionError):
        await eventually(lambda: 1 / 0)


async def test_no_leaks_waits_for_what_closes_a_moment_later() -> None:
    async with no_leaks():
        task = asyncio.ensure_future(asyncio.sleep(0.05))
        assert count_tasks() >= 2
    assert task.done()


async def test_no_leaks_names_a_task_left_over() -> None:
    task = None
    with pytest.raises(AssertionError, match="tasks left over"):
        async with no_leaks(timeout=0.05):
            task = asyncio.ensure_future(asyncio.Event().wait())
    assert task is not None
    task.cancel()


async def test_no_leaks_counts_descriptors_left_over() -> None:
    with socket.socket() as left:
        before = count_file_descriptors()
        with pytest.raises(AssertionError, match="1 file descriptors left over"):
            async with no_leaks(timeout=0.05):
                copy = left.dup()
        assert count_file_descriptors() == before + 1
        copy.close()


def test_a_missing_tool_skips_and_a_found_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(REQUIRE_ALL, raising=False)
    require(Path("/bin/sh"), "no shell")
    with pytest.raises(pytest.skip.Exception, match="no shell"):
        require(None, "no shell")


def test_a_missing_tool_fails_where_everything_must_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REQUIRE_ALL, "1")
    with pytest.raises(pytest.fail.Exception, match="no shell"):
        require([], "no shell")


def test_a_free_port_can_be_listened_on() -> None:
    with socket.create_server(("127.0.0.1", free_port())):
        pass


def test_a_free_port_is_none_that_the_system_gives_to_others() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as connected:
        connected.connect(listener.getsockname())
        given = [listener.getsockname()[1], connected.getsockname()[1]]
    ours = [free_port() for _ in range(100)]
    assert min(given) > max(ours)
    assert len(set(ours)) > 90


def test_every_installation_has_its_programs() -> None:
    for otp in find_otps():
        assert os.access(otp.erl, os.X_OK)
        assert otp.epmd is not None
        assert otp.label == f"otp{otp.release}"
        assert otp.release >= 25
