"""Step 4: the schedules of a concert, with seats left from the sales read model.

Both are cached and come with one Redis command. The list of schedules is kept until midnight of the venue; how many
seats are left, for two seconds: what changes all the time is read by one reader in two seconds, however many ask. The
consumer of the events could write the numbers to the cache with each sale instead, but what two consumers have counted
may arrive in another order than they counted it, and what is lost would stay wrong until midnight.

A list that differs from the schedules that have numbers is read again, so a new schedule is shown at once; a new time
of an old one after midnight, or when an operator has the cache forgotten (scripts/reads). The list is read from the
primary: what a replica lacks at that moment would be missing until midnight. The numbers are the replica's.
"""

import os
from typing import NamedTuple

from redis.exceptions import RedisError

from booking.catalog.concerts import ConcertUnknown
from booking.platform.postgres import DatabaseAway, DatabaseBusy, Row, primary, read_anywhere, replica
from booking.platform.redis import Call, Script, packed_command, redis
from booking.platform.redis_keys import schedules_keys
from booking.platform.resources import read_text
from booking.platform.single_flight import READ, look_in_turn
from booking.platform.telemetry import count

SEATS_LEFT_KEPT_MS = 2_000
CACHE_CONTROL = f"public, max-age={SEATS_LEFT_KEPT_MS // 1000}"
_READER_LOCK_MS = 3_000
_SWITCH_KEPT_MS = 600_000

_SCHEDULES = read_text(__package__, "sql/schedules.sql")
_SEATS_LEFT = read_text(__package__, "sql/seats_left.sql")
_CLAIM = Script(read_text(__package__, "lua/claim_schedules.lua"))
_KEEP = Script(read_text(__package__, "lua/keep_schedules.lua"))
_SWITCH = Script(read_text(__package__, "lua/switch_schedules.lua"))
_PAST_CACHE = "-"
"""In place of the schedules: they are to be read from the database."""


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
    past_cache: bool = False
    """Whether operators want this to be read from the database."""


class _Claim(NamedTuple):
    keys: list[str]
    reader: str
    """The name under which to store: of the one who has the lock."""
    schedules: Listed | None
    """Where only their seats left are missing."""


def list_schedules(concert_id: int) -> str:
    """As JSON: concert_id, schedules: [{id, starts_at, seats_total, seats_left}]. Raises ConcertUnknown."""
    keys = schedules_keys(concert_id)
    try:
        kept = redis("cache").execute_packed(keys[0], packed_command("MGET", *keys[:2]))
        found = _found(*kept) or _wait_or_claim(keys)
    except RedisError:
        count("SchedulesCacheAway")
        return _answer_past_cache(concert_id)
    if isinstance(found, _Claim):
        return _fill(found, concert_id)
    return _answer_past_cache(concert_id) if found == _PAST_CACHE else found


def call_of_switch(concert_id: int, *, past_cache: bool) -> Call:
    """What sends the readers of a concert's schedules to the database, or back to the cache."""
    return Call("cache", _SWITCH, schedules_keys(concert_id), [int(past_cache), _SWITCH_KEPT_MS])


def reads_past_cache(concert_id: int) -> bool:
    """Whether who reads the concert's schedules goes to the database. Raises RedisError."""
    return bool(redis("cache").getrange(schedules_keys(concert_id)[0], 0, 0) == _PAST_CACHE.encode())


def _found(schedules: bytes | None, seats_left: bytes | None) -> str | None:
    """The answer if all of it is cached, or _PAST_CACHE."""
    if schedules == _PAST_CACHE.encode():
        return _PAST_CACHE
    return _answer(_unpacked(schedules), _unpacked(seats_left))


def _wait_or_claim(keys: list[str]) -> str | _Claim:
    """What somebody else has stored meanwhile, _PAST_CACHE, or leave to read. Raises RedisError."""
    reader = os.urandom(8).hex()
    what, *kept = look_in_turn(lambda late: _CLAIM(redis("cache"), keys, [reader, _READER_LOCK_MS, late]))
    if what == READ:
        return _Claim(keys, kept[0].decode(), _unpacked(kept[1]))
    return _found(kept[0], kept[1] if len(kept) > 1 else None) or _Claim(keys, reader, None)


def _fill(claim: _Claim, concert_id: int) -> str:
    reading: Reading | None = None
    try:
        reading = (claim.schedules and read_seats_left(concert_id, claim.schedules)) or read_schedules(concert_id)
        return reading.answer
    finally:
        _keep(claim, reading)


def _keep(claim: _Claim, reading: Reading | None) -> None:
    stored: list[str | int] = ["", 0, "", 0]
    if reading and reading.past_cache:
        stored = [_PAST_CACHE, _SWITCH_KEPT_MS, "", 0]
    elif reading:
        listed = reading.schedules.packed() if reading.schedules else ""
        stored = [listed, reading.true_for_ms, reading.seats_left.packed(), SEATS_LEFT_KEPT_MS]
    try:
        _KEEP(redis("cache"), claim.keys, [claim.reader, *stored])
    except RedisError:
        count("SchedulesCacheAway")


def read_schedules(concert_id: int) -> Reading:
    """All of it, from the primary; while that is away from the replica, to be kept no longer than the seats left.

    Raises ConcertUnknown.
    """
    try:
        return _reading(primary().rows(_SCHEDULES, concert_id=concert_id), concert_id)
    except (DatabaseAway, DatabaseBusy):
        return _reading(replica().rows(_SCHEDULES, concert_id=concert_id), concert_id)._replace(
            true_for_ms=SEATS_LEFT_KEPT_MS
        )


def _answer_past_cache(concert_id: int) -> str:
    return _reading(read_anywhere(_SCHEDULES, concert_id=concert_id), concert_id).answer


def _reading(rows: list[Row], concert_id: int) -> Reading:
    if not rows:
        raise ConcertUnknown(f"no concert {concert_id}")
    ids, text, true_for_ms, numbers, source = rows[0]
    schedules, seats_left = Listed(ids, text), Listed(ids, numbers)
    answer = _answer(schedules, seats_left)
    assert answer is not None, "one statement has read both"
    return Reading(answer, seats_left, schedules, true_for_ms, source == "database")


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
