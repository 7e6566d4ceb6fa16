"""Seats: the map of a schedule, and holds. Postgres decides who has a seat; the Redis locks only shed load."""

from booking.seats.holds import SEATS_PER_REQUEST_MAX, hold_best_seats, hold_seats, release_hold, sweep
from booking.seats.reservations import ReservationUnknown, reservation_unknown_if_away, show_reservation
from booking.seats.seat_map import show_seat_map
from booking.seats.seat_map_cache import SeatMap, seats_changed

__all__ = [
    "SEATS_PER_REQUEST_MAX",
    "ReservationUnknown",
    "SeatMap",
    "hold_best_seats",
    "hold_seats",
    "release_hold",
    "reservation_unknown_if_away",
    "seats_changed",
    "show_reservation",
    "show_seat_map",
    "sweep",
]
