"""One assigned partition: its fetched records, how far it is done, and when it may be tried again."""

import random
from collections import deque
from collections.abc import Sequence
from itertools import islice

from event_source.msk import Record, partition_name, size_of

RETRY_S_MIN, RETRY_S_MAX = 0.25, 15.0


class Partition:
    """Records leave `records` only when they are done, so a retry needs no second fetch."""

    def __init__(self, topic: str, number: int) -> None:
        self.topic = topic
        self.number = number
        self.name = partition_name(topic, number)
        self.records: deque[Record] = deque()
        self._arrivals: deque[float] = deque()
        self.is_in_flight = False
        self.failures = 0
        """Failed tries in a row."""
        self.not_before = 0.0
        self.is_alone = False
        """Retried in an invocation of its own, until it succeeds."""
        self.take_max: int | None = None
        """How many records at once, while a failing batch is being split."""
        self.position: int | None = None
        """The next offset to process: everything below is done."""
        self.committed: int | None = None

    def add(self, records: Sequence[Record], now: float) -> None:
        if self.position is None:
            self.position = records[0].offset
            self.committed = self.position
        self.records.extend(records)
        self._arrivals.extend([now] * len(records))

    @property
    def oldest_arrival(self) -> float:
        """When the first waiting record came; there must be one."""
        return self._arrivals[0]

    def drop_records(self) -> None:
        self.records.clear()
        self._arrivals.clear()

    def is_ready(self, now: float) -> bool:
        return bool(self.records) and not self.is_in_flight and self.not_before <= now

    def peek(self, count_max: int, bytes_max: int) -> list[Record]:
        """The next records, at least one, within both limits. They stay until `done_below` or `retry_from`."""
        taken: list[Record] = []
        for record in islice(self.records, min(count_max, self.take_max or count_max)):
            bytes_max -= size_of(record)
            if taken and bytes_max < 0:
                break
            taken.append(record)
        return taken

    def done_below(self, offset: int) -> None:
        """Every record below `offset` is done."""
        while self.records and self.records[0].offset < offset:
            self.records.popleft()
            self._arrivals.popleft()
        self.position = offset

    def succeeded(self) -> None:
        self.failures = 0
        self.not_before = 0.0
        self.is_alone = False
        if self.take_max is not None:
            self.take_max *= 2

    def failed(self, now: float) -> float:
        """Full jitter above half of the backoff; returns the seconds until the next try."""
        self.failures += 1
        backoff_s = min(RETRY_S_MAX, RETRY_S_MIN * 2.0 ** min(self.failures - 1, 10))
        delay_s: float = backoff_s * random.uniform(0.5, 1.0)
        self.not_before = now + delay_s
        return delay_s
