"""Tests that need a tool: a visible skip where it is missing, a failure where everything must run."""

from __future__ import annotations

import os

REQUIRE_ALL = "PYGLYN_REQUIRE_ALL"
"""Name of the environment variable that turns skips for a missing tool into failures when it is ``1``."""


def require(tool_found: object, reason: str) -> None:
    """Skip the running test unless the tool it needs was found.

    Args:
        tool_found: anything; what counts is whether it is true.
        reason: which tool is missing and how to get it, one sentence.

    Raises:
        pytest.skip.Exception: the tool is missing.
        pytest.fail.Exception: the tool is missing and ``PYGLYN_REQUIRE_ALL`` is ``1``.
    """
    import pytest

    if tool_found:
        return
    if os.environ.get(REQUIRE_ALL) == "1":
        pytest.fail(f"{REQUIRE_ALL}=1, but {reason}", pytrace=False)
    pytest.skip(reason)
