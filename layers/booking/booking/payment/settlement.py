"""Find out what became of payments and record it. The gateway's answer is the truth; here it decides a reservation.

A payment stays with the gateway that its first request was sent to and is asked for under one key. Until its deadline
an unknown outcome is asked for again; after it the key is cancelled at the gateway, so that nothing can be taken late.
"""

from dataclasses import dataclass
from typing import Any

from booking.payment.gateways import Charge, Outcome, gateway
from booking.platform.postgres import Row, primary
from booking.platform.resources import read_text
from booking.platform.settings import settings
from booking.platform.telemetry import correlation_id, logger
from booking.queue import end_turn
from booking.seats import show_reservation

_PAYMENTS_PER_TICK = 50

_SETTLE = read_text(__package__, "sql/settle_payment.sql")
_CLAIM = read_text(__package__, "sql/claim_unsettled.sql")
_FINISH_REFUND = "select finish_refund(cast(:payment_id as uuid), :correlation_id)::text"


@dataclass(frozen=True, slots=True)
class OpenPayment:
    """A payment that is pending or being refunded, as it is in the database."""

    charge: Charge
    gateway: str
    status: str
    past_deadline: bool


def settle(payment_id: str, outcome: Outcome, *, give_up: bool = False) -> dict[str, Any]:
    """Record a sure outcome (CAPTURED, DECLINED, CANCELLED) and return the payment and its reservation's status.

    Safe to call again. ``give_up``: the person cancelled, so that the seats are put back instead of being held on.
    """
    settled: dict[str, Any] = primary().document(
        _SETTLE,
        payment_id=payment_id,
        outcome=outcome.value,
        detail=outcome.value,
        hold_after_decline_s=settings().hold_after_decline_s,
        give_up=give_up,
        correlation_id=correlation_id(),
    )
    if settled["reservation_status"] == "confirmed":
        # Frees the place inside the shop at once; Postgres knows already that the turn is over.
        end_turn(settled["concert_id"], settled["person"], settled["pass_id"], "paid")
    return settled


def finish_refund(payment: OpenPayment) -> bool:
    """Send the money of a payment that is owed back. Returns whether the gateway has confirmed it."""
    if gateway(payment.gateway).cancel(payment.charge.key) is not Outcome.CANCELLED:
        return False
    primary().rows(_FINISH_REFUND, payment_id=payment.charge.key, correlation_id=correlation_id())
    return True


def settle_due() -> int:
    """Settle the payments whose next check is due; returns how many are settled now. The settling job's work."""
    return sum(_settle_claimed(payment) for payment in _claim(None))


def show_settled(reservation_id: str, person: str) -> dict[str, Any]:
    """The reservation as its owner sees it; who looks need not wait for the job when the payment's next check is due.

    Raises ReservationUnknown, also for a stranger's.
    """
    shown = show_reservation(reservation_id, person)
    if shown["status"] == "paying":
        claimed = _claim(reservation_id)
        if any(_settle_claimed(payment) for payment in claimed):
            return show_reservation(reservation_id, person)
    return shown


def read_open_payment(row: Row) -> OpenPayment:
    """A row of claim_unsettled.sql or open_payment.sql."""
    payment_id, reservation_id, name, amount, currency, method, status, past_deadline = row
    return OpenPayment(Charge(payment_id, reservation_id, amount, currency, method), name, status, past_deadline)


def _claim(reservation_id: str | None) -> list[OpenPayment]:
    rows = primary().rows(
        _CLAIM,
        reservation_id=reservation_id,
        limit=_PAYMENTS_PER_TICK,
        backoff_s_max=settings().payment_check_backoff_s_max,
    )
    return [read_open_payment(row) for row in rows]


def _settle_claimed(payment: OpenPayment) -> bool:
    if payment.status == "refunding":
        return finish_refund(payment)
    outcome = _ask(payment)
    logger().info(
        "asked for a pending payment",
        payment_id=payment.charge.key,
        gateway=payment.gateway,
        outcome=outcome.value,
        past_deadline=payment.past_deadline,
    )
    if outcome in (Outcome.CAPTURED, Outcome.DECLINED, Outcome.CANCELLED):
        settle(payment.charge.key, outcome)
        return True
    return False


def _ask(payment: OpenPayment) -> Outcome:
    asked = gateway(payment.gateway)
    outcome = asked.find(payment.charge.key)
    if outcome is Outcome.NEVER_SEEN and not payment.past_deadline:
        return asked.charge(payment.charge)
    if payment.past_deadline and outcome in (Outcome.NEVER_SEEN, Outcome.UNKNOWN, Outcome.NOT_SENT):
        return asked.cancel(payment.charge.key)
    return outcome
