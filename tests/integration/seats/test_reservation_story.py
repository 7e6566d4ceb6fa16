"""A reservation's story: what became of it from the first hold on, in one trip, from the ledger and its payments."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from booking import payment, seats
from booking.payment.problems import PaymentDeclined
from booking.platform.postgres import primary
from booking.seats.holds import expire_holds
from support.gateways import SimulatedGateway
from support.redis import runs_on
from support.shop import PRICE, Shop

pytestmark = runs_on("single")  # the story is Postgres's


def story(shop: Shop, reservation: dict[str, Any], name: str = "someone") -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = shop.show(reservation, name)["story"]
    moments = [datetime.fromisoformat(entry["at"]) for entry in told]
    assert moments == sorted(moments)
    return told


def events(shop: Shop, reservation: dict[str, Any], name: str = "someone") -> list[tuple[str, list[int] | None]]:
    return [(entry["event"], entry.get("seats")) for entry in story(shop, reservation, name)]


def settle_now(reservation: dict[str, Any]) -> None:
    primary().rows(
        "update payment set next_check_at = clock_timestamp() where reservation_id = cast(:id as uuid)",
        id=reservation["reservation_id"],
    )
    payment.settle_due()


def test_a_hold_that_is_given_back(shop: Shop) -> None:
    held = shop.hold([2, 1])

    [entry] = story(shop, held)
    assert entry == {"at": entry["at"], "event": "held", "seats": [1, 2], "until": held["expires_at"]}

    seats.release_hold(held["reservation_id"], shop.shopper().person)
    assert events(shop, held) == [("held", [1, 2]), ("released", [1, 2])]


def test_declined_extended_paid_and_refunded(
    shop: Shop, danal: SimulatedGateway, use_settings: Callable[..., None]
) -> None:
    use_settings(hold_ttl_s=30, payment_deadline_s=10)
    held = shop.hold([1])
    with pytest.raises(PaymentDeclined):
        shop.pay(held, method="card_declined")
    paid = shop.pay(held)
    payment.cancel_reservation(held["reservation_id"], shop.shopper().person)

    told = story(shop, held)
    assert [entry["event"] for entry in told] == [
        "held", "payment.begun", "payment.declined", "extended",
        "payment.begun", "payment.captured", "sold", "refunded", "payment.refunded",
    ]  # fmt: skip
    begun, declined = told[1:3]
    assert (begun["amount"], begun["method"]) == (PRICE, "card_declined")
    assert (declined["payment_id"], declined["detail"]) == (begun["payment_id"], "declined")
    assert told[3]["until"] > told[0]["until"]
    assert told[-1]["payment_id"] == paid.payment["payment_id"]
    assert "detail" not in told[-1]


def test_a_sale_tells_the_payment_before_the_seats(shop: Shop, danal: SimulatedGateway) -> None:
    held = shop.hold([1, 2])
    shop.pay(held)

    assert events(shop, held) == [
        ("held", [1, 2]), ("payment.begun", None), ("payment.captured", None), ("sold", [1, 2]),
    ]  # fmt: skip


def test_a_lapsed_hold_whose_seats_went_to_others(shop: Shop) -> None:
    lapsed = shop.hold([1, 2, 3], "slow")
    shop.lapse(lapsed)
    shop.hold([2], "next")
    expire_holds()

    assert events(shop, lapsed, "slow") == [("held", [1, 2, 3]), ("displaced", [2]), ("expired", [1, 3])]


def test_a_lapsed_hold_that_has_lost_every_seat_is_closed(shop: Shop) -> None:
    lapsed = shop.hold([1], "slow")
    shop.lapse(lapsed)
    shop.hold([1], "next")
    expire_holds()

    assert [entry["event"] for entry in story(shop, lapsed, "slow")] == ["held", "displaced", "closed"]
    assert story(shop, lapsed, "slow")[-1]["status"] == "expired"


def test_money_that_came_too_late(shop: Shop, danal: SimulatedGateway, use_settings: Callable[..., None]) -> None:
    use_settings(gateway_read_timeout_s=0.2)
    held = shop.hold([1], "late")
    danal.faults(mode="approve_then_hang")
    assert shop.pay(held, "late").pending
    danal.well()
    shop.lapse(held)
    shop.hold([1], "next")
    settle_now(held)
    settle_now(held)

    told = story(shop, held, "late")
    assert [entry["event"] for entry in told] == [
        "held", "payment.begun", "payment.pending", "displaced", "payment.captured", "closed", "payment.refunded",
    ]  # fmt: skip
    assert told[5]["status"] == "refunded"


def test_a_retaken_hold(shop: Shop, danal: SimulatedGateway, use_settings: Callable[..., None]) -> None:
    use_settings(gateway_read_timeout_s=0.2)
    held = shop.hold([1, 2], "late")
    danal.faults(mode="approve_then_hang")
    assert shop.pay(held, "late").pending
    danal.well()
    shop.lapse(held)
    settle_now(held)

    assert events(shop, held, "late") == [
        ("held", [1, 2]), ("payment.begun", None), ("payment.pending", None), ("payment.captured", None),
        ("sold", [1, 2]),
    ]  # fmt: skip
