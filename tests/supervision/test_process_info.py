"""What Erlang is told of the processes of a node, in the hub, in workers, light ones and stand-ins."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from pyglyn import Atom, Pid
from pyglyn.node.census import Census
from pyglyn.node.process_info import DEFAULT_ITEMS
from pyglyn.testing import eventually
from tests.supervision.asking import SHAPES, Asked

NAMES = (
    "registered_name current_function initial_call links monitors monitored_by message_queue_len messages memory status "
    "trap_exit group_leader parent reductions total_heap_size heap_size stack_size priority suspending error_handler "
    "current_location current_stacktrace garbage_collection garbage_collection_info backtrace binary catchlevel "
    "last_calls message_queue_data min_heap_size min_bin_vheap_size fullsweep_after magic_ref sequential_trace_token trace"
)
ITEMS = [Atom(name) for name in NAMES.split()]
"""Those of both releases; dictionaries differ by their contents, `max_heap_size` has another key in OTP 28."""


async def everybody(asked: Asked) -> dict[str, Pid]:
    """One process of each kind."""
    kinds = {name: asked.whereis(name) for name in ("rex", "top", "a", "light", "crowd", "beside")}
    rows = await asked.beam.eval("supervisor:which_children({top, N})", N=Atom(asked.node.name))
    return kinds | {"program": next(row[1] for row in rows if row[0] is Atom("slow"))}


async def test_every_process_of_the_node_is_alive_listed_and_described_until_it_ends(asked: Asked) -> None:
    kinds = await everybody(asked)
    listed = await eventually(lambda: _listed(asked, kinds))
    assert len(listed) == len(set(listed))
    for kind, pid in kinds.items():
        assert await asked.erlang("is_process_alive", pid) is True, kind
        assert await asked.erlang("process_info", pid, Atom("message_queue_len")) == (
            Atom("message_queue_len"),
            0,
        )
    for name in ("rex", "a", "light", "crowd", "beside"):
        assert await asked.erlang("whereis", Atom(name)) == kinds[name]
        assert Atom(name) in await asked.erlang("registered")
    asked.node.system.exit(kinds["beside"], Atom("kill"))
    await eventually(lambda: asked.node.whereis("beside") is None)
    assert await asked.erlang("is_process_alive", kinds["beside"]) is False
    assert await asked.erlang("process_info", kinds["beside"]) is Atom("undefined")
    assert kinds["beside"] not in await asked.erlang("processes")
    asked.node.system.exit(kinds["a"], Atom("kill"))
    await eventually(lambda: asked.node.whereis("a") not in (None, kinds["a"]), 30)
    assert await asked.erlang("is_process_alive", kinds["a"]) is False


async def _listed(asked: Asked, kinds: dict[str, Pid]) -> list[Pid] | None:
    """All pids, once all of some are among them."""
    pids: list[Pid] = await asked.erlang("processes")
    return pids if set(kinds.values()) <= set(pids) else None


async def test_what_is_said_of_a_worker_is_its_truth(asked: Asked) -> None:
    crowd, top = asked.whereis("crowd"), asked.whereis("top")
    await asked.beam.eval("[P ! {n, I} || I <- lists:seq(1, 10000)], ok", P=crowd)
    queued = (Atom("message_queue_len"), 10_000)
    await eventually(lambda: _says(asked, crowd, queued), 60)
    _, messages = await asked.erlang("process_info", crowd, Atom("messages"))
    assert messages == [(Atom("n"), n) for n in range(1, 10_001)]
    watching = "spawn(fun() -> monitor(process, P), receive stop -> ok end end)"
    watcher = await asked.beam.eval(watching, P=crowd)
    await eventually(lambda: _says(asked, crowd, (Atom("monitored_by"), [watcher])))
    pairs = dict(
        await asked.erlang(
            "process_info", crowd, [Atom(n) for n in ("links", "parent", "trap_exit", "status")]
        )
    )
    assert pairs[Atom("links")] == [top]
    assert pairs[Atom("parent")] == top
    assert pairs[Atom("trap_exit")] is False
    assert pairs[Atom("status")] is Atom("waiting")
    _, memory = await asked.erlang("process_info", crowd, Atom("memory"))
    assert memory > 1 << 20
    _, function = await asked.erlang("process_info", crowd, Atom("current_function"))
    assert function == (Atom("asking"), Atom("crowd"), 1)
    _, function = await asked.erlang("process_info", asked.whereis("a"), Atom("current_function"))
    assert function == (Atom("gen_server"), Atom("run"), 2)
    _, dictionary = await asked.erlang("process_info", asked.whereis("beside"), Atom("dictionary"))
    assert (Atom("mood"), b"good") in dictionary or (Atom("mood"), "good") in dictionary
    _, dictionary = await asked.erlang("process_info", crowd, Atom("dictionary"))
    assert (Atom("$ancestors"), [top]) in dictionary
    assert (
        Atom("$initial_call"),
        (await asked.erlang("process_info", crowd, Atom("initial_call")))[1],
    ) in dictionary


async def _says(asked: Asked, pid: Pid, pair: Any) -> bool:
    return bool(await asked.erlang("process_info", pid, pair[0]) == pair)


async def test_the_shapes_are_those_of_a_beam(asked: Asked) -> None:
    text = SHAPES + "Shape([catch erlang:process_info(whereis(kernel_sup), I) || I <- Items])"
    wanted = await asked.beam.eval(text, Items=ITEMS)
    lists = {Atom(n) for n in ("links", "current_stacktrace")}  # one is empty, or has other entries
    for name in ("rex", "a", "crowd", "beside"):
        text = SHAPES + "Shape([rpc:call(N, erlang, process_info, [P, I]) || I <- Items])"
        found = await asked.beam.eval(text, Items=ITEMS, N=Atom(asked.node.name), P=asked.whereis(name))
        for item, theirs, ours in zip(ITEMS, wanted, found, strict=True):
            if item is Atom("garbage_collection"):
                assert [k for k, _ in ours[1]] == [k for k, _ in theirs[1]]
                assert set(dict(theirs[1])[Atom("max_heap_size")]) <= set(
                    dict(ours[1])[Atom("max_heap_size")]
                )
            elif item not in lists and not (item is Atom("parent") and ours[1] is Atom("atom")):
                assert ours == theirs, (name, item)
    keys = "[K || {K, _} <- erlang:process_info(whereis(kernel_sup))]"
    assert await asked.beam.eval(keys) == DEFAULT_ITEMS
    everything = await asked.erlang("process_info", asked.whereis("a"))
    assert [key for key, _ in everything] == DEFAULT_ITEMS
    nameless = (await everybody(asked))["program"]
    assert next(key for key, _ in await asked.erlang("process_info", nameless)) is Atom("registered_name")
    pid = asked.whereis("a")
    for bad in (Atom("nonsense"), [Atom("links"), 1], 7):
        match await asked.erlang("process_info", pid, bad):
            case (Atom("badrpc"), (Atom("EXIT"), (Atom("badarg"), _))):
                pass
            case other:
                raise AssertionError(other)


async def test_a_worker_that_is_stuck_costs_its_own_rows_only(asked: Asked) -> None:
    kinds = await everybody(asked)
    asked.node.cast("a", Atom("busy"))
    for _ in range(2):
        pids = await _listed(asked, kinds) or await eventually(lambda: _listed(asked, kinds), 30)
        assert kinds["a"] in pids
    assert await asked.erlang("is_process_alive", kinds["a"]) is True
    pairs = dict(await asked.erlang("process_info", kinds["a"]))
    assert pairs[Atom("registered_name")] is Atom("a")
    assert pairs[Atom("status")] is Atom("running")
    assert pairs[Atom("links")] == [kinds["top"]]
    rows = await Census(asked.node.hub, asked.node.workers).tree()
    (stuck,) = [row for row in rows if row[Atom("status")] is Atom("no_answer")]
    assert (stuck[Atom("pid")], stuck[Atom("id")]) == (kinds["a"], Atom("a"))
    assert await asked.erlang("is_process_alive", Pid(*_nobody_beside(kinds["a"]))) is False


def _nobody_beside(pid: Pid) -> tuple[str, int, int, int]:
    return pid.node, pid.id + 1000, pid.serial, pid.creation


async def test_a_child_that_was_started_again_says_why_it_ended(asked: Asked) -> None:
    census = Census(asked.node.hub, asked.node.workers)

    async def last_exit(name: str) -> Any:
        rows = await census.tree()
        return [row.get(Atom("last_exit")) for row in rows if row.get(Atom("id")) is Atom(name)]

    os.kill(await asked.node.call("a", Atom("os_pid")), signal.SIGKILL)
    await eventually(lambda: last_exit("a"), 30)

    async def is_told() -> bool:
        return await last_exit("a") == [b"{signal,9}"]

    await eventually(is_told, 30)
    assert await last_exit("crowd") == [None]


@pytest.mark.parametrize("chosen", [{"worker_answer_s": 600.0}], ids=["patient"])
async def test_who_asks_a_worker_is_answered_when_it_dies(asked: Asked) -> None:
    a = asked.whereis("a")
    os_pid = await asked.node.call("a", Atom("os_pid"))
    os.kill(os_pid, signal.SIGSTOP)
    asking = asyncio.create_task(asked.erlang("is_process_alive", a))
    await eventually(lambda: bool(asked.node.workers._asked))
    os.kill(os_pid, signal.SIGKILL)
    assert await asking is False


async def test_one_question_about_a_process_goes_to_its_worker_alone_and_one_about_all_once_to_each(
    asked: Asked,
) -> None:
    questions: list[int] = []
    for link in asked.node.workers.links.values():
        link.protocol.request = _counted(link.protocol.request, questions, link.serial)  # type: ignore[method-assign]
    await asked.erlang("process_info", asked.whereis("crowd"))
    assert questions == [asked.whereis("crowd").serial]
    questions.clear()
    await asked.erlang("processes")
    assert sorted(questions) == sorted(asked.node.workers.links)
    assert not asked.node.workers._asked


def _counted(request: Any, questions: list[int], serial: int) -> Any:
    def counted(term: Any) -> None:
        if term[0] is Atom("info"):
            questions.append(serial)
        request(term)

    return counted


async def test_memory_has_the_values_of_a_beam_for_the_whole_tree(asked: Asked) -> None:
    theirs = await asked.beam.eval("erlang:memory()")
    ours = await asked.erlang("memory")
    assert [kind for kind, _ in ours] == [kind for kind, _ in theirs]
    values = {kind.name: value for kind, value in ours}
    assert values["total"] == values["system"] + values["processes"]
    assert values["processes"] > 4 << 20  # four OS processes
    total = await asked.erlang("memory", Atom("total"))
    assert isinstance(total, int)
    assert [k for k, _ in await asked.erlang("memory", [Atom("code"), Atom("total")])] == [
        Atom("code"),
        Atom("total"),
    ]
    match await asked.erlang("memory", Atom("nonsense")):
        case (Atom("badrpc"), (Atom("EXIT"), (Atom("badarg"), _))):
            pass
        case other:
            raise AssertionError(other)
