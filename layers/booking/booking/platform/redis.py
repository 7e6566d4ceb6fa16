"""Redis: three endpoints (line, locks, cache; one server by default) and Lua scripts called by their digest.

Redis only sheds load. Whatever is asked here may fail, and then the caller either refuses with ``RedisAway`` or goes on
with Postgres alone; nothing that guards a sale depends on an answer from this module.
"""

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError
from redis.retry import Retry

from booking.platform.problems import Unavailable
from booking.platform.settings import settings
from redis import Redis

Endpoint = Literal["queue", "locks", "cache"]

_connections = threading.local()


class RedisAway(Unavailable):
    """The waiting line is away for a moment; who has a place keeps it, please try again."""

    slug = "line-away"


def redis(endpoint: Endpoint) -> "Redis":
    """This thread's client for ``endpoint``; endpoints with the same URL share one connection.

    One connection for each server and thread, opened at first use, opened again after a fault.
    """
    url = getattr(settings(), f"{endpoint}_redis_url")
    clients: dict[str, Redis] = _connections.__dict__.setdefault("clients", {})
    if url not in clients:
        timeout_s = settings().redis_timeout_s
        # One retry, at once: it covers a connection that the server closed while it was idle. A script may therefore
        # run twice, which is why every script says in its head why that is harmless.
        clients[url] = Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), retries=1),
            max_connections=1,
        )
    return clients[url]


@contextmanager
def redis_away_refuses() -> Iterator[None]:
    """Turn a fault of Redis into the ``RedisAway`` refusal (503 with Retry-After)."""
    try:
        yield
    except RedisError as fault:
        raise RedisAway(retry_after_s=2) from fault


class Script:
    """A Lua script, sent by digest and loaded when the server does not know it (one extra trip, once a server)."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, client: "Redis", keys: Sequence[str], args: Sequence[str | int | float]) -> Any:
        """Run the script and return Redis's reply. Raises RedisError when the server cannot be asked."""
        try:
            return client.evalsha(self.digest, len(keys), *keys, *args)
        except NoScriptError:
            return client.eval(self.source, len(keys), *keys, *args)
