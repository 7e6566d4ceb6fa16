"""The audit's negative controls: break one rule behind the code's back, and it must report exactly that."""

from collections.abc import Callable

import pytest

from booking import seats
from booking.operations.audit import AuditImpossible, Auditor, Verdict
from booking.platform.postgres import primary
from support.gateways import SimulatedGateway
from support.shop import Shop, confirm_without_gateway

Audit = Callable[[], Verdict]


def broken(verdict: Verdict) -> set[str]:
    return {name for name, found in verdict.violations.items() if found}


@pytest.fixture
def breakable(make_database: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh database of the test's own, since what is broken here stays broken."""
    monkeypatch.setenv("ENCORE_DATABASE_URL", make_database("encore_broken"))
    from booking.platform.settings import settings

    settings.cache_clear()


@pytest.fixture
def look(breakable: None, gateways: dict[str, SimulatedGateway]) -> Callable[[], set[str]]:
    """The names of the invariants that the audit finds broken, in the breakable database and no gateway's book."""
    from booking.platform.settings import settings

    def look() -> set[str]:
        auditor = Auditor(settings().database_url, [])
        try:
            return broken(auditor.audit())
        finally:
            auditor.close()

    return look


def force(*statements: str) -> None:
    """Change tables that only functions may change, with their triggers off."""
    for statement in statements:
        primary().rows(statement)


def test_a_sound_sale_passes(shop: Shop, danal: SimulatedGateway, audit: Audit) -> None:
    shop.pay(shop.hold([1, 2]))
    shop.hold([3], "other")

    assert broken(audit()) == set()


def test_i1_two_live_reservations_of_one_seat(look: Callable[[], set[str]]) -> None:
    shop = Shop.open()
    first, second = shop.hold([1], "first"), shop.hold([2], "second")
    force(f"update reservation set seats = '{{1}}' where id = '{second['reservation_id']}'")
    assert first["seats"] == [1]

    assert look() == {"I1"}


def test_i1_a_seat_held_for_a_reservation_that_is_over(look: Callable[[], set[str]]) -> None:
    shop = Shop.open()
    held = shop.hold([1])
    force(f"update reservation set status = 'cancelled' where id = '{held['reservation_id']}'")

    assert look() == {"I1"}


def test_i1_a_seat_held_for_longer_than_its_reservation(look: Callable[[], set[str]]) -> None:
    shop = Shop.open()
    held = shop.hold([1])
    force(f"update reservation set expires_at = expires_at - interval '1 minute' where id = '{held['reservation_id']}'")

    assert look() == {"I1"}


def test_i2_confirmed_for_less_than_the_seats_cost(look: Callable[[], set[str]]) -> None:
    shop = Shop.open()
    reservation_id = confirm_without_gateway(shop, [1])
    force(
        f"update reservation set total = 1 where id = '{reservation_id}'",
        f"update payment set amount = 1 where reservation_id = '{reservation_id}'",
    )

    assert "I2" in look()


def test_i2_confirmed_without_a_payment(look: Callable[[], set[str]]) -> None:
    shop = Shop.open()
    reservation_id = confirm_without_gateway(shop, [1])
    force(f"update payment set status = 'declined' where reservation_id = '{reservation_id}'")

    assert "I2" in look()


def test_i2_confirmed_for_another_amount(look: Callable[[], set[str]]) -> None:
    shop = Shop.open()
    reservation_id = confirm_without_gateway(shop, [1])
    force(f"update payment set amount = 1 where reservation_id = '{reservation_id}'")

    assert "I2" in look()


def test_i3_a_charge_that_no_reservation_accounts_for(
    shop: Shop, danal: SimulatedGateway, gateways: dict[str, SimulatedGateway], audit: Audit, database_url: str
) -> None:
    held = shop.hold([1])
    shop.pay(held)
    # The same book seen with another's: the money is there twice.
    auditor = Auditor(database_url, [gateway.panel_url for gateway in (*gateways.values(), gateways["danal"])])
    try:
        assert broken(auditor.audit()) == {"I3"}
    finally:
        auditor.close()
    assert broken(audit()) == set()


def test_i3_a_confirmed_reservation_that_nobody_paid_for(look: Callable[[], set[str]]) -> None:
    confirm_without_gateway(Shop.open(), [1])

    assert look() == {"I3"}


def test_i7_a_seat_changed_without_its_ledger(look: Callable[[], set[str]]) -> None:
    shop = Shop.open()
    force(f"update seat set version = version + 1 where schedule_id = {shop.concert_id} and number = 1")

    assert look() == {"I7"}


def test_i7_a_ledger_entry_that_the_rules_do_not_allow(look: Callable[[], set[str]]) -> None:
    shop = Shop.open()
    shop.hold([1])
    force(
        "alter table seat_ledger disable trigger append_only",
        f"update seat_ledger set event = 'refunded' where schedule_id = {shop.concert_id} and number = 1",
    )

    assert look() == {"I7"}


def test_i8_a_hold_past_its_cap(look: Callable[[], set[str]]) -> None:
    shop = Shop.open()
    held = shop.hold([1])
    force(
        "alter table seat_ledger disable trigger append_only",
        *(
            f"update {table} set held_until = held_until + interval '1 hour'"
            f" where reservation_id = '{held['reservation_id']}'"
            for table in ("seat", "seat_ledger")
        ),
    )

    assert look() == {"I8"}


def test_i8_a_cap_further_off_than_the_rule_allows(look: Callable[[], set[str]]) -> None:
    shop = Shop.open()
    held = shop.hold([1])
    force(f"update reservation set hard_cap_at = hard_cap_at + interval '1 s' where id = '{held['reservation_id']}'")

    assert look() == {"I8"}


def test_i9_more_seats_than_the_limit(look: Callable[[], set[str]]) -> None:
    shop = Shop.open()
    shop.hold([1, 2, 3])
    force(f"update concert set seats_per_person_max = 2 where id = {shop.concert_id}")

    assert look() == {"I9"}


def test_i9_more_seats_than_the_limit_at_some_time_in_the_past(look: Callable[[], set[str]]) -> None:
    shop = Shop.open(limit=4)
    first, second = shop.hold([1, 2, 3], "first"), shop.hold([4, 5, 6], "second")
    force(
        f"update reservation set person = '{shop.shopper('first').person}' where id = '{second['reservation_id']}'",
    )
    for held in (first, second):
        seats.release_hold(held["reservation_id"], shop.shopper("first").person)

    assert look() == {"I9"}


def test_the_ledger_and_the_gates_history_refuse_to_be_changed(shop: Shop) -> None:
    shop.hold([1])

    for statement in ("update seat_ledger set event = 'sold'", "delete from seat_ledger", "delete from gate_change"):
        with pytest.raises(Exception, match="append-only"):
            primary().rows(statement)


def test_a_book_that_cannot_be_read_is_no_pass(database_url: str) -> None:
    auditor = Auditor(database_url, ["http://127.0.0.1:1"])
    with pytest.raises(AuditImpossible, match="cannot be read"):
        auditor.audit()
    auditor.close()


def test_settling_waits_for_work_and_gives_up_in_time(shop: Shop, database_url: str) -> None:
    shop.hold([1])  # its event is not published: no relay works on this database
    auditor = Auditor(database_url, [])
    seen: list[int] = []
    try:
        assert not auditor.settle(0.5, lambda waiting: seen.append(waiting["events unpublished"]))
    finally:
        auditor.close()
    assert seen
