"""The consumers' measurements one after the other, as text for ``load/consumers.md``."""

import os
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from benchmarks.machine import machine_s
from benchmarks.report import markdown_table
from benchmarks.run import audit
from benchmarks.tools import ToolError
from booking.platform.postgres import primary
from booking.platform.resources import read_text
from booking.tickets.outbox import backlog
from bookings.stage import Stage
from encore_stack.stack import Stack
from event_source.settings import invocations_at_once

PARTITIONS = (1, 3, 12, 24)
"""Only ever raised: Kafka takes no partition away."""
BOOKINGS = 3_000
"""A backlog: two events each."""

_CONSUMERS = ("tickets", "sales")
_EVENTS = 2 * BOOKINGS
_BOOKED_AT_ONCE, _CLIENTS = 50, 4
_AWAIT_S_MAX, _LOOK_EVERY_S = 120.0, 0.1
_BOOK = read_text("consumers", "sql/book.sql")
_DONE = read_text("consumers", "sql/done.sql")


@dataclass(frozen=True, slots=True)
class Drained:
    """How fast a backlog was consumed."""

    events_per_s: Mapping[str, float]
    """By consumer."""
    busy_share: float
    """Of the machine's CPUs, meanwhile."""


def measure_consumers(rounds: int, tell: Callable[[str], None]) -> tuple[str, int]:
    """All of it, as Markdown, and the audit's exit code. Raises ToolError, and what starting the servers raises."""
    rows = [_row(partitions, rounds, tell) for partitions in PARTITIONS]
    heads = ["partitions", "invocations at once, each", *(f"{name}, events/s" for name in _CONSUMERS), "CPU busy"]
    tell("the audit, without I3: no payment firm was asked")
    return (
        f"Both consumers side by side, {_EVENTS:,} events waiting in the topic, medians of {rounds} rounds:\n\n"
        + markdown_table(heads, rows),
        audit("--without", "I3"),
    )


def _row(partitions: int, rounds: int, tell: Callable[[str], None]) -> list[str]:
    os.environ["ENCORE_TOPIC_PARTITIONS"] = str(partitions)
    stage = Stage(tell)
    stage.set_up()
    drained = []
    for nth in range(rounds):
        tell(f"{_EVENTS:,} events over {partitions} partitions, round {nth + 1} of {rounds}")
        drained.append(_drain(stage))
    per_s = (statistics.median(one.events_per_s[name] for one in drained) for name in _CONSUMERS)
    busy_share = statistics.median(one.busy_share for one in drained)
    at_once = invocations_at_once(partitions)
    return [f"{partitions}", f"{at_once}", *(f"{rate:,.0f}" for rate in per_s), f"{busy_share:.0%}"]


def _drain(stage: Stage) -> Drained:
    """Let a backlog come together while the poller is held, then release it. Raises ToolError."""
    stack = Stack(stage.instance)
    stack.stop("poller")
    try:
        _book(stage)
        _await(lambda: not backlog(primary()).count, "the relay to publish")
        [[since]] = stage.rows("select extract(epoch from clock_timestamp())::float8")
    finally:
        stack.start("poller")
    return _measure(stage, float(str(since)))


def _book(stage: Stage) -> None:
    def book(count: int) -> None:
        stage.rows(_BOOK, count=count)

    with ThreadPoolExecutor(_CLIENTS) as clients:
        list(clients.map(book, [_BOOKED_AT_ONCE] * (BOOKINGS // _BOOKED_AT_ONCE)))


def _measure(stage: Stage, since: float) -> Drained:
    """From the first batch of each consumer to its last."""
    rates: dict[str, float] = {}
    before = None

    def all_done() -> bool:
        nonlocal before
        for consumer, count, took_s in stage.rows(_DONE, since=since):
            before = before or machine_s()
            if count == _EVENTS:
                rates.setdefault(str(consumer), _EVENTS / float(str(took_s)))
        return len(rates) == len(_CONSUMERS)

    _await(all_done, "the consumers")
    busy_s, all_s = (after - at_first for after, at_first in zip(machine_s(), before or (0, 0), strict=True))
    return Drained(rates, busy_s / all_s)


def _await(is_so: Callable[[], bool], whom: str) -> None:
    until_s = time.monotonic() + _AWAIT_S_MAX
    while not is_so():
        if time.monotonic() > until_s:
            raise ToolError(f"waited {_AWAIT_S_MAX:g} s for {whom}")
        time.sleep(_LOOK_EVERY_S)
