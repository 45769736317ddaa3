"""Constructor names: the compiler's own results, the former rule, overrides, enums."""

from __future__ import annotations

import enum
import string as letters

import attrs
import hypothesis.strategies as st
import pytest
from hypothesis import given

from pyglyn.etf import Atom
from pyglyn.gleam import constructor, constructor_name, decoder, encode, legacy_constructor_name
from pyglyn.gleam.names import atom_term, names_of_member
from tests.gleam.compiled import COMPILED_NAMES


@pytest.mark.parametrize(("name", "atom"), COMPILED_NAMES.items())
def test_constructor_name_is_what_the_compiler_makes(name: str, atom: str) -> None:
    assert constructor_name(name) == atom


@pytest.mark.parametrize(
    ("name", "atom"),
    [
        ("HTTPServer", "http_server"),
        ("XMLHttpRequest", "xml_http_request"),
        ("ProcessEvents", "process_events"),
        ("Sha256", "sha256"),
        ("Foo2Bar", "foo2_bar"),
        ("V2API", "v2api"),
        ("UserID", "user_id"),
        ("UserIDs", "user_i_ds"),
        ("ABc", "a_bc"),
        ("A", "a"),
        ("AB", "ab"),
        ("A1B", "a1b"),
        ("a1B", "a1_b"),
        ("GetURLById", "get_url_by_id"),
        ("Snake_Case Name", "snake_case_name"),
    ],
)
def test_legacy_name_keeps_acronyms_together(name: str, atom: str) -> None:
    """The documented cases of the heck crate, and its rule traced by hand for the others."""
    assert legacy_constructor_name(name) == atom


@given(st.from_regex(r"([A-Z][a-z][a-z0-9]*)+", fullmatch=True))
def test_both_rules_agree_on_names_without_acronyms(name: str) -> None:
    assert constructor_name(name) == legacy_constructor_name(name)


@given(st.text(letters.ascii_letters + letters.digits, min_size=1).filter(lambda n: n[0].isupper()))
def test_names_lose_no_character(name: str) -> None:
    for rule in (constructor_name, legacy_constructor_name):
        assert rule(name).replace("_", "") == name.lower()


@pytest.mark.parametrize(("name", "atom"), [("_Hidden", "hidden"), ("A_B", "a_b"), ("", ""), ("___", "")])
def test_underscores_only_separate(name: str, atom: str) -> None:
    assert constructor_name(name) == atom
    assert legacy_constructor_name(name) == atom


def test_the_three_special_atoms_have_pythons_values() -> None:
    assert [atom_term(name) for name in ("true", "false", "nil", "none")] == [True, False, None, Atom("none")]


@constructor("memory_store_event_envelop")
@attrs.frozen
class Envelope:
    id: str


class Heir(Envelope):
    pass


def test_a_constructor_atom_can_be_chosen() -> None:
    term = (Atom("memory_store_event_envelop"), b"o1")
    assert encode(Envelope("o1")) == term
    assert decoder(Envelope).decode(term) == Envelope("o1")


def test_a_chosen_atom_is_not_inherited() -> None:
    assert encode(Heir("o1")) == (Atom("heir"), b"o1")


def test_a_chosen_atom_survives_a_slotted_class_made_above_it() -> None:
    @attrs.define
    @constructor("other")
    class Inner:
        pass

    assert encode(Inner()) is Atom("other")


@pytest.mark.parametrize("name", ["", "x" * 256])
def test_an_impossible_atom_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="1 to 255 characters"):
        constructor(name)


class Status(enum.Enum):
    IN_STOCK = 1
    SoldOut = 2
    ON = "switched_on"
    OFF = Atom("switched_off")
    HTTPError = 3


@pytest.mark.parametrize(
    ("member", "names"),
    [
        (Status.IN_STOCK, ("in_stock", "in_stock")),
        (Status.SoldOut, ("sold_out", "sold_out")),
        (Status.ON, ("switched_on", "switched_on")),
        (Status.OFF, ("switched_off", "switched_off")),
        (Status.HTTPError, ("h_t_t_p_error", "http_error")),
    ],
)
def test_an_enum_members_atom_comes_from_its_value_or_name(member: Status, names: tuple[str, str]) -> None:
    assert names_of_member(member) == names
