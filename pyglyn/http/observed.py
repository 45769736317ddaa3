"""What the page shows of a node, as JSON: asked of the node itself or over the distribution. Layer: http.

Each look asks anew and has a deadline. A node that is not there, or does not answer in time, is told as such.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import attrs

from pyglyn import etf
from pyglyn.errors import CallFailed, CallTimeout, EtfError, PyglynError, RemoteException
from pyglyn.etf import Atom, Pid, Term
from pyglyn.eventsourcing.cluster import recent
from pyglyn.eventsourcing.domain.trace import Step
from pyglyn.groups.overview import Scope, overview
from pyglyn.http import merged
from pyglyn.node import Node
from pyglyn.node.described import Json, name_of, number, processes
from pyglyn.node.exits import ErlangError

LOOK_S: Final = 3.0
"""How long a node may take for everything that is asked in one look."""
QUERY_S: Final = 1.0
"""How long one query may take to say where it stands."""
COUNTED: Final = {
    "commands": b"pyglyn_commands_total",
    "events": b"pyglyn_events_total",
    "restarts": b"pyglyn_child_restarts_total",
}
"""What the page shows the rates of, by the names of the counters."""
QUERIES: Final = "pyglyn_query_"
"""What the registered names of queries begin with."""
MOST_PARKED: Final = 50
_UNDEF: Final = Atom("undef")
_VISIBLE, _HIDDEN = Atom("visible"), Atom("hidden")
_ODD: Final = (TypeError, ValueError, AttributeError, LookupError)
"""What reading an answer of another shape raises."""


@attrs.define
class _Known:
    """The last events that a service has told, and up to which position."""

    after: int = 0
    last: deque[Step] = attrs.field(factory=lambda: deque(maxlen=merged.SHOWN))


class Observed:
    """One node that is looked at, by a node that may be the same.

    Args:
        local: who asks.
        name: who is asked.

    Attributes:
        scopes: the groups it knows of, at the last look.
        recent: by service, its last events.
    """

    def __init__(self, local: Node, name: str) -> None:
        self.local = local
        self.name = name
        self.pids: dict[Pid, str] = {}
        """The children of its supervisors with their names; none where the last look did not get them."""
        self.scopes: list[Scope] = []
        self.recent: list[tuple[str, list[Step]]] = []
        self._events: dict[str, _Known] = {}
        self._questions: set[bytes] = set()
        """What the processes are called that answer questions."""

    async def look(self) -> Json:
        """Everything about it; where it cannot be asked, why."""
        found: Json = {"name": self.name, "state": "up", "error": ""}
        self.pids, self.scopes, self.recent = {}, [], []
        try:
            async with asyncio.timeout(LOOK_S):
                return found | await self._everything()
        except (TimeoutError, CallTimeout):
            return found | {"state": "slow", "error": f"no answer within {LOOK_S:g} s"}
        except RemoteException as error:
            gone = self.name not in self.local.nodes() and self.name != self.local.name
            return found | {"state": "closed" if gone else "refuses", "error": str(error)}
        except PyglynError as error:
            return found | {"state": "closed", "error": str(error)}
        except _ODD as error:
            text = f"its answer is not understood: {type(error).__name__}: {error}"
            return found | {"state": "refuses", "error": text[: merged.TERM_CHARACTERS]}

    async def _everything(self) -> Json:
        if self.name != self.local.name:
            await self.local.connect(self.name)
        # All at once: each of these waits for a worker that does not answer as long as the node lets it.
        rows, about, self.scopes, (queries, self.recent) = await asyncio.gather(
            self._tree(), self._about(), self._scopes(), self._of_names()
        )
        if rows is None:
            return {"kind": "beam", **about, "processes": [], "queries": []}
        return {"kind": "pyglyn", **about, "processes": self._processes(rows), "queries": queries}

    async def _tree(self) -> list[Any] | None:
        """The rows of its processes but those that answer questions; None of a node that is none of ours."""
        try:
            rows = await self._ask("pyglyn", "tree")
        except (RemoteException, ErlangError) as error:
            if error.reason is not _UNDEF:
                raise
            return None
        return [row for row in rows if row.get(Atom("label")) not in self._questions]

    async def _of_names(self) -> tuple[list[Json], list[tuple[str, list[Step]]]]:
        """The queries, and the last events, of what its registered names say there is."""
        registered = await self._ask_or([], "erlang", "registered")
        names = sorted(name.name for name in registered if isinstance(name, Atom))
        return await asyncio.gather(self._queries(names), self._recent(names))

    async def _ask(self, module: str, function: str, *args: Term) -> Any:
        self._questions.add(f"{module}:{function}".encode())
        if self.name != self.local.name:
            return await self.local.erpc(self.name, module, function, args, LOOK_S)
        table = self.local.hub.builtins
        found = table.find(Atom(module), Atom(function), len(args))
        if found is None:
            raise ErlangError(_UNDEF)
        return await found.run(self.local.system, list(args))

    async def _ask_or(self, default: Any, module: str, function: str, *args: Term) -> Any:
        """As `_ask`; the default where the node has no such function."""
        try:
            return await self._ask(module, function, *args)
        except (RemoteException, ErlangError):
            return default

    async def _about(self) -> Json:
        version, memory, visible, hidden, counts = await asyncio.gather(
            self._ask_or([], "erlang", "system_info", Atom("system_version")),
            self._ask_or([], "erlang", "memory"),
            self._ask_or([], "erlang", "nodes", _VISIBLE),
            self._ask_or([], "erlang", "nodes", _HIDDEN),
            self._ask_or([], "pyglyn", "counts"),
        )
        peers = [{"name": node.name, "hidden": False} for node in visible]
        peers += [{"name": node.name, "hidden": True} for node in hidden]
        return {
            "version": bytes(c for c in version if isinstance(c, int) and c < 256).decode("latin-1").strip(),
            "memory": number(dict(memory).get(Atom("total"), 0)),
            "counts": {
                shown: number(sum(amount for name, _, amount in counts if name == counter))
                for shown, counter in COUNTED.items()
            },
            "connected": [peer for peer in peers if peer["name"] != self.local.name],
        }

    # --- processes --------------------------------------------------------------------------------

    def _processes(self, rows: list[Any]) -> list[Json]:
        self.pids = {
            pid: name_of(row)
            for row in rows
            if isinstance(pid := row[Atom("pid")], Pid) and pid.node == self.name and Atom("restarts") in row
        }
        return processes(rows)

    async def _scopes(self) -> list[Scope]:
        try:
            return await overview(self._ask)
        except (RemoteException, ErlangError):
            return []

    # --- the last events of services --------------------------------------------------------------

    async def _recent(self, names: list[str]) -> list[tuple[str, list[Step]]]:
        """By service, its last events; of one that does not answer, those that are known."""
        services = [name for name in names if name.startswith(recent.PREFIX)]
        self._events = {name: self._events.get(name, _Known()) for name in services}
        await asyncio.gather(*(self._ask_for_events(name, known) for name, known in self._events.items()))
        return [
            (f"{name.removeprefix(recent.PREFIX)} on {self.name}", [*known.last])
            for name, known in self._events.items()
        ]

    async def _ask_for_events(self, name: str, known: _Known) -> None:
        request = (recent.RECENT, known.after, merged.SHOWN)
        try:
            answer = await self.local.call((name, self.name), request, QUERY_S)
            steps, last = recent.read_answer(answer)
        except (PyglynError, *_ODD):
            return
        if last < known.after:  # another store than before, which is read from its beginning the next time
            known.last.clear()
        known.last.extend(steps)
        known.after = last if last >= known.after else 0

    # --- queries ----------------------------------------------------------------------------------

    async def _queries(self, names: list[str]) -> list[Json]:
        found = [name.removeprefix(QUERIES) for name in names if name.startswith(QUERIES)]
        return list(await asyncio.gather(*map(self._query, found)))

    async def _query(self, name: str) -> Json:
        try:
            status: Any = await self.tell_query(name, Atom("status"))
            told = {key.name: _plain(value) for key, value in status.items()}
            events: Any = await self.tell_query(name, Atom("parked")) if told.get("parked") else []
        except (PyglynError, *_ODD) as error:
            return {"name": name, "kind": "-", "state": "no answer", "error": str(error), "events": []}
        return {**told, "name": name, "events": [_parked(event) for event in events[:MOST_PARKED]]}

    async def tell_query(self, name: str, request: Term) -> Term:
        """A request to a query, as ``pyglyn queries`` makes it.

        Raises:
            CallFailed: there is no such query, or it refuses; the text says why.
            CallTimeout: it is busy.
        """
        answer = await self.local.call((QUERIES + name, self.name), request, QUERY_S)
        match answer:
            case (Atom("error"), reason):
                raise CallFailed(merged.text(reason), reason=reason)
        return answer


def _parked(event: Any) -> Json:
    told = {key.name: value for key, value in event.items()}
    known: dict[str, Callable[[Any], Any]] = {
        "id": _plain,
        "aggregate_id": _plain,
        "sequence": _plain,
        "attempts": _plain,
        "error": _plain,
    }
    found = {key: make(told[key]) for key, make in known.items() if key in told}
    raw = told.get("raw", b"")
    if told.get("format") is not Atom("json"):
        with contextlib.suppress(EtfError):
            raw = etf.text.format(etf.decode(raw), limit=merged.TERM_CHARACTERS).encode()
    return found | {"raw": merged.text(raw)}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, (bool, int, float)):
        return value if isinstance(value, bool) else number(value)
    return None if value is None or value is Atom("none") else merged.text(value)
