"""EPMD's messages (erl_dist_protocol, "EPMD Protocol")."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyglyn.dist import epmd
from pyglyn.dist.epmd import NodeEntry
from pyglyn.errors import EpmdError, RemoteProtocolError

PY = NodeEntry(name="py", port=0x1234)
PY_BYTES = b"\x12\x34\x48\0\0\6\0\5\0\2py\0\0"


def test_a_registration_is_written_as_the_specification_says() -> None:
    assert epmd.encode_alive2(PY) == b"\0\x0f\x78" + PY_BYTES
    assert epmd.decode_alive2(b"\x78" + PY_BYTES) == PY


def test_extra_data_survives() -> None:
    entry = NodeEntry(name="ü", port=1, node_type=77, extra=b"abc")
    assert epmd.decode_alive2(epmd.encode_alive2(entry)[2:]) == entry


def test_a_registration_is_answered_in_the_form_the_node_understands() -> None:
    """Four bytes of creation from version 6 on, two before."""
    old = NodeEntry(name="py", port=1, highest_version=5)
    assert epmd.encode_alive2_answer(PY, 0, 0x01020304) == b"\x76\0\1\2\3\4"
    assert epmd.encode_alive2_answer(old, 0, 4) == b"\x79\0\0\2"
    assert epmd.decode_alive2_answer(b"\x76\0\1\2\3\4", "py") == 0x01020304
    assert epmd.decode_alive2_answer(b"\x79\0\0\3", "py") == 3


def test_a_taken_name_says_so() -> None:
    with pytest.raises(EpmdError, match="'py' is taken"):
        epmd.decode_alive2_answer(b"\x76\1\0\0\0\x63", "py")


def test_where_a_node_listens() -> None:
    assert epmd.encode_port_please2("py") == b"\0\3\x7apy"
    assert epmd.encode_port2_answer(PY) == b"\x77\0" + PY_BYTES
    assert epmd.decode_port2_answer(b"\x77\0" + PY_BYTES) == PY
    assert epmd.encode_port2_answer(None) == b"\x77\1"
    assert epmd.decode_port2_answer(b"\x77\1") is None


@pytest.mark.parametrize("body", [b"\x7apy", b"\x7apy\0"])
def test_a_nul_behind_a_name_is_tolerated(body: bytes) -> None:
    assert epmd.decode_name(body) == "py"


@pytest.mark.parametrize("name", [b"", b"a\0b", b"x" * 256, b"\xff", b"a\nname b at port 1", b"a b"])
def test_names_that_would_forge_a_list_are_refused(name: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        epmd.decode_name(b"\x7a" + name)
    with pytest.raises(RemoteProtocolError):
        epmd.decode_alive2(b"\x78\0\1\x48\0\0\6\0\5" + len(name).to_bytes(2) + name + b"\0\0")


def test_the_list_of_names() -> None:
    entries = [PY, NodeEntry(name="order", port=9)]
    answer = epmd.encode_names_answer(4369, entries)
    assert answer == b"\0\0\x11\x11name py at port 4660\nname order at port 9\n"
    assert epmd.decode_names_answer(answer) == [("py", 4660), ("order", 9)]
    assert epmd.decode_names_answer(b"\0\0\x11\x11") == []


def test_the_full_list() -> None:
    text = epmd.encode_dump_answer(4369, [(PY, 5)], [(NodeEntry(name="old", port=9), 7)])
    assert text == (
        b"\0\0\x11\x11active name     <py> at port 4660, fd = 5\n\0"
        b"old/unused name <old>, port = 9, fd = 7 \n\0"
    )


@given(st.binary(max_size=40))
def test_garbage_is_a_documented_error(data: bytes) -> None:
    for read in (epmd.decode_alive2, epmd.decode_name):
        with contextlib.suppress(RemoteProtocolError):
            read(b"\x78" + data)
    for ask in (epmd.decode_port2_answer, epmd.decode_names_answer):
        with contextlib.suppress(EpmdError):
            ask(data)
    with contextlib.suppress(EpmdError):
        epmd.decode_alive2_answer(data, "py")


def test_every_prefix_of_an_entry_is_refused() -> None:
    for size in range(len(PY_BYTES)):
        with pytest.raises(EpmdError):
            epmd.decode_port2_answer(b"\x77\0" + PY_BYTES[:size])
        with pytest.raises(RemoteProtocolError):
            epmd.decode_alive2(b"\x78" + PY_BYTES[:size])


def test_requests_are_written_as_the_specification_says() -> None:
    assert epmd.encode_names() == b"\0\1n"
    assert epmd.encode_kill() == b"\0\1k"
    assert epmd.encode_port_please2("shop") == b"\0\5zshop"
    assert epmd.DEFAULT_PORT == 4369


def test_creations_are_of_32_bits_and_above_those_of_old_nodes() -> None:
    """1 to 3 are those that a daemon gives nodes before OTP 23."""
    assert (epmd.FIRST_CREATION, epmd.LAST_CREATION) == (4, 2**32 - 1)
