"""Payments a second over more and more buyers, while every payment waits for a firm that thinks for 750 ms."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchmarks import machine
from benchmarks.requests import Request, pay
from benchmarks.tools import ToolError
from bookings.stage import Stage
from drills.harness.client import Client

CONNECTIONS = (25, 50, 100, 200, 400, 600)
FIRM_MS = 750
BUSY = 0.85
"""Of all CPUs: from there on the rate need not grow."""
_GROWS = 1.05
_RAMP_S, _WARM_S, _MEASURED_S = 0.75, 3.0, 6.0
_PAYMENTS_PER_S_MAX = 500
_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Level:
    """So many buyers, each of whom pays one reservation after the other."""

    connections: int
    paid_per_s: float
    p50_s: float
    p99_s: float
    machine_busy: float
    """Of all CPUs, 0 to 1."""
    pending: int
    """Answers 202: the outcome was open after 3 s. They are settled later, and are not among the paid ones."""
    faults: Mapping[str, int]
    """Answers other than 201 and 202."""
    drained_s: float | None
    """After the last answer; None: not in time."""


def shortcomings(levels: Sequence[Level]) -> list[str]:
    """Where the rate does not grow though the CPU is not busy, and what went wrong; none: as it should be."""
    found = [f"{level.connections} buyers: {count} of {why}" for level in levels for why, count in level.faults.items()]
    found += [f"{level.connections} buyers: not drained" for level in levels if level.drained_s is None]
    for fewer, more in pairwise(levels):
        if more.paid_per_s < _GROWS * fewer.paid_per_s and more.machine_busy < BUSY:
            found.append(
                f"{more.connections} buyers pay {more.paid_per_s:.0f} times a second, {fewer.connections} already paid"
                f" {fewer.paid_per_s:.0f} times, and the CPUs are busy to {100 * more.machine_busy:.0f} %"
            )
    return found


def measure_levels(stage: Stage, tell: Callable[[str], None]) -> Iterator[Level]:
    """One for each number of connections, drained in between. Raises ToolError."""
    stage.firms_take(FIRM_MS)
    try:
        for connections in CONNECTIONS:
            tell(f"payments over {connections} connections, firms take {FIRM_MS} ms")
            yield _measure(stage, connections)
    finally:
        stage.firms_take(0)


def _measure(stage: Stage, connections: int) -> Level:
    most_per_s = min(connections / (FIRM_MS / 1_000), _PAYMENTS_PER_S_MAX)
    count = connections + int(most_per_s * (_RAMP_S + _WARM_S + _MEASURED_S))
    load = _Load(stage.instance.url("gateway"), pay(stage, count))
    busy = asyncio.run(load.run(connections))
    drained_s = stage.drain(0)[1]
    ordered = sorted(load.answered_s)
    if not ordered:
        raise ToolError(f"no payment over {connections} connections was answered with 201: {load.faults}")
    return Level(
        connections,
        len(ordered) / _MEASURED_S,
        ordered[len(ordered) // 2],
        ordered[len(ordered) * 99 // 100],
        busy,
        load.pending,
        dict(load.faults),
        drained_s,
    )


class _Load:
    """A closed loop: each connection sends its next request when the one before is answered."""

    def __init__(self, base_url: str, requests: Sequence[Request]) -> None:
        self._base_url = base_url
        self._requests = iter(requests)
        self._is_over = False
        self._is_measured = False
        self.answered_s: list[float] = []
        """How long each payment took that was answered in the measured time."""
        self.pending = 0
        self.faults: Counter[str] = Counter()

    async def run(self, connections: int) -> float:
        """How busy the machine was meanwhile. Raises ToolError when the requests do not suffice."""
        async with asyncio.TaskGroup() as buyers:
            for _ in range(connections):
                buyers.create_task(self._buy())
            await asyncio.sleep(_RAMP_S + _WARM_S)
            busy_s, all_s = machine.machine_s()
            self._is_measured = True
            await asyncio.sleep(_MEASURED_S)
            self._is_measured, self._is_over = False, True
            busy_after_s, all_after_s = machine.machine_s()
        return (busy_after_s - busy_s) / (all_after_s - all_s)

    async def _buy(self) -> None:
        client = Client(self._base_url, connections_max=1, timeout_s=_TIMEOUT_S)
        clock = asyncio.get_running_loop().time
        await asyncio.sleep(random.uniform(0, _RAMP_S))
        while not self._is_over:
            request = next(self._requests, None)
            if request is None:
                raise ToolError(f"more than {_PAYMENTS_PER_S_MAX} payments a second: too few holds are prepared")
            asked_s = clock()
            reply = await client.ask(request.method, request.path, request.headers, request.body)
            if reply.status == 202:
                self.pending += 1
            elif reply.status != 201:
                self.faults[str(reply.status or reply.fault)] += 1
            elif self._is_measured:
                self.answered_s.append(clock() - asked_s)
        client.close()
