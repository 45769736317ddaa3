"""The tree of settings: each in one place, and the same in every operating-system process of the node."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from pyglyn import etf
from pyglyn.dist import ChannelSettings, DistFlags
from pyglyn.etf import Atom, Limits, Term
from pyglyn.net import NetSettings
from pyglyn.node import Node, Process, Reconnect, Settings
from pyglyn.node.settings import HUB_ONLY, from_bytes, to_bytes
from pyglyn.supervision import Supervisor, start, supervisor, worker
from tests.node.conftest import unique_name


def leaves(settings: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Every single setting of the tree with its value."""
    for field in attrs.fields(type(settings)):
        value, name = getattr(settings, field.name), f"{above}{field.name}"
        if attrs.has(type(value)):
            yield from leaves(value, f"{name}.")
        else:
            yield name, value


def changed(settings: Any, name: str, value: object) -> Any:
    """The tree with another value in one place."""
    first, _, rest = name.partition(".")
    inner = changed(getattr(settings, first), rest, value) if rest else value
    return attrs.evolve(settings, **{first: inner})


def another(name: str, value: Any) -> object:
    """A value of the same kind that is not the default."""
    match value:
        case bool():
            return not value
        case enum.Flag():
            return value ^ DistFlags.ALIAS
        case int() | float():
            return value + 1
        case (int(), int(), int()):
            return tuple(number + 1 for number in value)
        case None if name == "net.listen_port":
            return 4711
        case None if name == "net.epmd_addresses":
            return ("127.0.0.2", "::1")
        case str() if name == "observe":
            return "full"
    raise AssertionError(f"{name}: say here how to change it, or say in HUB_ONLY why it stays in the hub")


NAMES = [name for name, _ in leaves(Settings())]


def test_the_tree_is_walked_to_its_leaves() -> None:
    assert {"auto_connect", "reconnect.first", "limits.depth", "net.channel.net_ticktime_s"} <= {*NAMES}
    assert {*HUB_ONLY} < {*NAMES}
    assert all(HUB_ONLY.values())


@pytest.mark.parametrize("name", [name for name in NAMES if name not in HUB_ONLY])
def test_each_setting_goes_with_the_welcome(name: str) -> None:
    default = dict(leaves(Settings()))[name]
    settings = changed(Settings(), name, another(name, default))
    assert settings != Settings()
    assert from_bytes(to_bytes(settings)) == settings


def test_what_only_the_hub_can_use_stays_there() -> None:
    settings = Settings(net=NetSettings(allowed=lambda name: True, address_of=lambda name: None))
    assert from_bytes(to_bytes(settings)) == Settings()


def test_a_fork_of_a_worker_takes_over_what_the_worker_has_read() -> None:
    data = to_bytes(Settings(send_limit=54321))
    assert from_bytes(bytes(bytearray(data))) is from_bytes(data)
    assert from_bytes(to_bytes(Settings())).send_limit == Settings().send_limit


def test_a_worker_refuses_settings_it_does_not_know() -> None:
    with pytest.raises(Exception, match="Settings"):
        from_bytes(etf.encode({b"no_such_setting": 1}))


OTHERS = Settings(
    net=NetSettings(epmd_port=0, busy_limit=2_000_000, channel=ChannelSettings(net_ticktime_s=8.0)),
    auto_connect=False,
    reconnect=Reconnect(first=0.5),
    send_limit=100_000_000,
    worker_queue_limit=3_000_000,
    limits=Limits(depth=20, elements=1000, size=100_000),
)


async def tell_settings(me: Process, asker: Any) -> None:
    """Send what this process sees of the settings, then wait to be stopped."""
    me.send(asker, (me.pid, to_bytes(me.runtime.settings)))
    await me.receive()


@pytest.mark.parametrize("method", ["fork", "spawn"])
async def test_every_operating_system_process_has_them(method: str) -> None:
    """Forked and spawned, a child's and a child's of a supervisor with an OS process of its own."""
    async with Node(unique_name(), cookie="c", settings=OTHERS) as node, node.process() as me:
        below = Supervisor().add(worker(tell_settings, me.pid, start=method))
        tree = (
            Supervisor().add(worker(tell_settings, me.pid, start=method)).add(supervisor(below, start=method))
        )
        await start(node, tree)
        node.spawn(tell_settings, me.pid)
        told = [await me.receive(timeout=60) for _ in range(3)]
        assert {data for _, data in told} == {to_bytes(OTHERS)}  # type: ignore[misc]
        assert len({pid.serial for pid, _ in told}) == 3  # type: ignore[misc, union-attr]


async def taker(me: Process, asker: Any) -> None:
    """Pass on what comes."""
    while True:
        me.send(asker, (me.pid.serial == 0, await me.receive(), me.runtime.settings.limits.depth))


async def test_limits_hold_in_the_hub_and_in_its_workers() -> None:
    """Of a term that is too deep and one that is not, sent after it, only the second arrives."""
    deep: Term = Atom("x")
    for _ in range(50):
        deep = (deep,)
    async with (
        Node(unique_name("a"), cookie="c", settings=Settings(limits=Limits(depth=20))) as a,
        Node(unique_name("b"), cookie="c") as b,
        b.process("probe") as probe,
    ):
        asker = ("probe", b.name)
        a.spawn(taker, asker, name="in_hub")
        await start(a, Supervisor().add(worker(taker, asker, name="in_worker")))
        for name in ("in_hub", "in_worker"):
            probe.send((name, a.name), deep)
            probe.send((name, a.name), Atom("flat"))
            assert await probe.receive(timeout=60) == (name == "in_hub", Atom("flat"), 20)


async def test_the_tick_time_is_given_in_one_place_and_used() -> None:
    settings = Settings(net=NetSettings(channel=ChannelSettings(net_ticktime_s=8.0)))
    with pytest.raises(TypeError):
        Settings(net_ticktime=8.0)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Node(unique_name(), cookie="c", net=NetSettings())  # type: ignore[call-arg]
    async with (
        Node(unique_name(), cookie="c", settings=settings) as node,
        Node(unique_name(), cookie="c") as other,
    ):
        await other.connect(node.name)
        assert await other.call(("net_kernel", node.name), Atom("ticktime")) == 8000
        [connection] = node.peers.connections
        assert connection._channel.settings.net_ticktime_s == node.net_ticktime == 8.0
