"""What is told of the sockets of an OS process."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from pyglyn.etf import Atom
from pyglyn.node import sockets


def told() -> list[object]:
    """The descriptors of the sockets that are told of."""
    return [about[Atom("fd")] for about in sockets.here()]  # type: ignore[index, call-overload]


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="there is no /proc")
def test_a_socket_is_left_as_it_is() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        before = os.listdir("/proc/self/fd")
        assert sock.fileno() in told()
        assert os.listdir("/proc/self/fd") == before
        assert sock.getsockname()[0] == "127.0.0.1"


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root has them")
def test_a_socket_of_a_family_that_no_tool_knows_is_left_out() -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        assert sock.fileno() not in told()
