"""What is seen of an encoded message before it is decoded: the same as of the decoded one, in every form."""

from __future__ import annotations

import pytest
from hypothesis import given

from pyglyn.etf import Atom, ImproperList, Reference, Term, decode_bare, encode_bare
from pyglyn.node import heads
from pyglyn.node.pending import Pending
from pyglyn.node.system import is_system_message
from tests.strategies import terms

REF = Reference("a@h", 1, (1, 0, 0))
ALIAS = ImproperList((Atom("alias"),), REF)


def forms(message: bytes) -> list[bytes]:
    """A message with other tags for its tuple and its first atom: what peers may write too."""
    found = [message]
    for atom in (b"alias", b"system"):
        found += [
            message.replace(b"w" + bytes((len(atom),)) + atom, other + atom, 1)
            for other in (
                b"s" + bytes((len(atom),)),
                b"d\0" + bytes((len(atom),)),
                b"v\0" + bytes((len(atom),)),
            )
        ]
    return found + [b"i\0\0\0" + each[1:] for each in found if each.startswith(b"h")]


@pytest.mark.parametrize("message", [(REF, 1), (ALIAS, b"x"), (ALIAS, [REF])], ids=str)
def test_the_reference_of_an_answer_is_seen_in_every_form(message: Term) -> None:
    for form in forms(encode_bare(message)):
        assert decode_bare(form)[0] == message
        assert heads.reference_of_answer(form) == REF
        assert heads.reference_of_answer(memoryview(form)) == REF
        assert not heads.is_system_message(form)


def test_a_system_message_is_seen_in_every_form() -> None:
    message = (Atom("system"), (1, 2), Atom("get_state"))
    for form in forms(encode_bare(message)):
        assert decode_bare(form)[0] == message
        assert heads.is_system_message(form)
        assert heads.reference_of_answer(form) is None


@pytest.mark.parametrize(
    "data", [b"", b"h", b"h\2", b"h\2Z", b"h\2l\0\0\0\1w\5alias", b"h\2Z\0\3w\1a\0", b"i\0\0"]
)
def test_what_ends_early_is_nothing(data: bytes) -> None:
    assert heads.reference_of_answer(data) is None
    assert not heads.is_system_message(data)


@given(terms(max_leaves=3))
def test_of_any_term_it_sees_what_is_seen_of_the_decoded_one(term: Term) -> None:
    for message in (term, (term, 1), (ALIAS, term), (Atom("system"), term, 1)):
        data = encode_bare(message)
        assert heads.is_system_message(data) == is_system_message(decode_bare(data)[0])
        pending = Pending()
        pending.futures[REF] = future = Unsettled()  # type: ignore[assignment]
        assert pending.awaits(data) == pending.answer(decode_bare(data)[0])
        del future


class Unsettled:
    """A future that is never settled."""

    def done(self) -> bool:
        return False

    def set_result(self, result: object) -> None: ...


@given(terms())
def test_a_message_with_its_source_is_a_term_like_any_other(message: Term) -> None:
    encoded = heads.with_source("a@h", encode_bare(message))
    assert decode_bare(encoded)[0] == (Atom("$arrived"), Atom("a@h"), message)
    assert heads.with_source("a@h", memoryview(encode_bare(message))) == encoded
