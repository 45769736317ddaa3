"""The policy does what OTP's own supervisor did when it was recorded; `test_policy_against_otp` asks it anew."""

from __future__ import annotations

from typing import Any

import pytest

from pyglyn.etf import Term
from tests.supervision.recorded import named_scenarios, recorded
from tests.supervision.scenarios import comparable, run_scenario

SCENARIOS = dict(named_scenarios())
TRACES = recorded()


def test_each_scenario_is_recorded() -> None:
    """If not, ``python -m tests.supervision.recorded`` records them anew."""
    assert list(TRACES) == list(SCENARIOS)


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_policy_does_what_otp_did(name: str) -> None:
    term: dict[Term, Any] = SCENARIOS[name]
    assert comparable(run_scenario(term), term) == TRACES.get(name)
