"""``observer_backend``: what Observer and etop run on the node they look at. Layer: node.

Source: observer_backend.erl, observer_backend.hrl, etop.hrl (OTP 25, 28).
"""

from __future__ import annotations

from typing import Any, Final

from pyglyn.etf import Atom, Pid, Term
from pyglyn.node.census import Census
from pyglyn.node.exits import Throw
from pyglyn.node.exports import Badarg, waits
from pyglyn.node.hub import Hub
from pyglyn.node.process import Process
from pyglyn.node.reasons import ERROR, OK, UNDEFINED
from pyglyn.node.tools import ports
from pyglyn.node.tools.system_info import System, timestamp
from pyglyn.node.tools.terms import Functions, pairs, text

RUNTIME_TOOLS: Final = "2.0"
"""The version of ``runtime_tools`` whose answers these are; etop wants it to be a number."""
CHUNK: Final = 10_000
ETOP_ITEMS: Final = [
    Atom(name)
    for name in (
        "registered_name", "initial_call", "memory", "reductions", "current_function", "message_queue_len"
    )
]  # fmt: skip
_SYS_INFO: Final = (
    "logical_processors", "logical_processors_online", "logical_processors_available", "schedulers",
    "schedulers_online", "otp_release", "version", "system_architecture", "kernel_poll", "smp_support",
    "threads", "thread_pool_size",
)  # fmt: skip
_SYS_COUNTS: Final = (
    "process_count", "atom_limit", "atom_count", "process_limit", "process_count", "port_limit", "port_count",
    "ets_limit", "ets_count", "dist_buf_busy_limit",
)  # fmt: skip
_SOCKET_COUNTERS: Final = (
    "num_cnt_bits", "num_dinet", "num_dinet6", "num_dlocal", "num_pip", "num_psctp", "num_ptcp", "num_pudp",
    "num_sockets", "num_tdgrams", "num_tseqpkgs", "num_tstreams",
)  # fmt: skip
_ETOP_MEMORY: Final = ("total", "processes", "ets", "atom", "code", "binary")


def functions(hub: Hub, census: Census) -> Functions:
    """Those of module ``observer_backend``."""
    backend = _Backend(hub, census)

    async def vsn() -> Term:
        return (OK, text(RUNTIME_TOOLS))

    async def socket_info() -> Term:
        counters = [(Atom(name), 64 if name == "num_cnt_bits" else 0) for name in _SOCKET_COUNTERS]
        return [*pairs("iov_max", 1024, "num_monitors", 0), *counters]

    async def get_socket_list() -> Term:
        return []  # those of OTP's module `socket`; ours are ports

    async def get_table_list(kind: Term, options: Term) -> Term:
        if kind is Atom("mnesia"):
            raise Throw((ERROR, text(f"Mnesia is not running on: {hub.name}")))
        return []

    async def get_table(parent: Term, table: Term, module: Term) -> Term:
        raise Badarg("there are no tables here")

    found: Functions = {
        ("observer_backend", function.__name__): function
        for function in (
            vsn,
            socket_info,
            get_socket_list,
            get_table_list,
            get_table,
            backend.sys_info,
            backend.get_port_list,
            backend.procs_info,
            backend.etop_collect,
            backend.fetch_stats,
        )
    }
    return found


class _Backend:
    """The functions that ask the whole node."""

    def __init__(self, hub: Hub, census: Census) -> None:
        self.hub = hub
        self.census = census
        self.system = System(hub, census)
        self.ports = ports.Ports(hub, census)

    async def sys_info(self) -> Term:
        """``sys_info/0``."""
        (_, received), (_, sent) = await self.system.io()
        found = pairs(
            "uptime", self.system.uptime_ms(), "run_queue", 0, "io_input", received, "io_output", sent
        )
        for name in _SYS_INFO:
            found.append((Atom(name), await self.system.info(Atom(name))))
            if name == "schedulers_online":
                found.append((Atom("schedulers_available"), found[-1][1]))
        found += pairs("wordsize_internal", 8, "wordsize_external", 8)
        allocators = await self.system.info(Atom("alloc_util_allocators"))
        found += pairs("alloc_info", await self.system.info((Atom("allocator_sizes"), allocators)))
        found += [(Atom(name), await self.system.info(Atom(name))) for name in _SYS_COUNTS]
        return [*found, *await self.census.memory()]

    async def get_port_list(self) -> Term:
        """``get_port_list/0``."""
        return [ports.property_list(port, items) for port, items in await self.ports.all()]

    async def _processes(self, but: Pid) -> list[Term]:
        """``#etop_proc_info{}`` of every process but one."""
        found: list[Term] = []
        for pid, answers in await self.census.infos([*ETOP_ITEMS]):
            if pid != but:
                name, initial_call, memory, reductions, current, waiting = (value for _, value in answers)
                called = initial_call if name == [] else name
                found.append((Atom("etop_proc_info"), pid, memory, reductions, called, 0, current, waiting))
        return found

    async def procs_info(self, me: Process, collector: Pid) -> Term:
        """``procs_info/1``: sends ``{procs_info, self(), Infos}``, ten thousand at a time."""
        found = await self._processes(me.pid)
        for start in range(0, len(found) or 1, CHUNK):
            me.send(collector, (Atom("procs_info"), me.pid, found[start : start + CHUNK]))
            await me.drain()
        return OK

    async def etop_collect(self, me: Process, collector: Pid) -> Term:
        """``etop_collect/1``: sends ``{self(), #etop_info{}}``."""
        found = await self._processes(me.pid)
        memory: dict[Any, int] = dict(await self.census.memory())
        info: Term = (
            Atom("etop_info"),
            timestamp(),
            len(found),
            UNDEFINED,
            await self.system.scheduler_wall_time(),
            0,
            [],
            [(Atom(name), memory[Atom(name)]) for name in _ETOP_MEMORY],
            found,
        )
        me.send(collector, (me.pid, info))
        return OK

    @waits
    async def fetch_stats(self, me: Process, parent: Pid, period_ms: int) -> Term:
        """``fetch_stats/2``: sends ``{stats, 1, SchedulerWallTime, Io, Memory}`` until a message comes."""
        me.trap_exit = True
        while True:
            try:
                await me.receive(timeout=max(1, period_ms) / 1000)
                return OK
            except TimeoutError:
                schedulers = await self.system.scheduler_wall_time()
                memory = await self.census.memory()
                me.send(parent, (Atom("stats"), 1, schedulers, await self.system.io(), [*memory]))
