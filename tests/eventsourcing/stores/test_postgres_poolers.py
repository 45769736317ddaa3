"""PostgreSQL behind PgBouncer, and databases that do not say what their text is encoded in."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pyglyn import eventsourcing as es
from pyglyn.testing import eventually, require
from pyglyn.testing.bank import BANK_ACCOUNT, AccountOpened, DepositMoney, OpenAccount
from pyglyn.testing.postgres import PrivatePostgres
from tests.eventsourcing.stores.foreign import Foreign, opened
from tests.eventsourcing.stores.test_postgres_store import bank

SETTINGS = """
[databases]
* = host={server}
[pgbouncer]
listen_addr =
unix_socket_dir = {folder}
auth_type = any
pool_mode = {mode}
default_pool_size = {size}
ignore_startup_parameters = options, extra_float_digits
logfile = {folder}/log
"""


@contextlib.contextmanager
def pgbouncer(server: str, mode: str) -> Iterator[str]:
    """A pooler before a server's socket; yields an address of the database ``postgres`` through it."""
    program = shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")
    require(program, "pgbouncer is not installed")
    assert program is not None
    folder = Path(tempfile.mkdtemp(prefix="pyglyn-pgbouncer-", dir="/tmp"))
    text = SETTINGS.format(server=server, folder=folder, mode=mode, size=3 if mode == "transaction" else 40)
    (folder / "settings.ini").write_text(text.replace("host=", "user=postgres host="))
    if os.geteuid() == 0:
        shutil.chown(folder, "nobody")
    user = {"user": pwd.getpwnam("nobody").pw_uid} if os.geteuid() == 0 else {}
    process = subprocess.Popen([program, "-q", folder / "settings.ini"], stderr=subprocess.DEVNULL, **user)  # type: ignore[call-overload]
    try:
        yield f"postgresql://postgres@/postgres?host={folder}&port=6432"
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder)


def _answers(url: str) -> bool:
    path = f"{psycopg.conninfo.conninfo_to_dict(url)['host']}/.s.PGSQL.6432"
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(path) == 0


@pytest.mark.parametrize("mode", ["transaction", "session"])
async def test_commands_queries_and_transactions_work_behind_pgbouncer(
    own_server: PrivatePostgres, mode: str
) -> None:
    with pgbouncer(str(own_server.directory), mode) as url:
        await eventually(lambda: _answers(url))
        async with bank(url) as store, bank(own_server.url) as direct, bank(url) as reader:
            seen: list[tuple[str, int]] = []

            async def follow() -> None:
                async for batch in reader.follow():
                    seen.extend((event.aggregate_id, event.sequence) for event in batch)

            following = asyncio.create_task(follow())
            accounts = es.CommandExecutor(store, BANK_ACCOUNT, snapshot_config=es.SnapshotConfig(5))

            async def client(n: int) -> None:
                await accounts.execute(f"a{n}", OpenAccount("a"))
                for _ in range(20):
                    await accounts.execute(f"a{n}", DepositMoney(1.0))
                    await store.put_outbox([es.OutboxMessage("t", str(n))])
                async with store.transaction() as tx:
                    loaded = await tx.load(f"a{n}")
                    await tx.require(f"a{n}", loaded.sequence)
                    await tx.save_checkpoint(f"q{n}", n)

            await asyncio.gather(*(client(n) for n in range(8)))
            await direct.append("elsewhere", [AccountOpened("x")], expected=0)
            await eventually(lambda: len(seen) == 8 * 21 + 1)
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            assert len(set(seen)) == len(seen)
            assert await direct.outbox_size() == 160
            # A Gleam service that shares the server's connections announces its events all the same.
            waiting = asyncio.create_task(direct.wait(len(seen), timeout=20))
            gleam = Foreign(url)
            for n in range(6):
                gleam.run(gleam.insert(f"gleam-{n}", 1, [opened("x")]))
            assert await waiting is True


async def test_defaults_that_cannot_be_changed_behind_a_pooler_are_refused_with_the_reason(
    own_server: PrivatePostgres,
) -> None:
    Foreign(own_server.url).run("ALTER DATABASE postgres SET default_transaction_isolation TO 'serializable'")
    with pgbouncer(str(own_server.directory), "transaction") as url:
        await eventually(lambda: _answers(url))
        with pytest.raises(
            es.EventStoreError, match=r"behind a pooler .* they are serializable, read only off"
        ) as caught:
            await bank(url).start()
        assert not isinstance(caught.value, es.StoreUnavailable)
    async with bank(own_server.url) as direct:
        await direct.append("a", [AccountOpened("x")], expected=0)


async def test_a_database_without_an_encoding_holds_utf_8_and_reports_what_is_not(
    own_server: PrivatePostgres,
) -> None:
    Foreign(own_server.url).run(
        "CREATE DATABASE bytes TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'"
    )
    url = own_server.url.replace("/postgres?", "/bytes?")
    async with bank(url) as store:
        written = await store.append("Ü", [AccountOpened("Käse 🏦")], expected=0, metadata=[("by", "Zoë")])
        assert (await store.load("Ü")).envelopes == written
        assert [event.envelope for event in await store.read()] == written
        with psycopg.connect(url, client_encoding="sql_ascii") as connection:
            broken = b"convert_from('\\xff7b', 'SQL_ASCII')"
            connection.execute(
                b"INSERT INTO event VALUES ('BankAccount', 'b', 1, 'e', '1.0', " + broken + b", '[]')"
            )
        first, second = await store.read()
        assert first.envelope == written[0]
        assert second.error is not None
        assert second.raw == b"\xff{"
        assert "no text in UTF-8" in str(second.error)


def test_the_threshold_of_prepared_statements_can_be_given_in_the_url() -> None:
    made: Any = es.open_store("postgresql://h/d?prepare_threshold=none&connect_timeout=3")
    assert made._prepare_threshold is None
    assert made.conninfo == "postgresql://h/d?connect_timeout=3"
