"""What several nodes and stores tell of the same is shown as one."""

from __future__ import annotations

from typing import Any

from pyglyn.etf import Atom, Pid
from pyglyn.eventsourcing.domain.trace import Step
from pyglyn.groups.overview import Scope
from pyglyn.http import merged
from pyglyn.node.reasons import UNDEFINED


def step(id: str, at: float, cause: str = "", node: str = "a@h") -> Step:
    return Step(id, "happened", node, at, cause)


def shape(trees: list[Any]) -> list[Any]:
    return [(each["id"], shape(each["caused"])) for each in trees]


def test_events_of_one_database_are_there_once_and_hang_below_causes_from_another() -> None:
    bank = [step("Bank/a/1", 1.0), step("Bank/b/1", 3.0)]
    mail = [step("Mail/x/1", 2.0, "Bank/a/1")]
    found = merged.events([("bank on a@h", bank), ("bank on b@h", bank), ("mail on b@h", mail)])
    assert shape(found) == [("Bank/b/1", []), ("Bank/a/1", [("Mail/x/1", [])])]
    assert found[0] | {"caused": []} == {
        "id": "Bank/b/1", "name": "happened", "node": "a@h", "at": 3.0, "caused": [],
    }  # fmt: skip


def test_events_of_two_databases_that_have_one_name_are_told_apart() -> None:
    found = merged.events(
        [("bank on a@h", [step("Bank/a/1", 1.0)]), ("bank on b@h", [step("Bank/a/1", 2.0)])]
    )
    assert shape(found) == [("Bank/a/1 (bank on b@h)", []), ("Bank/a/1", [])]


def test_the_last_events_of_all_are_shown() -> None:
    many = [step(f"Bank/a/{number}", float(number)) for number in range(merged.SHOWN)]
    found = merged.events([("old", [step("Old/a/1", -1.0)]), ("bank", many)])
    assert len(found) == merged.SHOWN
    assert "Old/a/1" not in {each["id"] for each in found}


def test_groups_are_json_with_terms_as_text() -> None:
    pid = Pid("b@h", 7, 1, 3)
    scope = Scope(
        "syn_registry", "names", [((Atom("till"), 1), [(pid, b"gold")]), (b"bob", [(pid, UNDEFINED)])]
    )
    (found,) = merged.groups([("a@h", [scope]), ("b@h", [Scope("syn_registry", "names", [])])])
    assert (found["kind"], found["scope"], found["nodes"]) == ("syn_registry", "names", ["a@h", "b@h"])
    member = {"pid": "<7.1>", "node": "b@h", "missing": ["b@h"]}
    assert found["groups"] == [
        {"name": "bob", "members": [{**member, "meta": None}]},
        {"name": "{till,1}", "members": [{**member, "meta": "gold"}]},
    ]
