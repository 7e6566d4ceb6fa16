"""Step 7: pay for a reservation. Two trips to Postgres, the gateway between them; nothing is held while it thinks.

Whatever the firms do, the answer comes within ``payment_answer_s_max``: what is open then is 202, and the settling job
finds out. A payment stays with the firm that its first request was sent to. The other is asked only where nothing was
sent, and Postgres is told so first.
"""

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from booking.payment.gateways import SURE, Charge, Outcome, choose, gateway, other_than
from booking.payment.problems import AlreadyPaid, PaymentDeclined
from booking.payment.settlement import settle, tell_pending
from booking.platform.postgres import primary
from booking.platform.problems import Unavailable
from booking.platform.resources import read_text
from booking.platform.settings import settings
from booking.platform.telemetry import correlation_id, logger
from booking.seats import ReservationUnknown, seats_changed
from booking.seats.holds import Attempt
from booking.seats.problems import HoldExpired, KeyReused, PassOfAnotherConcert, PaymentUnderWay

POLL_AFTER_S = 2
_RECORDING_S = 0.2
"""Of the time to answer: for the trips to Postgres."""
_TURN_S_MIN = 0.3
"""A firm that has less time than this left to answer is not turned to."""

_BEGIN = read_text(__package__, "sql/begin_payment.sql")
_TURN = read_text(__package__, "sql/turn_payment.sql")


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
    answer_at_s = time.monotonic() + settings().payment_answer_s_max - _RECORDING_S
    # Safe to repeat: a second run under the same key finds the payment that the first has opened.
    verdict = primary().document(
        _BEGIN,
        person=attempt.shopper.person,
        key=attempt.key,
        body_hash=attempt.body_hash,
        concert_id=attempt.shopper.concert_id,
        reservation_id=reservation_id,
        gateway=choose(),
        method=method,
        deadline_s=settings().payment_deadline_s,
    )
    seats_changed(verdict.get("changed"))
    match verdict["outcome"]:
        case "begun":
            return _charge(verdict["payment"], method, answer_at_s)
        case "replayed":
            return _answer(verdict["payment"])
        case _:
            raise _refusal(verdict, reservation_id)


def _charge(payment: dict[str, Any], method: str, answer_at_s: float) -> PaidOrPending:
    charge = Charge(payment["payment_id"], payment["reservation_id"], payment["amount"], payment["currency"], method)
    outcome = _ask(payment["gateway"], charge, answer_at_s)
    if outcome is Outcome.NOT_SENT and (turned := _turn(payment, answer_at_s)):
        payment = turned
        outcome = _ask(payment["gateway"], charge, answer_at_s)
    try:
        if outcome in SURE:
            return _answer(settle(charge, payment["gateway"], outcome)["payment"])
    except Unavailable:
        pass  # the firm has answered and the database has not: nothing is lost, the settling job asks again
    # The money may be taken. The seats stay theirs and the settling job asks again under the same key.
    with suppress(Unavailable):
        tell_pending(charge.key)
    return PaidOrPending(_shown(payment), pending=True)


def _ask(name: str, charge: Charge, answer_at_s: float) -> Outcome:
    return gateway(name).charge(charge, answer_at_s - time.monotonic(), tries=settings().gateway_tries_max)


def _turn(payment: dict[str, Any], answer_at_s: float) -> dict[str, Any] | None:
    """Turn to the other firm, if it may help and nobody else can have asked the first; returns the payment then."""
    left, to = payment["gateway"], other_than(payment["gateway"])
    if gateway(to).charges.refuses() or time.monotonic() + _TURN_S_MIN > answer_at_s:
        return None
    try:
        # Safe to repeat: a second run changes nothing. It then says that nothing has turned, which costs a wait.
        turned: dict[str, Any] | None = primary().document(
            _TURN,
            payment_id=payment["payment_id"],
            left_gateway=left,
            to_gateway=to,
            correlation_id=correlation_id(),
        )
    except Unavailable:
        return None  # perhaps it has turned: whoever asks next reads where it is
    if turned:
        logger().info("payment turned", payment_id=payment["payment_id"], left=left, to=to)
    return turned


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
                options=verdict["payment"]["options"],
                payment=_shown(verdict["payment"]),
            )
        case "hold-expired":
            return HoldExpired(f"the reservation is {verdict['status']}", reservation_status=verdict["status"])
        case "key-reused":
            return KeyReused("use a new key for a new request")
        case outcome:
            raise AssertionError(f"begin_payment answered {outcome!r}")
