"""Redis: three endpoints (line, locks, cache; one server by default), and Lua that runs there.

Each endpoint may be a single server, a master under Sentinel, or a cluster (``redis_urls``).

Redis only sheds load. Whatever is asked here may fail, and then the caller either refuses with ``RedisAway`` or goes on
with Postgres alone; nothing that guards a sale depends on an answer from this module.
"""

import hashlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import hiredis
from redis.exceptions import NoScriptError, RedisError, ResponseError

from booking.platform.problems import Unavailable
from booking.platform.redis_client import Client, SingleClient
from booking.platform.redis_cluster import ClusterClient
from booking.platform.redis_sentinel import SentinelClient
from booking.platform.redis_urls import Kind, RedisUrl, parse_redis_url
from booking.platform.settings import settings

Endpoint = Literal["queue", "locks", "cache"]

_KINDS: Mapping[Kind, Callable[[RedisUrl], Client]] = {
    "single": SingleClient,
    "sentinel": SentinelClient,
    "cluster": ClusterClient,
}
_connections = threading.local()


class RedisAway(Unavailable):
    """The waiting line is away for a moment; who has a place keeps it, please try again."""

    slug = "line-away"


def redis(endpoint: Endpoint) -> Client:
    """This thread's client for ``endpoint``; endpoints with the same URL share one connection."""
    url = getattr(settings(), f"{endpoint}_redis_url")
    clients: dict[str, Client] = _connections.__dict__.setdefault("clients", {})
    if url not in clients:
        address = parse_redis_url(url)
        clients[url] = _KINDS[address.kind](address)
    return clients[url]


@contextmanager
def redis_away_refuses() -> Iterator[None]:
    """Turn a fault of Redis into the ``RedisAway`` refusal (503 with Retry-After)."""
    try:
        yield
    except RedisError as fault:
        raise RedisAway(retry_after_s=2) from fault


class Lua(ABC):
    """Something in Lua that a server runs, and that is sent to a server that does not know it (two extra trips, once).

    All its keys have one hash tag: the first of them says which server of a cluster runs it.
    """

    command: str
    name: str
    """What the server knows it by: ``<command> <name> <number of keys> <keys> <arguments>`` runs it."""

    def __call__(self, client: Client, keys: Sequence[str], args: Sequence[str | int | float]) -> Any:
        """Run it and return Redis's reply. Raises RedisError when the server cannot be asked."""
        command = self.packed(keys, args)
        try:
            return client.execute_packed(keys[0], command)
        except ResponseError as fault:
            if not self.is_unknown(fault):
                raise
        self.load(client, keys[0])
        return client.execute_packed(keys[0], command)

    def packed(self, keys: Sequence[str], args: Sequence[str | int | float]) -> bytes:
        """The call in the wire format, for a server that knows it."""
        return packed_command(self.command, self.name, len(keys), *keys, *args)

    @abstractmethod
    def is_unknown(self, fault: RedisError) -> bool:
        """Whether this is what a server says that does not know it."""

    @abstractmethod
    def load(self, client: Client, key: str) -> None:
        """Make it known to the server that has ``key``. Raises RedisError."""


class Script(Lua):
    """A script of its own, known by its digest to the servers that have seen it. Its source uses KEYS and ARGV."""

    command = "EVALSHA"

    def __init__(self, source: str) -> None:
        self.source = source
        self.name = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    def is_unknown(self, fault: RedisError) -> bool:
        return isinstance(fault, NoScriptError)

    def load(self, client: Client, key: str) -> None:
        client.execute_packed(key, packed_command("SCRIPT", "LOAD", self.source))


class Library:
    """Lua functions that share code; servers keep them, and so do their replicas (Redis functions).

    A script would make what it shares with others anew at each call. A library's shared code ran when it was loaded; it
    finds in KEYS and ARGV what each call sets before ``take_arguments()``, which the shared code defines.
    The library and its functions are named by their digest, so that callers of an older and of a newer one do not meet.
    One that nobody calls any more may be deleted (FUNCTION DELETE, or FLUSH: callers load what they miss).
    """

    def __init__(self, name: str, shared: str, functions: Mapping[str, str]) -> None:
        code = "local KEYS, ARGV\n" + shared
        digest = hashlib.sha1(f"{code}{functions}".encode(), usedforsecurity=False).hexdigest()
        self._name = f"{name}_{digest[:12]}"
        self._functions = {function: f"{self._name}_{function}" for function in functions}
        registered = [_registered(self._functions[function], body) for function, body in functions.items()]
        self.source = f"#!lua name={self._name}\n{code}{''.join(registered)}"

    def functions(self) -> dict[str, "Function"]:
        """Its functions by name."""
        return {name: Function(self, known_as) for name, known_as in self._functions.items()}


class Function(Lua):
    """A function of a library."""

    command = "FCALL"

    def __init__(self, library: Library, name: str) -> None:
        self._library = library
        self.name = name

    def is_unknown(self, fault: RedisError) -> bool:
        return str(fault) == "Function not found"

    def load(self, client: Client, key: str) -> None:
        client.execute_packed(key, packed_command("FUNCTION", "LOAD", "REPLACE", self._library.source))


def _registered(known_as: str, body: str) -> str:
    head = f"redis.register_function('{known_as}', function(keys, args)"
    return f"{head}\n  KEYS, ARGV = keys, args\n  take_arguments()\n{body}end)\n"


@dataclass(frozen=True, slots=True)
class Call:
    """One run of something in Lua whose reply nobody waits for, to be sent together with others."""

    endpoint: Endpoint
    script: Lua
    keys: Sequence[str]
    args: Sequence[str | int | float]


def run_together(calls: Iterable[Call]) -> None:
    """Run scripts in one trip to each server that they are for.

    Each server is tried, whatever became of the others; then raises the first RedisError that there was.
    """
    by_server: dict[Client, list[Call]] = {}
    for call in calls:
        by_server.setdefault(redis(call.endpoint), []).append(call)
    faults: list[RedisError] = []
    for client, batch in by_server.items():
        try:
            _run_batch(client, batch)
        except RedisError as fault:
            faults.append(fault)
    if faults:
        raise faults[0]


def _run_batch(client: Client, batch: Sequence[Call]) -> None:
    faults: list[RedisError] = []
    replies = client.execute_together([(call.keys[0], call.script.packed(call.keys, call.args)) for call in batch])
    for call, reply in zip(batch, replies, strict=True):
        if not isinstance(reply, RedisError):
            continue
        if call.script.is_unknown(reply):
            call.script(client, call.keys, call.args)
        else:
            faults.append(reply)
    if faults:
        raise faults[0]


def packed_command(*words: str | int | float) -> bytes:
    """A command in the wire format, for ``Client.execute_packed``."""
    packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # its types know tuples of one word only
    return packed
