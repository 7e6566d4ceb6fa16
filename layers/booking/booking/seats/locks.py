"""Per-seat locks in Redis. They shed load and guard nothing: without them every sale is still exact, only dearer.

Many people ask for the same seat in the same second. Who finds it locked tries again for a moment without costing
Postgres anything, and is then refused. When Redis is away everybody goes straight to Postgres, which decides anyway.
"""

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from redis.exceptions import RedisError

from booking.platform.redis import Call, Script, redis, run_together
from booking.platform.redis_keys import seat_lock_key
from booking.platform.resources import read_text
from booking.platform.settings import settings
from booking.platform.telemetry import count
from booking.seats.problems import SeatTaken

_LOCK = Script(read_text(__package__, "lua/lock_seats.lua"))
_UNLOCK = Script(read_text(__package__, "lua/unlock_seats.lua"))
_BACKOFF_FIRST_S = 0.010
_BACKOFF_MAX_S = 0.200
_REMEMBERED_MS = 24 * 3600 * 1000  # as long as the idempotency key: key_lifetime() in SQL


@dataclass(slots=True)
class SeatLocks:
    """The locks of one attempt. Set ``held`` when the attempt has got its seats: its retries will not be kept out.

    ``afterwards`` is sent with the unlocking, in one trip where they share a server, and by itself where there is
    nothing to unlock.
    """

    schedule_id: int
    numbers: Sequence[int]
    owner: str
    held: bool = False
    afterwards: list[Call] = field(default_factory=list)

    def keys(self, *more: str) -> list[str]:
        """The locks' keys and more of the same schedule; all share a hash tag, so one script may touch them."""
        return [seat_lock_key(self.schedule_id, str(name)) for name in (*self.numbers, *more)]

    @property
    def mark(self) -> str:
        """The name of the key that remembers that this attempt has held its seats."""
        return f"held:{self.owner}"


@contextmanager
def seat_locks(schedule_id: int, numbers: Sequence[int], owner: str) -> Iterator[SeatLocks]:
    """Hold the locks of these seats for the length of the block.

    ``owner`` names the attempt, the same for each retry of it: twins of one request must not keep each other out, they
    wait for each other in Postgres and get one answer. Raises SeatTaken, naming the seats, when others are busy with
    them for longer than ``seat_lock_wait_ms_max``; an attempt that has held its seats is never refused here.
    """
    locks = SeatLocks(schedule_id, numbers, owner)
    try:
        locked = _wait_for_locks(locks)
    except RedisError:
        count("SeatLocksAway")
        locked = False
    try:
        yield locks
    finally:
        with suppress(RedisError):  # the locks expire by themselves, and so does what else Redis is not told
            run_together([_unlocking(locks), *locks.afterwards] if locked else locks.afterwards)


def _wait_for_locks(locks: SeatLocks) -> bool:
    """Whether there is something to unlock afterwards. Raises SeatTaken, RedisError."""
    deadline_s = time.monotonic() + settings().seat_lock_wait_ms_max / 1000
    backoff_s = _BACKOFF_FIRST_S
    keys = locks.keys("count", locks.mark)
    while True:
        number, *busy = _LOCK(redis("locks"), keys, [locks.owner, settings().seat_lock_ttl_ms])
        if number:
            return bool(number > 0)
        # Full jitter: the losers of one round must not meet again in the next.
        pause_s = random.uniform(0, backoff_s)
        if time.monotonic() + pause_s >= deadline_s:
            taken = [locks.numbers[position - 1] for position in busy]
            raise SeatTaken(f"others are buying seats {taken} right now", seats=taken)
        time.sleep(pause_s)
        backoff_s = min(backoff_s * 2, _BACKOFF_MAX_S)


def _unlocking(locks: SeatLocks) -> Call:
    return Call("locks", _UNLOCK, locks.keys(locks.mark), [locks.owner, _REMEMBERED_MS if locks.held else 0])
