"""What is in C can be used for as long as anything of the interpreter is there."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("pyglyn.node._hot")


def test_what_outlives_the_modules_can_still_be_used() -> None:
    """Such as what the interpreter itself holds; it is let go of after all modules."""
    program = """
import asyncio, codecs, os
from pyglyn.loop_turn import Waiter
from pyglyn.node import inlet
from pyglyn.node.mailbox import Mailbox

class Last:
    def __init__(self, waiter, mailbox):
        self.waiter, self.mailbox = waiter, mailbox
    def __del__(self, write=os.write):
        self.mailbox.put_encoded(b"x")
        self.waiter.set_result(1)
        write(1, b"used")

async def main():
    last = Last(Waiter(), Mailbox(len))
    codecs.register(lambda name: last and None)

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "used"), done.stderr
