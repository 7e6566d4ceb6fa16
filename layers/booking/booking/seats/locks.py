"""Per-seat locks in Redis. They shed load and guard nothing: without them every sale is still exact, only dearer.

Many people ask for the same seat in the same second. Who finds it locked tries again for a moment without costing
Postgres anything, and is then refused. When Redis is away everybody goes straight to Postgres, which decides anyway.

What people have waited for, and which locks ran out under their owners, is the lock history (``lock_history`` reads
it). The try that ends a wait writes it: who gets the locks at once pays nothing for it, and nobody makes a trip more.
"""

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit
from redis.exceptions import RedisError

from booking.platform.redis import Call, Library, redis, run_together
from booking.platform.redis_keys import seat_lock_key
from booking.platform.resources import read_text
from booking.platform.settings import settings
from booking.platform.telemetry import count, measure
from booking.seats.problems import SeatTaken

LIBRARY = Library(
    "encore_locks",
    read_text(__package__, "lua/locks.lua"),
    {name: read_text(__package__, f"lua/{name}.lua") for name in ("lock_seats", "unlock_seats")},
)
_LOCK, _UNLOCK = LIBRARY.functions()["lock_seats"], LIBRARY.functions()["unlock_seats"]
_BACKOFF_FIRST_S = 0.010
_BACKOFF_MAX_S = 0.200
_REMEMBERED_MS = 24 * 3600 * 1000  # as long as the idempotency key: key_lifetime() in SQL
_AS_IT_IS = -1
_HISTORY_KEPT_MS = 24 * 3600 * 1000


@dataclass(slots=True)
class SeatLocks:
    """The locks of one attempt. Set ``held`` when the attempt has got its seats: its retries will not be kept out.

    Nor will they where nobody knows what became of the attempt (None): the block has raised, or its process has died.

    ``afterwards`` is sent with the unlocking, in one trip where they share a server, and by itself where there is
    nothing to unlock.
    """

    schedule_id: int
    numbers: Sequence[int]
    owner: str
    held: bool | None = False
    afterwards: list[Call] = field(default_factory=list)
    number: int = 0
    """Rises with every lock of the schedule; 0: nothing is locked."""
    locked_s: float = 0.0

    def key(self, name: str | int) -> str:
        """A key of the schedule's locks; all share a hash tag, so one function may touch them."""
        return seat_lock_key(self.schedule_id, str(name))

    @property
    def mark(self) -> str:
        """The key that remembers that this attempt has held its seats, or may have."""
        return self.key(f"held:{self.owner}")

    @property
    def seats(self) -> list[str]:
        return [self.key(number) for number in self.numbers]

    @property
    def history(self) -> list[str]:
        return [self.key("waits"), self.key("contended")]


@contextmanager
def seat_locks(schedule_id: int, numbers: Sequence[int], owner: str) -> Iterator[SeatLocks]:
    """Hold the locks of these seats for the length of the block.

    ``owner`` names the attempt as ``<person>.<attempt>``, the same for each retry of it: twins of one request must not
    keep each other out, they wait for each other in Postgres and get one answer. Raises SeatTaken, naming the seats,
    when others are busy with them for longer than ``seat_lock_wait_ms_max``; an attempt that may have held its seats is
    never refused here: the process died that asked for it, or its connection was cut, and Postgres knows.
    """
    locks = SeatLocks(schedule_id, numbers, owner)
    try:
        _lock(locks)
    except RedisError:
        count("SeatLocksAway")
    try:
        yield locks
    except BaseException:
        locks.held = None
        raise
    finally:
        with suppress(RedisError):  # the locks expire by themselves, and so does what else Redis is not told
            run_together([_unlocking(locks), *locks.afterwards] if locks.number else locks.afterwards)


def _lock(locks: SeatLocks) -> None:
    """Lock the seats, unless the attempt has held them already. Raises SeatTaken, RedisError."""
    began_s = time.monotonic()
    keys = [locks.key("count"), locks.mark, *locks.seats]
    found = _LOCK(redis("locks"), keys, [locks.owner, settings().seat_lock_ttl_ms])
    if isinstance(found, list):
        found = _wait(locks, keys, _Waits(found), began_s)
    if found > 0:
        locks.number, locks.locked_s = found, time.monotonic()


def _wait(locks: SeatLocks, keys: Sequence[str], waits: "_Waits", began_s: float) -> int:
    """Try again until the locks are there, and answer as lock_seats.lua does then. Raises SeatTaken, RedisError."""
    deadline_s = began_s + settings().seat_lock_wait_ms_max / 1000
    backoff_s = _BACKOFF_FIRST_S
    pause_s = min(random.uniform(0, backoff_s), settings().seat_lock_wait_ms_max / 1000)
    while True:
        time.sleep(pause_s)
        backoff_s = min(backoff_s * 2, _BACKOFF_MAX_S)
        # Full jitter: the losers of one round must not meet again in the next.
        pause_s = random.uniform(0, backoff_s)
        is_last = time.monotonic() + pause_s >= deadline_s
        found = _LOCK(
            redis("locks"),
            [*keys, *locks.history],
            [locks.owner, settings().seat_lock_ttl_ms, int(is_last), _HISTORY_KEPT_MS, *waits.so_far()],
        )
        if not isinstance(found, list):
            _tell_wait(began_s, "got")
            return int(found)
        waits.add(found)
        if is_last:
            _tell_wait(began_s, "refused")
            taken = [locks.numbers[position - 1] for position in waits.busy]
            raise SeatTaken(f"others are buying seats {taken} right now", seats=taken)


class _Waits:
    """What one attempt has waited for, seat by seat, as lock_seats.lua takes and tells it."""

    def __init__(self, found: list[Any]) -> None:
        self.busy: list[int] = []
        """Positions of the seats that others were busy with at the last look."""
        self._looked_s = 0.0
        self._seats: dict[int, _Wait] = {}
        self.add(found)

    def add(self, found: list[Any]) -> None:
        """Take in what a look has found: each busy seat's position, lock, and what is left of that, ms."""
        self._pass(now_s := time.monotonic())
        self.busy = []
        for position, lock, left_ms in zip(found[::3], found[1::3], found[2::3], strict=True):
            wait = self._seats.setdefault(position, _Wait())
            wait.lock, wait.ends_s = lock.decode(), now_s + left_ms / 1000
            self.busy.append(position)

    def so_far(self) -> list[int | str]:
        """What the next look tells the history, should it be the last."""
        self._pass(now_s := time.monotonic())
        told: list[int | str] = []
        for position, wait in self._seats.items():
            has_run_out = position in self.busy and now_s >= wait.ends_s
            told += [position, round(wait.waited_s * 1000), wait.lock, int(has_run_out)]
        return told

    def _pass(self, now_s: float) -> None:
        for position in self.busy:
            self._seats[position].waited_s += now_s - self._looked_s
        self._looked_s = now_s


@dataclass(slots=True)
class _Wait:
    waited_s: float = 0.0
    lock: str = ""
    """As it was last seen; by this process's clock it ends at ``ends_s`` at the latest."""
    ends_s: float = 0.0


def _tell_wait(began_s: float, ended: str) -> None:
    measure("SeatLockWait", (time.monotonic() - began_s) * 1000, MetricUnit.Milliseconds, ended=ended)


def _unlocking(locks: SeatLocks) -> Call:
    keys = [locks.mark, *locks.seats]
    remembered_ms = {True: _REMEMBERED_MS, False: 0, None: _AS_IT_IS}[locks.held]
    args: list[str | int] = [f"{locks.number} {locks.owner}", remembered_ms]
    if time.monotonic() - locks.locked_s >= settings().seat_lock_ttl_ms / 1000:
        # They have run out meanwhile. Who is quicker has nothing to tell the history, and does not name its keys.
        count("SeatLocksExpired")
        keys += locks.history
        args.append(_HISTORY_KEPT_MS)
    return Call("locks", _UNLOCK, keys, args)
