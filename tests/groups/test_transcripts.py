"""Our machines, fed what real scope processes received, send what those sent.

The transcripts are recorded by ``record_transcripts``. Terms of programs on the recorded node (calls of its own
``syn:join`` and so on) reach the machine as the calls that they are.

What may differ, and does on purpose: the order of what goes to different receivers; in 3.3, that an owner which
loses a name tells the others (3.4 does, and so do we); questions we ask again (``discover`` to a known node).
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import attrs
import pytest

from pyglyn.etf import Atom, ImproperList, Pid, Reference, decode, exact_key
from pyglyn.groups import effects as fx
from pyglyn.groups.pg_state import PgState
from pyglyn.groups.syn_pg_state import SynGroups
from pyglyn.groups.syn_registry_state import SynRegistry

FOLDER = Path(__file__).parent / "transcripts"
FILES = sorted(FOLDER.glob("*.jsonl"))
CONFLICT = Atom("syn_conflict_resolution")


@attrs.frozen
class Record:
    direction: str
    to: Any
    term: Any


def read(path: Path) -> tuple[dict[str, Any], list[Record]]:
    first, *lines = map(json.loads, path.read_text().splitlines())
    records = [
        Record(line["dir"], decode(base64.b64decode(line["to"])), decode(base64.b64decode(line["term"])))
        for line in lines
    ]
    return first, records


class Player:
    """Feeds one machine with the inputs of a transcript and collects its messages."""

    def __init__(self, header: dict[str, Any]) -> None:
        self.own, self.process = header["node"], header["process"]
        pid = decode(base64.b64decode(header["pid"]))
        assert isinstance(pid, Pid)
        self.now = 0.0
        self.machine: Any
        if self.process.startswith("syn_pg_"):
            self.machine = SynGroups(pid, self.process.removeprefix("syn_pg_"))
        elif self.process.startswith("syn_registry_"):
            self.machine = SynRegistry(pid, self.process.removeprefix("syn_registry_"))
        else:
            self.machine = PgState(pid, self.process, lambda: Reference(self.own, 1, (1, 2, 3)))

    def feed(self, message: Any, time: int) -> list[fx.Effect]:
        """One message as the traced process got it; ``time`` is what its clock said then."""
        self.now += 0.01
        match message:
            case (Atom("nodeup"), Atom() as node):
                return self.machine.handle_node_up(node.name)
            case (Atom("nodedown"), Atom() as node):
                return self.machine.handle_node_down(node.name)
            case (Atom("DOWN"), _, _, Pid() as pid, reason):
                return self.down(pid, reason)
        if isinstance(self.machine, PgState):
            return self.machine.handle_message(message, self.now)
        return self.machine.handle_message(message, self.now, time)

    def down(self, pid: Pid, reason: Any) -> list[fx.Effect]:
        """Our machines monitor a scope process by name until they know it, and may keep to that."""
        if pid.node == self.own or pid in self.machine._monitors:
            return self.machine.handle_down(pid, reason, self.now)
        return self.machine.handle_down((self.machine.discovery.name, pid.node), reason, self.now)


def times_in(term: Any) -> list[int]:
    """The clock readings in what was sent: the only integers of that size."""
    if isinstance(term, (list, tuple)):
        return [time for each in term for time in times_in(each)]
    return [term] if type(term) is int and term > 10**17 else []


def outputs(effects: list[fx.Effect]) -> list[tuple[Any, Any]]:
    sent: list[tuple[Any, Any]] = []
    for effect in effects:
        match effect:
            case fx.Send(to, message):
                sent.append((to, message))
            case fx.AnswerCall((pid, tag), reply):
                to = tag.tail if isinstance(tag, ImproperList) else pid
                sent.append((to, (tag, reply)))
    return sent


def place(to: Any) -> Any:
    """Where a message goes: to a name on a node, whether it was sent there by name or to the pid."""
    if isinstance(to, tuple):
        return str(to[0]), str(to[1])
    return to


def comparable(sent: list[tuple[Any, Any]], header: dict[str, Any]) -> list[Any]:
    old = header["software"].startswith("syn 3.3")
    kept = []
    for to, message in sent:
        match message:
            case (_, Atom("sync_unregister"), *_, reason) if old and reason is CONFLICT:
                continue
            case (Atom("$gen_cast"), (sync, peer, groups)):
                message = (sync, peer, sorted((exact_key(g), sorted(p, key=Pid.sort_key)) for g, p in groups))
            case (Atom("leave") as leave, peer, pids, groups):
                message = (leave, peer, pids, sorted(groups, key=repr))
            case (v, Atom("ack_sync"), peer, list(data)):
                message = (v, "ack_sync", peer, sorted(map(repr, data)))
        kept.append((place(to), message))
    return sorted(kept, key=repr)


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_what_real_scope_processes_received_makes_ours_send_the_same(path: Path) -> None:
    header, records = read(path)
    player = Player(header)
    inputs = 0
    at = 0
    while at < len(records):
        assert records[at].direction == "in", "something was sent before anything was received"
        # All inputs up to the next pause belong together: what one causes may be sent after the next came.
        end = at
        while end < len(records) and records[end].direction == "in":
            end += 1
        after = end
        while after < len(records) and records[after].direction == "out":
            after += 1
        sent = [(record.to, record.term) for record in records[end:after]]
        time = max(times_in([message for _, message in sent]), default=0)
        effects: list[fx.Effect] = []
        for record in records[at:end]:
            effects += player.feed(record.term, time)
            inputs += 1
        expected, got = comparable(sent, header), comparable(outputs(effects), header)
        assert got == expected, f"after input {inputs}: {[r.term for r in records[at:end]]}"
        at = after
    assert inputs > 20


def test_transcripts_of_every_kind_are_there() -> None:
    names = {path.stem for path in FILES}
    for otp in (25, 28):
        assert f"pg-{otp}-otp{otp}-example" in names
        for syn in ("3.3.0", "3.4.1"):
            for process in ("syn_pg_example", "syn_registry_example"):
                assert f"syn-{syn}-otp{otp}-{process}" in names
