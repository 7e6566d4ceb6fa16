"""Reconciliation: whatever a firm's book and the payments disagree on is found, and healed where that is safe.

With a database and payment firms of its own: what is broken here stays broken.
"""

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from booking import payment
from booking.operations import reconciliation
from booking.operations.reconciliation import Kind, Reconciliation, State, copy_book, reconcile
from booking.payment.books import BookUnreadable
from booking.payment.gateways import Charge, Outcome, gateway
from booking.payment.problems import PaymentDeclined
from booking.platform.postgres import Server, primary
from booking.platform.settings import settings
from encore_stack.instance import PROJECT_DIR
from encore_stack.sample_events import event_from, outcome_of, samples_of
from fast_gateway.functions import Context, load_handler
from support.gateways import SimulatedGateway
from support.shop import PRICE, Shop, begin_without_gateway, settle_without_gateway

Gateways = dict[str, SimulatedGateway]
_LONG_AGO_S = 3_600


@pytest.fixture(scope="module")
def database_url(make_database: Callable[[str], str]) -> str:
    return make_database("encore_reconciliation")


@pytest.fixture(scope="module")
def gateways(make_gateways: Callable[[], Gateways]) -> Gateways:
    return make_gateways()


@pytest.fixture(autouse=True)
def nobody_knows_other_firms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("booking.payment.gateways.firms._gateways", {})


@pytest.fixture
def server() -> Iterator[Server]:
    with closing(Server(settings().database_url)) as server:
        yield server


Look = Callable[..., list[tuple[Kind, State]]]


@pytest.fixture
def look(server: Server, gateways: Gateways) -> Look:
    """What is found of a reservation (or an order): ``look(order_id)``, ``look(order_id, heal=True)``."""

    def look(order_id: str, *, heal: bool = False) -> list[tuple[Kind, State]]:
        found = run(server, gateways, heal=heal)
        return [(each.kind, each.state) for each in found.differences if each.facts.order_id == order_id]

    return look


def run(server: Server, gateways: Gateways, *, heal: bool = False) -> Reconciliation:
    return reconcile(server, {name: firm.panel_url for name, firm in gateways.items()}, heal=heal)


def charge(firm: str, key: str, order_id: str, amount: int = PRICE, currency: str = "KRW") -> None:
    assert gateway(firm).charge(Charge(key, order_id, amount, currency, "card")) is Outcome.CAPTURED


def status_of(payment_id: str) -> str:
    return str(primary().value("select status from payment where id = cast(:id as uuid)", id=payment_id))


def test_a_sale_as_it_should_be_has_no_differences_and_its_books_are_read_once(
    shop: Shop, danal: SimulatedGateway, server: Server, gateways: Gateways
) -> None:
    shop.pay(shop.hold([1], "bought"), "bought")
    refunded = shop.hold([2], "refunded")
    shop.pay(refunded, "refunded")
    payment.cancel_reservation(refunded["reservation_id"], shop.shopper("refunded").person)
    with pytest.raises(PaymentDeclined):
        shop.pay(shop.hold([3], "declined"), "declined", method="card_declined")
    shop.pass_time(_LONG_AGO_S)

    first, second = run(server, gateways), run(server, gateways)

    assert first.differences == second.differences == []
    assert first.entries_new["danal"] >= 3
    assert second.entries_new == {"danal": 0, "payco": 0}


def test_what_was_captured_and_never_heard_of_is_in_flight_then_looked_at_now(
    shop: Shop, danal: SimulatedGateway, use_settings: Callable[..., object], look: Look
) -> None:
    use_settings(gateway_read_timeout_s=0.2)
    held = shop.hold([1])
    danal.faults(mode="approve_then_hang")
    assert shop.pay(held).pending
    danal.well()
    order_id = held["reservation_id"]

    assert look(order_id, heal=True) == [(Kind.NOT_RECORDED, State.IN_FLIGHT)]
    shop.pass_time(_LONG_AGO_S)
    assert look(order_id) == [(Kind.NOT_RECORDED, State.LEFT)]
    assert look(order_id, heal=True) == [(Kind.NOT_RECORDED, State.HEALED)]
    assert payment.settle_due() >= 1
    assert shop.show(held)["status"] == "confirmed"
    assert look(order_id) == []


@pytest.mark.parametrize("status", ["declined", "refunded"])
def test_money_that_lies_at_the_firm_for_nothing_goes_back(
    shop: Shop, danal: SimulatedGateway, look: Look, status: str
) -> None:
    held = shop.hold([1])
    payment_id = begin_without_gateway(shop, held)["payment"]["payment_id"]
    charge("danal", payment_id, held["reservation_id"])
    settle_without_gateway(payment_id, "declined")
    primary().rows("update payment set status = :status where id = cast(:id as uuid)", status=status, id=payment_id)
    kind = {"declined": Kind.TAKEN_FOR_NOTHING, "refunded": Kind.REFUND_OWED}[status]

    assert look(held["reservation_id"], heal=True) == [(kind, State.IN_FLIGHT)]
    shop.pass_time(_LONG_AGO_S)
    assert look(held["reservation_id"], heal=True) == [(kind, State.HEALED)]
    assert danal.charged(held["reservation_id"]) == 0
    assert look(held["reservation_id"]) == []


def test_a_charge_whose_payment_was_lost_goes_back(danal: SimulatedGateway, look: Look) -> None:
    order_id = str(uuid.uuid4())
    charge("danal", str(uuid.uuid4()), order_id)

    assert look(order_id) == [(Kind.LOST_PAYMENT, State.LEFT)]
    assert look(order_id, heal=True) == [(Kind.LOST_PAYMENT, State.HEALED)]
    assert danal.charged(order_id) == 0


def test_many_charges_without_a_payment_are_left_to_a_person(
    danal: SimulatedGateway, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = [str(uuid.uuid4()) for _ in range(2)]
    for order_id in orders:
        charge("danal", str(uuid.uuid4()), order_id)

    monkeypatch.setattr(reconciliation, "LOST_REFUNDS_MAX", 1)
    assert [look(order_id, heal=True) for order_id in orders] == [[(Kind.LOST_PAYMENT, State.LEFT)]] * 2
    assert [danal.charged(order_id) for order_id in orders] == [PRICE, PRICE]

    monkeypatch.setattr(reconciliation, "LOST_REFUNDS_MAX", 2)  # without the bound they do go back
    look(orders[0], heal=True)
    assert [danal.charged(order_id) for order_id in orders] == [0, 0]


def test_a_charge_under_a_strange_key_is_left_alone(danal: SimulatedGateway, look: Look) -> None:
    order_id, key = str(uuid.uuid4()), f"strange-{uuid.uuid4().hex}"
    charge("danal", key, order_id)

    assert look(order_id, heal=True) == [(Kind.UNKNOWN_KEY, State.LEFT)]
    assert danal.charged(order_id) == PRICE
    gateway("danal").cancel(key)


def test_a_ticket_that_nobody_paid_for_is_reported(shop: Shop, danal: SimulatedGateway, look: Look) -> None:
    held = shop.hold([1])
    settle_without_gateway(begin_without_gateway(shop, held)["payment"]["payment_id"], "captured")

    assert look(held["reservation_id"]) == [(Kind.NOT_CHARGED, State.IN_FLIGHT)]
    shop.pass_time(_LONG_AGO_S)
    assert look(held["reservation_id"], heal=True) == [(Kind.NOT_CHARGED, State.LEFT)]
    assert shop.show(held)["status"] == "confirmed"


def test_a_ticket_whose_money_went_back_is_reported(shop: Shop, danal: SimulatedGateway, look: Look) -> None:
    held = shop.hold([1])
    gateway("danal").cancel(shop.pay(held).payment["payment_id"])
    shop.pass_time(_LONG_AGO_S)

    assert look(held["reservation_id"], heal=True) == [(Kind.REFUNDED_AT_FIRM, State.LEFT)]


@pytest.mark.parametrize("went_back", [False, True], ids=["owed", "not-recorded"])
def test_a_refund_that_hangs_is_looked_at_now(shop: Shop, danal: SimulatedGateway, look: Look, went_back: bool) -> None:
    held = shop.hold([1])
    payment_id = shop.pay(held).payment["payment_id"]
    danal.faults(mode="refuse")
    payment.cancel_reservation(held["reservation_id"], shop.shopper().person)
    danal.well()
    if went_back:
        gateway("danal").cancel(payment_id)
    kind = Kind.REFUND_NOT_RECORDED if went_back else Kind.REFUND_OWED

    assert look(held["reservation_id"]) == [(kind, State.IN_FLIGHT)]
    shop.pass_time(_LONG_AGO_S)
    primary().rows("update payment set next_check_at = now() + interval '1 hour'")
    assert payment.settle_due() == 0
    assert look(held["reservation_id"], heal=True) == [(kind, State.HEALED)]
    assert payment.settle_due() == 1
    assert status_of(payment_id) == "refunded"
    assert look(held["reservation_id"]) == []


@pytest.mark.parametrize(
    ("booked", "kind"),
    [
        ({"amount": PRICE + 1}, Kind.AMOUNT_DIFFERS),
        ({"currency": "USD"}, Kind.AMOUNT_DIFFERS),
        ({"order_id": str(uuid.uuid4())}, Kind.OTHER_RESERVATION),
    ],
    ids=["amount", "currency", "reservation"],
)
def test_a_charge_that_is_not_what_was_asked_for_is_reported(
    shop: Shop, danal: SimulatedGateway, look: Look, booked: dict[str, object], kind: Kind
) -> None:
    held = shop.hold([1])
    payment_id = begin_without_gateway(shop, held)["payment"]["payment_id"]
    as_asked: dict[str, object] = {"order_id": held["reservation_id"]}
    charge("danal", payment_id, **(as_asked | booked))  # type: ignore[arg-type]
    settle_without_gateway(payment_id, "captured")
    shop.pass_time(_LONG_AGO_S)

    assert look(str((as_asked | booked)["order_id"]), heal=True) == [(kind, State.LEFT)]


def test_of_two_charges_at_two_firms_the_one_too_much_goes_back(
    shop: Shop, danal: SimulatedGateway, gateways: Gateways, look: Look
) -> None:
    held = shop.hold([1])
    payment_id = shop.pay(held).payment["payment_id"]
    charge("payco", payment_id, held["reservation_id"])

    assert look(held["reservation_id"], heal=True) == [(Kind.CHARGED_TWICE, State.IN_FLIGHT)]
    shop.pass_time(_LONG_AGO_S)
    assert look(held["reservation_id"], heal=True) == [(Kind.CHARGED_TWICE, State.HEALED)]
    assert danal.charged(held["reservation_id"]) == PRICE
    assert gateways["payco"].charged(held["reservation_id"]) == 0
    assert look(held["reservation_id"]) == []


def test_a_charge_that_may_be_all_there_is_stays(
    shop: Shop, danal: SimulatedGateway, gateways: Gateways, look: Look
) -> None:
    held = shop.hold([1])
    payment_id = begin_without_gateway(shop, held)["payment"]["payment_id"]
    charge("payco", payment_id, held["reservation_id"])
    settle_without_gateway(payment_id, "captured")
    shop.pass_time(_LONG_AGO_S)

    found = look(held["reservation_id"], heal=True)

    assert sorted(found) == sorted([(Kind.ELSEWHERE, State.LEFT), (Kind.NOT_CHARGED, State.LEFT)])
    assert gateways["payco"].charged(held["reservation_id"]) == PRICE


def test_a_book_that_cannot_be_read_is_said_and_the_other_is_compared(
    shop: Shop, danal: SimulatedGateway, server: Server, gateways: Gateways
) -> None:
    lost_at_payco = str(uuid.uuid4())
    charge("payco", str(uuid.uuid4()), lost_at_payco)
    danal.faults(mode="refuse")

    found = reconcile(server, {name: firm.url for name, firm in gateways.items()}, heal=True)

    assert list(found.unread) == ["danal"] and "cannot be read" in found.unread["danal"]
    assert {each.facts.gateway for each in found.differences} == {"payco"}
    assert gateways["payco"].charged(lost_at_payco) == 0


def test_nothing_is_concluded_from_a_copy_of_another_book(server: Server, danal: SimulatedGateway) -> None:
    server.rows("insert into book_entry values ('replaced', 7, 'charge', 'somebody', 'elses', 1, 'KRW', now())")

    with pytest.raises(BookUnreadable, match="no longer has its entry 7 as it was"):
        copy_book(server, "replaced", danal.panel_url)


def test_the_job_reports_and_measures(
    shop: Shop, danal: SimulatedGateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    held = shop.hold([1])
    settle_without_gateway(begin_without_gateway(shop, held)["payment"]["payment_id"], "captured")
    shop.pass_time(_LONG_AGO_S)
    charge("danal", str(uuid.uuid4()), str(uuid.uuid4()))
    monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", "false")
    [sample] = samples_of(PROJECT_DIR, "every_hour_reconcile_payments")
    file = PROJECT_DIR / "functions" / sample.function / "app.py"
    handler = load_handler(sample.function, file, "handler", f"encore-{sample.function}")

    event = event_from(sample.text, lambda name, argument: pytest.fail("a schedule has no papers"))
    report = handler(event, Context(sample.function, 300, 512, "request"))

    assert outcome_of(report, is_error=False) == sample.outcome
    assert report["differences"] >= 1 and report["healed"] == 1 and report["unread"] == []
    measured = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "Reconciliation" in line]
    assert {"ReconciliationDifferences": [report["differences"]], "ReconciliationHealed": [1.0]}.items() <= {
        name: value for each in measured for name, value in each.items() if name.startswith("Reconciliation")
    }.items()
