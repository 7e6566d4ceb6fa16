"""Give a reservation back, whatever state it is in: a hold, one with a payment under way, or a confirmed one."""

from typing import Any

from booking.payment.problems import RefundDeadlinePassed
from booking.payment.settlement import OpenPayment, cancel_at_gateway, finish_refund, read_open_payment
from booking.platform.postgres import primary
from booking.platform.resources import read_text
from booking.platform.telemetry import correlation_id
from booking.seats import release_hold, reservation_unknown_if_away, seats_changed, show_reservation
from booking.seats.problems import PaymentUnderWay

_OPEN_PAYMENT = read_text(__package__, "sql/open_payment.sql")
_REFUND = "select refund_reservation(:person, cast(:reservation_id as uuid), :correlation_id)::text"


def cancel_reservation(reservation_id: str, person: str) -> dict[str, Any]:
    """Give the seats back and return the reservation as it then is. Safe to call again.

    A payment under way is first cancelled at its gateway by key; a confirmed reservation is refunded. Raises
    ReservationUnknown (also for a stranger's), RefundDeadlinePassed, and PaymentUnderWay when the gateway does not
    answer now: the cancellation is recorded then and the settling job carries it out; also when another payment has
    begun meanwhile, which is not cancelled (``options`` say so).
    """
    status = release_hold(reservation_id, person)
    if status == "paying":
        _cancel_payment(reservation_id)
        status = release_hold(reservation_id, person)
    if status == "paying":
        # The firm had declined in that very moment, and another device of theirs has begun to pay anew.
        raise PaymentUnderWay(
            "another payment has begun meanwhile; cancel once more", retry_after_s=1, options=["wait", "cancel"]
        )
    if status == "confirmed":
        _refund(reservation_id, person)
    return show_reservation(reservation_id, person)


def _cancel_payment(reservation_id: str) -> None:
    payment = _open_payment(reservation_id)
    if payment is None or payment.status != "pending":
        return  # settled in this very moment: the caller looks again
    if not cancel_at_gateway(payment, give_up=True, glance=True):
        raise PaymentUnderWay(
            "the payment firm does not answer; the cancellation is recorded and will be carried out",
            retry_after_s=2,
            options=["wait"],
        )


def _refund(reservation_id: str, person: str) -> None:
    with reservation_unknown_if_away(reservation_id):
        verdict = primary().document(
            _REFUND, person=person, reservation_id=reservation_id, correlation_id=correlation_id()
        )
    if verdict["outcome"] == "too-late":
        raise RefundDeadlinePassed("the time to give back tickets of this concert is over")
    seats_changed(verdict.get("changed"))
    payment = _open_payment(reservation_id)
    if payment is not None and payment.status == "refunding":
        # When the gateway does not answer, the settling job sends the money back later; it is owed from now on.
        finish_refund(payment, glance=True)


def _open_payment(reservation_id: str) -> OpenPayment | None:
    rows = primary().rows(_OPEN_PAYMENT, reservation_id=reservation_id)
    return read_open_payment(rows[0]) if rows else None
