"""Plain blocking functions as children."""

from __future__ import annotations

import asyncio
import signal
import threading
import types
from pathlib import Path
from typing import Any, cast

import pytest

from pyglyn import Atom
from pyglyn.errors import ChildStartError
from pyglyn.groups import pg
from pyglyn.node import Exit
from pyglyn.supervision import Supervisor, blocking, start, worker
from pyglyn.supervision.blocking import MOST_WAITING
from pyglyn.testing import eventually
from tests.supervision.conftest import Client
from tests.supervision.service import Probe, blocking_echo, blocking_member, blocking_sender


async def start_one(local: Client, tmp_path: Path, **options: Any) -> Path:
    path = tmp_path / "ends"
    path.touch()
    tree = Supervisor(name="top").add(worker(Probe, name="a"))
    await start(local.node, tree.add(worker(blocking_echo, str(path), name="b", **options)))
    return path


async def test_it_receives_sends_and_calls_without_await(local: Client, tmp_path: Path) -> None:
    await start_one(local, tmp_path)
    local.me.send("b", (Atom("ping"), local.me.pid))
    _, os_pid = await local.me.receive(timeout=60)
    assert os_pid != await local.os_pid("a")
    local.me.send("b", (Atom("call"), local.me.pid, Atom("a"), Atom("count")))
    assert await local.me.receive(timeout=60) == (Atom("answer"), 1)


@pytest.mark.parametrize("state", ["waiting", "sleep", "compute"])
async def test_an_exit_signal_is_raised_in_it_whatever_it_does(
    local: Client, tmp_path: Path, state: str
) -> None:
    path = await start_one(local, tmp_path)
    ref = local.me.monitor("b")
    old = local.node.whereis("b")
    local.me.send("b", (Atom("ping"), local.me.pid))
    await local.me.receive(timeout=60)
    if state != "waiting":
        local.me.send("b", Atom(state))
    local.me.exit(old, Atom("go"))
    assert await local.reason(ref) == Atom("go")
    await eventually(lambda: "Exit(Atom('go'))" in path.read_text())
    await eventually(lambda: local.node.whereis("b") not in (None, old))


async def test_what_it_sends_is_bounded_and_what_goes_nowhere_is_refused(local: Client) -> None:
    tree = Supervisor(name="top").add(worker(blocking_sender, local.me.pid, name="s"))
    await start(local.node, tree)
    assert [await local.me.receive(timeout=60) for _ in range(5000)] == list(range(5000))
    match await local.me.receive(timeout=60):
        case (Atom("refused"), bytes() as text, int() as most):
            assert b"a destination is a pid" in text
            assert most <= MOST_WAITING
        case other:
            pytest.fail(f"not refused: {other}")


async def test_it_uses_what_is_async_only(local: Client) -> None:
    pg.start(local.node, "shop")
    await start(local.node, Supervisor(name="top").add(worker(blocking_member, name="m")))
    await eventually(
        lambda: pg.start(local.node, "shop").get_members(b"servers") == [local.node.whereis("m")]
    )


async def test_stopped_right_after_its_start_it_ends_with_shutdown(local: Client, tmp_path: Path) -> None:
    await start(local.node, Supervisor(name="top").add(worker(Probe, name="a")))  # has the exports
    shop: Any = (Atom("shop"), Atom("blocking_echo"), [str(tmp_path / "ends").encode()])
    spec = {Atom("id"): Atom("b"), Atom("start"): shop, Atom("restart"): Atom("temporary")}
    for _ in range(40):
        answer: Any = await local.me.call("top", (Atom("start_child"), spec))
        ref = local.me.monitor(answer[1])
        stopped = asyncio.create_task(local.me.call("top", (Atom("terminate_child"), Atom("b"))))
        assert await local.reason(ref) == Atom("shutdown")
        await stopped


def test_an_exit_signal_that_comes_just_before_the_function_waits_is_sent_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Python has looked for signals, and then waits in C: nobody sees this one until it is woken."""
    sent: list[int] = []
    kill = signal.pthread_kill

    def lose_the_first(thread: int, number: int) -> None:
        sent.append(number)
        if len(sent) > 1:
            kill(thread, number)

    monkeypatch.setattr(signal, "pthread_kill", lose_the_first)
    bridge = blocking._Bridge(waits=True)
    me: Any = types.SimpleNamespace(pid=None, handover=None, exit_reason=Atom("shutdown"))

    async def begin_and_stop() -> None:
        body = asyncio.create_task(bridge.body(me, cast(Any, None)))
        await asyncio.wrap_future(bridge.begun)
        body.cancel()
        await asyncio.gather(body, return_exceptions=True)

    before = signal.signal(blocking.EXIT_SIGNAL, bridge.raise_exit)
    node = threading.Thread(target=lambda: asyncio.run(begin_and_stop()))
    try:
        node.start()
        bridge.begun.result()
        error = bridge.call(lambda: threading.Event().wait(60) and None)
        bridge.finish(error)
        node.join()
    finally:
        signal.signal(blocking.EXIT_SIGNAL, before)
    assert isinstance(error, Exit)
    assert len(sent) > 1


async def test_an_exception_is_its_reason(local: Client, tmp_path: Path) -> None:
    await start_one(local, tmp_path)
    ref = local.me.monitor("b")
    local.me.send("b", Atom("raise"))
    error, stack = await local.reason(ref)
    assert error == (Atom("exception"), Atom("KeyError"), b"'missing'")
    assert stack[0][1] == Atom("blocking_echo")


async def test_it_needs_an_os_process_of_its_own(local: Client, tmp_path: Path) -> None:
    with pytest.raises(ChildStartError, match="OS process of its own"):
        await start_one(local, tmp_path, isolation="task")
