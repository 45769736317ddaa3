"""The descriptors 0, 1 and 2, which a program may be started without.

Then whatever is opened next gets their numbers, and what is written to standard output goes into it: a
database, a connection.
"""

from __future__ import annotations

import os
import sys


def fill() -> None:
    """Have those that are closed lead nowhere, so that nothing else gets their numbers."""
    for number in range(3):
        if not _is_open(number):
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free


def is_stream(number: int) -> bool:
    """Whether one of the three is what its name says: there since the start, and open."""
    stream = (sys.__stdin__, sys.__stdout__, sys.__stderr__)[number]
    return stream is not None and _is_open(number)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
