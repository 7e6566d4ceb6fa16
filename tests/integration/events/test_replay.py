"""The whole topic comes again from its beginning: nothing changes, in Postgres or in what Redis tells people."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from booking.catalog.concerts import list_concerts
from booking.catalog.schedules import list_schedules
from booking.platform.postgres import primary
from booking.platform.problems import BadRequest
from booking.sales import consumer as sales
from booking.tickets import consumer as tickets
from booking.tickets.relay import Relay
from encore_stack.instance import Instance
from support.events import Feed, refund, sell
from support.replica import wait_for_replica
from support.shop import Shop

TABLES = ("ticket", "notice", "schedule_sales", "concert_sales")


def tables() -> dict[str, Any]:
    return {name: sorted(map(str, primary().rows(f"select t::text from {name} t"))) for name in TABLES}


def told(shop: Shop) -> Any:
    return json.loads(list_schedules(shop.concert_id))["schedules"], shop.map_state(1)


@pytest.mark.parametrize("guarded", [True, False], ids=["with the inbox", "without: the counters go wrong"])
def test_replaying_the_topic_changes_nothing(instance: Instance, topic: str, relay: Relay, guarded: bool) -> None:
    shops = [Shop.open(seats=20), Shop.open(seats=20)]
    reservations = [sell(shop, count) for shop, count in zip(shops, (15, 20), strict=True)]
    refund(reservations[0][0])
    relay.publish_batch()
    feeds = [Feed(instance.kafka_bootstrap_servers, topic, each) for each in (tickets.consume, sales.consume)]
    for feed in feeds:
        feed.run_to_the_end()
    wait_for_replica()
    before, told_before = tables(), [told(shop) for shop in shops]
    assert [shown[0][0]["seats_left"] for shown in told_before] == [6, 0]

    for feed in feeds:
        feed.rewind()
        if not guarded:
            primary().rows("delete from inbox")
        feed.run_to_the_end()
    wait_for_replica()

    assert (tables() == before) == guarded
    if guarded:
        assert [told(shop) for shop in shops] == told_before


def test_the_best_selling_concerts_come_first(use_settings: Callable[..., object]) -> None:
    primary().rows("delete from concert_sales")
    ids = [Shop.open(wait=False).concert_id for _ in range(4)]
    primary().rows("insert into concert_sales select * from unnest(cast(:ids as bigint[]), array[5, 9, 9, 0])", ids=ids)
    wait_for_replica()

    page = list_concerts("2", None, "best_selling")

    assert [(one["id"], one["seats_sold"]) for one in page["concerts"]] == [(ids[1], 9), (ids[2], 9)]
    assert page["next_cursor"] is None
    assert [one["id"] for one in list_concerts(None, None, "best_selling")["concerts"]] == [ids[1], ids[2], ids[0]]


@pytest.mark.parametrize(("cursor", "order"), [(None, "worst"), (None, ""), ("YWZ0ZXI6MQ", "best_selling")])
def test_an_order_that_there_is_not_is_refused(cursor: str | None, order: str) -> None:
    with pytest.raises(BadRequest, match=r"order must be|one page"):
        list_concerts("2", cursor, order)
