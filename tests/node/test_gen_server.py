"""What a GenServer does with messages, returns and errors; that OTP's own clients agree is in test_interop_messages."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pyglyn.dist.control import LinkExit
from pyglyn.errors import CallFailed, NameTaken
from pyglyn.etf import Atom, Pid, Term
from pyglyn.node import Caller, GenServer, Ignore, NoReply, Process, Reply, StartError, Stop
from pyglyn.node.gen_server import start_server
from pyglyn.node.reasons import NORMAL, OK
from pyglyn.testing import eventually
from tests.node.runtimes import THEM, Noted, noted

A = Atom
SYSTEM = A("system")


class Server(GenServer):
    """Does what it is told, and notes what it was asked."""

    async def init(self, seen: list[Any], outcome: Any = None) -> Any:
        self.seen = seen
        self.secret = object()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def handle_call(self, request: Any, caller: Caller) -> Any:
        self.seen.append(request)
        match request:
            case (Atom("raise"), _):
                raise ValueError("on purpose")
            case Atom("later"):
                self.waiting = caller
                return NoReply
            case Atom("later_with_timeout"):
                self.waiting = caller
                return NoReply(timeout=0.0)
            case Atom("then"):
                return Reply(1, then="more")
            case Atom("timeout"):
                return Reply(2, timeout=0.0)
            case Atom("stop"):
                return Stop("done", reply=4)
            case Atom("stop_silently"):
                raise Stop("done")
        return request

    async def handle_cast(self, request: Any) -> Any:
        self.seen.append(("cast", request))
        return Stop() if request is A("stop") else None

    async def handle_info(self, message: Any) -> Any:
        self.seen.append(("info", message))
        match message:
            case Atom("answer"):
                self.reply(self.waiting, b"late")
            case Atom("exit"):
                self.me.exit(self.me.pid, "boom")
                await asyncio.sleep(0)
        return None

    async def handle_continue(self, then: Any) -> Any:
        self.seen.append(("continue", then))
        return NoReply(then="even more") if then == "more" else None

    async def terminate(self, reason: Term) -> None:
        self.seen.append(("terminate", reason))


async def started(outcome: Any = None, **options: Any) -> tuple[Noted, Process, Process, list[Any]]:
    """A server, a process that asks it, and what the server notes."""
    here = noted()
    seen: list[Any] = []
    me = here.process()
    pid = await start_server(here.runtime, Server, seen, outcome, **options)
    assert pid is not None
    return here, me, here.runtime.processes[pid.id], seen


# --- calls, casts, messages -------------------------------------------------------------------------------


async def test_what_a_call_returns_is_the_reply_and_casts_and_messages_have_none() -> None:
    _, me, server, seen = await started()
    me.cast(server.pid, 1)
    me.send(server.pid, 2)
    assert await me.call(server.pid, [b"x", None]) == [b"x", None]
    assert seen == [("cast", 1), ("info", 2), [b"x", None]]


async def test_a_reply_may_come_later() -> None:
    _, me, server, _ = await started()
    calling = asyncio.ensure_future(me.call(server.pid, A("later")))
    await asyncio.sleep(0)
    me.send(server.pid, A("answer"))
    assert await calling == b"late"


async def test_a_continuation_comes_before_the_next_message() -> None:
    _, me, server, seen = await started()
    calling = asyncio.ensure_future(me.call(server.pid, A("then")))
    await asyncio.sleep(0)
    me.cast(server.pid, 1)
    assert await calling == 1
    await me.call(server.pid, 2)
    assert seen == [A("then"), ("continue", "more"), ("continue", "even more"), ("cast", 1), 2]


@pytest.mark.parametrize("how", ["init", "timeout", "later_with_timeout"])
async def test_a_timeout_comes_once_if_no_message_comes_before(how: str) -> None:
    _, me, server, seen = await started(NoReply(timeout=0.0) if how == "init" else None)
    if how != "init":
        calling = asyncio.ensure_future(me.call(server.pid, A(how)))
    await eventually(lambda: ("info", A("timeout")) in seen)
    for _ in range(9):
        await asyncio.sleep(0)
    assert seen.count(("info", A("timeout"))) == 1
    if how == "timeout":
        assert await calling == 2
    if how == "later_with_timeout":
        me.send(server.pid, A("answer"))
        assert await calling == b"late"


@pytest.mark.parametrize("looks", [False, True])
async def test_a_message_calls_a_timeout_off_and_a_look_into_the_server_does_not(looks: bool) -> None:
    _, me, server, seen = await started()
    calling = asyncio.ensure_future(me.call(server.pid, A("timeout")))
    await asyncio.sleep(0)
    ref = me.make_ref()
    me.send(server.pid, (SYSTEM, (me.pid, ref), A("get_state")) if looks else 1)
    assert await calling == 2
    await me.call(server.pid, 3)
    assert seen == [A("timeout"), ("info", A("timeout") if looks else 1), 3]


async def test_what_is_no_call_is_a_message_or_nothing() -> None:
    _, me, server, seen = await started()
    for message in ((A("$gen_call"), 1, 2), (SYSTEM, 1, 2), (A("$gen_call"), 1)):
        me.send(server.pid, message)
    await me.call(server.pid, 0)
    assert seen == [("info", (A("$gen_call"), 1)), 0]


async def test_messages_that_nobody_handles_are_logged_and_never_what_is_in_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    here = noted()
    me = here.process()
    pid = await start_server(here.runtime, GenServer)
    assert pid is not None
    for message in (A("tick"), (A("order"), b"secret"), b"secret", (A("m"), *range(20)), (1, b"s")):
        me.send(pid, message)
    await eventually(lambda: len(caplog.records) == 5)
    assert [
        record.getMessage().removeprefix("unhandled message in GenServer: ") for record in caplog.records
    ] == [
        "tick",
        "{order,_}",
        "a bytes",
        "{m,…}",
        "a tuple",
    ]
    assert pid.id in here.runtime.processes


# --- the end ----------------------------------------------------------------------------------------------


async def test_a_server_stops_with_a_last_reply() -> None:
    _, me, server, seen = await started()
    assert await me.call(server.pid, A("stop")) == 4
    await eventually(lambda: not server.alive)
    assert (seen[-1], server.exit_reason) == (("terminate", A("done")), A("done"))


async def test_a_server_that_stops_without_one_fails_the_call() -> None:
    _, me, server, seen = await started()
    with pytest.raises(CallFailed) as caught:
        await me.call(server.pid, A("stop_silently"))
    assert caught.value.reason == A("done")
    assert seen[-1] == ("terminate", A("done"))


async def test_a_cast_can_stop_a_server_normally() -> None:
    _, me, server, seen = await started()
    me.cast(server.pid, A("stop"))
    await eventually(lambda: not server.alive)
    assert (seen[-1], server.exit_reason) == (("terminate", NORMAL), NORMAL)


async def test_an_error_in_a_handler_is_the_reason_after_the_last_words() -> None:
    _, me, server, seen = await started()
    with pytest.raises(CallFailed) as caught:
        await me.call(server.pid, (A("raise"), 1))
    assert isinstance(caught.value.reason, tuple)
    assert caught.value.reason[0][1:] == (A("ValueError"), b"on purpose")  # type: ignore[index]
    assert seen[-1] == ("terminate", caught.value.reason)


async def test_a_server_that_is_killed_has_no_last_words() -> None:
    _, me, server, seen = await started()
    me.exit(server.pid, "boom")
    await eventually(lambda: not server.alive)
    assert seen == []


@pytest.mark.parametrize("traps", [False, True])
async def test_the_end_of_the_parent_is_the_servers_also_if_it_traps_exits(traps: bool) -> None:
    here, _, server, seen = await started(parent=THEM)
    server.trap_exit = traps
    server.signals.on_link(THEM)
    here.receive(LinkExit(THEM, server.pid), A("shutdown"))
    await eventually(lambda: not server.alive)
    assert server.exit_reason is A("shutdown")
    assert seen == ([("terminate", A("shutdown"))] if traps else [])


async def test_the_end_of_another_link_is_a_message_and_so_is_one_that_only_looks_like_the_parents() -> None:
    here, me, server, seen = await started(parent=THEM)
    server.trap_exit = True
    other = Pid(THEM.node, 8, 0, 3)
    server.signals.on_link(other)
    here.receive(LinkExit(other, server.pid), A("boom"))
    me.send(server.pid, (A("EXIT"), THEM, A("shutdown")))
    await me.call(server.pid, 0)
    assert seen == [("info", (A("EXIT"), other, A("boom"))), ("info", (A("EXIT"), THEM, A("shutdown"))), 0]


# --- the start --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [Ignore, Ignore()])
async def test_a_server_may_decide_not_to_start(outcome: Any) -> None:
    here = noted()
    assert await start_server(here.runtime, Server, [], outcome, name="shop") is None
    assert (here.runtime.processes, here.runtime.names) == ({}, {})


@pytest.mark.parametrize("outcome", [Stop("nope"), ValueError("nope")])
async def test_a_start_that_fails_has_its_reason_and_the_name_is_free(outcome: Exception) -> None:
    here = noted()
    said = "nope" if isinstance(outcome, Stop) else r"ValueError: nope \(.*test_gen_server.py:\d+ in init\)"
    with pytest.raises(StartError, match=f"^Server did not start: {said}$") as caught:
        await start_server(here.runtime, Server, [], outcome, name="shop")
    if isinstance(outcome, Stop):
        assert caught.value.reason is A("nope")
    else:
        assert caught.value.reason[0][1] is A("ValueError")  # type: ignore[index]
    assert (here.runtime.processes, here.runtime.names) == ({}, {})


async def test_a_start_during_which_the_server_is_killed_fails() -> None:
    here = noted()

    class Slow(GenServer):
        async def init(self) -> None:
            await asyncio.Event().wait()

    starting = asyncio.ensure_future(start_server(here.runtime, Slow, name="slow"))
    await asyncio.sleep(0)
    here.process().exit(here.runtime.names["slow"], "boom")
    with pytest.raises(StartError) as caught:
        await starting
    assert caught.value.reason is A("boom")


async def test_a_name_that_is_taken_starts_nothing() -> None:
    here = noted()
    here.process("shop")
    with pytest.raises(NameTaken):
        await start_server(here.runtime, Server, [], name="shop")


# --- sys --------------------------------------------------------------------------------------------------


async def ask_system(me: Process, server: Pid, request: Term) -> Any:
    """Ask as ``sys`` does."""
    ref = me.make_ref()
    me.send(server, (SYSTEM, (me.pid, ref), request))
    message: Any = await me.receive(lambda m: isinstance(m, tuple) and m[0] == ref, 60.0)
    return message[1]


async def test_the_state_is_shown_as_terms_what_is_none_as_text() -> None:
    _, me, server, _ = await started()
    answered, state = await ask_system(me, server.pid, A("get_state"))
    assert answered is OK
    assert state[A("seen")] == []
    assert state[A("secret")].startswith(b"<object object")
    assert A("me") not in state


async def test_the_status_is_laid_out_as_gen_servers() -> None:
    _, me, server, _ = await started()
    server.parent = THEM
    status, pid, module, items = await ask_system(me, server.pid, A("get_status"))
    assert (status, pid, module) == (A("status"), server.pid, (A("module"), A("gen_server")))
    assert items[1:4] == [A("running"), THEM, []]
    header, data, state = items[4]
    assert bytes(header[1]) == f"Status for generic server {server.pid}".encode()
    assert (list(b"Parent"), THEM) in data[1]
    assert state[0] is A("data")


async def test_a_suspended_server_answers_sys_alone_and_goes_on_in_order() -> None:
    _, me, server, seen = await started(name="shop")
    assert await ask_system(me, server.pid, A("suspend")) is OK
    me.cast(server.pid, 1)
    me.cast(server.pid, 2)
    status = await ask_system(me, server.pid, A("get_status"))
    assert status[3][1] is A("suspended")
    assert bytes(status[3][4][0][1]) == b"Status for generic server shop"
    assert seen == []
    assert await ask_system(me, server.pid, A("resume")) is OK
    await me.call(server.pid, 3)
    assert seen == [("cast", 1), ("cast", 2), 3]


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        ((A("debug"), (A("statistics"), A("get"))), (OK, A("no_statistics"))),
        ((A("debug"), (A("log"), A("get"))), (OK, [])),
        ((A("debug"), (A("trace"), True)), OK),
        (A("nonsense"), (A("error"), (A("unknown_system_msg"), A("nonsense")))),
    ],
)
async def test_other_system_messages_are_answered_as_far_as_there_is_something(
    request_: Term, answer: Term
) -> None:
    _, me, server, _ = await started()
    assert await ask_system(me, server.pid, request_) == answer


async def test_sys_terminate_ends_it_with_its_last_words() -> None:
    _, me, server, seen = await started()
    assert await ask_system(me, server.pid, (A("terminate"), A("enough"))) is OK
    await eventually(lambda: not server.alive)
    assert (seen, server.exit_reason) == ([("terminate", A("enough"))], A("enough"))


# --- what somebody writes who is new to it --------------------------------------------------------------


class Plain(GenServer):
    def init(self) -> None:  # type: ignore[override]
        pass


class PlainAtTheEnd(GenServer):
    """Has one that returns something to be awaited, as a decorator makes them, and two that do not."""

    def handle_cast(self, request: Term) -> Any:
        return super().handle_cast(request)

    def terminate(self, reason: Term) -> None:  # type: ignore[override]
        pass

    def handle_call(self, request: Term, caller: Caller) -> None:  # type: ignore[override]
        pass


async def test_a_handler_that_is_a_plain_function_is_named() -> None:
    here = noted()
    with pytest.raises(StartError, match=r"`async def`, and these are not: Plain\.init \("):
        await start_server(here.runtime, Plain)


async def test_a_handler_that_is_a_plain_function_is_named_when_it_is_called(
    caplog: pytest.LogCaptureFixture,
) -> None:
    here = noted()
    me = here.process()
    server = await start_server(here.runtime, PlainAtTheEnd)
    assert server is not None
    with pytest.raises(CallFailed, match=r"these are not: PlainAtTheEnd\.handle_call"):
        await me.call(server, 1)
    assert "PlainAtTheEnd.handle_call" in caplog.text
    assert "PlainAtTheEnd.init" not in caplog.text


class Unsendable(GenServer):
    async def handle_call(self, request: Any, caller: Caller) -> Any:
        return Reply({object()}) if request is A("reply") else [object()]


@pytest.mark.parametrize("how", ["reply", "return"])
async def test_a_reply_that_is_no_term_says_which_server_made_it(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    here = noted()
    me = here.process()
    server = await start_server(here.runtime, Unsendable)
    assert server is not None
    with pytest.raises(CallFailed) as failed:
        await me.call(server, A(how))
    (_, _, text), stack = failed.value.reason
    assert b"Unsendable.handle_call replies what cannot be sent: " in text
    assert [entry[:2] for entry in stack] == [(A("test_gen_server"), A("handle_call"))]
    assert "Unsendable.handle_call replies" in caplog.text
