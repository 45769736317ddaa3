"""Children die in every way there is: who is restarted, who is not, and what everybody is told."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from pyglyn import Atom, Pid
from pyglyn.errors import CallFailed, ChildStartError
from pyglyn.supervision import Backoff, ReadyLine, Supervisor, program, start, supervisor, worker
from pyglyn.supervision.hub import trees
from pyglyn.supervision.os import kernel
from pyglyn.testing import count_file_descriptors, count_tasks, eventually
from pyglyn.testing.waiting import patiently
from tests.supervision.conftest import Client, descendants, gone, running
from tests.supervision.service import (
    Probe,
    deaf,
    echo,
    hoards_descriptors,
    probes,
    remembers,
    returns,
    slow_start,
    stubborn,
)

SHUTDOWN = Atom("shutdown")


async def test_a_child_killed_by_sigkill_restarts_alone_while_its_siblings_keep_their_pids(
    local: Client,
) -> None:
    await start(local.node, probes("a", "b", "c"))
    before = await local.children("top")
    ref = local.me.monitor(before[Atom("b")])
    os.kill(await local.os_pid("b"), signal.SIGKILL)
    assert await local.reason(ref) == (Atom("signal"), 9)
    new = await local.restarted("b", before[Atom("b")])
    after = await local.children("top")
    assert after == {**before, Atom("b"): new}


@pytest.mark.parametrize(
    "how", [(Atom("exit"), 0), (Atom("sys_exit"), 0), (Atom("stop"), Atom("normal"))], ids=str
)
async def test_a_child_that_ends_well_and_is_permanent_restarts(local: Client, how: Any) -> None:
    await start(local.node, probes("a"))
    old = local.node.whereis("a")
    ref = local.me.monitor(old)
    local.me.cast("a", how)
    assert await local.reason(ref) == Atom("normal")
    await local.restarted("a", old)


@pytest.mark.parametrize(
    ("restart", "request_", "restarts"),
    [
        ("transient", (Atom("exit"), 0), False),
        ("transient", (Atom("exit"), 3), True),
        ("transient", Atom("crash"), True),
        ("temporary", Atom("sigkill"), False),
    ],
    ids=str,
)
async def test_restart_types_decide(local: Client, restart: str, request_: Any, restarts: bool) -> None:
    await start(local.node, probes("a", restart=restart))
    old = local.node.whereis("a")
    ref = local.me.monitor(old)
    local.me.cast("a", request_)
    await local.reason(ref)
    if restarts:
        await local.restarted("a", old)
    else:
        (children,) = await eventually(lambda: _not_running(local, old))
        assert children == ({} if restart == "temporary" else {Atom("a"): Atom("undefined")})
        assert local.node.whereis("a") is None


async def _not_running(local: Client, old: Pid) -> Any:
    children = await local.children("top")
    assert old not in children.values()
    return (children,)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ((Atom("exit"), 3), (Atom("exit_status"), 3)),
        ((Atom("sys_exit"), 4), (Atom("exit_status"), 4)),
        ((Atom("stop"), (Atom("mine"), 1)), (Atom("mine"), 1)),
        (Atom("segfault"), (Atom("signal"), 11)),
    ],
    ids=str,
)
async def test_the_reason_says_how_it_ended(local: Client, request_: Any, expected: Any) -> None:
    await start(local.node, probes("a"))
    old = local.node.whereis("a")
    ref = local.me.monitor(old)
    local.me.cast("a", request_)
    assert await local.reason(ref) == expected
    await local.restarted("a", old)


async def test_an_exception_is_told_with_its_type_text_and_a_short_stack(local: Client) -> None:
    await start(local.node, probes("a"))
    ref = local.me.monitor("a")
    local.me.cast("a", Atom("crash"))
    error, stack = await local.reason(ref)
    assert error == (Atom("exception"), Atom("ValueError"), b"bad quantity")
    assert stack[0][1] == Atom("handle_cast")
    assert len(stack) <= 8


async def test_an_exception_that_has_no_text_ends_a_child_like_others(local: Client) -> None:
    await start(local.node, probes("a").add(worker(Probe, name="b", isolation="task")))
    for name in ("a", "b"):
        old = local.node.whereis(name)
        ref = local.me.monitor(old)
        local.me.cast(name, Atom("crash_without_text"))
        error, _ = await local.reason(ref)
        assert error[:2] == (Atom("exception"), Atom("Unprintable"))
        await local.restarted(name, old)


@pytest.mark.parametrize("isolation", ["process", "task"])
@pytest.mark.parametrize(
    ("cast", "name"), [("stray_cancel", "CancelledError"), ("interrupt", "KeyboardInterrupt")]
)
async def test_a_cancellation_or_interrupt_nobody_sent_is_a_crash(
    local: Client, isolation: str, cast: str, name: str
) -> None:
    await start(local.node, probes("a", restart="transient", isolation=isolation))
    old = local.node.whereis("a")
    ref = local.me.monitor(old)
    local.me.cast("a", Atom(cast))
    error, _ = await local.reason(ref)
    assert error[1] == Atom(name)
    await local.restarted("a", old)


@pytest.mark.parametrize("chosen", [{"last_words_s": 0.3}], ids=["soon"])
async def test_an_exit_signal_ends_even_who_does_not_listen(local: Client) -> None:
    script = "trap '' TERM; echo up; while :; do sleep 0.1; done"
    tree = Supervisor(name="top", intensity=20).add(worker(deaf, name="d"))
    tree.add(worker(deaf, name="l", isolation="task")).add(
        program(["sh", "-c", script], name="p", ready=ReadyLine("up"))
    )
    await start(local.node, tree)
    for name in ("d", "l", "p"):
        old = local.node.whereis(name)
        assert old is not None
        ref = local.me.monitor(old)
        local.me.exit(old, Atom("go"))
        assert await local.reason(ref) == Atom("go")
        await eventually(lambda name=name, old=old: local.node.whereis(name) not in (None, old))  # type: ignore[misc]


async def test_shared_memory_of_the_dead_is_freed(local: Client) -> None:
    await start(local.node, probes("a", "b"))
    names: list[Any] = [await local.me.call(name, Atom("share_memory")) for name in ("a", "b")]
    paths = [Path("/dev/shm", name.decode()) for name in names]
    assert [path.exists() for path in paths] == [True, True]
    old = local.node.whereis("a")
    assert old is not None
    os.kill(await local.os_pid("a"), signal.SIGKILL)
    await eventually(lambda: not paths[0].exists())
    await local.restarted("a", old)
    await local.me.call("top", (Atom("terminate_child"), Atom("b")))
    await eventually(lambda: not paths[1].exists())


async def test_the_descriptors_of_a_child_are_not_fewer_for_its_siblings(local: Client) -> None:
    await start(local.node, probes(*(f"p{number}" for number in range(30))))
    first, last = [await local.me.call(name, Atom("descriptors")) for name in ("p0", "p29")]
    assert isinstance(first, int)
    assert first == last
    old = local.node.whereis("p0")
    assert old is not None
    os.kill(await local.os_pid("p0"), signal.SIGKILL)
    assert await local.me.call(await local.restarted("p0", old), Atom("descriptors")) == first


async def test_five_children_that_crash_at_once_all_come_back(local: Client) -> None:
    names = [f"p{number}" for number in range(5)]
    await start(local.node, probes(*names))
    before = {name: local.node.whereis(name) for name in names}
    for os_pid in [await local.os_pid(name) for name in names]:
        os.kill(os_pid, signal.SIGKILL)
    for name in names:
        await local.restarted(name, before[name])
    assert len(await local.children("top")) == 5


@pytest.mark.parametrize(
    ("fate", "expected"),
    [("raise", "not today"), ("die", "{signal,9}"), ("hang", "timeout")],
)
async def test_a_crash_during_the_start_unwinds_what_was_started(
    local: Client, fate: str, expected: str
) -> None:
    tree = probes("a", "b").add(worker(Probe, fate, name="c", start_timeout=1.0 if fate == "hang" else None))
    with pytest.raises(ChildStartError) as failure:
        await start(local.node, tree)
    assert expected in str(failure.value)
    match failure.value.reason:
        case (Atom("shutdown"), (Atom("failed_to_start_child"), Atom("c"), _)):
            pass
        case other:
            pytest.fail(f"not OTP's reason: {other}")
    assert [local.node.whereis(name) for name in ("a", "b", "c", "top")] == [None] * 4
    assert list(local.node.workers.links) == []


async def test_a_child_that_ignores_is_kept_without_a_pid(local: Client) -> None:
    await start(local.node, probes("a").add(worker(Probe, "ignore", name="b")))
    assert (await local.children("top"))[Atom("b")] == Atom("undefined")


async def test_a_function_with_a_start_timeout_is_started_when_it_says_so(local: Client) -> None:
    tree = Supervisor(name="top").add(worker(slow_start, 0.3, name="slow", start_timeout=patiently(5.0)))
    await start(local.node, tree)
    assert local.node.whereis("is ready") is not None


async def test_a_child_that_dies_while_the_tree_stops_harms_nobody(local: Client) -> None:
    await start(local.node, probes("a", "b", "c"))
    top = local.node.whereis("top")
    os_pids = [await local.os_pid(name) for name in ("a", "b", "c")]
    ref = local.me.monitor(top)
    stopping = asyncio.create_task(local.me.call("pyglyn_sup", (Atom("terminate_child"), Atom("top"))))
    await asyncio.sleep(0)
    os.kill(os_pids[0], signal.SIGKILL)
    assert await local.reason(ref) == SHUTDOWN
    assert await stopping == Atom("ok")
    await gone(set(os_pids))


async def test_a_child_that_does_not_stop_is_killed_when_its_time_is_over(local: Client) -> None:
    await start(local.node, Supervisor(name="top").add(worker(stubborn, name="s", shutdown=0.3)))
    ref = local.me.monitor("s")
    answer = await local.me.call("top", (Atom("terminate_child"), Atom("s")), 5.0)
    assert answer == Atom("ok")
    assert await local.reason(ref) == Atom("killed")
    await eventually(lambda: trees(local.node).forced == 1)


async def test_a_program_that_ignores_sigterm_is_killed_when_its_time_is_over(local: Client) -> None:
    tree = Supervisor(name="top").add(
        program(
            ["sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.1; done"],
            name="p",
            shutdown=0.3,
            ready=ReadyLine("up"),
        )
    )
    await start(local.node, tree)
    ref = local.me.monitor("p")
    await local.me.call("top", (Atom("terminate_child"), Atom("p")), 5.0)
    assert await local.reason(ref) == Atom("killed")


async def test_a_program_is_a_child_like_others(local: Client) -> None:
    tree = Supervisor(name="top").add(program(["sh", "-c", "exit 7"], name="p", restart="temporary"))
    tree.add(program(["sleep", "600"], name="q"))
    await start(local.node, tree)
    rows: Any = await local.me.call("top", Atom("which_children"))
    [pid] = [row[1] for row in rows if row[0] == Atom("q")]
    ref = local.me.monitor(pid)
    local.me.exit(pid, Atom("kill"))
    assert await local.reason(ref) == Atom("killed")
    await eventually(lambda: local.node.whereis("q") not in (None, pid))


async def test_a_program_that_cannot_be_run_is_a_start_failure(local: Client) -> None:
    with pytest.raises(ChildStartError, match="enoent"):
        await start(local.node, Supervisor(name="top").add(program(["no-such-program"], name="p")))


async def test_the_grandchildren_of_a_dead_child_go_with_it(local: Client) -> None:
    await start(local.node, probes("a"))
    old = local.node.whereis("a")
    grandchildren: Any = await local.me.call("a", Atom("fork_grandchildren"))
    assert all(map(running, grandchildren))
    ref = local.me.monitor(old)
    os.kill(await local.os_pid("a"), signal.SIGKILL)
    assert await local.reason(ref) == (Atom("signal"), 9)
    await gone(set(grandchildren))
    await local.restarted("a", old)


async def test_a_killed_supervisor_takes_its_children_with_it_and_is_restarted(local: Client) -> None:
    below = Supervisor(name="below").add(worker(Probe, name="c")).add(worker(Probe, name="d"))
    await start(local.node, probes("a").add(supervisor(below)))
    old, old_c = local.node.whereis("below"), local.node.whereis("c")
    child, sibling = await local.os_pid("c"), await local.os_pid("a")
    [os_pid] = [link.os_pid for link in local.node.workers.links.values() if link.main == old]
    refs = [local.me.monitor(old), local.me.monitor(old_c)]
    os.kill(os_pid, signal.SIGKILL)
    assert [await local.reason(ref) for ref in refs] == [(Atom("signal"), 9), Atom("killed")]
    await gone({child})
    await local.restarted("c", old_c)
    assert await local.os_pid("a") == sibling


async def test_exit_kill_ends_even_a_stuck_child(local: Client) -> None:
    await start(local.node, probes("a"))
    old = local.node.whereis("a")
    ref = local.me.monitor(old)
    local.me.cast("a", Atom("busy"))
    local.me.exit(old, Atom("kill"))
    assert await local.reason(ref) == Atom("killed")
    await local.restarted("a", old)


async def test_a_child_that_exhausts_its_descriptors_crashes_alone(local: Client) -> None:
    await start(local.node, probes("a", "b"))
    old, other = local.node.whereis("a"), local.node.whereis("b")
    ref = local.me.monitor(old)
    local.me.cast("a", Atom("exhaust_descriptors"))
    error, _ = await local.reason(ref, timeout=30.0)
    assert error[1] == Atom("OSError")
    await local.restarted("a", old)
    assert local.node.whereis("b") == other


@pytest.mark.parametrize(("free", "afresh"), [(0, True), (1, True), (2, True), (6, False)])
async def test_a_supervisor_without_descriptors_gives_up_and_is_started_afresh(
    local: Client, free: int, afresh: bool
) -> None:
    """The restart of a child needs some, and so does the new child, which has the supervisor's."""
    below = Supervisor(name="below").add(worker(Probe, name="a"))
    below.add(worker(hoards_descriptors, free, name="hoarder", isolation="task"))
    await start(local.node, probes("b").add(supervisor(below)))
    old, hoarder, other = (local.node.whereis(name) for name in ("a", "hoarder", "b"))
    ref = local.me.monitor("below")
    local.me.send("hoarder", (Atom("hoard"), local.me.pid))
    assert await local.me.receive(lambda m: m == Atom("hoarded"), timeout=10.0)
    local.me.cast("a", Atom("sigkill"))
    if afresh:
        assert await local.reason(ref) == SHUTDOWN
    await local.restarted("a", old)
    assert (local.node.whereis("hoarder") != hoarder) == afresh
    assert local.node.whereis("b") == other


async def test_more_restarts_than_the_intensity_end_the_supervisor_upward(local: Client) -> None:
    below = Supervisor(name="below", intensity=1, period=60).add(worker(Probe, name="c"))
    await start(local.node, probes("a").add(supervisor(below)))
    sibling, old = local.node.whereis("a"), local.node.whereis("below")
    ref = local.me.monitor(old)
    for _ in range(2):
        pid = local.node.whereis("c")
        local.me.cast(pid, Atom("sigkill"))
        await local.restarted("c", pid)
    assert await local.reason(ref) == SHUTDOWN
    assert local.node.whereis("a") == sibling
    assert local.node.whereis("below") != old


async def test_restarts_wait_by_their_backoff(local: Client) -> None:
    await start(local.node, probes("a", backoff=Backoff(initial=2.0)))
    old = local.node.whereis("a")
    local.me.cast("a", Atom("sigkill"))

    async def waiting() -> bool:
        return (await local.children("top"))[Atom("a")] == Atom("restarting")

    await eventually(waiting)
    await local.restarted("a", old)


@pytest.mark.parametrize("isolation", ["process", "task"])
async def test_a_checkpoint_is_handed_to_the_next_start(local: Client, isolation: str) -> None:
    tree = Supervisor(name="top").add(worker(remembers, name="r", handover=True, isolation=isolation))
    await start(local.node, tree)
    old = local.node.whereis("r")
    for expected in (1, 2, 3):
        local.me.send("r", (Atom("add"), local.me.pid))
        assert await local.me.receive(timeout=60) == (Atom("count"), expected)
    local.me.exit(old, Atom("kill"))
    await eventually(lambda: local.node.whereis("r") not in (None, old))
    local.me.send("r", (Atom("add"), local.me.pid))
    assert await local.me.receive(timeout=60) == (Atom("count"), 4)


async def test_a_killed_light_supervisor_leaves_no_os_process(local: Client) -> None:
    below = Supervisor(name="below").add(worker(Probe, name="c")).add(program(["sleep", "600"], name="p"))
    await start(local.node, Supervisor(name="top").add(supervisor(below, isolation="task")))
    old, old_c = local.node.whereis("below"), local.node.whereis("c")
    assert old is not None
    [top] = [link for link in local.node.workers.links.values() if link.main == local.node.whereis("top")]
    before = descendants(top.os_pid)
    ref = local.me.monitor(old_c)
    local.me.exit(old, Atom("kill"))
    assert await local.reason(ref) == Atom("killed")
    await gone(before)
    await local.restarted("c", old_c)
    await eventually(lambda: len(descendants(top.os_pid)) == 2)


async def test_a_light_child_lives_in_its_supervisors_os_process(local: Client) -> None:
    tree = probes("a").add(worker(echo, name="light", isolation="task"))
    tree.add(worker(returns, name="short", isolation="task", restart="temporary"))
    await start(local.node, tree)
    local.me.send("light", (Atom("ping"), local.me.pid))
    _, os_pid = await local.me.receive(timeout=60)
    assert os_pid == next(
        link.os_pid for link in local.node.workers.links.values() if link.main == local.node.whereis("top")
    )
    old = local.node.whereis("light")
    local.me.exit(old, Atom("kill"))
    await eventually(lambda: local.node.whereis("light") not in (None, old))


async def test_messages_between_workers_arrive_in_the_order_sent(local: Client) -> None:
    await start(local.node, probes("a", "b"))
    b = local.node.whereis("b")
    for expected in range(1, 50):
        assert await local.me.call("a", (Atom("ask"), b, Atom("count"))) == expected


async def test_significant_children_shut_their_supervisor_down(local: Client) -> None:
    below = Supervisor(name="below", auto_shutdown="any_significant")
    below.add(worker(Probe, name="c", restart="transient", significant=True)).add(worker(Probe, name="d"))
    await start(local.node, probes("a").add(supervisor(below, restart="temporary")))
    ref = local.me.monitor("below")
    local.me.cast("c", (Atom("stop"), Atom("normal")))
    assert await local.reason(ref) == SHUTDOWN
    await eventually(lambda: local.node.whereis("d") is None)


async def test_a_spawned_child_is_like_a_forked_one(local: Client) -> None:
    await start(local.node, probes("a", start="spawn"))
    old = local.node.whereis("a")
    os.kill(await local.os_pid("a"), signal.SIGKILL)
    await local.restarted("a", old)


async def test_a_thousand_restarts_leave_nothing_behind(local: Client) -> None:
    restarts = int(os.environ.get("PYGLYN_RESTARTS", "1000"))
    tree = Supervisor(name="top", intensity=100_000).add(worker(Probe, name="a"))
    await start(local.node, tree)
    [top] = [
        link.os_pid for link in local.node.workers.links.values() if link.main == local.node.whereis("top")
    ]

    def counts() -> tuple[int, int, int, int]:
        return (
            count_file_descriptors(), len(os.listdir(f"/proc/{top}/fd")), count_tasks(), len(descendants(top)),
        )  # fmt: skip

    async def settled() -> tuple[int, int, int, int]:
        before = counts()
        await asyncio.sleep(0.7)  # sweeps for strays go on for half a second after a death
        assert counts() == before
        return before

    memory: list[int] = []
    for number in range(restarts):
        old = local.node.whereis("a")
        assert old is not None
        os.kill(local.node.workers.links[old.serial].os_pid, signal.SIGKILL)
        await eventually(lambda old=old: local.node.whereis("a") not in (None, old))  # type: ignore[misc]
        if number == 20:
            before = await eventually(settled, 5.0)
        if number in (200, restarts - 1):  # what is kept to be used again is there by then
            memory.append(kernel.resident_memory(top) or 0)
    after = await eventually(settled, 5.0)
    assert after == before
    assert memory[1] - memory[0] < 4 * 2**20


async def test_a_call_to_a_child_that_dies_fails_at_once_with_the_reason(local: Client) -> None:
    await start(local.node, probes("a"))
    local.me.cast("a", Atom("sigkill"))
    with pytest.raises(CallFailed):
        await local.me.call("a", Atom("os_pid"), 5.0)


async def test_calls_by_name_leave_no_monitor_in_a_worker(local: Client) -> None:
    await start(local.node, probes("a"))
    for _ in range(10):
        await local.me.call("a", Atom("count"))
    pid = local.node.whereis("a")
    assert pid is not None
    assert not any(local.node.workers.links[pid.serial].boundary.watchers.values())
