"""Step 4: the schedules of a concert, with seats left from the sales read model."""

from booking.catalog.concerts import ConcertUnknown
from booking.platform.postgres import read_anywhere
from booking.platform.resources import read_text

CACHE_CONTROL = "public, max-age=2"

_SCHEDULES = read_text(__package__, "sql/schedules.sql")


def list_schedules(concert_id: int) -> str:
    """As JSON: concert_id, schedules: [{id, starts_at, seats_total, seats_left}]. Raises ConcertUnknown."""
    rows = read_anywhere(_SCHEDULES, concert_id=concert_id)
    if not rows:
        raise ConcertUnknown(f"no concert {concert_id}")
    return str(rows[0][0])
