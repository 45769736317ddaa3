"""The contract for event stores in a user's own test suite, which has no configuration of ours."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

OWN = """
import pytest

from pyglyn import eventsourcing as es
from pyglyn.testing.bank import BankAccount, BankAccountEvent
from pyglyn.testing.eventsourcing import EventStoreContract

class Forgetful(es.MemoryStore):
    async def latest_snapshot(self, aggregate_id):
        return None

class TestMemory(EventStoreContract):
    shared = encodes = False

    @pytest.fixture
    def open_store(self):
        return es.MemoryStore

class TestForgetful(TestMemory):
    @pytest.fixture
    def open_store(self):
        return Forgetful

class TestSqlite(EventStoreContract):
    @pytest.fixture
    def open_store(self, tmp_path):
        types = {"events": BankAccountEvent, "state": BankAccount, "aggregate_type": "bank"}
        return lambda: es.open_store(f"sqlite:{tmp_path}/bank.db", **types)
"""


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_it_runs_in_any_mode_of_the_asyncio_plugin(pytester: pytest.Pytester, mode: str) -> None:
    pytester.makepyfile(OWN)
    options = ("-o", f"asyncio_mode={mode}", "-p", "no:xdist", "-k", "not Forgetful")
    result = pytester.runpytest_subprocess(*options)
    assert result.ret == 0
    outcomes = result.parseoutcomes()
    assert outcomes["passed"] > 60
    assert set(outcomes) <= {"passed", "skipped", "deselected", "warnings"}


def test_a_store_that_breaks_it_fails_with_the_values_compared(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(OWN)
    result = pytester.runpytest_subprocess("-p", "no:xdist", "-k", "Forgetful and newer_snapshot")
    result.assert_outcomes(failed=1, deselected=result.parseoutcomes()["deselected"])
    result.stdout.fnmatch_lines(["E * assert *None*"])
