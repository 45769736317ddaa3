"""The log of a node: one configuration for all its OS processes, written without ever waiting. Layer: logs.

``pyglyn node`` calls `set_up` once; what it was given travels to every worker, forked or fresh, so that a
line of the application's own loggers looks the same wherever it comes from, comes once, and names its worker.
A program that runs a node of its own (``async with Node(…)``) sets up logging itself; this is not used then.

Nobody waits for a reader of the log: what cannot be written at once is kept, up to `MOST_QUEUED` bytes, and
written when there is room; beyond that lines are dropped and counted, and the log says how many once it is
read again. OTP's logger has the same rule ("drop mode" of ``logger_std_h``). So a container's stuck log
driver stops no node.

Control characters of a message are escaped, and its further lines are indented: what a peer sends writes no
line of its own and no escape sequence to a terminal.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import errno
import logging
import os
import select
import socket
import stat
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from pyglyn.escaping import CONTROLS, escaped

MOST_QUEUED: Final = 256 * 1024
"""Bytes kept for a reader that does not read, in each OS process."""

LEVELS: Final = ("debug", "info", "warning", "error", "critical")
FORMATS: Final = ("text", "json")

_LAST_CHANCE_S: Final = 0.2
"""For how long an OS process that ends waits for a reader."""

_COLOURS: Final = {"DEBUG": "2", "INFO": "32", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}


@attrs.frozen(kw_only=True)
class LogSettings:
    """How a node logs, in all its OS processes.

    Attributes:
        level: of the root logger, one of `LEVELS`.
        format: ``"text"`` for people, ``"json"`` for one object a line.
        config: a configuration for `logging.config.dictConfig` instead of the two; its formats may use
            ``%(node)s``, ``%(worker)s`` and ``%(os_pid)d``.
    """

    level: str = attrs.field(default="info", validator=attrs.validators.in_(LEVELS))
    format: str = attrs.field(default="text", validator=attrs.validators.in_(FORMATS))
    config: Mapping[str, Any] | None = None


def load_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a ``dictConfig`` from a ``.json`` or ``.toml`` file.

    Raises:
        ValueError: there is no such file, or it is none; the text says why.
    """
    import json  # late, as all here that only some ways to log need
    import tomllib

    name = os.fspath(path)
    try:
        with open(name, encoding="utf-8") as file:
            content = file.read()
        config = tomllib.loads(content) if name.endswith(".toml") else json.loads(content)
    except (OSError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{name}: a logging configuration is a table, not a {type(config).__name__}")
    return {"version": 1, "disable_existing_loggers": False, **config}


# --- set up, once in each OS process -------------------------------------------------------------------


@attrs.define
class _Present:
    """What `set_up` was called with last, in this OS process."""

    settings: LogSettings | None = None
    node: str = ""
    worker: str = ""
    handler: LogHandler | None = None


_present = _Present()


def set_up(settings: LogSettings, *, node: str = "", worker: str = "") -> None:
    """Log as the settings say, from the root logger down; what an earlier call has set up is replaced.

    Args:
        settings: the same in all OS processes of a node.
        node: the node's name, for the lines that say it.
        worker: what this OS process is called; empty in the node's own.

    Raises:
        ValueError: ``settings.config`` is no valid configuration.
    """
    root = logging.getLogger()
    if _present.handler is not None:
        root.removeHandler(_present.handler)
        _present.handler.close()
        _present.handler = None
    _present.settings, _present.node, _present.worker = settings, node, worker
    logging.setLogRecordFactory(_say_where(logging.getLogRecordFactory()))
    if settings.config is not None:
        from logging.config import dictConfig

        dictConfig(dict(settings.config))
        return
    handler = LogHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.format == "json" else TextFormatter(handler.coloured))
    root.addHandler(handler)
    root.setLevel(settings.level.upper())
    _present.handler = handler


@attrs.frozen
class CarriedLog:
    """What a new OS process is told of its parent's log.

    Attributes:
        settings: how it logs.
        ours: `set_up` was called; else the application sets up logging, and only the level is known.
    """

    settings: LogSettings
    ours: bool


def carried() -> CarriedLog:
    """Return what this OS process logs by, for a new one."""
    if _present.settings is not None and not _replaced():
        return CarriedLog(_present.settings, ours=True)
    name = logging.getLevelName(logging.getLogger("pyglyn").getEffectiveLevel()).lower()
    return CarriedLog(LogSettings(level=name if name in LEVELS else "info"), ours=False)


def _replaced() -> bool:
    """Whether the application has taken our handler away, and so logs in its own way."""
    return _present.handler is not None and _present.handler not in logging.getLogger().handlers


def continue_in_child(log: CarriedLog | None, *, node: str, worker: str) -> None:
    """Log in a new OS process as its parent does.

    Ours is set up anew: in a forked one a handler that leads to a pipe or a socket leads nowhere, and in a
    fresh one the application's modules may have called ``basicConfig``, which did nothing in the node, being
    second there. An application that logs in its own way does so here too; in a fresh interpreter where it
    has not set up anything, what its parent's level lets through is written.
    """
    _present.node, _present.worker = node, worker
    root = logging.getLogger()
    if log is None or _replaced():
        return
    if log.ours:
        root.handlers[:] = [] if _present.handler is None else [_present.handler]
        set_up(log.settings, node=node, worker=worker)
    elif not root.handlers and not logging.getLogger("pyglyn").handlers:
        set_up(log.settings, node=node, worker=worker)


def set_level(level: str) -> None:
    """Change the level while the node runs.

    Raises:
        ValueError: it is none of `LEVELS`.
    """
    if level not in LEVELS:
        raise ValueError(f"{level!r} is no log level: one of {', '.join(LEVELS)}")
    logging.getLogger().setLevel(level.upper())
    if _present.settings is not None:
        _present.settings = attrs.evolve(_present.settings, level=level)


def level() -> str:
    """Return the root logger's level, in lower case."""
    return logging.getLevelName(logging.getLogger().level).lower()


def dropped() -> int:
    """Return how many lines of this OS process nobody has read and were dropped."""
    return 0 if _present.handler is None else _present.handler.dropped


def _say_where(factory: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
    """Make a factory of records that adds the node and the worker; an application may have its own."""
    if getattr(factory, "says_where", False):
        return factory

    def record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        made = factory(*args, **kwargs)
        made.node, made.worker, made.os_pid = _present.node, _present.worker, made.process
        return made

    record.says_where = True  # type: ignore[attr-defined]
    return record


# --- what a line looks like ------------------------------------------------------------------------------


class TextFormatter(logging.Formatter):
    """Lines for people: time, level, logger, the worker and its OS pid in brackets, message."""

    def __init__(self, coloured: bool = False) -> None:
        super().__init__()
        self._coloured = coloured

    def format(self, record: logging.LogRecord) -> str:
        """Format a record; further lines of a message or traceback are indented."""
        text = record.getMessage()
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        parts = [
            text,
            record.exc_text or "",
            self.formatStack(record.stack_info) if record.stack_info else "",
        ]
        lines = "\n".join(filter(None, parts)).translate(CONTROLS).split("\n")
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        name = f"{record.levelname:<7}"
        if self._coloured:
            name = f"\x1b[{_COLOURS.get(record.levelname, '0')}m{name}\x1b[0m"
        worker = getattr(record, "worker", "")
        who = f" [{escaped(worker)} {record.process}]" if worker else ""
        head = f"{stamp},{int(record.msecs):03d} {name} {escaped(record.name)}{who}: "
        return head + "\n    ".join(lines)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, node, worker, pid; exception and stack if any.

    ``time`` is ISO 8601 in UTC with microseconds. What an application gives as ``extra`` stands in ``extra``.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        import datetime
        import json

        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        content: dict[str, Any] = {
            "time": moment.isoformat(timespec="microseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "node": getattr(record, "node", ""),
            "worker": getattr(record, "worker", ""),
            "pid": record.process,
        }
        if record.exc_info:
            content["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            content["stack"] = self.formatStack(record.stack_info)
        extra = {key: value for key, value in record.__dict__.items() if key not in _KNOWN}
        if extra:
            content["extra"] = extra
        return json.dumps(content, ensure_ascii=True, default=repr)


_OURS: Final = {"node", "worker", "os_pid", "message", "asctime"}
_KNOWN: Final = _OURS | logging.LogRecord("", 0, "", 0, "", None, None).__dict__.keys()


# --- writing without waiting -------------------------------------------------------------------------------


class LogHandler(logging.Handler):
    """Writes lines to a stream's descriptor and never waits for whoever reads it.

    Attributes:
        coloured: whether the stream is a terminal, and ``NO_COLOR`` is not set.
        dropped: how many lines were dropped so far.
    """

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self.dropped = 0
        self._unsaid = 0
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._waiting: asyncio.AbstractEventLoop | None = None
        self._stream = stream
        self._out: _Out | None = None
        self.coloured = _is_terminal(stream) and not os.environ.get("NO_COLOR")
        atexit.register(self._last_chance)
        _handlers.add(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or keep it for later, or drop it."""
        try:
            line = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
        except Exception:
            self.handleError(record)
            return
        if self._queued + len(line) > MOST_QUEUED:
            self.dropped += 1
            self._unsaid += 1
            return
        self._put(line)
        self._write()

    def _put(self, line: bytes) -> None:
        self._queue.append(line)
        self._queued += len(line)

    def _write(self) -> None:
        """Write what there is room for; the rest when the loop, if one runs here, says so, or with a line."""
        if self._out is None:
            self._out = _Out(self._stream)
        while self._queue:
            line = self._queue[0]
            written = self._out.write(line)
            self._queued -= written
            if written < len(line):
                self._queue[0] = line[written:]
                self._wait()
                return
            self._queue.popleft()
            if self._unsaid and not self._queue:
                count, self._unsaid = self._unsaid, 0
                text = "%d lines of this log were dropped: nobody read it"
                record = logging.LogRecord(__name__, logging.WARNING, "", 0, text, (count,), None)
                self._put(self.format(record).encode() + b"\n")

    def _wait(self) -> None:
        if self._waiting is not None or self._out is None:
            return
        with contextlib.suppress(RuntimeError, OSError, NotImplementedError):
            loop = asyncio.get_running_loop()
            loop.add_writer(self._out.fd, self._there_is_room)
            self._waiting = loop

    def _there_is_room(self) -> None:
        with self.lock or contextlib.nullcontext():
            self._write()
            if not self._queue:
                self._stop_waiting()

    def _stop_waiting(self) -> None:
        loop, self._waiting = self._waiting, None
        if loop is not None and self._out is not None and not loop.is_closed():
            loop.remove_writer(self._out.fd)

    def _last_chance(self) -> None:
        """At the end of the program: what is queued goes out if it is read at all."""
        deadline = time.monotonic() + _LAST_CHANCE_S
        with self.lock or contextlib.nullcontext():
            while self._queue and self._out is not None and time.monotonic() < deadline:
                self._out.wait(0.02)
                self._write()

    def begin_again(self) -> None:
        """Forget, after a fork, what is the parent's: its lines and its way to the stream."""
        self._queue.clear()
        self._queued = self._unsaid = self.dropped = 0
        self._waiting = None
        if self._out is not None:
            self._out.close()
            self._out = None

    def close(self) -> None:
        """Write what can be written, and let the stream go."""
        self._stop_waiting()
        self._last_chance()
        atexit.unregister(self._last_chance)
        _handlers.discard(self)
        if self._out is not None:
            self._out.close()
            self._out = None
        super().close()


class _Out:
    """A stream's descriptor as one that does not wait.

    ``O_NONBLOCK`` belongs to the open file, which all who inherited it share (a shell, the programs of a
    tree); so a pipe or terminal is opened anew by its path in ``/proc``. A socket takes a flag with each
    message. A file never waits. Where none of that can be had, whoever writes asks first for room.
    """

    def __init__(self, stream: Any) -> None:
        self.fd = -1
        self._own = False
        self._kind = "none"
        try:
            given = stream.fileno()
            mode = os.fstat(given).st_mode
        except (AttributeError, OSError, ValueError):
            return
        self.fd = given
        if stat.S_ISSOCK(mode):
            self._kind = "socket"
        elif stat.S_ISREG(mode):
            self._kind = "file"
        else:
            self._kind = "asking"
            with contextlib.suppress(OSError):
                flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
                self.fd = os.open(f"/proc/self/fd/{given}", flags)
                self._own, self._kind = True, "own"

    def write(self, line: bytes) -> int:
        """Write what can be written at once; returns how much. What never can be counts as written."""
        try:
            if self._kind == "none":
                return len(line)
            if self._kind == "socket":
                with socket.socket(fileno=os.dup(self.fd)) as wrapped:
                    return wrapped.send(line, socket.MSG_DONTWAIT)
            if self._kind == "asking":
                if not self.wait(0):
                    return 0
                return os.write(self.fd, line[: select.PIPE_BUF])
            return os.write(self.fd, line)
        except BlockingIOError:
            return 0
        except OSError as error:
            # A full disk takes lines again some day; for the others nobody is left to read them.
            return 0 if error.errno in (errno.ENOSPC, errno.EDQUOT) else len(line)

    def wait(self, seconds: float) -> bool:
        """Wait until there is room, but not longer."""
        if self.fd < 0:
            return True
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        return bool(poll.poll(seconds * 1000))

    def close(self) -> None:
        if self._own:
            with contextlib.suppress(OSError):
                os.close(self.fd)
            self._own = False


_handlers: set[LogHandler] = set()


def _forked() -> None:
    for handler in _handlers:
        handler.begin_again()


os.register_at_fork(after_in_child=_forked)


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False
