"""Inputs that are nearly right, for everything that takes what others send; by hand for as long as one likes.

    python -m tests.fuzz.structured all --seconds 60        # or one of MACHINES; --seed, --count

Each machine is fed what its own protocol has, damaged in one place, cut or repeated. It may refuse by an error of
`pyglyn.errors`, and by nothing else; what it asks for or answers is at most `FACTOR` times as much as it was fed
(a few hundred things more are always allowed).
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import attrs

from pyglyn import etf
from pyglyn.dist import (
    RECOMMENDED,
    Acceptor,
    Channel,
    ChannelSettings,
    Initiator,
    LocalSide,
    ProtocolBroken,
    epmd,
)
from pyglyn.dist.channel import each_by_itself
from pyglyn.dist.flags import DistFlags
from pyglyn.errors import PyglynError, RemoteProtocolError
from pyglyn.etf import Atom, ImproperList, Limits, Pid, Reference, encode_bare
from pyglyn.glyn.subject import Codec
from pyglyn.groups.pg_state import PgState
from pyglyn.groups.syn_pg_state import SynGroups
from pyglyn.groups.syn_registry_state import SynRegistry
from pyglyn.node.calls import Caller
from pyglyn.node.link import FrameReader, FrameWriter, encode_request
from pyglyn.node.pending import Pending
from tests.fuzz.generate import Terms

OWN, PEER = "own@localhost", "peer@localhost"
SELF, THEM = Pid(OWN, 1, 0, 1), Pid(PEER, 1, 0, 7)
FACTOR: Final = 64
FREE: Final = 4096
CHAINED: Final = 40
"""So many inputs go to one machine, then there is a new one: what came before matters."""


class Inputs:
    """What is common to all: chance, terms, damage."""

    def __init__(self, seed: int) -> None:
        self.terms = Terms(seed)
        self.rng = self.terms.rng

    def damaged(self, data: bytes) -> bytes:
        """Bytes with something wrong with them, or not."""
        rng = self.rng
        changed = bytearray(data)
        for _ in range(rng.choice((0, 0, 1, 1, 2, 4))):
            if not changed:
                break
            at = rng.randrange(len(changed))
            match rng.randrange(5):
                case 0:
                    changed[at] = rng.randrange(256)
                case 1:
                    del changed[at : at + rng.choice((1, 2, 8))]
                case 2:
                    changed[at:at] = rng.randbytes(rng.choice((1, 2, 4)))
                case 3:
                    changed[at] ^= 1 << rng.randrange(8)
                case _:
                    changed[at : at + 4] = rng.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"))
        return bytes(changed)

    def wrong(self, term: Any) -> Any:
        """A term with one field, at any depth, replaced by another one, or nothing changed."""
        rng = self.rng
        if rng.random() < 0.3:
            return term
        if isinstance(term, (tuple, list)) and term and rng.random() < 0.8:
            at = rng.randrange(len(term))
            changed = [self.wrong(each) if n == at else each for n, each in enumerate(term)]
            return changed if isinstance(term, list) else tuple(changed)
        return self.terms.term(2)

    def pid(self) -> Pid:
        return Pid(self.rng.choice((PEER, PEER, PEER, OWN, "x@y")), self.rng.randrange(1, 6), 0, 7)

    def name(self) -> Any:
        return self.rng.choice((Atom("g"), b"g", 1, 1.0, (1, b"x"), [b"g"], self.terms.term(1)))

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """The same bytes, as they may come."""
        while data:
            size = self.rng.choice((1, 3, 50, 1000, len(data)))
            yield data[:size]
            data = data[size:]


Feed = Callable[[], "tuple[int, int]"]
"""Feeds one input; how much went in and how much came out, in bytes, or effects."""


def _seen(event: Any) -> tuple[Any, ...]:
    """What an event says, for comparison with another one."""
    payload = getattr(event, "payload", None)
    whole = None if payload is None else bytes(payload)
    return type(event), repr(getattr(event, "control", None)), whole, str(getattr(event, "error", ""))


def channel(inputs: Inputs) -> Feed:
    """Packets of a connection, to one machine as bytes, to another as views of a buffer that is read into again."""
    flags = inputs.rng.choice((RECOMMENDED, RECOMMENDED & ~DistFlags.FRAGMENTS))
    settings = ChannelSettings(
        max_packet_size=1 << 20,
        max_message_size=1 << 20,
        control_limits=Limits(elements=100_000, size=1 << 20),
    )
    machine, other = (Channel(flags, 0.0, settings, local_node=OWN, peer_node=PEER) for _ in range(2))
    buffer = bytearray(1 << 20)
    fragmented = DistFlags.FRAGMENTS in flags

    def control() -> Any:
        pid, ref = inputs.pid(), Reference(PEER, 7, (inputs.rng.randrange(9), 0, 0))
        shapes = (
            (1, pid, SELF), (3, pid, SELF, Atom("x")), (22, pid, SELF), (6, pid, Atom(""), Atom("rex")),
            (7, pid, SELF), (19, pid, SELF, ref), (20, pid, Atom("rex"), ref), (21, pid, SELF, ref, Atom("x")),
            (24, pid, SELF), (26, pid, SELF), (28, pid, SELF, ref), (29, ref, pid, pid, (Atom("m"), Atom("f"), 1), []),
            (31, ref, pid, 0, pid), (33, pid, ref), (35, 1, pid, SELF), (36, 1, pid, SELF), (37, 0, pid, SELF, []),
        )  # fmt: skip
        return inputs.wrong(inputs.rng.choice(shapes))

    def packet() -> bytes:
        rng = inputs.rng
        head = encode_bare(control())
        body = b"" if rng.random() < 0.2 else encode_bare(inputs.terms.term(3))
        if rng.random() < 0.03:
            body = encode_bare(bytes(rng.choice((60_000, 70_000, 300_000))) + inputs.rng.randbytes(50))
        if fragmented and rng.random() < 0.4:
            sequence, number = rng.randrange(4), rng.choice((1, 2, 3, 1 << 40))
            kind = rng.choice((69, 69, 70))
            front = b"\x83" + bytes((kind,)) + sequence.to_bytes(8) + number.to_bytes(8)
            return front + (b"\0" if kind == 69 else b"") + head + body
        return rng.choice((b"\x83D\0", b"\x83D\0", b"p\x83", b"\x83D\1\0")) + head + body

    begun: dict[int, tuple[int, list[bytes]]] = {}  # messages in fragments: how many are to come, and what

    def right() -> bytes:
        """A packet as it should be: a message, or a fragment of one of several that are under way."""
        rng = inputs.rng
        if begun and rng.random() < 0.6:
            sequence = rng.choice(list(begun))
            left, parts = begun[sequence]
            if left == 1:
                del begun[sequence]
            else:
                begun[sequence] = left - 1, parts
            return b"\x83F" + sequence.to_bytes(8) + left.to_bytes(8) + parts[-left]
        size = rng.choice((0, 10, 3_000, 70_000, 200_000)) if rng.random() < 0.1 else 10
        whole = encode_bare((22, THEM, SELF)) + encode_bare([rng.randbytes(size), inputs.terms.term(2)])
        if not fragmented or rng.random() < 0.5:
            return b"\x83D\0" + whole
        sequence, count = rng.randrange(1 << 40), rng.randrange(2, 6)
        cuts = sorted(rng.randrange(len(whole)) for _ in range(count - 1))
        parts = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
        begun[sequence] = count - 1, parts
        return b"\x83E" + sequence.to_bytes(8) + count.to_bytes(8) + b"\0" + parts[0]

    def feed() -> tuple[int, int]:
        if inputs.rng.random() < 0.9:
            data = right()
            data = len(data).to_bytes(4) + data
        else:
            data = inputs.damaged(packet())
            if inputs.rng.random() < 0.95:
                data = len(data).to_bytes(4) + data
        came = 0
        events: list[Any] = []
        viewed: list[Any] = []
        for piece in inputs.pieces(data):
            events += machine.receive_data(piece)
            buffer[: len(piece)] = piece
            other.taken = 0
            while other.taken < len(piece):
                taken = other.receive_batch(
                    memoryview(buffer)[: len(piece)], other.taken, inputs.rng.choice((1, 2, 64))
                )
                viewed += each_by_itself(taken)
            buffer[: len(piece)] = b"\xa5" * len(piece)
        assert list(map(_seen, viewed)) == list(map(_seen, events))
        for event in events:
            if isinstance(event, ProtocolBroken):
                raise RemoteProtocolError("broken")
            came += len(getattr(event, "payload", None) or b"") + 1
        came += machine.queued_bytes
        machine.data_to_send()
        return len(data), came

    return feed


def handshake(inputs: Inputs) -> Feed:
    """Both sides of a handshake, and an old node's."""
    rng = inputs.rng
    side = LocalSide(name=OWN, creation=1, flags=RECOMMENDED, cookie=b"c")
    other = LocalSide(name=PEER, creation=7, flags=RECOMMENDED, cookie=rng.choice((b"c", b"d")))
    if rng.random() < 0.5:
        machine: Any = Acceptor(side, 5)
        partner: Any = Initiator(other, OWN, 6)
    else:
        machine, partner = Initiator(side, PEER, 5), Acceptor(other, 6)
    machine.data_to_send() if isinstance(machine, Acceptor) else partner.receive_data(machine.data_to_send())

    def step(one: Any, data: bytes) -> None:
        for event in one.receive_data(data):
            if type(event).__name__ == "NameReceived":
                one.send_status(rng.choice(("ok", "ok_simultaneous", "alive", "nok")))
            elif type(event).__name__ == "AliveReceived":
                one.send_alive(rng.random() < 0.5)

    def feed() -> tuple[int, int]:
        data = partner.data_to_send()
        size = rng.randrange(1, 300)
        data = inputs.damaged(
            data or (size.to_bytes(2) + rng.choice((b"n", b"N", b"s", b"r", b"a")) + rng.randbytes(size - 1))
        )
        for piece in inputs.pieces(data):
            step(machine, piece)
        out = machine.data_to_send()
        if out:
            step(partner, out)
        return len(data), len(out)

    return feed


def of_epmd(inputs: Inputs) -> Feed:
    """Requests to the EPMD and answers of one."""
    rng = inputs.rng
    entry = epmd.NodeEntry(name="x", port=4000)

    def feed() -> tuple[int, int]:
        decode, data = rng.choice(
            (
                (epmd.decode_alive2, epmd.encode_alive2(entry)[2:]),
                (epmd.decode_name, epmd.encode_port_please2("x")[2:]),
                (
                    lambda answer: epmd.decode_alive2_answer(answer, "x"),
                    epmd.encode_alive2_answer(entry, 0, 3),
                ),
                (epmd.decode_port2_answer, epmd.encode_port2_answer(entry)),
                (epmd.decode_names_answer, epmd.encode_names_answer(4369, [entry] * 3)),
            )
        )
        data = inputs.damaged(data)
        decode(data)
        return len(data), 0

    return feed


def link(inputs: Inputs) -> Feed:
    """Frames between hub and worker."""
    from pyglyn.dist.control import Link, RegSend, Send

    reader, writer = FrameReader(), FrameWriter()

    def feed() -> tuple[int, int]:
        rng = inputs.rng
        term = encode_bare(inputs.terms.term(3))
        data = rng.choice(
            (
                b"".join(writer.write(Send(THEM, SELF), None, [term])),
                b"".join(writer.write(RegSend(THEM, Atom("n")), PEER, [term])),
                b"".join(writer.write(Link(THEM, SELF), None, None)),
                encode_request(inputs.wrong((Atom("reply"), Reference(OWN, 1, (1, 2, 3)), 1))),
            )
        )
        data = inputs.damaged(data)
        if int.from_bytes(data[:4]) > 1 << 20:
            data = b"\0\0" + data[2:]  # frames are as large as they say: the other end has shown the token
        came = sum(
            len(f.payload or b"") + 1 for piece in inputs.pieces(data) for f in reader.receive_data(piece)
        )
        return len(data), came

    return feed


def _scope(inputs: Inputs, handle: Callable[[Any], list[Any]], shapes: Callable[[], tuple[Any, ...]]) -> Feed:
    def feed() -> tuple[int, int]:
        term = inputs.wrong(inputs.rng.choice(shapes()))
        encoded = encode_bare(term)
        effects = handle(etf.decode_bare(encoded)[0])
        return len(encoded), len(effects)

    return feed


def pg(inputs: Inputs) -> Feed:
    """Messages to a scope of ``pg``."""
    count = iter(range(1, 1 << 30))
    state = PgState(SELF, "s", lambda: Reference(OWN, 1, (next(count), 0, 0)))
    state.handle_node_up(PEER)
    state.monitor_scope(SELF)

    def shapes() -> tuple[Any, ...]:
        pids = [inputs.pid() for _ in range(inputs.rng.choice((0, 1, 3, 20)))]
        call = (inputs.pid(), Reference(PEER, 7, (1, 2, 3)))
        names = [inputs.name() for _ in range(3)]
        return (
            (Atom("discover"), THEM), (Atom("discover"), THEM, 1),
            (Atom("$gen_cast"), (Atom("sync"), THEM, [(name, pids) for name in names])),
            (Atom("join"), THEM, names[0], pids), (Atom("leave"), THEM, pids, names),
            (Atom("$gen_call"), call, (Atom("monitor"), names[0])), (Atom("$gen_call"), call, Atom("monitor")),
            (Atom("$gen_call"), call, (Atom("join_local"), names[0], pids)),
        )  # fmt: skip

    return _scope(inputs, lambda term: state.handle_message(term, 1.0), shapes)


def _syn(inputs: Inputs, state: Any, what: str) -> Feed:
    state.handle_node_up(PEER)
    three = Atom("3.0")

    def shapes() -> tuple[Any, ...]:
        pid, name, meta = inputs.pid(), inputs.name(), inputs.terms.term(1)
        time_ns = inputs.rng.randrange(10)
        call = (inputs.pid(), Reference(PEER, 7, (1, 2, 3)))
        joined, left = (
            ("sync_join", "sync_leave") if what == "groups" else ("sync_register", "sync_unregister")
        )
        on_node = "join_or_update_on_node" if what == "groups" else "register_or_update_on_node"
        return (
            (three, Atom("discover"), THEM), (three, Atom("ack_sync"), THEM, [(name, pid, meta, time_ns)] * 2),
            (three, Atom(joined), name, pid, meta, time_ns, Atom("normal")),
            (three, Atom(left), name, pid, meta, Atom("normal")),
            (Atom("$gen_call"), call, (three, Atom(on_node), Atom(PEER), name, SELF, meta)),
            (Atom("$gen_call"), call, (three, Atom("subcluster_nodes"))),
        )  # fmt: skip

    return _scope(inputs, lambda term: state.handle_message(term, 1.0, 5), shapes)  # type: ignore[no-any-return]


def syn_groups(inputs: Inputs) -> Feed:
    """Messages to the groups of a scope of ``syn``."""
    return _syn(inputs, SynGroups(SELF, "s"), "groups")


def syn_registry(inputs: Inputs) -> Feed:
    """Messages to the names of a scope of ``syn``."""
    return _syn(inputs, SynRegistry(SELF, "s"), "names")


@attrs.frozen
class Sold:
    """An event as applications have them."""

    item: str
    count: int
    tags: list[str]
    price: float | None


def messages(inputs: Inputs) -> Feed:
    """What Glyn's subscribers and actors get: events, calls, answers, as terms of any kind."""
    from pyglyn import gleam

    codec: Codec[Any] = Codec(gleam.decoder(Sold), lambda term, error: None, "fuzz")
    pending = Pending()

    def feed() -> tuple[int, int]:
        ref = Reference(OWN, 1, (1, 2, 3))
        event = (Atom("sold"), b"x", 3, [b"a"], (Atom("some"), 1.5))
        caller = (THEM, ImproperList((Atom("alias"),), ref))
        term = inputs.wrong(
            inputs.rng.choice((event, (ref, event), (Atom("$gen_call"), caller, event), caller))
        )
        codec.decode(term)
        pending.answer(term)
        Caller.from_term(term)
        text = etf.text.format(term, limit=500)
        return len(encode_bare(term)), len(text)

    return feed


def node(inputs: Inputs) -> Feed:
    """What peers, workers and processes do, to methods in Python and in C; see ``tests.fuzz.hot``."""
    from tests.fuzz import hot

    return hot.node(inputs)


def collected(inputs: Inputs) -> Feed:
    """The same in C, while the garbage collector takes away whatever is looked at."""
    from tests.fuzz import hot

    return hot.collected(inputs)


def turns(inputs: Inputs) -> Feed:
    """Calls of turns, waiters and mailboxes, in Python and in C; see ``tests.fuzz.turns``."""
    from tests.fuzz import turns as calls

    return calls.turns(inputs)


MACHINES: dict[str, Callable[[Inputs], Feed]] = {
    "channel": channel,
    "handshake": handshake,
    "epmd": of_epmd,
    "link": link,
    "pg": pg,
    "syn_groups": syn_groups,
    "syn_registry": syn_registry,
    "messages": messages,
    "node": node,
    "collected": collected,
    "turns": turns,
}
IN_C: Final = ("node", "collected", "turns")
"""Those that take ``pyglyn.node._hot``."""


def run(name: str, seed: int, count: int, seconds: float | None = None) -> tuple[int, int]:
    """Feed a machine; how many inputs it took, and how many of them it refused.

    Raises:
        AssertionError: an input is answered by far too much, or by an error of another kind.
    """
    inputs = Inputs(seed)
    over = None if seconds is None else time.monotonic() + seconds
    refused = done = 0
    while done < count and (over is None or time.monotonic() < over):
        feed = MACHINES[name](inputs)
        fed = FREE
        for _ in range(CHAINED):
            done += 1
            try:
                taken, given = feed()
            except PyglynError:
                refused += 1
                break
            except Exception as error:
                raise AssertionError(f"{name}, seed {seed}, input {done}: {error!r}") from error
            fed += FACTOR * taken - given  # what waited for its rest comes with that
            assert fed >= 0, f"{name}, seed {seed}, input {done}: {given} for {taken}"
        _end(feed)
    return done, refused


def _end(feed: Feed) -> None:
    """Have a machine let go of what it has, if it has anything."""
    end = getattr(feed, "end", None)
    if end is not None:
        end()


class Given(random.Random):
    """Chance that was given, as bytes; zeros behind them."""

    def __init__(self, data: bytes) -> None:
        super().__init__(0)
        self.data, self.at = data, 0

    def getrandbits(self, k: int, /) -> int:
        size = (k + 7) // 8
        piece = self.data[self.at : self.at + size].ljust(size, b"\0")
        self.at += size
        return int.from_bytes(piece) >> (8 * size - k)

    def random(self) -> float:
        return self.getrandbits(16) / 65536


def once(name: str, data: bytes) -> None:
    """Feed a machine as bytes choose, for libFuzzer."""
    inputs = Inputs(0)
    chance = inputs.rng = inputs.terms.rng = Given(data)
    feed = MACHINES[name](inputs)
    for _ in range(CHAINED):
        try:
            feed()
        except PyglynError:
            break
        if chance.at > len(data):
            break
    _end(feed)


def main() -> None:
    """Run by hand."""
    parser = argparse.ArgumentParser()
    parser.add_argument("machine", choices=["all", *MACHINES])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=1 << 60)
    parser.add_argument("--seconds", type=float)
    options = parser.parse_args()
    for name in MACHINES if options.machine == "all" else [options.machine]:
        done, refused = run(name, options.seed, options.count, options.seconds)
        sys.stdout.write(f"{name}: {done} inputs, {refused} refused\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
