"""What an asynchronous failover may leave: money without a payment goes back, events are published once more."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from booking.operations.audit import Verdict
from booking.operations.failover import LostCharge, lost_charges, publish_again, refund
from booking.payment import cancel_reservation
from booking.payment.gateways import Charge, Outcome, gateway
from booking.platform.postgres import Server, primary
from booking.platform.settings import settings
from support.gateways import SimulatedGateway
from support.shop import Shop


@pytest.fixture
def server() -> Iterator[Server]:
    with closing(Server(settings().database_url)) as server:
        yield server


def test_a_charge_whose_payment_was_lost_is_found_and_refunded(
    shop: Shop, danal: SimulatedGateway, server: Server
) -> None:
    held = shop.hold([1])
    shop.pay(held)
    key, order_id = str(uuid.uuid4()), held["reservation_id"]
    assert gateway("danal").charge(Charge(key, order_id, 7_000, "KRW", "card")) is Outcome.CAPTURED

    def lost() -> list[LostCharge]:
        found = lost_charges(server, {"danal": danal.panel_url})
        return [charge for charge in found if charge.order_id == order_id]

    assert lost() == [LostCharge("danal", key, order_id, 7_000)]
    assert refund(lost()[0])
    assert lost() == []
    assert shop.show(held)["status"] == "confirmed"


def test_a_charge_of_a_turn_that_was_lost_is_found(shop: Shop, danal: SimulatedGateway, server: Server) -> None:
    held = shop.hold([1])
    danal.faults(mode="refuse")
    turned = shop.pay(held).payment
    undo = (
        "update payment set gateway = :at, turned_from = :was, turned_at = {}, turn_reason = {}"
        " where id = cast(:id as uuid)"
    )
    primary().rows(undo.format("null", "null"), at="danal", was=None, id=turned["payment_id"])

    firms = {"payco": settings().payco_url}
    assert turned["payment_id"] in [charge.key for charge in lost_charges(server, firms)]

    again = undo.format("now()", "'not-sent'")
    primary().rows(again, at="payco", was="danal", id=turned["payment_id"])
    assert turned["payment_id"] not in [charge.key for charge in lost_charges(server, firms)]


def test_a_refund_whose_commit_was_lost_is_reported_and_settled_by_cancelling_once_more(
    shop: Shop, danal: SimulatedGateway, audit: Callable[[], Verdict]
) -> None:
    held = shop.hold([1])
    paid = shop.pay(held)
    assert gateway("danal").cancel(paid.payment["payment_id"]) is Outcome.CANCELLED

    reported = [subject for subject, _ in audit().violations["I3"]]
    cancel_reservation(held["reservation_id"], shop.shopper().person)

    subject = f"reservation {held['reservation_id']}"
    assert subject in reported
    assert subject not in [subject for subject, _ in audit().violations["I3"]]
    assert shop.show(held)["status"] == "refunded"


def test_a_key_that_is_none_of_ours_is_of_no_payment(danal: SimulatedGateway, server: Server) -> None:
    key = f"strange-{uuid.uuid4().hex}"
    assert gateway("danal").charge(Charge(key, str(uuid.uuid4()), 7, "KRW", "card")) is Outcome.CAPTURED

    assert key in [charge.key for charge in lost_charges(server, {"danal": danal.panel_url})]
    gateway("danal").cancel(key)


def test_the_last_events_are_published_again(shop: Shop, server: Server) -> None:
    held = shop.hold([1])
    published = "select published_at is not null from outbox where reservation_id = cast(:id as uuid)"
    primary().rows(
        "update outbox set published_at = now() - interval '5 seconds' where reservation_id = cast(:id as uuid)",
        id=held["reservation_id"],
    )

    publish_again(server, 1)
    assert server.value(published, id=held["reservation_id"])
    assert publish_again(server, 60) >= 1
    assert not server.value(published, id=held["reservation_id"])
