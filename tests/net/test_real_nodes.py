"""Connections with real OTP nodes, both ways."""

from __future__ import annotations

import asyncio
from hashlib import md5
from pathlib import Path

import pytest

from pyglyn.dist import MANDATORY_25, MANDATORY_26, RECOMMENDED, ChannelSettings, DistFlags, is_own_name
from pyglyn.dist.control import MonitorP, MonitorPExit, RegSend
from pyglyn.dist.epmd import NodeEntry
from pyglyn.errors import HandshakeError, MissingFlags, WrongCookie
from pyglyn.etf import Atom, Reference, encode_parts
from pyglyn.net import EpmdServer, NetSettings, epmd_client
from pyglyn.testing import Beam, Beams, Otp, eventually, free_port, no_leaks
from tests.net.conftest import EpmdOnPort, StartNode

ECHO = """
Echo = fun Loop() -> receive {From, Term} -> From ! {echo, Term}, Loop(); stop -> ok end end,
Pid = spawn(Echo), register(echo, Pid), Pid
"""


async def only_hidden(beam: Beam, name: str) -> None:
    """Wait until a BEAM node has this peer and no other: it is up there a moment after the handshake is over here."""

    async def is_so() -> bool:
        return bool(await beam.eval("{nodes(), nodes(hidden)}") == ([], [Atom(name)]))

    await eventually(is_so)


async def test_a_dialled_node_is_up_and_exchanges_messages(beam: Beam, start_node: StartNode) -> None:
    """Initiator, hidden; messages to a pid and to a name, and an answer."""
    node = await start_node()
    connection = await node.peers.connect(beam.name)
    assert (connection.name, connection.hidden) == (beam.name, True)
    await only_hidden(beam, node.name)
    echo = await beam.eval(ECHO)
    node.send(beam.name, echo, (node.pid(), b"to a pid"))
    node.send(beam.name, "echo", (node.pid(), b"to a name"))
    assert await node.has_received(2) == [(Atom("echo"), b"to a pid"), (Atom("echo"), b"to a name")]


async def test_a_node_that_dials_us_is_accepted(beam: Beam, start_node: StartNode) -> None:
    """Acceptor, hidden; the BEAM finds us by EPMD with the first message it sends."""
    node = await start_node()
    await beam.eval("{inbox, 'py@localhost'} ! {hello, [1, 2.5, <<\"x\">>, #{a => b}]}")
    assert await node.has_received(1) == [(Atom("hello"), [1, 2.5, b"x", {Atom("a"): Atom("b")}])]
    assert node.ups[0].name == beam.name
    await only_hidden(beam, node.name)


async def test_both_learn_of_a_disconnect(beam: Beam, start_node: StartNode) -> None:
    """Each side closes once; the callbacks come in pairs and nothing is left open."""
    node = await start_node()
    async with no_leaks():
        await node.peers.connect(beam.name)
        await only_hidden(beam, node.name)
        assert await beam.disconnect(node.name)
        assert "closed by the peer" in await node.has_lost(beam.name)
        await node.peers.connect(beam.name)
        assert node.peers.disconnect(beam.name)
        await eventually(lambda: _hidden_nodes(beam, 0))
    assert node.history == [("up", beam.name), ("down", beam.name)] * 2


async def _hidden_nodes(beam: Beam, count: int) -> bool:
    return await beam.eval("length(nodes(hidden))") == count


async def test_many_callers_share_one_attempt(beam: Beam, start_node: StartNode) -> None:
    node = await start_node()
    connections = await asyncio.gather(*(node.peers.connect(beam.name) for _ in range(20)))
    assert len(set(map(id, connections))) == 1
    assert node.history == [("up", beam.name)]


@pytest.mark.parametrize("name", ["aaa@localhost", "zzz@localhost"])
async def test_simultaneous_connects_give_one_connection(
    beam: Beam, start_node: StartNode, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The greater name keeps its attempt: ours is once the greater and once the smaller one."""
    node = await start_node(name)
    for round_ in range(10):
        _, connected = await asyncio.gather(
            node.peers.connect(beam.name), beam.eval("net_kernel:connect_node(Node)", Node=Atom(name))
        )
        assert connected is True
        node.send(beam.name, await beam.eval("whereis(kernel_sup)"), round_)
        await beam.eval("{inbox, Node} ! Round", Node=Atom(name), Round=round_)
        assert (await node.has_received(round_ + 1))[-1] == round_
        assert len(node.history) == 2 * round_ + 1
        node.peers.disconnect(beam.name)
        await eventually(lambda: _hidden_nodes(beam, 0))
    assert caplog.text == ""  # an attempt that lost is nothing to worry about


async def test_a_restarted_node_takes_over_its_old_connection(beam: Beam, start_node: StartNode) -> None:
    """The real node asks (`alive`), we say true, and it reports the old incarnation down."""
    node = await start_node()
    await node.peers.connect(beam.name)
    await only_hidden(beam, node.name)
    await beam.eval("""
        Watcher = fun Loop(Seen) -> receive
            {get, From} -> From ! {seen, Seen}, Loop(Seen);
            E -> Loop(Seen ++ [E]) end end,
        register(watcher, spawn(fun() ->
            erlang:monitor_node('py@localhost', true),
            net_kernel:monitor_nodes(true, [{node_type, all}]),
            Watcher([]) end)),
        watcher ! {get, self()},
        receive {seen, _} -> ok end % it watches by now
    """)
    port = await _port_of(beam)
    settings = NetSettings(epmd_port=0, address_of=lambda _: ("127.0.0.1", port))
    again = await start_node(settings=settings)
    await again.peers.connect(beam.name)
    await node.has_lost(beam.name)
    kinds: list[str] = []

    async def told() -> bool:
        seen = await beam.eval("watcher ! {get, self()}, receive {seen, S} -> S end")
        kinds[:] = [event[0].name for event in seen if Atom("py@localhost") in event]
        return "nodeup" in kinds and kinds.count("nodedown") == 2

    await eventually(told)
    assert kinds.index("nodedown") < kinds.index("nodeup")
    await beam.eval("{inbox, 'py@localhost'} ! new")
    assert await again.has_received(1) == [Atom("new")]
    assert node.received() == []


async def _port_of(beam: Beam) -> int:
    entry = await epmd_client.lookup(beam.name.partition("@")[0], "127.0.0.1", beam.epmd_port)
    return entry.port


async def test_a_restarted_real_node_takes_over_its_old_connection(
    beams: Beams, beam_otp: Otp, start_node: StartNode
) -> None:
    """Suspended, the old one is thought alive; the new one of its name says `true` to our question."""
    node = await start_node()
    old = await beams.start("twice")
    await node.peers.connect("twice@localhost")
    old.suspend()
    # The first EPMD has the name still; this one has another idea of creations.
    second_epmd = EpmdServer(free_port(), clock=lambda: 5.0)
    await second_epmd.start()
    entry = NodeEntry(name="py", port=node.peers.port)
    registration = await epmd_client.register(entry, "127.0.0.1", second_epmd.port)
    successors = Beams(EpmdOnPort(second_epmd.port), beam_otp)
    try:
        new = await successors.start("twice")
        assert await new.eval("net_kernel:connect_node('py@localhost')") is True
        twice = "twice@localhost"
        assert node.history == [("up", twice), ("down", twice), ("up", twice)]
        assert node.ups[1].creation == 5
        await new.eval("{inbox, 'py@localhost'} ! new")
        assert await node.has_received(1) == [Atom("new")]
    finally:
        await asyncio.to_thread(successors.close)
        registration.close()
        second_epmd.stop()


async def test_a_wrong_cookie_is_said_on_both_sides(
    beams: Beams, start_node: StartNode, caplog: pytest.LogCaptureFixture
) -> None:
    node = await start_node()
    beam = await beams.start(cookie="another")
    async with no_leaks():
        with pytest.raises(WrongCookie, match="refused this node's cookie"):
            await node.peers.connect(beam.name)
        assert await beam.eval("net_kernel:connect_node('py@localhost')") is False
        await eventually(lambda: f"{beam.name} does not have this node's cookie" in caplog.text)
        assert node.history == []


@pytest.mark.parametrize("flag", list(MANDATORY_26), ids=lambda flag: flag.name)
async def test_a_missing_flag_is_named(shared_beam: Beam, start_node: StartNode, flag: DistFlags) -> None:
    """OTP 25 does without V4_NC and UNLINK_ID, 28 refuses."""
    lacking = NetSettings(flags=RECOMMENDED & ~flag & ~DistFlags.MANDATORY_25_DIGEST)
    node = await start_node(settings=lacking)
    if shared_beam.otp == 25 and flag not in MANDATORY_25:
        await node.peers.connect(shared_beam.name)
        return
    with pytest.raises(MissingFlags, match=str(flag.name)) as caught:
        await node.peers.connect(shared_beam.name)
    assert caught.value.names == (flag.name,)


async def test_a_node_of_long_names(beams: Beams, start_node: StartNode) -> None:
    node = await start_node("py@127.0.0.1")
    beam = await beams.start("long@127.0.0.1")
    await node.peers.connect("long@127.0.0.1")
    await only_hidden(beam, "py@127.0.0.1")


@pytest.mark.parametrize(
    ("own", "dialled"), [("py@localhost", "x@localhost"), ("py@127.0.0.1", "y@127.0.0.1")]
)
async def test_a_node_of_the_other_kind_of_names_is_told_apart(
    beams: Beams, start_node: StartNode, own: str, dialled: str
) -> None:
    """EPMD knows only the first part of a name, so the node is found; then it answers under its whole name."""
    node = await start_node(own)
    await beams.start("x@127.0.0.1")
    await beams.start("y@localhost")
    with pytest.raises(HandshakeError, match=r"answered: it uses (long|short) names, but this node, .* uses"):
        await node.peers.connect(dialled)


NAMES = ["cdé@localhost", "a b@localhost", "a.b@localhost", "a/b@localhost", "a'b@localhost", "a:b@localhost"]
NAMES += ["a%20@localhost", "a+b@localhost", "a~b@localhost", "a@b@c", "@x", "a*@localhost", "a\n@localhost"]
NAMES += ["a" * 246 + "@localhost", "a@loc alhost"]
NAMES += [
    "a-1@localhost",
    "_a@localhost",
    "-a@localhost",
    "1@localhost",
    "A@local_host",
    "a" * 245 + "@localhost",
]


async def test_names_are_refused_as_by_a_real_node(beams: Beams, beam_otp: Otp, tmp_path: Path) -> None:
    """Each is tried there with `net_kernel:start/1`."""
    beam = Beam("x", otp=beam_otp, cookie="", epmd_port=beams.epmd.port, home=tmp_path, distributed=False)
    beams.nodes.append(beam)
    await asyncio.to_thread(beam.wait_started)
    starts = await beam.eval(
        """
        logger:set_primary_config(level, none),
        [try net_kernel:start([list_to_atom(Name), shortnames]) of
             {ok, _} -> net_kernel:stop(), true;
             {error, _} -> false
         catch _:_ -> false end || Name <- Names]
        """,
        Names=[[ord(character) for character in name] for name in NAMES],
        timeout=60,
    )
    assert dict(zip(NAMES, starts, strict=True)) == {name: is_own_name(name) for name in NAMES}


async def test_a_visible_node_is_listed_as_one(beam: Beam, start_node: StartNode) -> None:
    node = await start_node(hidden=False)
    connection = await node.peers.connect(beam.name)
    assert not connection.hidden
    assert await beam.eval("nodes()") == [Atom(node.name)]


async def test_a_hidden_real_node(beams: Beams, start_node: StartNode) -> None:
    node = await start_node(hidden=False)
    beam = await beams.start(hidden=True)
    assert (await node.peers.connect(beam.name)).hidden
    assert await beam.eval("net_kernel:connect_node('py@localhost')") is True
    await only_hidden(beam, node.name)


async def test_a_real_node_without_a_name_is_given_one(
    beams: Beams, beam_otp: Otp, start_node: StartNode, tmp_path: Path
) -> None:
    """NAME_ME: it takes its name and its creation from the first node it meets."""
    beam = Beam("x", otp=beam_otp, cookie="", epmd_port=beams.epmd.port, home=tmp_path, distributed=False)
    beams.nodes.append(beam)
    await asyncio.to_thread(beam.wait_started)
    await beam.eval("{ok, _} = net_kernel:start(undefined, #{name_domain => shortnames})")
    await beam.eval("erlang:set_cookie(pyglyn_testing)")
    host = bytes(await beam.eval("{ok, Host} = inet:gethostname(), Host")).decode()
    node = await start_node(f"py@{host}")
    assert await beam.eval("net_kernel:connect_node(Node)", Node=Atom(node.name)) is True
    name, creation = await beam.eval("{node(), erts_internal:get_creation()}")
    assert name.name.endswith(f"@{host}")
    assert node.history == [("up", name.name)]
    assert node.ups[0].creation == creation
    await beam.eval("{inbox, Node} ! {from, node()}", Node=Atom(node.name))
    assert await node.has_received(1) == [(Atom("from"), name)]


FLAG_SETS = {
    "fragments": RECOMMENDED,
    "no fragments": RECOMMENDED & ~DistFlags.FRAGMENTS,
    "fragments and atom cache": RECOMMENDED | DistFlags.DIST_HDR_ATOM_CACHE,
    "atom cache": RECOMMENDED & ~DistFlags.FRAGMENTS | DistFlags.DIST_HDR_ATOM_CACHE,
    "reasons in the tuple": RECOMMENDED & ~DistFlags.EXIT_PAYLOAD & ~DistFlags.SEND_SENDER,
}


@pytest.mark.parametrize("flags", FLAG_SETS.values(), ids=FLAG_SETS)
@pytest.mark.parametrize("who_dials", ["we", "they"])
async def test_every_form_of_packets(
    beam: Beam, start_node: StartNode, flags: DistFlags, who_dials: str
) -> None:
    """Small and large messages both ways, with atoms enough to fill a cache, monitors and exits."""
    node = await start_node(settings=NetSettings(flags=flags))
    echo = await beam.eval(ECHO)
    if who_dials == "we":
        await node.peers.connect(beam.name)
    else:
        assert await beam.eval("net_kernel:connect_node('py@localhost')") is True
    block = bytes(range(256)) * 4000
    atoms = {Atom(f"atom_{number}"): [Atom(f"value_{number}"), number] for number in range(300)}
    terms = [1, b"", block, atoms, [atoms, block], (Atom("ü" * 200), node.pid(), echo)]
    for term in terms * 2:
        node.send(beam.name, echo, (node.pid(), term))
    assert await node.has_received(12) == [(Atom("echo"), term) for term in terms * 2]
    connection = node.peers.get(beam.name)
    assert connection is not None
    ref = Reference(node.name, node.local.creation, (1, 2, 3))
    connection.send(MonitorP(node.pid(), Atom("echo"), ref))
    node.send(beam.name, echo, (node.pid(), b"the monitor is there"))
    await node.has_received(13)
    await beam.eval("exit(Pid, {very, {bad, <<0:800000>>}})", Pid=echo)
    await eventually(lambda: [c for c, _ in node.messages if isinstance(c, MonitorPExit)])
    down, payload = next((c, p) for c, p in node.messages if isinstance(c, MonitorPExit))
    reason = payload if DistFlags.EXIT_PAYLOAD in flags else down.reason
    assert reason == (Atom("very"), (Atom("bad"), bytes(100_000)))
    assert (down.watched, down.watcher, down.ref) == (Atom("echo"), node.pid(), ref)


async def test_64_mib_both_ways_and_a_small_message_in_between(beam: Beam, start_node: StartNode) -> None:
    """The small ones come from another process, so they overtake the fragments."""
    node = await start_node()
    connection = await node.peers.connect(beam.name)
    await beam.eval("""
        Collect = fun Loop(Order) -> receive
            {report, To} -> To ! {order, lists:reverse(Order)}, Loop(Order);
            B when is_binary(B) -> Loop([byte_size(B) | Order]);
            Other -> Loop([Other | Order]) end end,
        register(collector, spawn(fun() -> Collect([]) end))
    """)
    size = 64 << 20
    block = bytes(size)
    node.send(beam.name, "collector", block)
    connection.send(RegSend(node.pid(2), Atom("collector")), encode_parts(Atom("small")))
    await beam.eval(
        """
        spawn(fun() -> {inbox, 'py@localhost'} ! binary:copy(<<0>>, Size), {inbox, 'py@localhost'} ! after_it end),
        {inbox, 'py@localhost'} ! small
    """,
        Size=size,
    )
    assert [
        len(term) if isinstance(term, bytes) else term.name for term in await node.has_received(3, 30.0)
    ] in (
        ["small", size, "after_it"],
        [size, "small", "after_it"],
        [size, "after_it", "small"],
    )
    order = "collector ! {report, self()}, receive {order, O} -> O after 60000 -> late end"

    async def complete() -> bool:
        return len(await beam.eval(order, timeout=30)) == 2

    await eventually(complete, timeout=30)
    assert await beam.eval(order) == [Atom("small"), size]
    assert connection.queued_bytes == 0


async def test_large_messages_of_several_senders_are_told_apart(beam: Beam, start_node: StartNode) -> None:
    """Their fragments are interleaved, with those of exits and monitors too."""
    node = await start_node()
    connection = await node.peers.connect(beam.name)
    await beam.eval("""
        register(collector, spawn(fun() ->
            Sizes = [receive {I, B} when is_integer(I) -> {I, erlang:md5(B)} end || _ <- lists:seq(1, 12)],
            receive {report, To} -> To ! {got, lists:sort(Sizes)} end end))
    """)
    blocks = {number: bytes([number]) * (300_000 + 70_000 * number) for number in range(1, 13)}
    for number, block in blocks.items():
        connection.send(RegSend(node.pid(number % 4), Atom("collector")), encode_parts((number, block)))
    answer = await beam.eval("collector ! {report, self()}, receive {got, G} -> G after 60000 -> late end")
    assert answer == [(number, md5(block).digest()) for number, block in blocks.items()]


async def test_ten_thousand_messages_each_way_keep_their_order(beam: Beam, start_node: StartNode) -> None:
    node = await start_node()
    await node.peers.connect(beam.name)
    await beam.eval("""
        register(counter, spawn(fun() ->
            [receive {n, I} -> {inbox, 'py@localhost'} ! {n, I} end || I <- lists:seq(1, 10000)] end))
    """)
    for number in range(1, 10_001):
        node.send(beam.name, "counter", (Atom("n"), number))
    assert await node.has_received(10_000, 30.0) == [(Atom("n"), number) for number in range(1, 10_001)]


class TestTicks:
    """net_ticktime of 2 s with 4 intervals, on both sides."""

    ARGS = ("-kernel", "net_ticktime", "2")
    QUICK = ChannelSettings(net_ticktime_s=2.0)

    async def test_an_idle_connection_stays_up(self, beams: Beams, start_node: StartNode) -> None:
        node = await start_node(settings=NetSettings(channel=self.QUICK))
        beam = await beams.start(args=self.ARGS)
        connection = await node.peers.connect(beam.name)
        ticks, receive = [], connection._channel.receive_batch
        connection._channel.receive_batch = lambda data, *more: ticks.append(data) or receive(data, *more)  # type: ignore[method-assign,func-returns-value]
        await eventually(lambda: len(ticks) >= 8, 10.0)  # that takes twice net_ticktime
        assert set(ticks) == {bytes(4)}
        assert node.history == [("up", beam.name)]
        assert await _hidden_nodes(beam, 1)

    async def test_a_peer_with_a_shorter_net_ticktime_keeps_us(
        self, beams: Beams, start_node: StartNode
    ) -> None:
        """It hears from us at every second tick of its own, not at each quarter of our 60 s."""
        node = await start_node()
        beam = await beams.start(args=self.ARGS)
        connection = await node.peers.connect(beam.name)
        ticks, receive = [], connection._channel.receive_batch
        connection._channel.receive_batch = lambda data, *more: ticks.append(data) or receive(data, *more)  # type: ignore[method-assign,func-returns-value]
        await eventually(lambda: len(ticks) >= 16 or node.downs, 30.0)  # that takes four times net_ticktime
        assert node.history == [("up", beam.name)]
        assert await _hidden_nodes(beam, 1)

    async def test_a_dead_peer_is_noticed(self, beams: Beams, start_node: StartNode) -> None:
        node = await start_node(settings=NetSettings(channel=self.QUICK))
        beam = await beams.start(args=self.ARGS)
        await node.peers.connect(beam.name)
        beam.suspend()
        assert await node.has_lost(beam.name) == "net tick timeout"
        beam.resume()
        await eventually(lambda: _hidden_nodes(beam, 0))

    async def test_a_dead_node_of_ours_is_noticed_by_a_real_one(
        self, beams: Beams, start_node: StartNode
    ) -> None:
        """A connection that neither reads nor ticks, as of a stopped process."""
        node = await start_node(settings=NetSettings(channel=ChannelSettings(net_ticktime_s=1000.0)))
        beam = await beams.start(args=self.ARGS)
        connection = await node.peers.connect(beam.name)
        connection.pause_reading()
        await eventually(lambda: _hidden_nodes(beam, 0), 10.0)
        connection.resume_reading()
        await node.has_lost(beam.name)
