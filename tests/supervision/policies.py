"""Policies under test, and what they answer in short."""

from __future__ import annotations

from typing import Any

from pyglyn.etf import Atom, Pid
from pyglyn.supervision.effects import (
    ChildStarted,
    Effect,
    Report,
    SetTimer,
    StartChild,
    Started,
    StopChild,
)
from pyglyn.supervision.policy import Policy
from pyglyn.supervision.spec import Supervisor
from pyglyn.supervision.words import Backoff

A = Atom
BACKOFF = Backoff(initial=0.5, factor=2.0, maximum=3.0, reset_after=60.0)


async def job(me: object) -> None:
    """A worker."""


def policy_of(supervisor: Supervisor) -> Policy:
    return Policy(
        strategy=supervisor.strategy,
        intensity=supervisor.intensity,
        period=supervisor.period,
        auto_shutdown=supervisor.auto_shutdown,
        children=supervisor.children,
    )


def pid(number: int) -> Pid:
    return Pid("py@localhost", number, 0, 1)


def seen(effects: list[Effect]) -> list[Any]:
    """The effects in short, without reports."""
    short: list[Any] = []
    for effect in effects:
        match effect:
            case StartChild(child):
                short.append(("start", str(child.spec.id)))
            case StopChild(stopped, _, reason):
                short.append(("stop", stopped.id, reason))
            case SetTimer(_, seconds):
                short.append(("timer", seconds))
            case Report():
                pass
            case _:
                short.append(effect)
    return short


def started(supervisor: Supervisor) -> Policy:
    """A policy whose children all run, with the pids 1, 2, …"""
    policy = policy_of(supervisor)
    effects = policy.start(0)
    for number in range(1, len(supervisor.children) + 1):
        assert isinstance(effects[-1], StartChild)
        effects = policy.child_started(ChildStarted(pid(number)), 0)
    assert effects[-1] == Started()
    return policy
