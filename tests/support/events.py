"""Reservation events on the real broker: topics of a test's own, reading them, and consumers fed by the real poller."""

import asyncio
import base64
import json
import uuid
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from booking.platform.postgres import primary
from event_source.poller import Poller
from event_source.settings import Mapping
from support.shop import Shop

PARTITIONS = 4
_WAIT_S = 20

Consume = Callable[[dict[str, Any], Any], Any]


def create_topics(bootstrap_servers: str, *names: str, partitions: int = PARTITIONS, **config: str) -> None:
    """Topics of one replica. ``config``: settings of the broker for them."""

    async def create() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
        await admin.start()
        try:
            await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=config) for name in names])
        finally:
            await admin.close()

    asyncio.run(create())


def read_topic(bootstrap_servers: str, topic: str, key: str | None, count: int) -> list[Any]:
    """The first ``count`` records of the topic with this key (None: with any)."""

    async def read() -> list[Any]:
        client = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap_servers, auto_offset_reset="earliest")
        await client.start()
        try:
            mine: list[Any] = []
            async with asyncio.timeout(20):
                while len(mine) < count:
                    record = await client.getone()
                    mine += [record] if key is None or record.key == key.encode() else []
            return mine
        finally:
            await client.stop()

    return asyncio.run(read())


def msk_event(records: list[Any]) -> dict[str, Any]:
    """The records as the event source hands them to the function."""
    batches: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        batches.setdefault(f"{record.topic}-{record.partition}", []).append(
            {
                "topic": record.topic,
                "partition": record.partition,
                "offset": record.offset,
                "timestamp": record.timestamp,
                "timestampType": "CREATE_TIME",
                "key": base64.b64encode(record.key).decode() if record.key is not None else None,
                "value": base64.b64encode(record.value).decode() if record.value is not None else None,
                "headers": [{name: list(value)} for name, value in record.headers],
            }
        )
    return {"eventSource": "aws:kafka", "eventSourceArn": "arn", "bootstrapServers": "b", "records": batches}


class Record:
    """What ``msk_event`` reads of a Kafka record, for events that never went through Kafka."""

    def __init__(self, value: bytes | None, offset: int = 0, topic: str = "reservation-events") -> None:
        self.topic, self.partition, self.offset, self.timestamp = topic, 0, offset, 0
        self.key, self.value, self.headers = b"key", value, []


def envelopes(reservation: dict[str, Any]) -> list[bytes]:
    """A reservation's events as they stand on the wire."""
    rows = primary().rows(
        "select event_id::text, type, reservation_id::text, seq, rfc3339(occurred_at), correlation_id, data"
        " from outbox where reservation_id = cast(:id as uuid) order by seq",
        id=reservation["reservation_id"],
    )
    names = ("event_id", "type", "reservation_id", "seq", "occurred_at", "correlation_id", "data")
    return [json.dumps(dict(zip(names, row, strict=True))).encode() for row in rows]


def sell(shop: Shop, count: int) -> list[str]:
    """``count`` people have bought a seat each, as the tables and the outbox say it (no gateway knows of it); the
    reservations' ids."""
    rows = primary().rows(
        "insert into reservation (concert_id, schedule_id, person, pass_id, seats, total, currency, status, created_at,"
        "    expires_at, hard_cap_at)"
        " select cast(:id as bigint), :id, 'person ' || n, cast(:id as bigint) || ' pass ' || n, array[n], 1000, 'KRW',"
        "    'confirmed', now(), now(), now()"
        " from generate_series(1, cast(:count as integer)) n returning id::text",
        id=shop.concert_id,
        count=count,
    )
    primary().rows(
        "select emit_event(id, 'reservation.confirmed', reservation_facts(r), 'test', now()) from reservation r"
        " where concert_id = cast(:id as bigint)",
        id=shop.concert_id,
    )
    return [row[0] for row in rows]


def refund(reservation_id: str) -> None:
    """The same for a refund of one."""
    primary().rows("update reservation set status = 'refunded' where id = cast(:id as uuid)", id=reservation_id)
    primary().rows(
        "select emit_event(id, 'reservation.refunded', reservation_facts(r), 'test', now()) from reservation r"
        " where id = cast(:id as uuid)",
        id=reservation_id,
    )


def put_raw(value: bytes | None, key: bytes | None) -> None:
    """Have the relay publish a record that no step has written."""
    primary().rows(
        "insert into outbox (type, reservation_id, occurred_at, correlation_id, data, raw, raw_key, raw_value)"
        " values ('stranger', gen_random_uuid(), now(), 'from-afar', '{}', true, cast(:key as bytea),"
        " cast(:value as bytea))",
        key=key,
        value=value,
    )


class Feed:
    """The real poller, which reads a topic for a consumer group and calls the consumer's function in this process."""

    def __init__(self, bootstrap_servers: str, topic: str, consume: Consume, **options: Any) -> None:
        self.group = f"group-{uuid.uuid4().hex}"
        self.calls = 0
        self._servers, self._topic, self._consume = bootstrap_servers, topic, consume
        options = {"batching_window_s": 0.05, "batch_size": 50} | options
        self._mapping = Mapping("function", (topic,), self.group, **options)

    async def invoke(self, event: dict[str, Any]) -> Any:
        self.calls += 1
        return await asyncio.to_thread(self._consume, event, None)

    def configure(self, consume: Consume, **options: Any) -> None:
        """Another function and other settings of the mapping, from the next run on; the group stays."""
        self._consume, self._mapping = consume, replace(self._mapping, **options)

    def run(self, until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Poll until the poller's snapshot is as wanted, then commit and end; that snapshot."""
        return asyncio.run(self._run(until))

    def run_to_the_end(self) -> dict[str, Any]:
        """Until everything in the topic is done."""
        ends = asyncio.run(self._with_client(self._ends))

        def all_done(shown: dict[str, Any]) -> bool:
            done = {each["partition"]: each["committed"] for each in shown["partitions"]}
            return all(not end or done.get(number) == end for number, end in ends.items())

        return self.run(all_done)

    def rewind(self) -> None:
        """Set the group to the beginning of the topic: everything comes again."""
        asyncio.run(self._with_client(self._commit_beginning))

    async def _run(self, until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        client = self._client()
        await client.start()
        poller = Poller(self._mapping, client, self, "arn", self._servers)
        task = asyncio.create_task(poller.run())
        try:
            async with asyncio.timeout(_WAIT_S):
                while not until(poller.snapshot()) and not task.done():
                    await asyncio.sleep(0.02)
            return poller.snapshot()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await client.stop()

    def _client(self) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            bootstrap_servers=self._servers,
            group_id=self.group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )

    async def _with_client(
        self, work: Callable[[AIOKafkaConsumer, Iterable[TopicPartition]], Coroutine[Any, Any, Any]]
    ) -> Any:
        client = self._client()
        await client.start()
        try:
            partitions = [TopicPartition(self._topic, number) for number in range(PARTITIONS)]
            client.assign(partitions)
            return await work(client, partitions)
        finally:
            await client.stop()

    @staticmethod
    async def _ends(client: AIOKafkaConsumer, partitions: Iterable[TopicPartition]) -> dict[int, int]:
        return {partition.partition: end for partition, end in (await client.end_offsets(partitions)).items()}

    @staticmethod
    async def _commit_beginning(client: AIOKafkaConsumer, partitions: Iterable[TopicPartition]) -> None:
        await client.commit(dict.fromkeys(partitions, 0))
