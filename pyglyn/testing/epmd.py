"""A private EPMD for the nodes of one test session: its own port, gone when the session is."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from pyglyn.testing.otp import find_otps
from pyglyn.testing.waiting import patiently

EPMD_PORT = "ERL_EPMD_PORT"
"""The environment variable with which OTP, and pyglyn, are told the port of EPMD."""

_GIVEN = Path("/proc/sys/net/ipv4/ip_local_port_range")
_PORTS = 16_000

_START_TIMEOUT_S = 10.0
_ATTEMPTS = 5

# The shell holds EPMD and waits for the end of its input, which comes even when this process is killed.
_HOLDER = '"$@" </dev/null & read -r _; kill $!; wait $!'


def free_port() -> int:
    """Return a TCP port of the loopback interface that nothing uses at the moment.

    The system gives it to nobody who connects, or listens on any port, so it is free still when it is taken.
    """
    below = _first_given()
    for _ in range(1000):
        port = below - 1 - secrets.randbelow(_PORTS)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise OSError(f"no port of the loopback interface below {below} can be listened on")


def _first_given() -> int:
    """Return the first port that the system gives to who connects; on Linux unless told otherwise 32768."""
    try:
        first = int(_GIVEN.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        first = 0
    return first if first > 1024 + _PORTS else 32768


class PrivateEpmd:
    """A real EPMD on a free port of the loopback interface; a context manager.

    Where no EPMD program is found it is only a port on which nothing listens, and `running` is False: the
    embedded EPMD of a Python node can then take it.

    Attributes:
        port: the TCP port.
        running: whether an EPMD program serves it.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.running = False
        self._holder: subprocess.Popen[bytes] | None = None

    @property
    def env(self) -> dict[str, str]:
        """Return the environment variable that points OTP programs and Python nodes here."""
        return {EPMD_PORT: str(self.port)}

    def start(self) -> None:
        """Start it and wait until it accepts connections.

        Raises:
            RuntimeError: it did not start.
        """
        program = next((otp.epmd for otp in find_otps() if otp.epmd), None)
        if program is None:
            return
        for _attempt in range(_ATTEMPTS):
            self._start_program(program)
            if self._wait_until_open():
                self.running = True
                return
            self.stop()
            self.port = free_port()
        raise RuntimeError(f"{program} did not start in {_ATTEMPTS} attempts")

    def stop(self) -> None:
        """Stop it. A second call does nothing."""
        self.running = False
        if self._holder is None:
            return
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        try:
            self._holder.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            self._holder.kill()
            self._holder.wait()
        self._holder = None

    def _start_program(self, program: Path) -> None:
        command = [str(program), "-port", str(self.port), "-address", "127.0.0.1", "-relaxed_command_check"]
        env = {name: value for name, value in os.environ.items() if not name.startswith("ERL_")}
        self._holder = subprocess.Popen(
            ["/bin/sh", "-c", _HOLDER, "epmd", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=env,
            start_new_session=True,  # an interrupt at the terminal is for us, not for EPMD
        )

    def _wait_until_open(self) -> bool:
        assert self._holder is not None
        deadline = time.monotonic() + patiently(_START_TIMEOUT_S)
        while time.monotonic() < deadline:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1.0):
                    return True
            except OSError:
                time.sleep(0.01)
        return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
