"""The cached seat maps: one Redis GET a read, and the one place that says "these seats have changed".

A map is kept until a seat of it changes, at most 30 seconds, and never past the moment when one of its holds lapses.
Whoever changes seats says so here (``seats_changed``) when the change is committed and before it is answered: that
deletes the map and moves the schedule's marker, so the next read of anybody sees the change, and a map that was read
before it can no longer be stored.

Nothing that guards a sale depends on this. When Redis is away, or a function dies between a commit and its
``seats_changed``, a map may be old for those 30 seconds: that costs its reader a 409 and never sells a seat twice.
"""

import os
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from redis.exceptions import RedisError

from booking.platform.redis import Call, Script, packed_command, redis, run_together
from booking.platform.redis_keys import seat_map_keys
from booking.platform.resources import read_text
from booking.platform.telemetry import count

_KEPT_MS_MAX = 30_000
# A marker that expires lets nothing in, it only refuses the maps of readers that are slower still. One that a reader
# had to make ends soon: readers may ask for schedules that do not exist.
_MARKER_KEPT_MS = 600_000
_MARKER_MADE_KEPT_MS = 30_000
_READER_LOCK_MS = 1_000
_WAIT_S_MAX = 1.0
_BACKOFF_FIRST_S = 0.010
_BACKOFF_MAX_S = 0.100

_CHANGE = Script(read_text(__package__, "lua/seats_changed.lua"))
_CLAIM = Script(read_text(__package__, "lua/claim_refill.lua"))
_FINISH = Script(read_text(__package__, "lua/finish_refill.lua"))
_HERE, _READ, _WAIT = 1, 2, 3


class SeatMap(NamedTuple):
    """A schedule's map: the concert it belongs to, and the answer's ETag and body (JSON text in UTF-8)."""

    concert_id: int
    etag: str
    body: bytes


class Reading(NamedTuple):
    """A map as the database had it, and for how long it is true if no seat changes (None: for as long as that)."""

    seat_map: SeatMap
    true_for_ms: int | None


@dataclass(frozen=True, slots=True)
class _Refill:
    """What a reader must show to store its map: the schedule's marker, and the cache's clock, before it read."""

    keys: list[str]
    reader: str
    marker: bytes
    now_ms: int


def find_seat_map(schedule_id: int, read: Callable[[int], Reading | None]) -> SeatMap | None:
    """The cached map, or what ``read`` answers, which is then kept; None when that is None. Raises as ``read``.

    One reader at a time fills the cache; the others wait for it a moment and then read by themselves.
    """
    keys = seat_map_keys(schedule_id)
    try:
        kept = redis("cache").execute_packed(keys[0], packed_command("GET", keys[0]))
        if kept is not None:
            return _unpack(kept)
        found = _wait_or_claim(keys)
    except RedisError:
        count("SeatMapCacheAway")
        reading = read(schedule_id)
        return reading.seat_map if reading else None
    return _fill(found, read, schedule_id) if isinstance(found, _Refill) else _unpack(found)


def seats_changed(schedule_ids: Iterable[int]) -> None:
    """Say that seats of these schedules have changed, after the commit. Best effort: never raises for Redis."""
    try:
        run_together([change_of(schedule_id) for schedule_id in schedule_ids])
    except RedisError:
        count("SeatMapCacheAway")


def change_of(schedule_id: int) -> Call:
    """What ``seats_changed`` sends for one schedule, for who has more to send to Redis at that moment."""
    return Call("cache", _CHANGE, seat_map_keys(schedule_id)[:2], [_MARKER_KEPT_MS])


def _wait_or_claim(keys: list[str]) -> bytes | _Refill:
    """The map that somebody else stored meanwhile, or leave to read it. Raises RedisError."""
    reader = os.urandom(8).hex()
    # Whoever waits in vain (the one who reads has died) gives up at a moment of their own, so that they do not all go
    # to Postgres together: the first of them who has read helps the rest.
    deadline_s = time.monotonic() + random.uniform(_WAIT_S_MAX / 2, _WAIT_S_MAX)
    backoff_s = _BACKOFF_FIRST_S
    while True:
        what, *found = _CLAIM(redis("cache"), keys, [reader, _READER_LOCK_MS, _MARKER_MADE_KEPT_MS])
        if what == _HERE:
            kept: bytes = found[0]
            return kept
        marker, now_ms = found
        if what == _READ or time.monotonic() >= deadline_s:
            return _Refill(keys, reader, marker, now_ms)
        # Longer and longer: hundreds who look again every few milliseconds would slow down the one who reads.
        time.sleep(random.uniform(0, backoff_s))
        backoff_s = min(backoff_s * 2, _BACKOFF_MAX_S)


def _fill(refill: _Refill, read: Callable[[int], Reading | None], schedule_id: int) -> SeatMap | None:
    reading: Reading | None = None
    try:
        reading = read(schedule_id)
    finally:
        _finish(refill, reading)
    return reading.seat_map if reading else None


def _finish(refill: _Refill, reading: Reading | None) -> None:
    packed, until_ms = "", 0
    if reading is not None:
        packed = _pack(reading.seat_map)
        # Counted from before the reading, by the cache's own clock: neither a slow reader nor one whose clock is wrong
        # keeps a lapsed hold in sight.
        true_for_ms = _KEPT_MS_MAX if reading.true_for_ms is None else min(_KEPT_MS_MAX, reading.true_for_ms)
        until_ms = refill.now_ms + true_for_ms
    try:
        _FINISH(redis("cache"), refill.keys, [refill.reader, refill.marker.decode(), packed, until_ms])
    except RedisError:
        count("SeatMapCacheAway")


def _pack(seat_map: SeatMap) -> str:
    return f"{seat_map.concert_id} {seat_map.etag} {seat_map.body.decode()}"


def _unpack(kept: bytes) -> SeatMap:
    concert_id, etag, body = kept.split(b" ", 2)
    return SeatMap(int(concert_id), etag.decode(), body)
