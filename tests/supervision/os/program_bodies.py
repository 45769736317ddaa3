"""Bodies of the tests of external programs; each runs in a fresh interpreter, see `tests.supervision.os.fresh`."""

# ruff: noqa: ASYNC240 - nothing else runs in these loops

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from pyglyn.errors import ChildStartError
from pyglyn.etf import Atom, Term
from pyglyn.supervision.os import kernel
from pyglyn.supervision.os.command import ProgramStart, Ready, ReadyFd, ReadyLine, ReadyNotify, ReadyPort
from pyglyn.supervision.os.process import OsProcess
from pyglyn.supervision.os.processes import OsProcesses
from pyglyn.supervision.os.program import MAX_LINE, start_program
from pyglyn.supervision.words import StartMethod
from pyglyn.testing import count_file_descriptors, eventually, free_port
from tests.supervision.os.fresh import descendants, left_over, running

GLIBC_SIGNALS = 0b11 << 31
"""Signals 32 and 33, which glibc keeps for itself and ``posix_spawn`` leaves ignored."""

METHODS = (StartMethod.FORK, StartMethod.SPAWN)


class Records(logging.Handler):
    """Keeps what is logged: level and text, by logger."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, list[tuple[str, str]]] = {}
        logging.getLogger("pyglyn.program").addHandler(self)
        logging.getLogger("pyglyn.program").setLevel(logging.DEBUG)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.setdefault(record.name, []).append((record.levelname, record.getMessage()))

    def texts(self, name: str) -> list[str]:
        return [text for _, text in self.lines.get(f"pyglyn.program.{name}", [])]


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-S", "-c", code)


async def output_goes_to_the_log() -> None:
    records, os_processes = Records(), OsProcesses(owns_orphans=True)
    for method in METHODS:
        shell = ProgramStart(("sh", "-c", "echo one; echo two >&2; printf 'caf\\303\\251 \\377'"))
        child = await start_program(os_processes, shell, name=method.value, method=method)
        assert (await child.wait()).code == 0
        lines = records.lines[f"pyglyn.program.{method}"]
        assert sorted(lines) == [("INFO", "café �"), ("INFO", "one"), ("WARNING", "two")], lines
    lengths = (MAX_LINE - 1, MAX_LINE, MAX_LINE + 1, 300_000)
    code = "import sys\nfor n in %r: sys.stdout.write('x' * n + '\\n')" % (lengths,)  # noqa: UP031
    child = await start_program(os_processes, ProgramStart(python(code)), name="long")
    await child.wait()
    texts = records.texts("long")
    assert sum(map(len, texts)) == sum(lengths)
    assert max(map(len, texts)) <= MAX_LINE
    await os_processes.close()


async def programs_say_when_they_are_ready() -> None:
    records, os_processes = Records(), OsProcesses(owns_orphans=True)
    port = free_port()
    before = Path(tempfile.mkdtemp(), "before")
    wait = f"import os, socket, time; time.sleep(0.3); open({str(before)!r}, 'w').close(); "
    notify = "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); a = os.environ['NOTIFY_SOCKET']; "
    cases: list[tuple[Ready, str]] = [
        (ReadyLine(r"listening on \d+"), wait + "print('listening on 80', flush=True)"),
        (
            ReadyNotify(),
            wait
            + notify
            + "s.sendto(b'STATUS=soon', '\\0' + a[1:]); s.sendto(b'A=b\\nREADY=1', '\\0' + a[1:])",
        ),
        (ReadyFd(), wait + "os.write(int(os.environ['READY_FD']), b'\\n')"),
        (ReadyFd(), wait + "os.system('echo ready >&$READY_FD')"),
        (ReadyPort(port), wait + f"s = socket.create_server(('127.0.0.1', {port}))"),
    ]
    for method in METHODS:
        for number, (ready, code) in enumerate(cases):
            before.unlink(missing_ok=True)
            start = ProgramStart(python(code + "; time.sleep(1000)"), ready=ready)
            child = await start_program(os_processes, start, name=f"p{number}", timeout=20.0, method=method)
            assert before.exists(), f"{ready} by {method} too early"
            assert child.status is None
            assert (await child.stop(10.0)).reason() == (Atom("signal"), 15)
    assert "listening on 80" in records.texts("p0")
    await os_processes.close()


NOTIFY = "import os, socket, sys, time; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); "


def notify_addresses() -> list[str]:
    """The sockets of this OS process that programs tell, from what everybody on the machine may read."""
    return re.findall(rf"@(pyglyn-notify-{os.getpid()}-\w+)", Path("/proc/net/unix").read_text())


async def only_a_program_says_that_it_is_ready() -> None:
    """Or another one of the same user, as systemd-notify is; not a stranger, who can find its socket as well."""
    os_processes = OsProcesses(owns_orphans=True)
    start = ProgramStart(("sleep", "1000"), ready=ReadyNotify())
    starting = asyncio.ensure_future(start_program(os_processes, start, name="p", timeout=30.0))
    (address,) = await eventually(notify_addresses)
    tell = "s.sendto(b'READY=1', '\\0' + sys.argv[1])"
    stranger = await asyncio.create_subprocess_exec(*python(NOTIFY + "os.setuid(65534); " + tell), address)
    assert await stranger.wait() == 0
    for _ in range(20):  # what it has sent is read by then
        await asyncio.sleep(0)
    assert not starting.done()
    own = await asyncio.create_subprocess_exec(*python(NOTIFY + tell), address)
    assert await own.wait() == 0
    await (await starting).stop(10.0)
    become = (
        "os.setuid(65534); s.sendto(b'READY=1', '\\0' + os.environ['NOTIFY_SOCKET'][1:]); time.sleep(1000)"
    )
    child = await start_program(
        os_processes, ProgramStart(python(NOTIFY + become), ready=ReadyNotify()), name="p", timeout=30.0
    )
    await child.stop(10.0)
    await os_processes.close()


async def failed_starts_tell_why() -> None:
    os_processes = OsProcesses(owns_orphans=True)
    before = count_file_descriptors()
    folder = tempfile.mkdtemp()
    plain = Path(folder, "plain")
    plain.write_text("no program")
    plain.chmod(stat.S_IRUSR)
    cases: list[tuple[ProgramStart, Term]] = [
        (ProgramStart(("no-such-program", "x")), (Atom("enoent"), b"no-such-program")),
        (ProgramStart((str(plain),)), (Atom("eacces"), str(plain).encode())),
        (ProgramStart(("sleep", "1000"), cwd="/no/such/folder"), (Atom("enoent"), b"/no/such/folder")),
        (ProgramStart(("sh", "-c", "exit 3"), ready=ReadyNotify()), (Atom("exit_status"), 3)),
        (ProgramStart(("sh", "-c", "exit 0"), ready=ReadyLine("x")), Atom("normal")),
        (ProgramStart(("sh", "-c", "kill -9 $$"), ready=ReadyPort(1)), (Atom("signal"), 9)),
        (ProgramStart(("sleep", "1000"), ready=ReadyFd()), Atom("timeout")),
        (ProgramStart(("sleep", "1000"), ready=ReadyPort(1)), Atom("timeout")),
    ]
    for method in METHODS:
        for start, reason in cases:
            timeout = 2.0 if reason is Atom("timeout") else 30.0
            with pytest.raises(ChildStartError) as caught:
                await start_program(os_processes, start, name="p", timeout=timeout, method=method)
            assert caught.value.reason == reason, f"{start}: {caught.value.reason}"
            assert caught.value.child_id == "p"
    assert os_processes.running == []
    assert count_file_descriptors() == before
    plain.unlink()
    os.rmdir(folder)
    await os_processes.close()


async def a_cancelled_start_kills_the_program() -> None:
    os_processes = OsProcesses(owns_orphans=True)
    before = count_file_descriptors()
    start = ProgramStart(("sh", "-c", "sleep 1000 & sleep 1000"), ready=ReadyFd())
    starting = asyncio.create_task(start_program(os_processes, start, name="p"))
    await eventually(lambda: len(running(os.getpid())) == 3)
    family = descendants(os.getpid())
    starting.cancel()
    with suppress(asyncio.CancelledError):
        await starting
    await eventually(lambda: not left_over(family))
    assert count_file_descriptors() == before
    await os_processes.close()


async def a_program_begins_clean() -> None:
    records, os_processes = Records(), OsProcesses(owns_orphans=True)
    os.environ["TAKEN"] = "away"
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    with tempfile.TemporaryDirectory() as folder:
        script = "pwd; echo $GIVEN ${TAKEN-unset}; ls /proc/self/fd | tr '\\n' ' '; echo; ps -o sid=,pid= $$"
        script += "; grep -E 'Sig(Blk|Ign)' /proc/self/status; cat"
        start = ProgramStart(("sh", "-c", script), {"GIVEN": "more", "TAKEN": None}, cwd=folder)
        for method in METHODS:
            child = await start_program(os_processes, start, name=method.value, method=method)
            assert (await child.wait()).code == 0, records.lines
            pwd, variables, fds, session, blocked, ignored = records.texts(method.value)
            assert os.path.realpath(pwd) == os.path.realpath(folder)
            assert variables == "more unset"
            assert fds.split() == ["0", "1", "2", "3"], f"{method}: {fds}"  # 3 is the listing itself
            assert session.split() == [str(child.os_pid)] * 2
            assert int(blocked.split()[1], 16) == 0
            own = int(ignored.split()[1], 16) & ~GLIBC_SIGNALS
            assert own == 0, f"{method}: {ignored}"
    await os_processes.close()


async def a_stopped_program_leaves_nothing() -> None:
    """Also one that does not care about SIGTERM and has a family that holds its output open."""
    os_processes = OsProcesses(owns_orphans=True)
    before = count_file_descriptors()
    script = "trap '' TERM; sleep 1000 & setsid sleep 1000 & (setsid sleep 1000 &) ; echo ready; wait; wait"
    start = ProgramStart(("sh", "-c", script), ready=ReadyLine("ready"))
    child: OsProcess = await start_program(os_processes, start, name="p", timeout=10.0)
    await eventually(lambda: len(running(os.getpid())) == 4)
    family = descendants(os.getpid())
    assert (await child.stop(0.3)).reason() == (Atom("signal"), 9)
    await eventually(lambda: not left_over(family))
    await eventually(lambda: count_file_descriptors() == before)
    assert kernel.os_children() == []
    await os_processes.close()


async def a_flood_of_output_does_not_block_the_loop() -> None:
    os_processes = OsProcesses(owns_orphans=True)
    logging.getLogger("pyglyn.program").setLevel(logging.CRITICAL)
    child = await start_program(os_processes, ProgramStart(("yes",)), name="p")
    async with asyncio.timeout(180):
        for _ in range(1000):
            await asyncio.sleep(0)
    child.kill()
    assert (await child.wait()).signal == 9
    await os_processes.close()
