"""The hand-written decoders against 1,092 results of Gleam's own, term by term and error by error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pyglyn.etf import Term, exact_key, text
from pyglyn.etf.terms import Atom, TermMap
from pyglyn.gleam import DecodeError, Decoder, Error, Ok, decode

RESULTS = Path(__file__).parent / "data" / "decode_results.tsv"


def pair(a: Any, b: Any) -> tuple[Any, Any]:
    return a, b


DECODERS: dict[str, Decoder[Any]] = {
    "string": decode.string,
    "int": decode.int,
    "float": decode.float,
    "bool": decode.bool,
    "bit_array": decode.bit_array,
    "dynamic": decode.dynamic,
    "list_string": decode.list_of(decode.string),
    "list_list_int": decode.list_of(decode.list_of(decode.int)),
    "dict_string_int": decode.dict_of(decode.string, decode.int),
    "dict_dynamic_int": decode.dict_of(decode.dynamic, decode.int),
    "optional_int": decode.optional(decode.int),
    "one_of": decode.one_of(decode.string, [decode.int.map(str), decode.list_of(decode.string)]),
    "field_0": decode.field(0, decode.string),
    "field_a": decode.field("a", decode.int, decode.success),
    "two_fields": decode.field(
        0, decode.string, lambda a: decode.field(1, decode.int, lambda b: decode.success((a, b)))
    ),
    "names": decode.field(
        "a", decode.string, lambda a: decode.field("b", decode.list_of(decode.string)).map(lambda b: (a, b))
    ),
    "subfield": decode.subfield([1, 0], decode.int),
    "at_map": decode.at(["a", "b"], decode.int),
    "at_mixed": decode.at(["a", 1, 2.5], decode.int),
    "at_far": decode.at([9], decode.int),
    "optionally_at": decode.optionally_at(["a", 1], 7, decode.int),
    "optional_field": decode.optional_field("a", 7, decode.int),
    "optional_field_1": decode.optional_field(
        1, 7, decode.int, lambda a: decode.field(0, decode.string, lambda b: decode.success((a, b)))
    ),
    "then": decode.at([0], decode.int).then(
        lambda i: decode.at([1], decode.string if i == 1 else decode.int)  # type: ignore[arg-type]
    ),
    "failure": decode.failure(0, "Anything"),
    "collapsed": decode.list_of(decode.int).collapse_errors("Numbers"),
    "variant": decode.field(
        "a", decode.string, lambda a: decode.success(1) if a == "x" else decode.failure(0, "Variant")
    ),
    "map": decode.string.map(lambda string: len(string.encode())),
}


RECORDED = [line.split("\t") for line in RESULTS.read_text().splitlines() if not line.startswith("#")]


def as_terms(value: Any) -> Term:
    """Write what our decoder gave in Gleam's representation."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (list, tuple)):
        return type(value)(map(as_terms, value))
    if isinstance(value, dict):
        return TermMap((as_terms(k), as_terms(v)) for k, v in value.items())
    return value


@pytest.mark.parametrize("name", DECODERS)
def test_same_results_as_gleam(name: str) -> None:
    """gleam/dynamic/decode: values, expected, found and path, in the same order."""
    for of, term, result in RECORDED:
        if of == name:
            ours = decode.run(text.parse(term), DECODERS[name])
            outcome, content = text.parse(result)  # type: ignore[misc]
            if outcome is Atom("ok"):
                assert isinstance(ours, Ok), term
                if name == "optional_int":
                    content = None if content is Atom("none") else content[1]
                assert exact_key(as_terms(ours.value)) == exact_key(content), term
            else:
                assert ours == Error([as_error(each) for each in content]), term


def as_error(error: tuple[bytes, bytes, list[bytes]]) -> DecodeError:
    expected, found, path = error
    return DecodeError(expected.decode(), found.decode(), tuple(each.decode() for each in path))


def test_every_decoder_was_recorded_both_ways() -> None:
    """Guards the file: each decoder has successes and failures in it, where it can have both."""
    successful = {name for name, _, result in RECORDED if result.startswith("{ok,")}
    failed = {name for name, _, result in RECORDED if result.startswith("{error,")}
    assert len(RECORDED) == 1092
    assert successful == set(DECODERS) - {"failure"}
    assert failed == set(DECODERS) - {"dynamic"}
