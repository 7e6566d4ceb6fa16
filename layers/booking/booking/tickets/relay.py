"""Publish the outbox to Kafka: at least once, in the order of each reservation's commits.

The outbox row is the truth. A row is marked only after every replica has acknowledged its record, so a relay that dies
in between publishes again, and consumers know an event by its id. Request functions open no Kafka connection.
"""

import asyncio
from collections.abc import Sequence
from typing import Self

import msgspec
from aiokafka import AIOKafkaProducer
from aws_lambda_powertools.metrics import MetricUnit

from booking.platform.postgres import Row, primary
from booking.platform.resources import read_text
from booking.platform.settings import settings
from booking.platform.telemetry import logger, logs_info, measure

_BATCH_SIZE_MAX = 500
_REQUEST_TIMEOUT_MS = 5_000
_UNPUBLISHED = read_text(__package__, "sql/unpublished_events.sql")
_MARK = read_text(__package__, "sql/mark_published.sql")


class Relay:
    """A producer kept for the length of one run, on an event loop of its own; use it as a context manager."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._producer: AIOKafkaProducer | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_producer()
        self._loop.close()

    def publish_batch(self) -> int:
        """Publish the oldest unpublished events, batch after batch until none is left; returns how many.

        Raises KafkaError when the brokers cannot be reached; what was not acknowledged stays unpublished.
        """
        published = 0
        while rows := primary().rows(_UNPUBLISHED, topic=settings().reservation_topic, limit=_BATCH_SIZE_MAX):
            try:
                self._loop.run_until_complete(self._send(rows))
            except BaseException:
                # An idempotent producer that has failed may be fenced; a new one starts clean.
                self._stop_producer()
                raise
            _log(rows)
            primary().rows(_MARK, ids=[row[0] for row in rows])
            published += len(rows)
            if len(rows) < _BATCH_SIZE_MAX:
                break
        if published:
            measure("EventsPublished", published, MetricUnit.Count)
        return published

    async def _send(self, rows: Sequence[Row]) -> None:
        if self._producer is None:
            self._producer = AIOKafkaProducer(
                bootstrap_servers=settings().kafka_bootstrap_servers,
                acks="all",
                enable_idempotence=True,
                request_timeout_ms=_REQUEST_TIMEOUT_MS,
            )
            await self._producer.start()
        acknowledged = [await self._producer.send(*_record(row)) for row in rows]
        await asyncio.gather(*acknowledged)

    def _stop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            self._loop.run_until_complete(producer.stop())


def _log(published: Sequence[Row]) -> None:
    """One line an event: with the steps' and the consumer's lines, a correlation id shows its whole way."""
    if not logs_info():
        return
    for _, event_id, _, kind, reservation_id, _, _, correlation, *_ in published:
        logger().info(
            "event published",
            type=kind,
            event_id=event_id,
            reservation_id=reservation_id,
            correlation_id=correlation,
        )


def _record(row: Row) -> tuple[str, bytes | None, bytes | None, None, None, list[tuple[str, bytes]]]:
    """Topic, value, key, partition, timestamp and headers of one outbox row; keyed by reservation.

    A raw one (a dead letter, or one sent back) is published as it stands, with its data for headers.
    """
    _, event_id, topic, kind, reservation_id, seq, occurred_at, correlation, data, raw, raw_key, raw_value = row
    headers = [("correlation_id", correlation.encode()), ("type", kind.encode())]
    if raw:
        about = [(name, str(value).encode()) for name, value in msgspec.json.decode(data).items()]
        # Kafka's client sends no record without key and value.
        return topic, b"" if raw_key is None and raw_value is None else raw_value, raw_key, None, None, headers + about
    envelope = {
        "event_id": event_id,
        "type": kind,
        "reservation_id": reservation_id,
        "seq": seq,
        "occurred_at": occurred_at,
        "correlation_id": correlation,
        "data": msgspec.Raw(data.encode()),
    }
    return topic, msgspec.json.encode(envelope), reservation_id.encode(), None, None, headers
