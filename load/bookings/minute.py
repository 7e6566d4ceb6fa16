"""120 complete bookings a second, sustained, and how soon every event of them is drained."""

import asyncio
import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks import machine
from bookings.buyers import Plan, Record, buy
from bookings.stage import DRAIN_S_MAX, OnTheWay, Stage
from drills.harness import watch

TARGET_PER_S = 120
_OFFERED = 1.01
"""Times the target come: at random, so that now and then a minute has a few fewer than the mean."""
_LEAD_S = 5.0
"""The buyers of so long before the minute are not counted, as those who come in its last moments pay after it."""
FIRM_MS = 50
_WARM_UP_S = 5.0
_SAMPLE_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Spread:
    """Seconds."""

    count: int
    p50: float
    p95: float
    p99: float
    most: float


@dataclass(frozen=True, slots=True)
class Minute:
    """What came of it."""

    duration_s: float
    paid: int
    """Within the duration, which begins when buyers have come for a while."""
    paid_in_all: int
    seats: int
    tickets_seen: int
    taken_before: int
    faults: Mapping[str, int]
    steps: Mapping[str, Spread]
    booked: Spread
    ticket: Spread
    """From the payment's commit to the ticket's."""
    slowest_second: int
    """Payments answered in the poorest second of the duration."""
    most_on_the_way: Mapping[str, float]
    effects_s: float | None
    """After the last payment: every ticket issued, every seat counted, the outbox empty."""
    drained_s: float | None
    """After the last payment: the poller has said that nothing is left to be consumed, which it says once a second."""
    left: OnTheWay
    cpu_s: Mapping[str, float]
    """Of each part in ``duration_s``."""
    machine_busy: float
    """Of all CPUs, 0 to 1."""

    @property
    def per_s(self) -> float:
        return self.paid / self.duration_s

    def shortcomings(self) -> list[str]:
        """Why the target is missed; none: it is met."""
        found = [f"{count} buyers gave up: {why}" for why, count in self.faults.items()]
        if self.per_s < TARGET_PER_S:
            found.append(f"{self.per_s:.1f} bookings a second are fewer than {TARGET_PER_S}")
        if self.drained_s is None:
            found.append(f"not drained after {DRAIN_S_MAX:g} s: {self.left}")
        if self.tickets_seen != self.paid_in_all:
            found.append(f"{self.paid_in_all} paid and {self.tickets_seen} have seen their tickets")
        return found


def measure_minute(stage: Stage, duration_s: float, tell: Callable[[str], None]) -> Minute:
    """Warm up on one concert, measure on another. Raises ToolError."""
    stage.firms_take(FIRM_MS)
    concert_id, another_id = stage.unsold_concerts(2)
    tell(f"warming up for {_WARM_UP_S:g} s")
    asyncio.run(buy(_plan(stage, another_id, _WARM_UP_S), Record()))
    stage.drain(another_id)
    tell(f"{TARGET_PER_S} bookings a second for {duration_s:g} s")
    gc.disable()  # the load generator shares the CPUs with what it loads
    try:
        return asyncio.run(_measure(stage, _plan(stage, concert_id, _LEAD_S + duration_s), tell))
    finally:
        gc.enable()


def _plan(stage: Stage, concert_id: int, duration_s: float) -> Plan:
    return Plan(stage.instance.url("gateway"), concert_id, math.ceil(TARGET_PER_S * _OFFERED * duration_s), duration_s)


async def _measure(stage: Stage, plan: Plan, tell: Callable[[str], None]) -> Minute:
    record, samples = Record(), list[dict[str, float]]()
    duration_s = plan.duration_s - _LEAD_S
    began_s = time.monotonic()
    watching = asyncio.create_task(_watch(stage, record, samples, tell))
    buying = asyncio.create_task(buy(plan, record))
    await asyncio.sleep(_LEAD_S)
    before_s, machine_before = await asyncio.to_thread(machine.spent_s, stage.instance), machine.machine_s()
    own_before_s = time.process_time()
    await asyncio.sleep(began_s + plan.duration_s - time.monotonic())
    own_s, machine_after = time.process_time() - own_before_s, machine.machine_s()
    after_s = await asyncio.to_thread(machine.spent_s, stage.instance)
    while len(record.booked_s) + record.faults.total() < plan.count and not buying.done():
        await asyncio.sleep(0.02)
    last_paid_s = time.monotonic() - began_s
    tell(f"{len(record.paid_at_s):,} paid; draining")
    effects_s, drained_s = await asyncio.to_thread(stage.drain, plan.concert_id)
    waited_s = time.monotonic() - began_s - last_paid_s
    await buying
    watching.cancel()
    spent = {part: after_s[part] - before_s.get(part, 0.0) for part in after_s}
    within = [at_s - _LEAD_S for at_s in record.paid_at_s if _LEAD_S <= at_s < plan.duration_s]
    late_s = waited_s - drained_s if drained_s is not None else 0.0
    return Minute(
        duration_s=duration_s,
        paid=len(within),
        paid_in_all=len(record.paid_at_s),
        seats=record.seats,
        tickets_seen=record.tickets,
        taken_before=record.taken_before,
        faults=dict(record.faults),
        steps={step: _spread(sorted(record.latencies_s[step])) for step in sorted(record.latencies_s)},
        booked=_spread(sorted(record.booked_s)),
        ticket=_spread(stage.ticket_delays_s(plan.concert_id)),
        slowest_second=min(_per_second(within, duration_s), default=0),
        most_on_the_way={name: max(one.get(name, 0.0) for one in samples) for name in samples[0]},
        effects_s=None if effects_s is None else effects_s + late_s,
        drained_s=None if drained_s is None else drained_s + late_s,
        left=stage.on_the_way(plan.concert_id),
        cpu_s={**spent, "load generator": own_s},
        machine_busy=(machine_after[0] - machine_before[0]) / (machine_after[1] - machine_before[1]),
    )


async def _watch(stage: Stage, record: Record, samples: list[dict[str, float]], tell: Callable[[str], None]) -> None:
    began_s = time.monotonic()
    while True:
        samples.append(await asyncio.to_thread(watch.look, stage.instance))
        if len(samples) % 10 == 0:
            seen = samples[-1]
            tell(
                f"{time.monotonic() - began_s:.0f} s: {len(record.paid_at_s):,} paid, {record.faults.total()} gave up,"
                f" {seen.get(watch.OUTBOX, 0):.0f} events not in Kafka, {seen.get(watch.LAG, 0):.0f} not consumed"
            )
        await asyncio.sleep(_SAMPLE_EVERY_S)


def _per_second(at_s: Sequence[float], duration_s: float) -> list[int]:
    counts = [0] * int(duration_s)
    for moment_s in at_s:
        if moment_s < len(counts):
            counts[int(moment_s)] += 1
    return counts


def _spread(ordered: Sequence[float]) -> Spread:
    if not ordered:
        return Spread(0, 0.0, 0.0, 0.0, 0.0)
    p50, p95, p99 = (ordered[min(len(ordered) - 1, int(q * len(ordered)))] for q in (0.5, 0.95, 0.99))
    return Spread(len(ordered), p50, p95, p99, ordered[-1])
