"""Redis: one server, one for each endpoint, a master and replicas under Sentinel, or a cluster.

Where servers replicate, a master that died must not come back as the master: its replicas would take over what it has
lost, and nobody would be put in its place while it starts. So nothing restarts such a server by itself, and whoever
starts it asks first who is the master now (``redis_roles``); it comes back as a replica of that one.
"""

import subprocess
from collections.abc import Collection
from functools import cache
from pathlib import Path

from redis.exceptions import RedisError

from encore_stack import redis_roles
from encore_stack.instance import (
    PROJECT_DIR,
    REDIS_PARTS,
    REDIS_SERVERS,
    SENTINELS,
    Instance,
    write_atomically,
)
from encore_stack.parts.base import Part, Unhealthy, find_program
from encore_stack.ports import HOST


class RedisServer(Part):
    """A server that keeps data."""

    peers = REDIS_PARTS

    def __init__(self, name: str) -> None:
        self.name = name

    def absent(self, instance: Instance) -> str | None:
        if self.name in instance.redis_servers:
            return None
        return _why_absent(instance, [kind for kind, servers in REDIS_SERVERS.items() if self.name in servers])

    def restarts_when_it_dies(self, instance: Instance) -> bool:
        return not redis_roles.replicates(instance)

    def prepare(self, instance: Instance) -> None:
        data = instance.data_dir(self.name)
        data.mkdir(parents=True, exist_ok=True)
        kinds = ["redis"]
        own = [f"port {instance.ports[self.name]}", f'dir "{data}"']
        if redis_roles.replicates(instance):
            kinds.append("replicated")
            kinds.append("watched" if instance.redis_topology == "sentinel" else "cluster")
        if instance.redis_topology == "cluster":
            own.append(f"cluster-port {instance.ports[f'{self.name}_bus']}")
        folder = PROJECT_DIR / "localstack" / "redis"
        shared = [(folder / f"{kind}.conf").read_text() for kind in kinds]
        write_atomically(self._file(instance), "\n".join([*shared, *own, ""]))

    def take_role(self, instance: Instance, running: Collection[str]) -> None:
        if instance.redis_topology == "sentinel":
            master = redis_roles.settle_master(instance, self.name, running)
            if master != self.name:
                with self._file(instance).open("a") as file:
                    file.write(f"replicaof {HOST} {instance.ports[master]}\n")
        elif instance.redis_topology == "cluster":
            redis_roles.hand_over_slots(instance, self.name, running)
            redis_roles.write_nodes(instance, self.name)

    def command(self, instance: Instance) -> list[str]:
        return [*before_a_server(), find_program("redis-server"), str(self._file(instance))]

    def _file(self, instance: Instance) -> Path:
        return instance.run_dir / f"{self.name}.conf"

    def probe(self, instance: Instance) -> None:
        """A replica must follow its master, and a node must find its cluster well."""
        try:
            fault = redis_roles.role_of(instance, self.name).fault
        except RedisError as error:  # it is loading its files, for example
            raise Unhealthy(str(error)) from error
        if fault:
            raise Unhealthy(fault)

    def role(self, instance: Instance) -> str | None:
        if not redis_roles.replicates(instance):
            return None
        try:
            return str(redis_roles.role_of(instance, self.name))
        except RedisError:
            return None


class Sentinel(Part):
    """Watches the servers; two of the three agree that the master is dead and make one of its replicas the master."""

    needs = REDIS_SERVERS["sentinel"]
    """A sentinel that does not find the master within a second would replace it."""
    peers = SENTINELS

    def __init__(self, name: str) -> None:
        self.name = name

    def absent(self, instance: Instance) -> str | None:
        return None if self.name in instance.sentinels else _why_absent(instance, ["sentinel"])

    def prepare(self, instance: Instance) -> None:
        instance.data_dir(self.name).mkdir(parents=True, exist_ok=True)

    def take_role(self, instance: Instance, running: Collection[str]) -> None:
        redis_roles.write_sentinel(instance, self.name, running)

    def command(self, instance: Instance) -> list[str]:
        return [find_program("redis-server"), str(redis_roles.sentinel_file(instance, self.name)), "--sentinel"]

    def probe(self, instance: Instance) -> None:
        try:
            redis_roles.check_quorum(instance, self.name)
        except RedisError as error:
            raise Unhealthy(str(error)) from error

    def advice(self, instance: Instance) -> str:
        return f"two of the three sentinels must run to agree (scripts/status); {super().advice(instance)}"


@cache
def before_a_server() -> list[str]:
    """What to put before a server's command so that it is a batch process, which drives nobody from the CPU when it is
    waked: it shares the machine with its callers, and finds the commands of several of them at once.

    Nothing where that is refused, as some sandboxes do: it costs speed only.
    """
    head = [find_program("chrt"), "--batch", "0"]
    refused = subprocess.run([*head, "true"], stderr=subprocess.DEVNULL, check=False).returncode
    return [] if refused else head


def _why_absent(instance: Instance, topologies: list[str]) -> str:
    return (
        f"the instance runs Redis as '{instance.redis_topology}'"
        f" (scripts/up --redis {' or '.join(topologies)} has this part)"
    )
