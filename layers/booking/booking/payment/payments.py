"""Step 7: pay for a reservation. Two trips to Postgres, the gateway between them; nothing is held while it thinks."""

from dataclasses import dataclass
from typing import Any

from booking.payment.gateways import PRIMARY, Charge, Outcome, gateway
from booking.payment.problems import AlreadyPaid, PaymentDeclined
from booking.payment.settlement import settle
from booking.platform.postgres import primary
from booking.platform.problems import Unavailable
from booking.platform.resources import read_text
from booking.platform.settings import settings
from booking.seats import ReservationUnknown, seats_changed
from booking.seats.holds import Attempt
from booking.seats.problems import HoldExpired, KeyReused, PassOfAnotherConcert, PaymentUnderWay

POLL_AFTER_S = 2
OPTIONS = ["wait", "cancel"]

_BEGIN = read_text(__package__, "sql/begin_payment.sql")
_SURE = (Outcome.CAPTURED, Outcome.DECLINED, Outcome.CANCELLED)


@dataclass(frozen=True, slots=True)
class PaidOrPending:
    """What step 7 answers: the payment, and whether its outcome is still open (202)."""

    payment: dict[str, Any]
    pending: bool


def pay(attempt: Attempt, reservation_id: str, method: str) -> PaidOrPending:
    """Pay for the reservation; for the same key and body, the present state of the earlier payment.

    Raises PaymentDeclined, AlreadyPaid, PaymentUnderWay (with ``options``), HoldExpired, ReservationUnknown (also for a
    stranger's), PassOfAnotherConcert, KeyReused.
    """
    # Safe to repeat: a second run under the same key finds the payment that the first has opened.
    verdict = primary().document(
        _BEGIN,
        person=attempt.shopper.person,
        key=attempt.key,
        body_hash=attempt.body_hash,
        concert_id=attempt.shopper.concert_id,
        reservation_id=reservation_id,
        gateway=PRIMARY,
        method=method,
        deadline_s=settings().payment_deadline_s,
    )
    seats_changed(verdict.get("changed"))
    match verdict["outcome"]:
        case "begun":
            return _charge(verdict["payment"], method)
        case "replayed":
            return _answer(verdict["payment"])
        case _:
            raise _refusal(verdict, reservation_id)


def _charge(payment: dict[str, Any], method: str) -> PaidOrPending:
    charge = Charge(payment["payment_id"], payment["reservation_id"], payment["amount"], payment["currency"], method)
    outcome = gateway(payment["gateway"]).charge(charge)
    if outcome not in _SURE:
        # The money may be taken. The seats stay theirs and the settling job asks again under the same key.
        return PaidOrPending(_shown(payment), pending=True)
    try:
        return _answer(settle(charge.key, outcome)["payment"])
    except Unavailable:
        # The firm has answered and the database has not: nothing is lost, the settling job asks again.
        return PaidOrPending(_shown(payment), pending=True)


def _answer(payment: dict[str, Any]) -> PaidOrPending:
    if payment["status"] == "declined":
        raise PaymentDeclined("the payment firm declined; another method may work", payment=_shown(payment))
    return PaidOrPending(_shown(payment), pending=payment["status"] == "pending")


def _shown(payment: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in payment.items() if value is not None}


def _refusal(verdict: dict[str, Any], reservation_id: str) -> Exception:
    match verdict["outcome"]:
        case "not-found":
            return ReservationUnknown(f"no reservation {reservation_id}")
        case "wrong-concert":
            return PassOfAnotherConcert("this reservation is of another concert than the pass")
        case "already-paid":
            return AlreadyPaid(f"reservation {reservation_id} is confirmed")
        case "in-progress":
            return PaymentUnderWay(
                "wait for its outcome, or cancel the reservation",
                retry_after_s=POLL_AFTER_S,
                options=OPTIONS,
                payment=_shown(verdict["payment"]),
            )
        case "hold-expired":
            return HoldExpired(f"the reservation is {verdict['status']}", reservation_status=verdict["status"])
        case "key-reused":
            return KeyReused("use a new key for a new request")
        case outcome:
            raise AssertionError(f"begin_payment answered {outcome!r}")
