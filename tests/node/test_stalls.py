"""An event loop that stands still: it is said, with what it does; when it goes on, for how long that was."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time

import pytest

from pyglyn.dist import ChannelSettings
from pyglyn.net import NetSettings
from pyglyn.node import Node, Process, Settings
from pyglyn.node.stalls import StallWatch
from pyglyn.testing import eventually
from tests.node.conftest import unique_name


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def compute_for_long(until: threading.Event) -> None:
    while not until.is_set():  # it never waits for anything of the loop's
        time.sleep(0.01)


@pytest.mark.skipif(not hasattr(signal, "SIGRTMIN") or sys.platform != "linux", reason="no such timers")
async def test_what_keeps_the_loop_is_logged_while_it_does(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "pyglyn.node")
    said = threading.Event()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "has stood still" in record.getMessage():
                said.set()

    listener = Listener()
    logging.getLogger("pyglyn.node").addHandler(listener)
    watch = StallWatch(0.05, 60.0)
    watch.start()
    try:
        compute_for_long(said)
        await eventually(lambda: any("stood still for" in r.getMessage() for r in caplog.records[1:]))
    finally:
        watch.stop()
        logging.getLogger("pyglyn.node").removeHandler(listener)
    first, second = (record.getMessage() for record in caplog.records[:2])
    assert "in compute_for_long" in first
    assert "peers take this node for dead after 60 s" in first
    assert second.startswith("the event loop stood still for")
    assert "may have taken" not in second


async def test_how_long_it_was_is_said_afterwards_and_what_that_meant(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    watch = StallWatch(15.0, 60.0, clock)
    watch.start()
    clock.now += 14.0
    watch.beat()
    assert not caplog.records
    clock.now += 20.0
    watch.beat()
    clock.now += 90.0
    watch.beat()
    watch.stop()
    assert [record.getMessage() for record in caplog.records] == [
        "the event loop stood still for 20.0 s; no ticks were sent meanwhile",
        "the event loop stood still for 90.0 s, longer than the tick time: "
        "peers may have taken this node for dead; no ticks were sent meanwhile",
    ]


async def block(me: Process, until: threading.Event) -> None:
    compute_for_long(until)


async def test_a_node_says_of_a_process_that_it_has_kept_it_longer_than_the_tick_time(
    epmd: object, caplog: pytest.LogCaptureFixture
) -> None:
    short = Settings(net=NetSettings(channel=ChannelSettings(net_ticktime_s=0.4)))
    async with Node(unique_name(), cookie="c", settings=short) as node:
        assert node._stalls.limit_s == pytest.approx(0.1)
        caplog.clear()
        until = threading.Event()
        threading.Timer(0.5, until.set).start()
        node.spawn(block, until)
        await eventually(lambda: "longer than the tick time" in caplog.text)
    if sys.platform == "linux":
        assert "in compute_for_long" in caplog.text
