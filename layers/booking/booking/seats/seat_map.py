"""Step 5: the seat map of one schedule, as Postgres builds it: one JSON text.

The primary answers. The replica may be behind, and a map that lacks the hold which its reader has just made is worse
than one that costs a trip; the rule by which a replica may answer is part of the cache that comes with it.
"""

from booking.platform.postgres import primary
from booking.platform.resources import read_text
from booking.seats.problems import PassOfAnotherConcert, ScheduleUnknown

_SEAT_MAP = read_text(__package__, "sql/seat_map.sql")


def show_seat_map(schedule_id: int, concert_id: int) -> str:
    """The map as the JSON text of the answer, for somebody with a pass of ``concert_id``.

    Raises ScheduleUnknown, and PassOfAnotherConcert when the schedule is not one of that concert.
    """
    rows = primary().rows(_SEAT_MAP, schedule_id=schedule_id)
    if not rows:
        raise ScheduleUnknown(f"no schedule {schedule_id}")
    found_concert_id, seat_map = rows[0]
    if found_concert_id != concert_id:
        raise PassOfAnotherConcert(f"schedule {schedule_id} is of concert {found_concert_id}")
    return str(seat_map)
