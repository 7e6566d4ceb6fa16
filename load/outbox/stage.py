"""One Postgres, one broker, a topic stamped by the broker, and seats to sell; on the benchmarks' instance."""

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from benchmarks import stage as benchmarks_stage
from benchmarks import tools
from benchmarks.machine import cpu_s
from booking.platform.migrate import migrate
from booking.platform.resources import read_text
from booking.platform.settings import settings
from encore_stack.dataset import Counts, load
from encore_stack.instance import TOPIC_PARTITIONS, Instance
from encore_stack.parts.postgres import connect, processes_of
from encore_stack.process_settings import adopt_settings
from encore_stack.stack import Stack

SQL = Path(__file__).parent / "sql"
_CONCERTS = 10  # of 15,000 seats; the benchmarks sell those of the third and later
_READ_WAIT_S = 10.0


@dataclass(frozen=True)
class Cost:
    """What Postgres spent."""

    wal_bytes: int
    cpu_s: float

    def __sub__(self, before: "Cost") -> "Cost":
        return Cost(self.wal_bytes - before.wal_bytes, self.cpu_s - before.cpu_s)


class Stage:
    """The servers, running; they are taken down with their instance."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        instance = Instance.load(benchmarks_stage.INSTANCE)
        self.topic = f"outbox-{time.time_ns()}"
        tell("Postgres and Kafka")
        Stack(instance).up((instance.postgres_primary, "kafka"))
        self.instance = Instance.load(benchmarks_stage.INSTANCE)
        self._url = self.instance.database_url(self.instance.postgres_primary)
        # Whole pages in the log depend on when the last checkpoint was, not on what is measured.
        for sql in ("alter system set full_page_writes = off", "select pg_reload_conf()"):
            self.run(sql, "postgres", "postgres")
        tell("database")
        migrate(self._url)
        load(self._url, Counts(_CONCERTS, _CONCERTS * 100, _CONCERTS * 15_000), tell)
        self.run((benchmarks_stage.SQL / "setup.sql").read_text())
        adopt_settings(self.instance)
        os.environ["ENCORE_RESERVATION_TOPIC"] = self.topic
        settings.cache_clear()
        asyncio.run(self._create_topic())

    def run(self, sql: str, user: str = "encore", database: str = "encore") -> list[list[object]]:
        """Statements as ``user``; the rows of the last."""
        with closing(connect(self.instance, self.instance.postgres_primary, user, database)) as connection:
            return list(connection.run(sql) or [])

    def without_outbox(self) -> None:
        """From now on events are counted and not written."""
        self.run((SQL / "emit_nothing.sql").read_text())

    def with_outbox(self) -> None:
        """As it is."""
        self.run(read_text("booking.platform", "sql/functions/emit_event.sql"))

    def book(self, clients: int, duration_s: float, rate_per_s: float | None = None) -> float:
        """Whole bookings by pgbench; how many a second."""
        libpq = {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.instance.ports[self.instance.postgres_primary]),
            "PGUSER": "encore",
            "PGPASSWORD": self.instance.secrets()["database_password"],
            "PGDATABASE": "encore",
        }
        return tools.pgbench(libpq, (SQL / "book.sql").read_text(), clients, duration_s, rate_per_s=rate_per_s)

    def cost(self) -> Cost:
        """What Postgres has spent so far, its finished backends included."""
        [[wal]] = self.run("select (pg_current_wal_lsn() - '0/0')::bigint", "postgres")
        return Cost(int(str(wal)), cpu_s(processes_of(self.instance, self.instance.postgres_primary)))

    def delays_s(self, since: float) -> list[float]:
        """How long after its transaction wrote it each event that is newer than ``since`` was in the broker's log."""
        return asyncio.run(self._delays(since))

    async def _create_topic(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=settings().kafka_bootstrap_servers)
        await admin.start()
        try:
            stamped = {"message.timestamp.type": "LogAppendTime"}
            await admin.create_topics([NewTopic(self.topic, TOPIC_PARTITIONS, 1, topic_configs=stamped)])
        finally:
            await admin.close()

    async def _delays(self, since: float) -> list[float]:
        committed = {
            str(event_id): float(str(at))
            for event_id, at in self.run(
                "select event_id::text, extract(epoch from occurred_at) from outbox"
                f" where occurred_at > to_timestamp({since})"
            )
        }
        consumer = AIOKafkaConsumer(
            self.topic, bootstrap_servers=settings().kafka_bootstrap_servers, auto_offset_reset="earliest"
        )
        await consumer.start()
        delays: dict[str, float] = {}
        try:
            async with asyncio.timeout(_READ_WAIT_S):
                while len(delays) < len(committed):
                    for records in (await consumer.getmany(timeout_ms=200)).values():
                        for record in records:
                            event_id = record.value[13:49].decode()  # the envelope begins with it
                            if event_id in committed:
                                delays.setdefault(event_id, record.timestamp / 1_000 - committed[event_id])
        finally:
            await consumer.stop()
        return sorted(delays.values())
