"""A reservation as its owner sees it. Own reservations are always read from the primary."""

from typing import Any

from booking.platform.postgres import primary
from booking.platform.problems import NotFound
from booking.platform.resources import read_text

_RESERVATION = read_text(__package__, "sql/reservation.sql")


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
