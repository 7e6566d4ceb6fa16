"""A Kafka topic of a test's own: what is in it, in the order in which it came."""

import asyncio
import uuid
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from support.events import PARTITIONS, create_topics


class Topic:
    """A topic that nobody else writes to. ``config``: settings of the broker for it."""

    def __init__(self, bootstrap_servers: str, partitions: int = PARTITIONS, **config: str) -> None:
        self.name = f"test-{uuid.uuid4().hex}"
        self._servers, self._partitions = bootstrap_servers, partitions
        create_topics(bootstrap_servers, self.name, partitions=partitions, **config)

    def events(self) -> list[Any]:
        """Every event that is in it now, partition by partition."""
        return [msgspec.json.decode(record.value) for record in self.records()]

    def records(self) -> list[Any]:
        """The same as records of Kafka."""
        return asyncio.run(self._read())

    def seqs(self, reservation_id: str) -> list[int]:
        """The numbers of a reservation's events, in the order in which they came."""
        return [event["seq"] for event in self.events() if event["reservation_id"] == reservation_id]

    async def _read(self) -> list[Any]:
        # Not seek_to_beginning: it is lost while the reset to the default is on its way.
        consumer = AIOKafkaConsumer(bootstrap_servers=self._servers, fetch_max_wait_ms=20, auto_offset_reset="earliest")
        await consumer.start()
        try:
            partitions = [TopicPartition(self.name, number) for number in range(self._partitions)]
            consumer.assign(partitions)
            found: list[Any] = []
            async with asyncio.timeout(20):
                for partition, end in (await consumer.end_offsets(partitions)).items():
                    while await consumer.position(partition) < end:
                        found += [await consumer.getone(partition)]
            return found
        finally:
            await consumer.stop()
