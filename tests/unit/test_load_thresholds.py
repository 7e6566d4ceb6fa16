"""The bounds of a load run, and what makes a run fail."""

from typing import Any

import pytest

from artillery.plan import SMOKE, STEPS, Profile, Target, plan_buyers
from artillery.thresholds import Threshold, ensure, judge, thresholds

AGGREGATE: dict[str, Any] = {
    "counters": {"vusers.created": 150, "encore.faults": 0},
    "summaries": {"http.response_time": {"p95": 33.5}},
}


@pytest.mark.parametrize(
    ("bound", "passed"),
    [
        (Threshold("", "vusers.created", ">=", 150), True),
        (Threshold("", "vusers.created", ">=", 151), False),
        (Threshold("", "encore.faults", "<=", 0), True),
        (Threshold("", "http.response_time.p95", "<=", 33.5), True),
        (Threshold("", "http.response_time.p95", "<=", 33.4), False),
    ],
)
def test_a_bound_is_part_of_what_is_allowed(bound: Threshold, passed: bool) -> None:
    (judged,) = judge([bound], AGGREGATE)

    assert judged.passed is passed


@pytest.mark.parametrize("metric", ["encore.retries", "http.response_time.p99", "nothing"])
def test_what_was_not_measured_is_missed_and_not_zero(metric: str) -> None:
    (judged,) = judge([Threshold("", metric, "<=", 1_000_000)], AGGREGATE)

    assert judged.value is None
    assert not judged.passed


@pytest.mark.parametrize("profile", [SMOKE, STEPS])
@pytest.mark.parametrize("target", ["gateway", "localstack"])
def test_every_run_wants_a_ticket_for_all_who_stay_and_no_fault(profile: Profile, target: Target) -> None:
    buyers = plan_buyers(profile, {1: 1_000})

    expressions = [one["expression"] for one in ensure(thresholds(profile, target, buyers))["conditions"]]

    stay = {"smoke": 8, "steps": 138}[profile.name]
    assert f"encore.buyers.ticket >= {stay}" in expressions
    assert f"vusers.created >= {profile.users}" in expressions
    assert "encore.faults <= 0" in expressions
    assert "encore.retries <= 0" in expressions


def test_large_bounds_are_written_in_full() -> None:
    assert Threshold("", "vusers.created", ">=", 1_234_567).expression == "vusers.created >= 1234567"
