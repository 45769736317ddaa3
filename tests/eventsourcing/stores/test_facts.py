"""Facts with tags: queries, appends on condition, decisions, a log shared with a Gleam service."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeAlias

import attrs
import psycopg
import pytest

from pyglyn import eventsourcing as es
from pyglyn.etf import Term
from pyglyn.eventsourcing import AppendConditionFailed, Criterion, FactLog, NewFact, Query
from pyglyn.testing import Beam, eventually
from tests.eventsourcing.stores.foreign import Foreign
from tests.peers import INTEROP

# --- the contract of a log ----------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "sqlite", "wheel", "other"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "memory":
        yield "memory:"
    elif request.param == "sqlite":
        yield f"sqlite:{tmp_path}/facts.db"
    else:
        from pyglyn.testing.postgres import drop_schema, private_schema

        made = private_schema(request.getfixturevalue(f"{request.param}_server"))
        yield made
        drop_schema(made)


@pytest.fixture
async def log(url: str) -> AsyncIterator[FactLog]:
    async with es.open_log(url) as log:
        yield log


@pytest.fixture
async def other(url: str, log: FactLog) -> AsyncIterator[FactLog]:
    if url == "memory:":
        yield log
        return
    async with es.open_log(url) as other:
        yield other


def new(type_: str, *tags: str, **options: Any) -> NewFact:
    return NewFact(type=type_, data=type_.encode() + b"\0\xff", tags=tags, **options)


async def test_facts_come_back_as_they_were_in_one_order(log: FactLog, other: FactLog) -> None:
    assert await log.read() == []
    assert await log.last_position() == 0
    facts = [new("a", "x", "ü 1"), new("b", metadata=[("by", "Zoë")], id="i", version=3)]
    written = await log.append(facts, stream="s")
    more = await other.append([new("c", "x", "x")])
    assert await log.append([]) == []
    found = await other.read()
    assert found == written + more
    assert [(f.type, f.data, f.tags, f.metadata, f.version) for f in found] == [
        ("a", b"a\0\xff", ("x", "ü 1"), [], 1),
        ("b", b"b\0\xff", (), [("by", "Zoë")], 3),
        ("c", b"c\0\xff", ("x",), [], 1),
    ]
    assert [(f.stream, f.revision) for f in found] == [("s", 0), ("s", 1), ("pyglyn", 0)]
    assert [f.position for f in found] == [1, 2, 3]
    assert await log.last_position() == 3
    assert [f.type for f in await log.read(after=1, limit=1)] == ["b"]
    assert await log.read(limit=0) == []
    assert await log.read(after=3) == []


QUERIES: list[tuple[Query, str]] = [
    (Query(), "abcdef"),
    (Query(types=["a"]), "a"),
    (Query(types=["a", "c"]), "ac"),
    (Query(tags=["x"]), "abd"),
    (Query(tags=["x", "y"]), "bd"),
    (Query(types=["d", "e"], tags=["x"]), "d"),
    (Query(tags=["x"]) | Query(types=["f"]), "abdf"),
    (Query(types=["zz"]), ""),
    (Query(tags=["y", "zz"]), ""),
    (Query(tags=["back\\nslash"]), "e"),
    (Query(tags=['qu"ote']), "e"),
    (Query(tags=["nslash"]), ""),
    (Query() | Query(types=["a"]), "abcdef"),
    (Query.of([Criterion(tags=["y"]), Criterion(types=["a"])]), "abd"),
]


@pytest.mark.parametrize(
    ("query", "expected"), QUERIES, ids=lambda each: each if isinstance(each, str) else ""
)
async def test_a_query_selects_by_types_and_tags(log: FactLog, query: Query, expected: str) -> None:
    tags = {"a": ["x"], "b": ["x", "y"], "d": ["y", "z", "x"], "e": ["back\\nslash", 'qu"ote', "t\ta"]}
    await log.append([new(name, *tags.get(name, [])) for name in "abcdef"])
    assert "".join(fact.type for fact in await log.read(query)) == expected
    behind = await log.read(query, after=2)
    assert "".join(fact.type for fact in behind) == "".join(name for name in expected if name > "b")
    if expected:
        with pytest.raises(AppendConditionFailed) as caught:
            await log.append([new("no")], condition=query)
        assert (caught.value.condition, caught.value.after) == (query, 0)
        last = await log.last_position()
        await log.append([new("yes")], condition=query, after=last)
    else:
        await log.append([new("yes")], condition=query)
    assert [fact.type for fact in await log.read(after=6)] == ["yes"]


async def test_of_many_appends_on_one_condition_one_is_made(log: FactLog, other: FactLog) -> None:
    for n in range(5):
        seat = Query(tags=[f"seat:{n}"])
        logs = [log, other] * 4
        tries = (each.append([new("taken", f"seat:{n}")], condition=seat) for each in logs)
        outcomes = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(isinstance(outcome, list) for outcome in outcomes) == 1
        assert sum(isinstance(outcome, AppendConditionFailed) for outcome in outcomes) == 7
    assert await log.last_position() == len(await log.read())


async def test_what_cannot_be_stored_is_refused(log: FactLog) -> None:
    bad: list[NewFact] = [
        new("a\0"),
        new("a", "two\nlines"),
        new("a", ""),
        new("a", "\ud800"),
        new("a", metadata=[("k=", "v")]),
        new("a", metadata=[("k", "v\nw")]),
        attrs.evolve(new("a"), data="text"),  # type: ignore[arg-type]
    ]
    for fact in bad:
        with pytest.raises(es.EventEncodeError):
            await log.append([new("good"), fact])
    with pytest.raises(TypeError, match=r"write \['x'\]"):
        Query(tags="x")
    assert await log.read() == []


async def test_a_reader_that_waits_is_woken(log: FactLog, other: FactLog) -> None:
    assert await log.wait(0, timeout=0.05) is False
    waiting = asyncio.create_task(log.wait(0, timeout=20))
    await asyncio.sleep(0)
    await other.append([new("a")])
    assert await waiting is True
    assert await log.wait(0, timeout=0) is True


# --- facts with types, and decisions ------------------------------------------------------------------------


@attrs.frozen
class CourseDefined:
    course: str
    places: int


@attrs.frozen
class StudentSubscribed:
    student: str
    course: str


Event: TypeAlias = CourseDefined | StudentSubscribed


@attrs.frozen
class Subscribe:
    student: str
    course: str


@attrs.frozen
class State:
    """What a subscription rests on: the places and students of one course, the courses of one student."""

    student: str
    course: str
    places: int = 0
    students: int = 0
    courses: int = 0
    subscribed: bool = False


def handle(state: State, command: Subscribe | CourseDefined) -> list[Event]:
    if isinstance(command, CourseDefined):
        return [] if state.places else [command]
    if state.students >= state.places:
        raise es.DomainError("full")
    if state.courses >= 3:
        raise es.DomainError("too many courses")
    if state.subscribed:
        raise es.DomainError("subscribed already")
    return [StudentSubscribed(command.student, command.course)]


def apply(state: State, event: Event) -> State:
    match event:
        case CourseDefined(_, places):
            return attrs.evolve(state, places=places)
        case StudentSubscribed(student, course):
            return attrs.evolve(
                state,
                students=state.students + (course == state.course),
                courses=state.courses + (student == state.student),
                subscribed=state.subscribed or (student, course) == (state.student, state.course),
            )


def tags(event: Event) -> list[str]:
    found = [f"course:{event.course}"]
    return [*found, f"student:{event.student}"] if isinstance(event, StudentSubscribed) else found


def open_courses(url: str) -> es.FactStore[Event]:
    return es.open_facts(url, events=Event, tags=tags)


async def subscribe(facts: es.FactStore[Event], student: str, course: str) -> es.Decided[State, Event]:
    query = Query(tags=[f"course:{course}"]) | Query([StudentSubscribed], [f"student:{student}"])
    domain: es.Domain[State, Subscribe, Event] = es.Domain(handle, apply, State(student, course))
    return await facts.decide(query, domain, Subscribe(student, course), retries=1000)


DECISIONS = int(os.environ.get("PYGLYN_DECISIONS", "300"))


async def test_no_rule_across_courses_and_students_is_broken_by_concurrent_decisions(url: str) -> None:
    async with open_courses(url) as one, open_courses(url) as two:
        stores = [one, one if url == "memory:" else two]
        await one.append([CourseDefined(f"c{n}", 4) for n in range(10)])
        done = {"ok": 0, "full": 0, "too many courses": 0, "subscribed already": 0}

        async def client(n: int) -> None:
            for k in range(DECISIONS // 10):
                try:
                    await subscribe(stores[n % 2], f"s{(n * 7 + k * 3) % 12}", f"c{(n + k * k) % 10}")
                    done["ok"] += 1
                except es.DomainError as error:
                    done[str(error.error)] += 1

        await asyncio.gather(*(client(n) for n in range(10)))
        found = [fact.payload for fact in await one.read(Query([StudentSubscribed]))]
    pairs = [(each.student, each.course) for each in found if isinstance(each, StudentSubscribed)]
    assert len(pairs) == len(set(pairs)) == done["ok"]
    assert sum(done.values()) == DECISIONS // 10 * 10
    assert max(sum(course == f"c{n}" for _, course in pairs) for n in range(10)) <= 4
    assert max(sum(student == f"s{n}" for student, _ in pairs) for n in range(12)) <= 3
    assert done["full"] + done["too many courses"] > 0


async def test_a_decision_returns_its_state_facts_and_position(url: str) -> None:
    async with open_courses(url) as facts:
        [course] = await facts.append([CourseDefined("c", 1)], metadata=[("by", "dean")])
        assert (course.payload, course.type, course.tags) == (
            CourseDefined("c", 1),
            "course-defined",
            ("course:c",),
        )
        decided = await subscribe(facts, "ada", "c")
        assert decided.state.students == 1
        assert [fact.payload for fact in decided.facts] == [StudentSubscribed("ada", "c")]
        assert decided.position == await facts.log.last_position() == 2
        with pytest.raises(es.DomainError, match="full"):
            await subscribe(facts, "bob", "c")
        domain: es.Domain[State, CourseDefined, Event] = es.Domain(handle, apply, State("", "c"))
        nothing = await facts.decide(Query(tags=["course:c"]), domain, CourseDefined("c", 5))
        assert (nothing.facts, nothing.position) == ([], 2)
        with pytest.raises(es.EventEncodeError):
            await facts.append(["no event"])  # type: ignore[list-item]
        await facts.log.append([new("course-defined")])
        with pytest.raises(es.EventDecodeError):
            await facts.read()


async def test_facts_are_followed_by_query(url: str) -> None:
    async with open_courses(url) as facts:
        await facts.append([CourseDefined("a", 9), CourseDefined("b", 9)])
        seen: list[Any] = []

        async def follow() -> None:
            async for batch in facts.follow(Query([StudentSubscribed]), batch=2):
                seen.extend(fact.payload.student for fact in batch)

        following = asyncio.create_task(follow())
        for n in range(5):
            await facts.append([StudentSubscribed(f"s{n}", "a"), CourseDefined(f"c{n}", 1)])
        await eventually(lambda: seen == [f"s{n}" for n in range(5)])
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_a_fact_that_comes_between_two_looks_is_followed_once(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_courses(url) as facts:
        await facts.append([StudentSubscribed("first", "a")])
        found, coming = facts.log.last_position, [StudentSubscribed("between", "a")]

        async def last_position() -> int:
            last = await found()
            if coming:
                await facts.append([coming.pop()])
            return last

        monkeypatch.setattr(facts.log, "last_position", last_position)
        async with contextlib.aclosing(facts.follow()) as batches:
            assert [fact.payload.student for fact in await anext(batches)] == ["first", "between"]
            await facts.append([StudentSubscribed("last", "a")])
            assert [fact.payload.student for fact in await anext(batches)] == ["last"]


# --- one log, two languages ---------------------------------------------------------------------------------

FACTOS = {
    "sqlite": """CREATE TABLE IF NOT EXISTS factos_events (position integer primary key autoincrement,
        id text not null, stream text not null, revision integer not null, type text not null, version integer
        not null, tags text not null, metadata text not null default '', data blob not null,
        unique(stream, revision))""",
    "postgres": """CREATE TABLE IF NOT EXISTS factos_events (position bigint generated always as identity primary
        key, id text not null, stream text not null, revision integer not null, type text not null, version
        integer not null, tags text not null, metadata text not null, data bytea not null,
        unique(stream, revision))""",
}
INSERT = """INSERT INTO factos_events (id, stream, revision, type, version, tags, metadata, data)
VALUES ('i', 'gleam', %s, 'course-defined', 1, %s, %s, %s)"""


@pytest.mark.parametrize("made_by", ["gleam", "python"])
async def test_a_gleam_service_and_we_share_a_log(url: str, made_by: str) -> None:
    if url == "memory:":
        pytest.skip("nothing is shared in memory")
    database = Foreign(url)
    kind = "sqlite" if url.startswith("sqlite") else "postgres"
    data = b'{"event-type":"course-defined","course":"g","places":2}'
    if made_by == "gleam":
        database.run(FACTOS[kind], (INSERT, (0, "course:g\nold", "by=gleam", data)))
    async with open_courses(url) as facts:
        if made_by == "python":
            await facts.append([CourseDefined("p", 1)])
            database.run(FACTOS[kind], (INSERT, (0, "course:g\nold", "by=gleam", data)))
        [found] = await facts.read(Query(tags=["course:g", "old"]))
        assert (found.payload, found.metadata) == (CourseDefined("g", 2), [("by", "gleam")])
        after = await facts.log.last_position()
        waiting = asyncio.create_task(facts.log.wait(after, timeout=20))
        await asyncio.sleep(0)
        database.run((INSERT, (1, "course:h\nold", "", data.replace(b'"g"', b'"h"'))))
        assert await waiting is True
        with pytest.raises(AppendConditionFailed):
            await facts.append([CourseDefined("h", 1)], condition=Query(tags=["course:h"]), after=after)
        await facts.append([CourseDefined("h2", 1)], stream="gleam")
        rows = database.run(
            "SELECT stream, revision, type, version, tags, metadata, data FROM factos_events ORDER BY position"
        )
        written = b'{"event-type":"course-defined","course":"h2","places":1}'
        assert (*rows[-1][:6], bytes(rows[-1][6])) == (
            "gleam",
            2,
            "course-defined",
            1,
            "course:h2",
            "",
            written,
        )


async def test_a_gleam_service_that_decides_shuts_us_out_until_it_commits(wheel_server: str) -> None:
    from pyglyn.testing.postgres import drop_schema, private_schema

    url = private_schema(wheel_server)
    data = b'{"event-type":"course-defined","course":"g","places":2}'
    async with open_courses(url) as facts:
        database = Foreign(url)
        connection = database.connect()
        database.on(connection, "BEGIN")
        database.on(connection, "LOCK TABLE factos_events IN EXCLUSIVE MODE")
        deciding = asyncio.create_task(
            facts.append([CourseDefined("g", 1)], condition=Query(tags=["course:g"]))
        )
        await asyncio.wait((deciding,), timeout=0.2)
        assert not deciding.done()
        database.on(connection, INSERT, (0, "course:g", "", data))
        database.on(connection, "COMMIT")
        connection.close()
        with pytest.raises(AppendConditionFailed):
            await deciding
    drop_schema(url)


ROUND = 200
WRITER = """
    Me = self(),
    Writers = [spawn_monitor(fun() -> exit({done, factos_writer:run(Socket, Startup, Stream, Decisions)}) end)
        || {Stream, Decisions} <- Work],
    [receive {'DOWN', Ref, process, _, {done, Counts}} -> Counts; {'DOWN', Ref, process, _, Why} -> error(Why) end
        || {_, Ref} <- Writers]
"""


async def test_no_rule_is_broken_by_concurrent_decisions_in_python_and_on_a_beam(
    wheel_server: str, shared_beam: Beam
) -> None:
    """In rounds of new courses and students, so that there is always something left to decide."""
    from pyglyn.testing.postgres import drop_schema, private_schema

    await shared_beam.load(INTEROP / "erlang" / "factos_writer.erl")
    url = private_schema(wheel_server)
    info = psycopg.conninfo.conninfo_to_dict(url)
    socket = f"{info['host']}/.s.PGSQL.{info.get('port', 5432)}"
    startup = [
        ("user", info.get("user", "postgres")),
        ("database", info["dbname"]),
        ("options", info["options"]),
    ]
    totals: Counter[str] = Counter()
    rounds = max(1, DECISIONS // ROUND)
    async with open_courses(url) as one, open_courses(url) as two:
        await one.read()
        Foreign(url).run(r"CREATE INDEX ON factos_events USING gin (string_to_array(tags, E'\n'))")
        for number in range(rounds):
            await one.append([CourseDefined(f"r{number}c{n}", 4) for n in range(10)])
            choices = random.Random(number)
            shares = [
                [
                    (f"r{number}s{choices.randrange(12)}", f"r{number}c{choices.randrange(10)}")
                    for _ in range(ROUND // 8)
                ]
                for _ in range(8)
            ]

            async def client(facts: es.FactStore[Event], share: list[tuple[str, str]]) -> Counter[str]:
                counts: Counter[str] = Counter()
                for student, course in share:
                    try:
                        await subscribe(facts, student, course)
                        counts["ok in python"] += 1
                    except es.DomainError:
                        counts["refused"] += 1
                return counts

            work: Term = [
                (f"erlang{n}", [(student.encode(), course.encode()) for student, course in share])
                for n, share in enumerate(shares[4:])
            ]
            on_the_beam = shared_beam.eval(
                WRITER,
                timeout=120,
                Socket=socket.encode(),
                Startup=[(key.encode(), str(value).encode()) for key, value in startup],
                Work=work,
            )
            in_erlang: Any
            in_erlang, *in_python = await asyncio.gather(
                on_the_beam,
                *(client(facts, share) for facts, share in zip([one, one, two, two], shares, strict=False)),
            )
            for counts in in_python:
                totals.update(counts)
            for counts in in_erlang:
                named = {key.name: value for key, value in counts.items()}
                totals["ok on the beam"] += named.pop("ok")
                totals["conflicts"] += named.pop("conflicts")
                totals["refused"] += sum(named.values())
        found = [fact.payload for fact in await two.read(Query([StudentSubscribed]))]
    drop_schema(url)
    pairs = [(each.student, each.course) for each in found if isinstance(each, StudentSubscribed)]
    assert len(pairs) == len(set(pairs)) == totals["ok in python"] + totals["ok on the beam"]
    assert len(pairs) + totals["refused"] == rounds * ROUND
    assert max(Counter(course for _, course in pairs).values()) <= 4
    assert max(Counter(student for student, _ in pairs).values()) <= 3
    assert totals["ok in python"] > 0 < totals["ok on the beam"]
    logging.getLogger("tests").info("%d decisions: %s", rounds * ROUND, dict(totals))


def test_queries_are_values() -> None:
    assert Query(tags=["x"]) | Query(types=["a"]) == Query.of([Criterion(tags=["x"]), Criterion(types=["a"])])
    assert hash(Query(tags=["x"])) == hash(Query(tags=("x",)))
    make: Callable[..., Any] = Query
    with pytest.raises(TypeError):
        make(["a"], "b")


# --- versions -----------------------------------------------------------------------------------------------


@es.event("seat_sold", aliases=["seatSold"])
@attrs.frozen
class OldSale:
    seat: str


def _split(old: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"event-type": "seat_sold", "seat": seat, "cents": 100} for seat in old["seat"].split()]


@es.event("seat_sold", version=2, aliases=["seatSold"], upcasters={1: _split})
@attrs.frozen
class Sale:
    seat: str
    cents: int


def _sales(seats: tuple[str, ...], event: Sale) -> tuple[str, ...]:
    return (*seats, event.seat)


SALES: es.Domain[tuple[str, ...], str, Sale] = es.Domain(
    lambda seats, seat: [] if seat in seats else [Sale(seat, 7)], _sales, ()
)


async def test_facts_have_the_version_and_the_name_of_their_class(url: str) -> None:
    """What is written is read as it is, what was written before as it has become: none, one or several."""
    async with es.open_log(url) as log:
        old = es.FactStore[OldSale](log, events=OldSale, tags=lambda event: ["show:h"])
        new = es.FactStore[Sale](log, events=Sale, tags=lambda event: ["show:h"])
        concerned = Query([Sale], tags=["show:h"])
        written = [
            NewFact(type="seatSold", data=b'{"event-type":"seatSold","seat":"A1 A2"}', tags=["show:h"])
        ]
        await log.append(written)
        await old.append([OldSale("A3"), OldSale("")])
        assert (await new.decide(concerned, SALES, "A4")).state == ("A1", "A2", "A3", "A4")
        assert (await new.decide(concerned, SALES, "A2")).facts == []
        assert [(raw.type, raw.version) for raw in await log.read()] == [
            ("seatSold", 1),
            ("seat_sold", 1),
            ("seat_sold", 1),
            ("seat_sold", 2),
        ]
        expected = [Sale("A1", 100), Sale("A2", 100), Sale("A3", 100), Sale("A4", 7)]
        assert [fact.payload for fact in await new.read(concerned)] == expected
        assert [fact.position for fact in await new.read(concerned)][:2] == [1, 1]
        followed: list[Sale] = []
        async for facts in new.follow(concerned, batch=1):
            followed += [fact.payload for fact in facts]
            if len(followed) == len(expected):
                break
        assert followed == expected


async def test_a_decision_rests_on_a_last_fact_that_has_become_none(url: str) -> None:
    async with es.open_log(url) as log:
        await es.FactStore[OldSale](log, events=OldSale, tags=lambda event: ["show:h"]).append([OldSale("")])
        new = es.FactStore[Sale](log, events=Sale, tags=lambda event: ["show:h"])
        decided = await new.decide(Query([Sale], tags=["show:h"]), SALES, "A1", retries=0)
        assert (decided.state, decided.position) == (("A1",), 2)
