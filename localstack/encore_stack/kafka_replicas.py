"""Which broker has which partitions, and taking a broker that is slow but alive out of everybody's way.

Kafka helps itself when a broker dies, not when it is slow: a slow leader answers late, and a slow follower that counts
as in sync holds up every record that its leader has to acknowledge. So leaders and replicas are moved to the others.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiokafka import AIOKafkaClient
from aiokafka.errors import for_code
from aiokafka.protocol.admin import AlterPartitionReassignmentsRequest
from aiokafka.protocol.metadata import MetadataRequest

_REQUEST_TIMEOUT_MS = 10_000
_LOOK_S = 0.1
_IN_SYNC_MIN = 2
"""As min.insync.replicas of three brokers: with fewer nothing is acknowledged."""


class CannotMove(Exception):
    """The replicas cannot be moved, or were not in time; the message says why."""


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition and the node ids of its brokers. ``leader`` is -1 while there is none."""

    topic: str
    number: int
    leader: int
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]


ReplicasOf = Callable[[Partition], Sequence[int] | None]
"""The brokers that a partition shall have, None to leave it as it is."""


def partitions(servers: str) -> list[Partition]:
    """Every partition of every topic, Kafka's own too, as the first server that answers sees them.

    Raises KafkaError, OSError, TimeoutError.
    """

    async def look() -> list[Partition]:
        async with _Admin(servers) as admin:
            return await admin.partitions()

    return asyncio.run(look())


def move_off(servers: str, node: int, within_s: float) -> int:
    """Take all leaders and replicas from the broker with this node id; returns how many partitions it had, once it has
    none.

    ``servers`` are the others, so that nothing waits for the slow one. Raises CannotMove, and as ``partitions``.
    """
    return asyncio.run(_reassign(servers, lambda partition: without(partition, node), within_s))


def move_back(servers: str, nodes: Sequence[int], within_s: float) -> int:
    """Give every partition a replica on each of these brokers again; returns how many lacked one, once all are in sync.

    Leaders follow within five minutes, when Kafka gives each partition back to the first of its replicas. Raises as
    ``move_off``.
    """
    return asyncio.run(_reassign(servers, lambda partition: on_all(partition, nodes), within_s))


def without(partition: Partition, node: int) -> Sequence[int] | None:
    """The partition's brokers without one of them. Raises CannotMove where too few would be left in sync."""
    if node not in partition.replicas:
        return None
    left = [replica for replica in partition.replicas if replica != node]
    if len(set(left) & set(partition.in_sync)) < _IN_SYNC_MIN:
        raise CannotMove(
            f"{partition.topic}-{partition.number} is in sync on {list(partition.in_sync)} only: without broker {node}"
            " nothing of it would be acknowledged"
        )
    return left


def on_all(partition: Partition, nodes: Sequence[int]) -> Sequence[int] | None:
    """All brokers, in an order in which each is the first, and so leads, of its share of the partitions."""
    if set(partition.replicas) >= set(nodes):
        return None
    first = partition.number % len(nodes)
    return [*nodes[first:], *nodes[:first]]


async def _reassign(servers: str, replicas_of: ReplicasOf, within_s: float) -> int:
    async with _Admin(servers) as admin:
        wanted = {
            (one.topic, one.number): tuple(replicas)
            for one in await admin.partitions()
            if (replicas := replicas_of(one)) is not None
        }
        if not wanted:
            return 0
        await admin.reassign(wanted)
        deadline_s = time.monotonic() + within_s
        while late := [
            f"{one.topic}-{one.number}"
            for one in await admin.partitions()
            if (replicas := wanted.get((one.topic, one.number))) and not _is_as_wanted(one, replicas)
        ]:
            if time.monotonic() > deadline_s:
                raise CannotMove(f"not moved within {within_s:.0f} s: {', '.join(late)}")
            await asyncio.sleep(_LOOK_S)
        return len(wanted)


def _is_as_wanted(partition: Partition, replicas: Sequence[int]) -> bool:
    return set(partition.in_sync) == set(partition.replicas) == set(replicas) and partition.leader in replicas


class _Admin:
    """What aiokafka's admin client cannot: reassign partitions, and ask a server that one chooses."""

    def __init__(self, servers: str) -> None:
        self._client = AIOKafkaClient(bootstrap_servers=servers, request_timeout_ms=_REQUEST_TIMEOUT_MS)
        self._ports = {int(server.rpartition(":")[2]) for server in servers.split(",")}
        self._node = 0

    async def __aenter__(self) -> "_Admin":
        await self._client.bootstrap()
        nodes = [broker.nodeId for broker in self._client.cluster.brokers() if broker.port in self._ports]
        for node in nodes:
            if await self._client.ready(node):
                self._node = node
                return self
        await self._client.close()
        raise ConnectionError(f"none of the brokers answers: {sorted(self._ports)}")

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def partitions(self) -> list[Partition]:
        response = (await self._client.send(self._node, MetadataRequest())).to_object()
        return [
            Partition(topic["topic"], one["partition"], one["leader"], tuple(one["replicas"]), tuple(one["isr"]))
            for topic in response["topics"]
            for one in topic["partitions"]
        ]

    async def reassign(self, wanted: dict[tuple[str, int], tuple[int, ...]]) -> None:
        """Raises KafkaError for the first partition that the brokers refuse to move."""
        topics: dict[str, list[tuple[int, list[int], dict[int, bytes]]]] = {}
        for (topic, number), replicas in wanted.items():
            topics.setdefault(topic, []).append((number, list(replicas), {}))
        request = AlterPartitionReassignmentsRequest(
            timeout_ms=_REQUEST_TIMEOUT_MS, topics=[(topic, rows, {}) for topic, rows in topics.items()], tags={}
        )
        response = (await self._client.send(self._node, request)).to_object()
        rows = [row for topic in response["responses"] for row in topic["partitions"]]
        for code in (response["error_code"], *(row["error_code"] for row in rows)):
            if code:
                raise for_code(code)(response["error_message"] or "")
