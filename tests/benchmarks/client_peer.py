"""``python -m tests.benchmarks.client_peer NAME COOKIE PEER COUNT``: calls made with ``erldistpy``, in nanoseconds."""

from __future__ import annotations

import os
import sys
import time


def main(name: str, cookie: str, peer: str, count: int) -> None:
    """Print the median of so many calls."""
    from erldistpy import Atom, Node, epmd

    epmd.lookup.__defaults__ = (
        "localhost",
        int(os.environ.get("ERL_EPMD_PORT", "4369")),
        5.0,
    )  # no argument for it
    alive, _, host = peer.partition("@")
    with Node(our_name=name, peer_name=alive, peer_host=host, cookie=cookie) as node:
        times = []
        for _ in range(count):
            begun = time.perf_counter_ns()
            node.call("bench_server", Atom("ok"), timeout=10.0)
            times.append(time.perf_counter_ns() - begun)
    print(sorted(times)[count // 2])  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
