"""Seats: the map of a schedule, and holds. Postgres decides who has a seat; the Redis locks only shed load."""

from booking.seats.holds import hold_seats, release_hold, sweep
from booking.seats.reservations import ReservationUnknown, show_reservation
from booking.seats.seat_map import show_seat_map

__all__ = ["ReservationUnknown", "hold_seats", "release_hold", "show_reservation", "show_seat_map", "sweep"]
