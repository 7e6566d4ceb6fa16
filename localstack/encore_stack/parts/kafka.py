"""Apache Kafka in KRaft mode: one broker, or three that replicate; or somebody else's cluster.

Each broker is a controller too, so a cluster of three goes on when any one of them dies. KAFKA_BOOTSTRAP_SERVERS names
a cluster that is not ours; then the instance has no broker.
"""

import asyncio
import logging
import subprocess
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from contextlib import suppress

from aiokafka import AIOKafkaClient
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from encore_stack.instance import (
    BROKERS,
    PROJECT_DIR,
    Instance,
    write_atomically,
)
from encore_stack.parts.base import Part, PartError, Unhealthy, find_program, probe_tcp
from encore_stack.ports import HOST

# Its own words about a broker that is not up yet would only repeat ours.
logging.getLogger("aiokafka").setLevel(logging.CRITICAL)

_HEAP = ["-Xmx384m", "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
_CLIENT_TIMEOUT_MS = 2_000


class Kafka(Part):
    """One broker; its number is its node id."""

    stop_wait_s = 30
    start_timeout_s = 120.0
    peers = BROKERS

    def __init__(self, name: str) -> None:
        self.name = name
        self.node_id = BROKERS.index(name) + 1

    def absent(self, instance: Instance) -> str | None:
        if instance.external_kafka:
            return f"external: {instance.external_kafka}"
        if self.name not in instance.brokers:
            return "the instance has one Kafka broker (scripts/up --brokers 3 makes one with three)"
        return None

    def prepare(self, instance: Instance) -> None:
        instance.data_dir(self.name).mkdir(parents=True, exist_ok=True)
        properties = instance.run_dir / f"{self.name}.properties"
        write_atomically(properties, self._properties(instance))
        if (instance.data_dir(self.name) / "log" / "meta.properties").exists():
            return
        cluster = f"--cluster-id={_cluster_id(instance)}"
        command = self._java(instance, "kafka.tools.StorageTool", "format", cluster, "-c", str(properties))
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise PartError(f"{self.name}: its storage could not be formatted:\n{done.stdout}{done.stderr}")

    def command(self, instance: Instance) -> list[str]:
        return self._java(instance, "kafka.Kafka", str(instance.run_dir / f"{self.name}.properties"))

    def probe(self, instance: Instance) -> None:
        """A broker of our own must be a live member of the cluster in its own eyes."""
        if instance.external_kafka:
            servers, member = instance.external_kafka, None
        else:
            probe_tcp(instance.ports[self.name])
            servers, member = f"{HOST}:{instance.ports[self.name]}", self.node_id
        try:
            live = asyncio.run(_live_brokers(servers))
        except (KafkaError, OSError, TimeoutError) as error:
            raise Unhealthy(f"metadata request: {error or type(error).__name__}") from error
        if not live or (member is not None and member not in live):
            raise Unhealthy(f"not in the cluster yet (live brokers: {sorted(live) or 'none'})")

    def when_healthy(self, instance: Instance) -> None:
        """Topics are made by whichever broker is the last to come: only then is there room for all replicas."""
        servers = f"{HOST}:{instance.ports[self.name]}"
        with suppress(KafkaError, OSError, TimeoutError):
            if len(asyncio.run(_live_brokers(servers))) < instance.broker_count:
                return
        create_topics(instance)

    def advice(self, instance: Instance) -> str:
        if instance.broker_count == 1:
            return super().advice(instance)
        return f"two of the three brokers must run to make a cluster (scripts/status); {super().advice(instance)}"

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

    def _properties(self, instance: Instance) -> str:
        folder = PROJECT_DIR / "localstack" / "kafka"
        replication = "replicated.properties" if instance.broker_count > 1 else "single.properties"
        address = f"{HOST}:{instance.ports[self.name]}"
        voters = {BROKERS.index(name) + 1: instance.ports[f"{name}_controller"] for name in instance.brokers}
        own = {
            "node.id": self.node_id,
            "listeners": f"PLAINTEXT://{address},CONTROLLER://{HOST}:{voters[self.node_id]}",
            "advertised.listeners": f"PLAINTEXT://{address}",
            "controller.quorum.voters": ",".join(f"{node}@{HOST}:{port}" for node, port in voters.items()),
            "log.dirs": instance.data_dir(self.name) / "log",
        }
        lines = [(folder / name).read_text() for name in ("server.properties", replication)]
        return "\n".join([*lines, *(f"{key}={value}" for key, value in own.items()), ""])


def _cluster_id(instance: Instance) -> str:
    """The same for all brokers of an instance, which are formatted side by side."""
    return urlsafe_b64encode(uuid.uuid5(uuid.NAMESPACE_URL, str(instance.dir)).bytes).decode().rstrip("=")


async def _live_brokers(bootstrap_servers: str) -> set[int]:
    """The node ids of the brokers that are up, as the first server that answers sees them."""
    client = AIOKafkaClient(bootstrap_servers=bootstrap_servers, request_timeout_ms=_CLIENT_TIMEOUT_MS)
    try:
        await client.bootstrap()
        return {broker.nodeId for broker in client.cluster.brokers()}
    finally:
        await client.close()


def create_topics(instance: Instance) -> None:
    """Make the topics that are missing, and add partitions where there are fewer than wanted. Raises PartError."""
    topics = (instance.reservation_topic, instance.dead_letter_topic)
    try:
        asyncio.run(_create_topics(instance.kafka_bootstrap_servers, topics, instance.topic_partitions))
    except (KafkaError, OSError) as error:
        where = instance.kafka_bootstrap_servers
        raise PartError(
            f"kafka: the topics could not be created at {where}: {error or type(error).__name__}"
        ) from error


async def _create_topics(bootstrap_servers: str, topics: Sequence[str], partitions: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        there = {name for name in await admin.list_topics() if name in topics}
        brokers = len((await admin.describe_cluster())["brokers"])
        missing = [
            NewTopic(name=topic, num_partitions=partitions, replication_factor=min(3, brokers))
            for topic in topics
            if topic not in there
        ]
        if missing:
            with suppress(TopicAlreadyExistsError):
                response = await admin.create_topics(missing)
                for _topic, code, *_ in response.topic_errors:
                    if code:
                        raise for_code(code)()
        described = await admin.describe_topics(sorted(there)) if there else []
        narrow = {
            each["topic"]: NewPartitions(partitions) for each in described if len(each["partitions"]) < partitions
        }
        if narrow:
            await admin.create_partitions(narrow)
    finally:
        await admin.close()
