"""Declarations that several tests look at."""

from __future__ import annotations

from pyglyn.etf import Atom
from pyglyn.supervision.declaration import factory, program, supervisor, worker
from pyglyn.supervision.os.command import ReadyLine
from pyglyn.supervision.spec import (
    Supervisor,
)

A = Atom


async def job(me: object, *args: object, **kwargs: object) -> None:
    """A worker."""


class Ingest(Supervisor):
    """The class form."""

    def __init__(self, topic: str) -> None:
        super().__init__("rest_for_one", intensity=5, period=60)
        self.add(worker(job, topic, name="reader")).add(worker(job, topic, name="writer"))


def tree() -> Supervisor:
    return (
        Supervisor("one_for_all", intensity=1, period=10.0, name="app")
        .add(worker(job, 1, b"two", name="stock", restart="transient", memory_limit="512 MiB", key="value"))
        .add(program(["node", "feed.js"], env={"A": "b"}, ready=ReadyLine("listening"), name="feed"))
        .add(supervisor(Ingest, "orders"))
        .add(factory(job, 7, name="sessions"))
    )
