"""A poison record on the deployed stack: both consumers set it aside, and the operator's verb deals with it."""

import asyncio
import json
import subprocess
import uuid
from collections.abc import Callable

from aiokafka import AIOKafkaProducer

from encore_stack.instance import Instance
from support.waiting import wait_for


async def produce(instance: Instance, value: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=instance.kafka_bootstrap_servers) as producer:
        await producer.send_and_wait(instance.reservation_topic, value, headers=[("correlation_id", value)])


def test_a_poison_record_is_listed_sent_back_and_discarded(
    instance: Instance, run_script: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    poison = f"poison-{uuid.uuid4().hex}"
    asyncio.run(produce(instance, poison.encode()))

    def listed(state: str) -> list[dict[str, object]]:
        letters = json.loads(run_script("dead-letters", "list", "--state", state, "--json").stdout)
        return [letter for letter in letters if letter["correlation_id"] == poison]

    first, second = wait_for(lambda: listed("waiting"), lambda found: len(found) == 2, every_s=0.5)
    assert {first["consumer"], second["consumer"]} == {"tickets", "sales"}
    assert f"value  {poison}" in run_script("dead-letters", "show", str(first["id"])).stdout

    assert run_script("dead-letters", "redrive", str(first["id"]), "--limit", "1").returncode == 0
    wait_for(lambda: listed("waiting"), lambda found: [each["attempts"] for each in found] == [6, 5], every_s=0.5)
    for letter in (first, second):
        assert run_script("dead-letters", "discard", str(letter["id"]), "--reason", "a test").returncode == 0

    assert len(listed("discarded")) == 2
