"""What the parts of a node share, before there is a connection."""

from __future__ import annotations

from tests.node.runtimes import NODE, hub, mailbox, noted


async def test_who_speaks_for_the_node_takes_replies_alone_and_no_exit_ends_the_node() -> None:
    here = noted()
    made = hub(here)
    me = here.process("me")
    system = made.system
    me.send(system.pid, 1)
    me.exit(system.pid, "boom")
    assert mailbox(system) == []
    assert made.system is system
    me.exit(system.pid, "kill")
    assert not system.alive
    assert made.system is not system
    assert made.system.alive
    made.system.send("me", b"still there")
    assert mailbox(me) == [b"still there"]


async def test_names_and_nodes_of_a_node_that_is_alone() -> None:
    here = noted()
    made = hub(here)
    me = here.process("me")
    assert (made.name, made.nodes(), made.is_hidden("other@h")) == (NODE, [], True)
    assert (made.whereis("me"), made.whereis("nobody")) == (me.pid, None)
    assert not made.stopping.is_set()
