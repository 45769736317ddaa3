"""Which issued command is sent next: in order along an instance, many instances at once. Pure.

Each service has a queue of its own, so many commands under way, and so many that are known: if it does not
answer, it holds up no other. What is beyond that is left out, with what comes behind it along its instance,
and read again from the beginning once half of it is done. A parked command's instance is left out, too, until
all is read anew.

A command is taken, then it is sent, or its instance is held (it was refused, or parked: later commands of the
instance wait), or it is to be tried again at a time, before the others of its instance.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable

import attrs

from pyglyn.eventsourcing.stores.managing import IssuedCommand


@attrs.define
class _Line:
    """The commands of one instance.

    Attributes:
        until: when the first one may be tried.
    """

    commands: deque[IssuedCommand] = attrs.field(factory=deque)
    attempts: int = 0
    until: float = float("-inf")
    taken: bool = False
    held: bool = False


class Outgoing:
    """The commands of one manager that are known to wait.

    Args:
        width: how many to one service are under way at once.
        most: how many are known that wait for one service, or behind such a one.

    Attributes:
        last: the greatest id that was put.
    """

    def __init__(self, width: int, most: int = 10_000) -> None:
        self._width = width
        self._most = most
        self._behind: Counter[str] = Counter()  # commands, by the service of the first of their instance
        self._full: set[str] = set()  # services of which some were left out
        self._left_out = _Names()  # instances
        self._lines: dict[str, _Line] = {}
        self._ready: dict[str, deque[str]] = {}  # by service: instances whose first command may be taken
        self._under_way: Counter[str] = Counter()  # commands that were taken, by service
        self._size = 0
        self.last = 0

    def __len__(self) -> int:
        return self._size

    def put(self, commands: Iterable[IssuedCommand]) -> None:
        """Put commands behind the others, in the order of their ids; one that is held holds its instance."""
        for command in commands:
            self.last = max(self.last, command.id)
            line = self._lines.get(command.instance)
            if line is not None and line.commands[-1].id >= command.id:
                continue  # it is known, and was read again
            if command.instance in self._left_out:
                continue
            service = command.service if line is None else line.commands[0].service
            if self._behind[service] >= self._most:
                self._left_out.add(command.instance)
                self._full.add(service)
                continue
            self._size += 1
            self._behind[service] += 1
            if line is not None:
                line.commands.append(command)
                continue
            line = self._lines[command.instance] = _Line(deque([command]))
            self._free(line, command.instance)

    def has_room_again(self) -> bool:
        """Tell whether what was left out may be read now; then it is to be put from the beginning."""
        if all(2 * self._behind[service] > self._most for service in self._full):
            return False
        self.last = 0
        self._full.clear()
        self._left_out = _Names()
        return True

    def take(self, now: float) -> IssuedCommand | None:
        """Take the command to be sent next; None if there is none now."""
        for service, ready in self._ready.items():
            if self._under_way[service] >= self._width:
                continue
            for _ in range(len(ready)):
                instance = ready.popleft()
                line = self._lines[instance]
                if line.until <= now:
                    line.taken = True
                    self._under_way[service] += 1
                    self._ready[service] = self._ready.pop(service)  # the others come first next time
                    return line.commands[0]
                ready.append(instance)
        return None

    def done(self, command: IssuedCommand) -> None:
        """A command that was taken is over; the next of its instance may go."""
        self._drop(self._back(command), command.instance)

    def hold(self, command: IssuedCommand) -> None:
        """A command that was taken keeps its instance waiting until it is released, or all is read anew."""
        self._back(command).held = True

    def park(self, command: IssuedCommand) -> None:
        """A command that was taken keeps its instance waiting until all is read anew."""
        self._leave_out(self._back(command), command.instance)

    def release(self, command: IssuedCommand) -> None:
        """Let an instance go on whose command has held it, and is gone."""
        line = self._lines.get(command.instance)
        if line is not None and line.held and line.commands[0].id == command.id:
            line.held = False
            self._drop(line, command.instance)

    def again(self, command: IssuedCommand, until: float) -> None:
        """A command that was taken is to be tried again at a time."""
        line = self._back(command)
        line.until = until
        self._append(command)

    def failed(self, command: IssuedCommand) -> int:
        """Count a failed attempt at a command that was taken; returns how many there were in a row."""
        line = self._lines[command.instance]
        line.attempts += 1
        return line.attempts

    def wake_at(self) -> float | None:
        """Return when a command may be taken that has to wait for its time; None if there is none."""
        waiting = (
            self._lines[instance].until
            for service, ready in self._ready.items()
            if self._under_way[service] < self._width
            for instance in ready
        )
        return min(waiting, default=None)

    def forget(self) -> None:
        """Forget what is not under way: it is read anew."""
        self._ready.clear()
        self._behind.clear()
        self._full.clear()
        self._left_out = _Names()
        self._size = 0
        self.last = 0
        for instance, line in list(self._lines.items()):
            if line.taken:
                line.commands = deque([line.commands[0]])
                self._size += 1
                self._behind[line.commands[0].service] += 1
            else:
                del self._lines[instance]

    def _drop(self, line: _Line, instance: str) -> None:
        self._behind[line.commands.popleft().service] -= len(line.commands) + 1
        self._size -= 1
        if line.commands:
            self._behind[line.commands[0].service] += len(line.commands)
            self._free(line, instance)
        else:
            del self._lines[instance]

    def _free(self, line: _Line, instance: str) -> None:
        line.attempts, line.until = 0, float("-inf")
        match line.commands[0].status:
            case "waiting":
                self._append(line.commands[0])
            case "refused":
                line.held = True
            case "parked":
                self._leave_out(line, instance)

    def _leave_out(self, line: _Line, instance: str) -> None:
        self._behind[line.commands[0].service] -= len(line.commands)
        self._size -= len(line.commands)
        del self._lines[instance]
        self._left_out.add(instance)

    def _back(self, command: IssuedCommand) -> _Line:
        line = self._lines[command.instance]
        assert line.taken
        line.taken = False
        self._under_way[command.service] -= 1
        return line

    def _append(self, command: IssuedCommand) -> None:
        self._ready.setdefault(command.service, deque()).append(command.instance)


class _Names:
    """Names that were added, in 2 MiB. With a million, one in a hundred others is taken for one of them."""

    _BITS = 24

    def __init__(self) -> None:
        self._bits: bytearray | None = None

    def add(self, name: str) -> None:
        if self._bits is None:
            self._bits = bytearray(1 << self._BITS - 3)
        for place in self._places(name):
            self._bits[place >> 3] |= 1 << (place & 7)

    def __contains__(self, name: str) -> bool:
        bits = self._bits
        return bits is not None and all(bits[at >> 3] >> (at & 7) & 1 for at in self._places(name))

    def _places(self, name: str) -> tuple[int, int]:
        number, mask = hash(name), (1 << self._BITS) - 1
        return number & mask, number >> self._BITS & mask
