"""External programs as children: logged output, and readiness as they announce it.

Layer: supervision/os.

Readiness is one of `ReadyLine`, `ReadyNotify` (sd_notify(3)), `ReadyFd` and `ReadyPort`. Output is read as it
comes, line by line: what stdout says is logged as information, what stderr says as a warning, both under
``pyglyn.program.<name>``. A line longer than `MAX_LINE` bytes is logged in pieces.

Not supported: input to a program (its stdin is empty), and ``sd_notify`` messages other than ``READY=1``.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import re
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Final, NoReturn

import attrs

from pyglyn import credentials, forks, patience
from pyglyn.errors import ChildStartError
from pyglyn.etf import Atom, Term
from pyglyn.supervision.os import kernel
from pyglyn.supervision.os.child import ChildSide
from pyglyn.supervision.os.command import ProgramStart, ReadyFd, ReadyLine, ReadyNotify, ReadyPort
from pyglyn.supervision.os.deaths import ExitStatus
from pyglyn.supervision.os.process import OsProcess
from pyglyn.supervision.os.processes import OsProcesses
from pyglyn.supervision.words import StartMethod

MAX_LINE: Final = 16 * 1024
_READ = 4 * 1024
"""Bytes read at a time: few enough lines to log that others get their turn in between."""
_LAST_READS = 1024
"""How often it is read once the program has ended: a stray that writes on is not waited for."""
_READY_FD = 3
"""The number every shell can write to."""
_EXIT_NOT_STARTED = 127
_FOLDER = "cwd"
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.01, 0.2


async def start_program(
    os_processes: OsProcesses,
    start: ProgramStart,
    *,
    name: str,
    title: str | None = None,
    timeout: float | None = None,
    method: StartMethod = StartMethod.FORK,
) -> OsProcess:
    """Start a program and wait until it is ready.

    Args:
        os_processes: whose child it becomes.
        start: what to run.
        name: for its log.
        title: shown by ``ps`` until the program runs; then its own command line is.
        timeout: seconds it has for becoming ready; when they are over, or this is cancelled, it is killed.
        method: how the OS process is made that becomes the program.

    Raises:
        ChildStartError: it cannot be run, ended before it was ready, or was not ready in time. The reason is
            ``{enoent, Argv0}`` or another error's name, its exit reason, or ``timeout``.
        OSError, ForkUnsafe: as for `OsProcesses.start`.
    """
    begun = _Start(start, name)
    with contextlib.ExitStack() as ends:
        child = begun.launch(ends, os_processes, title or name, method)
    try:
        async with patience.timeout(timeout):
            await begun.wait_until_ready(child)
    except TimeoutError:
        child.kill()
        await child.wait()
        raise _start_error(name, Atom("timeout"), f"was not ready within {timeout} s") from None
    except BaseException:
        child.kill()
        await child.wait()
        raise
    finally:
        begun.close()
    return child


def _start_error(name: str, reason: Term, text: str) -> ChildStartError:
    return ChildStartError(f"program {name} {text}", child_id=name, reason=reason)


@attrs.frozen
class _Execute:
    """What the child's OS process runs: it becomes the program. Its descriptors have names, see `_Start`."""

    start: ProgramStart
    notify: str | None

    def __call__(self, side: ChildSide) -> NoReturn:
        status = side.fds["status"]
        os.set_inheritable(status, False)
        try:
            for name, number in (("stdout", 1), ("stderr", 2)):
                os.dup2(side.fds[name], number)
                os.close(side.fds[name])
            if self.start.cwd is not None:
                self._change_folder(self.start.cwd, status)
            if "ready" in side.fds:
                status = self._move_ready(side.fds["ready"], status)
            for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(ignored, signal.SIG_DFL)
            os.execvpe(self.start.argv[0], self.start.argv, self._environment(side))
        except OSError as error:
            os.write(status, str(error.errno or 0).encode())
        os._exit(_EXIT_NOT_STARTED)

    @staticmethod
    def _change_folder(folder: str, status: int) -> None:
        try:
            os.chdir(folder)
        except OSError as error:
            os.write(status, f"{error.errno or 0} {_FOLDER}".encode())
            os._exit(_EXIT_NOT_STARTED)

    @staticmethod
    def _move_ready(ready: int, status: int) -> int:
        """Give the readiness descriptor its number; returns the one that the status pipe has then."""
        if status == _READY_FD:
            status = os.dup(status)
        os.dup2(ready, _READY_FD)
        return status

    def _environment(self, side: ChildSide) -> dict[str, str]:
        environment = dict(os.environ)
        for key, value in self.start.env.items():
            if value is None:
                environment.pop(key, None)
            else:
                environment[key] = value
        if self.notify is not None:
            environment["NOTIFY_SOCKET"] = self.notify
        if "ready" in side.fds:
            environment["READY_FD"] = str(_READY_FD)
        return environment


class _Start:
    """One start of a program, until it is ready."""

    def __init__(self, start: ProgramStart, name: str) -> None:
        self._start = start
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._executed: asyncio.Future[tuple[int, str]] = self._loop.create_future()
        self._open = contextlib.ExitStack()
        self._notify: str | None = None
        self._os_pid = 0

    def launch(
        self, ends: contextlib.ExitStack, os_processes: OsProcesses, title: str, method: StartMethod
    ) -> OsProcess:
        """Make the OS process; ``ends`` closes the child's descriptors on our side."""
        pattern = self._start.ready.pattern if isinstance(self._start.ready, ReadyLine) else None
        outputs = []
        try:
            fds: dict[str, int] = {}
            for stream, level in (("stdout", logging.INFO), ("stderr", logging.WARNING)):
                reading, fds[stream] = _pipe(ends)
                output = Output(reading, f"pyglyn.program.{self._name}", level)
                if pattern is not None:
                    output.watch(pattern, self._now_ready)
                outputs.append(output)
            reading, fds["status"] = _pipe(ends)
            self._read_once(reading, self._execution)
            if isinstance(self._start.ready, ReadyFd):
                reading, fds["ready"] = _pipe(ends)
                self._read_once(reading, lambda data: self._now_ready() if data else None)
            elif isinstance(self._start.ready, ReadyNotify):
                self._notify = self._listen_for_notification()
            main = _Execute(self._start, self._notify)
            child = os_processes.start(main, title=title, fds=fds, method=method)
            self._os_pid = child.os_pid
        except BaseException:
            for output in outputs:
                output.close()
            self.close()
            raise
        for output in outputs:
            child.on_exit(output.finish)
        return child

    async def wait_until_ready(self, child: OsProcess) -> None:
        """Wait until the program runs and is ready, or raise what happened instead."""
        number, what = await self._executed
        if number:
            name = errno.errorcode.get(number, str(number)).lower()
            if what == _FOLDER:
                folder = str(self._start.cwd)
                text = f"cannot be run in {folder}: {os.strerror(number)}"
                raise _start_error(self._name, (Atom(name), folder.encode(errors="replace")), text)
            reason = (Atom(name), self._start.argv[0].encode())
            raise _start_error(self._name, reason, f"cannot be run: {os.strerror(number)}")
        if self._start.ready is None:
            return
        child.on_exit(self._ended)
        if isinstance(self._start.ready, ReadyPort):
            await self._connect(self._start.ready)
        else:
            await self._ready

    def close(self) -> None:
        """Close what was only needed for starting."""
        self._open.close()
        for future in (self._ready, self._executed):
            if future.done() and not future.cancelled():
                future.exception()
            future.cancel()

    def _now_ready(self) -> None:
        if not self._ready.done():
            self._ready.set_result(None)

    def _ended(self, status: ExitStatus) -> None:
        if not self._ready.done():
            reason = status.reason()
            self._ready.set_exception(
                _start_error(self._name, reason, f"ended before it was ready: {reason!r}")
            )

    def _execution(self, data: bytes) -> None:
        """The status pipe was closed: by exec, or after the number of an error."""
        if not self._executed.done():
            number, _, what = data.decode().partition(" ")
            self._executed.set_result((int(number or 0), what))

    def _read_once(self, fd: int, then: Callable[[bytes], None]) -> None:
        """Call a function with what comes first from a pipe; with nothing when it is closed."""
        os.set_blocking(fd, False)

        def read() -> None:
            with contextlib.suppress(BlockingIOError):
                data = os.read(fd, 512)
                self._loop.remove_reader(fd)
                then(data)

        self._loop.add_reader(fd, read)
        self._open.callback(os.close, fd)
        self._open.callback(self._loop.remove_reader, fd)

    def _listen_for_notification(self) -> str:
        """Bind the socket for ``READY=1``; on Linux an abstract one, which leaves no file."""
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._open.enter_context(receiver)
        if os.path.isdir("/proc/self"):
            address = f"@pyglyn-notify-{os.getpid()}-{secrets.token_hex(8)}"
            receiver.bind("\0" + address[1:])
        else:
            folder = self._open.enter_context(tempfile.TemporaryDirectory(prefix="pyglyn-"))
            address = os.path.join(folder, "notify")
            receiver.bind(address)
        receiver.setblocking(False)

        if sys.platform == "linux":
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

        def read() -> None:
            # One in a turn of the event loop: anybody on the machine can send as many as they like.
            with contextlib.suppress(BlockingIOError):
                told, more, _, _ = receiver.recvmsg(4096, socket.CMSG_SPACE(credentials.SIZE))
                if b"READY=1" in told.split(b"\n") and all(self._is_of_program(each) for _, _, each in more):
                    self._now_ready()

        self._loop.add_reader(receiver, read)
        self._open.callback(self._loop.remove_reader, receiver)
        return address

    def _is_of_program(self, beside: bytes) -> bool:
        """Whether who has sent something is of this user, or root, or the program, or below it."""
        os_pid, user, _ = credentials.unpack(beside)
        if credentials.may_talk(user):
            return True
        while os_pid > 1 and os_pid != self._os_pid:
            found = kernel.os_stat(os_pid)
            os_pid = 0 if found is None else found.parent
        return os_pid > 1

    async def _connect(self, ready: ReadyPort) -> None:
        """Try to connect until it works; nothing else can tell that a port is open."""
        pause = _FIRST_PAUSE_S
        while True:
            if self._ready.done():
                await self._ready  # it ended: raises that
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(ready.host, ready.port)
                writer.close()
                return
            await asyncio.wait([self._ready], timeout=pause)
            pause = min(pause * 2, _LONGEST_PAUSE_S)


def _pipe(ends: contextlib.ExitStack) -> tuple[int, int]:
    reading, writing = os.pipe()
    ends.callback(os.close, writing)
    return reading, writing


class Output:
    """Reads a program's output from a pipe and logs it.

    Args:
        fd: the reading end; it is closed at the end of the output, or by `finish` or `close`.
        logger: name of the logger.
        level: of its records.
    """

    def __init__(self, fd: int, logger: str, level: int) -> None:
        self._fd: int | None = forks.keep_number(fd)
        self._logger = logging.getLogger(logger)
        self._level = level
        self._rest = b""
        self._pattern: re.Pattern[str] | None = None
        self._matched: Callable[[], None] | None = None
        self._loop = asyncio.get_running_loop()
        os.set_blocking(fd, False)
        self._loop.add_reader(fd, self._read)

    def watch(self, pattern: str, matched: Callable[[], None]) -> None:
        """Call a function for the first line that matches."""
        self._pattern, self._matched = re.compile(pattern), matched

    def _read(self) -> bool:
        """Log what is there; False when nothing is, for now or for ever."""
        if self._fd is None:
            return False
        try:
            data = os.read(self._fd, _READ)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        for line in self._lines(data):
            text = line.decode(errors="replace").rstrip("\r\n")
            self._logger.log(self._level, "%s", text)
            if self._pattern is not None and self._matched is not None and self._pattern.search(text):
                self._matched()
                self._pattern = None
        if not data:
            self.close()
        return bool(data)

    def _lines(self, data: bytes) -> Iterator[bytes]:
        """Complete lines; at the end of the output also an incomplete one."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            for start in range(0, len(line) or 1, MAX_LINE):
                yield line[start : start + MAX_LINE]
        while len(self._rest) > MAX_LINE:
            yield self._rest[:MAX_LINE]
            self._rest = self._rest[MAX_LINE:]
        if not data and self._rest:
            yield self._rest
            self._rest = b""

    def finish(self, status: ExitStatus) -> None:
        """The program ended: log what is left in the pipe and close it, whoever else still holds it."""
        for _ in range(_LAST_READS):
            if not self._read():
                break
        self.close()

    def close(self) -> None:
        """Read no more."""
        if self._fd is not None:
            self._loop.remove_reader(self._fd)
            forks.close_number(self._fd)
            self._fd = None
