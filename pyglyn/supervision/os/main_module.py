"""The parent's main module in a spawned child. Layer: supervision/os."""

from __future__ import annotations

import os
import runpy
import sys
import types

from pyglyn import _main_module

_MAIN = "__main__"
_SPAWNED_MAIN = "__pyglyn_main__"


def describe_main(pickled: bytes) -> tuple[str | None, str | None] | None:
    """How a fresh interpreter finds the main module: its name or its path; None if nothing refers to it."""
    if _MAIN.encode() not in pickled:
        return None
    main = sys.modules[_MAIN]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return spec.name, None
    path = getattr(main, "__file__", None)
    return None if path is None else (None, os.path.abspath(path))


def import_main(name: str | None, path: str | None) -> None:
    """Import the parent's main module under another name, so that ``if __name__ == "__main__"`` is False."""
    with _main_module.importing():
        if name is not None:
            content = runpy.run_module(name, run_name=_SPAWNED_MAIN, alter_sys=True)
        else:
            assert path is not None
            content = runpy.run_path(path, run_name=_SPAWNED_MAIN)
    module = types.ModuleType(_SPAWNED_MAIN)
    module.__dict__.update(content)
    sys.modules[_MAIN] = sys.modules[_SPAWNED_MAIN] = module
