"""Destinations that answer with anything, too late, twice, never, or that die: played by real Erlang processes.

As a `gen_server`, and as an actor of Gleam's eventsourcing 9.1. A command is carried out by who answers that it is; what
is no answer is a failure of that command alone, told to people, and the commands of other instances go on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from pyglyn import eventsourcing as es
from pyglyn.etf import Atom, Pid, Term
from pyglyn.eventsourcing.managers.sending import LONGEST_TEXT, WIDTH
from pyglyn.gleam import NamedSubject
from pyglyn.node import Node
from pyglyn.testing import Beam, eventually
from tests.eventsourcing.managers.jobs import (
    Begun,
    Command,
    Step,
    jobs_manager,
    open_jobs,
    parked,
    status,
    steady,
)
from tests.node.conftest import unique_name

Store = es.EventStore[Any, Any]

DESTINATION = """
    Answers = fun(N, Id, Command, Meta, Reply) -> {answers} end,
    Me = self(),
    Pid = spawn(fun() ->
        register({name}, self()),
        Me ! ready,
        (fun Loop(Seen) ->
            receive
                {{seen, To}} -> To ! {{seen, lists:reverse(Seen)}}, Loop(Seen);
                Message ->
                    {{Id, Command, Meta, Reply}} = case Message of
                        {{'$gen_call', From, {{execute_command, I, C, M}}}} ->
                            {{I, C, M, fun(A) -> gen_server:reply(From, A) end}};
                        {{{name}, {{execute_command_with_response, I, C, M, {{subject, P, R}}}}}} ->
                            {{I, C, M, fun(A) -> P ! {{R, A}} end}}
                    end,
                    Answers(length([x || {{Other, _, _}} <- Seen, Other =:= Id]) + 1, Id, Command, Meta, Reply),
                    Loop([{{Id, Command, proplists:get_value(<<"command_id">>, Meta)}} | Seen])
            end
        end)([])
    end),
    receive ready -> Pid end
"""


class Destination:
    """An Erlang process that answers commands; ``kind`` says by which protocol."""

    def __init__(self, beam: Beam, kind: str, name: str = "jobs") -> None:
        self.beam = beam
        self.name = name
        self.kind = kind
        self.pid: Pid | None = None

    async def start(self, answers: str) -> None:
        """Start it with an expression that uses ``N``, ``Id``, ``Command``, ``Meta`` and calls ``Reply(Term)``."""
        found = await self.beam.eval(DESTINATION.format(answers=answers, name=self.name))
        assert isinstance(found, Pid)
        self.pid = found

    def at(self, **options: Any) -> es.Destination:
        """Return it as a manager has it."""
        to: Any = (self.name, self.beam.name)
        if self.kind == "actor":
            to = (NamedSubject(Atom(self.name)), self.beam.name)
        return es.Destination(name=to, commands=Command, **{"timeout": 60.0, **options})

    async def seen(self) -> list[tuple[str, Term, str]]:
        """Return the commands that it got, in order, with their ids."""
        found: Any = await self.beam.eval(
            "Pid ! {seen, self()}, receive {seen, Seen} -> Seen after 10000 -> none end", Pid=self.pid
        )
        return [(id.decode(), command, key.decode()) for id, command, key in found]


@pytest_asyncio.fixture
async def beside(shared_beam: Beam) -> AsyncIterator[Node]:
    async with Node(unique_name(), cookie=shared_beam.cookie) as running:
        await running.connect(shared_beam.name)
        yield running


@pytest_asyncio.fixture(params=["gen_server", "actor"])
async def jobs(request: pytest.FixtureRequest, shared_beam: Beam) -> AsyncIterator[Destination]:
    made = Destination(shared_beam, request.param)
    yield made
    if made.pid is not None and shared_beam.alive:
        await shared_beam.eval("exit(Pid, kill), ok", Pid=made.pid)
        await eventually(lambda: shared_beam.eval("whereis(jobs) =:= undefined"))


@pytest_asyncio.fixture(params=["memory", "sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Any) -> AsyncIterator[Store]:
    urls = {"memory": "memory:", "sqlite": f"sqlite:{tmp_path}/jobs.db"}
    async with open_jobs(urls.get(request.param) or request.getfixturevalue("postgres")) as opened:
        yield opened


@pytest_asyncio.fixture
async def memory() -> AsyncIterator[Store]:
    async with open_jobs("memory:") as opened:
        yield opened


async def begin(store: Store, *jobs: str, steps: int = 1) -> None:
    for job in jobs:
        await store.append(job, [Begun(steps, None)], expected=0)


async def start(node: Node, store: Store, **services: Any) -> None:
    policy = es.FailurePolicy(retries=1, first=0.001, longest=0.002)
    await jobs_manager(store, handle=steady, services=services, policy=policy).start(node)


async def waiting(store: Store) -> set[str]:
    """Return the instances that have commands which are not known to be carried out."""
    return {each.instance for each in await store.issued_commands("steps")}


async def test_each_command_is_carried_out_by_a_process_of_erlang_in_order_and_once(
    beside: Node, store: Store, jobs: Destination
) -> None:
    await jobs.start("Reply({ok, nil})")
    await begin(store, "a", "b", steps=5)
    await start(beside, store, jobs=jobs.at())

    async def all_are_done() -> bool:
        return len(await jobs.seen()) == 10 and not await waiting(store)

    await eventually(all_are_done, timeout=20)
    seen = await jobs.seen()
    for id in ("a", "b"):
        assert [command for each, command, _ in seen if each == id] == [
            (Atom("step"), n) for n in range(1, 6)
        ]
    assert len({key for _, _, key in seen}) == 10
    assert (await status(beside)).parked == 0


GARBAGE = [
    "nonsense",
    "{ok}",
    "{error}",
    "{error, nonsense}",
    "[]",
    "[ok | nil]",
    "{error, {version_conflict, <<255>>, a, b}}",
    "{error, {event_store_error, <<255, 0>>}}",
    "{error, {actor_timeout, 1, 2}}",
    "{error, {domain_error}}",
    "{ok, [1, 2]}",
    "{ok, {committed, [nonsense], 1}}",
    '{error, {event_store_error, binary:copy(<<"x">>, 1000000)}}',
    "{error, {domain_error, <<0, 255>>}}",
    '{error, {domain_error, <<"a", 0, 16#ED, 16#A0, 16#80>>}}',
    '{error, {domain_error, binary:copy(<<"x">>, 1000000)}}',
    "{error, {domain_error, lists:foldl(fun(_, T) -> {T} end, x, lists:seq(1, 1000))}}",
    "{error, {domain_error, #{1.5 => self(), make_ref() => fun() -> x end}}}",
]


async def test_what_is_no_answer_fails_its_command_alone_and_is_told(
    beside: Node, store: Store, jobs: Destination
) -> None:
    clauses = "; ".join(f'<<"{number}">> -> Reply({each})' for number, each in enumerate(GARBAGE))
    await jobs.start(f"case Id of {clauses}; _ -> Reply({{ok, nil}}) end")
    await begin(store, *map(str, range(len(GARBAGE))), "good", steps=2)
    await start(beside, store, jobs=jobs.at())
    found = await parked(beside, len(GARBAGE))
    texts = {int(each[Atom("aggregate_id")]): each[Atom("error")].decode() for each in found}
    assert set(texts) == set(range(len(GARBAGE)))
    assert all(text.startswith("command to jobs: ") for text in texts.values())
    assert max(map(len, texts.values())) < LONGEST_TEXT + 100

    async def others_are_done() -> bool:
        return await waiting(store) == set(map(str, texts))

    await eventually(others_are_done)
    first = [id for id, command, _ in await jobs.seen() if command == (Atom("step"), 2)]
    assert first == ["good"]
    await beside.call("steps", (Atom("drive"), Atom("all")))  # of each the same is said again
    await parked(beside, len(GARBAGE))


async def test_what_fails_at_first_is_sent_again_with_its_id(
    beside: Node, memory: Store, jobs: Destination
) -> None:
    await jobs.start(
        "case N of 1 -> Reply(nonsense); 2 -> Reply({error, {store_unavailable, <<>>, true}}); _ -> Reply({ok, nil}) end"
    )
    await begin(memory, "a")
    await start(beside, memory, jobs=jobs.at())

    async def is_done() -> bool:
        return not await waiting(memory) and bool(await jobs.seen())

    await eventually(is_done, timeout=20)
    seen = await jobs.seen()
    assert len(seen) == 3
    assert len(set(map(repr, seen))) == 1


async def test_an_answer_that_comes_twice_or_too_late_or_from_somebody_else_changes_nothing(
    beside: Node, memory: Store, jobs: Destination
) -> None:
    """The first command is answered twice, with opposites; the second one when its next attempt has been answered."""
    await jobs.start(
        """
        Refusal = {error, {domain_error, <<"late">>}},
        case {Command, get(first)} of
            {{step, 1}, _} -> Reply({ok, nil}), Reply(Refusal), Reply({ok, nil});
            {{step, 2}, undefined} -> put(first, Reply);
            {{step, 2}, Late} -> Reply({ok, nil}), Late(Refusal);
            _ -> Reply({ok, nil})
        end
        """
    )
    await begin(memory, "a", steps=3)
    await start(beside, memory, jobs=jobs.at(timeout=0.2))
    manager = beside.whereis("steps")

    async def is_done() -> bool:
        await jobs.beam.eval(
            """
            [To ! M || M <- [{make_ref(), {ok, nil}}, {make_ref(), nonsense}, {[alias | make_ref()], {ok, nil}},
                {'DOWN', make_ref(), process, self(), killed}, {'EXIT', self(), kill}, {'$gen_cast', nonsense},
                {'$gen_call', {self(), make_ref()}, nonsense}, {'$gen_call', nonsense, nonsense}, <<>>,
                {pyglyn, nonsense}, {jobs, {ok, nil}}, [improper | list], {system, nonsense, nonsense}]], ok
            """,
            To=manager,
        )
        return not await waiting(memory) and len(await jobs.seen()) >= 4

    await eventually(is_done, timeout=20)
    steps = [command[1] for _, command, _ in await jobs.seen()]  # type: ignore[index]
    assert steps == sorted(steps)  # each as often as its answer came too late
    assert set(steps) == {1, 2, 3}
    assert steps.count(2) >= 2
    assert ((await status(beside)).parked, beside.whereis("steps")) == (0, manager)


async def test_a_destination_that_dies_of_a_command_gets_it_again_when_it_is_back(
    beside: Node, memory: Store, jobs: Destination
) -> None:
    await jobs.start("exit(of_it)")
    await begin(memory, "a")
    await start(beside, memory, jobs=jobs.at(timeout=0.2))

    async def is_told() -> bool:
        found = await status(beside)
        return found.state == "stuck" and bool(found.error) and found.commands == 1

    await eventually(is_told, timeout=20)
    await eventually(lambda: jobs.beam.eval("whereis(jobs) =:= undefined"))
    await jobs.start("Reply({ok, nil})")

    async def is_done() -> bool:
        return not await waiting(memory)

    await eventually(is_done, timeout=30)
    assert [command for _, command, _ in await jobs.seen()][-1] == (Atom("step"), 1)


async def test_a_destination_that_hangs_holds_up_no_other(
    beside: Node, memory: Store, jobs: Destination
) -> None:
    """More instances wait for it than there are commands under way."""
    await jobs.start("hangs")
    quick = Destination(jobs.beam, jobs.kind, "quick")
    await quick.start("Reply({ok, nil})")
    try:
        hanging = [f"h{number}" for number in range(WIDTH + 10)]
        await begin(memory, *hanging, "good", steps=1)

        def follow(progress: Any, message: Any) -> list[es.Action]:
            return [es.Dispatch("jobs" if message.steps else "quick", Step(1))]

        await memory.append("quick one", [Begun(0, None)], expected=0)
        await start_with(beside, memory, follow, jobs=jobs.at(timeout=600.0), quick=quick.at())

        async def the_other_is_served() -> bool:
            return [id for id, _, _ in await quick.seen()] == ["quick one"]

        await eventually(the_other_is_served, timeout=20)

        async def all_it_may_have() -> bool:
            return len(await jobs.seen()) == WIDTH

        await eventually(all_it_may_have, timeout=20)
        pid = beside.whereis("steps")
        assert pid is not None
        beside.system.exit(pid, "shutdown")  # and it ends all the same
        await eventually(lambda: beside.whereis("steps") is None)
        assert len(await waiting(memory)) == len(hanging) + 1
    finally:
        await jobs.beam.eval("exit(Pid, kill), ok", Pid=quick.pid)


async def start_with(node: Node, store: Store, handle: Any, **services: Any) -> None:
    await jobs_manager(store, handle=handle, services=services).start(node)


async def test_a_link_that_is_cut_in_the_middle_of_commands_loses_none(
    beside: Node, memory: Store, jobs: Destination
) -> None:
    await jobs.start(
        'case Id of <<"cut">> when N =:= 1 -> erlang:disconnect_node(hd(nodes(connected))); _ -> Reply({ok, nil}) end'
    )
    await begin(memory, "cut", "other", steps=3)
    await start(beside, memory, jobs=jobs.at(timeout=0.5))

    async def is_done() -> bool:
        return not await waiting(memory) and len(await jobs.seen()) >= 6

    await eventually(is_done, timeout=30)
    seen = await jobs.seen()
    for id in ("cut", "other"):
        numbers = [command[1] for each, command, _ in seen if each == id]  # type: ignore[index]
        assert list(dict.fromkeys(numbers)) == [1, 2, 3]
    assert len({key for _, _, key in seen}) == 6
