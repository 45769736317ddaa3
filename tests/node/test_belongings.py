"""What parts of the package keep with a runtime: one thing of each class."""

from __future__ import annotations

from pyglyn.node import Node, Process
from pyglyn.node.belongings import Belongings
from tests.node.conftest import unique_name


class Table(dict[str, int]):
    """Something kept."""


class Larger(Table):
    """Of another class, though of a subclass."""


def test_a_thing_is_found_by_its_class_and_made_once() -> None:
    belongings = Belongings()
    assert belongings.find(Table) is None
    made = belongings.get(Table)
    made["a"] = 1
    assert belongings.get(Table) is made
    assert belongings.find(Table) is made
    assert belongings.find(Larger) is None
    assert belongings.get(Larger, lambda: Larger(b=2)) == {"b": 2}
    assert belongings.find(Table) is made


def test_a_thing_put_takes_the_place_of_the_last_one() -> None:
    belongings = Belongings()
    first, second = Table(a=1), Table(a=2)
    belongings.put(first)
    belongings.put(second)
    assert belongings.find(Table) is second


async def test_code_in_the_hub_finds_its_node_and_two_nodes_keep_apart() -> None:
    async with Node(unique_name(), cookie="c") as a, Node(unique_name(), cookie="c") as b:
        found: list[Node | None] = []

        async def look(me: Process) -> None:
            found.append(me.runtime.belongings.find(Node))

        for node in (a, b):
            async with node.process() as me:
                me.spawn_monitor(look)
                await me.receive(timeout=60)
        assert found == [a, b]
