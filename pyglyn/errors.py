"""Every public exception of pyglyn. Layer: the lowest; imports nothing of ours.

The tree::

    PyglynError
      EtfError              DecodeError(offset, tag) > TruncatedTerm, UnknownTag, LimitExceeded
                            EncodeError(value), TermSyntaxError(text, position)
      DistributionError     HandshakeError > NameRefused(status), MissingFlags(names), WrongCookie,
                              TlsError
                            EpmdError > EpmdUnreachable, EpmdNameTaken
                            DiscoveryError
                            LocalProtocolError (our caller's fault),
                            RemoteProtocolError (the peer's fault), NodeDisconnected(node, reason)
      ProcessError          NoProcess, CallTimeout, CallFailed(reason), NameTaken, NodeBusy,
                            WrongThread, CopiedNode
      RemoteError           BadRpc(reason), RemoteException(kind, reason, stack)
      GleamError            DecodeErrors(errors), ValueEncodeError(expected, found, path),
                            UnsupportedType
      GroupError            NotInGroup, RegistrationFailed
      SupervisionError      ChildStartError(child_id, reason), TreeEnded(tree, reason),
                            SpecificationError(reason), ForkUnsafe
      EventSourcingError    DomainError(error), InvalidHandlerResult, NonPositiveArgument,
                            EntityNotFound(aggregate_id), ActorTimeout(operation, timeout_ms),
                            NoOwner(service)
                            EventStoreError(text) > VersionConflict(aggregate_id, expected, actual),
                              CommandRepeated(command_id), AppendConditionFailed(condition, after),
                              StoreUnavailable(outcome_unknown), TransactionFailed, TransactionRolledBack,
                              EventEncodeError(value),
                              EventDecodeError(aggregate_id, sequence, payload, errors),
                              CheckpointConflict(query, expected, actual)

Fields are for programs, ``str()`` is for people. Constructors do not log, and no text ever holds a
cookie, a digest or a message body. Where OTP has an exit reason for the same event, the class carries
its name in ``reason``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol


class PyglynError(Exception):
    """The base of every exception of this package."""

    @property
    def with_notes(self) -> str:
        """The text, and what else may help: a failed connect names the command that finds out why."""
        return "; ".join((str(self), *getattr(self, "__notes__", ())))


# --- terms -----------------------------------------------------------------------------------------


class EtfError(PyglynError):
    """The external term format: reading, writing, or the text syntax."""


class DecodeError(EtfError, ValueError):
    """Bytes that are not a term.

    Attributes:
        offset: where in the input the offending byte is, counted from 0.
        tag: the number of the tag being read there, or None before any tag.
    """

    def __init__(self, message: str, *, offset: int = 0, tag: int | None = None) -> None:
        super().__init__(message)
        self.offset = offset
        self.tag = tag


class TruncatedTerm(DecodeError):
    """The input ends before the term does."""


class UnknownTag(DecodeError):
    """A tag byte that the external term format does not have, or does not allow here."""


class LimitExceeded(DecodeError):
    """A depth, count or size beyond the limits given by the caller."""


class EncodeError(EtfError, ValueError):
    """A Python value that is no term.

    Attributes:
        value: the offending (innermost) value.
    """

    def __init__(self, message: str, *, value: object = None) -> None:
        super().__init__(message)
        self.value = value


class TermSyntaxError(EtfError, ValueError):
    """Text that is not a term in Erlang syntax.

    Attributes:
        text: the whole input.
        position: the offending character, counted from 0.
    """

    def __init__(self, message: str, *, text: str = "", position: int = 0) -> None:
        super().__init__(message)
        self.text = text
        self.position = position


# --- distribution ----------------------------------------------------------------------------------


class DistributionError(PyglynError):
    """The distribution protocol, EPMD included."""


class HandshakeError(DistributionError, ConnectionError):
    """A connection between two nodes could not be set up; the text says why in one sentence."""


class NameRefused(HandshakeError):
    """The peer refused our node name.

    Attributes:
        status: the peer's word for it: ``not_allowed``, ``nok``, ``alive``, …
    """

    def __init__(self, message: str, *, status: str = "not_allowed") -> None:
        super().__init__(message)
        self.status = status


class MissingFlags(HandshakeError):
    """One side lacks capabilities that the other requires.

    Attributes:
        names: the missing flags, under their OTP names without ``DFLAG_``.
    """

    def __init__(self, message: str, *, names: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.names = names


class WrongCookie(HandshakeError):
    """The two nodes do not share a cookie."""


class TlsError(HandshakeError):
    """TLS with the peer came to nothing: only one of the two speaks it, or a certificate was not accepted."""


class EpmdError(DistributionError, ConnectionError):
    """EPMD cannot be reached, refused the name, or does not know the node."""


class EpmdUnreachable(EpmdError):
    """Nothing answers at EPMD's port."""


class NotEpmd(EpmdError):
    """Another program than EPMD answers at EPMD's port."""


class EpmdNameTaken(EpmdError):
    """A node of the same name is registered with EPMD already."""


class DiscoveryError(DistributionError):
    """Which nodes there are cannot be found out now, or not in this way."""


class LocalProtocolError(DistributionError):
    """A call that the protocol does not allow now: our own caller's fault."""


class RemoteProtocolError(DistributionError):
    """The peer broke the protocol; the connection has to go."""


class NodeDisconnected(DistributionError, ConnectionError):
    """The connection to a node is gone, or could not be had.

    Attributes:
        node: the node's name.
        cause: why, in words.
    """

    reason = "noconnection"

    def __init__(self, node: str, cause: str) -> None:
        super().__init__(f"no connection to {node}: {cause}")
        self.node = node
        self.cause = cause


# --- processes -------------------------------------------------------------------------------------


class ProcessError(PyglynError):
    """Processes, names and calls between them."""


class NoProcess(ProcessError, LookupError):
    """There is no such process, or no process of that name."""

    reason = "noproc"


class WrongThread(ProcessError, RuntimeError):
    """This was called from another thread than the one with the node's event loop.

    ``send``, ``cast`` and ``call`` work from every thread. For all else have the loop do it:
    ``asyncio.run_coroutine_threadsafe``, or ``loop.call_soon_threadsafe``.
    """


class CopiedNode(ProcessError, RuntimeError):
    """A node was used in a fork of its operating-system process, where it is a copy without connections.

    A child of a supervision tree that captured it is one. There, ``me`` does what the node would.
    """


class NameTaken(ProcessError, ValueError):
    """The name is registered already, or is not allowed."""

    reason = "badarg"


class NodeBusy(ProcessError, BlockingIOError):
    """Too much is queued for a node that does not take it off: the message was not sent."""


class CallTimeout(ProcessError, TimeoutError):
    """No reply came in time."""

    reason = "timeout"


class CallFailed(ProcessError):
    """The called process, or its node, is gone.

    Attributes:
        reason: the exit reason as a term: ``Atom("noproc")``, ``(Atom("nodedown"), Node)``, …
    """

    def __init__(self, message: str, *, reason: Any) -> None:
        super().__init__(message)
        self.reason = reason


class RemoteError(PyglynError):
    """A function called on another node failed there."""


class BadRpc(RemoteError):
    """``{badrpc, Reason}``: what ``rpc:call`` returns for any failure.

    Attributes:
        reason: the term.
    """

    def __init__(self, message: str, *, reason: Any) -> None:
        super().__init__(message)
        self.reason = reason


class RemoteException(RemoteError):
    """The called function raised.

    Attributes:
        kind: ``error``, ``exit`` or ``throw``.
        reason: the raised term.
        stack: the stack trace as a term (a list), empty for exits and throws.
    """

    def __init__(self, message: str, *, kind: str, reason: Any, stack: Any = ()) -> None:
        super().__init__(message)
        self.kind = kind
        self.reason = reason
        self.stack = stack


# --- above -----------------------------------------------------------------------------------------


class GleamError(PyglynError, ValueError):
    """Python values that do not fit Gleam values, or the reverse."""


class Misfit(Protocol):
    """What ``pyglyn.gleam.decode.DecodeError`` records: one thing that did not fit, and where."""

    @property
    def expected(self) -> str: ...

    @property
    def found(self) -> str: ...

    @property
    def path(self) -> tuple[str, ...]: ...


def _where(path: Sequence[str]) -> str:
    return f" at {'.'.join(path)[:200]}" if path else ""


class DecodeErrors(GleamError):
    """A term that is not the value expected.

    Attributes:
        errors: ``pyglyn.gleam.decode.DecodeError`` records: expected, found, path. Never empty.
    """

    def __init__(self, errors: Iterable[Misfit]) -> None:
        self.errors: tuple[Misfit, ...] = tuple(errors)
        super().__init__(self.errors)

    def __str__(self) -> str:
        texts = [f"expected {e.expected}, found {e.found}{_where(e.path)}" for e in self.errors[:5]]
        more = len(self.errors) - len(texts)
        return "; ".join(texts) + (f"; and {more} more" if more > 0 else "")


class ValueEncodeError(GleamError):
    """A Python value that is not the Gleam value it should be sent as.

    Attributes:
        expected: the type it should have had.
        found: what it is; never its contents.
        path: field names, list positions and dict keys that lead to it.
    """

    def __init__(self, expected: str, found: str, path: tuple[str, ...] = ()) -> None:
        super().__init__(expected, found, path)
        self.expected = expected
        self.found = found
        self.path = path

    def __str__(self) -> str:
        return f"expected {self.expected}, got {self.found}{_where(self.path)}"


class UnsupportedType(GleamError, TypeError):
    """An annotation that has no Gleam counterpart, or an ambiguous one; the text says why."""


class GroupError(PyglynError):
    """Process groups and registries."""


class NotInGroup(GroupError, LookupError):
    """The process is no member of the group."""


class RegistrationFailed(GroupError, ValueError):
    """A name could not be registered, changed or given up.

    Attributes:
        cause: syn's word for it: ``taken``, ``not_alive``, ``undefined``, ``race_condition``, ….
    """

    def __init__(self, message: str, *, cause: str) -> None:
        super().__init__(message)
        self.cause = cause


class SupervisionError(PyglynError):
    """Supervision trees."""


class ChildStartError(SupervisionError):
    """A child could not be started.

    Attributes:
        child_id: the id in its child specification.
        reason: why, as a term.
    """

    def __init__(self, message: str, *, child_id: object, reason: object) -> None:
        super().__init__(message)
        self.child_id = child_id
        self.reason = reason


class TreeEnded(SupervisionError):
    """A supervision tree of the node has given up, or shut itself down, and nobody was to be told.

    Attributes:
        tree: the id of the tree.
        reason: why, as a term.
    """

    def __init__(self, message: str, *, tree: object, reason: object) -> None:
        super().__init__(message)
        self.tree = tree
        self.reason = reason


class SpecificationError(SupervisionError, ValueError):
    """A child specification or a supervisor's flags make no sense.

    Attributes:
        reason: the term OTP has for it: ``{invalid_restart_type, foo}``, ``missing_id``, …
    """

    def __init__(self, message: str, *, reason: Any) -> None:
        super().__init__(message)
        self.reason = reason


class ForkUnsafe(SupervisionError):
    """This OS process has threads, so a fork of it could hang; start the child by ``spawn``."""


# --- event sourcing --------------------------------------------------------------------------------


class EventSourcingError(PyglynError):
    """Commands, aggregates and event stores: Gleam's ``EventSourcingError`` as exceptions."""


class DomainError(EventSourcingError):
    """A command was refused by ``handle``; nothing was written.

    Attributes:
        error: the value that says why, of the application's own type.
    """

    def __init__(self, error: object) -> None:
        super().__init__(f"domain error: {error!r}")
        self.error = error


class InvalidHandlerResult(EventSourcingError, TypeError):
    """``handle`` returned something that is no list of events; nothing was written."""


class NonPositiveArgument(EventSourcingError, ValueError):
    """A frequency, a timeout or a size that is zero or less."""


class EntityNotFound(EventSourcingError, LookupError):
    """The aggregate has no events.

    Attributes:
        aggregate_id: which aggregate.
    """

    def __init__(self, aggregate_id: str = "") -> None:
        super().__init__(f"no events of aggregate {aggregate_id!r}")
        self.aggregate_id = aggregate_id


class ActorTimeout(EventSourcingError, TimeoutError):
    """An operation of an event sourcing service took longer than its caller waits.

    Attributes:
        operation: its name.
        timeout_ms: how long was waited, in milliseconds.
    """

    reason = "timeout"

    def __init__(self, operation: str, timeout_ms: int) -> None:
        super().__init__(f"{operation} failed after {timeout_ms} ms")
        self.operation = operation
        self.timeout_ms = timeout_ms


class NoOwner(EventSourcingError, LookupError):
    """No node that can be reached serves these aggregates; nothing was done.

    Attributes:
        service: the name they are served under.
    """

    reason = "noproc"

    def __init__(self, service: str) -> None:
        super().__init__(f"no connected node serves {service!r}")
        self.service = service


class EventStoreError(EventSourcingError):
    """An event store could not do what was asked.

    Attributes:
        text: what went wrong, in words.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class VersionConflict(EventStoreError):
    """Another writer appended to the aggregate first.

    Attributes:
        aggregate_id: which aggregate.
        expected: the sequence number this writer had seen last.
        actual: the one the store has, where the store can tell.
    """

    def __init__(self, aggregate_id: str, expected: int, actual: int | None) -> None:
        found = "another writer appended first" if actual is None else f"the store is at {actual}"
        super().__init__(f"aggregate {aggregate_id!r}: expected sequence {expected}, {found}")
        self.aggregate_id = aggregate_id
        self.expected = expected
        self.actual = actual


class CommandRepeated(EventStoreError):
    """A command with this id was carried out before; nothing was written."""

    def __init__(self, command_id: str) -> None:
        super().__init__(f"the command with the id {command_id!r} was carried out before")
        self.command_id = command_id


class AppendConditionFailed(EventStoreError):
    """A fact that matches the condition of an append has come since; nothing was written.

    Attributes:
        condition: the query.
        after: the position since which nothing was to match.
    """

    def __init__(self, condition: object, after: int) -> None:
        super().__init__(f"facts that match have come since position {after}: {condition}")
        self.condition = condition
        self.after = after


class StoreUnavailable(EventStoreError, ConnectionError):
    """The database cannot be reached, is shutting down, busy for too long or full; trying again may help.

    Attributes:
        outcome_unknown: True when the connection broke after a write was sent: it may have been
            committed. Only then is repeating the write not safe.
    """

    def __init__(self, text: str, *, outcome_unknown: bool = False) -> None:
        super().__init__(text)
        self.outcome_unknown = outcome_unknown


class TransactionFailed(EventStoreError):
    """A transaction could not be carried out; nothing of it was written."""


class TransactionRolledBack(EventStoreError):
    """The database undid the transaction (deadlock, serialisation failure); it may be tried again."""


class EventEncodeError(EventStoreError, ValueError):
    """An event, a state or a metadata pair cannot be written as its type's JSON.

    Attributes:
        value: the offending value.
    """

    def __init__(self, text: str, *, value: object = None) -> None:
        super().__init__(text)
        self.value = value


class EventDecodeError(EventStoreError, ValueError):
    """A stored event or snapshot that is no JSON, or not of the expected type. It is never skipped.

    Attributes:
        aggregate_id: whose it is; None when the text came from elsewhere.
        sequence: which of its events.
        payload: the stored text, unchanged.
        errors: one line per fault, each with its path in the JSON (``$.items[0].price``).
    """

    def __init__(
        self,
        errors: list[str],
        *,
        payload: str,
        aggregate_id: str | None = None,
        sequence: int | None = None,
        what: str = "event",
    ) -> None:
        where = "" if aggregate_id is None else f" {sequence} of aggregate {aggregate_id!r}"
        super().__init__(f"{what}{where} does not decode: {'; '.join(errors)}")
        self.errors = errors
        self.payload = payload
        self.aggregate_id = aggregate_id
        self.sequence = sequence


class Forgotten(EventStoreError):
    """An aggregate was forgotten: its key is gone, and it takes no events any more.

    Attributes:
        aggregate_id: which one.
    """

    def __init__(self, aggregate_id: str) -> None:
        super().__init__(f"{aggregate_id!r} was forgotten: it takes no events any more")
        self.aggregate_id = aggregate_id


class CheckpointConflict(EventStoreError):
    """Somebody else, such as another instance of the query, changed its checkpoint; nothing was written.

    Attributes:
        query: the query's name.
        expected: the position (or the version) this instance had seen last.
        actual: the stored one.
    """

    def __init__(self, query: str, expected: int, actual: int, *, what: str = "position") -> None:
        super().__init__(f"query {query!r}: expected its checkpoint at {what} {expected}, it is at {actual}")
        self.query = query
        self.expected = expected
        self.actual = actual
