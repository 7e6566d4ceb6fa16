"""The cached seat maps: one Redis GET a read, and the one place that says "these seats have changed".

A map is kept until a seat of it changes, at most 30 seconds, and never past the moment when one of its holds lapses.
Whoever changes seats says so here (``seats_changed``) when the change is committed and before it is answered: that
takes the map away and raises the schedule's marker to the seats' new versions. So the next read of anybody sees the
change: a map that was read before it is none for who comes now, and a replica answers only when it has those versions.
Where there is no whole marker the primary answers, and with what it has the marker is written whole. A map that changes
have overtaken still goes to who had come before its reader began.

Nothing that guards a sale depends on this. When Redis is away, or a function dies between a commit and its
``seats_changed``, a map may be old until it ends or the consumer of the events has said it once more: that costs its
reader a 409 and never sells a seat twice.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from redis.exceptions import RedisError

from booking.platform.redis import Call, Script, packed_command, redis, run_together
from booking.platform.redis_keys import seat_map_keys
from booking.platform.resources import read_text
from booking.platform.single_flight import HERE, WAIT, look_in_turn
from booking.platform.telemetry import count

_KEPT_MS_MAX = 30_000
# A marker that expires lets nothing in: the primary answers. One that a reader had to make ends soon unless the primary
# makes it whole: readers may ask for schedules that do not exist.
MARKER_KEPT_S = 600
_MARKER_KEPT_MS = MARKER_KEPT_S * 1000
_MARKER_MADE_KEPT_MS = 30_000
_READER_LOCK_MS = 1_000

_MARKER = read_text(__package__, "lua/marker.lua")
_CHANGE = Script(_MARKER + read_text(__package__, "lua/seats_changed.lua"))
_CLAIM = Script(_MARKER + read_text(__package__, "lua/claim_refill.lua"))
_SWITCH = Script(_MARKER + read_text(__package__, "lua/switch_map.lua"))
_FINISH = Script(_MARKER + read_text(__package__, "lua/finish_refill.lua"))

Change = Mapping[str, Any]
"""What the SQL functions that change seats hand back: ``{"schedule_id": 701, "versions": {"1": 5}}``."""


class SeatMap(NamedTuple):
    """A schedule's map: the concert it belongs to, and the answer's ETag and body (JSON text in UTF-8)."""

    concert_id: int
    etag: str
    body: bytes


class Marked(NamedTuple):
    """Which versions of which seats a server must have to answer, as Postgres writes arrays: ``{1,2}``, ``{5,3}``."""

    numbers: str
    versions: str


NOTHING_MARKED = Marked("{}", "{}")


class Truth(NamedTuple):
    """What the primary knows beside the map, and a replica may not know yet."""

    versions: str
    """Number and version of each seat that was ever changed, all separated by blanks."""
    past_cache: bool
    """Whether operators want the map to be read from the database."""


class Reading(NamedTuple):
    """A map as a database server had it."""

    seat_map: SeatMap
    true_for_ms: int | None
    """For how long it is true if no seat changes; None: for as long as that."""
    truth: Truth | None
    """Where the primary has answered."""


Read = Callable[[int, Marked | None], Reading | None]
"""Reads a schedule's map, None when there is no such schedule. A replica may answer if it has what is marked; with None
for that, only the primary."""


@dataclass(frozen=True, slots=True)
class _Refill:
    """What a reader must show to store its map: the schedule's marker, and the cache's clock, before it read."""

    keys: list[str]
    reader: str
    made: bytes
    moved: bytes
    now_ms: int
    marked: Marked | None
    past_cache: bool
    """Whether the map is not to be kept: operators have sent its readers to the database."""


def find_seat_map(schedule_id: int, read: Read) -> SeatMap | None:
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
        reading = read(schedule_id, None)
        return reading.seat_map if reading else None
    return _fill(found, read, schedule_id) if isinstance(found, _Refill) else _unpack(found)


def seats_changed(*changes: Change | None, said_before: bool = False) -> None:
    """Say that seats have changed (None: that one has not), after the commit. Best effort: never raises for Redis.

    ``said_before``: whoever made the change has said so, unless it died; then the map stays if it has all this.
    """
    by_schedule: dict[int, dict[str, int]] = {}
    for change in changes:
        if change is not None:
            versions = by_schedule.setdefault(change["schedule_id"], {})
            for number, version in change["versions"].items():
                versions[number] = max(version, versions.get(number, 0))
    try:
        run_together([_told(each, versions, said_before) for each, versions in by_schedule.items() if versions])
    except RedisError:
        count("SeatMapCacheAway")


def seats_may_have_changed(schedule_id: int) -> None:
    """Say that seats of a schedule may have changed and nobody knows which: the primary answers next. Never raises."""
    try:
        run_together([call_of_unknown_change(schedule_id)])
    except RedisError:
        count("SeatMapCacheAway")


def call_of(change: Change) -> Call:
    """What ``seats_changed`` sends for one change, for who has more to send to Redis at that moment."""
    return _told(change["schedule_id"], change["versions"])


def call_of_unknown_change(schedule_id: int) -> Call:
    """What ``seats_may_have_changed`` sends."""
    return _told(schedule_id, {})


def call_of_switch(schedule_id: int, *, past_cache: bool) -> Call:
    """What sends the readers of a schedule's map to the database, or back to the cache."""
    return Call("cache", _SWITCH, seat_map_keys(schedule_id)[:3], [int(past_cache), _MARKER_KEPT_MS])


def maps_past_cache(schedule_ids: Sequence[int]) -> int:
    """The readers of how many of these schedules' maps go to the database. Raises RedisError."""
    markers = [seat_map_keys(schedule_id)[1] for schedule_id in schedule_ids]
    asked = [(marker, packed_command("HEXISTS", marker, "uncached")) for marker in markers]
    replies = redis("cache").execute_together(asked) if asked else []
    for reply in replies:
        if isinstance(reply, RedisError):
            raise reply
    return sum(replies)


def _told(schedule_id: int, versions: Mapping[str, int], said_before: bool = False) -> Call:
    seats = [word for seat in versions.items() for word in seat]
    return Call("cache", _CHANGE, seat_map_keys(schedule_id)[:3], [_MARKER_KEPT_MS, int(said_before), *seats])


def _wait_or_claim(keys: list[str]) -> bytes | _Refill:
    """The map that somebody else stored meanwhile, or leave to read it. Raises RedisError."""
    reader = os.urandom(8).hex()
    limits = [_READER_LOCK_MS, _MARKER_MADE_KEPT_MS]
    came_at = ["", ""]
    """The marker at the first look: a map that somebody began to read later has all that this reader must see."""

    def look(late: int) -> list[Any]:
        nonlocal came_at
        reply: list[Any] = _CLAIM(redis("cache"), keys, [reader, *limits, late, *came_at])
        if reply[0] == WAIT and not came_at[0]:
            came_at = [word.decode() for word in reply[1:]]
        return reply

    what, *found = look_in_turn(look)
    if what == HERE:
        kept: bytes = found[0]
        return kept
    made, moved, now_ms, numbers, versions, past_cache = found
    marked = Marked(numbers.decode(), versions.decode()) if numbers else None
    return _Refill(keys, reader, made, moved, now_ms, marked, bool(past_cache))


def _fill(refill: _Refill, read: Read, schedule_id: int) -> SeatMap | None:
    reading: Reading | None = None
    try:
        reading = read(schedule_id, refill.marked)
    finally:
        _finish(refill, reading)
    return reading.seat_map if reading else None


def _finish(refill: _Refill, reading: Reading | None) -> None:
    truth = reading.truth if reading else None
    if refill.past_cache and truth is None:
        return  # it has no lock to give back
    packed, until_ms = "", 0
    if reading and reading.true_for_ms != 0 and not (refill.past_cache or (truth and truth.past_cache)):
        packed = _pack(reading.seat_map, refill)
        # Counted from before the reading, by the cache's own clock: neither a slow reader nor one whose clock is wrong
        # keeps a lapsed hold in sight.
        true_for_ms = _KEPT_MS_MAX if reading.true_for_ms is None else min(_KEPT_MS_MAX, reading.true_for_ms)
        until_ms = refill.now_ms + true_for_ms
    before = [refill.reader, refill.made.decode(), refill.moved.decode()]
    told = [int(truth is not None), int(truth is not None and truth.past_cache)]
    seats = truth.versions.split() if truth else []
    try:
        _FINISH(redis("cache"), refill.keys, [*before, packed, until_ms, _MARKER_KEPT_MS, *told, *seats])
    except RedisError:
        count("SeatMapCacheAway")


def _pack(seat_map: SeatMap, refill: _Refill) -> str:
    before = f"{refill.made.decode()} {refill.moved.decode()}"
    return f"{before} {seat_map.concert_id} {seat_map.etag} {seat_map.body.decode()}"


def _unpack(kept: bytes) -> SeatMap:
    _made, _moved, concert_id, etag, body = kept.split(b" ", 4)
    return SeatMap(int(concert_id), etag.decode(), body)
