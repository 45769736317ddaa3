"""The way of most messages in C, where that was built. Layer: node.

`c` is the module ``_hot`` once ``inlet`` was imported, None without it (no compiler, or ``PYGLYN_PURE=1``);
see ``c/hot.h``. What it does the functions in Python do as well, which are the definition.
"""

from __future__ import annotations

import contextlib
import importlib
from typing import Any

from pyglyn.etf import IMPLEMENTATION

c: Any = None


def load(runtime: type) -> None:
    """Use it, if there is one; it looks at classes of this package, which have to be there.

    Args:
        runtime: the class of runtimes.
    """
    global c
    if IMPLEMENTATION == "c":
        with contextlib.suppress(ImportError):
            c = importlib.import_module("pyglyn.node._hot")
            c.of_runtime(runtime)
            c.use(True)
