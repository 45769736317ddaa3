"""The policy does what OTP's own supervisor does: both run the same scenarios, and the traces are equal."""

from __future__ import annotations

import os
from typing import Any

import pytest

from pyglyn.etf import Atom, Term
from pyglyn.testing import Beam
from tests.supervision.recorded import recorded, run_in_otp
from tests.supervision.scenario_groups import GROUPS
from tests.supervision.scenarios import (
    A,
    call,
    child,
    comparable,
    crash,
    random_scenario,
    run_scenario,
    scenario,
)

SEED = int(os.environ.get("PYGLYN_SUPERVISION_SEED", "20250"))
RANDOM_SCENARIOS = 200


def assert_same(name: str, term: dict[Term, Any], otp_trace: Any) -> None:
    """Compare the traces of one scenario."""
    ours = comparable(run_scenario(term), term)
    otps = comparable(otp_trace, term)
    assert ours == otps, f"scenario {name}:\n{show(term)}\nours:\n{show(ours)}\nOTP's:\n{show(otps)}"


def show(value: Any) -> str:
    """A scenario or trace for people, one entry a line."""
    if isinstance(value, dict):
        return "\n".join(f"  {key}: {each!r}" for key, each in value.items())
    return "\n".join(f"  {each!r}" for each in value) if isinstance(value, list) else f"  {value!r}"


@pytest.mark.parametrize("group", GROUPS)
async def test_policy_does_what_otp_does(shared_beam: Beam, group: str) -> None:
    """supervisor(3); the scenarios are data, run by both sides."""
    named = list(GROUPS[group]())
    traces = await run_in_otp(shared_beam, [term for _, term in named])
    assert len(traces) == len(named) > 0
    for (name, term), trace in zip(named, traces, strict=True):
        assert_same(name, term, trace)
        assert comparable(trace, term) == recorded()[name], (
            "record it anew: python -m tests.supervision.recorded"
        )


async def test_policy_does_what_otp_does_in_random_scenarios(shared_beam: Beam) -> None:
    """Set PYGLYN_SUPERVISION_SEED to try others; a failure names its seed."""
    seeds = range(SEED, SEED + RANDOM_SCENARIOS)
    print(f"supervision scenarios with the seeds {seeds}")  # noqa: T201
    terms = [random_scenario(seed) for seed in seeds]
    traces = await run_in_otp(shared_beam, terms)
    for seed, term, trace in zip(seeds, terms, traces, strict=True):
        assert_same(f"PYGLYN_SUPERVISION_SEED={seed}", term, trace)
    events = [event[0] for trace in traces for event in trace]
    for kind in ("start", "stop", "reply", "report", "exit"):
        assert events.count(Atom(kind)) > RANDOM_SCENARIOS / 4, f"hardly any {kind} in the random scenarios"


async def test_restarts_are_counted_in_whole_seconds(shared_beam: Beam) -> None:
    """A restart exactly ``period`` seconds old still counts, one second later it does not."""
    abc = [child("a"), child("b")]
    named = {
        "exactly the period": [(A("at"), 0), crash("a", A("x")), (A("at"), 1), crash("a", A("x"))],
        "a second more": [(A("at"), 0), crash("a", A("x")), (A("at"), 2), crash("a", A("x"))],
    }
    terms = [scenario("one_for_one", abc, steps, intensity=1, period=1) for steps in named.values()]
    traces = await run_in_otp(shared_beam, terms)
    for name, term, trace in zip(named, terms, traces, strict=True):
        assert_same(name, term, trace)
    ends = [trace[-1] for trace in traces]
    assert (
        A("report"),
        A("shutdown"),
        A("reached_max_restart_intensity"),
        A("a"),
        (A("pid"), A("a"), 2),
    ) in traces[0]
    assert ends == [(A("exit"), A("shutdown"))] * 2


async def test_a_start_that_finds_the_process_running_is_answered_as_otp_28_does(shared_beam: Beam) -> None:
    """OTP 25 wraps ``{already_started, Pid}`` like other start errors; later releases pass it on as it is."""
    running = (A("already_started"), A("x"))
    term = scenario("one_for_one", [], [call("start_child", child("a", starts=[(A("error"), running)]))])
    [trace] = await run_in_otp(shared_beam, [term])
    ours = run_scenario(term)
    assert ours[2] == (A("reply"), 0, (A("error"), running))
    if shared_beam.otp >= 28:
        assert trace == ours
    else:
        assert trace[2][2][1][0] == running
