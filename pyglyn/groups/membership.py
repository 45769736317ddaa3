"""Groups of pids as multisets. Layer: groups, pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pyglyn.etf import Pid, Term


class Membership:
    """Groups and their members, as a multiset: ``key of the group -> (its name, {pid: how often})``."""

    __slots__ = ("groups",)

    def __init__(self) -> None:
        self.groups: dict[object, tuple[Term, dict[Pid, int]]] = {}

    def add(self, key: object, name: Term, pid: Pid) -> None:
        """One more membership."""
        entry = self.groups.get(key)
        if entry is None:
            self.groups[key] = (name, {pid: 1})
        else:
            entry[1][pid] = entry[1].get(pid, 0) + 1

    def remove(self, key: object, pid: Pid) -> bool:
        """One membership fewer; False if there is none."""
        entry = self.groups.get(key)
        count = entry[1].get(pid, 0) if entry is not None else 0
        if entry is None or not count:
            return False
        if count > 1:
            entry[1][pid] = count - 1
        else:
            del entry[1][pid]
            if not entry[1]:
                del self.groups[key]
        return True

    def remove_each(self, key: object, leaving: Leaving) -> list[Pid]:
        """One membership fewer for each time a process is named; those that had one, in their order.

        It looks at as many processes as there are members or are named, whichever is fewer.
        """
        entry = self.groups.get(key)
        if entry is None:
            return []
        return [pid for pid in leaving.among(entry[1]) if self.remove(key, pid)]

    def pids(self, key: object) -> list[Pid]:
        """The members of a group, each as often as it joined."""
        entry = self.groups.get(key)
        return [] if entry is None else list(_expand(entry[1]))

    def items(self) -> Iterator[tuple[object, Term, list[Pid]]]:
        """Each group: key, name, members."""
        for key, (name, counts) in self.groups.items():
            yield key, name, list(_expand(counts))

    def beyond(self, other: Membership, key: object) -> list[Pid]:
        """The memberships of a group that ``other`` does not have."""
        entry, theirs = self.groups.get(key), other.groups.get(key)
        if entry is None:
            return []
        counts = {} if theirs is None else theirs[1]
        return [pid for pid, count in entry[1].items() for _ in range(count - counts.get(pid, 0))]


class Leaving:
    """Processes that leave groups, each as often as it is named."""

    __slots__ = ("_places", "pids")

    def __init__(self, pids: Sequence[Pid]) -> None:
        self.pids = pids
        self._places: dict[Pid, list[int]] | None = None

    def among(self, members: dict[Pid, int]) -> Sequence[Pid]:
        """Those that are members, in the order in which they are named, and maybe some that are not."""
        if len(self.pids) <= len(members):
            return self.pids
        if self._places is None:
            self._places = {}
            for place, pid in enumerate(self.pids):
                self._places.setdefault(pid, []).append(place)
        places = sorted(place for pid in members for place in self._places.get(pid, ()))
        return [self.pids[place] for place in places]


def _expand(counts: dict[Pid, int]) -> Iterator[Pid]:
    for pid, count in counts.items():
        for _ in range(count):
            yield pid
