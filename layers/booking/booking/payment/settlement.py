"""Find out what became of payments and record it. The gateway's answer is the truth; here it decides a reservation.

A payment stays with the gateway that its first request was sent to and is asked for under one key. Until its deadline
an unknown outcome is asked for again; after it the key is cancelled at the gateway, so that nothing can be taken late.
When the gateway has confirmed that, the payment may turn to the other one, once.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit

from booking.payment.gateways import SURE, Charge, Outcome, gateway, gateways, other_than
from booking.platform.loops import lease_key
from booking.platform.postgres import Queries, Row, primary
from booking.platform.problems import Refusal
from booking.platform.resources import read_text
from booking.platform.settings import settings
from booking.platform.telemetry import correlation_id, logger, measure
from booking.queue import end_turn
from booking.seats import reservation_unknown_if_away, seats_changed, show_reservation

SETTLING_JOB = "settle_payments"
"""The loop that works here; who looks at a payment leaves to it what it does."""
_PAYMENTS_AT_ONCE = 16
"""Of each firm."""
_WORK_S = 1.5
"""Of a tick: for as long the job goes on while there is more to settle than it takes at once."""
_TOLD_EVERY_S = 10.0
_told_s = float("-inf")

_SETTLE = read_text(__package__, "sql/settle_payment.sql")
_CLAIM = read_text(__package__, "sql/claim_unsettled.sql")
_CLAIM_ONE = read_text(__package__, "sql/claim_payment.sql")
_BEGIN_CANCELLATION = read_text(__package__, "sql/begin_cancellation.sql")
_OPEN_PAYMENTS = read_text(__package__, "sql/open_payments.sql")
_TELL_PENDING = read_text(__package__, "sql/tell_pending.sql")
_FINISH_REFUND = "select finish_refund(cast(:payment_id as uuid), :correlation_id)::text"


@dataclass(frozen=True, slots=True)
class OpenPayment:
    """A payment that is pending or being refunded, as it is in the database."""

    charge: Charge
    gateway: str
    status: str
    past_deadline: bool
    cancelling: bool
    """Somebody may have cancelled it at its gateway: only the gateway's answer to a cancellation settles it."""
    untold: bool
    """The person does not know yet that its outcome is open."""


def settle(charge: Charge, at: str, outcome: Outcome, *, turn_to: str | None = None) -> dict[str, Any]:
    """Record a sure outcome (CAPTURED, DECLINED, CANCELLED) and return the payment and its reservation's status.

    ``at``: the gateway that said so. ``turn_to``: where a cancelled payment turns to, if it still may.
    Safe to call again. What decides nothing comes back as pending: a capture of a payment that is being cancelled, and
    what is said of one that has turned to another gateway.
    """
    with reservation_unknown_if_away(charge.order_id):
        settled: dict[str, Any] = primary().document(
            _SETTLE,
            payment_id=charge.key,
            gateway=at,
            outcome=outcome.value,
            detail=outcome.value,
            hold_after_decline_s=settings().hold_after_decline_s,
            correlation_id=correlation_id(),
            turn_to=turn_to,
            turn_s_min=settings().payment_turn_s_min,
            deadline_s=settings().payment_deadline_s,
        )
    seats_changed(settled["changed"])
    if settled["reservation_status"] == "confirmed":
        # Frees the place inside the shop at once; Postgres knows already that the turn is over.
        end_turn(settled["concert_id"], settled["person"], settled["pass_id"], "paid")
    return settled


def tell_pending(payment_id: str) -> None:
    """See to it that the person is told, once, that the payment's outcome is open. Safe to call again."""
    primary().rows(_TELL_PENDING, payment_id=payment_id, correlation_id=correlation_id())


def cancel_at_gateway(payment: OpenPayment, *, give_up: bool, glance: bool = False) -> bool:
    """Cancel a pending payment by key and settle it; returns whether the gateway has confirmed that.

    The intent is recorded first, so that a capture which somebody learns of meanwhile is not believed, and so that the
    settling job finishes what a function that dies here began. ``give_up``: the person cancelled, so the seats are put
    back instead of being held on.
    """
    # Not where the payment was when somebody looked: it may have turned meanwhile.
    at = primary().value(_BEGIN_CANCELLATION, payment_id=payment.charge.key, give_up=give_up)
    if at is None:
        return True  # settled in this very moment, or it goes on elsewhere: the caller looks again
    if gateway(at).cancel(payment.charge.key, **_hurry(glance)) is not Outcome.CANCELLED:
        return False
    settle(payment.charge, at, Outcome.CANCELLED, turn_to=_other_that_works(at))
    return True


def finish_refund(payment: OpenPayment, *, glance: bool = False) -> bool:
    """Send the money of a payment that is owed back. Returns whether the gateway has confirmed it."""
    return _record_refund(payment, gateway(payment.gateway).cancel(payment.charge.key, **_hurry(glance)))


def work() -> int:
    """One tick of the settling job: ``settle_due`` as long as that settles most of what it takes, and now and then the
    metrics of what is open."""
    tell_what_is_open()
    ends_s = time.monotonic() + _WORK_S
    done = settled = settle_due()
    while settled > _PAYMENTS_AT_ONCE // 2 and time.monotonic() < ends_s:
        settled = settle_due()
        done += settled
    return done


def tell_what_is_open() -> None:
    """Measure how many payments are open, refunds that are owed included, and which circuits, if not done lately."""
    global _told_s  # noqa: PLW0603 - of this process, as the metrics are
    if time.monotonic() < _told_s + _TOLD_EVERY_S:
        return
    _told_s = time.monotonic()
    measure("PaymentsOpen", count_open_payments(primary()), MetricUnit.Count)
    for (name, operation), is_closed in circuits().items():
        measure("GatewayCircuitOpen", 0 if is_closed else 1, MetricUnit.Count, gateway=name, operation=operation)


def count_open_payments(server: Queries) -> int:
    """How many payments are pending or owed back, of at most 1,000. Raises DatabaseAway."""
    return int(server.value(_OPEN_PAYMENTS))


def circuits() -> dict[tuple[str, str], bool]:
    """Whether each firm's circuit for an operation (charges, lookups) is closed, as Redis has it, or this process."""
    return {
        (each.name, circuit.operation): circuit.is_closed()
        for each in gateways()
        for circuit in (each.charges, each.lookups)
    }


def settle_due() -> int:
    """Settle payments whose next check is due; returns how many are settled now.

    The gateways are asked side by side, since a firm that hangs answers none in time; what they said is recorded one
    after the other.
    """
    claimed = _claim()
    if not claimed:
        return 0
    for payment in claimed:  # here, for all threads: a thread of its own would open a connection to Redis for it
        gateway(payment.gateway).look()
    with ThreadPoolExecutor(len(claimed)) as asking:
        outcomes = list(asking.map(_ask, claimed))
    return sum(_record(payment, outcome) for payment, outcome in zip(claimed, outcomes, strict=True))


def show_settled(reservation_id: str, person: str) -> dict[str, Any]:
    """The reservation as its owner sees it; who looks need not wait for the job when the payment's next check has just
    become due, or no job is at work.

    Raises ReservationUnknown, also for a stranger's.
    """
    shown = show_reservation(reservation_id, person)
    if shown["status"] == "paying":
        for payment in _claim_of(reservation_id):
            if _record(payment, _ask(payment, glance=True), glance=True):
                return show_reservation(reservation_id, person)
    return shown


def read_open_payment(row: Row) -> OpenPayment:
    """A row of claim_unsettled.sql, claim_payment.sql or open_payment.sql."""
    payment_id, reservation_id, name, amount, currency, method, status, *flags = row
    charge = Charge(payment_id, reservation_id, amount, currency, method)
    return OpenPayment(charge, name, status, *flags)


def _claim() -> list[OpenPayment]:
    """Take payments that are due, of each firm by itself: one that settles nothing must not hold up the other's. Of a
    firm whose circuit is open only one, when it is time to try whether it is back.

    Refused by the circuit they would only be put off, each time for longer, past the firm's return.
    """
    claimed = _take([], _PAYMENTS_AT_ONCE)  # whose person does not know yet, at any firm
    for each in gateways():
        if each.lookups.is_closed():
            claimed += _take([each.name], _PAYMENTS_AT_ONCE)
        elif not each.lookups.refuses():
            claimed += _take([each.name], 1)
    return claimed


def _take(of: list[str], limit: int) -> list[OpenPayment]:
    rows = primary().rows(_CLAIM, gateways=of, limit=limit, backoff_s_max=settings().payment_check_backoff_s_max)
    return [read_open_payment(row) for row in rows]


def _that_answer() -> list[str]:
    """The firms whose circuit lets everybody ask what became of a payment."""
    return [each.name for each in gateways() if each.lookups.is_closed()]


def _claim_of(reservation_id: str) -> list[OpenPayment]:
    """Take the payment of a reservation if it is due, is not left to the job, and its firm can be asked."""
    rows = primary().rows(
        _CLAIM_ONE,
        reservation_id=reservation_id,
        gateways=_that_answer(),
        backoff_s_max=settings().payment_check_backoff_s_max,
        job=lease_key(SETTLING_JOB),
    )
    return [read_open_payment(row) for row in rows]


def _ask(payment: OpenPayment, *, glance: bool = False) -> Outcome:
    """What the gateway says of a payment that is due, without touching the database."""
    asked = gateway(payment.gateway)
    key = payment.charge.key
    if payment.status == "refunding" or payment.cancelling:
        return asked.cancel(key, **_hurry(glance))
    outcome = asked.find(key, **_hurry(glance))
    if outcome is Outcome.NEVER_SEEN and not payment.past_deadline:
        return asked.charge(payment.charge, **_hurry(glance))
    return outcome


def _hurry(glance: bool) -> dict[str, Any]:
    """How a gateway is asked for somebody who waits. They go without an answer sooner than the firm can be blamed."""
    return {"patience_s": settings().gateway_glance_timeout_s, "judged": False} if glance else {}


def _other_that_works(name: str) -> str | None:
    """The firm to turn to from ``name``, None while its circuit is open."""
    other = other_than(name)
    return other if gateway(other).charges.is_closed() else None


def _record(payment: OpenPayment, outcome: Outcome, *, glance: bool = False) -> bool:
    """Record what the gateway said; returns whether the payment is settled. One payment's fault ends only its own."""
    try:
        if payment.status == "refunding":
            return _record_refund(payment, outcome)
        return _record_pending(payment, outcome, glance)
    except Refusal as fault:
        logger().warning("settling put off", payment_id=payment.charge.key, reason=fault.slug)
        return False


def _record_refund(payment: OpenPayment, outcome: Outcome) -> bool:
    if outcome is not Outcome.CANCELLED:
        return False
    primary().rows(_FINISH_REFUND, payment_id=payment.charge.key, correlation_id=correlation_id())
    return True


def _record_pending(payment: OpenPayment, outcome: Outcome, glance: bool) -> bool:
    logger().info(
        "asked for a pending payment",
        payment_id=payment.charge.key,
        gateway=payment.gateway,
        outcome=outcome.value,
        past_deadline=payment.past_deadline,
        cancelling=payment.cancelling,
    )
    if outcome in SURE:
        turn_to = _other_that_works(payment.gateway) if payment.cancelling else None
        settled: bool = settle(payment.charge, payment.gateway, outcome, turn_to=turn_to)["settled_now"]
        return settled
    if payment.untold:
        tell_pending(payment.charge.key)
    if payment.past_deadline and not payment.cancelling:
        # Nobody knows, and the time is over: see to it that nothing can be taken any more.
        return cancel_at_gateway(payment, give_up=False, glance=glance)
    return False
