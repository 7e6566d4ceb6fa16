"""Step 5: the seat map of one schedule, as Postgres builds it: one JSON text, kept in the cache until a seat changes.

Where the cache has nothing, the replica is asked; it answers if it has replayed every change of the schedule's seats
that anybody was told of. Else the primary answers: a map that lacks the hold which its reader has just made is worse
than one that costs a trip more. While there is no primary nothing changes, and a map that may lack the last changes is
better than none: then the replica answers as it is, and the map is not kept.
"""

from booking.platform.etags import etag_of
from booking.platform.postgres import DatabaseAway, DatabaseBusy, Queries, Row, primary, replica
from booking.platform.resources import read_text
from booking.platform.telemetry import count
from booking.seats.problems import PassOfAnotherConcert, ScheduleUnknown
from booking.seats.seat_map_cache import NOTHING_MARKED, Marked, Reading, SeatMap, Truth, find_seat_map

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


def read_seat_map(schedule_id: int, marked: Marked | None) -> Reading | None:
    """The map as the replica has it if it has replayed what is ``marked``, else as the primary has it now; None when
    there is no such schedule. Raises DatabaseAway.
    """
    if marked is not None and (reading := _ask_replica(schedule_id, marked)):
        return reading
    try:
        row = _ask(primary(), schedule_id, NOTHING_MARKED, all_versions=True)
    except DatabaseAway:
        count("SeatMapPrimaryAway")
        row = _ask(replica(), schedule_id, NOTHING_MARKED, all_versions=False)
        if row is None:  # or it does not know it yet
            raise
        return _reading(row, of_primary=False)._replace(true_for_ms=0)
    return None if row is None else _reading(row, of_primary=True)


def _ask_replica(schedule_id: int, marked: Marked) -> Reading | None:
    try:
        row = _ask(replica(), schedule_id, marked, all_versions=False)
    except (DatabaseAway, DatabaseBusy):
        count("SeatMapReplicaAway")
        return None
    if row is None or not row[3]:
        count("SeatMapReplicaBehind")
        return None
    return _reading(row, of_primary=False)


def _ask(server: Queries, schedule_id: int, marked: Marked, *, all_versions: bool) -> Row | None:
    rows = server.rows(
        _SEAT_MAP,
        schedule_id=schedule_id,
        numbers=marked.numbers,
        versions=marked.versions,
        all_versions=all_versions,
    )
    return rows[0] if rows else None


def _reading(row: Row, *, of_primary: bool) -> Reading:
    concert_id, body, true_for_ms, _, versions, source = row
    seat_map = SeatMap(concert_id, etag_of(body), body.encode())
    return Reading(seat_map, true_for_ms, Truth(versions, source == "database") if of_primary else None)
