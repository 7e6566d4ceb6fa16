"""What a run must reach, the same list for artillery's ``ensure`` (which sets its exit code) and for the report."""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from artillery.plan import Planned, Profile, Target

Comparison = Literal["<=", ">="]

_COMPARE: Mapping[Comparison, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge}


def is_met(value: float | None, comparison: Comparison, bound: float) -> bool:
    """Whether a measured value keeps a bound; what was not measured keeps none."""
    return value is not None and _COMPARE[comparison](value, bound)


@dataclass(frozen=True, slots=True)
class Threshold:
    """A bound on one of artillery's metrics. ``label`` says for people what is bounded, with its unit."""

    label: str
    metric: str
    comparison: Comparison
    bound: float

    @property
    def expression(self) -> str:
        """As ``ensure`` reads it. A metric that was never emitted fails there, as it does in ``judge``."""
        return f"{self.metric} {self.comparison} {self.bound}"


@dataclass(frozen=True, slots=True)
class Judged:
    """A threshold with what was measured; None where the run emitted no such metric."""

    threshold: Threshold
    value: float | None

    @property
    def passed(self) -> bool:
        return is_met(self.value, self.threshold.comparison, self.threshold.bound)


@dataclass(frozen=True, slots=True)
class _Pace:
    """Response times in ms, the wait from payment to ticket in ms."""

    p95: int
    p99: int
    ticket_p95: int


# The gateway's bounds are some ten times what was measured, room for a busy two-core machine. The deployed API may
# take as long as the service in the report that Encore answers did under the same load. Smoke meets LocalStack cold: it
# starts the functions while they are waited for.
_PACE: dict[tuple[str, Target], _Pace] = {
    ("smoke", "gateway"): _Pace(p95=500, p99=1_000, ticket_p95=5_000),
    ("smoke", "localstack"): _Pace(p95=6_000, p99=10_000, ticket_p95=10_000),
    ("steps", "gateway"): _Pace(p95=250, p99=1_000, ticket_p95=5_000),
    ("steps", "localstack"): _Pace(p95=1_930, p99=2_770, ticket_p95=10_000),
}


def thresholds(profile: Profile, target: Target, buyers: Sequence[Planned]) -> list[Threshold]:
    """The bounds of a run: no fault, not even one that a retry mends, a ticket for everybody who stayed, the pace."""
    pace = _PACE[profile.name, target]
    stay = sum(not buyer.leaves for buyer in buyers)
    return [
        Threshold("buyers who came", "vusers.created", ">=", len(buyers)),
        Threshold("buyers ended by a fault", "encore.faults", "<=", 0),
        Threshold("buyers with a ticket", "encore.buyers.ticket", ">=", stay),
        Threshold("requests sent again after a 503 or a timeout", "encore.retries", "<=", 0),
        Threshold("response time p95, ms", "http.response_time.p95", "<=", pace.p95),
        Threshold("response time p99, ms", "http.response_time.p99", "<=", pace.p99),
        Threshold("from payment to ticket p95, ms", "encore.ticket_wait.p95", "<=", pace.ticket_p95),
    ]


def ensure(bounds: Sequence[Threshold]) -> dict[str, Any]:
    """The thresholds as the configuration of artillery's ``ensure`` plugin."""
    return {"conditions": [{"expression": bound.expression} for bound in bounds]}


def judge(bounds: Sequence[Threshold], aggregate: Mapping[str, Any]) -> list[Judged]:
    """Each threshold against the ``aggregate`` of artillery's JSON."""
    return [Judged(bound, _measured(bound.metric, aggregate)) for bound in bounds]


def _measured(metric: str, aggregate: Mapping[str, Any]) -> float | None:
    counters = aggregate.get("counters", {})
    if metric in counters:
        return float(counters[metric])
    name, _, statistic = metric.rpartition(".")
    value = aggregate.get("summaries", {}).get(name, {}).get(statistic)
    return None if value is None else float(value)
