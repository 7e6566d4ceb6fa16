"""Postgres: one connection for each server and thread, opened at first use, prepared statements, one trip a statement.

Every statement is its own transaction (autocommit): what must happen together is one SQL function. The caller says by
name which server answers: ``primary()`` for writes and for what a person owns, ``replica()`` for the rest.
Which servers these are at the moment, ``postgres_hosts`` finds out.

A process of many threads may share a few connections among them (``share_connections``): each is lent for one
statement, so that who waits for somebody else, such as a payment firm, holds none.
"""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import msgspec
import pg8000.native
from pg8000.exceptions import DatabaseError

from booking.platform.postgres_hosts import (
    AWAY_STATES,
    CONNECTION_FAULTS,
    SILENT_S,
    Limits,
    NoServer,
    Opened,
    database,
    sqlstate,
    timed_out,
)
from booking.platform.problems import Unavailable
from booking.platform.settings import settings

Row = list[Any]

_READ_ONLY = "25006"
_GAVE_UP_WAITING = {"55P03", "57014", "40P01", "40001"}

_RETRY_AFTER_S = 2
_LIMITS_OF_TOOLS = Limits(connect_timeout_s=5.0, statement_timeout_ms=5_000, lock_timeout_ms=5_000)

_servers = threading.local()


class DatabaseAway(Unavailable):
    """The database is away for a moment; nothing was changed that the same request will not find, please try again."""

    slug = "database-away"


class DatabaseBusy(Unavailable):
    """The database is busy with these seats; nothing was changed, please try again."""

    slug = "database-busy"


class Queries(ABC):
    """One database that can be asked."""

    @abstractmethod
    def rows(self, sql: str, *, safe_to_repeat: bool = True, **parameters: Any) -> list[Row]:
        """Run one statement and return its rows. What it raises, ``Server.rows`` says."""

    def value(self, sql: str, *, safe_to_repeat: bool = True, **parameters: Any) -> Any:
        """The first column of the first row, None when there is no row. Raises as ``rows``."""
        found = self.rows(sql, safe_to_repeat=safe_to_repeat, **parameters)
        return found[0][0] if found else None

    def document(self, sql: str, *, safe_to_repeat: bool = True, **parameters: Any) -> Any:
        """The first column of the first row, JSON text, decoded; None when there is no row. Raises as ``rows``."""
        text = self.value(sql, safe_to_repeat=safe_to_repeat, **parameters)
        return None if text is None else msgspec.json.decode(text)


class Server(Queries):
    """One database as one thread sees it: a lazily opened connection and its prepared statements.

    The connection goes to whoever of the URL's servers takes writes; with ``writes=False`` to a standby, or to whoever
    answers while there is none. A server that is lost is replaced by the one that has taken its place (postgres_hosts).
    """

    def __init__(self, url: str, *, statement_timeout_ms: int | None = None, writes: bool = True) -> None:
        self._database = database(url)
        self._statement_timeout_ms = statement_timeout_ms or settings().statement_timeout_ms
        self._writes = writes
        self._prefers_standby = not writes and len(self._database.url.hosts) > 1
        self._opened: Opened | None = None
        self._prepared: dict[str, pg8000.native.PreparedStatement] = {}

    def rows(self, sql: str, *, safe_to_repeat: bool = True, **parameters: Any) -> list[Row]:
        """Run one statement and return its rows.

        ``safe_to_repeat`` says that running it twice does no harm: then a connection that turns out to be dead is
        replaced and the statement is sent once more. Raises DatabaseAway when no server can be asked (or, for a
        statement not safe to repeat, when its outcome is unknown), DatabaseBusy when a timeout ended the wait for a
        lock, and pg8000's DatabaseError for everything that is a fault of the statement.

        Nothing waits for a failover: it takes longer than a request may, and who is told to come back holds no thread.
        """
        try:
            return self._run(sql, parameters)
        except (DatabaseError, NoServer, *CONNECTION_FAULTS) as fault:
            self._judge(fault)
            did_nothing = _did_nothing(fault)
            if timed_out(fault) or not (safe_to_repeat or did_nothing):
                raise DatabaseAway(retry_after_s=_RETRY_AFTER_S) from fault
        try:
            return self._run(sql, parameters)
        except (DatabaseError, NoServer, *CONNECTION_FAULTS) as fault:
            try:
                self._judge(fault)
            except DatabaseBusy:
                if did_nothing:
                    raise
            # That the second try has changed nothing does not say that of the first.
            raise DatabaseAway(retry_after_s=_RETRY_AFTER_S) from fault

    def close(self) -> None:
        """Forget the connection; the next statement opens another. Never raises."""
        opened, self._opened = self._opened, None
        self._prepared.clear()
        if opened is not None:
            opened.close()

    def _run(self, sql: str, parameters: dict[str, Any]) -> list[Row]:
        opened = self._opened
        if opened is None or self._is_outdated(opened):
            opened = self._open()
        silence = self._database.silence(opened.host)
        if silence.refuses():
            raise NoServer("it has not answered a moment ago and is not asked just now")
        silent_s = 0.0
        try:
            statement = self._prepared.get(sql)
            if statement is None:
                statement = self._prepared[sql] = opened.connection.prepare(sql)
            return statement.run(**parameters) or []
        except CONNECTION_FAULTS as fault:
            if timed_out(fault):
                silent_s = SILENT_S
            raise
        finally:
            silence.heard(silent_s)

    def _judge(self, fault: Exception) -> None:
        """Forget a connection that is lost. Raises what a fault means that no other connection helps."""
        if isinstance(fault, DatabaseError):
            code = sqlstate(fault)
            if code in _GAVE_UP_WAITING:
                raise DatabaseBusy(retry_after_s=1) from fault
            if code != _READ_ONLY and code not in AWAY_STATES:
                raise fault
        self._database.doubt()
        self.close()

    def _is_outdated(self, opened: Opened) -> bool:
        """Whether there is a better server: for writes the one that another thread has found in place of this one."""
        if self._writes:
            return opened.host is not self._database.writer
        if not self._prefers_standby:
            return False
        if opened.better_after_s is None:
            if opened.in_recovery:
                return False
            opened.look_again_later()  # it was promoted under us: as good as before, but the primary has more to do
        return opened.better_after_s is not None and time.monotonic() > opened.better_after_s

    def _open(self) -> Opened:
        database = self._database
        limits = Limits(settings().connect_timeout_s, self._statement_timeout_ms, settings().lock_timeout_ms)
        if self._writes:
            self.close()
            self._opened = database.open_writer(limits)
        elif self._opened is None:
            self._opened = database.open_reader(limits)
        elif standby := database.open_standby(limits):
            self.close()
            self._opened = standby
        else:
            self._opened.look_again_later()
        return self._opened


class SharedServer(Queries):
    """One database as all threads of a process see it: ``count`` connections, each lent for one statement."""

    def __init__(self, url: str, count: int, *, writes: bool) -> None:
        # The one that was given back last is lent first: it is warm, and the others may stay unopened.
        self._free = [Server(url, writes=writes) for _ in range(count)]
        self._turns: SimpleQueue[None] = SimpleQueue()
        for _ in range(count):
            self._turns.put(None)

    def rows(self, sql: str, *, safe_to_repeat: bool = True, **parameters: Any) -> list[Row]:
        """As ``Server.rows``, once a connection is free. Each is busy for no longer than a statement may take."""
        with self._one() as server:
            return server.rows(sql, safe_to_repeat=safe_to_repeat, **parameters)

    @contextmanager
    def _one(self) -> Iterator[Server]:
        self._turns.get()
        server = self._free.pop()
        try:
            yield server
        finally:
            self._free.append(server)
            self._turns.put(None)


class _Sharing:
    """What the threads of this process share; ``count`` 0 means that each has its own."""

    def __init__(self) -> None:
        self.count = 0
        self._servers: dict[tuple[str, bool], SharedServer] = {}
        self._opening = threading.Lock()

    def server(self, url: str, *, writes: bool) -> SharedServer:
        """The one of this process for ``url``."""
        return self._servers.get((url, writes)) or self._open(url, writes)

    def _open(self, url: str, writes: bool) -> SharedServer:
        with self._opening:
            if (url, writes) not in self._servers:
                self._servers[url, writes] = SharedServer(url, self.count, writes=writes)
            return self._servers[url, writes]


_sharing = _Sharing()


def share_connections(count: int) -> None:
    """Let the threads of this process share ``count`` connections to each server, from before the first statement."""
    _sharing.count = count


def _did_nothing(fault: Exception) -> bool:
    """Whether the statement surely changed nothing: it was not sent, or met a server that takes no writes."""
    return isinstance(fault, NoServer) or (isinstance(fault, DatabaseError) and sqlstate(fault) == _READ_ONLY)


def primary() -> Queries:
    """The server that takes writes, over this thread's connection or a shared one."""
    return _server(settings().database_url, writes=True)


def replica() -> Queries:
    """The read replica, which answers only for what it has replayed, over this thread's connection or a shared one.

    Where the setting names several servers, the primary stands in while there is no replica.
    """
    return _server(settings().replica_url, writes=False)


def read_anywhere(sql: str, **parameters: Any) -> list[Row]:
    """Rows from the replica, or from the primary while the replica is away or gives up (replaying may cancel what it
    answers). For reads that may be a moment old."""
    try:
        return replica().rows(sql, **parameters)
    except (DatabaseAway, DatabaseBusy):
        return primary().rows(sql, **parameters)


def writer_url(url: str) -> str:
    """The URL of the one server that takes writes now, for tools that know but one. Raises DatabaseAway.

    Needs no settings: migrations run without them.
    """
    known = database(url)
    if len(known.url.hosts) == 1:
        return url
    try:
        opened = known.open_writer(_LIMITS_OF_TOOLS)
    except NoServer as fault:
        raise DatabaseAway(str(fault)) from fault
    opened.close()
    return known.url.server_url(opened.host)


def _server(url: str, *, writes: bool) -> Queries:
    if _sharing.count:
        return _sharing.server(url, writes=writes)
    servers: dict[tuple[str, bool], Server] = _servers.__dict__.setdefault("by_url", {})
    if (url, writes) not in servers:
        servers[url, writes] = Server(url, writes=writes)
    return servers[url, writes]
