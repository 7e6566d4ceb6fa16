"""Step 5: the seat map of one schedule, as Postgres builds it: one JSON text, kept in the cache until a seat changes.

The primary answers where the cache has nothing. The replica may be behind, and a map that lacks the hold which its
reader has just made is worse than one that costs a trip. While there is no primary nothing changes, and a map that may
lack the last changes is better than none: then the replica answers, and the map is not kept.
"""

from booking.platform.etags import etag_of
from booking.platform.postgres import DatabaseAway, Server, primary, replica
from booking.platform.resources import read_text
from booking.seats.problems import PassOfAnotherConcert, ScheduleUnknown
from booking.seats.seat_map_cache import Reading, SeatMap, find_seat_map

_SEAT_MAP = read_text(__package__, "sql/seat_map.sql")


def show_seat_map(schedule_id: int, concert_id: int) -> SeatMap:
    """The map with its ETag, for somebody with a pass of ``concert_id``.

    Raises ScheduleUnknown, and PassOfAnotherConcert when the schedule is not one of that concert.
    """
    seat_map = find_seat_map(schedule_id, read_seat_map)
    if seat_map is None:
        raise ScheduleUnknown(f"no schedule {schedule_id}")
    if seat_map.concert_id != concert_id:
        raise PassOfAnotherConcert(f"schedule {schedule_id} is of concert {seat_map.concert_id}")
    return seat_map


def read_seat_map(schedule_id: int) -> Reading | None:
    """The map as the primary has it now, None when there is no such schedule. Raises DatabaseAway."""
    try:
        return _read_from(primary(), schedule_id)
    except DatabaseAway:
        reading = _read_from(replica(), schedule_id)
        if reading is None:  # or the replica does not know it yet
            raise
        return reading._replace(true_for_ms=0)


def _read_from(server: Server, schedule_id: int) -> Reading | None:
    rows = server.rows(_SEAT_MAP, schedule_id=schedule_id)
    if not rows:
        return None
    concert_id, body, true_for_ms = rows[0]
    return Reading(SeatMap(concert_id, etag_of(body), body.encode()), true_for_ms)
