"""What this operating-system process keeps of the memory that it has freed. Layer: node.

A message of a mebibyte is put together and decoded in blocks as large as it is. glibc gives such blocks back
to the kernel when they are freed, and asks for them again for the next message, page by page: that costs more
than all the copying. So some memory stays at the end of the heap, once it has been needed.

What importing took and gave back lies between what stays, and would be kept for good: it is given back once,
when all is imported.

Source: mallopt(3), M_TRIM_THRESHOLD, M_MMAP_THRESHOLD; malloc_trim(3). Other allocators do as they do.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_LARGEST: Final = 32 * 1024 * 1024
"""What glibc takes for the second."""


def give_back() -> bool:
    """Give the kernel the pages that nothing lies on; tells whether there were any."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    return trim is not None and bool(trim(0) == 1)


def keep_spare(size: int) -> bool:
    """Keep up to so many bytes that were freed, from now on; 0 changes nothing. Tells whether it is done.

    Blocks that are larger than that have pages of their own, as before.
    """
    if size <= 0 or sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    size = min(size, _LARGEST)
    return bool(mallopt(_M_MMAP_THRESHOLD, size) == 1 and mallopt(_M_TRIM_THRESHOLD, size) == 1)
