"""Races of 2 to 500 people over 1 to 50 seats, by function and over HTTP: each seat is sold once, losers know why."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from booking.operations.audit import Verdict
from booking.seats import release_hold
from support.locked import seats_locked, wait_until_some_wait, waiting
from support.races import Answer, Wish, all_by_function, all_over_http, assert_sold_once, make_wishes, outcome_of
from support.shop import Shop
from support.sound import SOUND

pytestmark = pytest.mark.race

OVER_HTTP = [(2, 1), (12, 3), (60, 8), (200, 20), (500, 1), (500, 50)]
BY_FUNCTION = [(2, 1), (60, 8), (500, 50)]
"""People, seats."""


def assert_race(
    run: Callable[[Sequence[Wish]], list[Answer]], people: int, seats: int, audit: Callable[[], Verdict]
) -> None:
    wishes = make_wishes(Shop.open(seats=seats), people, seats)

    winners = assert_sold_once(wishes, run(wishes))

    assert len(winners) == 1 if seats == 1 else len(winners) > 1
    assert run([wish for wish, _ in winners]) == [answer for _, answer in winners], "a retry got another answer"
    assert audit().violations == SOUND


def test_who_swaps_seats_has_at_no_time_had_both(audit: Callable[[], Verdict]) -> None:
    shop = Shop.open()
    first = shop.hold([1, 2, 3, 4])

    with ThreadPoolExecutor(2) as both:
        with seats_locked(shop, [5]):
            taking = both.submit(outcome_of, lambda: shop.hold([5, 6]))
            wait_until_some_wait(1)
            giving_back = both.submit(release_hold, first["reservation_id"], shop.shopper().person)
            while not giving_back.done() and not waiting("cancel_hold"):
                time.sleep(0.005)
        assert giving_back.result() == "cancelled"

    assert taking.result() in ("held", "over-limit")
    assert audit().violations == SOUND


@pytest.mark.parametrize(("people", "seats"), BY_FUNCTION)
def test_by_function(people: int, seats: int, audit: Callable[[], Verdict]) -> None:
    assert_race(all_by_function, people, seats, audit)


@pytest.mark.parametrize(("people", "seats"), OVER_HTTP)
def test_over_http(url: str, people: int, seats: int, audit: Callable[[], Verdict]) -> None:
    assert_race(lambda wishes: all_over_http(url, wishes), people, seats, audit)
