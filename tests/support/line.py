"""A line of a test's own whose clock the test moves."""

import itertools
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from booking.platform.postgres import primary
from booking.platform.redis import redis
from booking.platform.redis_keys import line_key, line_keys
from booking.queue import admissions, join_line, leave_line, person_of, position, scripts
from booking.queue.gate import GateChange, change_gate
from booking.queue.line import Turn

_concert_ids = itertools.count(int(time.time()) % 1_000_000 * 1_000)

# Instead of the server's clock alone: '+<microseconds>' on top of it, or '<microseconds>' as they stand.
_CLOCK = """
local function clock_us()
  local set = redis.call('GET', KEYS[1] .. ':test-clock') or '+0'
  if string.sub(set, 1, 1) == '+' then return server_us() + tonumber(set) end
  return tonumber(set)
end
"""
_CLOCK_KEPT_S = 3600

# All that tells a line its time in one trip: a simulation makes it for every event. KEYS 1 gate  2 test clock;
# ARGV 1 what the clock says  2 how long that is kept, s  3 when the gate was last heard, us; '': as it is  4 a version
# that no gate has had: the server's Lua keeps gates by theirs.
_TELL = """
redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[2])
if ARGV[3] ~= '' and redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('HSET', KEYS[1], 'heard_us', ARGV[3], 'version', ARGV[4])
end
"""


class Clock:
    """Moves the clock that the scripts of some lines read, by sending them another clock.lua; it survives a loss."""

    def __init__(self) -> None:
        self.now_us = 0
        """Where the clock stands since ``stop``."""
        self._concert_ids: list[int] = []
        self._offset_us = 0

    def rule(self, concert_id: int) -> None:
        """Rule this concert's line, too."""
        self._concert_ids.append(concert_id)
        self._tell()

    def advance(self, seconds: float, *, silent: bool = False) -> None:
        """Let time pass at once; ``silent``: as it passes while Redis is away and nobody can ask the line anything."""
        self._offset_us += round(seconds * 1_000_000)
        self.now_us += round(seconds * 1_000_000) if self.now_us else 0
        self._tell(silent)

    def stop(self) -> None:
        """From now on time passes only by ``advance`` and ``move_to``."""
        self.now_us = time.time_ns() // 1000 + self._offset_us
        self._tell()

    def move_to(self, now_us: int) -> None:
        """Set the stopped clock."""
        self.now_us = now_us
        self._tell()

    def _tell(self, silent: bool = False) -> None:
        said = str(self.now_us) if self.now_us else f"+{self._offset_us}"
        heard = "" if silent else str(self.now_us or time.time_ns() // 1000 + self._offset_us)
        for concert_id in self._concert_ids:
            gate = line_key(concert_id, "gate")
            redis("queue").eval(_TELL, 2, gate, f"{gate}:test-clock", said, _CLOCK_KEPT_S, heard, uuid.uuid4().hex)


@contextmanager
def own_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """A clock that lines can be put under (``Clock.rule``), until the end of the block."""
    real = scripts.CLOCK.replace("local function clock_us()", "local function server_us()")
    with library_of(monkeypatch, CLOCK=real + _CLOCK):
        yield Clock()


@contextmanager
def library_of(monkeypatch: pytest.MonkeyPatch, **sources: str) -> Iterator[None]:
    """Until the end of the block this process calls another library of the line: with these of ``scripts``' sources."""
    with monkeypatch.context() as patch:
        for name, source in sources.items():
            patch.setattr(scripts, name, source)
        scripts.functions.cache_clear()
        yield
    scripts.functions.cache_clear()


@dataclass
class Line:
    """One concert's line of a test's own."""

    concert_id: int
    clock: Clock
    tokens: dict[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, clock: Clock, capacity: int = 1000, rate_per_s: float = 200, opens_in_s: float = -60) -> "Line":
        """A concert with a gate that is set and a line that nobody has joined yet."""
        line = cls(next(_concert_ids), clock)
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
        clock.rule(line.concert_id)
        return line

    def retire(self) -> None:
        """Forget the line, and let other tests' copies look at it no more."""
        self.forget()
        primary().rows(
            "update concert set sales_closed_at = now() - interval '2 days' where id = :id", id=self.concert_id
        )

    def join(self, name: str) -> Turn:
        turn = join_line(self.concert_id, self.person(name))
        self.tokens[name] = turn.token
        return turn

    def poll(self, name: str) -> Turn:
        return position(self.tokens[name])

    def leave(self, name: str) -> None:
        leave_line(self.tokens[name])

    def person(self, name: str) -> str:
        return person_of(f"{self.concert_id} {name}")

    def inside(self) -> int:
        return int(redis("queue").zcard(line_key(self.concert_id, "inside")))

    def gate(self, action: str, value: object = None) -> GateChange:
        """Turn the gate, as an operator does."""
        return change_gate(self.concert_id, action, value, by="a test")

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
