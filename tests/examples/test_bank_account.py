"""``examples/bank_account.py`` prints what its reader expects, on a store that lasts too."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "examples" / "bank_account.py"

FIRST = """\
account-1 #1: AccountOpened(owner='Ada')
account-1 #2: Deposited(amount=100)
account-1 #3: Withdrawn(amount=30)
refused: insufficient funds
after 3 events: Account(owner='Ada', balance=70)
"""


async def run(*args: str) -> list[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(PROGRAM), *args, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 180)
    assert (process.returncode, err) == (0, b"")
    return sorted(out.decode().splitlines())


@pytest.mark.parametrize("store", [(), ("sqlite:{}/bank.db",)], ids=["memory", "sqlite"])
async def test_the_bank_account(epmd_port, tmp_path, store):
    url = [each.format(tmp_path) for each in store]
    assert await run(*url) == sorted(FIRST.splitlines())
    if url:
        again = await run(*url)
        assert "the account is open already" in again
        assert "after 5 events: Account(owner='Ada', balance=140)" in again


@pytest.mark.parametrize(
    ("args", "status", "says"),
    [
        (("--help",), 0, "bank_account.py [STORE-URL]"),
        (("bank.db",), 1, "no store URL: 'bank.db'; expected memory:, sqlite:path or postgresql://…"),
        (("memory:", "again"), 1, "bank_account.py [STORE-URL]"),
    ],
)
async def test_what_is_no_store_is_said_without_a_traceback(epmd_port, args, status, says):
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(PROGRAM), *args, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    printed = b"".join(await asyncio.wait_for(process.communicate(), 180)).decode()
    assert (process.returncode, says in printed) == (status, True), printed
    assert "Traceback" not in printed
