"""Run a command with something refused, as sandboxes and containers do.

``python -m tests.supervision.sandbox proc memfd_create … -- command``: ``proc`` hides ``/proc`` (as root, in a
mount namespace of its own), the others are system calls that a filter answers with EPERM.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import subprocess
import sys

NUMBERS = {
    "x86_64": {"arch": 0xC000003E, "memfd_create": 319, "pidfd_send_signal": 424, "pidfd_open": 434},
    "aarch64": {"arch": 0xC00000B7, "memfd_create": 279, "pidfd_send_signal": 424, "pidfd_open": 434},
}
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD_NUMBER, LOAD_ARCH = (0x20, 0, 0, 0), (0x20, 0, 0, 4)
JUMP_IF_EQUAL, RETURN = 0x15, 0x06
ALLOW, REFUSE_EPERM = 0x7FFF0000, 0x00050001
HIDE_PROC = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"]


class Filter(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]


def refuse(calls: list[str]) -> None:
    """Have the kernel refuse these system calls to this OS process, and to all that come of it."""
    numbers = NUMBERS[platform.machine()]
    program = [LOAD_ARCH, (JUMP_IF_EQUAL, 1, 0, numbers["arch"]), (RETURN, 0, 0, ALLOW), LOAD_NUMBER]
    for call in calls:
        program += [(JUMP_IF_EQUAL, 0, 1, numbers[call]), (RETURN, 0, 0, REFUSE_EPERM)]
    program.append((RETURN, 0, 0, ALLOW))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    libc = ctypes.CDLL(None, use_errno=True)
    filter = Filter(len(program), ctypes.addressof(code))
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(filter), 0, 0):
        raise OSError(ctypes.get_errno(), "the filter is refused")


def can_refuse() -> bool:
    """Whether this machine has such filters."""
    if platform.machine() not in NUMBERS:
        return False
    probe = "import os; from tests.supervision import sandbox; sandbox.refuse(['memfd_create']); os.memfd_create('x')"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    return "PermissionError" in done.stderr


def can_hide_proc() -> bool:
    """Whether this user may hide ``/proc``."""
    try:
        return subprocess.run([*HIDE_PROC, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def main() -> None:
    """Refuse what is said, then become the command."""
    border = sys.argv.index("--")
    refused, command = sys.argv[1:border], sys.argv[border + 1 :]
    if calls := [each for each in refused if each != "proc"]:
        refuse(calls)
    if "proc" in refused:
        command = [*HIDE_PROC, *command]
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
