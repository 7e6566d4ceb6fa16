"""A client of a cluster: each command goes to the master of its key's slot."""

import random
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from redis.cluster import RedisCluster
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, RedisError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from booking.platform.redis_client import (
    Ask,
    Client,
    Server,
    asking,
    asking_together,
    connection_options,
    pauses,
    server_at,
    timed_out,
)
from booking.platform.redis_urls import RedisUrl
from booking.platform.settings import settings

Address = tuple[str, int]

_ELSEWHERE = (AskError, ClusterDownError, TryAgainError, RedisConnectionError, RedisTimeoutError)
"""After these (MovedError is an AskError) the command belongs to another node, or to the same one a little later."""

_LEADERLESS_S = 0.2
_FRESH_S = 0.05
_KEY_POSITIONS = {"EVAL": 3, "EVALSHA": 3, "FCALL": 3}
"""Of commands whose first key is not their first word."""

_slot_maps: dict[RedisUrl, "_SlotMap"] = {}


class ClusterClient(Client):
    """A client of all masters of a cluster, over a connection to each that is asked.

    A command goes where its slot was last known to be, and follows where it is sent from there. Where nobody serves the
    slot it waits for a replica to be promoted, for at most ``redis_timeout_s``; where one has waited in vain, for a
    moment nobody asks the lost master, and then one at a time, while the others fail at once.
    """

    def __init__(self, url: RedisUrl) -> None:
        super().__init__()
        self._url = url
        self._slots = _slot_maps.setdefault(url, _SlotMap(url))
        self._servers: dict[Address, Server] = {}

    def execute_together(self, commands: Sequence[tuple[str, bytes]]) -> list[Any]:
        replies: list[Any] = [None] * len(commands)
        by_node: dict[Address, list[int]] = {}
        for position, (key, _) in enumerate(commands):
            try:
                by_node.setdefault(self._slots.owner(key_slot(key.encode())), []).append(position)
            except RedisError as fault:
                replies[position] = fault
        for node, positions in by_node.items():
            answered = self._ask_together(node, [commands[position] for position in positions])
            for position, reply in zip(positions, answered, strict=True):
                replies[position] = reply
        return replies

    def _masters(self) -> Iterable[Server]:
        return [self._server(node) for node in self._slots.all_owners()]

    def _exchange(self, key: str, ask: Ask) -> Any:
        slot = key_slot(key.encode())
        node = self._slots.owner(slot)
        try:
            return self._server(node).exchange(ask)
        except _ELSEWHERE as fault:
            return self._follow(slot, node, ask, fault)

    def _follow(self, slot: int, node: Address, ask: Ask, fault: RedisError) -> Any:
        """Ask again where the fault says, or wherever the slot is now."""
        for pause_s in pauses(settings().redis_timeout_s):
            time.sleep(pause_s)
            next_node, next_ask = self._next(slot, node, ask, fault)
            if timed_out(fault) and next_node == node:
                raise fault
            try:
                return self._server(next_node).exchange(next_ask)
            except _ELSEWHERE as again:
                node, fault = next_node, again
        if isinstance(fault, RedisConnectionError):
            self._server(node).rest(_LEADERLESS_S)
        raise fault

    def _next(self, slot: int, node: Address, ask: Ask, fault: RedisError) -> tuple[Address, Ask]:
        if isinstance(fault, AskError):
            named = (fault.host or node[0], fault.port)
            if isinstance(fault, MovedError):
                self._slots.moved(slot, named)
                return named, ask
            return named, _while_importing(ask)
        self._slots.refresh()
        return self._slots.owner(slot), ask

    def _ask_together(self, node: Address, commands: Sequence[tuple[str, bytes]]) -> list[Any]:
        ask = asking_together([command for _, command in commands])
        try:
            replies: list[Any] = self._server(node).exchange(ask)
        except RedisError as fault:
            replies = [fault] * len(commands)
        return [self._settled(*command, node, reply) for command, reply in zip(commands, replies, strict=True)]

    def _settled(self, key: str, command: bytes, node: Address, reply: Any) -> Any:
        """The reply, or what came of asking again where it says so."""
        if not isinstance(reply, _ELSEWHERE):
            return reply
        try:
            return self._follow(key_slot(key.encode()), node, asking(command), reply)
        except RedisError as fault:
            return fault

    def _server(self, node: Address) -> Server:
        server = self._servers.get(node)
        if server is None:
            server = self._servers[node] = server_at(self._url.server_url(*node))
        return server

    def _key_of(self, words: Sequence[Any]) -> str:
        """Raises ValueError for a command without a key: none of the nodes is the one to ask."""
        name = str(words[0]).upper()
        position = _KEY_POSITIONS.get(name, 1)
        if name in RedisCluster.COMMAND_FLAGS or len(words) <= position:
            raise ValueError(f"{name} names no key, so no node of the cluster is the one to ask")
        key = words[position]
        return key.decode() if isinstance(key, bytes) else str(key)


class _SlotMap:
    """Which master serves which slot, as far as this process's threads know."""

    def __init__(self, url: RedisUrl) -> None:
        self._url = url
        self._owners: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        self._nodes: set[Address] = set()
        self._lock = threading.Lock()
        self._read_s = float("-inf")
        self._is_away = False

    def owner(self, slot: int) -> Address:
        """Raises ClusterDownError where nobody serves the slot, ConnectionError where no node answers."""
        owner = self._owners[slot]
        if owner is None:
            self.refresh()
            owner = self._owners[slot]
            if owner is None:
                raise ClusterDownError("no node serves the key's slot")
        return owner

    def all_owners(self) -> set[Address]:
        """Raises as ``owner``, for any slot."""
        self.refresh()
        if None in self._owners:
            raise ClusterDownError("no node serves some of the slots")
        return {owner for owner in self._owners if owner is not None}

    def moved(self, slot: int, node: Address) -> None:
        """A slot that has moved is seldom the only one: believe what the server said, and ask for the others."""
        with suppress(RedisError):
            self.refresh(node)
        self._owners[slot] = node

    def refresh(self, first: Address | None = None) -> None:
        """Read the map anew from ``first`` or from any node, unless a thread has done so a moment ago.

        Raises ConnectionError when no node answers.
        """
        asked_s = time.monotonic()
        with self._lock:
            if self._read_s < asked_s - _FRESH_S:
                self._is_away = not any(self._read(node) for node in self._candidates(first))
                self._read_s = time.monotonic()
            if self._is_away:
                raise RedisConnectionError("no node of the cluster answers")

    def _candidates(self, first: Address | None) -> Iterator[Address]:
        """Nodes to ask, one after the other, while there is time: some of them may hang."""
        deadline_s = time.monotonic() + settings().redis_timeout_s
        if first is not None:
            yield first
        others = list({*self._nodes, *self._url.hosts})
        random.shuffle(others)
        for node in others:
            if time.monotonic() < deadline_s:
                yield node

    def _read(self, node: Address) -> bool:
        """Whether the node knew."""
        kind, options = connection_options(self._url.server_url(*node))
        timeout_s = settings().redis_timeout_s / 4
        connection: Any = kind(**options | {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s})
        try:
            connection.send_command("CLUSTER", "SLOTS")
            rows = connection.read_response()
        except RedisError:
            return False
        finally:
            connection.disconnect()
        owners: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for first, last, *replicated in rows:
            master, *replicas = [_address(each, node) for each in replicated]
            owners[first : last + 1] = [master] * (last + 1 - first)
            self._nodes.update([master, *replicas])
        self._owners = owners
        return bool(rows)


def _address(node: Sequence[Any], asked: Address) -> Address:
    """A node's address in an answer of CLUSTER SLOTS; a node that does not know its own has the one it was asked at."""
    host = node[0]
    return (host.decode() if host else asked[0]), int(node[1])


def _while_importing(ask: Ask) -> Ask:
    """For a node that is taking over the key's slot and serves what it has of it to who says so."""

    def ask_importing(connection: Any) -> Any:
        connection.send_command("ASKING")
        connection.read_response()
        return ask(connection)

    return ask_importing
