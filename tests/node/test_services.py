"""What a node does with spawn requests, and what ``net_kernel`` and ``rex`` answer. With real nodes in test_interop_rpc."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pyglyn import etf
from pyglyn.dist.control import LinkExit, MonitorPExit, Send, SpawnFlags, SpawnReply, SpawnRequest
from pyglyn.etf import Atom, Export, Fun, Pid, Term
from pyglyn.node import ErlangError, Exit, Process, Throw
from pyglyn.node.exports import Exports
from pyglyn.node.reasons import NORMAL
from pyglyn.node.services import MAX_LABEL, Services, label_of
from pyglyn.testing import eventually
from tests.node.runtimes import NODE, PEER, REF, THEM, Noted, hub, mailbox, noted

A = Atom
ERPC, PROC_LIB, ERLANG = A("erpc"), A("proc_lib"), A("erlang")


async def double(number: int) -> int:
    """Twice the number."""
    return 2 * number


async def fail(how: Any) -> Any:
    """Ends as it is told."""
    match how:
        case Atom("throw"):
            raise Throw(A("thrown"))
        case Atom("exit"):
            raise Exit("gone")
        case Atom("error"):
            raise ErlangError(A("badarith"))
        case Atom("value"):
            raise ValueError("on purpose")
    return object()


async def who(me: Process) -> Pid | None:
    """The group leader of the process that runs it."""
    return me.group_leader


async def wait(me: Process) -> None:
    """Ends when it is told."""
    await me.receive()


@pytest.fixture
async def here() -> Any:
    """A runtime with services."""
    here = noted()
    exports = Exports()
    for function in (double, fail, who, wait):
        exports.add("shop", function)
    made = hub(here, exports)
    Services(made).start()
    await asyncio.sleep(0)
    yield here
    made.stopping.set()
    here.runtime.kill_all(A("kill"))


def ask(here: Noted, mfa: tuple[Term, Term], args: Term, *options: Term) -> None:
    """Let a spawn request of a peer arrive."""
    arity = len(args) if isinstance(args, list) else 0
    request = SpawnRequest(REF, THEM, THEM, (*mfa, arity), list(options))  # type: ignore[arg-type]
    assert here.runtime.on_spawn_request is not None
    here.runtime.on_spawn_request(request, args)


async def outcome(here: Noted, mfa: tuple[Term, Term], args: list[Term]) -> Term:
    """The reason with which the process ends that was asked for with a monitor."""
    ask(here, mfa, args, A("monitor"))
    [(reply, _, _)] = here.take()
    assert isinstance(reply, SpawnReply)
    assert isinstance(reply.result, Pid)
    await eventually(lambda: here.out)
    [(down, reason, node)] = here.take()
    assert (type(down), node) == (MonitorPExit, PEER)
    return reason


async def call(here: Noted, module: Term, function: Term, args: Term) -> Any:
    """What ``erpc:call`` gets."""
    made = await outcome(here, (ERPC, A("execute_call")), [REF, module, function, args])
    assert isinstance(made, tuple)
    assert made[0] == REF
    return made[1:]


# --- spawn requests ---------------------------------------------------------------------------------------


async def test_the_answer_comes_before_the_process_runs_and_says_what_was_done(here: Noted) -> None:
    ask(here, (A("shop"), A("wait")), [], A("link"), A("monitor"), (A("priority"), A("high")))
    [(reply, _, node)] = here.take()
    assert isinstance(reply, SpawnReply)
    assert (reply.request_id, reply.to, reply.flags, node) == (
        REF,
        THEM,
        SpawnFlags.LINK | SpawnFlags.MONITOR,
        PEER,
    )
    assert isinstance(reply.result, Pid)
    process = here.runtime.processes[reply.result.id]
    assert process.group_leader == THEM
    here.receive(Send(THEM, process.pid), 1)
    await eventually(lambda: not process.alive)
    assert [(type(control), reason) for control, reason, _ in here.take()] == [
        (LinkExit, NORMAL),
        (MonitorPExit, NORMAL),
    ]


@pytest.mark.parametrize("options", [A("link"), [A("nonsense")], [1], [(1, 2)]])
async def test_options_that_are_none_start_nothing(here: Noted, options: Any) -> None:
    before = len(here.runtime.processes)
    request = SpawnRequest(REF, THEM, THEM, (A("shop"), A("wait"), 0), options)
    assert here.runtime.on_spawn_request is not None
    here.runtime.on_spawn_request(request, [])
    assert here.take() == [(SpawnReply(REF, THEM, SpawnFlags(0), A("badopt")), None, PEER)]
    assert len(here.runtime.processes) == before


async def test_arguments_that_are_no_list_start_nothing(here: Noted) -> None:
    ask(here, (A("shop"), A("wait")), A("none"))
    assert here.take() == [(SpawnReply(REF, THEM, SpawnFlags(0), A("badopt")), None, PEER)]


async def test_arguments_beyond_the_limits_end_the_process_with_what_stands_for_them(here: Noted) -> None:
    ask(here, (A("shop"), A("wait")), (A("undecodable"), b"too deep"), A("monitor"))
    [(reply, _, _)] = here.take()
    assert isinstance(reply, SpawnReply)
    assert isinstance(reply.result, Pid)
    await eventually(lambda: here.out)
    assert [reason for _, reason, _ in here.take()] == [(A("undecodable"), b"too deep")]


# --- running exported functions ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "function", "args"),
    [
        (A("shop"), A("double"), [4]),
        (ERLANG, A("apply"), [Export("shop", "double", 1), [4]]),
        (ERLANG, A("apply"), [A("shop"), A("double"), [4]]),
        (ERLANG, A("apply"), [ERLANG, A("apply"), [A("shop"), A("double"), [4]]]),
    ],
)
async def test_a_function_is_reached_by_its_name_and_by_apply(
    here: Noted, module: Term, function: Term, args: Term
) -> None:
    assert await call(here, module, function, args) == (A("return"), 8)


def closure() -> Fun:
    """A fun of a peer's module, as it comes from there."""
    parts = [b"\0" * 25, *map(etf.encode_bare, (A("m"), 0, 0, THEM))]
    body = b"".join(parts)
    found = etf.decode_bare(b"p" + (len(body) + 4).to_bytes(4) + body)[0]
    assert isinstance(found, Fun)
    return found


@pytest.mark.parametrize(
    ("module", "function", "args", "reason"),
    [
        (A("shop"), A("double"), [1, 2], A("undef")),
        (A("shop"), A("nothing"), [], A("undef")),
        (A("os"), A("cmd"), [b"id"], A("undef")),
        (A("shop"), A("double"), A("none"), A("undef")),
        (ERLANG, A("apply"), [closure(), []], A("undef")),
        (
            ERLANG,
            A("apply"),
            [Export("shop", "double", 1), []],
            (A("badarity"), (Export("shop", "double", 1), [])),
        ),
        (ERLANG, A("apply"), [7, []], (A("badfun"), 7)),
        (ERLANG, A("apply"), [7, 8], A("badarg")),
    ],
)
async def test_all_else_is_an_error_of_erlang(
    here: Noted, module: Term, function: Term, args: Term, reason: Term
) -> None:
    kind, found, stack = await call(here, module, function, args)
    assert (kind, found) == (A("error"), reason)
    assert isinstance(stack, list)


@pytest.mark.parametrize(
    ("how", "kind", "value"),
    [("throw", "throw", A("thrown")), ("exit", "exit", A("gone")), ("error", "error", A("badarith"))],
)
async def test_what_a_function_raises_is_said_by_its_kind(
    here: Noted, how: str, kind: str, value: Term
) -> None:
    assert (await call(here, A("shop"), A("fail"), [A(how)]))[:2] == (A(kind), value)


async def test_an_exception_and_a_result_that_is_no_term_are_errors_with_a_stack(here: Noted) -> None:
    kind, reason, stack = await call(here, A("shop"), A("fail"), [A("value")])
    assert (kind, reason[1:], bool(stack)) == (A("error"), (A("ValueError"), b"on purpose"), True)
    kind, reason, _ = await call(here, A("shop"), A("fail"), [A("other")])
    assert (kind, reason[1]) == (A("error"), A("EncodeError"))


async def test_an_argument_that_does_not_fit_is_badarg_with_a_text(here: Noted) -> None:
    kind, reason, _ = await call(here, A("shop"), A("double"), [b"four"])
    assert (kind, reason[0]) == (A("error"), A("badarg"))
    assert b"argument 1" in reason[1]


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("exit", A("gone")),
        ("throw", ((A("nocatch"), A("thrown")), [])),
    ],
)
@pytest.mark.parametrize(
    ("mfa", "prefix"),
    [
        ((A("shop"), A("fail")), None),
        ((ERPC, A("execute_cast")), []),
        ((PROC_LIB, A("init_p")), [THEM, []]),
    ],
)
async def test_a_spawned_function_ends_its_process_as_in_erlang(
    here: Noted, mfa: Any, prefix: list[Term] | None, how: str, reason: Term
) -> None:
    args: list[Term] = [A(how)] if prefix is None else [*prefix, A("shop"), A("fail"), [A(how)]]
    assert await outcome(here, mfa, args) == reason


# --- net_kernel and rex -----------------------------------------------------------------------------------


async def ask_process(here: Noted, name: str, *message: Term) -> list[Any]:
    """Send messages to a named process, and what it has sent back once it is through with them."""
    for each in message:
        here.receive(Send(THEM, here.runtime.names[name]), each)
    for _ in range(9):
        await asyncio.sleep(0)
    return [(body, node) for _, body, node in here.take()]


async def test_net_kernel_answers_pings_and_the_tick_time_and_nothing_else(here: Noted) -> None:
    gen_call, from_ = A("$gen_call"), (THEM, REF)
    asked = [(gen_call, from_, (A("is_auth"), A(PEER))), (gen_call, from_, A("ticktime"))]
    silent: list[Term] = [1, (gen_call, 1, A("ticktime")), (gen_call, from_, A("nonsense"))]
    assert await ask_process(here, "net_kernel", *silent, *asked) == [
        ((REF, A("yes")), PEER),
        ((REF, 60_000), PEER),
    ]


async def test_net_kernel_spawns_for_old_nodes(here: Noted) -> None:
    request = (A("spawn"), A("shop"), A("wait"), [], THEM)
    [((ref, pid), _)] = await ask_process(here, "net_kernel", (A("$gen_call"), (THEM, REF), request))
    assert ref == REF
    assert pid.id in here.runtime.processes


async def test_a_peer_that_ends_net_kernel_finds_another_one(here: Noted) -> None:
    for name in ("net_kernel", "rex", "user"):
        before = here.runtime.names[name]
        here.process().exit(before, "kill")
        await eventually(lambda name=name, before=before: here.runtime.names.get(name) not in (None, before))  # type: ignore[misc]
    assert here.runtime.group_leader == here.runtime.names["user"]


@pytest.mark.parametrize(
    ("function", "args", "answer"),
    [
        ("double", [4], 8),
        ("fail", [A("throw")], A("thrown")),
        ("fail", [A("exit")], (A("badrpc"), (A("EXIT"), A("gone")))),
    ],
)
async def test_rex_answers_as_rpc_call_did(
    here: Noted, function: str, args: list[Term], answer: Term
) -> None:
    request = (A("call"), A("shop"), A(function), args, THEM)
    assert await ask_process(here, "rex", (A("$gen_call"), (THEM, REF), request)) == [((REF, answer), PEER)]
    assert await ask_process(here, "rex", (THEM, request)) == [((A("rex"), answer), PEER)]


async def test_rex_says_undef_with_its_stack_and_drops_what_it_does_not_know(here: Noted) -> None:
    request = (A("call"), A("os"), A("cmd"), [b"id"], THEM)
    [((_, answer), _)] = await ask_process(here, "rex", (A("$gen_call"), (THEM, REF), request))
    assert answer[0] is A("badrpc")
    assert answer[1][1][0] is A("undef")
    silent: list[Term] = [1, (A("$gen_call"), 1, request), (THEM, A("nonsense"))]
    assert await ask_process(here, "rex", *silent) == []


async def test_a_call_of_rex_whose_process_is_killed_is_answered(here: Noted) -> None:
    before = {*here.runtime.processes}
    request = (A("call"), A("shop"), A("wait"), [], THEM)
    assert await ask_process(here, "rex", (A("$gen_call"), (THEM, REF), request)) == []
    [started] = {*here.runtime.processes} - before
    here.process().exit(here.runtime.processes[started].pid, "kill")
    await eventually(lambda: here.out)
    assert [body for _, body, _ in here.take()] == [(REF, (A("badrpc"), (A("EXIT"), A("killed"))))]


async def test_rex_passes_on_sbcast_and_says_whether_the_name_is_there(here: Noted) -> None:
    shop = here.process("bell")
    assert await ask_process(here, "rex", (THEM, (A("sbcast"), A("bell"), b"ring"))) == [
        ((A("rex"), A(NODE), A(NODE)), PEER)
    ]
    assert mailbox(shop) == [b"ring"]
    assert await ask_process(here, "rex", (THEM, (A("sbcast"), A("nobody"), 1))) == [
        ((A("rex"), A(NODE), (A("nonexisting_name"), A("nobody"))), PEER)
    ]


async def test_rex_casts(here: Noted) -> None:
    cast = (A("cast"), A("shop"), A("nothing"), [], THEM)
    assert await ask_process(here, "rex", (A("$gen_cast"), cast), (THEM, A("features_request"))) == [
        ((A("features_reply"), A(NODE), [A("erpc")]), PEER)
    ]


def test_a_label_says_little_of_what_is_large() -> None:
    assert label_of(A("lists"), A("map")) == "lists:map"
    assert label_of(A("Lists"), b"x") == "'Lists':<<\"x\">>"
    assert len(label_of([*range(1000, 100_000)], (b"x" * 100_000,))) < 3 * MAX_LABEL
