"""``/metrics``: everything a node knows of itself, for Prometheus. Layer: http.

Distribution has the names and labels of prometheus.erl's ``erlang_vm_dist_*``, so that dashboards made for
BEAM nodes fit. There is no port and no process for a connection here: of the families for those there are
only the ones that mean something. All else begins with ``pyglyn_``.

Gauges are asked of all OS processes of the node, over the hub's links to them, at each request. Counters are
the hub's: workers tell what they have counted since the last time, a moment after it happened
(`pyglyn.node.worker.COUNTED_S`), and before they end or answer. So the restart of a worker resets nothing;
one that is killed takes that moment's counts along.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from aiohttp import web

from pyglyn import counters
from pyglyn._version import __version__
from pyglyn.errors import PyglynError
from pyglyn.etf import Atom
from pyglyn.eventsourcing.queries.query_process import PREFIX
from pyglyn.http.exposition import CONTENT_TYPE, Family, render
from pyglyn.node import Node
from pyglyn.node.census import Census, Look

QUERY_TIMEOUT_S = 1.0
"""How long a query may take to say where it stands before it is left out."""

COUNTERS = {
    "pyglyn_child_exits_total": "Ends of children of supervisors that had started, by reason.",
    "pyglyn_child_restarts_total": "Children started again by their supervisors.",
    "pyglyn_commands_total": "Commands to aggregates: done, refused by the domain, or failed.",
    "pyglyn_command_seconds_total": "Seconds that commands took, from their coming to their outcome.",
    "pyglyn_command_conflicts_total": "Commands decided anew because another writer was faster.",
    "pyglyn_events_total": "Events committed by commands.",
    "pyglyn_store_unavailable_total": "Attempts of commands that found the store unavailable.",
}
"""What is counted, and shown with no samples as long as nothing was."""


def routes(node: Node) -> Iterable[web.RouteDef]:
    """What the node knows of itself."""
    node.workers.count()

    async def metrics(request: web.Request) -> web.Response:
        text = render(await collect(node))
        return web.Response(text=text, headers={"Content-Type": CONTENT_TYPE})

    return [web.get("/metrics", metrics)]


async def collect(node: Node) -> list[Family]:
    """Measure everything."""
    census = Census(node.hub, node.workers)
    look, conditions, groups, queries = await asyncio.gather(
        census.look(), census.readiness(), _groups(node), _queries(node)
    )
    return [
        *_node(node, conditions),
        *_os_processes(look),
        *_distribution(node),
        *groups,
        *queries,
        *_counted(),
    ]


def _gauge(name: str, help: str) -> Family:
    return Family(name=name, kind="gauge", help=help)


def _node(node: Node, conditions: dict[str, str]) -> Iterable[Family]:
    info = _gauge("pyglyn_node_info", "The node: always 1.")
    info.add(1, node=node.name, version=__version__, type="hidden" if node.local.hidden else "visible")
    names = _gauge("pyglyn_registered_names", "Registered names of the node.")
    names.add(len(node.runtime.names))
    ready = _gauge("pyglyn_ready", "Whether a condition for being ready holds; see /readyz.")
    for what, why in conditions.items():
        ready.add(0 if why else 1, condition=what)
    return info, names, ready


def _os_processes(look: list[Look]) -> Iterable[Family]:
    up = _gauge("pyglyn_worker_up", "Whether an OS process of the node answers its hub.")
    processes = _gauge("pyglyn_processes", "Processes of the node, by OS process.")
    messages = _gauge("pyglyn_mailbox_messages", "Messages that wait in mailboxes.")
    longest = _gauge("pyglyn_mailbox_longest", "Messages that wait in the longest mailbox.")
    lag = _gauge("pyglyn_event_loop_lag_seconds", "How late an event loop is.")
    memory = _gauge("pyglyn_resident_memory_bytes", "Bytes in memory, pages that are shared included.")
    queued = _gauge("pyglyn_link_queue_bytes", "Bytes that the hub has queued for a worker.")
    os_processes = _gauge("pyglyn_os_processes", "OS processes of the node of that name.")
    for each in look:
        label = {"worker": each.name}
        os_processes.add(each.os_processes, **label)
        memory.add(each.memory, **label)
        if each.is_worker:
            up.add(1 if each.measures is not None else 0, **label)
            queued.add(each.queued, **label)
        if each.measures is not None:
            processes.add(each.measures.processes, **label)
            messages.add(each.measures.messages, **label)
            longest.add(each.measures.longest, **label)
            lag.add(each.measures.lag_s, **label)
    return up, os_processes, processes, messages, longest, lag, memory, queued


def _distribution(node: Node) -> Iterable[Family]:
    state = _gauge("erlang_vm_dist_node_state", "State of a connection: pending 1, up 3.")
    received = _gauge("erlang_vm_dist_recv_bytes", "Bytes received from a node.")
    received_count = _gauge("erlang_vm_dist_recv_cnt", "Packets received from a node.")
    received_average = _gauge("erlang_vm_dist_recv_avg_bytes", "Average size of the packets received.")
    sent = _gauge("erlang_vm_dist_send_bytes", "Bytes sent to a node.")
    sent_count = _gauge("erlang_vm_dist_send_cnt", "Messages sent to a node.")
    sent_average = _gauge("erlang_vm_dist_send_avg_bytes", "Average size of the messages sent.")
    pending = _gauge("erlang_vm_dist_send_pend_bytes", "Bytes that the socket to a node has not taken.")
    read = _gauge("erlang_vm_dist_port_input_bytes", "Bytes read from the socket to a node.")
    written = _gauge("erlang_vm_dist_port_output_bytes", "Bytes written to the socket to a node.")
    queue = _gauge("erlang_vm_dist_node_queue_size_bytes", "Bytes queued for a node, not written yet.")
    for name in node.peers.dialling:
        state.add(1, peer=name)
    for peer in node.peers.connections:
        traffic = peer.traffic
        label = {"peer": peer.name}
        state.add(3, **label)
        received.add(traffic.received_bytes, **label)
        received_count.add(traffic.received, **label)
        received_average.add(traffic.received_bytes // max(1, traffic.received), **label)
        sent.add(traffic.sent_bytes, **label)
        sent_count.add(traffic.sent, **label)
        sent_average.add(traffic.sent_bytes // max(1, traffic.sent), **label)
        pending.add(traffic.unwritten_bytes, **label)
        read.add(traffic.received_bytes, **label)
        written.add(traffic.sent_bytes, **label)
        queue.add(traffic.queued_bytes, **label)
    return (
        state, received, received_count, received_average, sent, sent_count, sent_average, pending, read,
        written, queue,
    )  # fmt: skip


async def _groups(node: Node) -> Iterable[Family]:
    groups = _gauge("pyglyn_groups", "Groups, or registered names, of a scope that have members.")
    members = _gauge("pyglyn_group_members", "Memberships in all groups of a scope.")
    overview = node.builtins.find(Atom("pyglyn"), Atom("groups"), 0)
    if overview is not None:
        scopes: Any = await overview.run(node.system, [])
        for kind, scope, found in scopes:
            label = {"kind": str(kind), "scope": scope.decode(errors="replace")}
            groups.add(len(found), **label)
            members.add(sum(len(pids) for _, pids in found), **label)
    return groups, members


async def _queries(node: Node) -> Iterable[Family]:
    position = _gauge("pyglyn_query_position", "Up to where a durable query has processed its store.")
    lag = _gauge("pyglyn_query_lag", "How many positions, or messages, a query is behind.")
    state = _gauge("pyglyn_query_state", "The state that a query is in: always 1.")
    parked = _gauge("pyglyn_query_parked", "Events that a query has parked.")
    processed = _gauge("pyglyn_query_processed", "Events processed since the query's process started.")
    commands = _gauge("pyglyn_manager_commands", "Commands of a manager that are not carried out yet.")
    timers = _gauge("pyglyn_manager_timers", "Deadlines and scheduled commands of a manager.")
    names = sorted(name for name in node.runtime.names if name.startswith(PREFIX))
    for status in await asyncio.gather(*(_status(node, name) for name in names)):
        if status is None:
            continue
        told = {str(key): value for key, value in status.items()}
        label = {"query": _text(told["name"]), "kind": _text(told["kind"])}
        if isinstance(told["position"], int):
            position.add(told["position"], **label)
        lag.add(told["lag"], **label)
        parked.add(told["parked"], **label)
        processed.add(told["processed"], **label)
        state.add(1, **label, state=_text(told["state"]))
        if label["kind"] == "manager":
            commands.add(told["commands"], **label)
            timers.add(told["timers"], **label)
    return position, lag, state, parked, processed, commands, timers


async def _status(node: Node, name: str) -> dict[Any, Any] | None:
    try:
        answer = await node.call(name, Atom("status"), QUERY_TIMEOUT_S)
    except PyglynError:
        return None  # it is starting or ending, or its database makes it wait
    return answer if isinstance(answer, dict) else None


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _counted() -> Iterable[Family]:
    families = {name: Family(name=name, kind="counter", help=text) for name, text in COUNTERS.items()}
    for name, labels, amount in counters.counted():
        if name in families:
            families[name].add(amount, **dict(labels))
    return families.values()
