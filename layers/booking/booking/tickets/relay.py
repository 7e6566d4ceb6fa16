"""Publish the outbox to Kafka: at least once, in the order of each reservation's commits.

The outbox row is the truth. A row is marked only after every replica has acknowledged its record, so a relay that dies
in between publishes again, and consumers know an event by its id. Request functions open no Kafka connection.

**Order.** A reservation's events are sent one after the other, each after the one before it was acknowledged; those of
different reservations together. Two relays at once (a leader that has lost its lease unawares) publish an event twice,
but each begins with the oldest one that is not marked: no event comes for the first time before an earlier one.

**Faults.** What Kafka does not take while it takes others (a record too large, a partition without a leader) is set
aside with its reservation and tried again later: it stalls nobody else. When it takes nothing, nothing is set aside.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Self

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, KafkaTimeoutError, OutOfOrderSequenceNumber, RequestTimedOutError
from aws_lambda_powertools.metrics import MetricUnit

from booking.platform.postgres import Row, primary
from booking.platform.resources import read_text
from booking.platform.settings import settings
from booking.platform.telemetry import logger, logs_info, measure
from booking.tickets.outbox import backlog, prune

_BATCH_SIZE_MAX = 500
_DRAIN_S_MAX = 1.0
"""After that a tick ends even if events are left: the lease is looked at, and the backlog measured, between ticks."""
_ANSWER_WAIT_S = 3.0
"""For a whole batch. An idempotent producer would try again for ever."""
_CARE_EVERY_S = 1.0
_ERROR_LENGTH_MAX = 500

_UNPUBLISHED = read_text(__package__, "sql/unpublished_events.sql")
_MARK = read_text(__package__, "sql/mark_published.sql")
_SET_ASIDE = read_text(__package__, "sql/set_aside.sql")


@dataclass(slots=True)
class _Sent:
    """What became of a batch, or of one reservation's part of it."""

    acknowledged: list[Row] = field(default_factory=list)
    failed: list[tuple[Row, KafkaError]] = field(default_factory=list)
    """The first of each reservation that was not acknowledged; the ones behind it were not sent."""


class Relay:
    """A producer kept for the length of one run, on an event loop of its own; use it as a context manager."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._producer: AIOKafkaProducer | None = None
        self._next_care_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._drop_producer()
        self._loop.close()

    def tick(self) -> int:
        """Once a second measure the backlog and forget old events; publish what waits. Returns how many were published.

        Raises as ``publish_batch``; the backlog is measured before, so that it is known when Kafka is away.
        """
        if time.monotonic() >= self._next_care_s:
            self._next_care_s = time.monotonic() + _CARE_EVERY_S
            waiting = backlog(primary())
            measure("OutboxBacklog", waiting.count, MetricUnit.Count)
            measure("OutboxOldestAgeSeconds", waiting.oldest_age_s, MetricUnit.Seconds)
            measure("OutboxSetAside", waiting.set_aside, MetricUnit.Count)
            prune()
        return self.publish_batch()

    def publish_batch(self) -> int:
        """Publish the oldest unpublished events, batch after batch until none is left or a second is over.

        Returns how many. Raises KafkaError when no broker takes anything; what was not acknowledged stays unpublished.
        """
        published = 0
        ends_s = time.monotonic() + _DRAIN_S_MAX
        while rows := primary().rows(_UNPUBLISHED, topic=settings().reservation_topic, limit=_BATCH_SIZE_MAX):
            sent = self._send(rows)
            published += len(sent.acknowledged)
            if sent.failed or len(rows) < _BATCH_SIZE_MAX or time.monotonic() > ends_s:
                break
        if published:
            measure("EventsPublished", published, MetricUnit.Count)
        return published

    def _send(self, rows: Sequence[Row]) -> _Sent:
        try:
            sent = self._loop.run_until_complete(self._send_side_by_side(rows))
        except BaseException:
            self._drop_producer()
            raise
        if sent.failed:
            # What it has not delivered it would try again beside the next one, and its numbering may have a gap.
            self._drop_producer()
        if sent.acknowledged:
            _log(sent.acknowledged)
            primary().rows(_MARK, ids=[row[0] for row in sent.acknowledged])
        _set_aside(sent)
        return sent

    async def _send_side_by_side(self, rows: Sequence[Row]) -> _Sent:
        if self._producer is None:
            self._producer = AIOKafkaProducer(
                bootstrap_servers=settings().kafka_bootstrap_servers,
                acks="all",
                enable_idempotence=True,
                request_timeout_ms=int(_ANSWER_WAIT_S * 1_000),
            )
            try:
                await asyncio.wait_for(self._producer.start(), _ANSWER_WAIT_S)
            except TimeoutError as fault:
                raise RequestTimedOutError() from fault
        ordered = sorted(rows, key=_key_of)  # stable: of one key in the order of the ids
        parts = [_Sent() for _ in {_key_of(row) for row in ordered}]
        tasks = [
            asyncio.ensure_future(self._send_in_order(self._producer, list(of_one_key), part))
            for part, (_, of_one_key) in zip(parts, groupby(ordered, key=_key_of), strict=True)
        ]
        _, late = await asyncio.wait(tasks, timeout=_ANSWER_WAIT_S)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
        await asyncio.gather(*tasks)
        return _Sent(
            [row for part in parts for row in part.acknowledged], [fault for part in parts for fault in part.failed]
        )

    @staticmethod
    async def _send_in_order(producer: AIOKafkaProducer, rows: Sequence[Row], sent: _Sent) -> None:
        for row in rows:
            try:
                await producer.send_and_wait(*_record(row))
            except KafkaError as fault:
                sent.failed.append((row, fault))
                return
            except asyncio.CancelledError:
                sent.failed.append((row, RequestTimedOutError()))
                return
            sent.acknowledged.append(row)

    def _drop_producer(self) -> None:
        """Stop at once: ``stop`` alone would wait for what cannot be delivered."""
        producer, self._producer = self._producer, None
        if producer is not None:
            self._loop.run_until_complete(_abandon(producer))


async def _abandon(producer: AIOKafkaProducer) -> None:
    await _cancel_other_tasks()
    await producer.stop()
    await _cancel_other_tasks()


async def _cancel_other_tasks() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _set_aside(sent: _Sent) -> None:
    """Raises the first fault of those that are everybody's: nothing was taken, for a reason that passes."""
    refused: list[tuple[Row, KafkaError]] = []
    outage: KafkaError | None = None
    for row, fault in sent.failed:
        if isinstance(fault, OutOfOrderSequenceNumber):
            continue  # the gap that somebody else's refused record has left in the numbering: taken at the next try
        if sent.acknowledged or not (fault.retriable or isinstance(fault, KafkaTimeoutError)):
            refused.append((row, fault))
        else:
            outage = outage or fault
    if refused:
        errors = [repr(fault)[:_ERROR_LENGTH_MAX] for _, fault in refused]
        primary().rows(_SET_ASIDE, ids=[row[0] for row, _ in refused], errors=errors)
    for row, fault in refused:
        logger().error("event set aside", error=repr(fault), **_named(row))
    if outage:
        raise outage


def _log(published: Sequence[Row]) -> None:
    """One line an event: with the steps' and the consumer's lines, a correlation id shows its whole way."""
    if logs_info():
        for row in published:
            logger().info("event published", **_named(row))


def _named(row: Row) -> dict[str, Any]:
    _, event_id, _, kind, reservation_id, _, _, correlation, *_ = row
    return {"type": kind, "event_id": event_id, "reservation_id": reservation_id, "correlation_id": correlation}


def _key_of(row: Row) -> tuple[str, str]:
    """What keeps its order: the events of one reservation in one topic."""
    return row[2], row[4]


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
