"""What ``erlang:process_info/1,2`` says of a process of the node. Layer: node.

Source: erlang(3), "process_info"; the items and the shapes of their values are those of OTP 25 and 28.

What a Python process has not got is said by a neutral value of the same type:

- ``heap_size``, ``stack_size``, ``total_heap_size`` and all of ``garbage_collection`` are 0;
- ``memory`` is what its OS process has in memory, and ``reductions`` the microseconds of CPU time it has
  used, for processes that have an OS process to themselves: the main ones of workers and what stands for a
  program; of others it is 0;
- ``priority`` is ``normal``, ``error_handler`` is ``error_handler``, ``message_queue_data`` is ``on_heap``;
  ``suspending``, ``binary``, ``magic_ref`` and ``sequential_trace_token`` are empty, ``trace`` is 0.

``initial_call`` is ``{python, Label, 1}``; ``current_function`` and its like name the Python function that
the process is in (see ``frames``), with the file's name as the module; ``backtrace`` has all there are.
``dictionary`` has ``$initial_call``, ``$ancestors`` (the supervisors above it in its OS process, and the one
above those), and what the body put into ``Process.dictionary``, as text where it is no term.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

import attrs

from pyglyn import etf
from pyglyn.errors import EncodeError
from pyglyn.etf import Atom, Pid, Term
from pyglyn.node import frames
from pyglyn.node.exits import atom_of
from pyglyn.node.inspection import cpu_use, resident_memory
from pyglyn.node.process import Process
from pyglyn.node.reasons import UNDEFINED
from pyglyn.node.signals import MonitorTarget

REGISTERED_NAME, DICTIONARY = Atom("registered_name"), Atom("dictionary")
MEMORY, REDUCTIONS = Atom("memory"), Atom("reductions")
OF_OS_PROCESS = (MEMORY, REDUCTIONS)
"""The items for which an OS process has to be looked at."""
WAITING, RUNNING = Atom("waiting"), Atom("running")
PROCESS = Atom("process")


@attrs.frozen
class Facts:
    """What is known of a process; the defaults are those of one that does not answer.

    Attributes:
        names: what it is registered as.
        label: what it runs.
        parent: who started it as a child.
        links, monitors, watchers: the other ends.
        messages: what waits in its mailbox.
        frames: the Python frames it is in, innermost last.
        ancestors: its supervisors, as names or pids.
    """

    names: list[str]
    label: str
    links: list[Pid]
    monitors: list[MonitorTarget]
    watchers: list[Pid]
    group_leader: Pid | None = None
    parent: Pid | None = None
    ancestors: list[Term] = attrs.field(factory=list)
    message_queue_len: int = 0
    messages: Callable[[], list[Term]] = list
    frames: Callable[[], list[FrameType]] = list
    status: Atom = RUNNING
    trap_exit: bool = False
    dictionary: dict[str, Any] = attrs.field(factory=dict)
    memory: int = 0
    reductions: int = 0


def facts(process: Process, os_pid: int | None = None) -> Facts:
    """What is known of a process of this OS process.

    Args:
        os_pid: the OS process that it stands for.
    """
    task = process.task
    memory = 0 if os_pid is None else resident_memory(os_pid)
    return Facts(
        names=[*process.names],
        label=process.label,
        links=[pid for pid, state in process.signals.links.items() if state == 0],
        monitors=list(process.signals.monitors.values()),
        watchers=[watcher for watcher, _ in process.signals.watchers.values()],
        group_leader=process.group_leader or process.runtime.group_leader or process.pid,
        parent=process.parent,
        ancestors=_ancestors(process),
        message_queue_len=process.message_queue_len,
        messages=lambda: [_as_term(message) for message in process.waiting_messages],
        frames=lambda: frames.of_task(task),
        status=RUNNING if task is not None and task is asyncio.current_task() else WAITING,
        trap_exit=process.trap_exit,
        dictionary=process.dictionary,
        memory=memory if isinstance(memory, int) else 0,
        reductions=0 if os_pid is None else cpu_use(os_pid).own_us,
    )


def _ancestors(process: Process) -> list[Term]:
    found: list[Term] = []
    while process.parent is not None:
        pid = process.parent
        here = process.runtime.processes.get(pid.id) if process.runtime.is_here(pid) else None
        found.append(atom_of(here.name) if here is not None and here.name is not None else pid)
        if here is None or here is process:
            break
        process = here
    return found


def _as_term(value: Any) -> Term:
    """A term as it is; anything else (messages within this OS process may be) as text."""
    try:
        return etf.normalise(value)
    except EncodeError:
        return repr(value).encode("utf-8", "replace")


def _stack(about: Facts) -> list[tuple[Term, ...]]:
    """The stack trace, innermost call first."""
    return frames.calls(about.frames()) or [(*_initial_call(about), [])]


def _initial_call(about: Facts) -> tuple[Term, ...]:
    return (Atom("python"), atom_of(about.label or "process"), 1)


def _dictionary(about: Facts) -> list[tuple[Term, Term]]:
    own: list[tuple[Term, Term]] = [
        (Atom("$initial_call"), _initial_call(about)),
        (Atom("$ancestors"), about.ancestors),
    ]
    return own + [(atom_of(str(key)), _as_term(value)) for key, value in about.dictionary.items()]


def _backtrace(about: Facts) -> bytes:
    lines = [
        f"{os.path.basename(f.f_code.co_filename)}:{f.f_lineno} {f.f_code.co_name}" for f in about.frames()
    ]
    return "".join(f"{line}\n" for line in reversed(lines)).encode("utf-8", "replace")


_MAX_HEAP_SIZE: dict[Term, Term] = {
    Atom("error_logger"): True,
    Atom("include_shared_binaries"): False,
    Atom("kill"): True,
    Atom("size"): 0,
}


def _zeros(names: str) -> list[Term]:
    return [(Atom(name), 0) for name in names.split()]


_ITEMS: dict[str, Callable[[Facts], Any]] = {
    "registered_name": lambda f: atom_of(f.names[0]) if f.names else [],
    "current_function": lambda f: _stack(f)[0][:3],
    "initial_call": _initial_call,
    "status": lambda f: f.status,
    "message_queue_len": lambda f: f.message_queue_len,
    "links": lambda f: f.links,
    "dictionary": _dictionary,
    "trap_exit": lambda f: f.trap_exit,
    "error_handler": lambda f: Atom("error_handler"),
    "priority": lambda f: Atom("normal"),
    "group_leader": lambda f: f.group_leader or UNDEFINED,
    "total_heap_size": lambda f: 0,
    "heap_size": lambda f: 0,
    "stack_size": lambda f: 0,
    "reductions": lambda f: f.reductions,
    "garbage_collection": lambda f: [
        (Atom("max_heap_size"), _MAX_HEAP_SIZE),
        *_zeros("min_bin_vheap_size min_heap_size fullsweep_after minor_gcs"),
    ],
    "suspending": lambda f: [],
    # What comes only when asked for:
    "async_dist": lambda f: False,
    "backtrace": _backtrace,
    "binary": lambda f: [],
    "catchlevel": lambda f: 0,
    "current_location": lambda f: _stack(f)[0],
    "current_stacktrace": _stack,
    "fullsweep_after": lambda f: 0,
    "garbage_collection_info": lambda f: _zeros(
        "old_heap_block_size heap_block_size mbuf_size recent_size stack_size old_heap_size heap_size "
        "bin_vheap_size bin_vheap_block_size bin_old_vheap_size bin_old_vheap_block_size"
    ),
    "label": lambda f: f.label.encode("utf-8", "replace"),
    "last_calls": lambda f: False,
    "magic_ref": lambda f: [],
    "max_heap_size": lambda f: _MAX_HEAP_SIZE,
    "memory": lambda f: f.memory,
    "message_queue_data": lambda f: Atom("on_heap"),
    "messages": lambda f: f.messages(),
    "min_bin_vheap_size": lambda f: 0,
    "min_heap_size": lambda f: 0,
    "monitored_by": lambda f: f.watchers,
    "monitors": lambda f: [
        (PROCESS, target if isinstance(target, Pid) else (target[0], Atom(target[1])))
        for target in f.monitors
    ],
    "parent": lambda f: f.parent or UNDEFINED,
    "priority_messages": lambda f: False,
    "sequential_trace_token": lambda f: [],
    "trace": lambda f: 0,
}
DEFAULT_ITEMS = [Atom(name) for name in list(_ITEMS)[:17]]
"""What ``process_info/1`` gives, in OTP's order; ``registered_name`` only if there is one."""


def is_item(item: Term) -> bool:
    """Whether ``process_info`` has an item: a name, or ``{dictionary, Key}``."""
    if isinstance(item, tuple):
        return len(item) == 2 and item[0] is DICTIONARY
    return isinstance(item, Atom) and item.name in _ITEMS


def items(about: Facts, wanted: Iterable[Term]) -> list[tuple[Term, Term]]:
    """The pairs for some items."""
    return [(item, _value(about, item)) for item in wanted]


def _value(about: Facts, item: Any) -> Term:
    if isinstance(item, tuple):
        entries = [value for key, value in _dictionary(about) if etf.exact_key(key) == etf.exact_key(item[1])]
        return entries[0] if entries else UNDEFINED
    value: Term = _ITEMS[item.name](about)
    return value
