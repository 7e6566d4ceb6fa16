"""Apache Kafka: one broker in KRaft mode, or somebody else's cluster when KAFKA_BOOTSTRAP_SERVERS names one."""

import asyncio
import logging
import subprocess
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from contextlib import suppress

from aiokafka import AIOKafkaClient
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from encore_stack.instance import (
    PROJECT_DIR,
    TOPIC_PARTITIONS,
    Instance,
    write_atomically,
)
from encore_stack.parts.base import Part, PartError, Unhealthy, find_program, probe_tcp

# Its own words about a broker that is not up yet would only repeat ours.
logging.getLogger("aiokafka").setLevel(logging.CRITICAL)

_HEAP = ["-Xmx384m", "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
_CLIENT_TIMEOUT_MS = 2_000


class Kafka(Part):
    name = "kafka"
    stop_wait_s = 30

    def absent(self, instance: Instance) -> str | None:
        return f"external: {instance.external_kafka}" if instance.external_kafka else None

    def prepare(self, instance: Instance) -> None:
        instance.data_dir(self.name).mkdir(parents=True, exist_ok=True)
        properties = instance.run_dir / "kafka.properties"
        write_atomically(properties, self._properties(instance))
        if (instance.data_dir(self.name) / "log" / "meta.properties").exists():
            return
        cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        command = self._java(instance, "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(properties))
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise PartError(f"kafka: its storage could not be formatted:\n{done.stdout}{done.stderr}")

    def command(self, instance: Instance) -> list[str]:
        return self._java(instance, "kafka.Kafka", str(instance.run_dir / "kafka.properties"))

    def probe(self, instance: Instance) -> None:
        if not instance.external_kafka:
            probe_tcp(instance.ports[self.name])
        try:
            asyncio.run(_ask_metadata(instance.kafka_bootstrap_servers))
        except (KafkaError, OSError, TimeoutError) as error:
            raise Unhealthy(f"metadata request: {error or type(error).__name__}") from error

    def when_healthy(self, instance: Instance) -> None:
        create_topics(instance)

    @staticmethod
    def _java(instance: Instance, main: str, *arguments: str) -> list[str]:
        settings = PROJECT_DIR / "localstack" / "kafka" / "log4j2.properties"
        return [
            find_program("java"),
            *_HEAP,
            "-XX:+ExitOnOutOfMemoryError",
            "-XX:-UsePerfData",
            "-Djava.awt.headless=true",
            f"-Djava.io.tmpdir={instance.tmp_dir}",
            f"-Dlog4j2.configurationFile={settings}",
            "-cp",
            f"{instance.tools_dir}/kafka/libs/*",
            main,
            *arguments,
        ]

    @staticmethod
    def _properties(instance: Instance) -> str:
        settings = (PROJECT_DIR / "localstack" / "kafka" / "server.properties").read_text()
        broker, controller = instance.ports["kafka"], instance.ports["kafka_controller"]
        return (
            f"{settings}\n"
            f"listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}\n"
            f"advertised.listeners=PLAINTEXT://127.0.0.1:{broker}\n"
            f"controller.quorum.voters=1@127.0.0.1:{controller}\n"
            f"log.dirs={instance.data_dir('kafka')}/log\n"
        )


async def _ask_metadata(bootstrap_servers: str) -> None:
    client = AIOKafkaClient(bootstrap_servers=bootstrap_servers, request_timeout_ms=_CLIENT_TIMEOUT_MS)
    try:
        await client.bootstrap()
        if not client.cluster.brokers():
            raise Unhealthy("metadata request: no broker")
    finally:
        await client.close()


def create_topics(instance: Instance) -> None:
    """Make the topics that are missing. Raises PartError."""
    topics = (instance.reservation_topic, instance.dead_letter_topic)
    try:
        asyncio.run(_create_topics(instance.kafka_bootstrap_servers, topics))
    except (KafkaError, OSError) as error:
        where = instance.kafka_bootstrap_servers
        raise PartError(
            f"kafka: the topics could not be created at {where}: {error or type(error).__name__}"
        ) from error


async def _create_topics(bootstrap_servers: str, topics: Sequence[str]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        there = set(await admin.list_topics())
        brokers = len((await admin.describe_cluster())["brokers"])
        missing = [
            NewTopic(name=topic, num_partitions=TOPIC_PARTITIONS, replication_factor=min(3, brokers))
            for topic in topics
            if topic not in there
        ]
        if missing:
            with suppress(TopicAlreadyExistsError):
                response = await admin.create_topics(missing)
                for _topic, code, *_ in response.topic_errors:
                    if code:
                        raise for_code(code)()
    finally:
        await admin.close()
