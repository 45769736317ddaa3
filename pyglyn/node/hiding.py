"""Taking secrets out of what the operating system shows of this OS process. Layer: node.

Whoever runs ``ps`` sees the arguments of a program, and its user's other programs its environment, which each
program that it starts inherits too.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Final

_ENV_START: Final = 48
"""Where ``/proc/self/stat``, behind the name, says at which address the environment begins; proc(5)."""
_taken: dict[str, str] = {}


def take_from_environment(name: str) -> str | None:
    """A variable's value; from now on programs that are started do not get it, nor does ``/proc`` show it.

    It is known here for as long as the OS process lives, unless it is set again.
    """
    value = os.environ.pop(name, None)
    if value is None:
        return _taken.get(name)
    _taken[name] = value
    with contextlib.suppress(OSError, ValueError, IndexError):
        _overwrite(name)
    return value


def _overwrite(name: str) -> None:
    """Blot the variable out where the kernel put it when the program was started; nobody points there now."""
    if sys.platform != "linux":
        return
    with open("/proc/self/environ", "rb") as file:
        environment = file.read()
    assigned = b"\0" + os.fsencode(name) + b"="
    at = (b"\0" + environment).find(assigned)
    if at < 0:
        return
    begin = at + len(assigned) - 1
    end = environment.find(b"\0", begin)
    with open("/proc/self/stat", "rb") as file:
        address = int(file.read().rpartition(b")")[2].split()[_ENV_START - 1])
    import ctypes  # late, as setproctitle below: not every program has a secret to hide

    ctypes.memset(address + begin, ord("*"), end - begin)


def hide_arguments(secrets: Sequence[str]) -> None:
    """Have ``ps`` show stars where one of these is an argument of this program, or behind a ``=``."""
    hidden = [secret for secret in secrets if secret]
    if hidden:
        from setproctitle import setproctitle

        setproctitle(" ".join(_without(argument, hidden) for argument in sys.orig_argv))


def _without(argument: str, secrets: Sequence[str]) -> str:
    name, equals, value = argument.partition("=")
    if argument in secrets:
        return "***"
    return f"{name}=***" if equals and value in secrets else argument
