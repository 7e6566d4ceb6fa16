"""A line of a test's own whose clock the test moves."""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from booking.platform.postgres import primary
from booking.platform.redis import redis
from booking.queue import admissions, join_line, person_of, position, scripts
from booking.queue.keys import line_key, line_keys
from booking.queue.line import Turn
from support.redis import TOPOLOGIES

_concert_ids = itertools.count(int(time.time()) % 1_000_000 * 1_000)


@pytest.fixture(params=TOPOLOGIES)
def redis_topology(request: pytest.FixtureRequest) -> str:
    """The whole suite of the line runs on each: ``-k sentinel``."""
    return str(request.param)


class Clock:
    """Moves the clock that the scripts read, by sending them another clock.lua: it survives a wiped Redis."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._real = scripts.CLOCK
        self._offset_us = 0

    def advance(self, seconds: float) -> None:
        self._offset_us += round(seconds * 1_000_000)
        moved = self._real.replace("local function clock_us()", "local function server_us()")
        moved += f"local function clock_us() return server_us() + {self._offset_us} end\n"
        self._monkeypatch.setattr(scripts, "CLOCK", moved)
        scripts.script.cache_clear()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    yield Clock(monkeypatch)
    monkeypatch.undo()
    scripts.script.cache_clear()


@dataclass
class Line:
    """One concert's line of a test's own."""

    concert_id: int
    clock: Clock
    tokens: dict[str, str] = field(default_factory=dict)

    def join(self, name: str) -> Turn:
        turn = join_line(self.concert_id, self.person(name))
        self.tokens[name] = turn.token
        return turn

    def poll(self, name: str) -> Turn:
        return position(self.tokens[name])

    def person(self, name: str) -> str:
        return person_of(f"{self.concert_id} {name}")

    def inside(self) -> int:
        return int(redis("queue").zcard(line_key(self.concert_id, "inside")))

    def gate(self, **fields: float | str) -> None:
        """Turn the gate's settings, as an operator does."""
        redis("queue").hset(line_key(self.concert_id, "gate"), mapping=fields)

    def forget(self) -> None:
        """Redis loses everything of this line."""
        redis("queue").delete(*line_keys(self.concert_id))

    def admissions(self) -> list[dict[str, Any]]:
        """What Postgres knows of the turns, oldest first, after a copy."""
        admissions.copy_admissions()
        columns = ("person", "number", "place", "entered_after", "claimed_at", "expires_at", "ended_at", "end_reason")
        rows = primary().rows(
            f"select {', '.join(columns)} from admission where concert_id = :concert_id order by number",
            concert_id=self.concert_id,
        )
        return [dict(zip(columns, row, strict=True)) for row in rows]


@pytest.fixture
def open_line(clock: Clock) -> Iterator[Callable[..., Line]]:
    """Makes a concert with a gate: ``open_line(capacity=1, rate_per_s=200, opens_in_s=-60)``."""
    lines: list[Line] = []

    def make(capacity: int = 1000, rate_per_s: float = 200, opens_in_s: float = -60) -> Line:
        line = Line(next(_concert_ids), clock)
        primary().rows(
            "insert into concert (id, title, artist, venue, sales_open_at) values (:id, 't', 'a', 'v',"
            " clock_timestamp() + make_interval(secs => cast(:opens_in_s as double precision)))",
            id=line.concert_id,
            opens_in_s=opens_in_s,
        )
        primary().rows(
            "insert into gate_change (concert_id, epoch, state, capacity, rate_per_s, paused, reason)"
            " values (:id, 1, 'open', :capacity, cast(:rate as numeric), false, 'test')",
            id=line.concert_id,
            capacity=capacity,
            rate=str(rate_per_s),
        )
        lines.append(line)
        return line

    yield make
    for line in lines:
        line.forget()
        # Other tests' copies need not look at it any more.
        primary().rows(
            "update concert set sales_closed_at = now() - interval '2 days' where id = :id", id=line.concert_id
        )
