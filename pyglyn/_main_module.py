"""Whether this OS process is importing the main module of its parent, as a spawned child does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

_importing = False


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Note that the main module is imported while this is entered: nothing may be started by that."""
    global _importing
    _importing = True
    try:
        yield
    finally:
        _importing = False


def is_importing() -> bool:
    """Whether the main module is being imported."""
    return _importing
