"""Bytes made by ``term_to_binary`` of real nodes, both ways. Source: erts, "ext_dist"."""

from __future__ import annotations

import pytest

from pyglyn.etf import Fun, Pid, Port, Reference, exact_key
from tests.etf.codec import decode, each_implementation, encode
from tests.etf.golden_terms import GOLDEN, OPAQUE, Golden
from tests.etf.make_golden import Recorded, recorded

pytestmark = each_implementation

files = pytest.mark.parametrize("file", recorded(), ids=lambda file: f"otp{file.otp}")
terms = pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: " ".join(golden.erlang.split())[:50])


def test_the_recorded_file_covers_otp_25_and_28() -> None:
    assert [file.otp for file in recorded()] == [25, 28]
    assert all(set(file.terms) == {golden.erlang for golden in GOLDEN} for file in recorded())
    assert all(set(file.opaque) == set(OPAQUE) for file in recorded())


@files
@terms
def test_what_a_node_wrote_decodes_to_the_term(file: Recorded, golden: Golden) -> None:
    value = decode(file.terms[golden.erlang])
    assert value == golden.value
    assert type(value) is type(golden.value)
    assert exact_key(value) == exact_key(golden.value)


@files
@terms
def test_encoding_gives_the_bytes_of_a_node(file: Recorded, golden: Golden) -> None:
    if golden.writes:
        assert encode(golden.value) == file.terms[golden.erlang]
    else:
        assert exact_key(decode(encode(golden.value))) == exact_key(golden.value)


@files
@pytest.mark.parametrize("name", OPAQUE)
def test_terms_of_one_run_come_back_byte_for_byte(file: Recorded, name: str) -> None:
    data = file.opaque[name]
    value = decode(data)
    kinds = {
        "fun": Fun,
        "fun_in_fun": Fun,
        "alias": Reference,
        "reference": Reference,
        "pid": Pid,
        "port": Port,
    }
    assert type(value) is kinds[name]
    if name == "port" and file.otp < 26:
        assert decode(encode(value)) == value  # OTP 25 writes small port numbers as NEW_PORT_EXT, 28 never
    else:
        assert encode(value) == data


def test_an_alias_of_otp_28_has_five_words() -> None:
    lengths = [len(decode(file.opaque["alias"]).words) for file in recorded()]
    assert lengths == [3, 5]


@files
def test_a_local_fun_shows_where_it_is_from(file: Recorded) -> None:
    value = decode(file.opaque["fun"])
    assert (value.module, value.arity) == ("erl_eval", 1)
    assert len(value.uniq) == 16
    assert value.raw == file.opaque["fun"][2:]


@files
def test_a_port_number_below_28_bits_is_the_same_in_both_layouts(file: Recorded) -> None:
    assert decode(file.terms['list_to_port("#Port<0.7>")']) == Port("nonode@nohost", 7, 0)
