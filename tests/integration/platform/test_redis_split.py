"""The line, the locks and the cache on servers of their own: each of them may die alone."""

import httpx
import pytest

from booking.platform.redis import Endpoint, redis
from encore_stack.stack import Stack
from support.client import Person, assert_problem
from support.gateways import SimulatedGateway
from support.redis import runs_on
from support.shop import Shop

pytestmark = [runs_on("split"), pytest.mark.usefixtures("healed")]


@pytest.fixture
def inside(http: httpx.Client, shop: Shop) -> Person:
    """Somebody with a pass."""
    return Person(http).join(shop.concert_id)


def buys(person: Person, shop: Shop, seat: int) -> None:
    """Looks, reserves and pays."""
    seat_map = person.http.get(f"schedules/{shop.concert_id}/seats", headers=person.with_pass)
    assert seat_map.json()["seats"][seat - 1]["state"] == "available"
    reserved = person.reserve(shop.concert_id, [seat])
    assert reserved.status_code == 201, reserved.text
    shown = person.http.get(f"schedules/{shop.concert_id}/seats", headers=person.with_pass)
    assert shown.json()["seats"][seat - 1]["state"] == "held"
    assert person.pay(reserved.json()["reservation_id"]).status_code == 201


def test_each_endpoint_has_its_own_keys(inside: Person, shop: Shop, danal: SimulatedGateway) -> None:
    buys(inside, shop, 1)
    endpoints: tuple[Endpoint, ...] = ("queue", "locks", "cache")

    kinds = [{key.partition(b":")[0] for key in redis(each).keys(f"*{shop.concert_id}*")} for each in endpoints]

    assert kinds == [{b"line"}, {b"seatlocks"}, {b"seatmap"}]


@pytest.mark.parametrize("lost", ["redis_cache", "redis_locks"])
def test_the_line_and_the_sale_go_on_without_the_cache_or_the_locks(
    redis_stack: Stack, inside: Person, shop: Shop, danal: SimulatedGateway, lost: str
) -> None:
    redis_stack.stop(lost)

    newcomer = Person(inside.http).join(shop.concert_id)
    assert newcomer.http.get("queue/tokens/current", headers=newcomer.with_token).status_code == 200
    buys(newcomer, shop, 1)
    buys(inside, shop, 2)


def test_the_sale_goes_on_without_the_line(
    redis_stack: Stack, inside: Person, shop: Shop, danal: SimulatedGateway
) -> None:
    redis_stack.stop("redis")

    refused = inside.http.post("queue/tokens", json={"concert_id": shop.concert_id, "user_id": "somebody else"})
    assert_problem(refused, 503, "line-away")
    assert refused.headers["retry-after"] == "2"
    buys(inside, shop, 1)
