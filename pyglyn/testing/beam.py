"""A real Erlang node for tests, driven over its own stdio so that its distribution can be cut at will.

A `Beam` belongs to no event loop: threads carry its pipes, and each call waits in the loop that made it. So
one node can serve many tests, each with an event loop of its own.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from pyglyn.etf import Atom, Limits, Term, decode, encode
from pyglyn.testing import driver, loading
from pyglyn.testing.epmd import PrivateEpmd
from pyglyn.testing.otp import Otp, find_otps
from pyglyn.testing.waiting import patiently

_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 5.0
_LOG_TAIL_BYTES = 20_000

# No shell, and no spinning of idle schedulers: several nodes share the machine with the test.
_QUIET = ("-noinput", "-boot", "start_clean", "+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none")
_INTERFACE = ("-kernel", "inet_dist_use_interface")


class BeamError(Exception):
    """An evaluation on the node raised.

    Attributes:
        kind: ``error``, ``exit`` or ``throw``.
        reason: the term raised; ``(Atom("syntax"), text)`` when the expressions do not parse.
        stack: the stack trace as a term.
    """

    def __init__(self, kind: str, reason: Term, stack: Term, text: str) -> None:
        super().__init__(f"{kind}: {reason!r}\n  evaluating: {text.strip()}")
        self.kind = kind
        self.reason = reason
        self.stack = stack


class BeamDown(ConnectionError):
    """The node's OS process has ended, or was stopped by the test."""


class Beam:
    """A started node. Made by `Beams.start`.

    Attributes:
        name: the full node name, ``beam1@localhost``.
        host: its part after the ``@``.
        cookie: the cookie.
        otp: the OTP release it runs, such as 25.
        os_pid: the operating system's process id.
        epmd_port: the port of the EPMD it registers with.
        log_path: the file with what it printed.
    """

    def __init__(
        self,
        name: str,
        *,
        otp: Otp,
        cookie: str,
        epmd_port: int,
        home: Path,
        args: Sequence[str] = (),
        hidden: bool = False,
        env: Mapping[str, str] | None = None,
        distributed: bool = True,
    ) -> None:
        self.name = name
        self.host = name.partition("@")[2]
        self.cookie = cookie
        self.otp = otp.release
        self.installation = otp
        self.epmd_port = epmd_port
        self.log_path = home / f"{name}-{otp.label}.log"
        self.os_pid = 0
        self._ids = itertools.count(1)
        self._waiting: dict[int, concurrent.futures.Future[tuple[int, bytes]]] = {}
        self._lock = threading.Lock()
        self._down = False
        self._suspended = False
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        loopback = "{0,0,0,0,0,0,0,1}" if any(each.startswith("inet6_") for each in args) else "{127,0,0,1}"
        interface = () if _INTERFACE[1] in args else (*_INTERFACE, loopback)
        naming = (
            (self._name_option(), name, "-setcookie", cookie, "-start_epmd", "false", *interface)
            if distributed
            else ()
        )
        command = [str(otp.erl), *_QUIET, *naming, *(("-hidden",) if hidden else ()), *args]
        self._process = self._spawn(command, self._environment(home, env or {}))

    def _name_option(self) -> str:
        return "-name" if "." in self.host else "-sname"

    def _environment(self, home: Path, extra: Mapping[str, str]) -> dict[str, str]:
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("ERL_", "ROOTDIR", "BINDIR"))
        }
        own = {"HOME": str(home), "ERL_EPMD_PORT": str(self.epmd_port), "ERL_CRASH_DUMP_SECONDS": "0"}
        return {**kept, **own, **self.installation.environment(), **extra}

    def _spawn(self, command: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        answers, answer_end = os.pipe()
        greeting: concurrent.futures.Future[tuple[int, bytes]] = concurrent.futures.Future()
        self._waiting[driver.GREETING] = greeting
        self._greeting = greeting
        try:
            with self.log_path.open("ab") as log:
                process = subprocess.Popen(
                    [*command, "-eval", driver.expressions(answer_end)],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=dict(env),
                    pass_fds=(answer_end,),
                    start_new_session=True,  # an interrupt at the terminal is for the tests, not for the node
                )
        except BaseException:
            os.close(answers)
            raise
        finally:
            os.close(answer_end)
        self._reader = threading.Thread(target=self._read_answers, args=(answers,), daemon=True)
        self._writer = threading.Thread(target=self._write_requests, args=(process,), daemon=True)
        self._reader.start()
        self._writer.start()
        return process

    def wait_started(self) -> None:
        """Wait, blocking, until the node greets.

        Raises:
            BeamDown: it ended, or did not greet in time; the text has what it printed.
        """
        try:
            _status, _term = self._greeting.result(patiently(_START_TIMEOUT_S))
        except (BeamDown, TimeoutError) as error:
            self.kill()
            raise BeamDown(f"{self.name} ({self.installation.erl}) did not start:\n{self.log()}") from error
        self.os_pid = self._process.pid  # the script `erl` is replaced by the emulator

    # --- evaluation ------------------------------------------------------------------------------------

    async def eval(self, text: str, *, timeout: float | None = 10.0, **bindings: Term) -> Term:
        """Evaluate Erlang expressions on the node and return the last one's value.

        Each evaluation has an Erlang process of its own, which ends with it: what it links, monitors or
        registers for itself is gone afterwards, what it spawns lives on. Any number may run at once.

        Args:
            text: expressions separated by commas; the full stop may be left out.
            timeout: seconds until the evaluation is killed (times ``PYGLYN_TEST_PATIENCE``, see
                `pyglyn.testing.eventually`); None for no limit.
            bindings: values for the variables used in ``text``, by their Erlang names (``Pid=pid``).

        Raises:
            BeamError: the expressions raised, do not parse, or their process was killed.
            BeamDown: the node is gone.
            TimeoutError: no result in time.
        """
        limits = Limits(depth=1_000_000, elements=100_000_000, size=1 << 32)
        variables = {name: encode(value) for name, value in bindings.items()}
        status, term = await self._request(text, variables, timeout)
        value = decode(term, limits=limits)
        if status == driver.OK:
            return value
        match value:
            case (Atom() as kind, reason, stack):
                raise BeamError(kind.name, reason, stack, text)
            case _:
                raise AssertionError(f"not an answer of the driver: {value!r}")

    async def eval_bytes(self, text: str, *, timeout: float | None = 10.0, **bindings: bytes) -> bytes:
        """Do as `eval` does, with all terms as bytes: what ``term_to_binary`` gives, both ways.

        Raises:
            BeamError: as for `eval`; the reason is left as bytes.
            BeamDown: the node is gone.
            TimeoutError: no result in time.
        """
        status, term = await self._request(text, bindings, timeout)
        if status == driver.OK:
            return term
        raise BeamError("error", term, b"", text)

    async def _request(
        self, text: str, variables: Mapping[str, bytes], timeout: float | None
    ) -> tuple[int, bytes]:
        request_id = next(self._ids)
        answer: concurrent.futures.Future[tuple[int, bytes]] = concurrent.futures.Future()
        with self._lock:
            if self._down:
                raise BeamDown(f"{self.name} is down:\n{self.log()}")
            self._waiting[request_id] = answer
        self._requests.put(driver.evaluate_request(request_id, text, variables))
        timeout = None if timeout is None else patiently(timeout)
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.wrap_future(answer)
        except TimeoutError:
            raise TimeoutError(f"{self.name} had no result in {timeout} s: {text.strip()}") from None
        finally:
            if self._waiting.pop(request_id, None) is not None:  # given up: timed out or cancelled
                self._requests.put(driver.cancel_request(request_id))

    def _write_requests(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        with process.stdin as pipe:
            try:
                while (frame := self._requests.get()) is not None:
                    pipe.write(frame)
                    pipe.flush()
            except OSError:
                pass  # the node is gone; the reader tells those who wait
            finally:
                _close_quietly(pipe)

    def _read_answers(self, descriptor: int) -> None:
        try:
            with os.fdopen(descriptor, "rb", buffering=1 << 16) as pipe:
                while len(header := pipe.read(4)) == 4:
                    frame = pipe.read(int.from_bytes(header, "big"))
                    request_id, status, term = driver.split_answer(frame)
                    _resolve(self._waiting.pop(request_id, None), (status, term))
        finally:
            with self._lock:
                self._down = True
                left = list(self._waiting.values())
                self._waiting.clear()
            for future in left:
                _fail(future, BeamDown(f"{self.name} went down"))

    # --- modules ---------------------------------------------------------------------------------------

    async def load(self, path: str | os.PathLike[str]) -> None:
        """Compile an Erlang source file and load it into the node.

        The compiler is the node's own, else one of another installation that is not newer. Where there is
        none, the module is interpreted: it works the same, only slower (see `pyglyn.testing.interpreted`).

        Raises:
            SyntaxError: the file does not compile; the text is what the compiler says.
        """
        await loading.load(self, self.otp, Path(path))

    # --- the OS process --------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Tell whether the node's OS process runs."""
        return self._process.poll() is None

    async def disconnect(self, node: str) -> bool:
        """Cut the distribution connection to ``node``; False when there was none."""
        return await self.eval("erlang:disconnect_node(Node)", Node=Atom(node)) is True

    def suspend(self) -> None:
        """Stop the OS process where it stands (SIGSTOP): connections stay open and silent."""
        self._suspended = True
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a suspended OS process go on (SIGCONT)."""
        self._suspended = False
        os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kill the OS process at once (SIGKILL) and wait until it is gone. A second call does nothing."""
        if self._process.poll() is None:
            self._process.kill()
        self._finish()

    async def stop(self) -> None:
        """Halt the node and wait until its OS process is gone. A second call does nothing."""
        await asyncio.to_thread(self.stop_blocking)

    def stop_blocking(self) -> None:
        """Do as `stop` does, blocking."""
        if self._suspended and self._process.poll() is None:
            self.resume()
        self._requests.put(None)
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._finish()

    def _finish(self) -> None:
        self._requests.put(None)
        self._process.wait()
        self._writer.join(_STOP_TIMEOUT_S)
        self._reader.join(_STOP_TIMEOUT_S)

    def log(self) -> str:
        """Return the last part of what the node printed."""
        try:
            with self.log_path.open("rb") as file:
                file.seek(max(0, self.log_path.stat().st_size - _LOG_TAIL_BYTES))
                return file.read().decode(errors="replace")
        except OSError:
            return ""

    def __repr__(self) -> str:
        return f"<Beam {self.name} otp{self.otp} os_pid={self.os_pid}>"


class Beams:
    """Starts nodes that share a private EPMD, and stops them all at the end.

    Attributes:
        cookie: the cookie of nodes for which none is given.
        nodes: all nodes started so far, stopped ones included.
    """

    def __init__(self, epmd: PrivateEpmd, otp: Otp, cookie: str = "pyglyn_testing") -> None:
        self.epmd = epmd
        self.cookie = cookie
        self.nodes: list[Beam] = []
        self._otp = otp
        self._home = Path(tempfile.mkdtemp(prefix="pyglyn-beam-"))

    async def start(
        self,
        name: str | None = None,
        *,
        args: Sequence[str] = (),
        hidden: bool = False,
        cookie: str | None = None,
        env: Mapping[str, str] | None = None,
        otp: int | None = None,
    ) -> Beam:
        """Start a node and wait until it is up.

        Args:
            name: ``inventory`` (then at ``localhost``) or ``inventory@127.0.0.1``; a host with a dot makes it
                a long name. Left out: one that no other node of this machine's tests has.
            args: further arguments for `erl`.
            hidden: start it as a hidden node.
            cookie: its cookie, when not the common one.
            env: further environment variables.
            otp: the OTP release, when not the one of this test.

        Raises:
            BeamDown: it did not start; the text has what it printed.
            LookupError: there is no such OTP release here.
        """
        return await asyncio.to_thread(
            lambda: self.start_blocking(name, args=args, hidden=hidden, cookie=cookie, env=env, otp=otp)
        )

    def start_blocking(
        self,
        name: str | None = None,
        *,
        args: Sequence[str] = (),
        hidden: bool = False,
        cookie: str | None = None,
        env: Mapping[str, str] | None = None,
        otp: int | None = None,
    ) -> Beam:
        """Do as `start` does, blocking."""
        name = name or f"beam{len(self.nodes) + 1}_{os.getpid()}_{os.urandom(3).hex()}"
        beam = Beam(
            name if "@" in name else f"{name}@localhost",
            otp=self._otp if otp is None else _installation(otp),
            cookie=cookie or self.cookie,
            epmd_port=self.epmd.port,
            home=self._home,
            args=args,
            hidden=hidden,
            env=env,
        )
        self.nodes.append(beam)
        beam.wait_started()
        return beam

    def close(self) -> None:
        """Stop all nodes, suspended ones too, and remove their files."""
        for beam in self.nodes:
            beam.kill()
        shutil.rmtree(self._home, ignore_errors=True)


def _installation(release: int) -> Otp:
    for otp in find_otps():
        if otp.release == release:
            return otp
    raise LookupError(f"OTP {release} is not here; found: {[otp.release for otp in find_otps()]}")


def _resolve(future: concurrent.futures.Future[tuple[int, bytes]] | None, answer: tuple[int, bytes]) -> None:
    if future is not None and future.set_running_or_notify_cancel():
        future.set_result(answer)


def _fail(future: concurrent.futures.Future[tuple[int, bytes]], error: Exception) -> None:
    if future.set_running_or_notify_cancel():
        future.set_exception(error)


def _close_quietly(pipe: object) -> None:
    close = getattr(pipe, "close", None)
    try:
        if close is not None:
            close()
    except OSError:
        pass
