"""Step 4: the schedules of a concert, with seats left from the sales read model.

Both are cached and come with one Redis command. The list of schedules is kept until midnight of the venue; how many
seats are left, for two seconds: what changes all the time is read by one reader in two seconds, however many ask. The
consumer of the events could write the numbers to the cache with each sale instead, but what two consumers have counted
may arrive in another order than they counted it, and what is lost would stay wrong until midnight.

A list that differs from the schedules that have numbers is read again, so a new schedule is shown at once; a new time
of an old one after midnight, or when somebody forgets what is cached (``forget_schedules``).
"""

import os
from collections.abc import Iterable
from typing import NamedTuple

from redis.exceptions import RedisError

from booking.catalog.concerts import ConcertUnknown
from booking.platform.postgres import read_anywhere
from booking.platform.redis import Script, packed_command, redis
from booking.platform.redis_keys import schedules_keys
from booking.platform.resources import read_text
from booking.platform.single_flight import READ, look_in_turn
from booking.platform.telemetry import count

SEATS_LEFT_KEPT_MS = 2_000
CACHE_CONTROL = f"public, max-age={SEATS_LEFT_KEPT_MS // 1000}"
_READER_LOCK_MS = 3_000

_SCHEDULES = read_text(__package__, "sql/schedules.sql")
_SEATS_LEFT = read_text(__package__, "sql/seats_left.sql")
_CLAIM = Script(read_text(__package__, "lua/claim_schedules.lua"))
_KEEP = Script(read_text(__package__, "lua/keep_schedules.lua"))


class Listed(NamedTuple):
    """Something about a concert's schedules, and their ids (with commas) in the order in which it lists them.

    ``text`` is the answer with %s for each number, or those numbers with commas.
    """

    ids: str
    text: str

    def packed(self) -> str:
        """As it is cached."""
        return f"{self.ids} {self.text}"


class Reading(NamedTuple):
    """What a database server had."""

    answer: str
    seats_left: Listed
    schedules: Listed | None = None
    """Where they were read as well."""
    true_for_ms: int = 0
    """For how long the schedules are."""


class _Claim(NamedTuple):
    keys: list[str]
    reader: str
    schedules: Listed | None
    """Where only their seats left are missing."""


def list_schedules(concert_id: int) -> str:
    """As JSON: concert_id, schedules: [{id, starts_at, seats_total, seats_left}]. Raises ConcertUnknown."""
    keys = schedules_keys(concert_id)
    try:
        kept = redis("cache").execute_packed(keys[0], packed_command("MGET", *keys[:2]))
        if found := _answer(_unpacked(kept[0]), _unpacked(kept[1])):
            return found
        claimed = _wait_or_claim(keys)
    except RedisError:
        count("SchedulesCacheAway")
        return read_schedules(concert_id).answer
    return claimed if isinstance(claimed, str) else _fill(claimed, concert_id)


def forget_schedules(concert_ids: Iterable[int]) -> None:
    """Forget what is cached of these concerts' schedules: something else than their seats left has changed.

    Raises RedisError.
    """
    for concert_id in concert_ids:
        redis("cache").delete(*schedules_keys(concert_id))


def _wait_or_claim(keys: list[str]) -> str | _Claim:
    """What somebody else has stored meanwhile, or leave to read. Raises RedisError."""
    reader = os.urandom(8).hex()
    what, *found = look_in_turn(lambda late: _CLAIM(redis("cache"), keys, [reader, _READER_LOCK_MS, late]))
    schedules = _unpacked(found[0])
    if what == READ:
        return _Claim(keys, reader, schedules)
    return _answer(schedules, _unpacked(found[1])) or _Claim(keys, reader, None)


def _fill(claim: _Claim, concert_id: int) -> str:
    reading: Reading | None = None
    try:
        reading = (claim.schedules and read_seats_left(concert_id, claim.schedules)) or read_schedules(concert_id)
        return reading.answer
    finally:
        _keep(claim, reading)


def _keep(claim: _Claim, reading: Reading | None) -> None:
    stored: list[str | int] = ["", 0, "", 0]
    if reading:
        listed = reading.schedules.packed() if reading.schedules else ""
        stored = [listed, reading.true_for_ms, reading.seats_left.packed(), SEATS_LEFT_KEPT_MS]
    try:
        _KEEP(redis("cache"), claim.keys, [claim.reader, *stored])
    except RedisError:
        count("SchedulesCacheAway")


def read_schedules(concert_id: int) -> Reading:
    """All of it. Raises ConcertUnknown."""
    rows = read_anywhere(_SCHEDULES, concert_id=concert_id)
    if not rows:
        raise ConcertUnknown(f"no concert {concert_id}")
    ids, text, true_for_ms, numbers = rows[0]
    schedules, seats_left = Listed(ids, text), Listed(ids, numbers)
    answer = _answer(schedules, seats_left)
    assert answer is not None, "one statement has read both"
    return Reading(answer, seats_left, schedules, true_for_ms)


def read_seats_left(concert_id: int, schedules: Listed) -> Reading | None:
    """The seats left of these schedules; None when there are others by now."""
    [[ids, numbers]] = read_anywhere(_SEATS_LEFT, concert_id=concert_id)
    seats_left = Listed(ids, numbers)
    answer = _answer(schedules, seats_left)
    return None if answer is None else Reading(answer, seats_left)


def _unpacked(kept: bytes | None) -> Listed | None:
    return None if kept is None else Listed(*kept.decode().split(" ", 1))


def _answer(schedules: Listed | None, seats_left: Listed | None) -> str | None:
    """Step 4's answer, None where one is missing or they are of different schedules."""
    if schedules is None or seats_left is None or schedules.ids != seats_left.ids:
        return None
    return schedules.text % tuple(seats_left.text.split(",")) if schedules.ids else schedules.text
