"""Races of 2 to 500 people over 1 to 50 seats, by function and over HTTP: each seat is sold once, losers know why."""

from collections.abc import Callable, Sequence

import pytest

from booking.operations.audit import Verdict
from support.races import Answer, Wish, all_by_function, all_over_http, assert_sold_once, make_wishes
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

    assert len(winners) == 1 if seats == 1 else winners
    assert run([wish for wish, _ in winners]) == [answer for _, answer in winners], "a retry got another answer"
    assert audit().violations == SOUND


@pytest.mark.parametrize(("people", "seats"), BY_FUNCTION)
def test_by_function(people: int, seats: int, audit: Callable[[], Verdict]) -> None:
    assert_race(all_by_function, people, seats, audit)


@pytest.mark.parametrize(("people", "seats"), OVER_HTTP)
def test_over_http(url: str, people: int, seats: int, audit: Callable[[], Verdict]) -> None:
    assert_race(lambda wishes: all_over_http(url, wishes), people, seats, audit)
