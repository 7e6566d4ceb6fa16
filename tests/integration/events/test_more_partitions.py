"""More partitions on a running stack, as ENCORE_TOPIC_PARTITIONS gives them at scripts/up: the topic, who reads it, and
the events on both sides of the change."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from threading import Barrier, Lock
from typing import Any

import msgspec

from booking.platform.postgres import primary
from booking.sales import consumer as sales
from booking.tickets import consumer as tickets
from booking.tickets.relay import Relay
from encore_stack.instance import Instance, function_environment
from encore_stack.parts.kafka import _create_topics
from event_source.settings import read_settings
from support.events import PARTITIONS, Consume, Feed, read_topic, refund, sell
from support.shop import Shop

MORE, SOLD = 2 * PARTITIONS, 40


class Watched:
    """A consumer of whose batches the first ``together`` wait for each other, so that they are there at once."""

    def __init__(self, consume: Consume, together: int) -> None:
        self.at_once_max = 0
        self._consume, self._barrier, self._lock = consume, Barrier(together), Lock()
        self._running, self._to_wait = 0, together

    def __call__(self, event: dict[str, Any], context: Any) -> Any:
        with self._lock:
            self._running += 1
            self.at_once_max = max(self.at_once_max, self._running)
            waits, self._to_wait = self._to_wait > 0, self._to_wait - 1
        try:
            if waits:
                self._barrier.wait(10)
            return self._consume(event, context)
        finally:
            with self._lock:
                self._running -= 1


def pollers(instance: Instance, partitions: int) -> int:
    """How many batches the poller gives each consumer at once, by the setting."""
    settings = read_settings(
        {
            **function_environment(instance),
            "ENCORE_LOCALSTACK_URL": instance.url("localstack"),
            "ENCORE_TOPIC_PARTITIONS": str(partitions),
        }
    )
    [at_once] = {mapping.pollers_max for mapping in settings.mappings}
    return at_once


def places(records: Iterable[Any]) -> dict[str, list[tuple[int, int]]]:
    """Of each reservation its events' partitions and numbers, in the order of their offsets."""
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for record in sorted(records, key=lambda record: record.offset):
        event = msgspec.json.decode(record.value)
        found[event["reservation_id"]].append((record.partition, event["seq"]))
    return found


def test_more_partitions_are_read_by_more_and_nothing_is_lost_or_acts_twice(
    instance: Instance, topic: str, relay: Relay
) -> None:
    servers, shops = instance.kafka_bootstrap_servers, [Shop.open(SOLD, wait=False) for _ in range(2)]
    primary().rows("delete from inbox")
    early = sell(shops[0], SOLD)
    relay.publish_batch()
    few = Watched(consume_both, 1)
    feed = Feed(servers, topic, few, batch_size=4, pollers_max=pollers(instance, PARTITIONS))
    feed.run(lambda shown: shown["records"] >= 4)
    assert few.at_once_max == 1

    asyncio.run(_create_topics(servers, (topic, f"{topic}.dead-letter"), MORE))
    late = sell(shops[1], SOLD)
    for reservation_id in (*early[::2], *late[::2]):
        refund(reservation_id)
    with Relay() as next_run:  # a producer is kept for one run of the relay, and its partitions with it
        next_run.publish_batch()

    seen = places(read_topic(servers, topic, None, 3 * SOLD))
    assert {partition for each in seen.values() for partition, _ in each} == set(range(MORE))
    for reservation_id in late:
        assert len({partition for partition, _ in seen[reservation_id]}) == 1
        assert [seq for _, seq in seen[reservation_id]] == sorted(seq for _, seq in seen[reservation_id])
    many = Watched(consume_both, 2)
    feed.configure(many, pollers_max=pollers(instance, MORE))
    before = done()
    shown = feed.run(lambda shown: len(shown["partitions"]) == MORE and shown["records"] >= 3 * SOLD - before)
    assert many.at_once_max == 2
    assert shown["records"] == 3 * SOLD - before, "what was done before does not come again"
    assert done() == 3 * SOLD
    for shop in shops:
        assert effects(shop) == (SOLD // 2, SOLD // 2)


def consume_both(event: dict[str, Any], context: Any) -> Any:
    """Both consumers, each with its inbox."""
    assert not tickets.consume(event, context)["batchItemFailures"]
    return sales.consume(event, context)


def done() -> int:
    """How many events have acted on both."""
    [[tickets_done, sales_done]] = primary().rows(
        "select count(*) filter (where consumer = 'tickets'), count(*) filter (where consumer = 'sales') from inbox"
        " where done_at is not null"
    )
    assert tickets_done == sales_done
    return int(sales_done)


def effects(shop: Shop) -> tuple[int, int]:
    """Good tickets of who was not refunded, and seats that the counters say are sold."""
    [[good, counted]] = primary().rows(
        "select count(*) filter (where r.status = 'confirmed'),"
        "    (select seats_sold from concert_sales where concert_id = cast(:id as bigint))"
        " from ticket t join reservation r on r.id = t.reservation_id"
        " where r.concert_id = cast(:id as bigint) and t.revoked_at is null",
        id=shop.concert_id,
    )
    return good, counted
