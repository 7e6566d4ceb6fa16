"""Kafka under a drill: its brokers and their partitions, records that nobody can read, and bounds about events."""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from artillery.thresholds import Comparison
from booking.platform.resources import read_text
from drills.harness.drill import Bound
from drills.harness.evidence import Evidence
from drills.harness.scene import IncidentFailed, Scene
from drills.harness.watch import OUTBOX_AGE
from encore_stack.instance import BROKERS, Instance
from encore_stack.kafka_replicas import Partition, partitions
from encore_stack.parts.postgres import connected

_ASK_S_MAX = 10
_PUBLISH_DELAY = read_text("drills.harness", "sql/publish_delay.sql")

_FRESH_S = 1.5
"""An event that has waited less long is on its way as ever: the relay's turns, and how often is looked."""


def node_of(broker: str) -> int:
    """The node id of a broker's part."""
    return BROKERS.index(broker) + 1


def partitions_of(instance: Instance) -> list[Partition]:
    """Where every partition is. Raises KafkaError, OSError, TimeoutError."""
    return partitions(instance.kafka_bootstrap_servers)


def busiest_broker(instance: Instance) -> str:
    """The part that leads the most partitions of the events' topic."""
    led = [one.leader for one in partitions_of(instance) if one.topic == instance.reservation_topic]
    return max(instance.brokers, key=lambda broker: led.count(node_of(broker)))


def looks(instance: Instance, sees: Callable[[list[Partition]], bool]) -> bool:
    """Whether the partitions are as wanted; False while nobody can say."""
    with suppress(KafkaError, OSError, TimeoutError):
        return sees(partitions_of(instance))
    return False


def all_led_without(node: int) -> Callable[[list[Partition]], bool]:
    """Every partition has a leader, and it is another broker than this."""
    return lambda seen: all(one.leader not in (-1, node) for one in seen)


def all_in_sync(count: int) -> Callable[[list[Partition]], bool]:
    """Every partition is in sync on so many brokers."""
    return lambda seen: all(len(one.in_sync) == count for one in seen)


def put_record(instance: Instance, value: bytes, *, partition: int, correlation_id: str) -> int:
    """Write a record straight into the events' topic, past the outbox; its offset. Raises KafkaError."""
    headers = [("correlation_id", correlation_id.encode())]

    async def put() -> int:
        async with AIOKafkaProducer(bootstrap_servers=instance.kafka_bootstrap_servers, acks="all") as producer:
            done = await producer.send_and_wait(instance.reservation_topic, value, partition=partition, headers=headers)
            return int(done.offset)

    return asyncio.run(put())


def has_passed(instance: Instance, partition: int, offset: int) -> bool:
    """Whether every consumer has done with this record and goes on behind it, as the poller last said."""
    with suppress(OSError, ValueError, KeyError):
        mappings = json.loads((instance.run_dir / "poller.json").read_text())["mappings"]
        partitions = [one for each in mappings for one in each["partitions"] if one["partition"] == partition]
        return len(partitions) == len(mappings) and all((one["committed"] or 0) > offset for one in partitions)
    return False


def publish_delay_s(scene: Scene, from_s: float) -> tuple[float, float]:
    """How long the events committed since a moment of the drill waited for Kafka: median and 95th percentile.

    Raises IncidentFailed where there was none.
    """
    instance, now_s = scene.stage.instance, time.time()
    since_s = now_s - (scene.clock() - from_s)
    with connected(instance, instance.postgres_primary, timeout_s=_ASK_S_MAX) as connection:
        [(median_s, p95_s)] = connection.run(_PUBLISH_DELAY, since=since_s, until=now_s)
    if p95_s is None:
        raise IncidentFailed("no event was committed: nothing can be said of how long they take")
    return float(median_s), float(p95_s)


# -- bounds --


def events_waited(seconds: float) -> Bound:
    """Felt: an event waited so long for Kafka."""
    return Bound("longest wait of an event for Kafka", ">=", seconds, lambda seen: seen.most(OUTBOX_AGE), "s")


def no_event_waits(seconds: float) -> Bound:
    """No event waits longer for Kafka, from the break on."""
    return Bound("longest wait of an event for Kafka", "<=", seconds, lambda seen: seen.most(OUTBOX_AGE), "s")


def events_flow_within_of_heal(seconds: float) -> Bound:
    """Events reach Kafka as they are committed, so soon after it is whole."""

    def measure(seen: Evidence) -> float | None:
        healed_s = seen.moment("heal")
        flow_s = None if healed_s is None else seen.from_when(OUTBOX_AGE, at_most=_FRESH_S, from_s=healed_s)
        return None if healed_s is None or flow_s is None else flow_s - healed_s

    return Bound("events reach Kafka at once again, after it is whole", "<=", seconds, measure, "s")


def sold_while_broken(count: int) -> Bound:
    """So many payments were answered while it was broken."""

    def measure(seen: Evidence) -> float:
        healed_s = seen.moment("heal") or seen.ended_s
        answers = seen.record.select(steps=("step7_pay",), from_s=seen.broke_s, to_s=healed_s)
        return float(sum(answer.status in (201, 202) for answer in answers))

    return Bound("payments answered while it was broken", ">=", count, measure)


def every_ticket_comes() -> Bound:
    """Who has paid has the ticket in the end."""

    def measure(seen: Evidence) -> float:
        return float(sum(person.outcome.startswith("gave up") for person in seen.people))

    return Bound("people who gave up, or had no ticket in time", "<=", 0, measure)


def ticket_within_of_heal(seconds: float) -> Bound:
    """No ticket comes later than so long after its payment, or after it is whole where that is later."""

    def measure(seen: Evidence) -> float | None:
        healed_s = seen.moment("heal")
        if healed_s is None:
            return None
        return max(
            (one.had_s - max(one.paid_s, healed_s) for one in seen.tickets if one.had_s >= seen.broke_s), default=0.0
        )

    return Bound("latest ticket after its payment, or after it is whole", "<=", seconds, measure, "s")


def ticket_within(seconds: float) -> Bound:
    """No ticket comes later after its payment, from the break on."""

    def measure(seen: Evidence) -> float:
        return max((one.had_s - one.paid_s for one in seen.tickets if one.had_s >= seen.broke_s), default=0.0)

    return Bound("latest ticket after its payment", "<=", seconds, measure, "s")


def figure(label: str, name: str, comparison: Comparison, bound: float, unit: str = "") -> Bound:
    """A bound on something that the incident itself has measured."""
    return Bound(label, comparison, bound, lambda seen: seen.figures.get(name), unit)
