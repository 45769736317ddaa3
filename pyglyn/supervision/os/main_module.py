"""The parent's main module in a spawned child, as `multiprocessing` has it. Layer: supervision/os.

It is imported there under the name ``__mp_main__``, so that ``if __name__ == "__main__"`` does not hold, and
stands under both names in ``sys.modules``: what is pickled in the child can be loaded in the parent, and the
child's own children, by `multiprocessing` too, find it. ``sys.argv`` is the parent's.

Where it differs: the module is imported only when what the child runs is defined in it, and then also when it
is the ``__main__.py`` of a package, a folder or a zip file, which has to be guarded like any other.
"""

from __future__ import annotations

import os
import pickletools
import runpy
import sys
import types
from typing import Final

import attrs

from pyglyn import _main_module

_MAIN: Final = "__main__"
_SPAWNED_MAIN: Final = "__mp_main__"
_FIRST_FOLDER: Final = os.getcwd()


@attrs.frozen
class MainModule:
    """How a fresh interpreter finds the main module.

    Attributes:
        argv: what the program was called with.
        name: of the module; None when it goes by its path, or is not needed.
        path: of the file, folder or zip file.
    """

    argv: list[str]
    name: str | None = None
    path: str | None = None


def describe_main(pickled: bytes) -> MainModule:
    """Say what a fresh interpreter that runs this needs of the main module.

    Raises:
        TypeError: it refers to a main module that is in no file, as in a notebook or at the prompt.
    """
    argv = list(getattr(sys, "argv", ()))
    if not _refers_to_main(pickled):
        return MainModule(argv)
    main = sys.modules[_MAIN]
    sys.modules.setdefault(_SPAWNED_MAIN, main)
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name != _MAIN:
        return MainModule(argv, name=spec.name)
    path = getattr(getattr(main, "__loader__", None), "archive", None) or getattr(main, "__file__", None)
    if path is None or not os.path.exists(path := os.path.normpath(os.path.join(_FIRST_FOLDER, path))):
        raise TypeError(
            "it is defined in a notebook, at the prompt or in a text on the command line, which a fresh "
            "interpreter cannot import: put it into a module"
        )
    return MainModule(argv, path=path)


def _refers_to_main(pickled: bytes) -> bool:
    names = (_MAIN, _SPAWNED_MAIN)
    if not any(name.encode() in pickled for name in names):
        return False
    return any(argument in names for _, argument, _ in pickletools.genops(pickled))


def become_main(main: MainModule) -> None:
    """Have the parent's ``sys.argv`` and, where it is needed, its main module."""
    sys.argv = main.argv
    if main.name is None and main.path is None:
        return
    with _main_module.importing():
        if main.name is not None:
            content = runpy.run_module(main.name, run_name=_SPAWNED_MAIN, alter_sys=True)
        else:
            assert main.path is not None
            content = runpy.run_path(main.path, run_name=_SPAWNED_MAIN)
    module = types.ModuleType(_SPAWNED_MAIN)
    module.__dict__.update(content)
    sys.modules[_MAIN] = sys.modules[_SPAWNED_MAIN] = module
