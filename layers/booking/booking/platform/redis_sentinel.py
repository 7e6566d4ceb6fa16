"""A client of the master that Sentinel watches over, whoever that is at the moment."""

import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.retry import Retry
from redis.sentinel import Sentinel

from booking.platform.redis_client import (
    Ask,
    Client,
    KernelTimeout,
    Server,
    connection_options,
    is_lost,
    pauses,
    timed_out,
)
from booking.platform.redis_urls import RedisUrl
from booking.platform.settings import settings

Address = tuple[str, int]

_LEADERLESS_S = 0.2

_reigns: dict[RedisUrl, "_Reign"] = {}


class SentinelClient(Client):
    """A client of whoever is the master."""

    def __init__(self, url: RedisUrl) -> None:
        super().__init__()
        self._master = _Master(url)

    def _masters(self) -> Iterable[Server]:
        return [self._master]

    def _exchange(self, key: str, ask: Ask) -> Any:
        return self._master.exchange(ask)


class _Master(Server):
    """The master. A command that meets a dead connection, or a server that has become a replica, looks for the next.

    It looks for at most ``redis_timeout_s``, which is less than a failover takes: people had better be told to come
    back than hold a thread each. Where one has looked in vain, for a moment nobody looks, and then one at a time, while
    the others fail at once.
    """

    def __init__(self, url: RedisUrl) -> None:
        self._reign = _reigns.setdefault(url, _Reign())
        super().__init__(str(url), _connection_to_master(url, self._reign))

    def _ask(self, ask: Ask) -> Any:
        if self._connection.master is not self._reign.master:
            self._connection.disconnect()  # another thread has found another master: the old one may just hang
        try:
            return ask(self._connection)
        except RedisError as fault:
            if not is_lost(fault):
                raise
            return self._ask_next(ask, fault)

    def _ask_next(self, ask: Ask, fault: RedisError) -> Any:
        for pause_s in pauses(settings().redis_timeout_s):
            self._connection.disconnect()
            if timed_out(fault):
                break
            time.sleep(pause_s)
            try:
                return ask(self._connection)
            except RedisError as again:
                if not is_lost(again):
                    raise
                fault = again
        raise fault

    def _silent_s(self, fault: RedisError) -> float:
        return super()._silent_s(fault) or (_LEADERLESS_S if is_lost(fault) else 0.0)


@dataclass(slots=True)
class _Reign:
    """The master's address as this process's threads know it: one object for as long as it is the same."""

    master: Address | None = None


class _ToMaster(Connection):
    """Mixed into a kind of connection: it asks the sentinels where the master is, each time that it is opened.

    What they say may be a moment old, so the server is asked as well: a replica would serve reads of the past.
    """

    def __init__(self, sentinel: Any, service: str, reign: _Reign, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self._sentinel = sentinel
        self._service = service
        self._reign = reign
        self.master: Address | None = reign.master

    def _connect(self) -> socket.socket:
        try:
            self.host, self.port = self._sentinel.discover_master(self._service)
        finally:
            for asked in self._sentinel.sentinels:  # they are needed once in a long while
                asked.connection_pool.disconnect()
        connected: socket.socket = super()._connect()  # type: ignore[no-untyped-call]
        return connected

    def on_connect_check_health(self, check_health: bool = True) -> None:
        super().on_connect_check_health(check_health)
        self.send_command("ROLE")  # type: ignore[no-untyped-call]
        if self.read_response()[0] != b"master":
            raise RedisConnectionError("the server that was the master is a replica now")
        if self._reign.master != (self.host, self.port):
            self._reign.master = (self.host, self.port)
        self.master = self._reign.master


class _PlainToMaster(_ToMaster, KernelTimeout):
    pass


class _TlsToMaster(_ToMaster, SSLConnection):
    pass


def _connection_to_master(url: RedisUrl, reign: _Reign) -> _ToMaster:
    kind, options = connection_options(url.server_url(*url.hosts[0]))
    tls = kind is SSLConnection
    timeout_s = settings().redis_timeout_s / (len(url.hosts) + 1)  # a sentinel that hangs leaves time for the next
    to_sentinels = {name: value for name, value in options.items() if name.startswith("ssl_")} | {
        "ssl": tls,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
        "driver_info": None,  # as in connection_options
    }
    sentinel = Sentinel(url.hosts, sentinel_kwargs=to_sentinels)  # type: ignore[no-untyped-call]
    return (_TlsToMaster if tls else _PlainToMaster)(sentinel, url.service, reign, **options)
