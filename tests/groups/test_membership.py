"""Groups as multisets, as pg has them: a process is a member as often as it joined."""

from __future__ import annotations

from pyglyn.etf import Pid
from pyglyn.groups.membership import Membership

A, B = Pid("a@h", 1, 0, 1), Pid("a@h", 2, 0, 1)


def members(*pids: Pid) -> Membership:
    made = Membership()
    for pid in pids:
        made.add("key", b"name", pid)
    return made


def test_a_process_is_in_a_group_as_often_as_it_joined() -> None:
    groups = members(A, B, A)
    assert sorted(groups.pids("key"), key=lambda pid: pid.id) == [A, A, B]
    assert groups.remove("key", A)
    assert sorted(groups.pids("key"), key=lambda pid: pid.id) == [A, B]
    assert groups.remove("key", A)
    assert groups.pids("key") == [B]
    assert not groups.remove("key", A)


def test_a_group_without_members_is_no_group() -> None:
    groups = members(A)
    assert not groups.remove("other", A)
    assert groups.remove("key", A)
    assert list(groups.items()) == []
    assert groups.pids("key") == []
    assert not groups.remove("key", A)


def test_each_group_keeps_the_name_it_began_with() -> None:
    groups = members(A)
    groups.add("key", b"another name of the same key", B)
    groups.add("second", b"two", B)
    assert list(groups.items()) == [("key", b"name", [A, B]), ("second", b"two", [B])]


def test_what_one_has_beyond_another_is_counted_too() -> None:
    assert members(A, A, A, B).beyond(members(A), "key") == [A, A, B]
    assert members(A).beyond(members(A, A), "key") == []
    assert members(A).beyond(Membership(), "key") == [A]
    assert Membership().beyond(members(A), "key") == []
