"""What the topic of the reservation events holds, read from the brokers themselves: for the audit."""

import asyncio
import time
from collections.abc import Iterator

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

_ANSWER_WAIT_S = 20.0
_READ_AT_ONCE_MAX = 5_000
_BEFORE_S = 3_600.0
"""A record is older than the mark in the outbox that says so; a clock may be slow."""


class TopicUnreadable(RuntimeError):
    """The brokers did not give all records of the topic; the message says why."""


class PublishedEvent(msgspec.Struct, frozen=True):
    """What the audit needs of an event in the topic."""

    event_id: str
    reservation_id: str
    seq: int


_PUBLISHED_EVENT = msgspec.json.Decoder(PublishedEvent)


def read_topic(bootstrap_servers: str, topic: str, window_s: float) -> list[list[PublishedEvent]]:
    """The events of the last ``window_s`` seconds (and an hour) that are in the topic now, by partition and in order.

    Records that are no events are left out. Raises TopicUnreadable.
    """
    since_ms = int((time.time() - window_s - _BEFORE_S) * 1_000)
    try:
        return asyncio.run(_read(bootstrap_servers, topic, since_ms))
    except (KafkaError, OSError, TimeoutError) as fault:
        raise TopicUnreadable(f"topic {topic} at {bootstrap_servers}: {fault or type(fault).__name__}") from fault


async def _read(bootstrap_servers: str, topic: str, since_ms: int) -> list[list[PublishedEvent]]:
    timeout_ms = int(_ANSWER_WAIT_S * 1_000)
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap_servers,
        request_timeout_ms=timeout_ms,
        fetch_max_wait_ms=20,  # it begins to wait at the end of the topic before it is told where to read
    )
    try:
        await asyncio.wait_for(consumer.start(), _ANSWER_WAIT_S)
        partitions = sorted(consumer.assignment())
        if not partitions:
            raise TopicUnreadable(f"there is no topic {topic} at {bootstrap_servers}")
        ends = await consumer.end_offsets(partitions)
        starts = await consumer.offsets_for_times(dict.fromkeys(partitions, since_ms))
        found: dict[TopicPartition, list[PublishedEvent]] = {partition: [] for partition in partitions}
        left = set()
        for partition, start in starts.items():
            if start is None or start.offset >= ends[partition]:
                consumer.pause(partition)  # nothing of the window
            else:
                consumer.seek(partition, start.offset)
                left.add(partition)
        while left:
            batches = await consumer.getmany(timeout_ms=timeout_ms, max_records=_READ_AT_ONCE_MAX)
            if not batches:
                raise TopicUnreadable(f"topic {topic}: the brokers gave no more, though there is more")
            for partition, records in batches.items():
                found[partition] += _events(record.value for record in records if record.offset < ends[partition])
            left = {partition for partition in left if await consumer.position(partition) < ends[partition]}
        return list(found.values())
    finally:
        await consumer.stop()


def _events(values: Iterator[bytes]) -> Iterator[PublishedEvent]:
    for value in values:
        try:
            yield _PUBLISHED_EVENT.decode(value)
        except (msgspec.DecodeError, TypeError):
            continue
