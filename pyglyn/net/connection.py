"""One connection to another node: the handshake's driver, then the channel's. Layer: net.

Both are asyncio protocols that read, feed a machine of ``pyglyn.dist``, write what is due and dispatch. When
the handshake is over, the transport changes hands from ``HandshakeDriver`` to ``Connection``.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

import attrs

from pyglyn import forks, loop_turn
from pyglyn.dist import (
    Acceptor,
    Buffer,
    Channel,
    DistFlags,
    HandshakeComplete,
    Initiator,
    PeerSilent,
    ProtocolBroken,
    TickReceived,
)
from pyglyn.errors import HandshakeError, TlsError
from pyglyn.net import tls, wire
from pyglyn.net.settings import NetSettings
from pyglyn.net.transport import (
    READ_SIZE,
    explain,
    no_delay,
    number_for_writing,
    read_in_small_pieces,
    write_through,
)
from pyglyn.patience import Patience, after_reading

if TYPE_CHECKING:
    from pyglyn.dist.channel import Messages
    from pyglyn.dist.control import Control, RegSend, Send
    from pyglyn.dist.handshake import Event as HandshakeEvent
    from pyglyn.etf import Pid

logger = logging.getLogger("pyglyn.net")

LINGER_S = 2.0
"""How long a closed connection may take to get rid of what is written."""

LARGE_READ_SIZE = 256 * 1024
"""Bytes read in one turn of the event loop while large messages come, of which these are a few fragments."""

A_TURN = 64
"""Packets of a peer that are taken in one turn of the event loop; messages alike are one. A read brings some
two hundred: monitors, links or calls, of some microseconds each."""

WRITTEN_A_TURN = 1024 * 1024
"""Bytes written to a peer in one turn of the event loop: some tenths of a millisecond."""

_FEW_PACKETS = 4

_COPY_BELOW = 16 * 1024
"""Pieces smaller than this are joined before they are written, larger ones are written as they are."""
_MANY_PIECES = 64
"""Fewer are written in one system call without being joined."""


@attrs.frozen(kw_only=True)
class Traffic:
    """What has gone over a connection, and what has not yet.

    Attributes:
        received_bytes, sent_bytes: since the handshake, as handed to and by the socket.
        received: packets, ticks included.
        sent: messages.
        queued_bytes: not yet handed to the socket.
        unwritten_bytes: handed to the socket, which has not taken them.
    """

    received_bytes: int
    received: int
    sent_bytes: int
    sent: int
    queued_bytes: int
    unwritten_bytes: int


class HandshakeDriver(asyncio.Protocol):
    """Run one handshake over one transport; ``on_event`` and ``on_failure`` say how it goes.

    ``on_failure`` is called at most once, not after the handshake is complete, and not after ``abort``.

    Attributes:
        machine: the side of the handshake that is ours.
        order: connections that began later have a higher one.
        heard: whether a byte has come from the peer.
        closed_by_peer: whether the connection ended because the peer closed it.
    """

    def __init__(
        self,
        machine: Initiator | Acceptor,
        settings: NetSettings,
        order: int,
        on_event: Callable[[HandshakeDriver, HandshakeEvent], None],
        on_failure: Callable[[HandshakeDriver, HandshakeError], None],
        tls: tuple[ssl.SSLContext, str | None] | None = None,
    ) -> None:
        self.machine = machine
        self._tls = tls
        self._tls_task: asyncio.Task[None] | None = None
        self._secured = False
        self._early = b""
        self.order = order
        self.transport: asyncio.Transport | None = None
        self.peer_address = "?"
        self.heard = False
        self.closed_by_peer = False
        self._settings = settings
        self._on_event = on_event
        self._on_failure = on_failure
        self._timer: Patience | None = None
        self._over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, or with TLS begin when its handshake is over."""
        self.transport = cast(asyncio.Transport, transport)  # by what it does: uvloop's is no subclass
        forks.keep_transport(self.transport)
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self.peer_address = f"{peer[0]}:{peer[1]}"
        if self._over:  # aborted while it was connecting
            self.transport.abort()
            return
        no_delay(self.transport)
        if self._tls is not None:
            transport.pause_reading()  # type: ignore[attr-defined]
            self._tls_task = asyncio.get_running_loop().create_task(self._start_tls(*self._tls))
            return
        read_in_small_pieces(self.transport)
        self._restart_timer()
        self._flush()

    async def _start_tls(self, context: ssl.SSLContext, host: str | None) -> None:
        assert self.transport is not None
        peer = self.machine.peer_name
        try:
            started = await tls.start_tls(
                self.transport, self, context, timeout_s=self._settings.setup_timeout_s, host=host
            )
        except (OSError, ssl.SSLError) as error:
            self.heard = isinstance(error, ssl.SSLError | TimeoutError)
            self.closed_by_peer = not self.heard
            self._fail(TlsError(tls.explain_tls(error, peer)))
            return
        self.transport = started
        self._secured = True
        if self._over:
            started.abort()
            return
        self._restart_timer()
        self._flush()
        if self._early:
            self.data_received(self._early)

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        self.heard = True
        if self._tls_task is not None and not self._secured:
            self._early += data  # what is written now would go out as it is
            return
        self._run(lambda: self.machine.receive_data(data))

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        forks.shut_down_transport(self.transport)
        if self._over:
            return
        if self._tls_task is not None and not self._secured:
            return  # that task is told
        if isinstance(exc, ssl.SSLError):
            self._fail(TlsError(tls.explain_tls(exc, self.machine.peer_name)))
            return
        if exc is not None and not isinstance(exc, ConnectionError):
            self._fail(HandshakeError(f"the connection broke during the handshake: {exc}"))
            return
        self.closed_by_peer = True
        try:
            self.machine.receive_eof()
        except HandshakeError as error:
            self._fail(error)

    def answer(self, call: Callable[[], list[HandshakeEvent]]) -> None:
        """Call a ``send_…`` method of the machine, write what it wants written and dispatch its events."""
        self._run(call)

    def _run(self, call: Callable[[], list[HandshakeEvent]]) -> None:
        try:
            events = call()
        except HandshakeError as error:
            self._flush()
            self._fail(error)
            return
        self._flush()
        for event in events:
            if self._over:
                return
            self._restart_timer()
            if isinstance(event, HandshakeComplete):
                self._finish()
            self._on_event(self, event)

    def _flush(self) -> None:
        data = self.machine.data_to_send()
        if data and self.transport is not None:
            self.transport.write(data)

    def _restart_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = Patience(self._settings.setup_timeout_s, self._timed_out)

    def _timed_out(self) -> None:
        self._fail(
            HandshakeError(
                f"{self.machine.peer_name} did not answer the handshake "
                f"within {self._settings.setup_timeout_s:g} s"
            )
        )

    def _fail(self, error: HandshakeError) -> None:
        if not self._over:
            self.close()
            self._on_failure(self, error)

    def _finish(self) -> None:
        self._over = True
        if self._timer is not None:
            self._timer.cancel()

    def close(self) -> None:
        """End the attempt without a call of ``on_failure``; what is written still goes out."""
        self._finish()
        if self.transport is not None and self._tls is not None and isinstance(self.machine, Initiator):
            self.transport.abort()  # it has nothing more to say, and TLS would wait for the peer's goodbye
        elif self.transport is not None:
            self.transport.close()
            asyncio.get_running_loop().call_later(LINGER_S, self.transport.abort)


OnMessage: TypeAlias = "Callable[[Connection, Control, bytes | memoryview | None], None]"
OnMessages: TypeAlias = "Callable[[Connection, Send | RegSend, list[bytes]], bool]"
"""Takes messages with the same control message; False for each of them to be given to ``on_message``."""


class Inlet(Protocol):
    """Takes what a read begins with, if it is what nearly all is; see ``pyglyn.node.inlet``.

    Attributes:
        taken: bytes that were taken last, also where that failed: then the last frame was taken.
        frames, runs: how many that were; messages with one control message behind each other are one run.
    """

    taken: int
    frames: int
    runs: int

    def take(self, data: bytes | bytearray | memoryview, size: int, most: int, /) -> int:
        """Take frames off the front of so many bytes, at most so many runs; returns where the next begins."""
        ...


class Connection(asyncio.BufferedProtocol):
    """An established connection to a node.

    The callbacks are called synchronously from the event loop: ``on_message`` for each message in the
    order of arrival, or ``on_messages`` for many at once, ``on_busy`` when the queue passes the limit upwards
    (True) and when it is half empty again (False), ``on_down`` once, at the very end.

    Attributes:
        name: the other node.
        creation: its incarnation.
        flags: what both sides offered.
        hidden: whether one of the two is a hidden node.
        peer_hidden: whether the other one is.
        busy: whether too much is queued; whoever sends should wait.
        down_reason: why it was closed, in words; empty while it is up.
    """

    # What `_hot` in C looks at has places of its own.
    __slots__ = (
        "__dict__",
        "__weakref__",
        "_buffer",
        "_busy_limit",
        "_channel",
        "_closed",
        "_flush_due",
        "_in_order",
        "_inlet",
        "_received_bytes",
        "_sent",
        "_sent_bytes",
        "_transport",
        "_turn",
        "_writable",
        "_write_buffer",
        "busy",
    )

    def __init__(
        self,
        complete: HandshakeComplete,
        order: int,
        local_name: str,
        settings: NetSettings,
        on_message: OnMessage,
        on_down: Callable[[Connection, str], None],
        on_busy: Callable[[Connection, bool], None],
        on_messages: OnMessages | None = None,
    ) -> None:
        self.name = complete.name
        self.creation = complete.creation
        self.flags = complete.flags
        self.hidden = DistFlags.PUBLISHED not in complete.flags
        self.peer_hidden = complete.peer_hidden
        self.order = order
        self.busy = False
        self._settings = settings
        self._busy_limit, self._write_buffer = settings.busy_limit, settings.write_buffer
        self._on_message = on_message
        self._on_messages = on_messages
        self._on_down = on_down
        self._on_busy = on_busy
        self._turn = loop_turn.current()
        self._loop = self._turn.loop
        self._channel = Channel(
            complete.flags,
            self._loop.time(),
            settings.channel,
            local_node=local_name,
            peer_node=complete.name,
        )
        self._send = self._channel.send
        self._logged = wire.is_logged()
        if self._logged:
            self._on_messages = None
            self._on_message = wire.logging_received(on_message)
            self._send = wire.logging_sent(self.name, self._send)
        self._trailing = complete.trailing_data
        self._transport: asyncio.Transport | None = None
        self._number = -1  # of the socket, where it is written to without the transport
        self._left: list[Buffer] = []  # what it has not taken; then the transport has what is before that
        self._gone = asyncio.Event()
        self._buffer = memoryview(bytearray(READ_SIZE))
        self._writable = True
        self._flush_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._held: deque[Messages] = deque()  # received, but reading is paused
        self._rest: bytes | memoryview | None = None  # read, and for the next turn; from _rest_at on
        self._rest_at = 0
        self._resuming = False
        self._inlet: Inlet | None = None
        self._in_order = True  # nothing is under way that a read would be behind
        self._closed = False
        self._received_bytes = len(complete.trailing_data)
        self._sent_bytes = self._sent = 0
        self.down_reason = ""

    def __repr__(self) -> str:
        state = "closed" if self._closed else "up"
        return f"<Connection to {self.name} ({state})>"

    def start(self, transport: asyncio.Transport) -> None:
        """Take the transport over from the handshake; messages that came along are dispatched."""
        if self._closed:
            transport.abort()
            return
        self._transport = transport
        transport.set_protocol(self)
        self._number = number_for_writing(transport)
        transport.set_write_buffer_limits(self._settings.write_buffer if self._number < 0 else 0)
        self._schedule_tick()
        if self._trailing:
            trailing, self._trailing = self._trailing, b""
            self.receive(trailing)

    # --- for the node --------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether the connection is gone: nothing is sent and nothing dispatched any more."""
        return self._closed

    @property
    def gone(self) -> bool:
        """Whether the socket is closed too."""
        return self._gone.is_set()

    @property
    def queued_bytes(self) -> int:
        """Bytes that are not written to the socket yet."""
        return self._channel.queued_bytes + self._unwritten_bytes()

    def _unwritten_bytes(self) -> int:
        if self._transport is None:
            return 0
        return self._transport.get_write_buffer_size() + sum(map(len, self._left))

    @property
    def traffic(self) -> Traffic:
        """How much has gone over the connection so far."""
        return Traffic(
            received_bytes=self._received_bytes,
            received=self._channel.packets,
            sent_bytes=self._sent_bytes,
            sent=self._sent,
            queued_bytes=self._channel.queued_bytes,
            unwritten_bytes=self._unwritten_bytes(),
        )

    def send(
        self, control: Control, payload: Sequence[Buffer] | None = None, *, sender: Pid | None = None
    ) -> None:
        """Queue a message; it is written when the event loop turns, or before. See ``Channel.send``.

        Nothing is refused for the length of the queue: look at ``busy``.

        Raises:
            LocalProtocolError: the connection is closed, or the peer cannot be told this.
            EncodeError: a field of the control message is no term.
        """
        self._send(control, payload, sender=sender)
        self._queued(1)

    def send_many(self, control: Send | RegSend, payloads: list[bytes]) -> bool:
        """Queue messages that have the same control message; False where each is for ``send``.

        Raises:
            LocalProtocolError: the connection is closed.
        """
        if self._logged or not self._channel.send_many(control, payloads):
            return False
        self._queued(len(payloads))
        return True

    def head_of(self, control: Send | RegSend | None) -> bytes | None:
        """What frames for ``send_frame`` begin with; None where messages are for ``send``.

        Args:
            control: None for messages to aliases, each with a control message of its own behind that.

        Raises:
            LocalProtocolError: the connection is closed.
        """
        return None if self._logged else self._channel.head_of(control)

    @property
    def longest_frame(self) -> int:
        """Bytes behind the length that a frame may have."""
        return self._channel.settings.fragment_size

    def send_frame(self, frame: bytes) -> bool:
        """Queue a message that `etf.pack_frame` has made; False where it is for ``send``."""
        channel, queue = self._channel, self._channel.queue
        if self.busy or channel.closed or not queue.add_ready(frame):
            return False
        self._sent += 1
        if not self._flush_due and self._writable:
            self._turn.at_end(self._flush)
            self._flush_due = True
        if queue.size >= self._busy_limit:
            self._be_busy()
        return True

    def _queued(self, count: int) -> None:
        self._sent += count
        self._flush_soon()
        if not self.busy and self._channel.queue.size >= self._busy_limit:
            self._be_busy()

    def _be_busy(self) -> None:
        self.busy = True
        self._on_busy(self, True)

    def put_large_messages(self, room_for: Callable[[Control, int], memoryview | None]) -> None:
        """Have a function say where a large message is put together; see ``Channel.room_for``."""
        self._channel.room_for = room_for

    def put_inlet(self, make: Callable[[bytes, dict[bytes, Any]], Inlet | None]) -> None:
        """Have what each read begins with taken by what this makes, of ``Channel.known``."""
        if not self._logged and self._channel.known is not None:
            self._inlet = make(*self._channel.known)

    def pause_reading(self) -> None:
        """Stop dispatching and reading, until ``resume_reading``: the peer will have to wait."""
        self._channel.reading = self._in_order = False
        if self._transport is not None and not self._closed:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on after ``pause_reading``, with what was received but not dispatched first."""
        if self._channel.reading:
            return
        self._channel.reading = True
        self._resume_soon()

    def close(self, reason: str) -> None:
        """Close the connection; what is queued is still written, if the peer takes it soon.

        Args:
            reason: in words, for ``on_down``.
        """
        if self._closed:
            return
        transport = self._transport
        if transport is None or self._channel.closed:
            self._down(reason)
            return
        self._loop.call_later(LINGER_S, transport.abort)
        if self._number < 0:
            self._write_queued(sys.maxsize)
            self._write(self._channel.data_to_send(self._settings.busy_limit))
            transport.close()
            self._down(reason)
            return
        queued = _few(self._channel.data_to_send(sys.maxsize))
        self._sent_bytes += sum(map(len, queued))
        left = [*self._left, *queued]
        transport.pause_reading()
        self._down(reason)
        self._left = left
        if self._writable:
            self._write_left()  # else when the socket takes more

    async def wait_closed(self) -> None:
        """Wait until the socket is closed, after ``close``."""
        await self._gone.wait()

    # --- the socket's side ---------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        """Say where, and so how much, to read."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read; where it is little of something large, the next read may be larger."""
        self._received_bytes += nbytes
        packets = self._channel.packets
        began = self._turn.begin()
        try:
            inlet = self._inlet
            at = 0 if inlet is None or not self._in_order else self._take_first(inlet, nbytes)
            if at < nbytes:
                self._receive_rest(at, nbytes)
        finally:
            if began:
                self._turn.end()
        packets = self._channel.packets - packets
        size = len(self._buffer)
        if nbytes == size < LARGE_READ_SIZE and packets <= _FEW_PACKETS:
            self._buffer = memoryview(bytearray(LARGE_READ_SIZE))
        elif size > READ_SIZE and (nbytes < READ_SIZE or packets >= A_TURN):
            self._buffer = memoryview(bytearray(READ_SIZE))

    def _take_first(self, inlet: Inlet, nbytes: int) -> int:
        """Have the inlet take what was read, as far as it does; returns where to go on in the buffer."""
        try:
            at = inlet.take(self._buffer, nbytes, A_TURN - 1)
        except Exception as error:
            self._say_not_handled(error)
            at = inlet.taken
        self._channel.count(inlet.frames)
        return at

    def _receive_rest(self, at: int, nbytes: int) -> None:
        """Take what was read from there on, which is not for the inlet."""
        data, inlet = self._buffer[at:nbytes], self._inlet
        most = A_TURN - inlet.runs if at and inlet is not None else A_TURN
        # Cutting bytes is the quicker thing.
        self.receive(data if nbytes > READ_SIZE else bytes(data), most=most)

    def receive(self, data: bytes | memoryview, at: int = 0, most: int = A_TURN) -> None:
        """Dispatch what came from the peer; others have their turn before what is more than so many packets.

        Nothing is read before all of it was taken: it stays where it is, in the buffer that was read into.
        """
        channel = self._channel
        events = channel.receive_batch(data, at, most)
        if channel.taken < len(data):
            self._rest, self._rest_at = data, channel.taken
            self._go_on_next_turn()
        for event in events:
            if self._closed:
                return
            if type(event) is tuple:
                if self._held or not channel.reading:
                    self._held.append(event)
                    continue
                control: Control = event[0]
                payload: Any = event[1]
                try:  # as `_dispatch`
                    if type(payload) is not list:
                        self._on_message(self, control, payload)
                    elif self._on_messages is None or not self._on_messages(self, control, payload):  # type: ignore[arg-type]
                        self._dispatch_each(control, payload)
                except Exception as error:
                    self._say_not_handled(error)
            elif isinstance(event, ProtocolBroken):
                logger.warning("closing the connection to %s: %s", self.name, event.error)
                self._abort(f"protocol error: {event.error}")
            elif isinstance(event, TickReceived) and self._channel.queued_bytes:
                self._flush_soon()  # the answer
        self._judge_order()

    def _judge_order(self) -> None:
        """Note whether the next read comes behind nothing that is still to be taken."""
        channel = self._channel
        self._in_order = (
            channel.reading
            and channel.between_packets
            and not self._held
            and self._rest is None
            and not self._closed
        )

    def _dispatch(self, control: Control, payload: bytes | memoryview | list[bytes] | None) -> None:
        """Dispatch a message, or those with the same control message; those behind a pause are held."""
        try:
            if not isinstance(payload, list):
                self._on_message(self, control, payload)
                return
            if self._on_messages is not None and self._on_messages(self, control, payload):  # type: ignore[arg-type]
                return
        except Exception as error:
            self._say_not_handled(error)
            return
        self._dispatch_each(control, payload)

    def _dispatch_each(self, control: Control, payload: list[bytes]) -> None:
        for index, each in enumerate(payload):
            if self._closed:
                return
            if not self._channel.reading or index == A_TURN:
                self._held.appendleft((control, payload[index:]))
                if self._channel.reading:
                    self._go_on_next_turn()
                return
            self._dispatch(control, each)

    def _say_not_handled(self, error: Exception) -> None:
        logger.error("what came from %s could not be handled", self.name, exc_info=error)

    def _go_on_next_turn(self) -> None:
        """Let others have their turn before the rest of what was read, and read nothing before that."""
        if self._transport is not None and not self._closed:
            self._transport.pause_reading()
        self._resume_soon()

    def _resume_soon(self) -> None:
        if not self._resuming:
            self._resuming = True
            self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        """Go on with what was received but not dispatched, then with what was read but not taken."""
        self._resuming = False
        began = self._turn.begin()
        try:
            while self._held:
                if self._closed or self._resuming or not self._channel.reading:
                    return
                self._dispatch(*self._held.popleft())
            if self._rest is not None and not self._closed and not self._resuming and self._channel.reading:
                rest, self._rest = self._rest, None
                self.receive(rest, self._rest_at)
        finally:
            if began:
                self._turn.end()
        self._judge_order()
        if self._transport is not None and not self._closed and not self._resuming and self._channel.reading:
            self._transport.resume_reading()

    def _flush_soon(self) -> None:
        if not self._flush_due and self._writable:
            self._turn.at_end(self._flush)
            self._flush_due = True

    def _flush(self) -> None:
        """Write what is queued, as far as the socket takes it; of much the rest in the next turn."""
        self._flush_due = False
        if self._closed:
            return
        if self._write_queued(WRITTEN_A_TURN):
            self._loop.call_soon(self._flush)
            self._flush_due = True
        if self.busy:
            self._check_idle_queue()

    def _write_queued(self, most: int) -> bool:
        """Write about so many bytes, as far as the socket takes them; whether there are more for it."""
        channel, before = self._channel, self._sent_bytes
        while self._writable:
            pieces = channel.data_to_send(self._write_buffer)
            if not pieces:
                break
            self._write(pieces)
            if not channel.queue.size:
                break
            if self._sent_bytes - before >= most:
                return True
        return False

    def _write(self, pieces: list[Buffer]) -> None:
        transport, size = self._transport, sum(map(len, pieces))
        assert transport is not None
        self._sent_bytes += size
        if size < _COPY_BELOW:
            if size:
                transport.write(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        elif self._number >= 0:
            if len(pieces) > _MANY_PIECES:
                pieces = _few(pieces)
            self._left = write_through(transport, self._number, pieces, size)
        else:
            for piece in _few(pieces):
                transport.write(piece)

    def _check_idle_queue(self) -> None:
        if self.busy and self.queued_bytes <= self._settings.busy_limit // 2:
            self.busy = False
            self._on_busy(self, False)

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        if self._left:
            self._write_left()
        self._flush()

    def _write_left(self) -> None:
        """Write what is left, as far as the socket takes it; the last of it, where this was closed."""
        if self._transport is not None:
            self._left = write_through(self._transport, self._number, self._left, sum(map(len, self._left)))
            if self._closed and not self._left:
                self._loop.call_soon(self._transport.close)  # asyncio's must not be closed by whom it resumes

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        forks.shut_down_transport(self._transport)
        self._gone.set()
        self._left = []
        self._take_the_rest()
        if isinstance(exc, OSError):
            self._down(f"connection lost: {explain(exc)}")
        else:
            self._down("connection closed by the peer")
        self._transport = None  # TLS keeps 256 KiB for each connection, and where to put what it reads

    def _take_the_rest(self) -> None:
        """Dispatch what was read: it came before the end, whoever was to be spared of it."""
        self._writable = False
        while not self._closed and (self._held or self._rest is not None):
            self._channel.reading, self._resuming = True, False
            self._resume()

    # --- ticks and the end ---------------------------------------------------------------------

    def _schedule_tick(self) -> None:
        deadline = self._channel.next_deadline()
        if deadline is not None:
            self._timer = self._loop.call_at(deadline, after_reading, self._tick)

    def _tick(self) -> None:
        for event in self._channel.handle_timeout(self._loop.time()):
            assert isinstance(event, PeerSilent)
            logger.warning(
                "closing the connection to %s, which has been silent for %g s: it hangs, is cut off, "
                "or has a longer net_ticktime than this node",
                self.name,
                event.net_ticktime_s,
            )
            self._abort("net tick timeout")
            return
        self._flush()
        self._schedule_tick()

    def _abort(self, reason: str) -> None:
        if self._transport is not None:
            self._transport.abort()
        self._down(reason)

    def _down(self, reason: str) -> None:
        if self._closed:
            return
        self._closed, self._in_order = True, False
        self._inlet = None
        self.down_reason = reason
        self._channel.close()
        self._held.clear()
        self._left.clear()
        self._rest = None
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is None:
            self._gone.set()
        self._on_down(self, reason)


def _few(pieces: list[Buffer]) -> list[Buffer]:
    """The same bytes, small pieces joined."""
    few: list[Buffer] = []
    small: list[Buffer] = []
    for piece in pieces:
        if len(piece) < _COPY_BELOW:
            small.append(piece)
            continue
        if small:
            few.append(b"".join(small))
            small = []
        few.append(piece)
    if small:
        few.append(b"".join(small))
    return few
