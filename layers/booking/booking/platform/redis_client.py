"""A client of one Redis server, and what the clients of Sentinel and of a cluster share with it.

redis-py's commands over one connection to each server and thread, opened at first use. A pool would ask before each
command whether its connection still lives. Instead a command that finds it dead is sent once more, at once: a server
closes what was idle. A script may therefore run twice, which is why every script says in its head why that is harmless.
A command that times out is not sent again (see ``Silence``).
"""

import random
import socket
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from redis.connection import Connection, parse_url
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from booking.platform.redis_urls import RedisUrl
from booking.platform.settings import settings
from booking.platform.silence import Silence
from redis import Redis

Ask = Callable[[Any], Any]
"""Sends something over a connection and answers with what came back; raises RedisError. A connection is Any: redis-py
has no types for what it does."""

_SILENT_S = 1.0
_PAUSE_FIRST_S = 0.01
_PAUSE_MAX_S = 0.1
_KEYS_PER_SLICE = 250

_silences: dict[str, Silence] = {}


class Client(Redis, ABC):
    """redis-py's commands, and cheaper ones.

    ``key`` is one that the command touches: it says which server of a cluster is asked.
    """

    def __init__(self) -> None:
        super().__init__(driver_info=None)  # its pool stays empty

    def execute_command(self, *words: Any, **options: Any) -> Any:
        """Send one command and return its reply as redis-py does. Raises RedisError."""

        def ask(connection: Any) -> Any:
            connection.send_command(*words)
            return self.parse_response(connection, words[0], **options)  # type: ignore[no-untyped-call]

        return self._exchange(self._key_of(words), ask)

    def execute_packed(self, key: str, command: bytes) -> Any:
        """Send a command that is in the wire format already and return the bare reply. Raises RedisError."""
        return self._exchange(key, asking(command))

    def execute_together(self, commands: Sequence[tuple[str, bytes]]) -> list[Any]:
        """Send packed commands, each with a key of it, in one trip to each server that they are for.

        Returns their bare replies; in place of a reply the error, where a server refused a command, or where one of
        several servers could not be asked. Raises RedisError when no server can be asked. What could not be asked may
        have run all the same.
        """
        replies: list[Any] = self._exchange(commands[0][0], asking_together([command for _, command in commands]))
        return replies

    def keys_like(self, pattern: str) -> set[str]:
        """The keys of all servers that match a glob pattern, found in slices that keep nobody else waiting.

        Walks over every key that there is: for an operator's look, not for a request. Raises RedisError.
        """
        found: set[str] = set()
        for server in self._masters():
            cursor = b"0"
            while True:
                cursor, keys = server.exchange(asking_words("SCAN", cursor, "MATCH", pattern, "COUNT", _KEYS_PER_SLICE))
                found.update(key.decode() for key in keys)
                if cursor == b"0":
                    break
        return found

    @abstractmethod
    def _masters(self) -> Iterable["Server"]:
        """The servers that have all keys between them. Raises RedisError where nobody has some of them."""

    def _key_of(self, words: Sequence[Any]) -> str:
        """A key of the command; nobody looks at it where there is but one server to ask."""
        return ""

    @abstractmethod
    def _exchange(self, key: str, ask: Ask) -> Any:
        """Ask the server that has ``key``. Raises RedisError."""


class SingleClient(Client):
    """A client of one server."""

    def __init__(self, url: RedisUrl) -> None:
        super().__init__()
        self._server = server_at(url.server_url(*url.hosts[0]))

    def _masters(self) -> Iterable["Server"]:
        return [self._server]

    def _exchange(self, key: str, ask: Ask) -> Any:
        return self._server.exchange(ask)


class Server:
    """One server, over a connection of this thread's own. ``name`` is the same for all threads."""

    def __init__(self, name: str, connection: Any) -> None:
        self._connection = connection
        self._silence = _silences.setdefault(name, Silence(_asking_s))

    def exchange(self, ask: Ask) -> Any:
        """Raises RedisError; at once while the server is silent."""
        if self._silence.refuses():
            raise RedisTimeoutError("Redis has not answered a moment ago and is not asked just now")
        silent_s = 0.0
        try:
            return self._ask(ask)
        except RedisError as fault:
            silent_s = self._silent_s(fault)
            raise
        finally:
            self._silence.heard(silent_s)

    def rest(self, for_s: float) -> None:
        """Let nobody ask for a while."""
        self._silence.heard(for_s)

    def _ask(self, ask: Ask) -> Any:
        try:
            return ask(self._connection)
        except RedisError as fault:
            if not is_lost(fault):
                raise
            self._connection.disconnect()
            if timed_out(fault):
                raise
            return ask(self._connection)

    def _silent_s(self, fault: RedisError) -> float:
        """For how long nobody shall ask after a fault. A connection that is refused costs next to nothing."""
        return _SILENT_S if timed_out(fault) else 0.0


def server_at(url: str) -> Server:
    """The server with this URL; nothing is opened yet."""
    kind, options = connection_options(url)
    return Server(url, kind(**options))


class KernelTimeout(Connection):
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


def connection_options(url: str) -> tuple[type[Connection], dict[str, Any]]:
    """The kind of a connection to one server, and what it takes."""
    options: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
    kind: type[Connection] = options.pop("connection_class", KernelTimeout)  # another one for TLS
    timeout_s = settings().redis_timeout_s
    # Without driver_info: to find its own version redis-py would read its package's metadata, for each connection, and
    # tell the server in two more trips.
    return kind, {**options, "driver_info": None, "socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}


def pauses(within_s: float) -> Iterator[float]:
    """How long to wait before each further try, in seconds, for as long as there is time; the first is at once.

    Jittered: those who have lost the same server must not come back together.
    """
    deadline_s = time.monotonic() + within_s
    yield 0.0
    longest_s = _PAUSE_FIRST_S
    while time.monotonic() + longest_s < deadline_s:
        yield random.uniform(longest_s / 2, longest_s)
        longest_s = min(longest_s * 2, _PAUSE_MAX_S)


def _asking_s() -> float:
    """How long a thread that asks a silent server again may take."""
    return settings().redis_timeout_s + _SILENT_S


def is_lost(fault: RedisError) -> bool:
    """Whether what went wrong is the server, not the command: the connection is dead, or it is no master any more.

    A master that hung while another took its place comes back without replicas, and refuses to write (NOREPLICAS).
    """
    if isinstance(fault, ResponseError):
        return isinstance(fault, ReadOnlyError) or str(fault).startswith("NOREPLICAS")
    return isinstance(fault, (RedisConnectionError, RedisTimeoutError))


def timed_out(fault: RedisError) -> bool:
    """Whether the server was asked and did not answer; where the kernel watches the timeout, it says EAGAIN."""
    return isinstance(fault, RedisTimeoutError) or isinstance(fault.__context__, BlockingIOError)


def asking(command: bytes) -> Ask:
    """Asks a packed command."""

    def ask(connection: Any) -> Any:
        connection.send_packed_command([command], check_health=False)
        return connection.read_response()

    return ask


def asking_words(*words: Any) -> Ask:
    """Asks a command that is not packed yet."""

    def ask(connection: Any) -> Any:
        connection.send_command(*words)
        return connection.read_response()

    return ask


def asking_together(commands: Sequence[bytes]) -> Ask:
    """Asks packed commands in one trip and answers with all replies, a refusal as the error itself."""

    def ask(connection: Any) -> list[Any]:
        connection.send_packed_command([b"".join(commands)], check_health=False)
        replies = [_reply_or_error(connection) for _ in commands]
        for reply in replies:
            if isinstance(reply, RedisError) and is_lost(reply):
                raise reply
        return replies

    return ask


def _reply_or_error(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as refused:  # the replies of the other commands are still to be read
        return refused
