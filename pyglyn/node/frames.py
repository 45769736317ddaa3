"""Which function a process is in, as people look for it. Layer: node.

A process that waits is deep in what waiting is made of: the innermost frame of nearly all of them is the
same one, and says nothing. So frames of this package's mailboxes and turns, and of Python's own library,
are left out, and of the rest only the application's count, if there are any: what is told of is the
function that has called ``receive``, ``call`` or ``sleep``. Where there is nothing of the application, as in
a server that has nothing to do, it is the function of this package that waits for it.
"""

from __future__ import annotations

import asyncio
import os
import sysconfig
from types import FrameType
from typing import Any, Final

from pyglyn.etf import Term
from pyglyn.node.exits import MAX_STACK_FRAMES, call_site, is_own_code

_PACKAGE: Final = os.path.dirname(os.path.dirname(__file__))
_WAITING: Final = frozenset(
    os.path.join(_PACKAGE, *parts)
    for parts in (("loop_turn.py",), ("node", "mailbox.py"), ("node", "process.py"))
)
"""What every process of this package waits in, or is run by."""
_LIBRARY: Final = tuple(
    {f"{sysconfig.get_path(name)}{os.sep}" for name in ("stdlib", "platstdlib")} | {"<frozen "}
)
_INSTALLED: Final = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


def of_task(task: asyncio.Task[Any] | None) -> list[FrameType]:
    """The frames of a task's coroutines, outermost first."""
    found: list[FrameType] = []
    awaited: Any = None if task is None else task.get_coro()
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None:
            found.append(frame)
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    return found


def telling(frames: list[FrameType]) -> list[FrameType]:
    """Of frames, outermost first, those to tell of, innermost first."""
    known = [frame for frame in frames if frame.f_code.co_filename not in _WAITING]
    chosen = [frame for frame in known if _is_of_application(frame.f_code.co_filename)]
    if not chosen:
        chosen = [frame for frame in known if is_own_code(frame.f_code.co_filename)]
        while chosen and _is_private(chosen[-1]) and not all(map(_is_private, chosen)):
            chosen.pop()
    return chosen[: -MAX_STACK_FRAMES - 1 : -1]


def calls(frames: list[FrameType]) -> list[tuple[Term, ...]]:
    """A stack trace of them, innermost call first."""
    return [
        call_site(f.f_code.co_filename, f.f_code.co_name, f.f_code.co_argcount, f.f_lineno)
        for f in telling(frames)
    ]


def name(frames: list[FrameType]) -> str:
    """The function a process is in, as ``module:function/arity``; empty where nothing is known."""
    for module, function, arity, _ in calls(frames)[:1]:
        return f"{module!s}:{function!s}/{arity!s}"
    return ""


def _is_private(frame: FrameType) -> bool:
    return frame.f_code.co_name.startswith("_")


def _is_of_application(filename: str) -> bool:
    if is_own_code(filename):
        return False
    return not filename.startswith(_LIBRARY) or any(part in filename for part in _INSTALLED)
