"""Give a reservation back, whatever state it is in: a hold, one with a payment under way, or a confirmed one."""

from typing import Any

from booking.payment.gateways import Outcome, gateway
from booking.payment.problems import RefundDeadlinePassed
from booking.payment.settlement import OpenPayment, finish_refund, read_open_payment, settle
from booking.platform.postgres import primary
from booking.platform.resources import read_text
from booking.platform.telemetry import correlation_id
from booking.seats import release_hold, show_reservation
from booking.seats.problems import PaymentUnderWay

_OPEN_PAYMENT = read_text(__package__, "sql/open_payment.sql")
_REFUND = "select refund_reservation(:person, cast(:reservation_id as uuid), :correlation_id)::text"


def cancel_reservation(reservation_id: str, person: str) -> dict[str, Any]:
    """Give the seats back and return the reservation as it then is. Safe to call again.

    A payment under way is first cancelled at its gateway by key; a confirmed reservation is refunded. Raises
    ReservationUnknown (also for a stranger's), RefundDeadlinePassed, and PaymentUnderWay when the gateway cannot be
    asked now: then nothing is decided and the person may ask again or wait.
    """
    status = release_hold(reservation_id, person)
    if status == "paying":
        _cancel_payment(reservation_id)
        status = release_hold(reservation_id, person)
    if status == "confirmed":
        _refund(reservation_id, person)
    return show_reservation(reservation_id, person)


def _cancel_payment(reservation_id: str) -> None:
    payment = _open_payment(reservation_id)
    if payment is None:
        return  # settled in this very moment: the caller looks again
    if gateway(payment.gateway).cancel(payment.charge.key) is not Outcome.CANCELLED:
        raise PaymentUnderWay("the payment firm does not answer; please try again", retry_after_s=2)
    settle(payment.charge.key, Outcome.CANCELLED, give_up=True)


def _refund(reservation_id: str, person: str) -> None:
    verdict = primary().document(_REFUND, person=person, reservation_id=reservation_id, correlation_id=correlation_id())
    if verdict["outcome"] == "too-late":
        raise RefundDeadlinePassed("the time to give back tickets of this concert is over")
    payment = _open_payment(reservation_id)
    if payment is not None:
        # When the gateway is away the settling job sends the money back later; it is owed from now on.
        finish_refund(payment)


def _open_payment(reservation_id: str) -> OpenPayment | None:
    rows = primary().rows(_OPEN_PAYMENT, reservation_id=reservation_id)
    return read_open_payment(rows[0]) if rows else None
