"""Redis: three endpoints (line, locks, cache; one server by default) and Lua scripts called by their digest.

Each endpoint may be a single server, a master under Sentinel, or a cluster (``redis_urls``).

Redis only sheds load. Whatever is asked here may fail, and then the caller either refuses with ``RedisAway`` or goes on
with Postgres alone; nothing that guards a sale depends on an answer from this module.
"""

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from redis.exceptions import NoScriptError, RedisError

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


class Script:
    """A Lua script, sent by digest and loaded when the server does not know it (one extra trip, once a server).

    All its keys have one hash tag: the first of them says which server of a cluster runs it.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, client: Client, keys: Sequence[str], args: Sequence[str | int | float]) -> Any:
        """Run the script and return Redis's reply. Raises RedisError when the server cannot be asked."""
        try:
            return client.execute_packed(keys[0], self.packed(keys, args))
        except NoScriptError:
            return client.eval(self.source, len(keys), *keys, *args)

    def packed(self, keys: Sequence[str], args: Sequence[str | int | float]) -> bytes:
        """The call in the wire format, for a server that knows the script."""
        head = _packed_head(self.digest, tuple(keys))
        return b"*%d\r\n%b%b" % (3 + len(keys) + len(args), head, _packed(args))


@dataclass(frozen=True, slots=True)
class Call:
    """One run of a script whose reply nobody waits for, to be sent together with others."""

    endpoint: Endpoint
    script: Script
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
        if isinstance(reply, NoScriptError):
            client.eval(call.script.source, len(call.keys), *call.keys, *call.args)
        elif isinstance(reply, RedisError):
            faults.append(reply)
    if faults:
        raise faults[0]


def packed_command(*words: str | int | float) -> bytes:
    """A command in the wire format, for ``Client.execute_packed``."""
    return b"*%d\r\n%b" % (len(words), _packed(words))


@lru_cache(maxsize=1024)
def _packed_head(digest: str, keys: tuple[str, ...]) -> bytes:
    """The part of a script's call that does not change for one concert, packed once: with the ten keys of a line,
    packing takes longer than waiting for the answer."""
    return _packed(("EVALSHA", digest, len(keys), *keys))


def _packed(words: Sequence[str | int | float]) -> bytes:
    """Words in Redis's wire format (RESP bulk strings)."""
    encoded = [str(word).encode() for word in words]
    return b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded])
