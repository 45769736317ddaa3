"""Testing event-sourced code: given/when/then for a domain, and the contract for event stores.

::

    from pyglyn.testing.eventsourcing import scenario

    given = scenario(es.Domain(handle, apply, BankAccount())).given

    given([AccountOpened("a")]).when(DepositMoney(10.0)).then([CustomerDepositedCash(10.0, 10.0)])
    given([]).when(DepositMoney(10.0)).then(es.DomainError("not open"))

A store of one's own is tested by inheriting :class:`EventStoreContract`; its events and entity are those of
:mod:`pyglyn.testing.bank`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

import attrs

from pyglyn.errors import DomainError
from pyglyn.eventsourcing import Domain
from pyglyn.testing.event_store_contract import EventStoreContract

S = TypeVar("S")
C = TypeVar("C")
E = TypeVar("E")


@attrs.frozen
class Scenario(Generic[S, C, E]):
    """A domain and the events that have happened; immutable, so one may start several tests."""

    domain: Domain[S, C, E]
    events: tuple[E, ...] = ()

    def given(self, events: Iterable[E]) -> Scenario[S, C, E]:
        """Return the scenario after these events.

        Raises:
            TypeError: it is no list of events.
        """
        return attrs.evolve(self, events=(*self.events, *_several(events, "given")))

    def when(self, command: C) -> Outcome[S, C, E]:
        """Carry out a command.

        Raises:
            Exception: whatever ``handle`` and ``apply`` raise, except `DomainError`, which is an outcome.
        """
        state = self.domain.fold(self.domain.empty_state, self.events)
        try:
            decided = self.domain.decide(state, command)
        except DomainError as refusal:
            return Outcome(self, None, refusal)
        return Outcome(self, decided, None)


@attrs.frozen
class Outcome(Generic[S, C, E]):
    """What a command did."""

    scenario: Scenario[S, C, E]
    events: list[E] | None
    error: DomainError | None

    def then(self, expected: Iterable[E] | DomainError) -> Scenario[S, C, E]:
        """Check the outcome and return the scenario after it, for a next ``when``.

        Args:
            expected: the events in order, or the `DomainError` with the expected value.

        Raises:
            AssertionError: the outcome is another one.
            TypeError: it is neither of the two.
        """
        if isinstance(expected, DomainError):
            return self._then_error(expected)
        wanted = list(_several(expected, "then"))
        if self.error is not None:
            raise AssertionError(f"expected {wanted!r}, the command was refused: {self.error}")
        if self.events != wanted:
            raise AssertionError(f"expected {wanted!r}, got {self.events!r}")
        return self.scenario.given(wanted)

    def then_state(self, expected: S) -> Scenario[S, C, E]:
        """Check the entity after the command and return the scenario after it.

        Raises:
            AssertionError: it is another one, or the command was refused.
        """
        if self.events is None:
            raise AssertionError(f"expected {expected!r}, the command was refused: {self.error}")
        after = self.scenario.given(self.events)
        state = after.domain.fold(after.domain.empty_state, after.events)
        if state != expected:
            raise AssertionError(f"expected {expected!r}, got {state!r}")
        return after

    def _then_error(self, expected: DomainError) -> Scenario[S, C, E]:
        if self.error is None:
            raise AssertionError(f"expected {expected}, got the events {self.events!r}")
        if self.error.error != expected.error:
            raise AssertionError(f"expected {expected}, got {self.error}")
        return self.scenario


def _several(events: Iterable[E], where: str) -> Iterable[E]:
    """Check that events come as a list, not one event or something else."""
    wanted = "a list of events" if where == "given" else "a list of events or a DomainError"
    if isinstance(events, type) and issubclass(events, DomainError):
        raise TypeError(f"{where} takes {wanted}, with its value: {events.__name__}(...)")
    if isinstance(events, str | bytes | dict) or not isinstance(events, Iterable) or isinstance(events, type):
        instead = "" if events is None else f"; one event is written [{events!r}]"
        raise TypeError(f"{where} takes {wanted}, got {events!r}{instead}")
    return events


def scenario(domain: Domain[S, C, E]) -> Scenario[S, C, E]:
    """Return the scenario in which nothing has happened yet."""
    return Scenario(domain)


__all__ = ["EventStoreContract", "Outcome", "Scenario", "scenario"]
