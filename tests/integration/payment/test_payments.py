"""Paying: one charge whatever is retried, the seats kept while the outcome is open, refunds where there is no seat."""

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from booking import payment
from booking.operations.audit import Verdict
from booking.payment import settlement
from booking.payment.gateways import Charge, Gateway, Outcome, gateway
from booking.payment.problems import AlreadyPaid, PaymentDeclined, RefundDeadlinePassed
from booking.platform.postgres import DatabaseBusy, primary
from booking.platform.problems import Refusal
from booking.queue import TurnOver
from booking.seats import ReservationUnknown, release_hold
from booking.seats.problems import HoldExpired, KeyReused, PaymentUnderWay
from support.gateways import SimulatedGateway
from support.payments import due_now, past_deadline
from support.shop import PRICE, Shop, new_key
from support.sound import SOUND

Audit = Callable[[], Verdict]


def test_paying_confirms_the_reservation_and_sells_the_seats(shop: Shop, danal: SimulatedGateway, audit: Audit) -> None:
    held = shop.hold([1, 2])

    paid = shop.pay(held)

    assert not paid.pending
    assert paid.payment["status"] == "captured"
    assert paid.payment["amount"] == 2 * PRICE
    assert shop.show(held)["status"] == "confirmed"
    assert shop.seat(1)["state"] == "sold"
    assert danal.charged(held["reservation_id"]) == 2 * PRICE
    assert shop.events(held) == ["reservation.held", "reservation.confirmed"]
    assert audit().violations == SOUND


def test_the_same_key_pays_once_and_answers_the_same(shop: Shop, danal: SimulatedGateway) -> None:
    held, key = shop.hold([1]), new_key()

    assert shop.pay(held, key=key) == shop.pay(held, key=key)
    assert danal.charged(held["reservation_id"]) == PRICE
    with pytest.raises(KeyReused):
        shop.pay(held, key=key, method="transfer")


def test_a_paid_reservation_is_not_paid_again(shop: Shop) -> None:
    held = shop.hold([1])
    shop.pay(held)

    with pytest.raises(AlreadyPaid):
        shop.pay(held)


def test_paying_ends_the_turn(shop: Shop) -> None:
    shop.pay(shop.hold([1]))

    with pytest.raises(TurnOver):
        shop.hold([2])


def test_a_decline_keeps_the_seats_and_another_method_may_work(
    shop: Shop, danal: SimulatedGateway, audit: Audit
) -> None:
    held, key = shop.hold([1]), new_key()

    for _ in range(2):  # the decline is an effect: the same key shows it again and asks nobody
        with pytest.raises(PaymentDeclined):
            shop.pay(held, key=key, method="card_declined")

    assert shop.show(held)["status"] == "held"
    assert shop.pay(held).payment["status"] == "captured"
    assert danal.charged(held["reservation_id"]) == PRICE
    assert audit().violations == SOUND


def test_after_a_decline_the_hold_is_good_for_a_minute_more(shop: Shop, use_settings: Callable[..., None]) -> None:
    use_settings(hold_ttl_s=10, payment_deadline_s=10)
    held = shop.hold([1])

    with pytest.raises(PaymentDeclined):
        shop.pay(held, method="card_declined")

    [[left_s]] = primary().rows(
        "select extract(epoch from held_until - clock_timestamp()) from seat where schedule_id = :id and number = 1",
        id=shop.concert_id,
    )
    assert 55 < left_s <= 60
    assert shop.ledger(1)[-1] == "extended"


def test_no_number_of_declines_moves_the_hold_past_its_cap(
    shop: Shop, use_settings: Callable[..., None], audit: Audit
) -> None:
    use_settings(hold_ttl_s=5, hold_cap_s=30)
    held = shop.hold([1])

    for _ in range(5):
        with pytest.raises(PaymentDeclined):
            shop.pay(held, method="card_declined")

    [[kept]] = primary().rows(
        "select s.held_until = r.hard_cap_at from seat s join reservation r on r.id = s.reservation_id"
        " where s.schedule_id = :id and s.number = 1",
        id=shop.concert_id,
    )
    assert kept
    assert audit().violations == SOUND


def test_a_lapsed_hold_cannot_be_paid(shop: Shop, danal: SimulatedGateway) -> None:
    held = shop.hold([1])
    shop.lapse(held)

    with pytest.raises(HoldExpired):
        shop.pay(held)
    assert danal.charged(held["reservation_id"]) == 0


def test_a_strangers_reservation_cannot_be_paid(shop: Shop, danal: SimulatedGateway) -> None:
    held = shop.hold([1])

    with pytest.raises(ReservationUnknown):
        shop.pay(held, "stranger")
    with pytest.raises(ReservationUnknown):
        payment.pay(shop.attempt("someone"), str(uuid.uuid4()), "card")
    assert danal.charged(held["reservation_id"]) == 0


def test_captured_and_then_no_answer_is_pending_and_settled_later(
    shop: Shop, danal: SimulatedGateway, use_settings: Callable[..., None], audit: Audit
) -> None:
    use_settings(gateway_read_timeout_s=0.2)
    held, key = shop.hold([1]), new_key()
    danal.faults(mode="approve_then_hang")

    assert shop.pay(held, key=key).pending
    assert shop.pay(held, key=key).pending  # a replay shows the present state and charges nothing
    assert shop.show(held)["status"] == "paying"
    with pytest.raises(PaymentUnderWay) as refused:
        shop.pay(held)
    assert refused.value.members["options"] == ["wait", "cancel"]

    danal.well()
    due_now(held)
    assert payment.settle_due() >= 1
    assert shop.show(held)["status"] == "confirmed"
    assert shop.pay(held, key=key).payment["status"] == "captured"
    assert danal.charged(held["reservation_id"]) == PRICE
    assert audit().violations == SOUND


def test_who_looks_settles_when_the_next_check_is_due(
    shop: Shop, danal: SimulatedGateway, use_settings: Callable[..., None]
) -> None:
    use_settings(gateway_read_timeout_s=0.2)
    held = shop.hold([1])
    danal.faults(mode="approve_then_hang")
    shop.pay(held)
    danal.well()
    due_now(held)

    assert payment.show_settled(held["reservation_id"], shop.shopper().person)["status"] == "confirmed"


def nobody_answers(*firms: SimulatedGateway) -> None:
    """The payment firms refuse connections."""
    for firm in firms:
        firm.faults(mode="refuse")


def test_gateways_that_refuse_leave_the_payment_pending_and_are_asked_again(
    shop: Shop, danal: SimulatedGateway, payco: SimulatedGateway, audit: Audit
) -> None:
    held = shop.hold([1])
    nobody_answers(danal, payco)
    assert shop.pay(held).pending
    assert shop.show(held)["payment"]["gateway"] == "payco"

    danal.well()
    payco.well()
    due_now(held)
    assert payment.settle_due() >= 1

    assert shop.show(held)["status"] == "confirmed"
    assert (danal.charged(held["reservation_id"]), payco.charged(held["reservation_id"])) == (0, PRICE)
    assert audit().violations == SOUND


def test_past_its_deadline_an_unknown_payment_is_cancelled_by_key(
    shop: Shop, danal: SimulatedGateway, payco: SimulatedGateway, audit: Audit
) -> None:
    held = shop.hold([1])
    nobody_answers(danal, payco)
    shop.pay(held)
    payco.well()
    past_deadline(held)

    assert payment.settle_due() >= 1

    assert shop.show(held)["status"] == "held"
    assert danal.charged(held["reservation_id"]) == 0
    assert audit().violations == SOUND


def capture_late(shop: Shop, danal: SimulatedGateway, use_settings: Callable[..., None]) -> dict[str, object]:
    """A reservation whose money was taken, whose answer was lost and whose hold has lapsed."""
    use_settings(gateway_read_timeout_s=0.2)
    held = shop.hold([1, 2], "late")
    danal.faults(mode="approve_then_hang")
    assert shop.pay(held, "late").pending
    danal.well()
    shop.lapse(held)
    due_now(held)
    return held


def test_money_that_comes_after_the_hold_lapsed_retakes_the_same_seats(
    shop: Shop, danal: SimulatedGateway, use_settings: Callable[..., None], audit: Audit
) -> None:
    held = capture_late(shop, danal, use_settings)

    payment.settle_due()

    assert shop.show(held, "late")["status"] == "confirmed"
    assert shop.ledger(1) == ["held", "sold"]
    assert audit().violations == SOUND


def test_money_that_comes_after_somebody_else_has_a_seat_goes_back(
    shop: Shop, danal: SimulatedGateway, use_settings: Callable[..., None], audit: Audit
) -> None:
    held = capture_late(shop, danal, use_settings)
    taken = shop.hold([2], "next")

    payment.settle_due()  # records what is owed
    due_now(held)
    payment.settle_due()  # and sends it back

    shown = shop.show(held, "late")
    assert shown["status"] == "refunded"
    assert shown["payment"]["status"] == "refunded"
    assert danal.charged(held["reservation_id"]) == 0
    assert shop.seat(1)["state"] == "available"
    assert shop.seat(2)["reservation_id"] == taken["reservation_id"]
    assert shop.events(held)[-2:] == ["payment.refunding", "payment.refunded"]
    assert audit().violations == SOUND


def test_late_money_does_not_get_anybody_over_the_limit(
    shop: Shop, danal: SimulatedGateway, use_settings: Callable[..., None], audit: Audit
) -> None:
    held = capture_late(shop, danal, use_settings)
    shop.hold([3, 4, 5, 6], "late")

    payment.settle_due()

    assert shop.show(held, "late")["status"] == "refunded"
    due_now(held)
    payment.settle_due()
    assert audit().violations == SOUND


def test_cancelling_a_payment_under_way_cancels_it_at_the_gateway(
    shop: Shop, danal: SimulatedGateway, use_settings: Callable[..., None], audit: Audit
) -> None:
    use_settings(gateway_read_timeout_s=0.2)
    held = shop.hold([1])
    danal.faults(mode="approve_then_hang")
    shop.pay(held)
    danal.well()

    cancelled = payment.cancel_reservation(held["reservation_id"], shop.shopper().person)

    assert cancelled["status"] == "cancelled"
    assert danal.charged(held["reservation_id"]) == 0
    assert shop.seat(1)["state"] == "available"
    assert audit().violations == SOUND


def no_refunds(shop: Shop) -> None:
    """Confirmed reservations cannot be given back: nothing hides what a cancelled payment left behind."""
    primary().rows("update concert set refund_until = null where id = :id", id=shop.concert_id)


def test_a_capture_is_not_believed_while_the_payment_is_being_cancelled(
    shop: Shop, danal: SimulatedGateway, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_refunds(shop)
    held, person = shop.hold([1]), shop.shopper().person
    charge = Gateway.charge

    def cancelled_meanwhile(gateway: Gateway, asked: Charge, *how: Any, **asked_how: Any) -> Outcome:
        outcome = charge(gateway, asked, *how, **asked_how)
        # The money is taken and the answer is on its way; now the person cancels, and it goes back.
        assert payment.cancel_reservation(held["reservation_id"], person)["status"] == "cancelled"
        return outcome

    monkeypatch.setattr(Gateway, "charge", cancelled_meanwhile)

    with pytest.raises(PaymentDeclined):
        shop.pay(held)

    assert shop.show(held)["status"] == "cancelled"
    assert danal.charged(held["reservation_id"]) == 0
    assert audit().violations == SOUND


def test_a_function_that_dies_while_cancelling_leaves_the_rest_to_the_job(
    shop: Shop,
    danal: SimulatedGateway,
    use_settings: Callable[..., None],
    audit: Audit,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Killed(BaseException):
        pass

    no_refunds(shop)
    use_settings(gateway_read_timeout_s=0.2)
    held, person = shop.hold([1]), shop.shopper().person
    danal.faults(mode="approve_then_hang")
    assert shop.pay(held).pending
    danal.well()
    cancel = Gateway.cancel

    def killed_after(gateway: Gateway, key: str, **how: Any) -> Outcome:
        cancel(gateway, key, **how)
        raise Killed

    with monkeypatch.context() as dying, pytest.raises(Killed):
        dying.setattr(Gateway, "cancel", killed_after)
        payment.cancel_reservation(held["reservation_id"], person)

    due_now(held)
    assert payment.settle_due() >= 1
    assert shop.show(held)["status"] == "cancelled"
    assert danal.charged(held["reservation_id"]) == 0
    assert audit().violations == SOUND


def test_a_cancellation_that_meets_another_payment_says_so(
    shop: Shop,
    danal: SimulatedGateway,
    use_settings: Callable[..., None],
    audit: Audit,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The firm declines, and another device has begun to pay anew before the seats are given back."""
    use_settings(gateway_read_timeout_s=0.2)
    held, person = shop.hold([1]), shop.shopper().person
    danal.faults(mode="approve_then_hang")
    assert shop.pay(held).pending
    cancel = settlement.cancel_at_gateway

    def begun_anew(open_payment: settlement.OpenPayment, **how: Any) -> bool:
        settlement.settle(open_payment.charge, "danal", gateway("danal").cancel(open_payment.charge.key))
        assert shop.show(held)["status"] == "held"
        assert shop.pay(held).pending
        return cancel(open_payment, **how)

    with monkeypatch.context() as meeting, pytest.raises(PaymentUnderWay) as refused:
        meeting.setattr("booking.payment.cancellation.cancel_at_gateway", begun_anew)
        payment.cancel_reservation(held["reservation_id"], person)

    assert refused.value.members["options"] == ["wait", "cancel"]
    assert payment.cancel_reservation(held["reservation_id"], person)["status"] == "cancelled"
    assert danal.charged(held["reservation_id"]) == 0
    assert audit().violations == SOUND


def test_a_cancellation_that_the_firm_does_not_answer_is_carried_out_later(
    shop: Shop, danal: SimulatedGateway, use_settings: Callable[..., None], audit: Audit
) -> None:
    no_refunds(shop)
    use_settings(gateway_read_timeout_s=0.2)
    held = shop.hold([1])
    danal.faults(mode="approve_then_hang")
    shop.pay(held)
    danal.faults(mode="refuse")

    with pytest.raises(PaymentUnderWay):
        payment.cancel_reservation(held["reservation_id"], shop.shopper().person)
    danal.well()
    due_now(held)
    payment.settle_due()

    assert shop.show(held)["status"] == "cancelled"
    assert danal.charged(held["reservation_id"]) == 0
    assert audit().violations == SOUND


def test_a_lapsed_hold_is_not_revived_over_the_limit(
    shop: Shop, danal: SimulatedGateway, payco: SimulatedGateway, audit: Audit
) -> None:
    held = shop.hold([1, 2, 3, 4])
    nobody_answers(danal, payco)
    shop.pay(held)
    shop.lapse_within_cap(held)
    shop.hold([5, 6, 7, 8])
    payco.well()
    past_deadline(held)

    payment.settle_due()

    assert shop.show(held)["status"] == "expired"
    assert audit().violations == SOUND


def test_a_seat_that_went_through_other_hands_is_not_extended(
    shop: Shop, danal: SimulatedGateway, payco: SimulatedGateway, audit: Audit
) -> None:
    held = shop.hold([1, 2], "slow")
    nobody_answers(danal, payco)
    shop.pay(held, "slow")
    shop.lapse_within_cap(held)
    between = shop.hold([2], "quick")
    release_hold(between["reservation_id"], shop.shopper("quick").person)
    payco.well()
    past_deadline(held)

    payment.settle_due()

    assert shop.show(held, "slow")["status"] == "expired"
    assert audit().violations == SOUND


def test_a_busy_database_after_the_capture_is_an_open_outcome(
    shop: Shop, danal: SimulatedGateway, monkeypatch: pytest.MonkeyPatch, audit: Audit
) -> None:
    held = shop.hold([1])

    def busy(*_: object) -> None:
        raise DatabaseBusy

    with monkeypatch.context() as busily:
        busily.setattr("booking.payment.payments.settle", busy)
        assert shop.pay(held).pending
    due_now(held)
    payment.settle_due()

    assert shop.show(held)["status"] == "confirmed"
    assert audit().violations == SOUND


def test_a_confirmed_reservation_is_refunded_before_the_deadline(
    shop: Shop, danal: SimulatedGateway, audit: Audit
) -> None:
    held = shop.hold([1])
    shop.pay(held)

    refunded = payment.cancel_reservation(held["reservation_id"], shop.shopper().person)

    assert refunded["status"] == "refunded"
    assert refunded["payment"]["status"] == "refunded"
    assert danal.charged(held["reservation_id"]) == 0
    assert shop.ledger(1) == ["held", "sold", "refunded"]
    assert payment.cancel_reservation(held["reservation_id"], shop.shopper().person) == refunded
    assert audit().violations == SOUND


def test_a_refund_waits_for_a_gateway_that_is_away(shop: Shop, danal: SimulatedGateway, audit: Audit) -> None:
    held = shop.hold([1])
    shop.pay(held)
    danal.faults(mode="refuse")

    refunded = payment.cancel_reservation(held["reservation_id"], shop.shopper().person)
    assert refunded["status"] == "refunded"
    assert refunded["payment"]["status"] == "pending"
    danal.well()
    due_now(held)
    payment.settle_due()

    assert shop.show(held)["payment"]["status"] == "refunded"
    assert danal.charged(held["reservation_id"]) == 0
    assert audit().violations == SOUND


def test_after_the_deadline_nothing_is_given_back(shop: Shop, danal: SimulatedGateway) -> None:
    held = shop.hold([1])
    shop.pay(held)
    primary().rows("update concert set refund_until = now() where id = :id", id=shop.concert_id)

    with pytest.raises(RefundDeadlinePassed):
        payment.cancel_reservation(held["reservation_id"], shop.shopper().person)
    assert danal.charged(held["reservation_id"]) == PRICE


@pytest.mark.race
def test_twenty_payments_of_one_reservation_at_once_charge_once(
    shop: Shop, danal: SimulatedGateway, audit: Audit
) -> None:
    held = shop.hold([1])
    danal.faults(delay_ms=50)

    def pay(_: int) -> str:
        try:
            return str(shop.pay(held).payment["status"])
        except Refusal as refused:
            return refused.slug

    with ThreadPoolExecutor(20) as crowd:
        outcomes = list(crowd.map(pay, range(20)))

    assert outcomes.count("captured") == 1
    assert set(outcomes) <= {"captured", "payment-in-progress", "already-paid"}
    assert danal.charged(held["reservation_id"]) == PRICE
    assert audit().violations == SOUND


@pytest.mark.race
def test_paying_and_cancelling_at_once_ends_one_way_with_the_money_right(danal: SimulatedGateway, audit: Audit) -> None:
    danal.faults(delay_ms=20)
    for _ in range(20):
        shop = Shop.open()
        no_refunds(shop)
        held = shop.hold([1])
        with ThreadPoolExecutor(2) as both:
            paying = both.submit(_quietly, lambda held=held, shop=shop: shop.pay(held))
            cancelling = both.submit(
                _quietly,
                lambda held=held, shop=shop: payment.cancel_reservation(held["reservation_id"], shop.shopper().person),
            )
            paying.result(), cancelling.result()
        due_now(held)
        payment.settle_due()
        status = shop.show(held)["status"]
        assert status in ("confirmed", "cancelled")
        assert danal.charged(held["reservation_id"]) == (PRICE if status == "confirmed" else 0)
    assert audit().violations == SOUND


def _quietly(act: Callable[[], object]) -> None:
    with suppress(Refusal):
        act()
