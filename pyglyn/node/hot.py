"""The way of most messages in C, where that was built. Layer: node.

`c` is the module ``_hot``, or None without it (no compiler, or ``PYGLYN_PURE=1``); see ``c/hot.h``. What it
does the functions in Python do as well, which are the definition.
"""

from __future__ import annotations

import contextlib
import importlib
from typing import Any

from pyglyn.etf import IMPLEMENTATION


def _built() -> Any:
    with contextlib.suppress(ImportError):
        return importlib.import_module("pyglyn.node._hot")
    return None


c: Any = _built() if IMPLEMENTATION == "c" else None
