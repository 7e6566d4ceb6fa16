"""Per-seat locks in Redis. They shed load and guard nothing: without them every sale is still exact, only dearer.

Many people ask for the same seat in the same second. Who finds it locked tries again for a moment without costing
Postgres anything, and is then refused. When Redis is away everybody goes straight to Postgres, which decides anyway.
"""

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from redis.exceptions import RedisError

from booking.platform.redis import Script, redis
from booking.platform.resources import read_text
from booking.platform.settings import settings
from booking.platform.telemetry import count
from booking.seats.problems import SeatTaken

_LOCK = Script(read_text(__package__, "lua/lock_seats.lua"))
_UNLOCK = Script(read_text(__package__, "lua/unlock_seats.lua"))
_BACKOFF_FIRST_S = 0.010
_BACKOFF_MAX_S = 0.200


@contextmanager
def seat_locks(schedule_id: int, numbers: Sequence[int], owner: str) -> Iterator[None]:
    """Hold the locks of these seats for the length of the block.

    ``owner`` names the attempt, the same for each retry of it: twins of one request must not keep each other out, they
    wait for each other in Postgres and get one answer. Raises SeatTaken, naming the seats, when others are busy with
    them for longer than ``seat_lock_wait_ms_max``.
    """
    try:
        locked = _wait_for_locks(schedule_id, numbers, owner)
    except RedisError:
        count("SeatLocksAway")
        locked = False
    try:
        yield
    finally:
        if locked:
            _unlock(schedule_id, numbers, owner)


def _wait_for_locks(schedule_id: int, numbers: Sequence[int], owner: str) -> bool:
    deadline_s = time.monotonic() + settings().seat_lock_wait_ms_max / 1000
    backoff_s = _BACKOFF_FIRST_S
    keys = [*_lock_keys(schedule_id, numbers), f"seatlocks:{{s{schedule_id}}}:count"]
    while True:
        number, *busy = _LOCK(redis("locks"), keys, [owner, settings().seat_lock_ttl_ms])
        if number:
            return True
        # Full jitter: the losers of one round must not meet again in the next.
        pause_s = random.uniform(0, backoff_s)
        if time.monotonic() + pause_s >= deadline_s:
            taken = [numbers[position - 1] for position in busy]
            raise SeatTaken(f"others are buying seats {taken} right now", seats=taken)
        time.sleep(pause_s)
        backoff_s = min(backoff_s * 2, _BACKOFF_MAX_S)


def _unlock(schedule_id: int, numbers: Sequence[int], owner: str) -> None:
    with suppress(RedisError):  # the locks expire by themselves
        _UNLOCK(redis("locks"), _lock_keys(schedule_id, numbers), [owner])


def _lock_keys(schedule_id: int, numbers: Sequence[int]) -> list[str]:
    return [f"seatlocks:{{s{schedule_id}}}:{number}" for number in numbers]
