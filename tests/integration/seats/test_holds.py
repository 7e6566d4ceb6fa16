"""Holding seats: all or none, once for a key, within the limit, for a while."""

import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from booking import seats
from booking.operations.audit import Verdict
from booking.platform.postgres import DatabaseAway, Server, primary
from booking.platform.problems import BadRequest
from booking.queue import TurnOver
from booking.seats import ReservationUnknown, release_hold
from booking.seats.holds import expire_holds, forget_old_keys
from booking.seats.locks import seat_locks
from booking.seats.problems import (
    KeyReused,
    OverLimit,
    PassOfAnotherConcert,
    SaleClosed,
    ScheduleUnknown,
    SeatsUnknown,
    SeatTaken,
)
from support.shop import PRICE, Shop, new_key
from support.sound import SOUND


def test_a_hold_sets_the_seats_aside_and_says_until_when(shop: Shop) -> None:
    held = shop.hold([2, 1])

    assert held["status"] == "held"
    assert held["seats"] == [1, 2]
    assert held["total"] == 2 * PRICE
    assert held["currency"] == "KRW"
    left = datetime.fromisoformat(held["expires_at"]) - datetime.now(UTC)
    assert timedelta(seconds=290) < left <= timedelta(seconds=300)
    assert shop.seat(1)["state"] == shop.seat(2)["state"] == "held"
    assert shop.ledger(1) == ["held"]
    assert shop.events(held) == ["reservation.held"]


def test_all_seats_or_none(shop: Shop) -> None:
    shop.hold([2], "first")

    with pytest.raises(SeatTaken) as refused:
        shop.hold([1, 2, 3], "second")

    assert refused.value.members["seats"] == [2]
    assert shop.seat(1)["state"] == shop.seat(3)["state"] == "available"
    assert shop.ledger(1) == []


def test_the_same_key_and_body_get_the_same_answer_and_no_second_hold(shop: Shop) -> None:
    key = new_key()

    assert shop.hold([1], key=key) == shop.hold([1], key=key)
    assert shop.ledger(1) == ["held"]


def test_the_same_key_with_another_body_is_refused(shop: Shop) -> None:
    key = new_key()
    shop.hold([1], key=key)

    with pytest.raises(KeyReused):
        shop.hold([2], key=key)
    assert shop.seat(2)["state"] == "available"


def test_a_key_is_its_persons_own(shop: Shop) -> None:
    key = new_key()

    assert shop.hold([1], "first", key)["seats"] == [1]
    assert shop.hold([2], "second", key)["seats"] == [2]


def test_a_refusal_is_judged_anew(shop: Shop) -> None:
    key = new_key()
    taken = shop.hold([1], "first")
    with pytest.raises(SeatTaken):
        shop.hold([1], "second", key)

    release_hold(taken["reservation_id"], shop.shopper("first").person)

    assert shop.hold([1], "second", key)["seats"] == [1]


def test_nobody_gets_over_the_limit(shop: Shop) -> None:
    shop.hold([1, 2, 3])

    with pytest.raises(OverLimit) as refused:
        shop.hold([4, 5])

    assert refused.value.members == {"limit": 4, "has": 3}
    assert shop.hold([4])["seats"] == [4]


@pytest.mark.parametrize("numbers", [[], [1, 2, 3, 4, 5], [1, 1]])
def test_a_senseless_request_is_refused(shop: Shop, numbers: list[int]) -> None:
    with pytest.raises(BadRequest):
        shop.hold(numbers)


def test_unknown_seats_and_schedules_are_named(shop: Shop) -> None:
    with pytest.raises(SeatsUnknown) as refused:
        shop.hold([1, 999])
    assert refused.value.members["seats"] == [999]
    with pytest.raises(ScheduleUnknown):
        seats.hold_seats(shop.attempt("someone"), 2**62, [1])


def test_a_pass_opens_its_own_concert_only(shop: Shop) -> None:
    other = Shop.open()

    with pytest.raises(PassOfAnotherConcert):
        seats.hold_seats(other.attempt("someone"), shop.concert_id, [1])
    with pytest.raises(PassOfAnotherConcert):
        seats.show_seat_map(shop.concert_id, other.concert_id)


def test_a_pass_whose_turn_is_over_holds_nothing(shop: Shop) -> None:
    shopper = shop.shopper()
    primary().rows(
        "select end_admission(:pass_id, cast(:concert_id as bigint), :person, 'left', clock_timestamp())",
        pass_id=shopper.pass_id,
        concert_id=shop.concert_id,
        person=shopper.person,
    )

    with pytest.raises(TurnOver):
        shop.hold([1])


def test_a_released_hold_gives_the_seats_back(shop: Shop) -> None:
    held = shop.hold([1, 2])
    person = shop.shopper().person

    assert release_hold(held["reservation_id"], person) == "cancelled"
    assert release_hold(held["reservation_id"], person) == "cancelled"

    assert shop.seat(1)["state"] == "available"
    assert shop.ledger(1) == ["held", "released"]
    assert shop.events(held) == ["reservation.held", "reservation.cancelled"]
    assert shop.hold([1, 2], "next")["status"] == "held"


def test_a_strangers_reservation_is_unknown(shop: Shop) -> None:
    held = shop.hold([1])
    stranger = shop.shopper("stranger").person

    with pytest.raises(ReservationUnknown):
        seats.show_reservation(held["reservation_id"], stranger)
    with pytest.raises(ReservationUnknown):
        release_hold(held["reservation_id"], stranger)
    with pytest.raises(ReservationUnknown):
        release_hold(str(uuid.uuid4()), stranger)
    assert shop.seat(1)["state"] == "held"


def test_a_lapsed_hold_is_free_before_anybody_sweeps(shop: Shop, audit: Callable[[], Verdict]) -> None:
    lapsed = shop.hold([1, 2], "slow")
    shop.lapse(lapsed)

    assert shop.show(lapsed, "slow")["status"] == "expired"
    assert shop.map_state(1) == "available"
    assert shop.hold([2], "next")["seats"] == [2]
    assert audit().violations == SOUND


def test_the_sweeper_puts_back_what_is_still_the_lapsed_holds_own(shop: Shop, audit: Callable[[], Verdict]) -> None:
    lapsed = shop.hold([1, 2], "slow")
    shop.lapse(lapsed)
    taken = shop.hold([2], "next")

    assert expire_holds() >= 1

    assert shop.ledger(1) == ["held", "expired"]
    assert shop.ledger(2) == ["held", "held"]
    assert shop.seat(2)["reservation_id"] == taken["reservation_id"]
    assert shop.events(lapsed) == ["reservation.held", "reservation.expired"]
    assert audit().violations == SOUND


def test_lapsed_holds_do_not_count_towards_the_limit(shop: Shop) -> None:
    shop.lapse(shop.hold([1, 2, 3, 4]))

    assert shop.hold([5, 6, 7, 8])["status"] == "held"


def test_a_key_is_kept_for_a_day(shop: Shop) -> None:
    key, kept = new_key(), new_key()
    shop.hold([1], key=key)
    shop.hold([2], key=kept)
    primary().rows("update idempotency set created_at = created_at - interval '25 hours' where key = :key", key=key)

    assert shop.hold([3], key=key)["seats"] == [3]  # as if it were new, even before anybody forgets it
    primary().rows("update idempotency set created_at = created_at - interval '25 hours' where key = :key", key=key)
    assert forget_old_keys() >= 1
    assert primary().value("select count(*) from idempotency where key = any (:keys)", keys=[key, kept]) == 1


def test_redis_away_leaves_postgres_to_decide(shop: Shop, use_settings: Callable[..., None]) -> None:
    use_settings(locks_redis_url="redis://127.0.0.1:1/0")

    assert shop.hold([1], "first")["status"] == "held"
    with pytest.raises(SeatTaken):
        shop.hold([1], "second")


def test_a_retry_gets_its_answer_while_others_fight_for_the_seats(
    shop: Shop, use_settings: Callable[..., None]
) -> None:
    use_settings(seat_lock_wait_ms_max=50)
    key = new_key()
    held = shop.hold([1], key=key)
    with seat_locks(shop.concert_id, [1], "somebody else"):
        assert shop.hold([1], key=key) == held
        with pytest.raises(SeatTaken):
            shop.hold([1], "rival")


@pytest.mark.parametrize("fault", ["the process dies", "the connection is cut"])
def test_so_does_the_retry_of_who_never_heard_of_their_hold(
    shop: Shop, use_settings: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    key, hold_seats = new_key(), Server.document

    def lost(server: Server, sql: str, **parameters: Any) -> None:
        hold_seats(server, sql, **parameters)  # committed, and nobody hears of it
        raise DatabaseAway

    with monkeypatch.context() as faulty, use_settings(seat_lock_ttl_ms=1), suppress(DatabaseAway):
        if fault == "the process dies":
            faulty.setattr("booking.seats.locks.run_together", lambda _: None)  # nor unlocks anything
        else:
            faulty.setattr(Server, "document", lost)
        shop.hold([1], key=key)
    use_settings(seat_lock_wait_ms_max=50)

    with seat_locks(shop.concert_id, [1], "somebody.else"):
        assert shop.hold([1], key=key)["seats"] == [1]
        with pytest.raises(SeatTaken):
            shop.hold([1], "rival")
    assert shop.ledger(1) == ["held"]


def test_a_closed_sale_holds_nothing(shop: Shop) -> None:
    primary().rows("update concert set sales_closed_at = now() where id = :id", id=shop.concert_id)

    with pytest.raises(SaleClosed):
        shop.hold([1])


def test_seats_that_others_are_busy_with_are_refused_after_a_moment(
    shop: Shop, use_settings: Callable[..., None]
) -> None:
    use_settings(seat_lock_wait_ms_max=50)
    with seat_locks(shop.concert_id, [2], "somebody else"), pytest.raises(SeatTaken) as refused:
        shop.hold([1, 2, 3])

    assert refused.value.members["seats"] == [2]
    assert shop.hold([1, 2, 3])["status"] == "held"
