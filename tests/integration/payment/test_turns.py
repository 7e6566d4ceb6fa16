"""The other firm is asked only where the first surely took nothing; whatever meets, nobody is charged twice."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from booking import payment
from booking.operations.audit import Verdict
from booking.payment import settlement
from booking.payment.gateways import Charge, Gateway, Outcome, gateway
from booking.payment.gateways.circuit_store import STORE
from booking.payment.problems import PaymentDeclined
from booking.platform.loops import Lease
from booking.platform.postgres import DatabaseAway, Server, primary
from booking.platform.redis_keys import circuit_key
from booking.seats.problems import PaymentUnderWay
from support.circuits import forget_circuits, probe_is_due
from support.gateways import SimulatedGateway
from support.guards import Out, without
from support.payments import due_now, past_deadline
from support.replica import wait_for_replica
from support.shop import PRICE, Shop
from support.sound import SOUND

Audit = Callable[[], Verdict]
Firms = dict[str, SimulatedGateway]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """What the firms are asked: name, method, path."""
    requests: list[tuple[str, str, str]] = []
    ask = Gateway._ask

    def counting(gateway: Gateway, method: str, path: str, *rest: Any) -> Outcome:
        requests.append((gateway.name, method, path))
        return ask(gateway, method, path, *rest)

    monkeypatch.setattr(Gateway, "_ask", counting)
    return requests


def taken(firms: Firms, reservation: dict[str, Any]) -> dict[str, int]:
    return {name: firm.charged(reservation["reservation_id"]) for name, firm in firms.items()}


def charge_of(shop: Shop, reservation: dict[str, Any]) -> Charge:
    shown = shop.show(reservation)["payment"]
    return Charge(shown["payment_id"], reservation["reservation_id"], PRICE, "KRW", "card")


def story(shop: Shop, reservation: dict[str, Any]) -> list[str]:
    return [entry["event"] for entry in shop.show(reservation)["story"] if entry["event"].startswith("payment.")]


def test_a_firm_that_refuses_connections_is_left_for_the_other(
    shop: Shop, firms: Firms, audit: Audit, asked: list[tuple[str, str, str]]
) -> None:
    held = shop.hold([1])
    firms["danal"].faults(mode="refuse")

    paid = shop.pay(held).payment

    assert (paid["status"], paid["gateway"]) == ("captured", "payco")
    assert [name for name, _, _ in asked] == ["danal"] * 3 + ["payco"]
    assert taken(firms, held) == {"danal": 0, "payco": PRICE}
    assert shop.events(held) == ["reservation.held", "payment.switched", "reservation.confirmed"]
    begun, switched, _ = (entry for entry in shop.show(held)["story"] if entry["event"].startswith("payment."))
    assert begun["gateway"] == "danal"
    assert (switched["from"], switched["to"], switched["detail"]) == ("danal", "payco", "not-sent")
    assert audit().violations == SOUND


def test_while_the_circuit_is_open_payments_begin_at_the_other(
    shop: Shop, firms: Firms, use_settings: Callable[..., None], asked: list[tuple[str, str, str]]
) -> None:
    use_settings(circuit_failures_max=1)
    firms["danal"].faults(mode="refuse")
    shop.pay(shop.hold([1], "first"), "first")
    asked.clear()

    assert shop.pay(shop.hold([2], "second"), "second").payment["gateway"] == "payco"
    assert [name for name, _, _ in asked] == ["payco"]


def test_a_circuit_that_opens_in_between_is_no_charge(
    shop: Shop, firms: Firms, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = shop.hold([1])
    STORE.save_open(circuit_key("danal", "charges"), 1, 0)
    monkeypatch.setattr("booking.payment.payments.choose", lambda: "danal")  # a moment before

    assert shop.pay(held).payment["gateway"] == "payco"
    assert taken(firms, held) == {"danal": 0, "payco": PRICE}


def test_an_answer_that_was_lost_is_no_reason_to_turn(
    shop: Shop, firms: Firms, use_settings: Callable[..., None], audit: Audit
) -> None:
    use_settings(gateway_read_timeout_s=0.2, payment_answer_s_max=0.5)
    held = shop.hold([1])
    firms["danal"].faults(mode="approve_then_hang")

    assert shop.pay(held).pending
    assert taken(firms, held) == {"danal": PRICE, "payco": 0}
    assert shop.show(held)["payment"]["options"] == ["wait", "cancel"]

    firms["danal"].well()
    due_now(held)
    payment.settle_due()
    assert story(shop, held) == ["payment.begun", "payment.pending", "payment.captured"]
    assert shop.events(held) == ["reservation.held", "payment.pending", "reservation.confirmed"]
    assert audit().violations == SOUND


def test_turning_for_a_lost_answer_would_charge_twice(
    shop: Shop, firms: Firms, use_settings: Callable[..., None], audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the one above."""
    use_settings(gateway_read_timeout_s=0.2)
    held = shop.hold([1])
    firms["danal"].faults(mode="approve_then_hang")
    charge = Gateway.charge

    def unguarded(gateway: Gateway, *args: Any, **how: Any) -> Outcome:
        outcome = charge(gateway, *args, **how)
        return Outcome.NOT_SENT if outcome is Outcome.UNKNOWN else outcome

    monkeypatch.setattr(Gateway, "charge", unguarded)
    shop.pay(held)

    assert taken(firms, held) == {"danal": PRICE, "payco": PRICE}
    assert [each for each, found in audit().violations.items() if found] == ["I3"]
    gateway("danal").cancel(charge_of(shop, held).key)


def somebody_else_asks_first(monkeypatch: pytest.MonkeyPatch, reservation: dict[str, Any]) -> None:
    """Step 7 cannot reach the first firm, and before it turns the settling job has reached it and dies."""
    charge = Gateway.charge

    def frozen(gateway: Gateway, asked: Charge, *args: Any, **how: Any) -> Outcome:
        if gateway.name != "danal":
            return charge(gateway, asked, *args, **how)
        monkeypatch.setattr(Gateway, "charge", charge)
        due_now(reservation)
        [claimed] = settlement._claim_of(reservation["reservation_id"])
        assert settlement._ask(claimed) is Outcome.CAPTURED
        return Outcome.NOT_SENT

    monkeypatch.setattr(Gateway, "charge", frozen)


def test_nobody_turns_what_somebody_else_may_have_asked_for(
    shop: Shop, firms: Firms, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = shop.hold([1])
    somebody_else_asks_first(monkeypatch, held)

    assert shop.pay(held).pending
    due_now(held)
    payment.settle_due()

    assert shop.show(held)["status"] == "confirmed"
    assert taken(firms, held) == {"danal": PRICE, "payco": 0}
    assert audit().violations == SOUND


def test_turning_it_all_the_same_would_charge_twice(
    shop: Shop, firms: Firms, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = shop.hold([1])
    somebody_else_asks_first(monkeypatch, held)

    with without(Out("turn_payment", "v_payment.checks > 0 or ")):
        shop.pay(held)

    assert taken(firms, held) == {"danal": PRICE, "payco": PRICE}
    assert [each for each, found in audit().violations.items() if found] == ["I3"]
    gateway("danal").cancel(charge_of(shop, held).key)


def test_who_cancels_does_so_where_the_payment_is_now(
    shop: Shop, firms: Firms, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    primary().rows("update concert set refund_until = null where id = :id", id=shop.concert_id)
    held = shop.hold([1])
    firms["danal"].faults(mode="refuse")
    stale: list[settlement.OpenPayment] = []
    charge = Gateway.charge

    def looked_before(gateway: Gateway, asked: Charge, *args: Any, **how: Any) -> Outcome:
        if gateway.name == "danal":
            rows = primary().rows(_OPEN, reservation_id=held["reservation_id"])
            stale.append(settlement.read_open_payment(rows[0]))
            return charge(gateway, asked, *args, **how)
        outcome = charge(gateway, asked, *args, **how)
        firms["danal"].well()
        assert settlement.cancel_at_gateway(stale[0], give_up=True)
        return outcome

    monkeypatch.setattr(Gateway, "charge", looked_before)
    with pytest.raises(PaymentDeclined):
        shop.pay(held)

    assert shop.show(held)["status"] == "cancelled"
    assert taken(firms, held) == {"danal": 0, "payco": 0}
    assert audit().violations == SOUND


def test_who_has_said_that_they_cancel_is_not_charged_elsewhere(
    shop: Shop, firms: Firms, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, person = shop.hold([1]), shop.shopper().person
    charge = Gateway.charge

    def given_up(gateway: Gateway, asked: Charge, *args: Any, **how: Any) -> Outcome:
        firms["danal"].faults(mode="refuse")
        with pytest.raises(PaymentUnderWay):
            payment.cancel_reservation(held["reservation_id"], person)
        return charge(gateway, asked, *args, **how)

    monkeypatch.setattr(Gateway, "charge", given_up)
    pending = shop.pay(held)
    assert (pending.pending, pending.payment["gateway"]) == (True, "danal")
    assert shop.show(held)["payment"]["options"] == ["wait"]

    firms["danal"].well()
    due_now(held)
    payment.settle_due()
    assert shop.show(held)["status"] == "cancelled"
    assert taken(firms, held) == {"danal": 0, "payco": 0}
    assert audit().violations == SOUND


def hang(shop: Shop, firms: Firms, use_settings: Callable[..., None]) -> dict[str, Any]:
    """A reservation whose firm has taken the money and not said so until the payment's deadline."""
    use_settings(gateway_read_timeout_s=0.2, payment_answer_s_max=0.5)
    held = shop.hold([1])
    firms["danal"].faults(mode="approve_then_hang")
    assert shop.pay(held).pending
    firms["danal"].faults(mode="ok", error_rate=0)
    past_deadline(held)
    return held


def test_past_its_deadline_a_payment_is_cancelled_and_turns(
    shop: Shop, firms: Firms, use_settings: Callable[..., None], audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = hang(shop, firms, use_settings)
    find_nothing(monkeypatch)
    payment.settle_due()

    shown = shop.show(held)
    assert (shown["status"], shown["payment"]["gateway"]) == ("paying", "payco")
    assert taken(firms, held) == {"danal": 0, "payco": 0}
    assert story(shop, held) == ["payment.begun", "payment.pending", "payment.switched"]
    assert audit().violations == SOUND

    payment.settle_due()  # it is due at once
    assert shop.show(held)["status"] == "confirmed"
    assert taken(firms, held) == {"danal": 0, "payco": PRICE}
    assert shop.seat(1)["state"] == "sold"
    assert audit().violations == SOUND


def find_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """danal does not say what became of payments; it cancels them."""
    find = Gateway.find

    def silent(gateway: Gateway, key: str, **how: Any) -> Outcome:
        return Outcome.UNKNOWN if gateway.name == "danal" else find(gateway, key, **how)

    monkeypatch.setattr(Gateway, "find", silent)


def test_it_does_not_turn_when_the_hold_ends_too_soon(
    shop: Shop, firms: Firms, use_settings: Callable[..., None], audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = hang(shop, firms, use_settings)
    use_settings(payment_turn_s_min=10_000)
    find_nothing(monkeypatch)
    payment.settle_due()

    shown = shop.show(held)
    assert (shown["status"], shown["payment"]["status"]) == ("held", "declined")
    assert taken(firms, held) == {"danal": 0, "payco": 0}
    assert audit().violations == SOUND


def late_word_of_the_former(shop: Shop, firms: Firms, outcome: Outcome) -> dict[str, Any]:
    """A payment that has turned and waits at the other firm; then somebody records what the former said."""
    held = shop.hold([1])
    for firm in firms.values():
        firm.faults(mode="refuse")
    assert shop.pay(held).payment["gateway"] == "payco"
    settlement.settle(charge_of(shop, held), "danal", outcome)
    firms["payco"].well()
    return held


@pytest.mark.parametrize("outcome", [Outcome.CANCELLED, Outcome.CAPTURED])
def test_what_the_former_firm_says_decides_nothing(shop: Shop, firms: Firms, audit: Audit, outcome: Outcome) -> None:
    held = late_word_of_the_former(shop, firms, outcome)
    assert shop.show(held)["status"] == "paying"

    due_now(held)
    payment.settle_due()
    assert shop.show(held)["status"] == "confirmed"
    assert taken(firms, held) == {"danal": 0, "payco": PRICE}
    assert audit().violations == SOUND


def test_believing_the_former_firm_would_sell_for_nothing(shop: Shop, firms: Firms, audit: Audit) -> None:
    with without(Out("settle_payment", " or v_payment.gateway <> p_gateway")):
        held = late_word_of_the_former(shop, firms, Outcome.CAPTURED)

    assert shop.show(held)["status"] == "confirmed"
    assert [each for each, found in audit().violations.items() if found] == ["I3"]
    gateway("payco").charge(charge_of(shop, held))


def test_a_firm_that_takes_ten_seconds_is_answered_for_in_three(shop: Shop, firms: Firms) -> None:
    held = shop.hold([1])
    firms["danal"].faults(delay_ms=10_000)
    began_s = time.monotonic()

    assert shop.pay(held).pending
    assert time.monotonic() - began_s < 3

    firms["danal"].well()
    payment.cancel_reservation(held["reservation_id"], shop.shopper().person)  # what arrives late finds it cancelled
    assert taken(firms, held) == {"danal": 0, "payco": 0}


def test_a_decline_is_final(shop: Shop, firms: Firms, asked: list[tuple[str, str, str]]) -> None:
    with pytest.raises(PaymentDeclined):
        shop.pay(shop.hold([1]), method="card_declined")
    assert [name for name, _, _ in asked] == ["danal"]


def test_an_error_is_tried_again_under_the_same_key(
    shop: Shop, firms: Firms, asked: list[tuple[str, str, str]], audit: Audit
) -> None:
    held = shop.hold([1])
    firms["danal"].faults(error_rate=1)
    assert shop.pay(held).pending
    assert [name for name, _, _ in asked] == ["danal"] * 3

    firms["danal"].well()
    due_now(held)
    payment.settle_due()
    assert taken(firms, held) == {"danal": PRICE, "payco": 0}
    assert audit().violations == SOUND


def test_a_turn_that_may_not_be_recorded_is_not_made(
    shop: Shop, firms: Firms, audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = shop.hold([1])
    firms["danal"].faults(mode="refuse")
    document = Server.document

    def away(server: Server, sql: str, **how: Any) -> Any:
        if "turn_payment" in sql:
            raise DatabaseAway
        return document(server, sql, **how)

    monkeypatch.setattr(Server, "document", away)
    assert shop.pay(held).pending
    assert taken(firms, held) == {"danal": 0, "payco": 0}

    firms["danal"].well()
    due_now(held)
    payment.settle_due()
    assert taken(firms, held) == {"danal": PRICE, "payco": 0}
    assert audit().violations == SOUND


def test_the_job_measures_what_is_open(shop: Shop, firms: Firms, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: dict[str, float] = {}
    monkeypatch.setattr(
        "booking.payment.settlement.measure", lambda name, value, _unit, **which: measured.update({name: value})
    )
    monkeypatch.setattr(settlement, "_told_s", float("-inf"))
    for firm in firms.values():
        firm.faults(mode="refuse")
    assert shop.pay(shop.hold([1])).pending

    settlement.tell_what_is_open()
    assert measured["PaymentsOpen"] >= 1
    assert measured["GatewayCircuitOpen"] in (0, 1)


def checks(*held: dict[str, Any]) -> int:
    """How often the settling job, or somebody who looked, has taken these reservations' payments."""
    ids = [reservation["reservation_id"] for reservation in held]
    total: int = primary().value(
        "select sum(checks) from payment where reservation_id = any (cast(:ids as uuid[]))", ids=ids
    )
    return total


@pytest.fixture
def pending(shop: Shop, firms: Firms, use_settings: Callable[..., None]) -> list[dict[str, Any]]:
    """Reservations whose payments are open and due, since both firms refuse connections; no other tests' are due."""
    use_settings(gateway_tries_max=1, circuit_open_s=3_600)
    primary().rows(
        "update payment set next_check_at = now() + interval '1 hour' where status in ('pending', 'refunding')"
    )
    for firm in firms.values():
        firm.faults(mode="refuse")
    reservations = []
    for seat in (1, 2, 3, 4):
        reservations.append(shop.hold([seat], f"person-{seat}"))
        assert shop.pay(reservations[-1], f"person-{seat}").pending
        due_now(reservations[-1])
    return reservations


def open_lookups(firms: Firms) -> None:
    for name in firms:
        STORE.save_open(circuit_key(name, "lookups"), 1, 0)


def heal(firms: Firms) -> None:
    for firm in firms.values():
        firm.faults(mode="ok")
    forget_circuits()


def test_while_the_circuit_is_open_no_check_is_spent(
    shop: Shop, firms: Firms, pending: list[dict[str, Any]], audit: Audit
) -> None:
    open_lookups(firms)

    payment.settle_due()
    assert payment.show_settled(pending[0]["reservation_id"], shop.shopper("person-1").person)["status"] == "paying"
    assert checks(*pending) == 0

    heal(firms)
    assert payment.work() == len(pending)  # at once: none had been put off
    assert [shop.show(held, f"person-{nth}")["status"] for nth, held in enumerate(pending, start=1)] == [
        "confirmed"
    ] * len(pending)
    assert audit().violations == SOUND


def test_what_is_due_for_long_is_left_to_the_job_while_there_is_one(
    shop: Shop, firms: Firms, pending: list[dict[str, Any]]
) -> None:
    long_due, just_due, *_ = pending
    primary().rows(
        "update payment set next_check_at = clock_timestamp() - interval '5 seconds'"
        " where reservation_id = cast(:id as uuid)",
        id=long_due["reservation_id"],
    )
    heal(firms)

    def look(held: dict[str, Any], person: str) -> Any:
        return payment.show_settled(held["reservation_id"], shop.shopper(person).person)["status"]

    leader = Lease(payment.SETTLING_JOB)
    try:
        assert leader.held()
        assert look(long_due, "person-1") == "paying"
        assert look(just_due, "person-2") == "confirmed"
    finally:
        leader.release()
    assert look(long_due, "person-1") == "confirmed", "nobody else would ask"
    assert payment.work() == len(pending) - 2


def test_one_of_all_that_are_due_tries_whether_the_firm_is_back(firms: Firms, pending: list[dict[str, Any]]) -> None:
    open_lookups(firms)
    for name in firms:
        probe_is_due(circuit_key(name, "lookups"))

    payment.settle_due()

    assert checks(*pending) == 1  # all are at the firm that they turned to


def test_who_does_not_know_that_the_outcome_is_open_is_told_also_then(
    shop: Shop, firms: Firms, pending: list[dict[str, Any]]
) -> None:
    told = "select pending_at is not null from payment where reservation_id = cast(:id as uuid)"
    untold = pending[0]["reservation_id"]
    primary().rows("update payment set pending_at = null where reservation_id = cast(:id as uuid)", id=untold)
    open_lookups(firms)

    payment.settle_due()

    assert primary().value(told, id=untold)
    assert checks(*pending) == 1


def test_the_job_goes_on_while_it_settles_most_of_what_it_takes(
    firms: Firms, pending: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settlement, "_PAYMENTS_AT_ONCE", 1)
    heal(firms)

    assert payment.work() == len(pending)


def test_a_firm_that_takes_no_charges_holds_up_nobody_at_the_other(
    shop: Shop, firms: Firms, pending: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what it did, which is nothing, and its other circuit keeps charges away: as many as are asked for at once
    stay open. Somebody's payment at the other became due after them."""
    monkeypatch.setattr(settlement, "_PAYMENTS_AT_ONCE", 2)
    *stuck, other = pending
    heal(firms)
    STORE.save_open(circuit_key("danal", "charges"), 1, 0)
    for firm, of in (("danal", stuck), ("payco", [other])):
        for held in of:
            primary().rows(
                "update payment set gateway = :firm, turned_from = null, turned_at = null, turn_reason = null,"
                " next_check_at = clock_timestamp() where reservation_id = cast(:id as uuid)",
                firm=firm,
                id=held["reservation_id"],
            )

    assert payment.work() == 1
    assert shop.show(other, "person-4")["status"] == "confirmed"


_OPEN = """
select id::text, reservation_id::text, gateway, amount, currency, method, status, false, false, false
from payment where reservation_id = cast(:reservation_id as uuid)
"""


def test_an_outcome_that_the_database_took_with_it_is_told_as_unknown(
    shop: Shop, danal: SimulatedGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    monkeypatch.setattr("booking.seats.reservations.seats_may_have_changed", told.append)
    held = shop.hold([1])
    document = Server.document

    def cut(server: Server, sql: str, **how: Any) -> Any:
        found = document(server, sql, **how)
        if "settle_payment" in sql:
            wait_for_replica()
            raise DatabaseAway
        return found

    monkeypatch.setattr(Server, "document", cut)
    assert shop.pay(held).pending
    assert told == [shop.concert_id]
