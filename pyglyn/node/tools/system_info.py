"""``erlang:system_info/1``, ``statistics/1``, ``system_flag/2`` and the clocks. Layer: node.

What has a counterpart: processes and ports are counted on the whole node; a scheduler is a CPU that the
node may use, busy with the CPU time of all its OS processes; a reduction is a microsecond of that time;
input and output are bytes of the hub's TCP sockets that are open; ``version`` and ``system_version`` are
this package's and Python's. The rest is neutral: no run queue is ever seen, limits are those of pids,
descriptors and memory, there are no tables of ETS, ``atom_count`` is that of interned atoms.
``otp_release`` is the newest one this package is tested with. Utilisation is always counted:
``system_flag/2`` finds its flags set.
"""

from __future__ import annotations

import gc
import os
import platform
import resource
import sys
import sysconfig
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from pyglyn import etf
from pyglyn._version import __version__
from pyglyn.etf import Atom, Term
from pyglyn.node import sockets
from pyglyn.node.census import Census
from pyglyn.node.exports import Badarg
from pyglyn.node.hub import Hub
from pyglyn.node.inspection import own_share_of_memory, resident_memory
from pyglyn.node.reasons import UNDEFINED
from pyglyn.node.runtime import MAX_PID_ID
from pyglyn.node.tools import clocks
from pyglyn.node.tools.terms import Functions, text

OTP_RELEASE: Final = "28"
WORD: Final = 8
ETS_LIMIT: Final = 8192
"""OTP's default; Observer divides by it."""
NATIVE: Final = Atom("native")
START_TIME: Final = -576460752303423488
"""``system_info(start_time)`` of every 64-bit BEAM; tools subtract their own from a peer's time."""
ALLOCATORS: Final = (Atom("hub"), Atom("workers"))
_MAX_ATOMS: Final = 2**31
_FLAGS: Final = ("scheduler_wall_time", "microstate_accounting")


def functions(hub: Hub, census: Census) -> Functions:
    """Those of modules ``erlang`` and ``calendar``."""
    system = System(hub, census)

    async def system_time(unit: Term = NATIVE) -> Term:
        return clocks.convert(time.time_ns(), NATIVE, unit)

    async def monotonic_time(unit: Term = NATIVE) -> Term:
        return clocks.convert(system.monotonic_ns(), NATIVE, unit)

    async def time_offset(unit: Term = NATIVE) -> Term:
        return clocks.convert(time.time_ns() - system.monotonic_ns(), NATIVE, unit)

    async def convert_time_unit(value: Term, from_unit: Term, to_unit: Term) -> Term:
        return clocks.convert(value, from_unit, to_unit)

    async def seconds_to_daystime(seconds: Term) -> Term:
        return clocks.days_and_time(seconds)

    async def timestamp_() -> Term:
        return timestamp()

    return {
        ("erlang", "system_info"): system.info,
        ("erlang", "statistics"): system.statistics,
        ("erlang", "system_flag"): system.flag,
        ("erlang", "system_time"): system_time,
        ("os", "system_time"): system_time,
        ("erlang", "monotonic_time"): monotonic_time,
        ("erlang", "time_offset"): time_offset,
        ("erlang", "convert_time_unit"): convert_time_unit,
        ("erlang", "timestamp"): timestamp_,
        ("os", "timestamp"): timestamp_,
        ("calendar", "seconds_to_daystime"): seconds_to_daystime,
    }


def timestamp() -> Term:
    """``erlang:timestamp/0``."""
    seconds, micro = divmod(time.time_ns() // 1000, 1_000_000)
    return (seconds // 1_000_000, seconds % 1_000_000, micro)


def cpus() -> int:
    """How many CPUs this node may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class System:
    """Answers for one node."""

    def __init__(self, hub: Hub, census: Census) -> None:
        self.hub = hub
        self.census = census
        self._last: dict[str, int] = {}
        self._reset: dict[int, tuple[int, int]] = {}

    # --- system_info ------------------------------------------------------------------------------

    async def info(self, item: Term) -> Term:
        """``system_info/1``."""
        if isinstance(item, Atom):
            if item.name in _FIXED:
                return _FIXED[item.name]()
            asked = self._asked().get(item.name)
            if asked is not None:
                return await asked()
        match item:
            case (Atom("wordsize"), Atom("internal") | Atom("external")):
                return WORD
            case (Atom("allocator_sizes"), which):
                return await self._allocator_sizes(which)
            case (Atom("allocator"), which):
                return await self._allocator_sizes(which)
            case (Atom("cpu_topology"), _):
                return UNDEFINED
        raise Badarg("system_info: no such item")

    def _asked(self) -> dict[str, Callable[[], Awaitable[Term]]]:
        return {
            "process_count": self._process_count,
            "port_count": self._port_count,
            "system_version": self._system_version,
            "start_time": self._start_time,
            "creation": self._creation,
            "info": self._procs,
            "procs": self._procs,
            "dist": self._dist,
        }

    async def _process_count(self) -> Term:
        return len(await self.census.pids())

    async def _port_count(self) -> Term:
        return sum(map(len, (await self.census.sockets()).values()))

    async def _system_version(self) -> Term:
        python = f"{platform.python_implementation()} {platform.python_version()}"
        os_processes = 1 + len(await self.census.os_pids())
        smp = f"{cpus()}:{cpus()}"
        return text(f"pyglyn {__version__} [{python}] [64-bit] [smp:{smp}] [os-processes:{os_processes}]\n")

    async def _start_time(self) -> Term:
        return START_TIME

    async def _creation(self) -> Term:
        return self.hub.local.creation

    async def _procs(self) -> Term:
        return "".join(f"=proc:{pid}\n" for pid in await self.census.pids()).encode()

    async def _dist(self) -> Term:
        return (
            "".join(f"=visible_node:{node}\n" for node in self.hub.nodes()).encode() or b"=no_distribution\n"
        )

    async def _allocator_sizes(self, which: Term) -> Term:
        wanted = which if isinstance(which, list) else [which]
        if any(allocator not in ALLOCATORS for allocator in wanted):
            raise Badarg("system_info: hub and workers are the allocators")
        parts = {ALLOCATORS[0]: [os.getpid()], ALLOCATORS[1]: list(await self.census.os_pids())}
        found: list[Term] = [(name, [_instance(name, parts[name])]) for name in wanted]  # type: ignore[index]
        return found if isinstance(which, list) else found[0][1]  # type: ignore[index]

    # --- statistics -------------------------------------------------------------------------------

    async def statistics(self, item: Term) -> Term:
        """``statistics/1``. Second values of pairs are since the last call by anybody, as on the BEAM."""
        if isinstance(item, Atom):
            if item.name in _NEUTRAL:
                return _NEUTRAL[item.name]()
            asked = self._counted().get(item.name)
            if asked is not None:
                return await asked()
        raise Badarg("statistics: no such item")

    def _counted(self) -> dict[str, Callable[[], Awaitable[Term]]]:
        return {
            "wall_clock": self._wall_clock,
            "runtime": self._runtime,
            "reductions": self._reductions,
            "exact_reductions": self._reductions,
            "io": self.io,
            "context_switches": self._context_switches,
            "scheduler_wall_time": self.scheduler_wall_time,
            "scheduler_wall_time_all": self.scheduler_wall_time,
            "microstate_accounting": self._microstate_accounting,
        }

    def _since_last(self, name: str, value: int) -> Term:
        last = self._last.get(name, 0)
        self._last[name] = value
        return (value, max(0, value - last))

    async def _cpu_us(self) -> int:
        use = await self.census.cpu()
        return use.own_us + use.collected_us

    async def _wall_clock(self) -> Term:
        return self._since_last("wall_clock", self.uptime_ms())

    def uptime_ms(self) -> int:
        """How long the node has run."""
        return self._uptime_ns() // 1_000_000

    def _uptime_ns(self) -> int:
        return time.monotonic_ns() - self.hub.started_ns

    def monotonic_ns(self) -> int:
        """``monotonic_time/0``: `START_TIME` was when the node was started."""
        return START_TIME + self._uptime_ns()

    async def _runtime(self) -> Term:
        return self._since_last("runtime", await self._cpu_us() // 1000)

    async def _reductions(self) -> Term:
        return self._since_last("reductions", await self._cpu_us())

    async def io(self) -> tuple[tuple[Atom, int], tuple[Atom, int]]:
        """Bytes in and out."""
        open_now: list[Any] = sockets.here()
        received = sum(each[Atom("in")] for each in open_now)
        sent = sum(each[Atom("out")] for each in open_now)
        return ((Atom("input"), received), (Atom("output"), sent))

    async def _context_switches(self) -> Term:
        return ((await self.census.cpu()).switches, 0)

    async def scheduler_wall_time(self) -> Term:
        """``{Scheduler, Active, Total}`` in nanoseconds: the CPU time, in equal parts."""
        total = self._uptime_ns()
        active = min(total, await self._cpu_us() * 1000 // cpus())
        return [(number, active, total) for number in range(1, cpus() + 1)]

    async def _busy(self) -> dict[int, tuple[int, int]]:
        """Active and total nanoseconds by scheduler."""
        schedulers: Any = await self.scheduler_wall_time()
        return {number: (active, total) for number, active, total in schedulers}

    async def _microstate_accounting(self) -> Term:
        """The counters since they were reset."""
        found: list[Term] = []
        for number, (active, total) in (await self._busy()).items():
            active_before, total_before = self._reset.get(number, (0, 0))
            busy = max(0, active - active_before)
            counters = dict.fromkeys(("aux", "check_io", "gc", "other", "port"), 0)
            counters |= {"emulator": busy, "sleep": max(0, total - total_before - busy)}
            found.append(
                {
                    Atom("type"): Atom("scheduler"),
                    Atom("id"): number,
                    Atom("counters"): {Atom(name): value for name, value in counters.items()},
                }
            )
        return found

    # --- system_flag ------------------------------------------------------------------------------

    async def flag(self, flag: Term, value: Term) -> Term:
        """``system_flag/2``: the flags that make the BEAM count are set here, and stay so.

        erldash resets its counters after each look, and takes them for those of the time between two.
        """
        if not isinstance(flag, Atom) or flag.name not in _FLAGS or not isinstance(value, (bool, Atom)):
            raise Badarg("system_flag: scheduler_wall_time and microstate_accounting are always on")
        if flag is Atom("microstate_accounting") and value is Atom("reset"):
            self._reset = await self._busy()
        return True


def _instance(name: Term, os_pids: list[int]) -> Term:
    """One allocator's sizes: blocks are the memory it alone has, carriers all that it shows."""
    own = sum(map(own_share_of_memory, os_pids))
    resident = [value for value in map(resident_memory, os_pids) if isinstance(value, int)]
    size = max(own, sum(resident))
    blocks: Term = [(name, [(Atom("size"), own, own, own)])]
    return (
        Atom("instance"),
        0,
        [
            (Atom("mbcs"), [(Atom("blocks"), blocks), (Atom("carriers_size"), size, size, size)]),
            (Atom("sbcs"), [(Atom("blocks"), []), (Atom("carriers_size"), 0, 0, 0)]),
        ],
    )


def _descriptors() -> int:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return limit if limit != resource.RLIM_INFINITY else 2**27


def _clock(name: str, value: Callable[[], int]) -> Term:
    return [
        (Atom("function"), Atom("clock_gettime")),
        (Atom("clock_id"), Atom(name)),
        (Atom("resolution"), clocks.NATIVE_PER_SECOND),
        (Atom("parallel"), Atom("yes")),
        (Atom("time"), value()),
    ]


def _architecture() -> Term:
    return text(sysconfig.get_config_var("HOST_GNU_TYPE") or f"{platform.machine()}-{sys.platform}")


_FIXED: dict[str, Callable[[], Term]] = {
    "logical_processors": lambda: os.cpu_count() or 1,
    "logical_processors_online": lambda: os.cpu_count() or 1,
    "logical_processors_available": cpus,
    "schedulers": cpus,
    "schedulers_online": cpus,
    "schedulers_active": cpus,
    "scheduler_id": lambda: 1,
    "scheduler_bind_type": lambda: Atom("unbound"),
    "multi_scheduling": lambda: Atom("enabled"),
    "dirty_cpu_schedulers": lambda: 0,
    "dirty_cpu_schedulers_online": lambda: 0,
    "dirty_io_schedulers": lambda: 0,
    "otp_release": lambda: text(OTP_RELEASE),
    "version": lambda: text(__version__),
    "system_architecture": _architecture,
    "machine": lambda: text(platform.python_implementation()),
    "kernel_poll": lambda: True,
    "smp_support": lambda: True,
    "threads": lambda: True,
    "thread_pool_size": lambda: 0,
    "wordsize": lambda: WORD,
    "endian": lambda: Atom(sys.byteorder),
    "process_limit": lambda: MAX_PID_ID,
    "port_limit": _descriptors,
    "atom_count": etf.atom_count,
    "atom_limit": lambda: _MAX_ATOMS,
    "ets_count": lambda: 0,
    "ets_limit": lambda: ETS_LIMIT,
    "dist_buf_busy_limit": lambda: 1024 * 1024,
    "alloc_util_allocators": lambda: [*ALLOCATORS],
    "allocator": lambda: (UNDEFINED, [], [*ALLOCATORS], []),
    "build_type": lambda: Atom("opt"),
    "emu_flavor": lambda: Atom("emu"),
    "emu_type": lambda: Atom("opt"),
    "debug_compiled": lambda: False,
    "time_correction": lambda: True,
    "time_warp_mode": lambda: Atom("multi_time_warp"),
    "time_offset": lambda: Atom("volatile"),
    "tolerant_timeofday": lambda: Atom("disabled"),
    "os_system_time_source": lambda: _clock("CLOCK_REALTIME", time.time_ns),
    "os_monotonic_time_source": lambda: _clock("CLOCK_MONOTONIC", time.monotonic_ns),
    "cpu_topology": lambda: UNDEFINED,
    "message_queue_data": lambda: Atom("on_heap"),
    "heap_type": lambda: Atom("private"),
    "port_parallelism": lambda: False,
}
_NEUTRAL: dict[str, Callable[[], Term]] = {
    "run_queue": lambda: 0,
    "run_queue_lengths": lambda: [0] * cpus(),
    "run_queue_lengths_all": lambda: [0] * cpus(),
    "active_tasks": lambda: [0] * cpus(),
    "active_tasks_all": lambda: [0] * cpus(),
    "total_run_queue_lengths": lambda: 0,
    "total_run_queue_lengths_all": lambda: 0,
    "total_active_tasks": lambda: 0,
    "total_active_tasks_all": lambda: 0,
    "garbage_collection": lambda: (sum(each["collections"] for each in gc.get_stats()), 0, 0),
}
