"""Requests that another process carries out, and answers to whoever asked. Layer: eventsourcing, cluster.

Whoever asks monitors the process it knows: it would never hear that another one, which was handed the
request, has ended. So the process that hands it on monitors the other one, is told when the request is
answered, and tells the caller if it never will be. Anybody may send it messages: a number is one that nobody
guesses, and a monitor that has not fired is not believed to have::

    {Kind, Pid, Number, Message}    to the process that carries it out; Number is 0 where nobody waits
    {pyglyn_answered, Number}       back to Pid, once the caller has its answer
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import attrs

from pyglyn import etf
from pyglyn.errors import EventStoreError
from pyglyn.etf import Atom, Pid, Reference, Term
from pyglyn.eventsourcing.domain import wire
from pyglyn.node import Caller, Process
from pyglyn.node.calls import reply
from pyglyn.node.reasons import NOPROC
from pyglyn.node.signals import DownSignal

ANSWERED = Atom("pyglyn_answered")

Done: TypeAlias = Callable[[], None]
Fail: TypeAlias = Callable[[Term], None]
"""Tells a caller that there will be no answer; given why."""


@attrs.frozen
class _Errand:
    fail: Fail
    done: Done | None
    again: Done | None


class Errands:
    """The requests that a process has handed on and that are not answered yet."""

    def __init__(self, me: Process) -> None:
        self._me = me
        self._monitors: dict[Reference, Pid | str] = {}
        self._waiting: dict[Pid | str, dict[int, _Errand]] = {}
        self._carriers: dict[int, Pid | str] = {}

    def hand_on(
        self,
        kind: Atom,
        to: Pid | str,
        message: Term,
        *,
        done: Done | None = None,
        again: Done | None = None,
    ) -> None:
        """Have another process carry out what a message asks for.

        Args:
            kind: tells the other process what it is in this.
            to: the other process.
            message: a ``gen_server`` call or cast, or a message to a Gleam actor.
            done: called when it is answered, or has failed.
            again: called in place of both if the other process was not there, so that nothing was done.
        """
        fail = self._failure(message)
        if fail is None:
            self._me.send(to, (kind, self._me.pid, 0, message))
            return
        if to not in self._waiting:
            self._waiting[to] = {}
            self._monitors[self._me.monitor(to)] = to
        number = int.from_bytes(os.urandom(16), "big") | 1  # 0 is nobody's
        self._waiting[to][number] = _Errand(fail, done, again)
        self._carriers[number] = to
        self._me.send(to, (kind, self._me.pid, number, message))

    def take(self, message: Term) -> bool:
        """Take note of an answer, or of the end of a process; False if the message is something else."""
        match message:
            case (Atom("pyglyn_answered"), int() as number):
                to = self._carriers.pop(number, None)
                if to is not None and (done := self._waiting[to].pop(number).done) is not None:
                    done()
                return True
            case DownSignal((_, Reference() as ref, _, _, reason)) if ref in self._monitors:
                for number, errand in self._waiting.pop(self._monitors.pop(ref)).items():
                    del self._carriers[number]
                    _has_ended(errand, reason)
                return True
        return False

    def _failure(self, message: Term) -> Fail | None:
        """How to tell the one who waits for an answer that none will come; None if nobody does."""
        match message:
            case (Atom("$gen_call"), from_, _) if (caller := Caller.from_term(from_)) is not None:
                return partial(self._fail_caller, caller)
            case (_, (Atom(), *_, (Atom("subject"), Pid() as owner, tag))):
                return partial(self._fail_subject, owner, tag)
        return None

    def _fail_caller(self, caller: Caller, reason: Term) -> None:
        reply(self._me, caller, (wire.ERROR, (wire.WORKER_ENDED, reason)))

    def _fail_subject(self, owner: Pid, tag: Term, reason: Term) -> None:
        text = f"{wire.WORKER_ENDED_TEXT}: {etf.text.format(reason, limit=500)}"
        self._me.send(owner, (tag, (wire.ERROR, wire.error_term(EventStoreError(text), for_gleam=True))))


def _has_ended(errand: _Errand, reason: Term) -> None:
    if reason is NOPROC and errand.again is not None:
        errand.again()
        return
    errand.fail(reason)
    if errand.done is not None:
        errand.done()


def handed_on(me: Process, message: Term) -> tuple[Term, Done | None]:
    """Return what was handed on, and what tells the one who did so that it is answered; None for nothing."""
    match message:
        case (Atom(), Pid() as by, int() as number, original):
            return original, partial(me.send, by, (ANSWERED, number)) if number else None
    return None, None
