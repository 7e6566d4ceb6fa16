"""Redis: three endpoints (line, locks, cache; one server by default) and Lua scripts called by their digest.

Redis only sheds load. Whatever is asked here may fail, and then the caller either refuses with ``RedisAway`` or goes on
with Postgres alone; nothing that guards a sale depends on an answer from this module.
"""

import hashlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from redis.connection import Connection, parse_url
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from booking.platform.problems import Unavailable
from booking.platform.settings import settings
from redis import Redis

Endpoint = Literal["queue", "locks", "cache"]

_SILENT_S = 1.0

_connections = threading.local()
_silences: dict[str, "_Silence"] = {}


class RedisAway(Unavailable):
    """The waiting line is away for a moment; who has a place keeps it, please try again."""

    slug = "line-away"


class _Connection(Connection):
    """Lets the kernel watch the timeout: Python would ask it before each send and receive whether it may go on."""

    def _connect(self) -> socket.socket:
        connected: socket.socket = super()._connect()  # type: ignore[no-untyped-call]
        timeout_s = connected.gettimeout()
        if timeout_s is not None:
            limit = struct.pack("ll", int(timeout_s), int(timeout_s % 1 * 1_000_000))
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            connected.settimeout(None)
        return connected


class _Silence:
    """What this process's threads know of a server that lets commands time out: it hangs, or its network is cut.

    A request asks several times, and each would cost a whole timeout. So nobody asks for ``_SILENT_S`` after a timeout;
    then one thread tries, and the others fail at once until it knows more.
    """

    def __init__(self) -> None:
        self._until_s: float | None = None
        self._lock = threading.Lock()

    def refuses(self) -> bool:
        """Whether a command is to fail without being sent."""
        if self._until_s is None:
            return False
        with self._lock:
            now_s = time.monotonic()
            if now_s < (self._until_s or 0):
                return True
            self._until_s = now_s + settings().redis_timeout_s + _SILENT_S  # for the others, while this thread asks
            return False

    def heard(self, timed_out: bool) -> None:
        """Tell what became of a command that was sent."""
        if timed_out:
            self._until_s = time.monotonic() + _SILENT_S
        elif self._until_s is not None:
            self._until_s = None


class Client(Redis):
    """redis-py's commands over one connection of this thread's own, opened at first use.

    A pool would ask before each command whether its connection still lives. Instead a command that finds it dead is
    sent once more, at once: a server closes what was idle. A script may therefore run twice, which is why every script
    says in its head why that is harmless. A command that times out is not sent again (see ``_Silence``).
    """

    def __init__(self, url: str) -> None:
        super().__init__()  # its pool stays empty
        timeout_s = settings().redis_timeout_s
        address: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
        kind = address.pop("connection_class", _Connection)  # another one for TLS or a Unix socket
        # Any: redis-py has no types for what a connection does.
        self._connection: Any = kind(**address, socket_timeout=timeout_s, socket_connect_timeout=timeout_s)
        self._silence = _silences.setdefault(url, _Silence())

    def execute_command(self, *words: Any, **options: Any) -> Any:
        """Send one command and return its reply as redis-py does. Raises RedisError."""

        def ask(connection: Any) -> Any:
            connection.send_command(*words)
            return self.parse_response(connection, words[0], **options)  # type: ignore[no-untyped-call]

        return self._exchange(ask)

    def execute_packed(self, command: bytes) -> Any:
        """Send a command that is in the wire format already and return the bare reply. Raises RedisError."""

        def ask(connection: Any) -> Any:
            connection.send_packed_command([command], check_health=False)
            return connection.read_response()

        return self._exchange(ask)

    def execute_together(self, commands: Sequence[bytes]) -> list[Any]:
        """Send packed commands in one trip and return their bare replies, a refusal of the server as the error itself.

        Raises RedisError when the server cannot be asked; then any number of the commands may have run.
        """

        def ask(connection: Any) -> list[Any]:
            connection.send_packed_command([b"".join(commands)], check_health=False)
            return [_reply_or_error(connection) for _ in commands]

        replies: list[Any] = self._exchange(ask)
        return replies

    def _exchange(self, ask: Callable[[Any], Any]) -> Any:
        if self._silence.refuses():
            raise RedisTimeoutError("Redis has not answered a moment ago and is not asked just now")
        timed_out = False
        try:
            return self._ask_twice(ask)
        except (RedisConnectionError, RedisTimeoutError) as fault:
            timed_out = _timed_out(fault)
            raise
        finally:
            self._silence.heard(timed_out)

    def _ask_twice(self, ask: Callable[[Any], Any]) -> Any:
        try:
            return ask(self._connection)
        except (RedisConnectionError, RedisTimeoutError) as fault:
            self._connection.disconnect()
            if _timed_out(fault):
                raise
            return ask(self._connection)


def redis(endpoint: Endpoint) -> Client:
    """This thread's client for ``endpoint``; endpoints with the same URL share one connection."""
    url = getattr(settings(), f"{endpoint}_redis_url")
    clients: dict[str, Client] = _connections.__dict__.setdefault("clients", {})
    if url not in clients:
        clients[url] = Client(url)
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

    def __call__(self, client: Client, keys: Sequence[str], args: Sequence[str | int | float]) -> Any:
        """Run the script and return Redis's reply. Raises RedisError when the server cannot be asked."""
        try:
            return client.execute_packed(self.packed(keys, args))
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
    replies = client.execute_together([call.script.packed(call.keys, call.args) for call in batch])
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


def _timed_out(fault: RedisError) -> bool:
    """Whether the server was asked and did not answer; where the kernel watches the timeout, it says EAGAIN."""
    return isinstance(fault, RedisTimeoutError) or isinstance(fault.__context__, BlockingIOError)


def _reply_or_error(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as refused:  # the replies of the other commands are still to be read
        return refused


@lru_cache(maxsize=1024)
def _packed_head(digest: str, keys: tuple[str, ...]) -> bytes:
    """The part of a script's call that does not change for one concert, packed once: with the ten keys of a line,
    packing takes longer than waiting for the answer."""
    return _packed(("EVALSHA", digest, len(keys), *keys))


def _packed(words: Sequence[str | int | float]) -> bytes:
    """Words in Redis's wire format (RESP bulk strings)."""
    encoded = [str(word).encode() for word in words]
    return b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded])
