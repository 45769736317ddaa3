"""How the Gleam compiler names constructors on the BEAM. Layer: gleam, pure.

Source: ``to_snake_case`` in the compiler's ``compiler-core/src/strings.rs`` (1.11 to 1.18; tried with
1.18.1), and the ``heck`` crate, version 0.5, which compilers before 1.11 used. Not supported: names
outside ASCII are treated as the compiler would, but Gleam source cannot contain them.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable
from typing import TypeVar

from pyglyn.etf.terms import MAX_ATOM_CHARACTERS, Atom

C = TypeVar("C", bound=type)

_SPECIAL = {"true": True, "false": False, "nil": None}
_OVERRIDE = "__gleam_constructor__"


def constructor_name(name: str) -> str:
    """Give the atom of a constructor, as Gleam 1.11 and later do.

    Every uppercase letter starts a new word, acronyms are taken apart, digits belong to the word before
    them: ``HTTPServer`` is ``h_t_t_p_server``, ``Sha256`` is ``sha256``.
    """
    characters: list[str] = []
    starts_word = True
    for character in name:
        if character in "_ ":
            starts_word = True
            continue
        if starts_word or character.isupper():
            if characters:
                characters.append("_")
            starts_word = False
        characters.append(character.lower() if character.isascii() else character)
    return "".join(characters)


def legacy_constructor_name(name: str) -> str:
    """Give the atom of a constructor, as Gleam before 1.11 did: ``HTTPServer`` is ``http_server``.

    A word ends before an uppercase letter that follows a lowercase one (digits between them change
    nothing), and before the last letter of an acronym when a lowercase letter follows it.
    """
    words: list[str] = []
    run = ""
    for character in name:
        if character.isalnum():
            run += character
        else:
            words += _words_of_run(run)
            run = ""
    words += _words_of_run(run)
    return "_".join(words).lower()


def _words_of_run(run: str) -> list[str]:
    """Split a run of letters and digits as heck's ``transform`` does, mode by mode."""
    words: list[str] = []
    start = 0
    mode = "boundary"
    for position, (character, following) in enumerate(itertools.pairwise(run)):
        case = "lower" if character.islower() else "upper" if character.isupper() else mode
        if case == "lower" and following.isupper():
            words.append(run[start : position + 1])
            start, mode = position + 1, "boundary"
        elif mode == "upper" and character.isupper() and following.islower():
            words.append(run[start:position])
            start, mode = position, "boundary"
        else:
            mode = case
    return [*words, run[start:]] if run else words


def atom_term(name: str) -> Atom | bool | None:
    """Give the term of the atom of that name: ``true``, ``false`` and ``nil`` have Python's own."""
    return _SPECIAL[name] if name in _SPECIAL else Atom(name)


def constructor(name: str) -> Callable[[C], C]:
    """Decorate a class with the constructor atom it has in Gleam, where its own name will not do.

    Subclasses do not inherit it.

    Raises:
        ValueError: the name is empty or has more than 255 characters.
    """
    if not name or len(name) > MAX_ATOM_CHARACTERS:
        raise ValueError(f"a constructor's atom has 1 to {MAX_ATOM_CHARACTERS} characters, got {len(name)}")

    def decorate(cls: C) -> C:
        setattr(cls, _OVERRIDE, name)
        return cls

    return decorate


def names_of_class(cls: type) -> tuple[str, str]:
    """Give the constructor atoms of a class: by today's rule, and by that of compilers before 1.11."""
    override = cls.__dict__.get(_OVERRIDE)
    if override is not None:
        return override, override
    return constructor_name(cls.__name__), legacy_constructor_name(cls.__name__)


def names_of_member(member: enum.Enum) -> tuple[str, str]:
    """Give the atoms of an enum member, by both rules.

    A value that is a string or an atom is the atom. Otherwise the member's name decides: ``IN_STOCK``
    and ``InStock`` are both ``in_stock``.
    """
    value = member.value
    if isinstance(value, Atom):
        return value.name, value.name
    if isinstance(value, str):
        return value, value
    if member.name.isupper():
        return member.name.lower(), member.name.lower()
    return constructor_name(member.name), legacy_constructor_name(member.name)
