"""The same work over plain connections and over TLS, each beside a hidden BEAM node that does it in the same way.

What TLS costs us is to be seen in the ratios: where one is as good over TLS as it is over a plain connection, TLS costs us no
more of what we do than it costs OTP.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import attrs

from pyglyn import certificates
from pyglyn.etf import Atom, Term
from pyglyn.net import NetSettings
from pyglyn.net.tls import read_option_file
from pyglyn.node import Node, Settings
from pyglyn.testing import Beam, require
from tests.benchmarks.harness import Bench, Measurement, pair
from tests.benchmarks.node import EVENT, Echo, call_again, flood, sink
from tests.tls.conftest import TlsBeams, ssl_of

BLOB = bytes(range(256)) * 4096
"""1 MiB."""

CONNECT = """
ok = net_kernel:monitor_nodes(true, [{node_type, all}]),
Again = fun(_) ->
    true = net_kernel:connect_node(P), true = erlang:disconnect_node(P), receive {nodedown, P, _} -> ok end
end,
element(1, timer:tc(fun() -> lists:foreach(Again, lists:seq(1, N)) end))
"""


async def connect_again(local: Node, peer: str, count: int) -> float:
    """Seconds that so many connects take, one after the other."""
    started = time.perf_counter()
    for _ in range(count):
        await local.connect(peer)
        connection = local.peers.get(peer)
        assert connection is not None
        local.disconnect(peer)
        await connection.wait_closed()
    return time.perf_counter() - started


async def _measure(bench: Bench, group: str, settings: Settings) -> AsyncIterator[Measurement]:
    peer, hidden = bench.peer, bench.hidden
    calls, events = bench.scale.count(5e-4), bench.scale.count(3e-5)
    blobs, connects = bench.scale.count(1e-2), bench.scale.count(2e-2)
    name = f"bench_{group.replace(' ', '_')}@localhost"
    async with Node(name, cookie=peer.cookie, settings=settings) as local, local.process() as me:
        await local.start(Echo, name="bench_server")
        local.spawn(sink, name="bench_sink")

        async def called(by: Beam, where: str) -> float:
            ask = "pyglyn_bench:calls({bench_server, Node}, N)"
            return await by.eval(ask, Node=Atom(where), N=calls, timeout=60) / 1e6

        async def flooded(by: Beam, where: str, count: int, term: Term) -> float:
            ask = "pyglyn_bench:flood({bench_sink, Node}, N, Event)"
            return await by.eval(ask, Node=Atom(where), N=count, Event=term, timeout=120) / 1e6

        yield await bench.compare(
            group,
            "round trips",
            calls,
            lambda: call_again(me, ("bench_server", peer.name), calls),
            lambda: called(hidden, peer.name),
        )
        for what, count, term in (("event messages", events, EVENT), ("blobs of 1 MiB", blobs, BLOB)):
            yield await bench.compare(
                group,
                f"{what} in",
                count,
                lambda count=count, term=term: flooded(peer, local.name, count, term),
                lambda count=count, term=term: flooded(peer, hidden.name, count, term),
            )
            yield await bench.compare(
                group,
                f"{what} out",
                count,
                lambda count=count, term=term: flood(me, ("bench_sink", peer.name), count, term),
                lambda count=count, term=term: flooded(hidden, peer.name, count, term),
            )

        async def connected() -> float:
            return await hidden.eval(CONNECT, P=Atom(peer.name), N=connects, timeout=120) / 1e6

        yield await bench.compare(
            group, "connects", connects, lambda: connect_again(local, peer.name, connects), connected
        )


async def tls(bench: Bench) -> AsyncIterator[Measurement]:
    """Round trips, messages, blobs and connects, without and with TLS."""
    require(ssl_of(bench.otp) is not None, "no ssl for this OTP: install erlang-ssl")
    async for measurement in _measure(bench, "plain", Settings()):
        yield measurement
    with tempfile.TemporaryDirectory() as folder:
        option_file = certificates.for_node(certificates.authority(Path(folder)), "any@localhost")
        factory = TlsBeams(bench.beams.epmd, bench.otp)
        factory.option_file = option_file
        try:
            started = await pair(factory, "bench_tls")
            net = NetSettings(tls=read_option_file(str(option_file)))
            secured = attrs.evolve(bench, peer=started[0], hidden=started[1])
            async for measurement in _measure(secured, "over TLS", Settings(net=net)):
                yield measurement
        finally:
            factory.close()
