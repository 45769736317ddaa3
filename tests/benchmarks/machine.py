"""What figures depend on: the machine, and the versions of what ran."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path

from pyglyn import __version__, etf


def describe() -> str:
    """One paragraph that belongs to every table."""
    load = os.getloadavg()[0]
    return (
        f"{datetime.date.today()}, pyglyn {__version__} (codec in {etf.IMPLEMENTATION}), "
        f"{platform.python_implementation()} {platform.python_version()}, {platform.system()} "
        f"{platform.release()}, {_processor()}, {len(os.sched_getaffinity(0))} cores, load {load:.1f} before"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
