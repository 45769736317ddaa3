"""An external program as data: what is run, and how it says that it is ready. Layer: supervision, pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeAlias

import attrs

from pyglyn.supervision.words import reject


@attrs.frozen
class ReadyLine:
    """A program is ready when a line of its output matches a pattern (``re.search``)."""

    pattern: str = attrs.field()

    @pattern.validator
    def _check(self, attribute: object, value: str) -> None:
        try:
            re.compile(value)
        except (re.error, TypeError) as error:
            raise reject(f"{value!r} is no pattern: {error}", "invalid_ready", value) from error


@attrs.frozen
class ReadyNotify:
    """A program is ready when it sends ``READY=1`` to the socket ``$NOTIFY_SOCKET``; see sd_notify(3)."""


@attrs.frozen
class ReadyFd:
    """A program is ready when it writes a line to the descriptor numbered in ``$READY_FD``."""


@attrs.frozen
class ReadyPort:
    """A program is ready when it accepts TCP connections on a port. Tried in growing steps up to 0.2 s."""

    port: int = attrs.field()
    host: str = "127.0.0.1"

    @port.validator
    def _check(self, attribute: object, value: int) -> None:
        if not isinstance(value, int) or not 0 < value < 65536:
            raise reject(f"a port is 1 to 65535, got {value!r}", "invalid_ready", value)


Ready: TypeAlias = ReadyLine | ReadyNotify | ReadyFd | ReadyPort


def _words(value: Iterable[str]) -> tuple[str, ...]:
    return tuple(value)


@attrs.frozen
class ProgramStart:
    """An external program.

    Attributes:
        argv: the program, looked up on ``PATH``, and its arguments.
        env: variables added to (or, with value None, taken from) the supervisor's environment.
        cwd: its working directory; None for the supervisor's.
        ready: when it counts as started; None as soon as it runs.
    """

    argv: tuple[str, ...] = attrs.field(converter=_words)
    env: Mapping[str, str | None] = attrs.field(factory=dict)
    cwd: str | None = None
    ready: Ready | None = attrs.field(default=None)

    @ready.validator
    def _check_ready(self, attribute: object, value: object) -> None:
        if value is not None and not isinstance(value, (ReadyLine, ReadyNotify, ReadyFd, ReadyPort)):
            hint = f"; did you mean ReadyLine({value!r})?" if isinstance(value, str) else ""
            raise reject(
                f"ready is ReadyLine, ReadyNotify, ReadyFd or ReadyPort, got {value!r}{hint}",
                "invalid_ready",
                repr(value),
            )

    @env.validator
    def _check_env(self, attribute: object, value: Mapping[str, str | None]) -> None:
        for key, text in value.items():
            if not isinstance(key, str) or not (text is None or isinstance(text, str)):
                raise reject(
                    f"env maps names to strings, or to None: {key!r} is {text!r}", "invalid_env", repr(key)
                )

    @argv.validator
    def _check(self, attribute: object, value: tuple[str, ...]) -> None:
        if not value or not all(isinstance(word, str) and "\0" not in word for word in value):
            raise reject(f"argv is a list of strings and not empty, got {value!r}", "invalid_argv", value)
