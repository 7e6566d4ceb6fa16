"""Step 4: the schedules of a concert, with seats left from the sales read model."""

from typing import Any

from booking.catalog.concerts import ConcertUnknown
from booking.platform.postgres import read_anywhere
from booking.platform.resources import read_text

CACHE_CONTROL = "public, max-age=2"

_SCHEDULES = read_text(__package__, "sql/schedules.sql")


def list_schedules(concert_id: int) -> dict[str, Any]:
    """``{"concert_id", "schedules": [{"id", "starts_at", "seats_total", "seats_left"}]}``. Raises ConcertUnknown."""
    rows = read_anywhere(_SCHEDULES, concert_id=concert_id)
    if not rows:
        raise ConcertUnknown(f"no concert {concert_id}")
    names = ("id", "starts_at", "seats_total", "seats_left")
    schedules = [dict(zip(names, row, strict=True)) for row in rows if row[0] is not None]
    return {"concert_id": concert_id, "schedules": schedules}
