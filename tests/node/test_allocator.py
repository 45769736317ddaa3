"""What an OS process keeps of the memory that it has freed."""

from __future__ import annotations

import subprocess
import sys

from pyglyn.testing import require

PROGRAM = """
import resource, sys
from pyglyn.node.allocator import keep_spare
print(int(keep_spare(int(sys.argv[1]))))
def blobs(count):
    for _ in range(count):
        [bytearray(1024 * 1024), bytearray(1024 * 1024)]
blobs(10)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
blobs(50)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(spare: int) -> tuple[bool, int]:
    """Whether it was done, and how often the kernel was asked for a page by a hundred large blocks."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(spare)], capture_output=True, text=True, check=True
    )
    kept, count = done.stdout.split()
    return kept == "1", int(count)


def test_blocks_as_large_as_earlier_ones_cost_the_kernel_nothing() -> None:
    kept, count = faults(16 * 1024 * 1024)
    require(kept, "an allocator that keeps what it is told takes glibc")
    assert count <= 50
    assert faults(0)[1] > 1_000


GIVES = """
import os, sys
from pyglyn.node.allocator import give_back

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])

kept, freed = [], []
for _ in range(1_000):
    freed.append(bytearray(16_384))
    kept.append(bytearray(600))
freed.clear()
before = resident()
print(give_back(), before - resident())
"""


def test_what_lies_free_between_what_stays_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", GIVES], capture_output=True, text=True, check=True)
    given, pages = done.stdout.split()
    require(given == "True", "an allocator that gives back what it is told takes glibc")
    assert int(pages) > 1_000


def test_none_is_kept_where_none_shall_be() -> None:
    assert faults(0)[0] is False
