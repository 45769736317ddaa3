"""For tests that run with turns, waiters and mailboxes in Python and in C: ``pytestmark = in_python_and_in_c``."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest

from pyglyn.testing import require

in_python_and_in_c = pytest.mark.usefixtures("hot")


@pytest.fixture(params=["python", "c"])
def hot(request: pytest.FixtureRequest) -> Iterator[None]:
    """The methods of one of the two."""
    if importlib.util.find_spec("pyglyn.node._hot") is None:
        require(request.param == "python", "pyglyn.node._hot was not built: it takes a C compiler")
        yield
        return
    from pyglyn.node import hot as module

    built = module.c
    built.use(request.param == "c")
    module.c = built if request.param == "c" else None
    yield
    built.use(True)
    module.c = built
