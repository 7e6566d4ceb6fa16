"""Dead letters under a drill: what an operator's verb says of them, and what the dead-letter topic holds."""

import asyncio
import json
import os
import subprocess
from collections.abc import Collection
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import ConsumerRecord

from drills.harness.scene import IncidentFailed
from encore_stack.instance import PROJECT_DIR, Instance

_VERB_S_MAX, _READ_S_MAX = 30, 20


def verb(instance: Instance, *arguments: str) -> Any:
    """What ``scripts/dead-letters`` answers with ``--json``. Raises IncidentFailed with its words when it fails."""
    done = subprocess.run(
        [str(PROJECT_DIR / "scripts" / "dead-letters"), *arguments, "--json"],
        check=False,
        env={**os.environ, "ENCORE_INSTANCE": instance.name},
        capture_output=True,
        text=True,
        timeout=_VERB_S_MAX,
    )
    if done.returncode:
        raise IncidentFailed(f"scripts/dead-letters {arguments[0]}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def listed(instance: Instance, correlation_ids: Collection[str]) -> list[dict[str, Any]]:
    """The dead letters that wait, as the verb lists them, of records with these correlation ids."""
    return [letter for letter in verb(instance, "list") if letter["correlation_id"] in correlation_ids]


def in_topic(instance: Instance, letters: Collection[dict[str, Any]]) -> int:
    """How many of these dead letters the dead-letter topic holds with error, attempts, origin and correlation id."""
    found = [{name: value.decode() for name, value in record.headers} for record in _records(instance)]
    return sum(any(headers | _facts(letter) == headers for headers in found) for letter in letters)


def _facts(letter: dict[str, Any]) -> dict[str, str]:
    return {
        "dead_letter_id": str(letter["id"]),
        "consumer": letter["consumer"],
        "error": letter["error"],
        "attempts": str(letter["attempts"]),
        "origin_topic": letter["topic"],
        "origin_partition": str(letter["partition"]),
        "origin_offset": str(letter["offset"]),
        "correlation_id": letter["correlation_id"],
    }


def _records(instance: Instance) -> list[ConsumerRecord]:
    async def read() -> list[ConsumerRecord]:
        async with AIOKafkaConsumer(
            instance.dead_letter_topic,
            bootstrap_servers=instance.kafka_bootstrap_servers,
            fetch_max_wait_ms=20,
            auto_offset_reset="earliest",  # seek_to_beginning is lost while the reset to the default is on its way
        ) as consumer:
            partitions = consumer.assignment()
            ends = await consumer.end_offsets(partitions)
            found: list[ConsumerRecord] = []
            async with asyncio.timeout(_READ_S_MAX):
                while [one for one in partitions if await consumer.position(one) < ends[one]]:
                    for records in (await consumer.getmany(timeout_ms=100)).values():
                        found += records
            return found

    return asyncio.run(read())
