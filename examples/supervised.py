"""A supervision tree of operating-system processes, with OTP's rules.

Run:   python -m pyglyn node --sname inventory@localhost --cookie demo --app examples/supervised.py:app
Look:  python -m pyglyn tree inventory@localhost --cookie demo
Break: kill -9 the process of "stock" (its number is in the tree), and look again.
"""

import logging
import sys

from pyglyn import Atom, GenServer, Node, Process
from pyglyn.supervision import Supervisor, program, supervisor, worker

logger = logging.getLogger("pyglyn.example")


class Stock(GenServer):
    """Knows how many there are; what it is told survives its own death (see ``docs/supervision.md``)."""

    async def init(self, items: dict[bytes, int]):
        self.items = dict(items)

    async def handle_call(self, request, caller):
        match request:
            case (Atom("get"), product):
                return self.items.get(product, 0)
            case Atom("crash"):
                raise RuntimeError("told to crash")


async def audit(me: Process) -> None:
    """An async function as a child."""
    while True:
        message = await me.receive()
        logger.info("audit: %s", message)


def report(me, seconds: float) -> None:
    """A plain blocking function as a child: it has its operating-system process to itself."""
    while True:
        try:
            me.receive(timeout=seconds)
        except TimeoutError:
            logger.info("still here")


def app(node: Node) -> Supervisor:
    return (
        Supervisor("one_for_one", intensity=2, period=5.0)
        .add(worker(Stock, {b"laptop": 10}, name="stock"))
        .add(worker(audit, name="audit", restart="transient", shutdown=2.0, memory_limit="512 MiB"))
        .add(
            supervisor(
                Supervisor("rest_for_one")
                .add(worker(report, 60.0, name="report"))
                .add(program([sys.executable, "-c", "import time; time.sleep(3600)"], name="feed")),
                id="ingest",
            )
        )
    )
