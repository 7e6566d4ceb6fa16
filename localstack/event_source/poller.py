"""The poller of one mapping: fetch, batch, invoke, commit."""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from event_source import msk, settings
from event_source.invoker import FunctionFailed, InvokeFailed
from event_source.msk import Record
from event_source.partition import Partition

EVENT_BYTES_MAX = 5_500_000
"""Lambda takes 6 MB; this leaves room for the estimate to be off."""
_FETCH_WAIT_MS = 200
_BUFFERED_BATCHES_MAX = 4
_DRAIN_S_MAX = 10
_ASKED_S_MAX = 5.0
"""Kafka answers a fetch within half a second, also where there is nothing."""

logger = logging.getLogger("event_source")

type Slice = tuple[Partition, list[Record]]


class Consumer(Protocol):
    """What the poller uses of aiokafka's AIOKafkaConsumer."""

    def subscribe(self, topics: Iterable[str], *, listener: ConsumerRebalanceListener) -> None: ...
    async def getmany(self, *, timeout_ms: int) -> Mapping[TopicPartition, Sequence[Record]]: ...
    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None: ...
    def pause(self, *partitions: TopicPartition) -> None: ...
    def resume(self, *partitions: TopicPartition) -> None: ...
    def paused(self) -> set[TopicPartition]: ...
    def highwater(self, partition: TopicPartition) -> int | None: ...
    def last_poll_timestamp(self, partition: TopicPartition) -> int | None: ...


class Invoke(Protocol):
    async def invoke(self, event: dict[str, Any]) -> Any: ...


class Poller(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is untyped
    """Owns the assigned partitions of one consumer; `run` ends when it is cancelled or Kafka fails for good."""

    def __init__(self, mapping: settings.Mapping, consumer: Consumer, invoker: Invoke, arn: str, servers: str) -> None:
        self._mapping = mapping
        self._consumer = consumer
        self._invoker = invoker
        self._arn = arn
        self._servers = servers
        self._partitions: dict[TopicPartition, Partition] = {}
        self._free = asyncio.Semaphore(mapping.pollers_max)
        self._in_flight: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._committing = asyncio.Lock()
        self._is_rebalancing = False
        self.invocations = 0
        self.records_done = 0
        self.last_error: str | None = None

    async def run(self) -> None:
        """Poll until cancelled; then what is in flight may finish, is committed, and the rest is left for later."""
        self._consumer.subscribe(self._mapping.topics, listener=self)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._fetch())
                tasks.create_task(self._dispatch())
        finally:
            await self._drain(self._in_flight)
            for task in self._in_flight:
                task.cancel()
            await self._commit()

    # --- fetching -----------------------------------------------------------------------------------------------

    async def _fetch(self) -> None:
        while True:
            fetched = await self._consumer.getmany(timeout_ms=_FETCH_WAIT_MS)
            for key, records in fetched.items():
                partition = self._partitions.get(key)
                if partition is None or not records:  # revoked meanwhile: its next owner reads them
                    continue
                partition.add(records, time.monotonic())
                if len(partition.records) >= self._mapping.batch_size * _BUFFERED_BATCHES_MAX:
                    self._consumer.pause(key)
            if fetched:
                self._changed.set()
            if any(p.position != p.committed for p in self._partitions.values()):
                await self._commit()  # a commit that failed before

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self._partitions = {key: Partition(key.topic, key.partition) for key in assigned}
        self._is_rebalancing = False
        logger.info("partitions assigned", extra={"partitions": sorted(p.name for p in self._partitions.values())})

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Let what is in flight finish and commit it, so that the next owner replays as little as can be."""
        self._is_rebalancing = True  # nothing new is sent
        await self._drain(self._in_flight)
        await self._commit()
        # Eager rebalancing: everything is revoked, then assigned anew and fetched from what was committed.
        self._partitions = {}

    # --- batching -----------------------------------------------------------------------------------------------

    async def _dispatch(self) -> None:
        while True:
            await self._free.acquire()
            batch = await self._next_batch()
            task = asyncio.create_task(self._process(batch))
            self._in_flight.add(task)
            task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._in_flight.discard(task)
        self._free.release()
        self._changed.set()
        if not task.cancelled() and task.exception():
            logger.error("batch task failed", exc_info=task.exception())

    async def _next_batch(self) -> list[Slice]:
        """Wait until records are worth an invocation, and mark their partitions in flight."""
        while True:
            self._changed.clear()
            now = time.monotonic()
            due_at = self._due_at(now)
            if due_at is not None and due_at <= now:
                batch = self._take(now)
                for partition, _ in batch:
                    partition.is_in_flight = True
                return batch
            with suppress(TimeoutError):
                async with asyncio.timeout(None if due_at is None else due_at - now):
                    await self._changed.wait()

    def _due_at(self, now: float) -> float | None:
        """When the next batch may go: the window's end of the oldest record, at once if full, None without records."""
        if self._is_rebalancing:
            return None
        waiting = [p for p in self._partitions.values() if p.records and not p.is_in_flight]
        ready = [p for p in waiting if p.not_before <= now]
        if sum(len(p.records) for p in ready) >= self._mapping.batch_size or any(p.failures for p in ready):
            return now
        times = [max(p.not_before, p.oldest_arrival + self._mapping.batching_window_s) for p in waiting]
        # A partition in backoff is due at its own time, window or not.
        times += [p.not_before for p in waiting if p.failures]
        return min(times, default=None)

    def _take(self, now: float) -> list[Slice]:
        """Slices of ready partitions, longest waiting first, within the batch size; one that failed goes alone."""
        ready = [p for p in self._partitions.values() if p.is_ready(now)]
        ready.sort(key=lambda p: p.oldest_arrival)
        batch: list[Slice] = []
        count_left, bytes_left = self._mapping.batch_size, EVENT_BYTES_MAX
        for partition in ready:
            if partition.is_alone and batch:
                continue
            records = partition.peek(count_left, bytes_left)
            if batch and sum(map(msk.size_of, records)) > bytes_left:
                continue
            batch.append((partition, records))
            count_left -= len(records)
            bytes_left -= sum(map(msk.size_of, records))
            if partition.is_alone or count_left <= 0:
                break
        return batch

    # --- processing ---------------------------------------------------------------------------------------------

    async def _process(self, batch: list[Slice]) -> None:
        try:
            failed_at = await self._invoke(batch)
        finally:
            for partition, _ in batch:
                partition.is_in_flight = False
        for partition, records in batch:
            self._settle(partition, records, failed_at.get(partition.name))
        await self._commit()

    async def _invoke(self, batch: list[Slice]) -> Mapping[str, int]:
        """The first failed offset of each partition that has one."""
        slices = [records for _, records in batch]
        self.invocations += 1
        try:
            response = await self._invoker.invoke(msk.event_of(slices, self._arn, self._servers))
            failed_at = msk.first_failures(response, slices) if self._mapping.partial_batch_failures else {}
        except Exception as e:  # whatever it is, the batch is not done and its partitions back off
            # A fault of the way to the function says nothing about the records; a fault of the function may.
            is_function = not isinstance(e, InvokeFailed) or isinstance(e, FunctionFailed)
            self._log_failure(getattr(e, "kind", type(e).__name__), str(e), batch)
            for partition, records in batch:
                partition.is_alone = is_function
                if is_function and self._mapping.bisect_on_error and len(batch) == 1:
                    partition.take_max = max(1, len(records) // 2)
            return {partition.name: records[0].offset for partition, records in batch}
        if failed_at:
            self._log_failure("records_failed", str(dict(failed_at)), batch)
        return failed_at

    def _settle(self, partition: Partition, records: Sequence[Record], failed_at: int | None) -> None:
        below = records[-1].offset + 1 if failed_at is None else failed_at
        self.records_done += sum(record.offset < below for record in records)
        partition.done_below(below)
        if failed_at is None or failed_at > records[0].offset:
            partition.succeeded()  # it moved; the record that failed now fails for the first time
        if failed_at is not None:
            partition.failed(time.monotonic())
        key = TopicPartition(partition.topic, partition.number)
        paused = self._partitions.get(key) is partition and key in self._consumer.paused()
        if paused and len(partition.records) < self._mapping.batch_size:
            self._consumer.resume(key)

    def _log_failure(self, kind: str, error: str, batch: list[Slice]) -> None:
        self.last_error = f"{kind}: {error}"
        logger.error(
            "batch failed, nothing of what failed is committed, it is tried again",
            extra={
                "kind": kind,
                "function": self._mapping.function_name,
                "error": error,
                "failures_in_a_row": max(p.failures for p, _ in batch) + 1,
                "offsets": {p.name: [records[0].offset, records[-1].offset] for p, records in batch},
            },
        )

    async def _commit(self) -> None:
        """Commit every partition's progress. What cannot be committed now is tried again, and replayed at worst."""
        async with self._committing:
            moved = {k: p for k, p in self._partitions.items() if p.position is not None and p.position != p.committed}
            if not moved:
                return
            offsets = {key: partition.position for key, partition in moved.items() if partition.position is not None}
            try:
                await self._consumer.commit(offsets)
            except (CommitFailedError, IllegalStateError) as e:
                logger.warning("not committed: the partitions have another owner now", extra={"error": str(e)})
                self._partitions = {k: p for k, p in self._partitions.items() if k not in moved}
                return
            except KafkaError as e:
                logger.warning("commit failed, it is tried again", extra={"error": repr(e)})
                return
            for key, partition in moved.items():
                partition.committed = offsets[key]

    async def _drain(self, tasks: Iterable[asyncio.Task[None]]) -> None:
        pending = list(tasks)
        if pending:
            await asyncio.wait(pending, timeout=_DRAIN_S_MAX)

    # --- what is shown ------------------------------------------------------------------------------------------

    def lag_s(self, topic: str) -> float | None:
        """How long ago the oldest record came to the topic that is not done; None where nobody can say: no partition is
        ours, or Kafka is away."""
        mine = {key: partition for key, partition in self._partitions.items() if key.topic == topic}
        oldest_ms = min((one.records[0].timestamp for one in mine.values() if one.records), default=None)
        if oldest_ms is None:
            return 0.0 if mine and all(map(self._was_asked_lately, mine)) else None
        return max(0.0, time.time() - oldest_ms / 1000)

    def _was_asked_lately(self, key: TopicPartition) -> bool:
        """Whether Kafka has said a moment ago what is in the partition."""
        try:
            at_ms = self._consumer.last_poll_timestamp(key)
        except (KafkaError, AssertionError):
            return False
        return at_ms is not None and time.time() - at_ms / 1000 < _ASKED_S_MAX

    def snapshot(self) -> dict[str, Any]:
        """For the heartbeat: progress, lag and trouble by partition."""
        now = time.monotonic()
        partitions = [self._shown(key, partition, now) for key, partition in sorted(self._partitions.items())]
        return {
            "invocations": self.invocations,
            "records": self.records_done,
            "lag": sum(p["lag"] for p in partitions),
            "last_error": self.last_error,
            "partitions": partitions,
        }

    def _shown(self, key: TopicPartition, partition: Partition, now: float) -> dict[str, Any]:
        try:
            end = self._consumer.highwater(key)
        except (KafkaError, AssertionError):
            end = None
        lag = len(partition.records)
        if end is not None and partition.position is not None:
            lag = max(0, end - partition.position)
        return {
            "topic": partition.topic,
            "partition": partition.number,
            "committed": partition.committed,
            "lag": lag,
            "in_flight": partition.is_in_flight,
            "failures": partition.failures,
            "retry_in_s": round(max(0.0, partition.not_before - now), 1) if partition.failures else None,
        }
