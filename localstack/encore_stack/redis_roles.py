"""Who is master among the Redis servers of an instance: under Sentinel, and for each slot of a cluster.

A server that starts while others run asks here first. Where it is still thought to be the master, another is made the
master at once, so that it comes back as a replica; nothing waits for the others to notice that it had died.
"""

import json
import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path
from typing import Any

from redis.connection import Connection
from redis.crc import key_slot
from redis.exceptions import RedisError

from encore_stack.instance import FAILING_OVER, SENTINEL_SERVICE, Instance, write_atomically
from encore_stack.ports import HOST

_TIMEOUT_S = 2.0
_FAILOVER_S = 10.0
_ASK_AGAIN_S = 2.0
_POLL_S = 0.02
_SLOT_RANGES = ("0-5460", "5461-10922", "10923-16383")
_NODE = re.compile(r"^(?P<id>[0-9a-f]{40}) [^ ]+ (?P<rest>.+)$")

Ask = Callable[..., Any]


class NoMaster(Exception):
    """Nobody is known to be the master at this moment."""


@dataclass(frozen=True)
class Role:
    """What a server says it is: a replica of the part ``master``, else the master. And what is wrong, if anything."""

    master: str | None = None
    fault: str | None = None

    def __str__(self) -> str:
        return f"replica of {self.master}" if self.master else "master"


@dataclass(frozen=True)
class Node:
    """A node as another one of its cluster sees it."""

    id: str
    flags: frozenset[str]
    master_id: str
    slots: tuple[str, ...]


def replicates(instance: Instance) -> bool:
    """Whether the servers have replicas."""
    return instance.redis_topology in FAILING_OVER


def role_of(instance: Instance, name: str) -> Role:
    """Ask a server. Raises RedisError when it does not answer, or is still loading its files."""
    with asking(instance, name) as ask:
        ask("PING")
        kind, *details = ask("ROLE")
        faults = []
        if instance.redis_topology == "cluster" and b"cluster_state:ok" not in ask("CLUSTER", "INFO"):
            faults.append("the cluster is not well")
    if kind == b"master":
        if instance.redis_topology == "sentinel" and not details[1]:
            faults.append("no replica follows it, so it refuses to write")
        return Role(fault="; ".join(faults) or None)
    _, port, link, *_ = details
    if link != b"connected":
        faults.append(f"its link is in state '{link.decode()}'")
    return Role(_part_at(instance, port), "; ".join(faults) or None)


def master_of(instance: Instance, key: str = "") -> str:
    """The part that is the master now; in a cluster that of ``key``'s slot. Raises NoMaster."""
    match instance.redis_topology:
        case "sentinel":
            return _agreed_master(instance, instance.sentinels) or _no_master()
        case "cluster":
            return _owner_of(instance, key_slot(key.encode()))
    return instance.redis_servers[0]


# -- Sentinel --------------------------------------------------------------------------------------------------------


def settle_master(instance: Instance, name: str, running: Collection[str]) -> str:
    """Who is the master from the moment when server ``name`` starts; ``running`` are the parts that run already.

    Where ``name`` itself is still thought to be, a replica takes its place first. Nobody can where there is no replica
    or no majority of sentinels: then it starts as the master, with what it has on its disk.
    """
    sentinels = [each for each in instance.sentinels if each in running]
    master = _agreed_master(instance, sentinels)
    if master is None:
        return _last_master(instance)
    if master in instance.redis_servers and master != name:
        return master
    if not set(instance.redis_servers) & set(running) - {name}:
        return name

    def replaced() -> bool:
        return _agreed_master(instance, sentinels) not in (None, name)

    _until(replaced, lambda: _ask_any(instance, sentinels, "SENTINEL", "FAILOVER", SENTINEL_SERVICE))
    return _agreed_master(instance, sentinels) or name


def write_sentinel(instance: Instance, name: str, running: Collection[str]) -> None:
    """The configuration of a sentinel, with everything that it would otherwise have to find out first."""
    others = [each for each in instance.sentinels if each != name]
    master = _agreed_master(instance, [each for each in others if each in running])
    master = master or _reigning(instance) or _last_master(instance)
    service = SENTINEL_SERVICE
    lines = [
        f"sentinel myid {_id(instance, name)}",
        f"sentinel monitor {service} {HOST} {instance.ports[master]} 2",
        # In milliseconds. So long without an answer means down; a failed failover is tried again after twice the other.
        f"sentinel down-after-milliseconds {service} 1500",
        f"sentinel failover-timeout {service} 2000",
        f"sentinel parallel-syncs {service} 2",
        *(
            f"sentinel known-replica {service} {HOST} {instance.ports[server]}"
            for server in instance.redis_servers
            if server != master
        ),
        *(
            f"sentinel known-sentinel {service} {HOST} {instance.ports[other]} {_id(instance, other)}"
            for other in others
        ),
    ]
    ports = {instance.ports[server]: server for server in instance.redis_servers}
    write_atomically(_ports_file(instance, name), json.dumps(ports))
    shared = (instance.project_dir / "localstack" / "redis" / "sentinel.conf").read_text()
    own = [f"port {instance.ports[name]}", f'dir "{instance.data_dir(name)}"', *lines, ""]
    write_atomically(sentinel_file(instance, name), f"{shared}\n" + "\n".join(own))


def sentinel_file(instance: Instance, name: str) -> Path:
    """A sentinel's configuration, in which it records who is the master."""
    return instance.data_dir(name) / "sentinel.conf"


def check_quorum(instance: Instance, name: str) -> None:
    """Raises RedisError when this sentinel does not answer, or sees too few others to make another server master."""
    with asking(instance, name) as ask:
        ask("SENTINEL", "CKQUORUM", SENTINEL_SERVICE)


def _agreed_master(instance: Instance, sentinels: Sequence[str]) -> str | None:
    """The master in the eyes of the sentinel that has heard of the latest failover; None when none answers."""
    seen: list[tuple[int, int]] = []
    for name in sentinels:
        with suppress(RedisError), asking(instance, name) as ask:
            seen.append(_master_seen(ask))
    return _part_at(instance, max(seen)[1]) if seen else None


def _master_seen(ask: Ask) -> tuple[int, int]:
    """The epoch of the latest failover that a sentinel has heard of, and the port of the master since then.

    Not from one answer: while it fails over, a sentinel shows the new epoch with the old address. Nor from two between
    which it has heard of a failover: the old address would have the new epoch.
    """
    while True:
        before = _config_epoch(ask)
        _, port = ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SENTINEL_SERVICE)
        if _config_epoch(ask) == before:
            return before, int(port)


def _config_epoch(ask: Ask) -> int:
    return int(pairs(ask("SENTINEL", "MASTER", SENTINEL_SERVICE))[b"config-epoch"])


def _reigning(instance: Instance) -> str | None:
    """The server that says that it is the master, and has the most replicas; None when none does."""
    seen: list[tuple[int, str]] = []
    for name in instance.redis_servers:
        with suppress(RedisError), asking(instance, name) as ask:
            kind, *details = ask("ROLE")
            if kind == b"master":
                seen.append((len(details[1]), name))
    return max(seen)[1] if seen else None


def _last_master(instance: Instance) -> str:
    """The master by what the sentinels wrote down before they ended; at the very first start the first server."""
    seen: list[tuple[int, str]] = []
    for name in instance.sentinels:
        with suppress(FileNotFoundError):
            text = sentinel_file(instance, name).read_text()
            ports = json.loads(_ports_file(instance, name).read_text())
            port = _noted(text, rf"monitor {SENTINEL_SERVICE} [^ ]+ (\d+)")
            seen.append((int(_noted(text, rf"config-epoch {SENTINEL_SERVICE} (\d+)")), ports.get(port, "")))
    best = max(seen)[1] if seen else ""
    return best if best in instance.redis_servers else instance.redis_servers[0]


def _noted(text: str, pattern: str) -> str:
    found = re.search(rf"^sentinel {pattern}", text, re.MULTILINE)
    return found[1] if found else "0"


def _ports_file(instance: Instance, sentinel: str) -> Path:
    """Which server had which port when the sentinel was started: they may have others now."""
    return instance.data_dir(sentinel) / "servers.json"


# -- Cluster ---------------------------------------------------------------------------------------------------------


def hand_over_slots(instance: Instance, name: str, running: Collection[str]) -> None:
    """Have a replica take the slots of node ``name``, which is about to start again while ``running`` parts went on.

    The node finds that out from the others when it starts, before it answers anybody, and becomes a replica. Where
    nobody can take its slots (no replica runs, or too few masters to agree) they stay its own.
    """
    others = [each for each in instance.redis_servers if each in running and each != name]
    nodes = _nodes(instance, others)
    own = nodes.get(_id(instance, name))
    if own is None or not own.slots:
        return
    replicas = [each for each in others if nodes[_id(instance, each)].master_id == own.id]
    if not replicas:
        return

    def taken_over() -> bool:
        return any(_is_master(instance, replica) for replica in replicas)

    _until(taken_over, lambda: _ask_any(instance, replicas, "CLUSTER", "FAILOVER", "FORCE"))


def write_nodes(instance: Instance, name: str) -> None:
    """The node's file of its cluster: whole at the first start, later with the present addresses of the others.

    So the nodes know each other from the start: nobody has to introduce them, and it does not matter which are started
    or which ports were free this time.
    """
    file = instance.data_dir(name) / "nodes.conf"
    addresses = {
        _id(instance, each): f"{HOST}:{instance.ports[each]}@{instance.ports[f'{each}_bus']}"
        for each in instance.redis_servers
    }
    lines = file.read_text().splitlines() if file.exists() else _first_nodes(instance, name)
    nodes = [(line, _NODE.match(line)) for line in lines]
    written = [f"{node['id']} {addresses[node['id']]} {node['rest']}" if node else line for line, node in nodes]
    write_atomically(file, "\n".join([*written, ""]))


def _first_nodes(instance: Instance, name: str) -> list[str]:
    """Masters share the slots, each with one replica."""
    servers, masters = instance.redis_servers, len(_SLOT_RANGES)
    lines = []
    for position, each in enumerate(servers):
        me = "myself," if each == name else ""
        epoch = position % masters + 1
        if position < masters:
            words = f"{me}master - 0 0 {epoch} connected {_SLOT_RANGES[position]}"
        else:
            words = f"{me}slave {_id(instance, servers[position - masters])} 0 0 {epoch} connected"
        lines.append(f"{_id(instance, each)} - {words}")
    return [*lines, f"vars currentEpoch {masters} lastVoteEpoch 0"]


def _nodes(instance: Instance, servers: Sequence[str]) -> dict[str, Node]:
    """The cluster as the first of the servers that answers sees it; empty when none does."""
    for name in servers:
        with suppress(RedisError), asking(instance, name) as ask:
            rows = [line.split(" ") for line in ask("CLUSTER", "NODES").decode().splitlines()]
            return {row[0]: Node(row[0], frozenset(row[2].split(",")), row[3], tuple(row[8:])) for row in rows}
    return {}


def _owner_of(instance: Instance, slot: int) -> str:
    for name in instance.redis_servers:
        with suppress(RedisError), asking(instance, name) as ask:
            for first, last, master, *_ in ask("CLUSTER", "SLOTS"):
                if first <= slot <= last:
                    return _part_at(instance, master[1])
    return _no_master()


# -- Asking ----------------------------------------------------------------------------------------------------------


@contextmanager
def asking(instance: Instance, name: str) -> Iterator[Ask]:
    """Ask one part of Redis, each command by its words; it answers as the server does. Raises RedisError."""
    make: Any = Connection  # redis-py has no types for what a connection does
    connection = make(HOST, instance.ports[name], socket_timeout=_TIMEOUT_S, protocol=2, driver_info=None)

    def ask(*words: str | int) -> Any:
        connection.send_command(*words)
        return connection.read_response()

    try:
        yield ask
    finally:
        connection.disconnect()


def _is_master(instance: Instance, name: str) -> bool:
    with suppress(RedisError):
        return role_of(instance, name).master is None
    return False


def _ask_any(instance: Instance, names: Sequence[str], *words: str) -> None:
    """The first that does not refuse. A refusal is no fault: what was asked for may be under way."""
    for name in names:
        with suppress(RedisError), asking(instance, name) as ask:
            ask(*words)
            return


def _until(done: Callable[[], bool], ask: Callable[[], None]) -> None:
    """Ask again and again until it is done, or has had its time."""
    deadline_s = time.monotonic() + _FAILOVER_S
    asked_s = -_ASK_AGAIN_S
    while not done() and time.monotonic() < deadline_s:
        if time.monotonic() - asked_s >= _ASK_AGAIN_S:
            ask()
            asked_s = time.monotonic()
        time.sleep(_POLL_S)


def pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """What a server answers as names and values by turns."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _part_at(instance: Instance, port: int) -> str:
    """The server that listens on the port; its address where that is none of ours, or not any more."""
    return next((name for name in instance.redis_servers if instance.ports[name] == port), f"{HOST}:{port}")


def _no_master() -> str:
    raise NoMaster("no master answers at this moment")


def _id(instance: Instance, name: str) -> str:
    """The name by which a node or a sentinel is known to its peers, the same at each start."""
    return sha1(f"{instance.dir} {name}".encode(), usedforsecurity=False).hexdigest()
