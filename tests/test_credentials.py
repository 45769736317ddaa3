"""What the kernel says of who is at the other end of a Unix socket."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from pyglyn import credentials

linux = pytest.mark.skipif(sys.platform != "linux", reason="the system does not tell")


@linux
def test_the_user_at_the_other_end_is_known_and_the_socket_stays_open() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert credentials.user_of(ours) == os.geteuid()
        theirs.send(b"x")
        assert ours.recv(1) == b"x"


@linux
def test_what_comes_beside_a_datagram_says_who_has_sent_it() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        theirs.send(b"x")
        _, [(_, _, beside)], _, _ = ours.recvmsg(1, socket.CMSG_SPACE(credentials.SIZE))
    assert credentials.unpack(beside) == (os.getpid(), os.geteuid(), os.getegid())


def test_this_user_and_root_may_talk_and_whoever_the_system_does_not_tell() -> None:
    assert credentials.may_talk(os.geteuid())
    assert credentials.may_talk(credentials.ROOT)
    assert credentials.may_talk(None)
    assert not credentials.may_talk(54321)
