"""The lock history, for operators: who holds which seats' locks, which seats are fought over, who waited how long.

Read from the servers of the locks by walking over their keys, so nobody pays for it but who looks. What is here is gone
24 hours after a schedule's last wait, or with Redis; the metric ``SeatLockWait`` (ms, with ``ended`` got or refused)
stays.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import batched
from typing import Any

from redis.exceptions import RedisError

from booking.platform.redis import packed_command, redis
from booking.platform.redis_keys import seat_lock_key, seat_lock_names

_COMMANDS_PER_TRIP = 50


@dataclass(frozen=True, slots=True, order=True)
class HeldLock:
    """A seat that somebody is buying at this moment. ``number`` rises with every lock of the schedule."""

    schedule_id: int
    seat: int
    number: int
    person: str
    """The hash that stands for a ``user_id`` everywhere."""
    attempt: str
    left_ms: int


@dataclass(frozen=True, slots=True)
class Contention:
    """What a seat was waited for: how often, how often in vain, how long in all, and at most; and how many of its locks
    ran out under their owners (too slow, or dead)."""

    schedule_id: int
    seat: int
    waits: int
    refused: int
    waited_ms: int
    waited_ms_max: int
    expired: int

    @property
    def waited_ms_mean(self) -> float:
        return self.waited_ms / self.waits if self.waits else 0.0


@dataclass(frozen=True, slots=True)
class EndedWait:
    """One wait for a seat that has ended: ``got``, or ``refused``. Or, with nobody waiting, a lock that ``expired``."""

    at: str
    schedule_id: int
    seat: int
    ended: str
    waited_ms: int
    person: str | None
    attempt: str | None
    """Who waited; None for a lock that expired."""
    holder_person: str
    holder_attempt: str
    holder_number: int
    """The lock that was waited for when it was last seen, or that expired."""


@dataclass(frozen=True, slots=True)
class LockHistory:
    """``held`` by schedule and seat, ``contended`` most waits first, ``waits`` newest first."""

    held: list[HeldLock]
    contended: list[Contention]
    waits: list[EndedWait]


def read_lock_history(schedule_id: int | None = None, waits_max: int = 100) -> LockHistory:
    """The locks and their history, of one schedule or of all, with its newest waits. Raises RedisError."""
    keys = redis("locks").keys_like(seat_lock_key(schedule_id, "*") if schedule_id else "seatlocks:*")
    seats, contended, waits = [], [], []
    for key in keys:
        name = seat_lock_names(key)[1]
        if name.isdecimal():
            seats.append(key)
        elif name == "contended":
            contended.append(key)
        elif name == "waits":
            waits.append(key)
    return LockHistory(
        held=sorted(_held(seats)),
        contended=sorted(_contended(contended), key=lambda each: (-each.waits, -each.waited_ms, each.schedule_id)),
        waits=sorted(_ended(waits, waits_max), key=lambda each: each.at, reverse=True)[:waits_max],
    )


def _held(keys: Sequence[str]) -> Iterator[HeldLock]:
    locks = _ask([("GET", key) for key in keys])
    lefts_ms = _ask([("PTTL", key) for key in keys])
    for key, lock, left_ms in zip(keys, locks, lefts_ms, strict=True):
        if lock is not None and left_ms > 0:
            schedule_id, seat = seat_lock_names(key)
            yield HeldLock(schedule_id, int(seat), *_parts(lock), left_ms)


def _contended(keys: Sequence[str]) -> Iterator[Contention]:
    for key, found in zip(keys, _ask([("HGETALL", key) for key in keys]), strict=True):
        for seat, counts in _pairs(found).items():
            yield Contention(seat_lock_names(key)[0], int(seat), *map(int, counts.split()[:5]))


def _ended(keys: Sequence[str], waits_max: int) -> Iterator[EndedWait]:
    newest = _ask([("XREVRANGE", key, "+", "-", "COUNT", str(waits_max)) for key in keys])
    for key, entries in zip(keys, newest, strict=True):
        for entry_id, fields in entries:
            entry = _pairs(fields)
            at = datetime.fromtimestamp(int(entry_id.split(b"-")[0]) / 1000, UTC)
            person, _, attempt = entry["waiter"].partition(".")
            number, holder_person, holder_attempt = _parts(entry["lock"].encode())
            yield EndedWait(
                at=at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                schedule_id=seat_lock_names(key)[0],
                seat=int(entry["seat"]),
                ended=entry["ended"],
                waited_ms=int(entry["waited_ms"]),
                person=person or None,
                attempt=attempt or None,
                holder_person=holder_person,
                holder_attempt=holder_attempt,
                holder_number=number,
            )


def _parts(lock: bytes) -> tuple[int, str, str]:
    """Number, person and attempt of a lock (``<number> <person>.<attempt>``)."""
    number, _, owner = lock.decode().partition(" ")
    person, _, attempt = owner.partition(".")
    return int(number), person, attempt


def _pairs(found: Iterable[bytes] | Mapping[bytes, bytes]) -> dict[str, str]:
    """A hash is a map in RESP3, the default; in RESP2 it is a list, as the fields of a stream always are."""
    if isinstance(found, Mapping):
        return {name.decode(): value.decode() for name, value in found.items()}
    words = [word.decode() for word in found]
    return dict(zip(words[::2], words[1::2], strict=True))


def _ask(commands: Sequence[tuple[str, ...]]) -> Iterator[Any]:
    """The replies, in some trips. Raises RedisError."""
    for batch in batched(commands, _COMMANDS_PER_TRIP, strict=False):
        for reply in redis("locks").execute_together([(words[1], packed_command(*words)) for words in batch]):
            if isinstance(reply, RedisError):
                raise reply
            yield reply
