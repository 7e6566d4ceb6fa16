"""Both measurements and the audit; what came of them as Markdown, as JSON, and as a verdict."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from benchmarks.report import markdown_table
from bookings.minute import FIRM_MS, TARGET_PER_S, Minute, Spread, measure_minute
from bookings.slow_firms import FIRM_MS as SLOW_FIRM_MS
from bookings.slow_firms import Level, measure_levels, shortcomings
from bookings.stage import Stage

Which = Literal["minute", "slow-firms", "both"]
DURATION_S = 60.0

_PARTS = {
    "gateway": "fast gateway",
    "postgres": "Postgres, primary",
    "postgres2": "Postgres, replica",
    "redis": "Redis",
    "kafka": "Kafka",
    "danal": "simulated firms",
    "payco": "simulated firms",
    "poller": "poller",
    "localstack": "LocalStack",
    "load generator": "load generator",
    "every_minute_relay_outbox": "relay",
    "on_reservation_events_issue_tickets": "consumer: tickets",
    "on_reservation_events_count_sales": "consumer: sales",
    "every_minute_send_notices": "notices",
}
_OTHER_LOOPS = "other loops"


@dataclass(frozen=True, slots=True)
class Bookings:
    """What was measured; None or empty: was not."""

    minute: Minute | None
    slow_firms: Sequence[Level]

    def shortcomings(self) -> list[str]:
        """Why a target is missed; none: all are met."""
        return [*(self.minute.shortcomings() if self.minute else ()), *shortcomings(self.slow_firms)]


def measure_bookings(which: Which, duration_s: float, tell: Callable[[str], None]) -> Bookings:
    """Raises ToolError, and what starting the stack raises."""
    stage = Stage(tell)
    stage.set_up()
    minute = measure_minute(stage, duration_s, tell) if which != "slow-firms" else None
    return Bookings(minute, list(measure_levels(stage, tell)) if which != "minute" else ())


def as_json(measured: Bookings, *, audit_passed: bool) -> str:
    """Everything, times in seconds."""
    return json.dumps(
        {
            "encore_bookings": 1,
            "minute": asdict(measured.minute) if measured.minute else None,
            "slow_firms": [asdict(level) for level in measured.slow_firms],
            "shortcomings": measured.shortcomings(),
            "audit_passed": audit_passed,
        },
        indent=1,
    )


def as_markdown(measured: Bookings) -> str:
    """The tables of ``load/bookings.md`` and whether the targets are met."""
    parts = [*(_minute(measured.minute) if measured.minute else ())]
    if measured.slow_firms:
        parts.append(_slow_firms(measured.slow_firms))
    found = measured.shortcomings()
    parts.append("Missed: " + "; ".join(found) if found else "All targets are met.")
    return "\n\n".join(parts)


def _minute(minute: Minute) -> Iterator[str]:
    yield (
        f"{minute.paid:,} bookings paid within {minute.duration_s:g} s, {minute.per_s:.1f} a second (asked for:"
        f" {TARGET_PER_S}), in the poorest second {minute.slowest_second}; firms take {FIRM_MS} ms. Of"
        f" {minute.paid_in_all:,} buyers who paid in all, for {minute.seats:,} seats, {minute.tickets_seen:,} have seen"
        f" their ticket, {sum(minute.faults.values())} gave up, and {minute.taken_before} times somebody else was"
        f" faster. The CPUs were busy to {100 * minute.machine_busy:.0f} %."
    )
    rows = [[step, *_ms(spread)] for step, spread in minute.steps.items()]
    rows.append(["coming to having paid", *_ms(minute.booked)])
    rows.append(["payment to ticket issued", *_ms(minute.ticket)])
    yield "Milliseconds:\n\n" + markdown_table(["step", "calls", "p50", "p95", "p99", "most"], rows)
    most = ", ".join(f"{name} {value:,.1f}" for name, value in minute.most_on_the_way.items())
    yield (
        f"After the last payment: every ticket issued, every seat counted and the outbox empty {_s(minute.effects_s)},"
        f" the consumers' lag 0 {_s(minute.drained_s)}. Most on the way in the minute: {most}."
    )
    spent = _by_part(minute.cpu_s)
    rows = [
        [part, f"{cpu_s:,.1f}", f"{1_000 * cpu_s / minute.paid:,.2f}"]
        for part, cpu_s in sorted(spent.items(), key=lambda one: -one[1])
    ]
    rows.append(["all of these", f"{sum(spent.values()):,.1f}", f"{1_000 * sum(spent.values()) / minute.paid:,.2f}"])
    yield "CPU:\n\n" + markdown_table(["part", f"seconds in {minute.duration_s:g} s", "ms a booking"], rows)


def _slow_firms(levels: Sequence[Level]) -> str:
    rows = [
        [
            f"{level.connections}",
            f"{level.paid_per_s:,.0f}",
            f"{1_000 * level.p50_s:,.0f}",
            f"{1_000 * level.p99_s:,.0f}",
            f"{level.pending}",
            f"{100 * level.machine_busy:.0f} %",
            _s(level.drained_s),
        ]
        for level in levels
    ]
    heads = ["buyers", "payments a second", "p50, ms", "p99, ms", "open after 3 s", "CPUs busy", "drained after"]
    return f"Payments with firms that take {SLOW_FIRM_MS} ms:\n\n" + markdown_table(heads, rows)


def _by_part(cpu_s: Mapping[str, float]) -> dict[str, float]:
    """By the names that people know."""
    spent: dict[str, float] = {}
    for part, seconds in cpu_s.items():
        name = _PARTS.get(part, _OTHER_LOOPS)
        spent[name] = spent.get(name, 0.0) + seconds
    return spent


def _ms(spread: Spread) -> list[str]:
    return [
        f"{spread.count:,}",
        *(f"{1_000 * value:,.0f}" for value in (spread.p50, spread.p95, spread.p99, spread.most)),
    ]


def _s(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.1f} s"
