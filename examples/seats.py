"""Seats of a show: a rule about a seat and a rule about a customer, decided together.

python examples/seats.py [STORE-URL]

STORE-URL says where the facts go: memory: (unless given), sqlite:seats.db, or postgresql://localhost/seats.

A seat is taken once, and nobody takes more than four. An aggregate for each seat cannot hold the second rule, one
for each customer not the first, and one for the show would have everybody wait for everybody. So each fact carries
tags, and a decision rests on those facts alone that concern it: others are decided at the same time.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable

import attrs

from pyglyn import eventsourcing as es

MOST = 4
"""Seats that one customer may have."""


@attrs.frozen
class ShowPlanned:
    show: str
    seats: tuple[str, ...]


@attrs.frozen
class SeatReserved:
    show: str
    seat: str
    customer: str


@attrs.frozen
class SeatReleased:
    show: str
    seat: str
    customer: str


Event = ShowPlanned | SeatReserved | SeatReleased


@attrs.frozen
class Reserve:
    show: str
    seat: str
    customer: str


@attrs.frozen
class Release:
    show: str
    seat: str
    customer: str


Command = Reserve | Release


@attrs.frozen
class Known:
    """What a decision has to know: the seats there are, and who has those that concern it."""

    seats: tuple[str, ...] = ()
    holders: tuple[tuple[str, str], ...] = ()


def tags(event: Event) -> Iterable[str]:
    """Say whom an event concerns."""
    yield f"show:{event.show}"
    if not isinstance(event, ShowPlanned):
        yield from (f"seat:{event.show}/{event.seat}", f"customer:{event.show}/{event.customer}")


def concerned(command: Command) -> es.Query:
    """Say on which facts a decision rests."""
    return (
        es.Query([ShowPlanned], tags=[f"show:{command.show}"])
        | es.Query(tags=[f"seat:{command.show}/{command.seat}"])
        | es.Query(tags=[f"customer:{command.show}/{command.customer}"])
    )


def handle(known: Known, command: Command) -> list[Event]:
    """Decide: the events that a command causes, or a DomainError."""
    holder = dict(known.holders).get(command.seat)
    match command:
        case _ if command.seat not in known.seats:
            raise es.DomainError(f"there is no seat {command.seat}")
        case Release(show, seat, customer):
            return [SeatReleased(show, seat, customer)] if holder == customer else []
        case Reserve(show, seat, customer):
            if holder is not None:
                raise es.DomainError(f"seat {seat} is taken")
            if sum(each == customer for _, each in known.holders) >= MOST:
                raise es.DomainError(f"{customer} has {MOST} seats already")
            return [SeatReserved(show, seat, customer)]


def apply(known: Known, event: Event) -> Known:
    """Remember: what is known after an event."""
    match event:
        case ShowPlanned(_, seats):
            return attrs.evolve(known, seats=seats)
        case SeatReserved(_, seat, customer):
            return attrs.evolve(known, holders=(*known.holders, (seat, customer)))
        case SeatReleased(_, seat, customer):
            left = tuple(each for each in known.holders if each != (seat, customer))
            return attrs.evolve(known, holders=left)


SEATS: es.Domain[Known, Command, Event] = es.Domain(handle, apply, Known())


def open_seats(url: str) -> es.FactStore[Event]:
    """Open the log of a theatre."""
    return es.open_facts(url, events=Event, tags=tags)


async def plan(facts: es.FactStore[Event], show: str, seats: Iterable[str]) -> None:
    """Plan a show, unless it is planned."""
    try:
        planned = es.Query([ShowPlanned], tags=[f"show:{show}"])
        await facts.append([ShowPlanned(show, tuple(seats))], condition=planned, after=0)
    except es.AppendConditionFailed:
        print(f"{show} is planned already")


async def carry_out(facts: es.FactStore[Event], command: Command) -> None:
    """Carry out a command; raises DomainError if it is refused."""
    await facts.decide(concerned(command), SEATS, command)


async def main(url: str = "memory:") -> None:
    async with open_seats(url) as facts:
        await plan(facts, "Hamlet", [f"{row}{number}" for row in "AB" for number in range(1, 7)])
        wishes = [Reserve("Hamlet", seat, "Ada") for seat in ("A1", "A2", "A3", "A4", "A5")]
        wishes += [
            Reserve("Hamlet", "A1", "Bo"),
            Reserve("Hamlet", "C1", "Bo"),
            Reserve("Hamlet", "B1", "Bo"),
        ]
        for wish in wishes:
            try:
                await carry_out(facts, wish)
                print(f"{wish.seat} is {wish.customer}'s")
            except es.DomainError as refused:
                print(f"{wish.seat} is not for {wish.customer}: {refused.error}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["-h" | "--help"]:
            print(__doc__)
        case [] | [_]:
            try:
                asyncio.run(main(*sys.argv[1:]))
            except es.EventSourcingError as error:
                sys.exit(str(error))
        case _:
            sys.exit(__doc__)
