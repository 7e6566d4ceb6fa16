"""Runs one poller per mapping until SIGTERM, with a heartbeat file."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aws_lambda_powertools import Logger

from event_source.invoker import Invoker
from event_source.lag import Lag, publish_lags
from event_source.poller import Poller
from event_source.settings import BadSettings, Mapping, Settings, read_settings

_RECONNECT_S = 2.0
_HEARTBEAT_S = 1.0

logger = logging.getLogger("event_source")


class Source:
    """Keeps the poller of one mapping alive: a Kafka that is away is waited for."""

    def __init__(self, settings: Settings, mapping: Mapping) -> None:
        self._settings = settings
        self._mapping = mapping
        self._poller: Poller | None = None
        self._state = "starting"

    async def run(self) -> None:
        while True:
            try:
                await self._run_once()
            except* (KafkaError, OSError) as failures:
                self._poller, self._state = None, "waiting for Kafka"
                error = repr(failures.exceptions[0])
                logger.error("Kafka failed, trying again", extra={"error": error, "retry_in_s": _RECONNECT_S})
            await asyncio.sleep(_RECONNECT_S)

    async def _run_once(self) -> None:
        mapping, settings = self._mapping, self._settings
        consumer = AIOKafkaConsumer(
            bootstrap_servers=settings.bootstrap_servers,
            group_id=mapping.consumer_group,
            enable_auto_commit=False,
            auto_offset_reset="latest" if mapping.starting_position == "LATEST" else "earliest",
            # Notice topics that are created, and partitions that are added, while running.
            metadata_max_age_ms=3_000,
            session_timeout_ms=6_000,
            heartbeat_interval_ms=1_000,
        )
        invoker = Invoker(settings.localstack_url, mapping.function_name, settings.region, mapping.timeout_s)
        arn = f"arn:aws:kafka:{settings.region}:000000000000:cluster/{settings.stack_name}/local"
        try:
            await consumer.start()
            self._poller = Poller(mapping, consumer, invoker, arn, settings.bootstrap_servers)
            self._state = "running"
            await self._poller.run()
        finally:
            await consumer.stop()
            await invoker.close()

    def lags(self) -> list[Lag]:
        """How far the consumer is behind, for each topic where that can be said."""
        if self._poller is None:
            return []
        group = self._mapping.consumer_group
        told = [(topic, self._poller.lag_s(topic)) for topic in self._mapping.topics]
        return [Lag(group, topic, seconds) for topic, seconds in told if seconds is not None]

    def snapshot(self) -> dict[str, Any]:
        return {
            "function": self._mapping.function_name,
            "topics": self._mapping.topics,
            "consumer_group": self._mapping.consumer_group,
            "state": self._state,
            **(self._poller.snapshot() if self._poller else {"partitions": [], "lag": None}),
        }


async def beat(run_dir: Path, sources: Sequence[Source]) -> None:
    """Replace `poller.json` each second: it is old when the poller is dead or stuck."""
    run_dir.mkdir(parents=True, exist_ok=True)
    target, draft = run_dir / "poller.json", run_dir / f"poller.json.{os.getpid()}"
    while True:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        shown = {"at": now, "pid": os.getpid(), "mappings": [source.snapshot() for source in sources]}
        draft.write_bytes(msgspec.json.encode(shown))
        draft.replace(target)
        await asyncio.sleep(_HEARTBEAT_S)


async def serve(settings: Settings) -> None:
    """Poll until SIGTERM or SIGINT."""
    sources = [Source(settings, mapping) for mapping in settings.mappings]
    tasks = [asyncio.create_task(source.run()) for source in sources]
    tasks.append(asyncio.create_task(publish_lags(settings, lambda: [lag for one in sources for lag in one.lags()])))
    if settings.run_dir:
        tasks.append(asyncio.create_task(beat(settings.run_dir, sources)))
    stopped = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stopped.set)
    stopping = asyncio.create_task(stopped.wait())
    await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
    for task in (*tasks, stopping):
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError):
            await task  # a task that ended by itself did so by an error: the process ends with it


class SeldomFilter(logging.Filter):
    """Lets each kind of message through once in 10 s: aiokafka says tens a second while a broker is away."""

    _EVERY_S = 10.0

    def __init__(self) -> None:
        super().__init__()
        self._said_at: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        kind = f"{record.pathname}:{record.lineno}"
        if record.created - self._said_at.get(kind, 0.0) < self._EVERY_S:
            return False
        self._said_at[kind] = record.created
        return True


def main() -> int:
    Logger(service="event_source")  # every line of the logger of this name becomes one line of JSON
    Logger(service="aiokafka", level="WARNING")
    for handler in logging.getLogger("aiokafka").handlers:
        handler.addFilter(SeldomFilter())
    try:
        settings = read_settings()
    except BadSettings as e:
        logger.error("cannot start", extra={"error": str(e)})
        return 1
    for mapping in settings.mappings:
        logger.info("polling", extra={"mapping": msgspec.to_builtins(mapping)})
    asyncio.run(serve(settings))
    logger.info("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
