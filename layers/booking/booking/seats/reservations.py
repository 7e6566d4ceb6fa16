"""A reservation as its owner sees it. Own reservations are always read from the primary."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from booking.platform.postgres import DatabaseAway, primary, replica
from booking.platform.problems import NotFound, Unavailable
from booking.platform.resources import read_text
from booking.seats.seat_map_cache import seats_may_have_changed

_RESERVATION = read_text(__package__, "sql/reservation.sql")
_SCHEDULE = "select schedule_id from reservation where id = cast(:reservation_id as uuid)"


class ReservationUnknown(NotFound):
    """There is no such reservation of yours."""

    slug = "reservation-unknown"


def show_reservation(reservation_id: str, person: str) -> dict[str, Any]:
    """The reservation with its payment, once issued its ticket, and its story: what became of it, oldest first.

    Raises ReservationUnknown; a stranger's reservation is as unknown as one that does not exist.
    """
    found: dict[str, Any] | None = primary().document(_RESERVATION, reservation_id=reservation_id, person=person)
    if found is None:
        raise ReservationUnknown(f"no reservation {reservation_id}")
    return found


@contextmanager
def reservation_unknown_if_away(reservation_id: str) -> Iterator[None]:
    """Where the block ends with DatabaseAway, say that the reservation's seats may have changed: the statement may have
    been committed. Which schedule that is, the replica knows; while it is away as well, nobody is told."""
    try:
        yield
    except DatabaseAway:
        with suppress(Unavailable):
            schedule_id = replica().value(_SCHEDULE, reservation_id=reservation_id)
            if schedule_id is not None:
                seats_may_have_changed(schedule_id)
        raise
