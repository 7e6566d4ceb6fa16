"""What came of a run, read from artillery's JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WINDOW_S = 10
"""Artillery gathers its metrics in windows of this length, on the clock."""

STEPS = {
    "step1_join_queue": "1 join the line",
    "step2_queue_position": "2 where am I",
    "step3_concerts": "3 concerts",
    "step4_schedules": "4 schedules",
    "step5_seats": "5 seat map",
    "step6_reserve": "6 reserve",
    "step7_pay": "7 pay",
    "reservation": "own reservation",
}
"""The steps as metrics name them and as people read them; the last is the polling for the ticket, and giving back."""

OUTCOMES = {
    "encore.buyers.ticket": "have a ticket",
    "encore.buyers.left": "left (planned)",
    "encore.buyers.sold_out": "found no seats",
    "encore.buyers.hold_lost": "lost their hold",
    "encore.faults": "ended by a fault",
}
EVENTS = {
    "encore.declined": "payments declined, paid otherwise",
    "encore.pending": "payments left open (202)",
    "encore.seats_taken": "seats taken by others (409)",
    "encore.repeated": "requests sent twice, same key",
    "encore.retries": "retries after a 503 or a timeout",
}


class UnreadableResults(Exception):
    """The file is not what artillery writes at the end of a run."""


@dataclass(frozen=True, slots=True)
class Times:
    """Response times in ms."""

    count: int = 0
    mean: float = 0
    p50: float = 0
    p95: float = 0
    p99: float = 0
    max: float = 0


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the seven. ``faults`` are 5xx, timeouts and broken connections, also those that a retry mended."""

    title: str
    requests: int
    faults: int
    times: Times


@dataclass(frozen=True, slots=True)
class Window:
    """One window of artillery's: ``at_s`` is its middle, since the first request."""

    at_s: float
    requests_per_s: float
    faults_per_s: float
    times: Times
    buyers_inside: int
    """Who has come and not gone by its end."""


@dataclass(frozen=True, slots=True)
class Results:
    """A run as a whole."""

    duration_s: float
    requests: int
    times: Times
    buyers: int
    steps: list[Step]
    windows: list[Window]
    codes: dict[str, int]
    outcomes: dict[str, int]
    events: dict[str, int]
    faults: dict[str, int] = field(default_factory=dict)
    """What ended buyers, in artillery's words."""


def read_results(path: Path) -> tuple[Results, dict[str, Any]]:
    """The results and the ``aggregate`` they come from. Raises UnreadableResults."""
    try:
        report = json.loads(path.read_text())
        return results(report), report["aggregate"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as fault:
        raise UnreadableResults(f"{path.name}: {fault!r}") from fault


def results(report: Mapping[str, Any]) -> Results:
    """The results of artillery's JSON."""
    aggregate = report["aggregate"]
    counters: Mapping[str, int] = aggregate["counters"]
    started_ms, ended_ms = _span_ms(aggregate)
    return Results(
        duration_s=(ended_ms - started_ms) / 1000,
        requests=counters.get("http.requests", 0),
        times=_times(aggregate, "http.response_time"),
        buyers=counters.get("vusers.created", 0),
        steps=[_step(aggregate, name, title) for name, title in STEPS.items()],
        windows=_windows(report.get("intermediate", []), started_ms, ended_ms),
        codes=_named(counters, "http.codes."),
        outcomes={title: counters.get(name, 0) for name, title in OUTCOMES.items()},
        events={title: counters.get(name, 0) for name, title in EVENTS.items()},
        faults=_named(counters, "errors."),
    )


def _span_ms(metrics: Mapping[str, Any]) -> tuple[float, float]:
    return float(metrics["firstMetricAt"]), float(metrics["lastMetricAt"])


def _named(counters: Mapping[str, int], prefix: str) -> dict[str, int]:
    found = {name.removeprefix(prefix): count for name, count in counters.items() if name.startswith(prefix)}
    return dict(sorted(found.items()))


def _times(metrics: Mapping[str, Any], name: str) -> Times:
    summary = metrics.get("summaries", {}).get(name)
    if not summary:
        return Times()
    return Times(**{part: summary[part] for part in Times.__dataclass_fields__})


def _step(metrics: Mapping[str, Any], name: str, title: str) -> Step:
    counters, prefix = metrics["counters"], f"encore.steps.{name}"
    return Step(
        title,
        counters.get(f"{prefix}.requests", 0),
        counters.get(f"{prefix}.faults", 0),
        _times(metrics, f"{prefix}.response_time"),
    )


def _windows(intermediate: Sequence[Mapping[str, Any]], started_ms: float, ended_ms: float) -> list[Window]:
    """The first and the last are cut short by the run's own start and end: rates are per second of the run."""
    windows = []
    inside = 0
    for metrics in sorted(intermediate, key=lambda metrics: int(metrics["period"])):
        counters: Mapping[str, int] = metrics.get("counters", {})
        from_ms = max(float(metrics["period"]), started_ms)
        to_ms = min(float(metrics["period"]) + WINDOW_S * 1000, ended_ms)
        length_s = max(1.0, (to_ms - from_ms) / 1000)
        inside += counters.get("vusers.created", 0)
        inside -= counters.get("vusers.completed", 0) + counters.get("vusers.failed", 0)
        faults = sum(counters.get(f"encore.steps.{name}.faults", 0) for name in STEPS)
        windows.append(
            Window(
                at_s=((from_ms + to_ms) / 2 - started_ms) / 1000,
                requests_per_s=counters.get("http.requests", 0) / length_s,
                faults_per_s=faults / length_s,
                times=_times(metrics, "http.response_time"),
                buyers_inside=inside,
            )
        )
    return windows
