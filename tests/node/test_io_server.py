"""The process that answers I/O requests: what is printed and answered. What real nodes send is in test_io."""

from __future__ import annotations

import asyncio
import logging

import pytest

from pyglyn.dist.control import Send
from pyglyn.etf import Atom, Term
from pyglyn.node.io_server import LINES_A_TURN, MAX_DEPTH, MAX_LINE, MAX_LINES, MAX_REQUESTS, IoServer
from tests.node.runtimes import NODE, REF, THEM, noted

A = Atom
PUT, UNICODE, LATIN1, OK = A("put_chars"), A("unicode"), A("latin1"), A("ok")
REFUSED = (A("error"), A("request"))


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines that were printed, as they come."""
    printed: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            printed.append(record.getMessage())

    caplog.set_level(logging.INFO, "pyglyn.io")
    logging.getLogger("pyglyn.io").addHandler(handler := Handler())
    yield printed  # type: ignore[misc]
    logging.getLogger("pyglyn.io").removeHandler(handler)


def test_lines_are_logged_when_they_are_complete(lines: list[str]) -> None:
    server = IoServer(NODE)
    assert server.answer((PUT, UNICODE, b"one\ntw")) is OK
    assert lines == ["one"]
    assert server.answer((PUT, UNICODE, [b"o", [10], "ä".encode()])) is OK
    assert server.answer((PUT, LATIN1, b"\xe4\n")) is OK
    assert lines == ["one", "two", "ää"]


def test_a_line_without_an_end_is_logged_once_it_is_long(lines: list[str]) -> None:
    server = IoServer(NODE)
    server.answer((PUT, UNICODE, b"." * MAX_LINE))
    assert lines == []
    server.answer((PUT, UNICODE, b"."))
    assert lines == ["." * (MAX_LINE + 1)]
    server.answer((PUT, UNICODE, b"next\n"))
    assert lines[1:] == ["next"]


@pytest.mark.parametrize(
    ("function", "arguments", "printed"),
    [
        ("format", [b"~s and ~p~n", [b"a", [1, 2]]], "a and [1,2]"),
        ("fwrite", [b"~w~n", [A("b c")]], "'b c'"),
        ("write", [(A("a"), b"x")], "{a,<<120>>}"),
        ("write", [[1, 2, 3, 4], 2], "[1|...]"),
        ("print", [(A("a"), b"x")], '{a,<<"x">>}'),
        ("print", [[b"x"], 1, 80, -1], '[<<"x">>]'),
    ],
)
def test_what_io_lib_makes_of_its_arguments_is_printed(
    lines: list[str], function: str, arguments: list[Term], printed: str
) -> None:
    server = IoServer(NODE)
    assert server.answer((PUT, UNICODE, A("io_lib"), A(function), arguments)) is OK
    server.answer((PUT, UNICODE, b"\n"))
    assert lines[0] == printed


def test_what_another_module_would_make_is_shown_as_its_arguments(lines: list[str]) -> None:
    server = IoServer(NODE)
    assert server.answer((PUT, UNICODE, A("mine"), A("format"), [1, A("a")])) is OK
    server.answer((PUT, UNICODE, b"\n"))
    assert lines == ["[1,a]"]


def test_a_format_that_does_not_fit_is_the_error_of_its_function(lines: list[str]) -> None:
    request = (PUT, UNICODE, A("io_lib"), A("format"), [b"~s~n", []])
    assert IoServer(NODE).answer(request) == (A("error"), A("format"))
    assert lines == []


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        ((A("get_geometry"), A("columns")), (A("error"), A("enotsup"))),
        (A("getopts"), [(A("binary"), True), (A("encoding"), UNICODE)]),
        ((A("setopts"), []), OK),
        ((A("get_line"), UNICODE, b">"), A("eof")),
        ((A("get_chars"), UNICODE, b">", 1), A("eof")),
        ((A("get_until"), UNICODE, b">", A("m"), A("f"), []), A("eof")),
        ((A("get_password"), UNICODE), A("eof")),
        (A("nonsense"), REFUSED),
        ((PUT, UNICODE, A("text")), REFUSED),
        ((PUT, UNICODE, [2**40]), REFUSED),
    ],
)
def test_other_requests_have_the_answers_of_a_device_without_input(request_: Term, answer: Term) -> None:
    assert IoServer(NODE).answer(request_) == answer


def test_several_requests_are_done_until_one_fails(lines: list[str]) -> None:
    server = IoServer(NODE)
    first, second = (PUT, UNICODE, b"1\n"), (PUT, UNICODE, b"2\n")
    assert server.answer((A("requests"), [first, A("getopts"), second, A("nonsense"), first])) == REFUSED
    assert lines == ["1", "2"]
    assert server.answer((A("requests"), [])) is OK


def test_requests_in_requests_have_a_limit() -> None:
    request: Term = A("getopts")
    for _ in range(MAX_DEPTH):
        request = (A("requests"), [request])
    assert IoServer(NODE).answer(request) != REFUSED
    assert IoServer(NODE).answer((A("requests"), [request])) == REFUSED


async def test_the_process_answers_whom_the_request_names_and_drops_all_else() -> None:
    here = noted()
    server = here.runtime.spawn(IoServer(NODE))
    for message in (
        1,
        (A("io_request"), 1, REF, A("getopts")),
        (A("io_request"), THEM, REF, (A("setopts"), [])),
    ):
        here.receive(Send(THEM, server.pid), message)
    for _ in range(9):
        await asyncio.sleep(0)
    assert here.take() == [(Send(server.pid, THEM), (A("io_reply"), REF, OK), THEM.node)]
    here.runtime.kill_all(A("kill"))


def test_of_very_many_lines_some_are_logged_and_others_have_their_turn_in_between(lines: list[str]) -> None:
    server, turns = IoServer(NODE), 0
    for _ in server.answering((PUT, UNICODE, b"\n" * (2 * MAX_LINES) + b"rest")):
        turns += 1
        assert len(lines) <= LINES_A_TURN * turns
    assert turns == MAX_LINES // LINES_A_TURN
    assert lines == [""] * MAX_LINES + [f"({MAX_LINES} more lines)"]
    server.answer((PUT, UNICODE, b"\n"))
    assert lines[-1] == "rest"


def test_a_line_that_is_very_long_is_logged_in_pieces(lines: list[str]) -> None:
    IoServer(NODE).answer((PUT, UNICODE, b"." * (10 * MAX_LINE) + b"\n" + b"," * (10 * MAX_LINE)))
    assert len(lines) == 10
    assert "".join(lines) == "." * (10 * MAX_LINE) + "," * (10 * MAX_LINE)


def test_requests_of_one_message_have_a_number(lines: list[str]) -> None:
    most = (A("requests"), [A("getopts")] * MAX_REQUESTS)
    assert IoServer(NODE).answer(most) != REFUSED
    assert IoServer(NODE).answer((A("requests"), [A("getopts"), *most[1]])) == REFUSED
    assert IoServer(NODE).answer((A("requests"), [(A("requests"), [A("getopts")] * 30)] * 34)) == REFUSED


def test_after_each_format_others_have_their_turn(lines: list[str]) -> None:
    request = (A("requests"), [(PUT, UNICODE, A("io_lib"), A("format"), [b"~n", []])] * 20)
    assert len(list(IoServer(NODE).answering(request))) == 20


def test_of_large_arguments_of_other_functions_the_beginning_is_shown(lines: list[str]) -> None:
    IoServer(NODE).answer((PUT, UNICODE, A("mine"), A("format"), [[*range(1000, 100_000)]]))
    assert len("".join(lines)) < 2 * MAX_LINE
