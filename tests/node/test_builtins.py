"""What a node exports of itself for shells and tools, each function called as a peer's call would."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from pyglyn import counters
from pyglyn.etf import Atom, Pid, Term
from pyglyn.node.builtins import add_builtins
from pyglyn.node.exports import Badarg, Exports
from pyglyn.node.reasons import OK, UNDEFINED
from pyglyn.testing import eventually
from tests.node.joined import Joined, joined

ERLANG, PYGLYN, LOGGER = "erlang", "pyglyn", "logger"


def atoms(*names: str) -> list[Term]:
    return [Atom(name) for name in names]


async def called(here: Joined, module: str, name: str, *args: Term) -> Any:
    """Call a function by its name and number of arguments."""
    exported = here.node.builtins.find(Atom(module), Atom(name), len(args))
    assert exported is not None
    return await exported.run(here.node.system, list(args))


async def refused(here: Joined, module: str, name: str, *args: Term) -> None:
    with pytest.raises(Badarg):
        await called(here, module, name, *args)


@pytest.fixture
async def here() -> AsyncIterator[Joined]:
    async with joined() as made:
        yield made


@pytest.fixture
def _level_stays() -> Iterator[None]:
    """A level of the log is one for the whole OS process."""
    root = logging.getLogger()
    before = root.level
    yield
    root.setLevel(before)


# --- erlang ---------------------------------------------------------------------------------------------


async def test_a_node_knows_its_name_and_its_nodes_by_kind(here: Joined) -> None:
    assert await called(here, ERLANG, "node") is Atom(here.node.name)
    hidden = await here.peer()
    own, other = here.node.name, hidden.name
    expected = {
        "visible": [],
        "hidden": [other],
        "connected": [other],
        "this": [own],
        "known": sorted([own, other]),
    }
    for kind, names in expected.items():
        assert await called(here, ERLANG, "nodes", Atom(kind)) == atoms(*names), kind
    assert await called(here, ERLANG, "nodes") == []
    both = await called(here, ERLANG, "nodes", atoms("this", "hidden"))
    assert both == atoms(*sorted([own, other]))
    await refused(here, ERLANG, "nodes", Atom("strange"))
    await refused(here, ERLANG, "nodes", atoms("this", "strange"))


async def test_a_connection_between_visible_nodes_is_one_of_nodes() -> None:
    async with joined(hidden=False) as here:
        visible, hidden = await here.peer(hidden=False), await here.peer()
        assert await called(here, ERLANG, "nodes") == atoms(visible.name)
        assert await called(here, ERLANG, "nodes", Atom("hidden")) == atoms(hidden.name)


async def test_names_lead_to_processes_of_the_hub_and_of_workers(here: Joined) -> None:
    worker = await here.worker()
    inside = worker.runtime.attach("test")
    await worker.runtime.register_name("shop", inside.pid)
    await worker.runtime.register_name("true", inside.pid)
    assert await called(here, ERLANG, "whereis", Atom("shop")) == inside.pid
    assert await called(here, ERLANG, "whereis", True) == inside.pid
    assert await called(here, ERLANG, "whereis", Atom("nobody")) is UNDEFINED
    names = await called(here, ERLANG, "registered")
    assert {Atom("shop"), True, Atom("rex")} <= set(names)
    await refused(here, ERLANG, "whereis", b"shop")


async def test_processes_wherever_they_are_are_listed_alive_and_described(here: Joined) -> None:
    worker = await here.worker()
    inside, local = worker.runtime.attach("inside"), here.node.runtime.attach("local")
    listed = await called(here, ERLANG, "processes")
    assert {inside.pid, local.pid} <= set(listed)
    length = Atom("message_queue_len")
    for process in (inside, local):
        assert await called(here, ERLANG, "is_process_alive", process.pid) is True
        assert await called(here, ERLANG, "process_info", process.pid, length) == (length, 0)
        assert await called(here, ERLANG, "process_info", process.pid, [length]) == [(length, 0)]
        process.end()
        assert await called(here, ERLANG, "is_process_alive", process.pid) is False
        for items in ([], [length], [[length]]):
            assert await called(here, ERLANG, "process_info", process.pid, *items) is UNDEFINED


async def test_a_name_is_an_item_of_its_own_only_where_there_is_one(here: Joined) -> None:
    """erlang(3): ``process_info(Pid, registered_name)`` is ``[]`` for a process without a name, and no pair."""
    async with here.node.process("shop") as named, here.node.process() as nameless:
        item = Atom("registered_name")
        assert await called(here, ERLANG, "process_info", named.pid, item) == (item, Atom("shop"))
        assert await called(here, ERLANG, "process_info", nameless.pid, item) == []
        assert await called(here, ERLANG, "process_info", nameless.pid, [item]) == [(item, [])]
        assert (await called(here, ERLANG, "process_info", named.pid))[0] == (item, Atom("shop"))
        without = await called(here, ERLANG, "process_info", nameless.pid)
        assert item not in dict(without)
        assert without


async def test_what_is_no_process_of_this_node_is_refused(here: Joined) -> None:
    far = Pid("far@h", 1, 0, 1)
    for wanted in (far, Atom("shop"), 1):
        await refused(here, ERLANG, "is_process_alive", wanted)
        await refused(here, ERLANG, "process_info", wanted)
    await refused(here, ERLANG, "process_info", here.node.system.pid, Atom("strange"))
    await refused(here, ERLANG, "process_info", here.node.system.pid, [Atom("links"), 1])


async def test_memory_is_told_by_kinds(here: Joined) -> None:
    told = await called(here, ERLANG, "memory")
    kinds = [kind for kind, _ in told]
    assert {Atom("total"), Atom("processes"), Atom("system")} <= set(kinds)
    assert all(isinstance(size, int) and size >= 0 for _, size in told)
    assert dict(told)[Atom("total")] > 1_000_000
    one = await called(here, ERLANG, "memory", Atom("total"))
    assert isinstance(one, int)
    some = await called(here, ERLANG, "memory", [Atom("system"), Atom("total")])
    assert [kind for kind, _ in some] == [Atom("system"), Atom("total")]
    for wrong in (Atom("strange"), [Atom("total"), Atom("strange")], [b"total"], 1):
        await refused(here, ERLANG, "memory", wrong)


# --- pyglyn ---------------------------------------------------------------------------------------------


async def test_the_tree_has_the_processes_of_the_hub_and_of_workers(here: Joined) -> None:
    worker = await here.worker()
    inside = worker.runtime.attach("inside")
    found = {row[Atom("pid")]: row for row in await called(here, PYGLYN, "tree")}
    assert found[inside.pid][Atom("label")] == b"inside"
    assert here.node.system.pid in found


async def test_counts_are_told_with_their_labels_and_workers_are_asked_for_theirs(here: Joined) -> None:
    before = counters.take()
    try:
        counters.add("sold", 2, shop="a")
        counted = await called(here, PYGLYN, "counts")
        assert (b"sold", [(b"shop", b"a")], 2) in counted
        assert here.node.workers._counting
    finally:
        counters.when_changed(None)
        counters.take()
        counters.add_all(before)


async def test_who_is_to_be_killed_is_named_as_text_or_as_an_atom(here: Joined) -> None:
    for number, spell in enumerate((lambda name: Atom(name), lambda name: name.encode())):
        name = f"shop{number}"

        async def body(me: Any) -> None:
            await me.receive()

        pid = here.node.spawn(body, name=name)
        await called(here, PYGLYN, "kill", spell(name))
        await eventually(lambda pid=pid: pid.id not in here.node.runtime.processes)
    assert here.node.whereis("shop0") is here.node.whereis("shop1") is None


async def test_a_node_that_is_told_to_stop_answers_first(here: Joined) -> None:
    assert await called(here, PYGLYN, "stop") is OK
    await eventually(lambda: here.node.stopping)


# --- the log --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_level_stays")
async def test_the_level_of_the_log_is_told_and_set_in_the_words_of_either_side(here: Joined) -> None:
    assert await called(here, PYGLYN, "log_level", Atom("error")) is Atom("error")
    assert logging.getLogger().level == logging.ERROR
    assert await called(here, PYGLYN, "log_level") is Atom("error")
    assert await called(here, PYGLYN, "log_level", b"warning") is Atom("warning")
    assert await called(here, LOGGER, "get_primary_config") == {Atom("level"): Atom("warning")}
    words = {
        "emergency": logging.CRITICAL,
        "alert": logging.CRITICAL,
        "notice": logging.INFO,
        "all": logging.DEBUG,
        "none": logging.CRITICAL,
        "info": logging.INFO,
    }
    for word, level in words.items():
        assert await called(here, LOGGER, "set_primary_config", Atom("level"), Atom(word)) is OK
        assert logging.getLogger().level == level, word
    for wrong in (Atom("strange"), 1):
        await refused(here, PYGLYN, "log_level", wrong)
    await refused(here, LOGGER, "set_primary_config", Atom("filters"), [])
    assert logging.getLogger().level == logging.INFO


# --- what is there at all -------------------------------------------------------------------------------


@pytest.mark.parametrize("observe", ["off", "read"])
async def test_a_node_that_is_not_to_be_observed_tells_nothing_of_its_processes(observe: Any) -> None:
    async with joined(observe=observe) as here:
        table = Exports()
        add_builtins(table, here.node.hub, here.node.workers)
        open_to_all = {
            (ERLANG, name) for name in ("node", "nodes", "whereis", "registered", "is_process_alive")
        }
        open_to_all |= {(PYGLYN, name) for name in ("tree", "counts", "kill", "stop", "log_level")}
        assert open_to_all <= set(table)
        hidden = {(ERLANG, name) for name in ("processes", "process_info", "memory")}
        assert hidden & set(table) == (set() if observe == "off" else hidden)
