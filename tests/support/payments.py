"""Payments whose moment has come, as it does a few seconds or minutes later."""

from booking.platform.postgres import primary


def due_now(reservation: dict[str, object]) -> None:
    """Let the next check of the reservation's payment be due, as it is a few seconds later."""
    primary().rows(
        "update payment set next_check_at = clock_timestamp() where reservation_id = cast(:id as uuid)",
        id=reservation["reservation_id"],
    )


def past_deadline(reservation: dict[str, object]) -> None:
    """Let the payment's own deadline have passed, and its next check be due."""
    primary().rows(
        "update payment set deadline_at = clock_timestamp(), next_check_at = clock_timestamp()"
        " where reservation_id = cast(:id as uuid)",
        id=reservation["reservation_id"],
    )
