"""Which kind of event loop runs, and how one of a kind is made."""

from __future__ import annotations

import asyncio
import sys

import pytest

from pyglyn import loops

uvloop = pytest.importorskip("uvloop")


@pytest.mark.parametrize("kind", loops.KINDS)
def test_a_loop_that_is_made_is_of_its_kind(kind: loops.Kind) -> None:
    async def running() -> loops.Kind:
        return loops.running()

    with asyncio.Runner(loop_factory=loops.maker(kind)) as runner:
        assert runner.run(running()) == kind


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    with pytest.raises(ImportError) as caught:
        loops.maker("uvloop")
    assert caught.value.name == "uvloop"
