"""`pyglyn store` and `pyglyn events` on a database with facts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from click.testing import CliRunner

from pyglyn import eventsourcing as es
from pyglyn.cli.eventsourcing import events as events_command
from pyglyn.eventsourcing import NewFact, Query, RawFact
from pyglyn.eventsourcing.stores import care
from tests.eventsourcing.stores.foreign import Foreign
from tests.eventsourcing.stores.test_care import KINDS, address, pyglyn_store

__all__ = ["address"]  # a fixture

pytestmark = pytest.mark.usefixtures("own_logging")  # commands set it up, here in this OS process


def fact(number: int) -> NewFact:
    metadata = [("by", "Zoë")] if number % 2 else []
    return NewFact(
        type="planned" if number % 3 else "reserved",
        data=b'{"n":%d}' % number,
        tags=["all", f"n:{number}"],
        metadata=metadata,
    )


async def fill(url: str, count: int, start: int = 1) -> None:
    async with es.open_log(url) as log:
        for number in range(start, start + count):
            await log.append([fact(number)], stream=f"s{number % 2}")


async def contents(url: str) -> list[RawFact]:
    async with es.open_log(url) as log:
        assert await log.read() == await log.read(Query(tags=["all"]))
        return await log.read()


def shown(*arguments: str, status: int = 0) -> Any:
    result = CliRunner().invoke(events_command, arguments)
    assert result.exit_code == status, result.output
    return result


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("into", KINDS)
async def test_a_copy_has_the_facts_and_goes_on_where_it_was(
    kind: str, into: str, address: Callable[[str, str], str]
) -> None:
    source, target = address(kind, "source"), address(into, "target")
    await fill(source, 9)
    Foreign(source).run("DELETE FROM factos_events WHERE position = 4")  # positions have a gap

    def broken_off(done: int, total: int) -> None:
        if done >= 4:
            assert total == 8
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        care.copy(source, target, progress=broken_off, page=2)
    assert care.stats(target)["facts"]["count"] == 4
    assert pyglyn_store("copy", source, target) == "0 events copied; 0 snapshots; 4 facts, 4 were there\n"
    assert await contents(target) == await contents(source)
    await fill(source, 1, start=10)
    assert pyglyn_store("copy", source, target) == "0 events copied; 0 snapshots; 1 facts, 8 were there\n"
    # Both go on from there.
    await fill(target, 1, start=11)
    assert [each.position for each in await contents(target)] == [1, 2, 3, 5, 6, 7, 8, 9, 10, 11]
    with pytest.raises(es.EventStoreError, match="facts that are not from there: copy into an empty store"):
        care.copy(source, target)


async def test_a_copy_of_facts_in_use_is_that_of_one_moment(
    address: Callable[[str, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fact and its effect are written in one transaction while the rest is copied."""
    source, target = address("sqlite", "source"), address("postgres", "target")
    await fill(source, 3)
    async with es.open_store(source) as store:
        await store.save_checkpoint("q", 3)
    foreign, count, copy_table = Foreign(source), 0, care._copy_table

    def written_between(*args: Any) -> int:
        nonlocal count
        count += 1
        foreign.run(
            "BEGIN",
            "INSERT INTO factos_events (id, stream, revision, type, version, tags, data) "
            f"VALUES ('f{count}', 'more', {count - 1}, 't', 1, 'all', x'7b7d')",
            "UPDATE pyglyn_checkpoint SET position = position + 1, version = version + 1",
            "COMMIT",
        )
        return copy_table(*args)

    monkeypatch.setattr(care, "_copy_table", written_between)
    care.copy(source, target)
    assert count > 5
    found = care.stats(target)
    assert found["queries"]["q"] == {"position": 3, "behind": 0, "paused": False}
    assert found["facts"] == {"count": 3, "last_position": 3, "types": {"planned": 2, "reserved": 1}}


async def test_verify_finds_what_is_wrong_with_facts(address: Callable[[str, str], str], kind: str) -> None:
    url = address(kind, "source")
    await fill(url, 8)
    assert pyglyn_store("verify", url) == "nothing is wrong\n"
    Foreign(url).run(
        "DELETE FROM factos_events WHERE position = 3",
        "UPDATE factos_events SET revision = 99 WHERE position = 2",
        "DELETE FROM pyglyn_fact_tag WHERE tag = 'n:5'",
        "INSERT INTO pyglyn_fact_tag (tag, position) VALUES ('wrong', 6)",
    )
    assert pyglyn_store("verify", url, status=1).splitlines() == [
        "stream s0 has 4 facts from revision 1 to 99",
        "stream s1 has 3 facts from revision 0 to 3",
        "revision 99 of stream s0 is at 2, before its predecessor",
        "the fact at 5 is not found by its tag n:5",
        "pyglyn_fact_tag has 1 rows for tags that no fact has",
    ]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_facts_are_printed_by_tag_and_position(address: Callable[[str, str], str], kind: str) -> None:
    url = address(kind, "source")
    await fill(url, 1200)
    lines = shown(url, "--facts").stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == [str(n) for n in range(1, 1201)]
    assert lines[0] == '1\tplanned 1\tall n:1\t{"n": 1}\tby=Zoë'
    some = shown(url, "--facts", "--tag", "all", "--tag", "n:7").stdout.splitlines()
    assert some == [lines[6]]
    assert shown(url, "--facts", "--after", "2", "--limit", "2").stdout.splitlines() == lines[2:4]
    hint = shown(url)
    assert (hint.stdout, "--facts prints them" in hint.stderr) == ("", True)
    assert "reserved     400" in pyglyn_store("stats", url)


async def test_facts_are_asked_for_where_there_are_any(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path}/bank.db"
    async with es.open_store(url):
        pass
    assert (shown(url).stdout, shown(url).stderr) == ("", "")
    with pytest.raises(es.EventStoreError, match="no facts"):
        CliRunner().invoke(events_command, [url, "--facts"], catch_exceptions=False)
    for wrong in (["--tag", "a"], ["--facts", "--aggregate", "a"]):
        assert shown(url, *wrong, status=2).stdout == ""
    assert care.stats(url)["facts"] is None


def test_data_that_is_no_json_is_shown_as_text() -> None:
    from pyglyn.cli.eventsourcing import _data_of

    raw = RawFact(
        position=1, stream="s", revision=0, id="i", type="t", version=1, tags=(), metadata=[], data=b"\xff\0x"
    )
    assert _data_of(raw) == "\\xff\0x"
    assert _data_of(attrs.evolve(raw, data=b"[1]")) == [1]
